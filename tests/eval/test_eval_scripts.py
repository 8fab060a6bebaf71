"""Every script of scripts/v1_5/eval runs as it is on small files in the official form: chunks, merge, score, upload."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.eval.scoring.mme_pairs import GROUPS
from tests.data.user_logs import complete, run_teacher
from tests.eval.quick_python import run_quick_python

ROOT = Path(__file__).resolve().parents[2]
SHORT = "\nAnswer the question using a single word or phrase."
NAME = "llava-v1.5-13b"
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Home:
    """The folder from which the scripts are run; ``eval`` is playground/data/eval in it."""

    path: Path
    bin: Path

    @property
    def eval(self) -> Path:
        return self.path / "playground/data/eval"

    def lines(self, path: str, rows: Rows) -> Rows:
        """Writes JSON lines, and the images that they name by ``image`` beside ``images``."""
        self.text(path, "".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def text(self, path: str, text: str) -> None:
        (self.eval / path).parent.mkdir(parents=True, exist_ok=True)
        (self.eval / path).write_text(text, encoding="utf-8")

    def images(self, folder: str, *names: str) -> None:
        for number, name in enumerate(names):
            path = self.eval / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40 + number, 30), (50 * number, 90, 20)).save(path)

    def read(self, path: str) -> Any:
        return json.loads((self.eval / path).read_text(encoding="utf-8"))

    def rows(self, path: str) -> Rows:
        return [json.loads(line) for line in (self.eval / path).read_text(encoding="utf-8").splitlines()]

    def run(self, name: str, *argv: str, devices: str | None = None, **environ: str) -> str:
        """What a script prints."""
        env = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", **environ}
        if devices is not None:
            env["CUDA_VISIBLE_DEVICES"] = devices
        command = ["bash", f"scripts/v1_5/eval/{name}.sh", *argv]
        done = subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, next_folder: Path) -> Iterator[Home]:
    """A user's checkout beside the checkpoint that the scripts name, and a quick python."""
    path, commands = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("bin")
    for name in ("llava", "scripts"):
        (path / name).symlink_to(ROOT / name)
    (path / "liuhaotian").mkdir()
    (path / f"liuhaotian/{NAME}").symlink_to(next_folder)
    shutil.copytree(ROOT / "playground", path / "playground")
    with run_quick_python(commands):
        yield Home(path, commands)


def ask(count: int, **others: Any) -> Rows:
    return [
        {"question_id": i, "image": f"{i % 2}.jpg", "text": f"What is {i}?{SHORT}", "category": "default", **others}
        for i in range(count)
    ]


def test_textvqa(home: Home) -> None:
    home.images("textvqa/train_images", "0.jpg", "1.jpg")
    rows = [
        {**row, "question_id": row["image"][0], "text": f"What is {i}?\nReference OCR token: a{SHORT}"}
        for i, row in enumerate(ask(3))
    ]
    home.lines("textvqa/llava_textvqa_val_v051_ocr.jsonl", rows)
    people = [
        {"image_id": row["question_id"], "question": f"What is {i}?", "answers": ["a"] * 10}
        for i, row in enumerate(rows)
    ]
    home.text("textvqa/TextVQA_0.5.1_val.json", json.dumps({"data": people}))
    assert home.run("textvqa") == f"{NAME}\nSamples: 3\nAccuracy: 0.00%\n\n"
    assert [row["prompt"] for row in home.rows(f"textvqa/answers/{NAME}.jsonl")] == [row["text"] for row in rows]


@pytest.mark.parametrize(("devices", "sizes"), [("0", [3]), ("0,1", [2, 1]), ("0,1,2,3", [1, 1, 1, 0])])
def test_gqa_in_chunks(home: Home, devices: str, sizes: list[int]) -> None:
    home.images("gqa/data/images", "0.jpg", "1.jpg")
    rows = [{**row, "question_id": f"20{i}"} for i, row in enumerate(ask(3))]
    home.lines("gqa/llava_gqa_testdev_balanced.jsonl", rows)
    known = {
        "isBalanced": True,
        "answer": "yes",
        "question": "Is it?",
        "semantic": [{"operation": "select", "argument": "x"}],
        "types": {"structural": "verify", "semantic": "attr", "detailed": "x"},
        "groups": {"global": None},
    }
    home.text("gqa/data/testdev_balanced_questions.json", json.dumps({row["question_id"]: known for row in rows}))
    # The official script stands here; ours has its flags.
    home.text("gqa/data/eval/eval.py", "import sys\nfrom llava.eval.eval_gqa import main\nsys.exit(main())\n")
    folder = home.eval / f"gqa/answers/llava_gqa_testdev_balanced/{NAME}"
    shutil.rmtree(folder, ignore_errors=True)
    assert "\nAccuracy: 0.00%\n" in home.run("gqa", devices=devices)
    num = len(sizes)
    parts = [folder / f"{num}_{i}.jsonl" for i in range(num)]
    assert [len(part.read_text().splitlines()) for part in parts] == sizes
    assert (folder / "merge.jsonl").read_bytes() == b"".join(part.read_bytes() for part in parts)
    predictions = home.read("gqa/data/testdev_balanced_predictions.json")
    assert [row["questionId"] for row in predictions] == ["200", "201", "202"]


