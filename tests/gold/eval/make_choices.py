"""Makes choices.json: hard answers with what the published scorers of multiple-choice benchmarks read and score.

``python make_choices.py FOLDER``, in an environment with lmms-eval 0.7.3 and Levenshtein. FOLDER holds
``matching_util.py`` (ms-vlmeval 0.0.20 vlmeval/utils/matching_util.py with the sentence "answer is X" of
open-compass/VLMEvalKit@d21c5e9), ``eval_utils.py`` (MMMU-Benchmark/MMMU@44b45b5 eval/eval_utils.py),
``mathvista_official.py`` (lupantech/MathVista@e999481 evaluation/calculate_score.py and @ed0d56d extract_answer.py, its
judge as a parameter), ``mmmu_072.py`` (lmms-eval 0.7.2 lmms_eval/tasks/mmmu/utils.py), ``vlm_mathvista.py`` (ms-vlmeval
0.0.20 vlmeval/dataset/utils/mathvista.py).
"""

from __future__ import annotations

import ast
import json
import os
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, sys.argv[1])
os.environ.setdefault("OPENAI_API_KEY", "nobody is asked")

import matching_util  # noqa: E402

for name, part in (("vlmeval.smp.file", "load"), ("vlmeval.utils", "can_infer")):  # what vlm_mathvista.py uses
    sys.modules[name] = ModuleType(name)
    setattr(sys.modules[name], part, getattr(matching_util, part, None))

import choice_cases as cases  # noqa: E402
import eval_utils  # noqa: E402
import mathvista_official as official  # noqa: E402
import mmmu_072  # noqa: E402
import vlm_mathvista as vlm_math  # noqa: E402
from lmms_eval.api.metrics import exact_match_hf_evaluate  # noqa: E402
from lmms_eval.tasks._task_utils import mmmu_mcq_utils  # noqa: E402
from lmms_eval.tasks.ai2d.utils import MultiChoiceRegexFilter  # noqa: E402
from lmms_eval.tasks.mathvista.mathvista_evals import DEMO_PROMPT, MathVistaEvaluator  # noqa: E402
from lmms_eval.tasks.mmbench import mmbench_evals  # noqa: E402
from lmms_eval.tasks.mmmu import utils as mmmu_073  # noqa: E402
from lmms_eval.tasks.qbench import utils as qbench  # noqa: E402

SUBJECTS = ("Accounting", "Art_Theory", "Math", "Sociology")
no_dice = SimpleNamespace(choice=lambda choices: None)  # None where a scorer throws


def letters() -> dict[str, Any]:
    lmms = mmbench_evals.MMBench_Evaluator()
    rows = []
    for choices in cases.CHOICES:
        for said in cases.LETTER_ANSWERS:
            read = (
                matching_util.can_infer(said, dict(choices)),
                lmms.can_infer(said, dict(choices)),
                said.strip() if said.strip() in choices else None,
            )
            rows.append([[said, choices], [letter or None for letter in read]])
    return {"readings": ["VLMEvalKit", "lmms-eval", "bare letter"], "cases": rows}


def vlmevalkit(said: str, choices: dict[str, str]) -> str | None:
    return matching_util.can_infer(said, dict(choices)) or None


def score_mmmu(said: str, kind: str, options: list[str], gold: str) -> list[float]:
    names = [chr(65 + i) for i in range(len(options))]
    index2ans = dict(zip(names, options, strict=True))
    if kind == "multiple-choice":
        right = [
            eval_utils.parse_multi_choice_response(said, names, index2ans) == gold,
            mmmu_072.parse_multi_choice_response(said, names, index2ans) == gold,
            mmmu_mcq_utils.parse_mmmu_multi_choice_response(said, names, index2ans) == gold,
            vlmevalkit(said, index2ans) == gold,
        ]
        return [float(one) for one in right]
    golds = ast.literal_eval(gold) if gold.startswith("['") else gold
    doc = {"id": "validation_Art_1", "question_type": kind, "options": "[]", "answer": gold}
    accuracy = []
    for module, metric in ((mmmu_072, "mmmu_acc"), (mmmu_073, "mmmu_acc")):
        sample = module.mmmu_process_results(doc, [said])[metric]
        accuracy.append(module.evaluate_mmmu([sample])[1]["acc"])
    return [
        float(eval_utils.eval_open(golds, eval_utils.parse_open_response(said))),
        *accuracy,
        float(vlmevalkit(said, {"A": gold, "B": "Other Answers"}) == "A"),
    ]


