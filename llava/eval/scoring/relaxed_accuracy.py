"""The relaxed accuracy of ChartQA: a number may be 5 % off, anything else has to be equal. Loads no torch.

A text is a number if Python's ``float`` reads it, after a trailing "%" has divided it by 100: "1_000" and " 5 " are
numbers, "1,000" and "5 kg" are not. Where the reference is 0, the texts have to be equal, and NaN or an infinite
reference is never matched as a number.

Source: "ChartQA", ACL Findings 2022, section 5.1, in the form of google-research/pix2struct@bd70460
pix2struct/metrics.py, relaxed_correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llava.errors import UsageError
from llava.eval.scoring.verdict import Verdict

TOLERANCE = 0.05


def score_relaxed(prediction: str, references: Sequence[str]) -> Verdict:
    """1.0 if the answer is within 5 % of a reference, or equal to one but for case; outer blanks count.

    Source: EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/chartqa/utils.py, which is Pix2Struct's function.
    """
    if not references:
        raise UsageError("A question has no reference answer: its list of answers is empty.")
    is_right = any(_is_near(prediction, reference) for reference in references)
    is_number = _to_float(prediction) is not None
    return Verdict(float(is_right), prediction.strip() or None, "read as a number" if is_number else "")


def score_relaxed_stripped(prediction: str, references: Sequence[str]) -> Verdict:
    """``score_relaxed`` of the answer without its outer blanks.

    Source: open-compass/VLMEvalKit (ms-vlmeval 0.0.20) vlmeval/dataset/utils/vqa_eval.py, process_line.
    """
    return score_relaxed(prediction.strip(), references)


def _is_near(prediction: str, reference: str) -> bool:
    said, truth = _to_float(prediction), _to_float(reference)
    if said is not None and truth:
        return abs(said - truth) / abs(truth) <= TOLERANCE
    return prediction.lower() == reference.lower()


def _to_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


RELAXED_READINGS: dict[str, Callable[[str, Sequence[str]], Verdict]] = {
    "lmms-eval": score_relaxed,
    "vlmevalkit": score_relaxed_stripped,
}
"""By name, the one of LLaVA-NeXT's published scores first."""
