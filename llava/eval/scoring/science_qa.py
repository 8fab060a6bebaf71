"""The letter of a ScienceQA answer, as LLaVA's scorer reads it. Loads no torch.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_science_qa.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from llava.eval.scoring.verdict import Verdict

OPTIONS = ("A", "B", "C", "D", "E")
FAILED = "FAILED"
_SENTENCE = re.compile(r"The answer is ([A-Z]).")  # the dot is any character but a newline


def read_science_qa(answer: str) -> str:
    """The letter alone, or before ". ", or of the only "The answer is X."; else "FAILED"."""
    if answer in OPTIONS:
        return answer
    if len(answer) >= 3 and answer[0] in OPTIONS and answer[1:3] == ". ":
        return answer[0]
    found = _SENTENCE.findall(answer)
    return found[0] if len(found) == 1 else FAILED


def index_of(letter: str, num_choices: int) -> int:
    """The place of the letter's choice; -1 for a letter beyond the choices and for no letter."""
    return OPTIONS.index(letter) if letter in OPTIONS[:num_choices] else -1


def score_science_qa(answer: str, choices: Sequence[str], truth: int) -> Verdict:
    """The verdict on an answer to a question whose right choice is number ``truth``, from 0."""
    letter = read_science_qa(answer)
    index = index_of(letter, len(choices))
    if letter != FAILED and index < 0:
        return Verdict(0.0, letter, f"There are only {len(choices)} choices.")
    return Verdict(float(index == truth), None if letter == FAILED else letter)


SCIENCE_QA: dict[str, Callable[[str, Sequence[str], int], Verdict]] = {"eval_science_qa": score_science_qa}
