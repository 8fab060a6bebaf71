"""ANLS of DocVQA, InfoVQA and ST-VQA in its five published readings. Loads no torch.

ANLS is 1 minus the edit distance per letter of the longer text, for the nearest reference; below a half it is 0. The
readings differ in what they fold before, in which length divides, and in whether exactly a half counts.

Source: "Scene Text Visual Question Answering", ICCV 2019, equation 1; and each function's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llava.edit_distance import count_edits
from llava.errors import UsageError
from llava.eval.scoring.verdict import Verdict

HALF = 0.5


def score_anls_m4c(prediction: str, references: Sequence[str]) -> Verdict:
    """ANLS as LLaVA has it for ST-VQA: case and outer blanks do not count.

    It divides by zero where both texts are empty; here that pair is equal. Source: haotian-liu/LLaVA@c121f04
    llava/eval/m4c_evaluator.py, STVQAANLSEvaluator.
    """
    score = max(similarity(prediction, reference) for reference in _some(references))
    answer = prediction.lower().strip()
    crashes = not answer and any(not reference.strip() for reference in references)
    return Verdict(score, answer or None, "the published scorer divides by zero" if crashes else "")


def score_anls_lmms(prediction: str, references: Sequence[str]) -> Verdict:
    """ANLS as lmms-eval, VLMEvalKit and Qwen-VL have it for DocVQA and InfoVQA.

    Inner blanks are folded for the distance, but it is divided by the longer text as it stands and in upper case, so
    extra blanks, and letters such as "ß" that become two, raise the score. Source: EvolvingLMMs-Lab/lmms-eval 0.7.3
    lmms_eval/api/metrics.py, anls.
    """
    answer = _fold_blanks(prediction)
    distances = []
    for reference in _some(references):
        length = max(len(reference.upper()), len(prediction.upper()))
        distances.append(count_edits(_fold_blanks(reference), answer) / length if length else 0.0)
    score = 1 - min(distances)
    return Verdict(score if score >= HALF else 0.0, answer or None)


def score_anls_shunk031(prediction: str, references: Sequence[str]) -> Verdict:
    """ANLS of the ``anls`` package: inner blanks are folded, and exactly a half is 0.

    Source: shunk031/ANLS 0.0.2 anls/metrics/score.py and dist.py.
    """
    answer = _fold_blanks(prediction)
    best = 0.0
    for reference in map(_fold_blanks, _some(references)):
        length = max(len(answer.upper()), len(reference.upper()))
        distance = count_edits(answer, reference) / length if length else 0.0
        best = max(best, 1 - distance if distance < HALF else 0.0)
    return Verdict(best, answer or None)


def score_anls_pix2struct(prediction: str, references: Sequence[str]) -> Verdict:
    """ANLS as Pix2Struct has it: only case is folded, so that every blank counts, and exactly a half is kept.

    It divides by zero where both texts are empty; here that pair is equal. Source: google-research/pix2struct@bd70460
    pix2struct/metrics.py, anls_metric.
    """
    answer = prediction.lower()
    best = 0.0
    for reference in map(str.lower, _some(references)):
        length = max(len(answer), len(reference))
        distance = count_edits(reference, answer) / length if length else 0.0
        best = max(best, 1 - distance if distance <= HALF else 0.0)
    crashes = not answer and "" in references
    return Verdict(best, answer.strip() or None, "the published scorer divides by zero" if crashes else "")


def score_anls_mp_docvqa(prediction: str, references: Sequence[str]) -> Verdict:
    """ANLS as the MP-DocVQA framework has it: no answer is 0 whatever the reference is, and so is "none".

    Source: rubenpt91/MP-DocVQA-Framework@8eb21c2 metrics.py, for answerable questions.
    """
    answer = prediction.lower().strip()
    nearest = max(similarity(prediction, reference) for reference in _some(references))
    if not answer or answer == "none":
        return Verdict(0.0, answer or None, "the answer 'none' counts as no answer" if answer else "")
    return Verdict(nearest, answer)


def similarity(answer: str, truth: str) -> float:
    """ANLS of one pair, case and outer blanks aside; two empty texts are equal."""
    one, other = answer.lower().strip(), truth.lower().strip()
    longest = max(len(one), len(other))
    likeness = 1 - count_edits(one, other) / longest if longest else 1.0
    return likeness if likeness >= HALF else 0.0


def _fold_blanks(text: str) -> str:
    return " ".join(text.lower().split())


def _some(references: Sequence[str]) -> Sequence[str]:
    if not references:
        raise UsageError("A question has no reference answer: its list of answers is empty.")
    return references


ANLS_READINGS: dict[str, Callable[[str, Sequence[str]], Verdict]] = {
    "m4c": score_anls_m4c,
    "lmms-eval": score_anls_lmms,
    "anls": score_anls_shunk031,
    "pix2struct": score_anls_pix2struct,
    "mp-docvqa": score_anls_mp_docvqa,
}
"""By name, LLaVA's own first; published scores of LLaVA-NeXT on DocVQA and InfoVQA are lmms-eval's."""