def mmmu() -> dict[str, Any]:
    rows = []
    dice = random.Random(1)
    for said in cases.LETTER_ANSWERS:
        for choices in cases.CHOICES:
            gold = dice.choice(list(choices))
            case = [said, "multiple-choice", list(choices.values()), gold]
            rows.append([case, score_mmmu(*case)])
    for said, gold in cases.OPEN_CASES:
        case = [said, "open", [], gold]
        rows.append([case, score_mmmu(*case)])
    return {"readings": ["MMMU", "lmms-eval 0.7.2", "lmms-eval 0.7.3", "VLMEvalKit"], "cases": rows}


def ai2d() -> dict[str, Any]:
    chosen = MultiChoiceRegexFilter(regex_pattern="([A-Z])\\.", ignore_case=True, ignore_punctuation=True)
    rows = []
    for said in cases.LETTER_ANSWERS:
        for truth in "AB":
            (read,) = chosen.apply([[said]], [{}])
            score = exact_match_hf_evaluate([read], [truth], ignore_case=True, ignore_punctuation=True)["exact_match"]
            rows.append([[said, truth], [float(score)]])
    return {"readings": ["lmms-eval"], "cases": rows}


def q_bench() -> dict[str, Any]:
    rows = []
    dice = random.Random(2)
    for said in cases.LETTER_ANSWERS:
        for choices in cases.CHOICES:
            truth = dice.choice(list(choices))
            letter = qbench.parse_multi_choice_response(said, list(choices), choices)
            scores = [letter == truth, said[:1] == truth, vlmevalkit(said, choices) == truth]
            rows.append([[said, list(choices.values()), truth], [float(score) for score in scores]])
    return {"readings": ["lmms-eval", "first letter", "VLMEvalKit"], "cases": rows}


def vlm_mathvista(said: str, problem: dict[str, Any]) -> float:
    option = problem["answer"]
    if problem["question_type"] == "multi_choice":
        option = chr(65 + problem["choices"].index(problem["answer"]))
    line = {**problem, "prediction": said, "answer_option": option, "choices": repr(problem["choices"]), "question": ""}
    model = SimpleNamespace(generate=lambda prompt, temperature: vlm_math.FAIL_MSG)
    line["res"] = vlm_math.MathVista_auxeval(model, line)["res"]
    return float(bool(vlm_math.post_check(line)))


def math_vista() -> dict[str, Any]:
    lmms = MathVistaEvaluator()
    lmms.get_chat_response = lambda *args, **kwargs: ""
    rows = []
    for said, problem in cases.MATH_CASES:
        shape = (problem["choices"], problem["question_type"], problem["answer_type"], problem["precision"])
        found = official.extract_answer(said, problem, quick_extract=True)
        other = lmms.extract_answer(said, {**problem, "query": ""}, False)
        judged = official.extract_answer(said, problem, quick_extract=True, judge=lambda said=said: said)
        scores = [
            official.safe_equal(official.normalize_extracted_answer(judged, *shape), problem["answer"]),
            official.safe_equal(official.normalize_extracted_answer(found, *shape), problem["answer"]),
            lmms.safe_equal(lmms.normalize_extracted_answer(other, *shape), problem["answer"]),
            vlm_mathvista(said, problem),
        ]
        rows.append([[said, problem], [float(score) for score in scores]])
    return {
        "readings": [
            "MathVista, a judge that repeats the response",
            "MathVista without its judge",
            "lmms-eval without its judge",
            "VLMEvalKit without a judge",
        ],
        "cases": rows,
    }


