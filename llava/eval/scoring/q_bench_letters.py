"""Q-Bench's answers as lmms-eval and as Q-Bench's own example read them. Loads no torch.

Q-Bench's published scores are a judge's: GPT compared each answer with the options five times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llava.eval.scoring.letter_rules import name_options, read_vlmevalkit
from llava.eval.scoring.mmmu_parsers import read_choice_lmms
from llava.eval.scoring.verdict import Verdict


def score_lmms(answer: str, options: Sequence[str], truth: str) -> Verdict:
    """lmms-eval's verdict: MMMU's parser; dice count as wrong.

    Versions up to 0.7.2 crash where several letters are found, since NumPy is not imported there. Source:
    EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/qbench/utils.py.
    """
    letter = read_choice_lmms(answer, name_options(options))
    return Verdict(float(letter == truth), letter)


def score_first_letter(answer: str, options: Sequence[str], truth: str) -> Verdict:
    """Whether the answer begins with the right letter, as in the scripts by Q-Bench's authors for single models."""
    letter = answer[:1]
    return Verdict(float(letter == truth), letter if letter in name_options(options) else None)


def score_rule(answer: str, options: Sequence[str], truth: str) -> Verdict:
    """The verdict by VLMEvalKit's rule of letters."""
    letter = read_vlmevalkit(answer, name_options(options))
    return Verdict(float(letter == truth), letter)


Q_BENCH_READINGS: dict[str, Callable[[str, Sequence[str], str], Verdict]] = {
    "lmms-eval": score_lmms,
    "first letter": score_first_letter,
    "VLMEvalKit": score_rule,
}
