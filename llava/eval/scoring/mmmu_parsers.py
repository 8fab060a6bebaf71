"""MMMU's answers as its own scorer, lmms-eval and VLMEvalKit read and judge them. Loads no torch.

A letter is None where the published scorer throws dice. ``gold`` is the benchmark's answer as the data set holds it: a
letter, or of an open question a text, or a list of texts written as Python does.

Source: MMMU-Benchmark/MMMU@bb0b95a eval/eval_utils.py; EvolvingLMMs-Lab/lmms-eval 0.7.2 (as 75571cf) and 0.7.3
lmms_eval/tasks/mmmu/utils.py; VLMEvalKit's ``MMMU_preproc`` of ms-vlmeval 0.0.20.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence

from llava.eval.scoring.letter_rules import name_options, read_vlmevalkit
from llava.eval.scoring.verdict import Verdict

CHOICE = "multiple-choice"
_ENDS = ",.!?;:'"
_SIGNS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = {"", ":", ",", ".", "!", "?", ";", "'"}
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
Scorer = Callable[[str, str, Sequence[str], str], Verdict]
"""Of an answer, the question's type, its options and the gold."""


def read_choice(answer: str, options: Mapping[str, str]) -> str | None:
    """The last "(X)", else the last word "X", else in more than five words the last option's text."""
    return _read_choice(answer, options, (" {} ",))


def read_choice_lmms(answer: str, options: Mapping[str, str]) -> str | None:
    """As ``read_choice``, but the blank before the letter is not wanted, so that "AND" ends in D; else "X."."""
    return _read_choice(answer, options, ("{} ", "{}."))


def _read_choice(answer: str, options: Mapping[str, str], words: Sequence[str]) -> str | None:
    for mark in _ENDS:
        answer = answer.strip(mark)
    text = f" {answer} "
    if found := [letter for letter in options if f"({letter})" in text]:
        return max(found, key=lambda letter: text.rfind(f"({letter})"))
    for word in words:
        if found := [letter for letter in options if word.format(letter) in text]:
            return max(found, key=lambda letter: text.rfind(f" {letter} "))
    if len(text.split()) <= 5:
        return None
    low = text.lower()
    found = [letter for letter, option in options.items() if option.lower() in low]
    return max(found, key=lambda letter: low.rfind(options[letter].lower()), default=None)


def read_open(answer: str) -> set[str | float]:
    """What an open answer says: the tails of its lines after "is", "so" and the like, and the numbers in them."""
    text = answer.strip().strip(".").lower()
    lines = re.split(r"\.\s(?=[A-Z])|\n", text)
    tails = []
    for number, line in enumerate(lines, 1):
        signs = (*_SIGNS, "=") if number == len(lines) else _SIGNS
        shortest = ""
        for sign in signs:
            tail = line.split(sign)[-1].strip()
            if sign in line and (not shortest or len(tail) < len(shortest)):
                shortest = tail
        if shortest not in _TRIVIAL:
            tails.append(shortest)
    tails = tails or [text]
    numbers = [number for tail in tails for pattern in _NUMBERS for number in pattern.findall(tail)]
    return {form for said in (*tails, *numbers) for form in _normalize(said)}


def _normalize(text: str) -> list[str | float]:
    """A number to two digits, or the text in lower case; a single letter with a blank on either side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        low = text.lower()
        return [f" {low}", f"{low} "] if len(low) == 1 else [low]


def is_right_open(said: set[str | float], golds: Sequence[str]) -> bool:
    """Whether a gold text is part of a text that was said, or a gold number equals one."""
    wanted = [form for gold in golds for form in _normalize(gold)]
    texts = [form for form in wanted if isinstance(form, str)]
    return any(any(text in form for text in texts) if isinstance(form, str) else form in wanted for form in said)


def parse_golds(gold: str) -> list[str]:
    """The right answers: those of a list of texts written as Python does, or the one."""
    if gold.startswith("[") and gold.endswith("]"):
        try:
            values = ast.literal_eval(gold)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return [gold]
        if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
            return values
    return [gold]


def score_official(answer: str, kind: str, options: Sequence[str], gold: str) -> Verdict:
    """MMMU's own verdict, where dice count as wrong."""
    if kind == CHOICE:
        letter = read_choice(answer, name_options(options))
        return Verdict(float(letter == gold), letter)
    return _judge_open(answer, parse_golds(gold))


def score_lmms_072(answer: str, kind: str, options: Sequence[str], gold: str) -> Verdict:
    """The verdict of lmms-eval up to 0.7.2, which compares open answers letter by letter: none is right.

    Right all the same is an answer that says anything, where the gold is empty.
    """
    if kind == CHOICE:
        return score_lmms_073(answer, kind, options, gold)
    is_right = not gold.strip() and bool(answer.strip().strip("."))
    return Verdict(float(is_right), answer.strip() or None, "compared letter by letter")


def score_lmms_073(answer: str, kind: str, options: Sequence[str], gold: str) -> Verdict:
    """The verdict of lmms-eval 0.7.3, which takes a list of gold answers as one text."""
    if kind == CHOICE:
        letter = read_choice_lmms(answer, name_options(options))
        return Verdict(float(letter == gold), letter)
    return _judge_open(answer, [gold])


def score_vlmevalkit(answer: str, kind: str, options: Sequence[str], gold: str) -> Verdict:
    """VLMEvalKit's verdict without a judge: an open question has the gold as option A, and "Other Answers" as B."""
    if kind == CHOICE:
        letter = read_vlmevalkit(answer, name_options(options))
        return Verdict(float(letter == gold), letter)
    letter = read_vlmevalkit(answer, {"A": gold, "B": "Other Answers"})
    return Verdict(float(letter == "A"), letter)


def _judge_open(answer: str, golds: Sequence[str]) -> Verdict:
    said = read_open(answer)
    shown = ", ".join(sorted(map(str, said)))
    return Verdict(float(is_right_open(said, golds)), shown.strip() or None)


MMMU_READINGS: dict[str, Scorer] = {
    "MMMU": score_official,
    "lmms-eval 0.7.2": score_lmms_072,
    "lmms-eval 0.7.3": score_lmms_073,
    "VLMEvalKit": score_vlmevalkit,
}
"""By name, MMMU's own first."""
