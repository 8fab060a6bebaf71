# ruff: noqa: E501  (tables of answers)
"""Makes choice_runs.json: MME's, SEED-Bench's and ScienceQA's command lines on small files, and lmms-eval's scores.

``python make_choice_runs.py LLAVA SCRIPTS SITE``: LLAVA is a folder with haotian-liu/LLaVA's package (llava_torch 1.2.2.post1); SCRIPTS
holds convert_seed_for_submission.py@524a75b, convert_sqa_to_llava.py@82bc69e, convert_sqa_to_llava_base_prompt.py@5a5bda8 and
playground/data/eval/MME/convert_answer_to_mme.py@32cebc3 of the same repository, and zjunlp/Deco@a3ccc15 eval_tool/calculation.py, MME's
own script, without the line print(args), which the other copies (Haoming2000/VLM-Benchmarks@22d790a, hanzi25/HallE@38b1e4f) lack; SITE
holds the packages lmms_eval 0.7.3, scikit-learn 1.9.1 and fire 0.7.1, and vlmeval/ of ms-vlmeval 0.0.20.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from make_choice_commands import LETTERS, YES_NO, lines

HERE = Path(__file__).resolve().parent
S1 = "Answer the question using a single word or phrase."
PERCEPTION = "existence count position color posters celebrity scene landmark artwork OCR".split()
COGNITION = "commonsense_reasoning numerical_calculation text_translation code_reasoning".split()
WITH_FOLDERS = ("posters", "celebrity", "scene", "landmark", "artwork")
TYPES = {
    "Scene Understanding": 1,
    "Instance Identity": 2,
    "Instance Counting": 5,
    "Action Recognition": 10,
    "Procedure Understanding": 12,
}


def run(
    script: Path, argv: str, files: dict[str, str], path: str, prelude: str = "", fails: bool = False
) -> dict[str, Any]:
    """The command line, what it printed and what it wrote; ``prelude`` is Python that runs first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, text in files.items():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_text(text, encoding="utf-8")
        code = f"import runpy, sys, random\n{prelude}\nsys.argv = {[str(script), *argv.split()]}\nsys.path.insert(0, {str(script.parent)!r})\nrunpy.run_path({str(script)!r}, run_name='__main__')"
        env = {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, env=env)
        assert (done.returncode != 0) == fails, done.stderr.decode()
        written = {
            str(key.relative_to(folder)): key.read_text(encoding="utf-8")
            for key in sorted(folder.rglob("*"))
            if key.is_file()
        }
    written = {key: text for key, text in written.items() if key not in files}
    return {"argv": argv.split(), "files": files, "stdout": done.stdout.decode(), "written": written}


def mme(dice: random.Random) -> dict[str, str]:
    """MME's folder and answers to all of it: every answer of YES_NO that breaks no line, about both truths."""
    folder, answers, files = "MME_Benchmark_release_version", [], {}
    said = [text for text in YES_NO if not set("\t\r\n") & set(text)]
    said += ["Yes", "No"] * 40
    dice.shuffle(said)
    given = iter(said * 4)
    for category in PERCEPTION + COGNITION:
        for image in range(dice.choice([3, 4, 7])):
            stem, texts = f"{category[:3]}{image:04}", ""
            place = f"{folder}/{category}"
            if category in WITH_FOLDERS:
                files[f"{place}/images/{stem}.jpg"] = ""
                place += "/questions_answers_YN"
            for number, truth in enumerate(dice.sample(["Yes", "No"], 2)):
                asked = f"Is this caf\u00e9 number {number} of {image}?"
                full = f"{asked}{dice.choice([' ', '  '])}Please answer yes or no."
                texts += f"{full}\t{truth}\n"
                key = f"{category}/{'images/' if category in WITH_FOLDERS else ''}{stem}.{dice.choice(['jpg', 'png'])}"
                prompt = dice.choice([f"{asked}\n{S1}"] * 8 + [asked, full, f"{full}\n{S1}"])
                answers.append({"question_id": key, "prompt": prompt, "text": next(given)})
            files[f"{place}/{stem}.txt"] = texts
    return {**files, f"{folder}/readme.md": "x", "answers/m-7b.jsonl": lines(answers)}


