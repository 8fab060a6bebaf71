"""Makes benchmark_runs.json: a tiny checkpoint's answers to all benchmarks, as the published scorers score them.

``python make_benchmark_runs.py SHORT CHOICES LLAVA SCRIPTS``, in an environment with this package, lmms-eval 0.7.3,
anls 0.0.2, editdistance 0.8.1, Levenshtein and scikit-learn 1.9.1. SHORT and CHOICES are the folders of
make_short_answers.py and of make_choices.py, LLAVA is a folder with haotian-liu/LLaVA's package (llava_torch
1.2.2.post1), SCRIPTS holds those of make_short_answer_commands.py and of make_choice_runs.py, GQA's as gqa_eval.py, and
convert_mmvet_for_eval.py.

The answers are those of the model's own ``generate``, a question at a time, in the order of tests/eval/benchmark_files.
A score that the original prints is kept as it is printed, any other as a number; those of further scorers begin with
"by".
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[2])]
SHORT, CHOICES, LLAVA, SCRIPTS = (str(Path(arg).resolve()) for arg in sys.argv[1:5])
sys.argv[1:] = [SHORT]
import make_short_answers as short  # noqa: E402

sys.argv[1:] = [CHOICES]
import make_choices as choices  # noqa: E402
import torch  # noqa: E402
from lmms_eval.tasks.mme import utils as mme  # noqa: E402
from lmms_eval.tasks.pope import utils as pope  # noqa: E402
from lmms_eval.tasks.scienceqa import utils as sqa  # noqa: E402
from lmms_eval.tasks.seedbench import utils as seedbench  # noqa: E402

from llava.eval.askers import ImageReader  # noqa: E402
from llava.eval.benchmark_table import TASKS  # noqa: E402
from llava.eval.parquet_shards import read_shards  # noqa: E402
from llava.eval.task import Question, check  # noqa: E402
from llava.model.checkpoint import load_model  # noqa: E402
from tests.eval.benchmark_files import write_benchmarks  # noqa: E402
from tests.eval.steered_checkpoint import HEAD_STEP, ask_alone, encode, find_words, write_steered  # noqa: E402

Questions = dict[str, list[Question]]
Texts = dict[str, list[str]]
Scores = dict[str, float | str]
LETTERS = "ABCDE"
NAME = "tiny"
CLOSEST = 5e-5
# MME's script counts with scikit-learn what it does not print, and scikit-learn refuses to count nothing.
GUARD = """import numpy, sklearn.metrics as m
for name in ("precision_score", "recall_score", "confusion_matrix"):
    count = getattr(m, name)
    empty = numpy.zeros((2, 2), int) if name == "confusion_matrix" else 0.0
    setattr(m, name, lambda t, p, count=count, empty=empty, **kw: count(t, p, **kw) if len(t) else empty)
