"""MathVista's answers: what they say, brought to the answer's type, and judged. Loads no torch.

Where rules find nothing, the published scorer asks GPT-4 for the answer within the response, and without it goes on
with an empty text, of which the nearest choice is then the answer.

Source: lupantech/MathVista@53d5258 evaluation/extract_answer.py and calculate_score.py;
EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/mathvista; VLMEvalKit's ``post_check`` of ms-vlmeval 0.0.20.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llava.edit_distance import count_edits
from llava.eval.scoring.letter_rules import name_options, read_vlmevalkit
from llava.eval.scoring.verdict import Verdict

CHOICE = "multi_choice"
_QUOTED = re.compile(r'The answer is "(.*)"\.')
_BRACKETED = re.compile(r"\(([a-zA-Z])\)")


@dataclass(frozen=True)
class Problem:
    """What a question of MathVista asks for.

    Attributes:
        question_type: ``multi_choice`` or ``free_form``.
        answer_type: ``text``, ``integer``, ``float`` or ``list``.
        precision: digits after the point, as the data set holds them, which is as a float.
    """

    question_type: str
    answer_type: str
    choices: tuple[str, ...]
    precision: float | None
    answer: str


def extract(response: str, problem: Problem, *, finds_quoted: bool = True) -> str | None:
    """The answer within a response by rules; None where the published scorer asks GPT-4.

    ``finds_quoted``: takes the text out of 'The answer is "text".', as with the published ``--quick_extract``.
    """
    if not response:
        return ""
    if problem.question_type == CHOICE and response in problem.choices:
        return response
    try:
        if problem.answer_type == "integer":
            return str(int(response))
        if problem.answer_type == "float":
            return str(float(response))
    except ValueError:
        pass
    quoted = _QUOTED.search(response) if finds_quoted else None
    return quoted[1] if quoted else None


def normalize(extraction: str, problem: Problem) -> str | None:
    """The extracted answer as its type is written; None if it is none of that type.

    Of choices always one is returned: that of the letter, else the nearest by edit distance.
    """
    if problem.question_type == CHOICE:
        option = read_option(extraction, problem.choices)
        return _find_nearest(extraction.strip(), problem.choices) if option is None else option
    return _to_type(extraction, problem)


def read_option(extraction: str, choices: Sequence[str]) -> str | None:
    """The choice with the letter in the first "(X)", or with the letter that the text is; None if it is neither."""
    text = extraction.strip()
    bracketed = _BRACKETED.search(text)
    return name_options(choices).get(bracketed[1].upper() if bracketed else text)


def _find_nearest(text: str, choices: Sequence[str]) -> str:
    bracketed = _BRACKETED.search(text)
    said = bracketed[1].upper() if bracketed else text
    return min(choices, key=lambda choice: count_edits(said, choice))


def _to_type(extraction: str, problem: Problem) -> str | None:
    try:
        if problem.answer_type == "integer":
            return str(int(float(extraction)))
    except (ValueError, OverflowError):
        return None
    if problem.answer_type == "float":
        return None if problem.precision is None else _round(extraction, int(problem.precision))
    return extraction


def _round(number: str, digits: int | None) -> str | None:
    try:
        return str(round(float(number), digits))
    except (ValueError, OverflowError):
        return None


def score_by_rules(response: str, problem: Problem, reply: str | None = None) -> Verdict:
    """MathVista's verdict; ``reply`` is the judge's, of the answer that it finds within the response.

    Without one a response counts where it is the answer itself: a letter, "(X)", or a number; any other is wrong, and
    the note says that a judge is wanted.
    """
    extraction = extract(response, problem)
    if extraction is None and reply is not None:
        extraction = reply
    if extraction is not None and (extraction or reply is not None):
        said = normalize(extraction, problem)
        return Verdict(float(said == problem.answer), said)
    if problem.question_type == CHOICE:
        said = read_option(response, problem.choices)
    else:
        said = _to_type(response, problem) if problem.answer_type != "list" else response.strip()
    if not response or said is None:
        return Verdict(0.0, None, "" if not response else "a judge is wanted")
    return Verdict(float(said == problem.answer), said)


def score_without_judge(response: str, problem: Problem) -> Verdict:
    """The published scorer's verdict where its judge cannot be reached: the nearest choice to an empty text."""
    said = normalize(extract(response, problem) or "", problem)
    return Verdict(float(said == problem.answer), said)


def score_lmms(response: str, problem: Problem) -> Verdict:
    """lmms-eval's verdict where its judge cannot be reached; blanks at the answer's ends do not count.

    It rounds to a number of digits that is a float, which fails, so that no answer of that type is right.
    """
    extraction = extract(response, problem, finds_quoted=False) or ""
    said = normalize(extraction, problem)
    if problem.question_type != CHOICE and problem.answer_type == "float":
        said = None if isinstance(problem.precision, float) else _round(extraction, problem.precision)
    return Verdict(float(str(said).strip() == problem.answer.strip()), said)


def score_vlmevalkit(response: str, problem: Problem) -> Verdict:
    """VLMEvalKit's verdict without a judge: its rule of letters, int() and float(); a list or a zero is never right."""
    if problem.question_type == CHOICE:
        choices = name_options(problem.choices)
        letter = read_vlmevalkit(response, choices) or read_vlmevalkit("", choices)  # its judge answers nothing
        truth = next((name for name, choice in choices.items() if choice == problem.answer), None)
        return Verdict(float(letter is not None and letter == truth), letter)
    kind = {"integer": int, "float": float}.get(problem.answer_type)
    try:
        said = kind(response) if kind else None
        return Verdict(float(bool(said) and kind is not None and said == kind(problem.answer)), str(said))
    except (ValueError, OverflowError):
        return Verdict(0.0, None)


MATH_VISTA_READINGS: dict[str, Callable[[str, Problem], Verdict]] = {
    "MathVista by rules": score_by_rules,
    "MathVista without its judge": score_without_judge,
    "lmms-eval without its judge": score_lmms,
    "VLMEvalKit without a judge": score_vlmevalkit,
}
"""By name, the one that is reported first."""
