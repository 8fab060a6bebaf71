"""Kinds of answers that are counted apart, whatever their score. Loads no torch."""

from __future__ import annotations

import re

_BEGINNINGS = (
    r"I(?: a|')m (?:very |really )?(?:sorry|unable|not able)\b",
    r"sorry[,.!;:]",
    r"unfortunately, I\b",
    r"I (?:do )?apologi[sz]e\b",
    r"I (?:can't|cannot|couldn't|could not|won't)\b",
    r"as an? (?:AI|artificial|(?:large )?language model)\b",
)
_REFUSAL = re.compile("|".join(_BEGINNINGS), re.IGNORECASE)


def is_refusal(text: str) -> bool:
    """Whether an answer begins as one that refuses; an apostrophe may be a typographic one."""
    return _REFUSAL.match(text.strip().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) is not None