SEED_ANSWERS = """A|B|C|D|a|b|A.|B.|C. dog|D: x|(A)|A)| A|B |A\n|AB|A B|Answer: A|The answer is B|E|1||.|Banana|Apple|cat|dog|None|nan|\u0410|\uff21|A,|A B C D|b.|d)|\
\u00a0A|A\u00a0|\ufeffA|"A"|'B'|[C]|*D*|**A**|\u00c5|option A|I think A|ABCD|DCBA|Both A and B|Neither|yes|No|C!|C?|D;|C\u3002|\u7b54\u6848A|A\\|B\t|\tB|\u2028C|aA|Aa|
A|\r\nB|C\u0301|\u24b6|\U0001d400|D D D|-A|_A_|A\u200b""".split("|")


def seed(dice: random.Random, answers: list[str], names: dict[str, int] | None = None) -> dict[str, str]:
    """Annotations and answers in types by chance, or, without ``names``, each answer in a type of its own.

    A type of its own has a second question that is answered rightly: the script fails at types without a right answer.
    """
    types_ = names or {f"case {place}": place for place in range(len(answers))}
    questions: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []

    def add(text: str, type_id: int, kind: str, truth: str) -> None:
        key = f"v{len(rows)}" if kind == "video" else str(100 + len(rows))
        questions.append({"answer": truth, "data_type": kind, "question_id": key, "question_type_id": type_id})
        rows.append({"question_id": int(key) if kind == "image" else key, "prompt": "?", "text": text})

    for place, text in enumerate(answers):
        first = text.strip()[:1].upper()
        truth = first if first in tuple("ABCD") and dice.random() < 0.7 else dice.choice("ABCD")
        if names:
            type_id = dice.choice(list(names.values()))
            add(text, type_id, "video" if type_id >= 10 else "image", truth)
        else:
            for said, right in ((text, truth), ("C", "C")):
                add(said, place, "video" if place % 3 == 2 else "image", right)
    dice.shuffle(rows)
    return {"SEED-Bench.json": json.dumps({"question_type": types_, "questions": questions}), "a.jsonl": lines(rows)}


def science(dice: random.Random) -> dict[str, str]:
    """Problems, and three answers to each: the model's, GPT-4's, and GPT-4's second one."""
    problems, ours, outputs, again = {}, [], {}, []
    for place, said in enumerate(LETTERS + [f"It is so. The answer is {letter}." for letter in "ABCDE" * 12]):
        num = dice.choice([1, 2, 3, 4, 5])
        problems[str(place)] = {"choices": [f"c{i}" for i in range(num)], "answer": dice.randrange(num)}
        sure = f"The answer is {'ABCDE'[problems[str(place)]['answer']]}."
        ours.append({"question_id": str(place), "prompt": f"<image>\nWhat is {place}?", "text": said})
        other = f"The answer is {dice.choice('ABCDE')}."
        outputs[str(place)] = dice.choice([dice.choice(LETTERS), sure, said, other, other])
        if dice.random() < 0.9:
            again.append(
                {"question_id": str(place), "prompt": "?", "text": dice.choice([dice.choice(LETTERS), sure, other])}
            )
    splits = {"test": dice.sample(list(problems), len(problems)), "minitest": ["0", "1"]}
    return {
        "sqa/problems.json": json.dumps(problems),
        "sqa/pid_splits.json": json.dumps(splits),
        "ours.jsonl": lines(ours),
        "gpt4.json": json.dumps({"acc": 1, "outputs": outputs}),
        "again.jsonl": lines(again),
    }


HINTS = ["", "Two  blanks.", "A line.\nAnother.", "Question: what?", "BECAUSE: no BECAUSE:", "\u00e9t\u00e9 {o} %s"]


def problems_of(dice: random.Random) -> dict[str, str]:
    """ScienceQA's files as its converter reads them."""
    problems = {}
    for place in range(24):
        num = dice.choice([1, 2, 3, 5])
        texts = {name: dice.choice(HINTS) for name in ("hint", "lecture", "solution")}
        question = dice.choice(["Which is it?", "Which  is   it?", "Question: Which?"])
        choices = [dice.choice([f"c{i}", " two  blanks ", "BECAUSE:"]) for i in range(num)]
        problems[str(place)] = {
            "question": question,
            "choices": choices,
            "answer": dice.randrange(num),
            "image": dice.choice([None, "image.png"]),
            "caption": dice.choice(["", "A dog."]),
            **texts,
        }
    splits = {"train": [*map(str, range(20)), "3"], "minival": ["20", "21", "22", "23"]}
    return {"sqa/problems.json": json.dumps(problems), "sqa/pid_splits.json": json.dumps(splits)}


