"""The letter of a ScienceQA answer, as LLaVA's scorer reads it. Loads no torch.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_science_qa.py, eval_science_qa_gpt4.py and
eval_science_qa_gpt4_requery.py; EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/scienceqa/utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from llava.eval.scoring.verdict import Verdict

OPTIONS = ("A", "B", "C", "D", "E")
FAILED = "FAILED"
_SENTENCE = re.compile(r"The answer is ([A-Z]).")  # the dot is any character but a newline


def read_science_qa(answer: str, options: Sequence[str] = OPTIONS) -> str:
    """The letter alone, or before ". ", or of the only "The answer is X."; else "FAILED"."""
    if answer in options:
        return answer
    if len(answer) >= 3 and answer[0] in options and answer[1:3] == ". ":
        return answer[0]
    return read_sentence(answer)


def read_sentence(answer: str) -> str:
    """The letter of the only "The answer is X."; else "FAILED"."""
    found = _SENTENCE.findall(answer)
    return found[0] if len(found) == 1 else FAILED


def index_of(letter: str, num_choices: int, options: Sequence[str] = OPTIONS) -> int:
    """The place of the letter's choice; -1 for a letter beyond the choices and for no letter."""
    return options.index(letter) if letter in options[:num_choices] else -1


def score_science_qa(answer: str, choices: Sequence[str], truth: int) -> Verdict:
    """The verdict on an answer to a question whose right choice is number ``truth``, from 0."""
    letter = read_science_qa(answer)
    index = index_of(letter, len(choices))
    if letter != FAILED and index < 0:
        return Verdict(0.0, letter, f"There are only {len(choices)} choices.")
    return Verdict(float(index == truth), None if letter == FAILED else letter)


def score_science_qa_lmms_eval(answer: str, choices: Sequence[str], truth: int) -> Verdict:
    """lmms-eval's verdict: the letter alone, in any case, or a capital before a dot, as in "B.dog"."""
    text, target = answer.strip(), OPTIONS[truth]
    if text.upper() == target:
        return Verdict(1.0, target)
    if len(text) >= 2 and text[0].isupper() and text[1] == ".":
        return Verdict(float(text[0].lower() == target.lower()), text[0])
    return Verdict(0.0, None)


SCIENCE_QA: dict[str, Callable[[str, Sequence[str], int], Verdict]] = {
    "eval_science_qa": score_science_qa,
    "lmms-eval": score_science_qa_lmms_eval,
}
