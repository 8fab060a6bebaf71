"""Makes short_answers.json: hard answers with the scores that the published scorers give them.

``python make_short_answers.py FOLDER``, in an environment with lmms-eval 0.7.3, anls 0.0.2 and editdistance 0.8.1.
FOLDER holds the published scorers: ``m4c_evaluator.py`` (haotian-liu/LLaVA@c121f04), ``vqaEval.py``
(GT-Vision-Lab/VQA@a013f00, as in the fork mlej8/VQA@8056e52, with print as a function and getQuesIds), ``rubenpt.py``
(rubenpt91/MP-DocVQA-Framework@8eb21c2 metrics.py), ``pix2struct.py`` (google-research/pix2struct@bd70460 metrics.py),
``example.py`` (Yuliang-Liu/MultimodalOCR@f5cbec6 OCRBench/example.py: its loop over rows as ``score(rows)``),
``vlmeval_vqa_eval.py`` (ms-vlmeval 0.0.20 vlmeval/dataset/utils/vqa_eval.py).
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, sys.argv[1])
smp = ModuleType("vlmeval.smp")  # what vlmeval_vqa_eval.py uses of it for ANLS and ChartQA
smp.istype = lambda text, kind: isinstance(ast.literal_eval(text), kind)
smp.listinstr = lambda words, text: any(word in text for word in words)
smp.process_punctuation = None
sys.modules["vlmeval.smp"] = smp

import example  # noqa: E402
import m4c_evaluator  # noqa: E402
import pix2struct  # noqa: E402
import rubenpt  # noqa: E402
import short_answer_cases as cases  # noqa: E402
import vqaEval  # noqa: E402
from anls.metrics.score import anls_score  # noqa: E402
from lmms_eval.api.metrics import anls, exact_match_hf_evaluate  # noqa: E402
from lmms_eval.tasks.chartqa.utils import relaxed_correctness  # noqa: E402
from lmms_eval.tasks.ocrbench.utils import ocrbench_process_results  # noqa: E402
from lmms_eval.tasks.textvqa.utils import textvqa_process_results  # noqa: E402
from lmms_eval.tasks.vizwiz_vqa.utils import vizwiz_vqa_process_results  # noqa: E402
from lmms_eval.tasks.vqav2.utils import vqav2_process_results  # noqa: E402
from vlmeval_vqa_eval import hit_calculate, process_line  # noqa: E402


class _Answers:
    def __init__(self, qa: dict[int, dict]) -> None:
        self.qa = qa

    def getQuesIds(self) -> list[int]:
        return list(self.qa)


def rows(people: list[Any]) -> list[dict]:
    return [
        dict(said) if isinstance(said, dict) else {"answer": said, "answer_id": i} for i, said in enumerate(people, 1)
    ]


def texts(people: list[Any]) -> list[str]:
    return [said["answer"] if isinstance(said, dict) else said for said in people]


def m4c(said: str, people: list[Any]) -> float:
    scorer = m4c_evaluator.TextVQAAccuracyEvaluator()
    return scorer.eval_pred_list([{"pred_answer": said, "gt_answers": texts(people)}])


def vqa_team(said: str, people: list[Any]) -> float:
    truth = {1: {"answers": rows(people), "question_type": "x", "answer_type": "y"}}
    scorer = vqaEval.VQAEval(_Answers(truth), _Answers({1: {"answer": said}}))
    kept: list[float] = []
    scorer.setAccuracy = lambda acc, *_: kept.extend(acc)
    scorer.setEvalQA = scorer.setEvalQuesType = scorer.setEvalAnsType = scorer.updateProgress = lambda *_: None
    scorer.evaluate()
    return kept[0]


def vqa_submitted(said: str, people: list[Any]) -> float:
    return vqa_team(m4c_evaluator.EvalAIAnswerProcessor()(said), people)  # as convert_vqav2_for_submission.py does


def lmms_vqav2(said: str, people: list[Any]) -> float:
    return vqav2_process_results({"answers": rows(people), "question_id": 1}, [said])["exact_match"]


def lmms_textvqa(said: str, people: list[Any]) -> float:
    one = textvqa_process_results({"answers": texts(people), "question_id": 1}, [said])["exact_match"]
    other = vizwiz_vqa_process_results({"answers": texts(people), "question_id": 1}, [said])["exact_match"]
    assert one == other
    return one


def st_vqa(said: str, truths: list[str]) -> float:
    return m4c_evaluator.STVQAANLSEvaluator().eval_pred_list([{"pred_answer": said, "gt_answers": truths}])


def lmms_anls(said: str, truths: list[str]) -> float:
    score = anls(truths, [said])["anls"]
    line = process_line({"answer": repr(truths), "prediction": said}, method="anls")
    assert hit_calculate([line], "DocVQA_VAL") == [score]  # VLMEvalKit's is the same
    return score


def mp_docvqa(said: str, truths: list[str]) -> float:
    scorer = rubenpt.Evaluator()
    prepared = [scorer._preprocess_str(truth) for truth in truths]
    return scorer._calculate_anls(prepared, scorer._preprocess_str(said), "string")


def pix2struct_anls(said: str, truths: list[str]) -> float:
    p = said.lower()
    return max(pix2struct.anls_metric(truth.lower(), p) for truth in truths)


def vlmeval_relaxed(said: str, truths: list[str]) -> float:
    line = process_line({"answer": repr(truths), "prediction": said}, method="relaxed_accuracy")
    return float(hit_calculate([line], "ChartQA_TEST")[0])


def lmms_relaxed(said: str, truths: list[str]) -> float:
    score = float(max(relaxed_correctness(said, truth) for truth in truths))
    assert score == float(max(pix2struct.relaxed_correctness(truth, said) for truth in truths))
    return score


def ocrbench_team(said: str, truths: list[str], dataset: str) -> float:
    row = {"type": "x", "dataset_name": dataset, "answers": list(truths), "predict": said}
    return float(example.score([row])[0]["result"])


def ocrbench_lmms(said: str, truths: list[str], dataset: str) -> float:
    doc = {"answer": list(truths), "dataset": dataset, "question_type": "x"}
    return float(ocrbench_process_results(doc, [said])["ocrbench_accuracy"]["score"])


def gqa_official(said: str, truths: list[str]) -> float:
    return float(said.rstrip(".").lower() == truths[0])  # convert_gqa_for_eval.py and eval.py, a line each


def gqa_lmms(said: str, truths: list[str]) -> float:
    found = exact_match_hf_evaluate([said], [truths[0]], ignore_case=True, ignore_punctuation=True)
    return float(found["exact_match"])


SCORERS: dict[str, tuple[list, dict[str, Callable[..., float]]]] = {
    "vqa": (
        cases.VQA,
        {
            "m4c": m4c,
            "vqa-team": vqa_team,
            "vqa-submitted": vqa_submitted,
            "lmms-eval-vqav2": lmms_vqav2,
            "lmms-eval-textvqa": lmms_textvqa,
        },
    ),
    "anls": (
        cases.ANLS,
        {
            "m4c": st_vqa,
            "lmms-eval": lmms_anls,
            "anls": anls_score,
            "pix2struct": pix2struct_anls,
            "mp-docvqa": mp_docvqa,
        },
    ),
    "relaxed": (cases.RELAXED, {"lmms-eval": lmms_relaxed, "vlmevalkit": vlmeval_relaxed}),
    "ocrbench": (cases.OCRBENCH, {"ocrbench-team": ocrbench_team, "lmms-eval": ocrbench_lmms}),
    "gqa": (cases.GQA, {"official": gqa_official, "lmms-eval": gqa_lmms}),
}


def ask(scorer: Callable[..., float], case: list) -> float | str:
    """The published score, or the name of the exception that the scorer raises."""
    try:
        return float(scorer(*deepcopy(case)))
    except (AssertionError, ZeroDivisionError, ValueError) as error:
        return type(error).__name__


def main() -> None:
    """Writes the gold file: for each scorer, its cases with the score of each reading in order."""
    source = " ".join((__doc__ or "").replace("``", "").split("in an environment with ")[1].split())
    lines = [f'"source": {json.dumps(source)}']
    for name, (inputs, scorers) in SCORERS.items():
        asked = [[case, [ask(scorer, case) for scorer in scorers.values()]] for case in inputs]
        body = ",\n  ".join(json.dumps(row) for row in asked)
        lines.append(f'"{name}": {{"readings": {json.dumps(list(scorers))}, "cases": [\n  {body}]}}')
        print(name, len(asked), sum(len(set(map(str, scores))) > 1 for _, scores in asked), "with disagreement")
    (HERE / "short_answers.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
