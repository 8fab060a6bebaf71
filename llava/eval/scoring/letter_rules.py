"""The option's letter out of an answer to a multiple-choice question, by the three rules of MMBench. Loads no torch.

``choices`` are the options by their letters. A rule returns the letter, "Z" where the answer refuses (VLMEvalKit's
only), or None where the published scorer asks a judge, and without one guesses or counts the answer as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from llava.eval.scoring.verdict import Verdict

REFUSED = "Z"
_API_FAILED = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_SENTENCE = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", re.IGNORECASE)
_LMMS_LETTERS = "ABCDE"
_LMMS_FRAMES = tuple(frame.split("X") for frame in "X. X, X: X) X). (X) (X). :X :X, :X. :X) :X).".split())

Rule = Callable[[str, Mapping[str, str]], str | None]


def read_vlmevalkit(answer: str, choices: Mapping[str, str]) -> str | None:
    """MMBench's own rule: the only letter among the last words, else "answer is X", else the only option named.

    An option is looked for only in an answer of at most twice the options' length. "answer is X" takes any word's first
    letter: "the answer is a dog" is A. Source: open-compass/VLMEvalKit@d21c5e9 vlmeval/utils/matching_util.py.
    """
    if _API_FAILED not in answer:
        if any(refusal in answer for refusal in _REFUSALS):
            return REFUSED
        words = answer.translate(_MARKS).split()
        found = [letter for letter in choices if letter in words]
        if len(found) == 1 and words.index(found[0]) > len(words) - 5:
            return found[0]
        if not found and REFUSED in words:
            return REFUSED
        said = _SENTENCE.search(answer)
        if said and said[1].upper() in choices:
            return said[1].upper()
    text = answer.lower()
    if len(text) > 2 * sum(map(len, choices.values())):
        return None
    return _find_only_option(text, choices)


def read_lmms_eval(answer: str, choices: Mapping[str, str]) -> str | None:
    """MMBench's older rule, as lmms-eval has it: A to E whatever the options are, and options in answers of any length.

    In more than three words "A" alone counts as the article. Source: EvolvingLMMs-Lab/lmms-eval 0.7.3
    lmms_eval/tasks/mmbench/mmbench_evals.py.
    """
    if _API_FAILED not in answer:
        words = answer.split()
        found = [letter for letter in _LMMS_LETTERS if letter in words]
        if len(found) == 1 and not ("A" in words and len(words) > 3):
            return found[0]
        for before, after in _LMMS_FRAMES:
            found = [letter for letter in _LMMS_LETTERS if before + letter + after in words]
            if len(found) == 1:
                return found[0]
    return _find_only_option(answer.lower(), choices)


def read_bare_letter(answer: str, choices: Collection[str]) -> str | None:
    """The letter if the answer is nothing else, blanks at its ends aside, which LLaVA-1.5's answers are."""
    text = answer.strip()
    return text if text in choices else None


def _find_only_option(text: str, choices: Mapping[str, str]) -> str | None:
    found = [letter for letter, option in choices.items() if option.lower() in text]
    return found[0] if len(found) == 1 else None


LETTER_RULES: dict[str, Rule] = {
    "VLMEvalKit": read_vlmevalkit,
    "lmms-eval": read_lmms_eval,
    "bare letter": read_bare_letter,
}
"""By name, MMBench's own first."""


def score_letter(answer: str, choices: Mapping[str, str], truth: str, rule: Rule = read_vlmevalkit) -> Verdict:
    """1.0 if the rule reads the right letter."""
    letter = rule(answer, choices)
    return Verdict(float(letter == truth), letter, "it refuses" if letter == REFUSED and REFUSED not in choices else "")


def name_options(options: Sequence[str]) -> dict[str, str]:
    """The options by their letters, from A on."""
    return {chr(ord("A") + place): option for place, option in enumerate(options)}
