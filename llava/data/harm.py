"""Finds harmful requests and answers by a list of rules, a YAML file that people can read and replace.

Rules find what is said in plain words in a few languages; what they miss is for a classifier
(``collection.plug_ins.Classifier``) and for the review by a person. No torch, no network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.privacy import fold
from llava.errors import UsageError
from llava.yaml_files import parse_mapping, say_kind

RULES_FILE = Path(__file__).with_name("harm_rules.yaml")
_MOST_CHARACTERS = 100_000  # of a text that is searched at a time
_SHARED_CHARACTERS = 1_000  # by two such parts, so that no match is cut


@dataclass(frozen=True)
class HarmRule:
    """A text is harmful where a pattern is found, unless an exception is found at the same place.

    An exception elsewhere in the text excuses nothing: a harmful request could be hidden behind a harmless one.
    """

    name: str
    patterns: tuple[re.Pattern[str], ...]
    exceptions: tuple[re.Pattern[str], ...] = ()

    def applies(self, text: str) -> bool:
        """Whether the text is harmful by this rule."""
        excused = [found.span() for pattern in self.exceptions for found in pattern.finditer(text)]
        return any(
            not any(found.start() < end and begin < found.end() for begin, end in excused)
            for pattern in self.patterns
            for found in pattern.finditer(text)
        )


def read_rules(path: Path = RULES_FILE) -> tuple[HarmRule, ...]:
    """The rules of a file. Raises UsageError for a file that is missing or is not such a list; the place is named."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The harm rules '{path}' cannot be read: {getattr(error, 'strerror', error)}.") from error
    listed = parse_mapping(text, f"The file of harm rules '{path}'").get("rules")
    if not isinstance(listed, list) or not listed:
        raise UsageError(f"The file of harm rules '{path}' needs a list 'rules', each with a name and patterns.")
    return tuple(_read_rule(rule, f"Rule {i + 1} of '{path}'") for i, rule in enumerate(listed))


def find_harm(text: str, rules: tuple[HarmRule, ...]) -> tuple[str, ...]:
    """The names of the rules by which the text is harmful."""
    folded = " ".join(fold(text).replace("’", "'").split())
    step = _MOST_CHARACTERS - _SHARED_CHARACTERS
    parts = [folded[i : i + _MOST_CHARACTERS] for i in range(0, max(1, len(folded) - _SHARED_CHARACTERS), step)]
    return tuple(rule.name for rule in rules if any(rule.applies(part) for part in parts))


def _read_rule(rule: Any, where: str) -> HarmRule:
    if not isinstance(rule, dict) or not isinstance(rule.get("name"), str):
        raise UsageError(f"{where} has to be a mapping with a name and patterns, not {say_kind(rule)}.")
    if unknown := [key for key in rule if key not in ("name", "patterns", "except")]:
        raise UsageError(f"{where} has the unknown key '{unknown[0]}'. There are: name, patterns, except.")
    patterns = _compile(rule.get("patterns"), where)
    if not patterns:
        raise UsageError(f"{where} ('{rule['name']}') has no patterns.")
    return HarmRule(rule["name"], patterns, _compile(rule.get("except"), where))


def _compile(patterns: Any, where: str) -> tuple[re.Pattern[str], ...]:
    patterns = [] if patterns is None else [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise UsageError(f"{where}: patterns and except have to be lists of regular expressions.")
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern, re.IGNORECASE))
        except re.error as error:
            raise UsageError(f"{where}: '{pattern}' is not a regular expression: {error}.") from error
    return tuple(compiled)