"""


def wish(truth: str, others: list[str], dice: random.Random) -> str:
    """What the head is fitted to say: mostly the truth, now and then with a period."""
    said = truth if dice.random() < 0.8 else dice.choice(others)
    return dice.choice([said] * 9 + [f"{said}."])


def fit_heads(folder: Path, questions: Questions, truths: Texts) -> Iterator[dict[str, list[int]]]:
    """Least squares over the last state before each token of each wish, with several penalties."""
    loaded, reader, dice = load_model(str(folder)), ImageReader(28), random.Random(5)
    states, tokens = [], []
    end = loaded.tokenizer.eos_token_id

    def keep(_: Any, inputs: Any, out: torch.Tensor) -> None:
        states.extend(out[0, -len(wanted) :])

    hook = loaded.model.model.norm.register_forward_hook(keep)
    for name, asked in questions.items():
        for question, truth in zip(asked, truths[name], strict=True):
            said = wish(truth, truths[name], dice)
            wanted = [*loaded.tokenizer.encode(" " + said, add_special_tokens=False), end]
            inputs = encode(loaded, question, [image.image for image in reader.read(question)])
            inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([wanted[:-1]], dtype=torch.long)], 1)
            with torch.inference_mode():
                loaded.model(**inputs, use_cache=False)
            tokens += wanted
    hook.remove()
    state, names = torch.stack(states), sorted(set(tokens))
    goal = torch.zeros(len(tokens), len(names))
    goal[torch.arange(len(tokens)), torch.tensor([names.index(token) for token in tokens])] = 1
    said = loaded.tokenizer.convert_ids_to_tokens(names)
    weights = goal @ (1 / goal.sum(0).sqrt())[:, None]  # or else words that are wished for often are all that is said
    state, goal = state * weights, goal * weights
    for penalty in range(1, 30):
        rows = torch.linalg.solve(state.T @ state + penalty * torch.eye(state.shape[1]), state.T @ goal).T
        yield dict(zip(said, (rows * 8 * HEAD_STEP).round().int().tolist(), strict=True))


def answer(folder: Path, questions: Questions) -> Texts | None:
    """The answers of ``generate``; None where two tokens are too close for every processor to agree."""
    loaded, reader = load_model(str(folder)), ImageReader(28)
    margins: list[float] = []

    def watch(_: Any, inputs: Any, out: torch.Tensor) -> None:
        best = out[0, -1].topk(2).values
        margins.append(float(best[0] - best[1]))

    loaded.model.lm_head.register_forward_hook(watch)
    found: Texts = {}
    for name, asked in questions.items():
        found[name] = [ask_alone(loaded, one, [image.image for image in reader.read(one)]) for one in asked]
        if min(margins) < CLOSEST:
            return None
    print("the closest two logits differ by", min(margins))
    return found


class Runner:
    """Runs the original's scripts where the benchmarks' files are."""

    def __init__(self, data: Path, questions: Questions, texts: Texts) -> None:
        self.data, self.questions, self.texts = data, questions, texts

    def write(self, name: str, path: Path) -> Path:
        """The answers of a task as the original writes them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"question_id": question.id, "prompt": question.prompt, "text": text}
            for question, text in zip(self.questions[name], self.texts[name], strict=True)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def run(self, script: str, argv: str, folder: Path | None = None) -> str:
        """What a script prints."""
        home = Path(LLAVA) / "llava/eval" if (Path(LLAVA) / "llava/eval" / script).exists() else Path(SCRIPTS)
        env = {**os.environ, "PYTHONPATH": f"{LLAVA}:{os.environ.get('PYTHONPATH', '')}", "PYTHONUTF8": "1"}
        path = str(home / script)
        code = f"import runpy, sys; sys.argv[0] = {path!r}; runpy.run_path({path!r}, run_name='__main__')"
        command = [sys.executable, "-c", (GUARD if script == "calculation.py" else "") + code, *argv.split()]
        done = subprocess.run(command, cwd=folder or self.data, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout


def find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, text
    return match[1]


def mean(scores: list[Any]) -> float:
    return float(100 * sum(scores) / len(scores))


def read_by(family: str, texts: list[str], cases: list[list[Any]]) -> dict[str, float]:
    """The mean of each published scorer of make_short_answers.py over answers with their references."""
    scorers: dict[str, Callable[..., float]] = short.SCORERS[family][1]
    return {
        name: mean([scorer(text, *case) for text, case in zip(texts, cases, strict=True)])
        for name, scorer in scorers.items()
    }


def name_readings(scores: dict[str, float]) -> Scores:
    return {f"by {name}": score for name, score in scores.items()}


def load_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def score_vqa(runner: Runner) -> dict[str, Scores]:
    data, texts = runner.data, runner.texts
    rows = load_json(data / "vqav2/v2_mscoco_val2014_annotations.json")["annotations"]
    people = {
        row["question_id"]: [{k: said[k] for k in ("answer", "answer_id")} for said in row["answers"]] for row in rows
    }
    vqav2 = read_by("vqa", texts["vqav2_val"], [[people[one.id]] for one in runner.questions["vqav2_val"]])
    rows = load_json(data / "vizwiz/val.json")
    vizwiz = read_by("vqa", texts["vizwiz_val"], [[[said["answer"] for said in row["answers"]]] for row in rows])
    found = {
        "vqav2_val": {"accuracy": vqav2["vqa-submitted"], **name_readings(vqav2)},
        "vizwiz_val": {"accuracy": vizwiz["lmms-eval-textvqa"], **name_readings(vizwiz)},
    }
    rows = load_json(data / "textvqa/TextVQA_0.5.1_val.json")["data"]
    for name in ("textvqa", "textvqa_no_ocr"):
        path = runner.write(name, data / f"oracle/{name}.jsonl")
        argv = f"--annotation-file textvqa/TextVQA_0.5.1_val.json --result-file {path}"
        printed = find(r"Accuracy: (\S+)%", runner.run("eval_textvqa.py", argv))
        readings = read_by("vqa", texts[name], [[row["answers"]] for row in rows])
        found[name] = {"accuracy": printed, **name_readings(readings)}
    return found


def score_gqa(runner: Runner) -> dict[str, Scores]:
    folder = runner.data / "gqa/data"
    path = runner.write("gqa", runner.data / "oracle/gqa.jsonl")
    runner.run("convert_gqa_for_eval.py", f"--src {path} --dst {folder / 'testdev_balanced_predictions.json'}")
    printed = runner.run("gqa_eval.py", "--tier testdev_balanced", folder)
    names = ("accuracy", "binary", "open", "distribution")
    return {"gqa": {name: find(rf"(?m)^{name.capitalize()}: ([\d.]+)", printed) for name in names}}


def score_science(runner: Runner) -> dict[str, Scores]:
    path = runner.write("scienceqa", runner.data / "oracle/sqa.jsonl")
    argv = f"--base-dir scienceqa --result-file {path} --output-file oracle/o.json --output-result oracle/r.json"
    printed = runner.run("eval_science_qa.py", argv)
    problems = load_json(runner.data / "scienceqa/problems.json")
    pairs = zip(runner.questions["scienceqa"], runner.texts["scienceqa"], strict=True)
    lmms = [sqa.sqa_process_results(problems[one.id], [text])["exact_match"] for one, text in pairs if one.images]
    scores = {
        "image accuracy": find(r"IMG-Accuracy: (\S+)%", printed),
        "accuracy": find(r", Accuracy: (\S+)%", printed),
    }
    return {"scienceqa": {**scores, "by lmms-eval": mean(lmms)}}


def score_pope(runner: Runner) -> dict[str, Scores]:
    path = runner.write("pope", runner.data / "oracle/pope.jsonl")
    argv = f"--annotation-dir pope/coco --question-file pope/llava_pope_test.jsonl --result-file {path}"
    printed = runner.run("eval_pope.py", argv)
    found: Scores = {}
    for part in printed.split("Category: ")[1:]:
        category = part.split(",")[0]
        for name in ("F1 score", "Accuracy", "Precision", "Recall", "Yes ratio"):
            key = "F1" if name == "F1 score" else name.lower()
            found[f"{category} {key}"] = 100 * float(find(rf"(?m)^{name}: (\S+)", part))
    found["F1"] = sum(float(found[f"{kind} F1"]) for kind in ("random", "popular", "adversarial")) / 3
    labels = [
        json.loads(line)["label"]
        for kind in ("random", "popular", "adversarial")
        for line in (runner.data / f"pope/coco/coco_pope_{kind}.json").read_text().splitlines()
    ]
    rows = [
        pope.pope_process_results({"answer": label, "question_id": place}, [text])["pope_f1_score"]
        for place, (label, text) in enumerate(zip(labels, runner.texts["pope"], strict=True))
    ]
    return {"pope": {**found, "by lmms-eval, all categories together": 100 * pope.pope_aggregate_f1_score(rows)}}


def score_mme(runner: Runner) -> dict[str, Scores]:
    folder = runner.data / "MME"
    runner.write("mme", folder / f"answers/{NAME}.jsonl")
    runner.run("convert_answer_to_mme.py", f"--experiment {NAME}", folder)
    printed = runner.run("calculation.py", f"--results_dir eval_tool/answers/{NAME}", folder)
    found: Scores = {}
    lmms = {}
    for part in printed.split("=========== ")[1:]:
        name = part.split(" ")[0].lower()
        found[name] = float(find(r"total score: (\S+)", part))
        rows = []
        for category in re.findall(r"(\w+)  score:", part):
            for line in (folder / f"eval_tool/answers/{NAME}/{category}.txt").read_text().split("\n")[:-1]:
                image, _, truth, said = line.split("\t")
                doc = {"answer": truth, "category": category, "question_id": image}
                rows.append(next(iter(mme.mme_process_results(doc, [said]).values())))
        lmms[name] = mme.mme_aggregate_results(rows)
    return {"mme": {**found, "by lmms-eval": lmms["perception"]}}


def score_mmbench(runner: Runner) -> dict[str, Scores]:
    """VLMEvalKit's: every row of a question has to be right, by ``prefetch_circular_group``."""
    found = {}
    for name in ("mmbench", "mmbench_cn"):
        header, *lines = (runner.data / TASKS[name].files[0].path).read_text(encoding="utf-8").splitlines()
        groups: dict[int, list[bool]] = {}
        for line, text in zip(lines, runner.texts[name], strict=True):
            row = dict(zip(header.split("\t"), line.split("\t"), strict=True))
            letter = choices.vlmevalkit(text, {key: row[key] for key in "ABCD" if row[key]})
            groups.setdefault(int(row["index"]) % 1_000_000, []).append(letter == row["answer"])
        found[name] = {
            "circular accuracy": mean([all(group) for group in groups.values()]),
            "accuracy of rows": mean([one for group in groups.values() for one in group]),
        }
    return found


def score_seed(runner: Runner) -> dict[str, Scores]:
    path = runner.write("seed", runner.data / "oracle/seed.jsonl")
    argv = f"--annotation-file seed_bench/SEED-Bench.json --result-file {path} --result-upload-file oracle/up.jsonl"
    printed = runner.run("convert_seed_for_submission.py", argv)
    image = find(r"image accuracy: (\S+)%", printed)
    rows = load_json(runner.data / "seed_bench/SEED-Bench.json")["questions"]
    lmms = [
        seedbench.seed_aggregation_result([seedbench.seed_process_result(row, [text])["seed_all"]])
        for row, text in zip(rows, runner.texts["seed"], strict=True)
    ]
    scores: Scores = {"all": find(r"Total accuracy: (\S+)%", printed), "image": image}
    scores["video"] = find(r"video accuracy: (\S+)%", printed)
    return {
        "seed": {**scores, "by lmms-eval": mean(lmms)},
        "seed_image": {"image": image, "by lmms-eval": mean(lmms[: len(runner.texts["seed_image"])])},
    }


def score_letters(runner: Runner) -> dict[str, Scores]:
    """Q-Bench, AI2D and MMMU."""
    found: dict[str, Scores] = {}
    for name in ("qbench", "qbench_zh"):
        scores = []
        for question, text in zip(runner.questions[name], runner.texts[name], strict=True):
            row = dict(question.row or {})
            names = dict(zip(LETTERS, row["candidates"], strict=False))
            truth = LETTERS[row["candidates"].index(row["correct_ans"])]
            letter = choices.qbench.parse_multi_choice_response(text, list(names), names)
            scores.append([letter == truth, choices.vlmevalkit(text, names) == truth])
        lmms, other = (mean(list(column)) for column in zip(*scores, strict=True))
        found[name] = {"accuracy": lmms, "by VLMEvalKit": other}
    chosen = choices.MultiChoiceRegexFilter(regex_pattern="([A-Z])\\.", ignore_case=True, ignore_punctuation=True)
    compare, scores = choices.exact_match_hf_evaluate, []
    diagrams = read_shards(runner.data / TASKS["ai2d"].files[0].path, ["answer"])
    for row, text in zip(diagrams, runner.texts["ai2d"], strict=True):
        (read,) = chosen.apply([[text]], [{}])
        truth = [LETTERS[int(row.values["answer"])]]
        scores.append(compare([read], truth, ignore_case=True, ignore_punctuation=True)["exact_match"])
    found["ai2d"] = {"accuracy": mean(scores)}
    columns = ["question_type", "options", "answer"]
    rows = [row.values for row in read_shards(runner.data / TASKS["mmmu"].files[0].path, columns)]
    for name in ("mmmu", "mmmu_own"):
        scores = [
            choices.score_mmmu(text, row["question_type"], choices.ast.literal_eval(row["options"]), row["answer"])
            for row, text in zip(rows, runner.texts[name], strict=True)
        ]
        readings = ("accuracy", "by lmms-eval 0.7.2", "by lmms-eval 0.7.3", "by VLMEvalKit")
        found[name] = dict(zip(readings, (mean(list(column)) for column in zip(*scores, strict=True)), strict=True))
    return found


def score_maths(runner: Runner) -> dict[str, Scores]:
    columns = ["question_type", "answer_type", "choices", "precision", "answer"]
    rows = [row.values for row in read_shards(runner.data / TASKS["mathvista"].files[0].path, columns)]
    problems = [{**row, "choices": row["choices"] or []} for row in rows]
    choices.cases.MATH_CASES = list(zip(runner.texts["mathvista"], problems, strict=True))
    table = choices.math_vista()
    names = [f"by {name}" for name in table["readings"]]
    columns = zip(*(scores for _, scores in table["cases"]), strict=True)
    return {"mathvista": dict(zip(names, (mean(list(column)) for column in columns), strict=True))}


def score_documents(runner: Runner) -> dict[str, Scores]:
    found: dict[str, Scores] = {}
    for name, family, headline in (
        ("docvqa", "anls", "anls"),
        ("infovqa", "anls", "anls"),
        ("chartqa", "relaxed", "relaxed_overall"),
        ("ocrbench", "ocrbench", "Final Score"),
    ):
        names = {"anls": ["answers"], "relaxed": ["answer"], "ocrbench": ["answer", "dataset"]}[family]
        rows = [row.values for row in read_shards(runner.data / TASKS[name].files[0].path, names)]
        cases = [[row[names[0]] if family != "relaxed" else [row["answer"]]] for row in rows]
        if family == "ocrbench":
            cases = [[*case, row["dataset"]] for case, row in zip(cases, rows, strict=True)]
        readings = read_by(family, runner.texts[name], cases)
        if family == "ocrbench":  # points
            readings = {key: float(value) * len(rows) / 100 for key, value in readings.items()}
        first = readings["ocrbench-team" if family == "ocrbench" else "lmms-eval"]
        found[name] = {headline: first, **name_readings(readings)}
    return found


def convert(runner: Runner) -> dict[str, Any]:
    """The submissions that the original's scripts write."""
    place = "oracle/v/answers/s/m/merge.jsonl"
    runner.write("vqav2", runner.data / place)
    name = "llava_vqav2_mscoco_test2015.jsonl"
    (runner.data / "oracle/v" / name).write_bytes((runner.data / "vqav2" / name).read_bytes())
    runner.run("convert_vqav2_for_submission.py", "--dir oracle/v --split s --ckpt m")
    path = runner.write("vizwiz", runner.data / "oracle/vizwiz.jsonl")
    argv = f"--annotation-file vizwiz/llava_test.jsonl --result-file {path} --result-upload-file oracle/vizwiz.json"
    runner.run("convert_vizwiz_for_submission.py", argv)
    path = runner.write("mmvet", runner.data / "oracle/mmvet.jsonl")
    runner.run("convert_mmvet_for_eval.py", f"--src {path} --dst oracle/mmvet.json")
    files = {"vqav2": "v/answers_upload/s/m.json", "vizwiz": "vizwiz.json", "mmvet": "mmvet.json"}
    return {name: load_json(runner.data / "oracle" / file) for name, file in files.items()}


def main() -> None:
    """Fits the head, asks, runs the published scorers and writes the gold file."""
    for module in (choices.eval_utils, choices.mmmu_072, choices.mmmu_mcq_utils, choices.qbench):
        module.random = choices.no_dice
    with tempfile.TemporaryDirectory() as name:
        data, folder = Path(name) / "data", Path(name) / NAME
        truths = write_benchmarks(data)
        questions = {name: check(TASKS[name], data, is_partial=True)[0] for name in TASKS}
        words = find_words(one.text for asked in questions.values() for one in asked)
        folder.mkdir()
        write_steered(folder, words, {})
        for head in fit_heads(folder, questions, truths):
            write_steered(folder, words, head)
            if (texts := answer(folder, questions)) is not None:
                break
        assert texts is not None
        runner = Runner(data, questions, texts)
        scores: dict[str, Scores] = {}
        for score in (score_vqa, score_gqa, score_science, score_pope, score_mme, score_mmbench, score_seed):
            scores |= score(runner)
        for score in (score_letters, score_maths, score_documents):
            scores |= score(runner)
        gold = {"head": head, "answers": runner.texts, "scores": scores, "submissions": convert(runner)}
    source = " ".join((__doc__ or "").split("in an environment with ")[1].split("The answers")[0].split())
    parts = [f'"source": {json.dumps(source)}']
    for part, value in gold.items():
        rows = ",\n".join(f"{json.dumps(key)}: {json.dumps(row)}" for key, row in value.items())
        parts.append(f'"{part}": {{\n{rows}}}')
    (HERE / "benchmark_runs.json").write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")
    for key, row in scores.items():
        print(key, row)


if __name__ == "__main__":
    main()
