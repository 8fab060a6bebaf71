"""Yes or no out of an answer, as POPE's, MME's and lmms-eval's scorers read it. Loads no torch.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_pope.py; MME's calculation.py, as in zjunlp/Deco@a3ccc15 eval_tool;
EvolvingLMMs-Lab/lmms-eval@306a8b4 lmms_eval/tasks/mme/utils.py and, of version 0.7.3, lmms_eval/tasks/pope/utils.py;
open-compass/VLMEvalKit (ms-vlmeval 0.0.20) vlmeval/dataset/utils/yorn.py, without a judge.
"""

from __future__ import annotations

from collections.abc import Callable

from llava.eval.scoring.answer_normalizer import ONE_COMMA_IN_NUMBER, PERIOD_OF_NO_NUMBER, remove_punctuation
from llava.eval.scoring.verdict import Verdict


def read_pope(answer: str) -> str:
    """Returns "no" if the first sentence has the word No, no or not between single blanks; everything else is "yes"."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def read_pope_lmms_eval(answer: str) -> str:
    """Returns "yes" or "no" if the answer is nothing else but that, in any case and between blanks; else "other"."""
    text = answer.lower().strip()
    return text if text in ("yes", "no") else "other"


def read_mme(answer: str) -> str:
    """Returns "yes", "no" or "other", by the first four characters of the lower-case answer, which is not stripped."""
    return _read_prefix(answer.lower())


def read_mme_lmms_eval(answer: str) -> str:
    """As ``read_mme``, but the ends are stripped and dots removed first, and "y" or "n" alone counts."""
    text = answer.lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text, "other")
    return _read_prefix(text)


def read_vlmevalkit(answer: str) -> str:
    """Returns "yes" or "no" if that is a word of the answer and the other is not, in any case; else "other"."""
    words = remove_punctuation(answer.lower(), ONE_COMMA_IN_NUMBER, PERIOD_OF_NO_NUMBER).split()
    found = [word for word in ("yes", "no") if word in words]
    return found[0] if len(found) == 1 else "other"


def score_pope(answer: str, label: str) -> Verdict:
    """POPE's verdict; a label other than "no" is yes."""
    return _judge(read_pope(answer), "no" if label == "no" else "yes")


def score_pope_lmms_eval(answer: str, label: str) -> Verdict:
    """lmms-eval's verdict on a POPE answer."""
    return _judge(read_pope_lmms_eval(answer), label.lower().strip())


def score_mme(answer: str, truth: str) -> Verdict:
    """The verdict of MME's calculation."""
    return _judge(read_mme(answer), truth.lower())


def score_mme_lmms_eval(answer: str, truth: str) -> Verdict:
    """lmms-eval's verdict on an MME answer."""
    return _judge(read_mme_lmms_eval(answer), truth.lower().strip().replace(".", ""))


def score_vlmevalkit(answer: str, truth: str) -> Verdict:
    """VLMEvalKit's verdict on an answer to POPE or MME, without a judge."""
    return _judge(read_vlmevalkit(answer), truth.lower())


def _read_prefix(text: str) -> str:
    if text in ("yes", "no"):
        return text
    return next((word for word in ("yes", "no") if word in text[:4]), "other")


def _judge(reading: str, truth: str) -> Verdict:
    return Verdict(float(reading == truth), None if reading == "other" else reading)


POPE: dict[str, Callable[[str, str], Verdict]] = {
    "eval_pope": score_pope,
    "lmms-eval": score_pope_lmms_eval,
    "VLMEvalKit": score_vlmevalkit,
}
MME: dict[str, Callable[[str, str], Verdict]] = {
    "calculation": score_mme,
    "lmms-eval": score_mme_lmms_eval,
    "VLMEvalKit": score_vlmevalkit,
}