def test_vqav2(home: Home) -> None:
    home.images("vqav2/test2015", "0.jpg", "1.jpg")
    rows = home.lines("vqav2/llava_vqav2_mscoco_test-dev2015.jsonl", ask(3))
    home.lines("vqav2/llava_vqav2_mscoco_test2015.jsonl", [*ask(3), {**rows[0], "question_id": 99}])
    assert home.run("vqav2", devices="0,1") == "total results: 3, total split: 4, error_line: 0\n"
    written = home.read(f"vqav2/answers_upload/llava_vqav2_mscoco_test-dev2015/{NAME}.json")
    assert [row["question_id"] for row in written] == [0, 1, 2, 99]
    assert written[3]["answer"] == ""


def test_vizwiz(home: Home) -> None:
    home.images("vizwiz/test", "0.jpg", "1.jpg")
    home.lines("vizwiz/llava_test.jsonl", ask(2))
    assert home.run("vizwiz") == "total results: 2, total split: 2, error_line: 0\n"
    assert [row["image"] for row in home.read(f"vizwiz/answers_upload/{NAME}.json")] == ["0.jpg", "1.jpg"]


def test_pope(home: Home) -> None:
    home.images("pope/val2014", "0.jpg", "1.jpg")
    kinds = ("random", "popular", "adversarial")
    rows = [{**row, "category": kinds[i % 3]} for i, row in enumerate(ask(6))]
    home.lines("pope/llava_pope_test.jsonl", rows)
    for i, kind in enumerate(kinds):
        labels = [
            {"question_id": n + 1, "image": rows[i + 3 * n]["image"], "text": f"What is {i + 3 * n}?", "label": "yes"}
            for n in range(2)
        ]
        home.lines(f"pope/coco/coco_pope_{kind}.json", labels)
    printed = home.run("pope")
    assert printed.count("F1 score: 1.0\n") == 3  # everything that is not no is yes
    assert printed.count(", # samples: 2\n") == 3


def test_mme(home: Home) -> None:
    rows = []
    for name in (name for names in GROUPS.values() for name in names):
        image = f"{name}/{name}.png"
        home.images("MME/MME_Benchmark_release_version", image)
        questions = [f"Is it {word}?" for word in ("red", "big")]
        truths = [
            f"{text} Please answer yes or no.\t{said}\n" for text, said in zip(questions, ("Yes", "No"), strict=True)
        ]
        home.text(f"MME/MME_Benchmark_release_version/{name}/{name}.txt", "".join(truths))
        rows += [{"question_id": image, "image": image, "text": text + SHORT, "category": name} for text in questions]
    home.lines("MME/llava_mme.jsonl", rows)
    printed = home.run("mme")
    assert "=========== Perception ===========\ntotal score: 0.0" in printed
    assert "=========== Cognition ===========" in printed
    lines = (home.eval / f"MME/eval_tool/answers/{NAME}/existence.txt").read_text().splitlines()
    assert [line.split("\t")[:3] for line in lines][1] == [
        "existence.txt",
        "Is it big? Please answer yes or no.",
        "No",
    ]


def test_seed(home: Home) -> None:
    home.images("seed_bench", "SEED-Bench-image/0.jpg", "SEED-Bench-video-image/v1.png")
    kinds = {"Scene Understanding": 1, "Procedure Understanding": 12}
    known = [
        {"question_id": 7, "question_type_id": 1, "answer": "A", "data_type": "image"},
        {"question_id": "v8", "question_type_id": 12, "answer": "B", "data_type": "video"},
    ]
    home.text("seed_bench/SEED-Bench.json", json.dumps({"question_type": kinds, "questions": known}))
    rows = [
        {"question_id": 7, "image": "SEED-Bench-image/0.jpg", "text": "What?", "category": "image"},
        {"question_id": "v8", "image": "SEED-Bench-video-image/v1.png", "text": "When?", "category": "video"},
    ]
    home.lines("seed_bench/llava-seed-bench.jsonl", rows)
    printed = home.run("seed", devices="0,1")
    assert "Total accuracy: 0.00%" in printed
    assert [row["question_id"] for row in home.rows(f"seed_bench/answers_upload/{NAME}.jsonl")] == [7, "v8"]


