"""Makes short_answer_commands.json: the original's command lines on small files, with what they print and write.

``python make_short_answer_commands.py LLAVA SCRIPTS GQA``: LLAVA is a folder with haotian-liu/LLaVA@c121f04's package,
SCRIPTS its scripts, GQA the official eval.py as in SHI-Labs/VCoder@2f95684 playground/data/eval/gqa/data/eval/eval.py.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SENTENCE = "Answer the question using a single word or phrase."
SAID = """Yes. | no | Two dogs | the Red, blue | 1,000 | 3.5 km. | Tom's | t-shirt | None | nan | café | 是 | (left) |
    U.S.A. | dont know | STOP! | a\tb | 10:30 | 5% | "quoted" | unanswerable""".split(" | ")
SAID += ["", " ", "new\nline", "yes..", "...", "\u2028x"]
WORDS = ["yes", "no", "2 dogs", "red blue", "1000", "3.5 km", "tom 's", "t shirt", "0", "nan", "café", "left", "stop"]


def lines(rows: list[Any]) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def answer(key: Any, text: str, prompt: str = "") -> dict[str, Any]:
    shared = {"answer_id": "abcdefghijkmnopqrstuvw", "model_id": "llava-v1.5-7b", "metadata": {}}
    return {"question_id": key, "prompt": prompt, "text": text, **shared}


def textvqa(dice: random.Random) -> tuple[str, str]:
    """Annotations of images with several questions each, and an answer to each question in some form of prompt."""
    annotations, answers = [], []
    for image in range(12):
        for word in ("What", "WHICH", "Wie groß"):
            question, name = f"{word} is {image} there?", f"{image:016x}"
            people = [dice.choice(WORDS[:4] + [f"{word} {image}"]) for _ in range(10)]
            annotations.append({"image_id": name, "question": question, "answers": people})
            prompt = dice.choice(
                [
                    f"{question}\n{SENTENCE}",
                    f"{question}\nReference OCR token: A, b\n{SENTENCE}",
                    f"Reference OCR token: A, b\n{question}\n{SENTENCE}",
                    f"OCR tokens: A b. Question: {question} Short answer:",
                ]
            )
            answers.append(answer(name, dice.choice([*SAID, *WORDS, *people]), prompt))
    dice.shuffle(answers)
    return json.dumps({"dataset_type": "val", "data": annotations}), lines(answers)


def vqav2(dice: random.Random) -> tuple[str, str]:
    """Questions with numbers as ids; answers to most, some twice, with broken and empty lines between."""
    questions = [{"question_id": 262144000 + i, "image": f"{i}.jpg", "text": f"q\n{SENTENCE}"} for i in range(60)]
    answers: list[Any] = [answer(row["question_id"], dice.choice(SAID)) for row in questions[5:]]
    answers[7:7] = ['{"question_id": 262144007, "te', "", "half"]
    answers += [answer(262144009, "Last One"), answer(5, "stranger")]
    return lines(questions), lines(answers)


def vizwiz(dice: random.Random) -> tuple[str, str]:
    """Questions with an answer each, and a broken line."""
    questions = [{"question_id": i, "image": f"VizWiz_test_{i:08d}.jpg", "text": "q"} for i in range(40)]
    answers: list[Any] = [answer(i, dice.choice(SAID)) for i in range(40)]
    dice.shuffle(answers)
    return lines(questions), lines(["{", *answers])


def gqa(dice: random.Random) -> tuple[dict[str, Any], list[Any], dict[str, Any]]:
    """Questions of all types, answers in the model's words, and choices."""
    questions, answers, choices = {}, [], {}
    for i in range(90):
        key, truth = f"2015{i:04d}", dice.choice(["yes", "no", "left", "street light", "café", "white"])
        operations = ["select", "relate", "filter color", "query", "exist", "choose name"]
        step = {"operation": dice.choice(operations), "argument": dice.choice(["name", "?", "dog (1)"])}
        questions[key] = {
            "question": " ".join(["word"] * dice.randint(3, 12)) + "?",
            "answer": truth,
            "isBalanced": i % 17 != 3,
            "imageId": str(i),
            "semantic": [*[step] * (1 + i % 5), {"operation": "query", "argument": "name"}],
            "types": {
                "structural": dice.choice(["query", "verify", "logical", "compare", "choose"]),
                "semantic": dice.choice(["attr", "cat", "global", "obj", "rel"]),
                "detailed": dice.choice(["weatherVerify", "compareCommon", "twoCommon", "categoryRelS"]),
            },
            "groups": {"global": dice.choice([None, "color", "place"]), "local": "x"},
        }
        said = dice.choice([truth, truth.upper() + "...", truth.title() + ".", "no", " yes", "color", ""])
        answers.append(answer(key, said))
        choices[key] = {"valid": ["yes", "no", "left"], "plausible": ["yes", truth]}
    return questions, answers, choices


