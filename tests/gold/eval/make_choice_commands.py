# ruff: noqa: E501  (tables of answers)
"""Makes choice_commands.json: the original's command lines on small files, and single answers read by the originals.

``python make_choice_commands.py LLAVA SCRIPTS``: LLAVA is a folder with haotian-liu/LLaVA's package (llava_torch 1.2.2.post1); SCRIPTS
holds scripts/convert_mmvet_for_eval.py@5a5bda8 and parse_pred_ans.py, which has ``calculate_metrics.parse_pred_ans`` of MME's
calculation.py (a copy whose repository is not recorded) and ``parse_pred_ans`` of EvolvingLMMs-Lab/lmms-eval@306a8b4
lmms_eval/tasks/mme/utils.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
YES_NO = """Yes|No|yes|no|NO|YES|Yes.|No.|no,|No, it is|not|nope|none|know|Know.|y|n|Y|N|y.|N.|.|..||?| no| yes|  no
the answer is no|There is not|There is no dog.|It is. No|Yes, no|no yes|NOT|Not|not.|not,sure|a no|an o|eyes|yes no
1|0|None|nan|true|false|maybe|\u5426|\u662f|\uff2e\uff4f|N\u014d|no\u00a0dog|no\tdog|"no"|(no)|*No*|no-one|cannot|can not|isn't
Y es|n.o|no!|No?|yesno|noyes|YeS|nO|ye|yess|unknown|I do not know""".replace("\n", "|").split("|")
YES_NO += ["no\n", "\nno", "Yes\nNo", "yes ", "n\n", "\u2028no", "\ufeffno"]
LETTERS = """A|B|C|D|E|F|a|b|A.|A. |A. x|B. y|E. z|F. x|(A)|A)|A |A:|A.x|A.  x|The answer is A|The answer is A.|The answer is B because
The answer is A. The answer is B.|The answer is A. The answer is A.|the answer is A.|The answer is a.|The answer is F.
The answer is AB.|The answer is A. B|A. The answer is B.|So. The answer is C!|The answer is D?|The answer is  A.|Answer: A||.|None|nan
\u0410|\uff21|AB|A, B|A B|B. dog|BECAUSE: The answer is B.|xThe answer is Cx|The answer is Z.|The answer is [A].|FAILED|1|0|ABCDE
C.|D. |The answer is E.|The answer is D. |E|D.|C. \u4e2d|The answer isB.|The answer is C,|The answer is C;|The answer is C\u3002""".replace(
    "\n", "|"
).split("|")
LETTERS += ["A\n", "A. \n", "The answer is B\n", "The answer is B.\nx", "\nA", "A.\u00a0x"]


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def pope(dice: random.Random) -> dict[str, str]:
    files, questions, answers = {}, [], []
    for category in ("random", "adversarial"):
        labels = []
        for i, said in enumerate(YES_NO):
            asked = {"image": f"COCO_val2014_{i:012}.jpg", "text": f"Is there a {category} dog in the image?"}
            labels.append({"question_id": i + 1, **asked, "label": dice.choice(["yes", "no"])})
            key = len(questions)
            text = asked["text"] + "\nAnswer the question using a single word or phrase."
            questions.append({"question_id": key, "image": asked["image"], "text": text, "category": category})
            answers.append({"question_id": key, "prompt": text, "text": said, "metadata": {}})
        files[f"coco/coco_pope_{category}.json"] = lines(labels)
    return {**files, "q.jsonl": lines(questions), "a.jsonl": lines(answers)}


def science(dice: random.Random) -> dict[str, str]:
    problems, answers = {}, []
    for i, said in enumerate(LETTERS):
        num = dice.choice([1, 2, 3, 4, 5])
        problems[str(i)] = {"choices": [f"c{j}" for j in range(num)], "answer": dice.randrange(num)}
        prompt = dice.choice(["<image>\nWhat?", "What?"])
        answers.append({"question_id": str(i), "prompt": prompt, "text": said})
    problems["not answered"] = {"choices": ["x"], "answer": 0}
    splits = {"test": list(problems), "minitest": ["0", "1"]}
    return {
        "sqa/problems.json": json.dumps(problems),
        "sqa/pid_splits.json": json.dumps(splits),
        "a.jsonl": lines(answers),
    }


def run(script: Path, argv: str, files: dict[str, str], llava: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        env = {**os.environ, "PYTHONPATH": str(llava), "PYTHONUTF8": "1"}
        command = [sys.executable, str(script), *argv.split()]
        done = subprocess.run(command, cwd=folder, capture_output=True, env=env, check=True)
        written = {
            str(path.relative_to(folder)): path.read_text(encoding="utf-8")
            for path in sorted(folder.rglob("*"))
            if path.is_file() and str(path.relative_to(folder)) not in files
        }
    return {"argv": argv.split(), "files": files, "stdout": done.stdout.decode(), "written": written}


def main() -> None:
    """Runs the originals and writes the gold file."""
    llava, scripts = (Path(arg).resolve() for arg in sys.argv[1:3])
    dice = random.Random(15)
    spec = importlib.util.spec_from_file_location("parse_pred_ans", scripts / "parse_pred_ans.py")
    assert spec
    assert spec.loader
    mme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mme)
    official = mme.calculate_metrics().parse_pred_ans
    files = science(dice)
    argv = "--base-dir sqa --result-file a.jsonl --output-file o.json --output-result r.json"
    commands = {
        "eval_pope": run(
            llava / "llava/eval/eval_pope.py",
            "--annotation-dir coco --question-file q.jsonl --result-file a.jsonl",
            pope(dice),
            llava,
        ),
        "eval_science_qa": run(llava / "llava/eval/eval_science_qa.py", argv, files, llava),
        "convert_mmvet_for_eval": run(
            scripts / "convert_mmvet_for_eval.py", "--src a.jsonl --dst o.json", {"a.jsonl": files["a.jsonl"]}, llava
        ),
    }
    source = " ".join((__doc__ or "").split(": LLAVA is")[1].split())
    gold = {
        "source": f"LLAVA is {source}",
        "commands": commands,
        "mme": [[text, official(text.lower()), mme.parse_pred_ans(text)] for text in YES_NO],
    }
    (HERE / "choice_commands.json").write_text(json.dumps(gold, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