def test_sqa(home: Home) -> None:
    home.images("scienceqa/images/test", "1/image.png")
    talks = [
        {"id": "1", "image": "1/image.png", "conversations": [{"from": "human", "value": "<image>\nWhy?\nA. x\nB. y"}]},
        {"id": "2", "conversations": [{"from": "human", "value": "How?\nA. x\nB. y"}]},
    ]
    home.text("scienceqa/llava_test_CQM-A.json", json.dumps(talks))
    problem = {"choices": ["x", "y"], "answer": 1}
    home.text("scienceqa/problems.json", json.dumps({"1": problem, "2": problem}))
    home.text("scienceqa/pid_splits.json", json.dumps({"test": ["1", "2"]}))
    assert home.run("sqa").startswith("Total: 2, Correct: 0, Accuracy: 0.00%, IMG-Accuracy: 0.00%")
    assert home.read(f"scienceqa/answers/{NAME}_result.json")["count"] == 2
    assert len(home.read(f"scienceqa/answers/{NAME}_output.jsonl")["incorrect"]) == 2


@pytest.mark.parametrize(
    ("script", "split"), [("mmbench", "mmbench_dev_20230712"), ("mmbench_cn", "mmbench_dev_cn_20231003")]
)
def test_mmbench(home: Home, script: str, split: str) -> None:
    import openpyxl

    home.images("mmbench", "0.jpg")
    image = base64.b64encode((home.eval / "mmbench/0.jpg").read_bytes()).decode()
    columns = "index question hint A B C D answer category image source l2-category comment split".split()
    rows = [[str(i), "Which?", "", "x", "y", "", "", "A", "cat", image, "src", "l2", "", "dev"] for i in (3, 1000003)]
    home.text(f"{script}/{split}.tsv", "".join("\t".join(row) + "\n" for row in (columns, *rows)))
    home.run(script)
    answers = home.rows(f"{script}/answers/{split}/{NAME}.jsonl")
    assert [row["question_id"] for row in answers] == [3, 1000003]
    sheet: Any = openpyxl.load_workbook(home.eval / f"{script}/answers_upload/{split}/{NAME}.xlsx").active
    assert sheet.cell(1, 7).value == "prediction"
    assert sheet.cell(2, 7).value == answers[0]["text"]


def test_llavabench(home: Home) -> None:
    folder = "llava-bench-in-the-wild"
    home.images(f"{folder}/images", "0.jpg", "1.jpg")
    rows = home.lines(f"{folder}/questions.jsonl", ask(2, category="conv"))
    home.lines(f"{folder}/context.jsonl", [{"id": i, "image": f"{i}.jpg", "caption": "A thing."} for i in range(2)])
    home.lines(
        f"{folder}/answers_gpt4.jsonl",
        [{"question_id": row["question_id"], "text": "Good.", "answer_id": f"g{i}"} for i, row in enumerate(rows)],
    )
    with run_teacher(lambda request: complete("10 8\nFine.")) as judge:
        printed = home.run("llavabench", OPENAI_BASE_URL=judge.url, OPENAI_API_KEY="key")
    assert "\nall 80.0 100.0 80.0\nllava_bench_conv 80.0 100.0 80.0\n" in printed
    assert [row["tuple"] for row in home.rows(f"{folder}/reviews/{NAME}.jsonl")] == [[10.0, 8.0]] * 2


def test_mmvet(home: Home) -> None:
    home.images("mm-vet/images", "0.jpg", "1.jpg")
    home.lines("mm-vet/llava-mm-vet.jsonl", ask(2))
    home.run("mmvet")
    answers = home.rows(f"mm-vet/answers/{NAME}.jsonl")
    assert home.read(f"mm-vet/results/{NAME}.json") == {f"v1_{row['question_id']}": row["text"] for row in answers}


@pytest.mark.parametrize(("script", "middle"), [("qbench", ""), ("qbench_zh", "zh_")])
def test_qbench(home: Home, script: str, middle: str) -> None:
    home.images("../qbench/images_llvisionqa", "0.jpg")
    row = {"img_path": "0.jpg", "question": "Sharp?", "candidates": ["Yes", "No"], "correct_ans": "No"}
    home.text("qbench/llvisionqa_dev.json", json.dumps([row]))
    home.run(script, "dev")
    (answer,) = home.rows(f"qbench/llvisionqa_{middle}dev_answers.jsonl")
    assert list(answer) == [*row, "response"]


def test_every_script_is_run_here() -> None:
    names = {path.stem for path in (ROOT / "scripts/v1_5/eval").glob("*.sh")} - {"answer_chunks"}
    tested: Callable[[str], bool] = lambda name: f'run("{name}"' in source or f'("{name}", ' in source  # noqa: E731
    source = Path(__file__).read_text(encoding="utf-8")
    assert {name for name in names if not tested(name)} == set()
