"""Names of things as a sentence has them: with an article, or in the plural."""

from __future__ import annotations

import re

# How a word begins that is spoken with a vowel.
_VOWEL = re.compile(r"(?!one\b|uni|eu|us)[aeiou]|hour", re.IGNORECASE)
_PLURAL_FORMS = re.compile(r"(s|ies|teeth|feet|mice|people|binoculars)$")
_SINGULAR_IN_S = re.compile(
    r"(ss|us|is|gas|lens|iris|bus|cactus|chess|series|octopus|walrus|rhinoceros|triceratops|christmas)$"
)


def add_article(name: str) -> str:
    """A name with its indefinite article: "an orange star", "a unicycle", "an Airedale Terrier"."""
    return f"{'an' if _VOWEL.match(name) else 'a'} {name}"


def with_article(name: str) -> str:
    """The name as an object of a sentence: "an apple", "some grapes"."""
    return f"some {name}" if is_plural(name) else add_article(name)


def is_plural(name: str) -> bool:
    """Whether the noun phrase names several things, or a pair."""
    head = re.split(r" of | with | on ", name)[0].split()[-1]
    return bool(_PLURAL_FORMS.search(head)) and not _SINGULAR_IN_S.search(head)
