"""GQA: an answer is right if it equals the one reference. Loads no torch."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

from llava.eval.scoring.verdict import Verdict

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def read_gqa(text: str) -> str:
    """The answer as LLaVA submits it: without dots at its end, in lower case.

    Source: haotian-liu/LLaVA@c121f04 scripts/convert_gqa_for_eval.py.
    """
    return text.rstrip(".").lower()


def score_gqa(prediction: str, references: Sequence[str]) -> Verdict:
    """1.0 if the answer as LLaVA submits it equals the reference, blanks included."""
    answer = read_gqa(prediction)
    return Verdict(float(answer == references[0]), answer.strip() or None)


def score_gqa_lmms(prediction: str, references: Sequence[str]) -> Verdict:
    """1.0 if the answer equals the reference but for case and ASCII punctuation.

    Source: EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/gqa/gqa.yaml, and exact_match in api/metrics.py.
    """
    answer, truth = (_fold_as_numpy(text) for text in (prediction, references[0]))
    return Verdict(float(answer == truth), answer.strip() or None)


def _fold_as_numpy(text: str) -> str:
    """Lower case without punctuation in a NumPy array: no text there grows or ends in NUL."""
    return text.rstrip("\0").lower()[: len(text)].rstrip("\0").translate(_NO_PUNCTUATION).rstrip("\0")


GQA_READINGS: dict[str, Callable[[str, Sequence[str]], Verdict]] = {"official": score_gqa, "lmms-eval": score_gqa_lmms}
"""By name, the LLaVA-1.5 protocol's first."""