def read_prompts(base_prompt: Any, files: dict[str, str]) -> list[Any]:
    """What the base prompt's functions return, by their arguments."""
    problems, found = json.loads(files["sqa/problems.json"]), []
    for number, name in enumerate(("QCM-A", "CQM-LEA", "QCML-AEL", "QCEM-ALE", "QCLEM-EA", "QCMLE-AE")):
        args = types.SimpleNamespace(prompt_format=name, use_caption=number % 2 == 0, options=["A", "B", "C", "D", "E"])
        shots, test = [str(i) for i in range(number, number + 3)], str(number + 5)
        for function in ("build_prompt", "build_prompt_gpt4"):
            found.append(
                [function, [shots, test], vars(args), getattr(base_prompt, function)(problems, shots, test, args)]
            )
        more = {"use_caption": args.use_caption, "is_test": number % 2 == 1}
        found.append(
            [
                "build_prompt_chatbot",
                [shots, name],
                more,
                base_prompt.build_prompt_chatbot(problems, shots, name, **more),
            ]
        )
    return found


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lmms_tables(site: Path, converted: dict[str, str]) -> dict[str, Any]:
    """lmms-eval's scores of single answers, and its aggregates."""
    stub = types.ModuleType("lmms_eval.tasks._task_utils.file_utils")
    stub.generate_submission_file = None  # type: ignore[attr-defined]  # of a file that nothing here writes
    for name in ("lmms_eval", "lmms_eval.tasks", "lmms_eval.tasks._task_utils"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules[stub.__name__] = stub
    pope, sqa, seeds, mmes = (
        load(site / "lmms_eval/tasks" / name / "utils.py") for name in ("pope", "scienceqa", "seedbench", "mme")
    )
    docs = [(text, label) for text in YES_NO for label in ("yes", "no")]
    results = [
        pope.pope_process_results({"answer": label, "question_id": 0}, [text])["pope_f1_score"] for text, label in docs
    ]
    sqa_rows = []
    for place, text in enumerate(LETTERS):
        num = place % 5 + 1
        doc = {"choices": ["x"] * num, "answer": (place * 7) % num}
        sqa_rows.append([text, num, doc["answer"], sqa.sqa_process_results(doc, [text])["exact_match"]])
    totals = {}
    for group, names in (("perception", PERCEPTION), ("cognition", COGNITION)):
        rows = [
            [name, *line.split("\t")]
            for name in names
            for line in converted[f"eval_tool/answers/m-7b/{name}.txt"].split("\n")[:-1]
        ]
        found = [
            mmes.mme_process_results({"answer": row[3], "category": row[0], "question_id": row[1]}, [row[4]])
            for row in rows
        ]
        totals[group] = mmes.mme_aggregate_results([next(iter(one.values())) for one in found])
    seed_rows = []
    for place, text in enumerate(SEED_ANSWERS):
        for truth in (
            "ABCD"[place % 4],
            (text.strip()[:1].upper() or "A") if text.strip()[:1].upper() in "ABCD" else "B",
        ):
            one = seeds.seed_process_result({"answer": truth, "data_type": "image", "question_id": place}, [text])
            seed_rows.append([text, truth, seeds.seed_aggregation_result([one["seed_all"]])])
    pope_rows = [
        [text, label, one["prediction"], one["score"]] for (text, label), one in zip(docs, results, strict=True)
    ]
    return {
        "pope": pope_rows,
        "pope_f1": pope.pope_aggregate_f1_score(results),
        "scienceqa": sqa_rows,
        "mme": totals,
        "seed": seed_rows,
    }


def vlmevalkit_table(site: Path) -> list[Any]:
    """How VLMEvalKit reads answers: ``YOrN_Extraction`` with its ``process_punctuation``, without their packages."""
    import ast
    import re

    space: dict[str, Any] = {"re": re}
    for name, function in (("smp/misc.py", "process_punctuation"), ("dataset/utils/yorn.py", "YOrN_Extraction")):
        tree = ast.parse((site / "vlmeval" / name).read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
        exec(compile(tree, name, "exec"), space)
    more = [
        "1,000 yes-no",
        "1,,0 yes-no",
        "yes-no",
        "yes/no",
        "yes!no",
        "1. No",
        "No1.",
        "7.no",
        "No.7",
        "." * 40 + "no.",
    ]
    more += [". " * 31 + "no.", "1." * 40 + " no.", "no:", "no*", "*no*", "no'", "'yes'", "Yes;no", "yes no yes"]
    return [[text, space["YOrN_Extraction"](text)] for text in YES_NO + more]


def main() -> None:
    """Runs the originals and writes the gold file."""
    llava, scripts, site = (Path(arg).resolve() for arg in sys.argv[1:4])
    dice = random.Random(16)
    path = f"{llava}:{site}:{scripts}"
    mme_files, problems = mme(dice), problems_of(dice)
    converted = run(scripts / "convert_answer_to_mme.py", "--experiment m-7b", mme_files, path)
    letters = ["A", "B", "C", "D"] * 12 + ["A.", "b", " C", "D dog"]
    full, cases = seed(dice, letters, TYPES), seed(dice, SEED_ANSWERS)
    half = {**full, "a.jsonl": "".join(full["a.jsonl"].splitlines(keepends=True)[:40])}
    images = {
        **full,
        "a.jsonl": "".join(line for line in full["a.jsonl"].splitlines(keepends=True) if '": "v' not in line),
    }
    seed_argv = "--annotation-file SEED-Bench.json --result-file a.jsonl --result-upload-file up.jsonl"
    votes, gpt4 = science(dice), llava / "llava/eval/eval_science_qa_gpt4.py"
    requery = llava / "llava/eval/eval_science_qa_gpt4_requery.py"
    one = "--base-dir sqa --gpt4-result gpt4.json --our-result ours.jsonl"
    two = f"{one} --requery-result again.jsonl --output-result r.json"
    wrong = "random.choice = lambda choices: -1"
    fewer = {**votes, "ours.jsonl": "".join(votes["ours.jsonl"].splitlines(keepends=True)[5:])}
    seed_script, sqa = scripts / "convert_seed_for_submission.py", scripts / "convert_sqa_to_llava.py"
    commands = {
        "convert_answer_to_mme": converted,
        "calculation": run(
            scripts / "calculation.py", "--results_dir eval_tool/answers/m-7b", converted["written"], path
        ),
        "convert_seed_for_submission": run(seed_script, seed_argv, full, path),
        "convert_seed_for_submission by case": run(seed_script, seed_argv, cases, path),
        "convert_seed_for_submission half": run(seed_script, seed_argv, half, path, fails=True),
        "convert_seed_for_submission images": run(seed_script, seed_argv, images, path, fails=True),
        "eval_science_qa_gpt4": run(gpt4, one, votes, path, wrong),
        "eval_science_qa_gpt4 fewer": run(gpt4, one, fewer, path, wrong),
        "eval_science_qa_gpt4 dice": run(gpt4, one, votes, path, "random.seed(7)"),
        "eval_science_qa_gpt4_requery": run(requery, two, votes, path, wrong),
        "eval_science_qa_gpt4_requery dice": run(requery, two, votes, path, "random.seed(7)"),
        "convert_sqa_to_llava": run(
            sqa, "convert_to_llava --base-dir sqa --prompt-format QCM-LEA --split train", problems, path
        ),
        "convert_sqa_to_llava minival": run(sqa, "convert_to_llava --base_dir=sqa --split=minival", problems, path),
        "convert_sqa_to_llava lines": run(
            sqa, "convert_to_jsonl --base-dir sqa --split train --prompt-format CQM-A", problems, path
        ),
    }
    tables = lmms_tables(site, converted["written"])
    texts: dict[str, int] = {}  # many commands have the same files
    for command in commands.values():
        for name in ("files", "written"):
            command[name] = {key: texts.setdefault(text, len(texts)) for key, text in command[name].items()}
    source = " ".join((__doc__ or "").split(": LLAVA is")[1].split())
    gold = {
        "source": f"LLAVA is {source}",
        "texts": list(texts),
        "commands": commands,
        "prompts": read_prompts(load(scripts / "convert_sqa_to_llava_base_prompt.py"), problems),
        "lmms-eval": tables,
        "VLMEvalKit": vlmevalkit_table(site),
    }
    (HERE / "choice_runs.json").write_text(json.dumps(gold, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