def table(dice: random.Random, num_groups: int) -> list[dict[str, Any]]:
    rows = []
    for number in range(num_groups):
        options = [option for option in dice.choice(cases.CHOICES).values() if option not in ("", "None", "nan")]
        truth = dice.randrange(len(options))
        for turn in range(len(options)):
            turned = options[turn:] + options[:turn]
            letter = "ABCD"[(truth - turn) % len(options)]
            said = dice.choice([letter, letter, letter, letter, f"{letter}.", turned["ABCD".index(letter)]])
            said = dice.choice(cases.LETTER_ANSWERS) if dice.random() < 0.2 else said
            row = dict.fromkeys("ABCD", None) | dict(zip("ABCD", turned, strict=False))
            row |= {"index": number + turn * 1_000_000, "answer": letter, "prediction": said, "question": "?"}
            rows.append(row | {"category": f"c{number % 3}", "l2-category": f"l{number % 2}"})
    return rows


def mmbench() -> dict[str, Any]:
    rows = table(random.Random(5), 150)
    lmms = mmbench_evals.MMBench_Evaluator()
    lmms.get_chat_response = lambda *args, **kwargs: "Failed to obtain answer via API"
    thrown = lmms.eval_result([dict(row) for row in rows], "openai")
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["index"] % 1_000_000, []).append(row)
    hits = []
    for group in groups.values():  # prefetch_circular_group and "exact matching" of VLMEvalKit's multiple_choice.py
        read = [vlmevalkit(row["prediction"], {c: row[c] for c in "ABCD" if row[c] is not None}) for row in group]
        hits.append(all(letter == row["answer"] for letter, row in zip(read, group, strict=True)))
    return {"rows": rows, "VLMEvalKit": sum(hits) / len(hits), "lmms-eval with dice": thrown}


def mmmu_run() -> dict[str, Any]:
    """main_parse_and_eval.py: subject by subject, with its dice."""
    dice = random.Random(4)
    rows = []
    for subject in SUBJECTS:
        for number in range(1, 21):
            choices = dice.choice(cases.CHOICES)
            said = dice.choice([*choices, dice.choice(cases.LETTER_ANSWERS)])
            row = {"id": f"validation_{subject}_{number}", "question_type": "multiple-choice", "said": said}
            row |= {"options": repr(list(choices.values())), "answer": dice.choice(list(choices))}
            if number % 5 == 0:
                said, gold = dice.choice(cases.OPEN_CASES)
                row |= {"question_type": "open", "options": "[]", "answer": gold, "said": said}
            rows.append(row)
    eval_utils.random.seed(42)
    right: dict[str, list[bool]] = {}
    for row in rows:
        options = ast.literal_eval(row["options"])
        names = [chr(65 + i) for i in range(len(options))]
        if row["question_type"] == "open":
            gold = ast.literal_eval(row["answer"]) if row["answer"].startswith("['") else row["answer"]
            is_right = eval_utils.eval_open(gold, eval_utils.parse_open_response(row["said"]))
        else:
            choices = dict(zip(names, options, strict=True))
            is_right = eval_utils.parse_multi_choice_response(row["said"], names, choices) == row["answer"]
        right.setdefault("_".join(row["id"].split("_")[1:-1]), []).append(is_right)
    total = [one for ones in right.values() for one in ones]
    scores = {subject: sum(ones) / len(ones) for subject, ones in right.items()}
    return {"rows": rows, "subjects": scores, "overall": sum(total) / len(total)}


def main() -> None:
    """Runs the originals and writes the gold file."""
    run = mmmu_run()
    for module in (eval_utils, mmmu_072, mmmu_mcq_utils, qbench):
        module.random = no_dice
    source = " ".join((__doc__ or "").split("made")[0].split(".json: ")[1].split())
    gold = {
        "source": source,
        "letters": letters(),
        "mmmu": mmmu(),
        "ai2d": ai2d(),
        "q_bench": q_bench(),
        "math_vista": math_vista(),
        "math_vista_prompt": MathVistaEvaluator().create_test_prompt(DEMO_PROMPT, "Hint: x\nQuestion: ?", "It is 5."),
        "mmbench": mmbench(),
        "mmmu_run": run,
    }
    lines = [f"{json.dumps(name)}: {write(value)}" for name, value in gold.items()]
    (HERE / "choices.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def write(value: Any) -> str:
    if isinstance(value, dict) and ("cases" in value or "rows" in value):
        return "{" + ",\n".join(f"{json.dumps(key)}: {write(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list) and len(value) > 10:
        return "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]"
    return json.dumps(value)


if __name__ == "__main__":
    main()
