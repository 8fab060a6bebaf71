"""SEED-Bench: the letter of an answer, as LLaVA's script and lmms-eval read it. Loads no torch.

Source: haotian-liu/LLaVA@524a75b scripts/convert_seed_for_submission.py; EvolvingLMMs-Lab/lmms-eval 0.7.3
lmms_eval/tasks/seedbench/utils.py.
"""

from __future__ import annotations

from collections.abc import Callable

from llava.eval.scoring.verdict import Verdict

LETTERS = ("A", "B", "C", "D")


def score_seed(answer: str, truth: str) -> Verdict:
    """1.0 if the answer is the letter and nothing else: "B.", "b" and " B" are wrong."""
    return Verdict(float(answer == truth), answer if answer in LETTERS else None)


def score_seed_lmms_eval(answer: str, truth: str) -> Verdict:
    """1.0 if the answer's first character that is not a blank is the letter, in any case: "Banana" is B."""
    letter = answer.strip()[:1]
    reading = letter.upper() if letter.upper() in LETTERS else None
    return Verdict(float(letter.lower().strip() == truth.lower().strip()), reading)


SEED: dict[str, Callable[[str, str], Verdict]] = {
    "convert_seed_for_submission": score_seed,
    "lmms-eval": score_seed_lmms_eval,
}