def run(command: list[str], files: dict[str, str], **env: str) -> dict[str, Any]:
    """The command's inputs, what it prints, and the files it writes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        done = subprocess.run(command, cwd=folder, capture_output=True, env={**os.environ, **env}, check=True)
        written = {
            str(path.relative_to(folder)): path.read_text(encoding="utf-8")
            for path in sorted(folder.rglob("*"))
            if path.is_file() and str(path.relative_to(folder)) not in files
        }
    return {"files": files, "stdout": done.stdout.decode(), "written": written}


def main() -> None:
    """Runs the originals and writes the gold file: files are numbers of the texts at its end."""
    llava, scripts, official = (Path(arg).resolve() for arg in sys.argv[1:4])
    dice, gold, python = random.Random(15), {}, sys.executable

    def add(name: str, script: Path, argv: str, files: dict[str, str]) -> None:
        kept = run([python, str(script), *argv.split()], files, PYTHONPATH=str(llava), PYTHONUTF8="1")
        gold[name] = {"argv": argv.split(), **kept}

    annotations, answers = textvqa(dice)
    files = {"TextVQA_0.5.1_val.json": annotations, "answers/llava-v1.5-7b.jsonl": answers}
    evaluate = llava / "llava/eval/eval_textvqa.py"
    flag = "--annotation-file TextVQA_0.5.1_val.json"
    add("eval_textvqa", evaluate, f"{flag} --result-file answers/llava-v1.5-7b.jsonl", files)
    files = {**files, "answers/a.b.jsonl": answers.split("\n", 3)[2] + "\n", "answers/notes.txt": ""}
    add("eval_textvqa of a folder", evaluate, f"{flag} --result-dir answers", files)
    questions, answers = vqav2(dice)
    files = {
        "d/llava_vqav2_mscoco_test2015.jsonl": questions,
        "d/answers/llava_vqav2_mscoco_test-dev2015/llava-v1.5-7b/merge.jsonl": answers,
    }
    argv = "--dir d --split llava_vqav2_mscoco_test-dev2015 --ckpt llava-v1.5-7b"
    add("convert_vqav2_for_submission", scripts / "convert_vqav2_for_submission.py", argv, files)
    questions, answers = vizwiz(dice)
    argv = "--annotation-file llava_test.jsonl --result-file a.jsonl --result-upload-file up/load.json"
    files = {"llava_test.jsonl": questions, "a.jsonl": answers}
    add("convert_vizwiz_for_submission", scripts / "convert_vizwiz_for_submission.py", argv, files)
    questions, rows, choices = gqa(dice)
    add(
        "convert_gqa_for_eval",
        scripts / "convert_gqa_for_eval.py",
        "--src a.jsonl --dst b.json",
        {"a.jsonl": lines(rows)},
    )
    tier = "testdev_balanced"
    files = {
        f"{tier}_questions.json": json.dumps(questions),
        f"{tier}_predictions.json": gold["convert_gqa_for_eval"]["written"]["b.json"],
    }
    add("eval_gqa", official, f"--tier {tier}", files)
    add("eval_gqa with choices", official, f"--tier {tier}", {**files, f"{tier}_choices.json": json.dumps(choices)})
    source = " ".join((__doc__ or "").split(": LLAVA is")[1].split())
    texts: list[str] = []

    def place(text: str) -> int:
        if text not in texts:
            texts.append(text)
        return texts.index(text)

    for kept in gold.values():
        for part in ("files", "written"):
            kept[part] = {path: place(text) for path, text in kept[part].items()}
    text = json.dumps({"source": f"LLAVA is {source}", "commands": gold, "texts": texts}, indent=0)
    (HERE / "short_answer_commands.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
