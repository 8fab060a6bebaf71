"""Small benchmarks in the official files of each, drawn by seeded dice: every task that ``llava eval`` knows but synth.

``write_benchmarks`` returns a right answer to each question, for tests of a model that knows some of them.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.data.prompts import LETTER, OCR_TOKENS, SHORT_ANSWER, UNANSWERABLE, write_options
from tests.eval.parquet_split import draw, write_split
from tests.eval.test_benchmark_table import write_rows

COLORS = ("red", "blue", "green", "white", "black", "pink")
THINGS = ("dog", "cat", "car", "tree", "boat", "cup")
PLACES = ("left", "right")
NUMBERS = ("1", "2", "3", "4")
NAMES = "ABCDE"
SIZES = ((20, 12), (12, 20), (40, 40), (60, 20), (30, 60))
MME_FOLDERS = ("posters", "celebrity", "scene", "landmark", "artwork")
MME_CATEGORIES = (
    *("existence", "count", "position", "color", "OCR", *MME_FOLDERS),
    *("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
)
SEED_TYPES = {"Scene Understanding": 1, "Instance Identity": 2, "Instances Counting": 5, "Action Recognition": 10}
SUBJECTS = ("Accounting", "Art_Theory", "Math", "Sociology")

Truths = list[str]


def _paint(dice: random.Random) -> bytes:
    return draw(dice.choice(COLORS), dice.choice(SIZES))


def _save(dice: random.Random, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_paint(dice))


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _ask(dice: random.Random) -> tuple[str, str, Sequence[str]]:
    """A question, a right answer, and everything that would be an answer to it."""
    thing = dice.choice(THINGS)
    question, pool = dice.choice(
        [
            (f"What color is the {thing}?", COLORS),
            (f"How many of the {thing} are there?", NUMBERS),
            (f"Which side is the {thing} on?", PLACES),
            (f"Is there a {thing}?", ("yes", "no")),
            (f"What is beside the {thing}?", THINGS),
        ]
    )
    return question, dice.choice(pool), pool


def _poll(dice: random.Random, truth: str, pool: Sequence[str]) -> list[str]:
    """What ten people say, most of them the truth."""
    return [truth if dice.random() < 0.6 else dice.choice(pool) for _ in range(10)]


def _choose(dice: random.Random, num: int) -> tuple[str, list[str], int]:
    """A question, its options and the number of the right one."""
    question, _, pool = _ask(dice)
    while len(pool) < num:
        question, _, pool = _ask(dice)
    return question, dice.sample(list(pool), num), dice.randrange(num)


def write_vqav2(data: Path, dice: random.Random) -> dict[str, Truths]:
    """VQAv2: test-dev as a part of test2015, and val with the team's annotations."""
    folder, truths, questions, annotations = data / "vqav2", Truths(), [], []
    for i in range(40):
        question, truth, pool = _ask(dice)
        kind = "yes/no" if "yes" in pool else "number" if pool is NUMBERS else "other"
        questions.append({"image_id": 100 + i // 2, "question": question, "question_id": (100 + i // 2) * 1000 + i % 2})
        people = [
            {"answer": said, "answer_confidence": "yes", "answer_id": place}
            for place, said in enumerate(_poll(dice, truth, pool), 1)
        ]
        kinds = {"question_type": " ".join(question.split()[:2]).lower(), "answer_type": kind}
        rows = {"multiple_choice_answer": truth, "answers": people, **kinds}
        annotations.append({**questions[-1], **rows})
        truths.append(truth)
    _write(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"info": {}, "questions": questions})
    _write(folder / "v2_mscoco_val2014_annotations.json", {"info": {}, "annotations": annotations[::-1]})
    _save(dice, *(folder / f"val2014/COCO_val2014_{row['image_id']:012d}.jpg" for row in questions[::2]))
    rows = [
        {
            "question_id": 5000 + i,
            "image": f"COCO_test2015_{i // 2:012d}.jpg",
            "text": f"{_ask(dice)[0]}\n{SHORT_ANSWER}",
        }
        for i in range(16)
    ]
    _save(dice, *(folder / "test2015" / row["image"] for row in rows[::2]))
    write_rows(folder / "llava_vqav2_mscoco_test2015.jsonl", rows)
    write_rows(folder / "llava_vqav2_mscoco_test-dev2015.jsonl", rows[:12])
    return {"vqav2_val": truths, "vqav2": ["yes"] * 12}


def write_gqa(data: Path, dice: random.Random) -> dict[str, Truths]:
    """GQA's questions, of which some are not balanced."""
    folder, truths, questions, rows = data / "gqa", Truths(), {}, []
    for i in range(40):
        asked, truth, _ = _ask(dice)
        key = f"2015{i:04d}"
        operations = ["select", "relate", "filter color", "query", "exist", "choose name"]
        step = {"operation": dice.choice(operations), "argument": dice.choice(["name", "?", "dog (1)"])}
        questions[key] = {
            "question": asked,
            "answer": truth,
            "isBalanced": i % 17 != 3,
            "imageId": f"n{i % 10}",
            "semantic": [*[step] * (1 + i % 5), {"operation": "query", "argument": "name"}],
            "types": {
                "structural": dice.choice(["query", "verify", "logical", "compare", "choose"]),
                "semantic": dice.choice(["attr", "cat", "global", "obj", "rel"]),
                "detailed": dice.choice(["weatherVerify", "compareCommon", "twoCommon", "categoryRelS"]),
            },
            "groups": {"global": dice.choice([None, "color", "place"]), "local": "x"},
        }
        rows.append({"question_id": key, "image": f"n{i % 10}.jpg", "text": f"{asked}\n{SHORT_ANSWER}"})
        truths.append(truth)
    write_rows(folder / "llava_gqa_testdev_balanced.jsonl", rows)
    _write(folder / "data/testdev_balanced_questions.json", questions)
    _save(dice, *(folder / f"data/images/n{i}.jpg" for i in range(10)))
    return {"gqa": truths}


def write_vizwiz(data: Path, dice: random.Random) -> dict[str, Truths]:
    """VizWiz: val with answers, and LLaVA's file of test."""
    folder, truths, rows = data / "vizwiz", Truths(), []
    for i in range(30):
        question, truth, pool = _ask(dice)
        truth = "unanswerable" if dice.random() < 0.3 else truth
        people = [{"answer": said, "answer_confidence": "yes"} for said in _poll(dice, truth, [*pool, "unanswerable"])]
        kinds = {"answer_type": "unanswerable" if truth == "unanswerable" else "other", "answerable": 1}
        rows.append({"image": f"VizWiz_val_{i:08d}.jpg", "question": question, "answers": people, **kinds})
        truths.append(truth)
    _write(folder / "val.json", rows)
    _save(dice, *(folder / "val" / row["image"] for row in rows))
    asked = [
        {
            "question_id": i,
            "image": f"VizWiz_test_{i:08d}.jpg",
            "text": f"{_ask(dice)[0]}\n{UNANSWERABLE}\n{SHORT_ANSWER}",
            "category": "default",
        }
        for i in range(12)
    ]
    write_rows(folder / "llava_test.jsonl", asked)
    _save(dice, *(folder / f"test/VizWiz_test_{i:08d}.jpg" for i in range(12)))
    return {"vizwiz_val": truths, "vizwiz": ["unanswerable"] * 12}


def write_science(data: Path, dice: random.Random) -> dict[str, Truths]:
    """ScienceQA, of which two thirds have an image."""
    folder, truths, problems, rows = data / "scienceqa", Truths(), {}, []
    for i in range(40):
        asked, options, right = _choose(dice, dice.choice([2, 3, 4]))
        image = None if i % 3 == 2 else "image.png"
        hint = dice.choice(["", "Look at the image."])
        subjects = ["natural science", "social science", "language science"]
        problems[str(i)] = {
            "question": asked,
            "choices": options,
            "answer": right,
            "hint": hint,
            "image": image,
            "subject": dice.choice(subjects),
            "grade": f"grade{dice.randint(1, 12)}",
        }
        text = f"Context: {hint or 'N/A'}\n{asked}\n{write_options(options)}"
        turns = [{"from": "human", "value": f"<image>\n{text}" if image else text}, {"from": "gpt", "value": "?"}]
        rows.append({"id": str(i), **({"image": f"{i}/{image}"} if image else {}), "conversations": turns})
        truths.append(NAMES[right])
        if image:
            _save(dice, folder / f"images/test/{i}/{image}")
    _write(folder / "llava_test_CQM-A.json", rows)
    _write(folder / "problems.json", problems)
    _write(folder / "pid_splits.json", {"train": [], "test": list(problems)})
    return {"scienceqa": truths}


def write_textvqa(data: Path, dice: random.Random) -> dict[str, Truths]:
    """TextVQA with OCR tokens; two questions about each image."""
    folder, truths, rows, annotations = data / "textvqa", Truths(), [], []
    for i in range(36):
        question, truth, pool = _ask(dice)
        question = f"{question[:-1]} {'here' if i % 2 else 'there'}?"
        name = f"{i // 2:016x}"
        people = _poll(dice, truth, pool)
        annotations.append({"image_id": name, "question_id": i, "question": question, "answers": people})
        tokens = ", ".join(dice.sample(COLORS + THINGS, dice.randint(0, 3)))
        text = f"{question}\n{OCR_TOKENS}{tokens}\n{SHORT_ANSWER}"
        rows.append({"question_id": name, "image": f"{name}.jpg", "text": text, "category": "default"})
        truths.append(truth)
    write_rows(folder / "llava_textvqa_val_v051_ocr.jsonl", rows)
    _write(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": annotations})
    _save(dice, *(folder / "train_images" / row["image"] for row in rows[::2]))
    return {"textvqa": truths, "textvqa_no_ocr": truths}


def write_pope(data: Path, dice: random.Random) -> dict[str, Truths]:
    """POPE: three categories with label files of their own."""
    folder, truths, rows = data / "pope", Truths(), []
    for category in ("random", "popular", "adversarial"):
        labels = []
        for i in range(20):
            image = f"COCO_val2014_{i // 2:012d}.jpg"
            text = f"Is there a {dice.choice(THINGS)} in the image?"
            label = dice.choice(["yes", "no"])
            labels.append({"question_id": i + 1, "image": image, "text": text, "label": label})
            asked = {"question_id": len(rows), "image": image, "text": f"{text}\n{SHORT_ANSWER}", "category": category}
            rows.append(asked)
            truths.append(label.title())
        write_rows(folder / f"coco/coco_pope_{category}.json", labels)
    write_rows(folder / "llava_pope_test.jsonl", rows)
    _save(dice, *(folder / "val2014" / f"COCO_val2014_{i:012d}.jpg" for i in range(10)))
    return {"pope": truths}


def write_mme(data: Path, dice: random.Random) -> dict[str, Truths]:
    """MME: two questions about each image, the truths in its own folder."""
    folder, truths, rows = data / "MME", Truths(), []
    for category in MME_CATEGORIES:
        for image in range(3):
            place = folder / "MME_Benchmark_release_version" / category
            name = f"{category}/images/{image:04d}.jpg" if category in MME_FOLDERS else f"{category}/{image:04d}.png"
            _save(dice, folder / "MME_Benchmark_release_version" / name)
            lines = ""
            for truth in ("Yes", "No"):
                asked = f"Is this a {dice.choice(COLORS)} {dice.choice(THINGS)}?"
                lines += f"{asked}{dice.choice([' ', '  '])}Please answer yes or no.\t{truth}\n"
                rows.append(
                    {"question_id": name, "image": name, "text": f"{asked}\n{SHORT_ANSWER}", "category": category}
                )
                truths.append(truth)
            if category in MME_FOLDERS:
                place /= "questions_answers_YN"
            place.mkdir(exist_ok=True)
            (place / f"{image:04d}.txt").write_text(lines, encoding="utf-8")
    write_rows(folder / "llava_mme.jsonl", rows)
    return {"mme": truths}


def _write_mmbench(path: Path, dice: random.Random) -> Truths:
    """MMBench's table: every question in all rotations of its options, with hints and empty cells."""
    columns = ["index", "question", "hint", *"ABCD", "answer", "category", "l2-category", "split", "image"]
    lines, truths = ["\t".join(columns)], Truths()
    groups = []
    for number in range(11):
        asked, options, right = _choose(dice, dice.choice([2, 3, 4]))
        hint, image = dice.choice(["", "Look at the image."]), base64.b64encode(_paint(dice)).decode()
        kinds = [f"c{number % 3}", f"l{number % 2}", "dev", image]
        for turn in range(len(options)):
            cells = [*options[turn:], *options[:turn], "", ""][:4]
            letter = "ABCD"[(right - turn) % len(options)]
            row = [str(number + 1_000_000 * turn), asked, hint, *cells, letter, *kinds]
            groups.append((turn, row, letter))
    for _, row, letter in sorted(groups, key=lambda group: group[0]):
        lines.append("\t".join(row))
        truths.append(letter)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return truths


def write_mmbench(data: Path, dice: random.Random) -> dict[str, Truths]:
    """MMBench and MMBench-CN."""
    return {
        "mmbench": _write_mmbench(data / "mmbench/mmbench_dev_20230712.tsv", dice),
        "mmbench_cn": _write_mmbench(data / "mmbench_cn/mmbench_dev_cn_20231003.tsv", dice),
    }


def write_seed(data: Path, dice: random.Random) -> dict[str, Truths]:
    """SEED-Bench: images with numbers as ids, then frames of videos."""
    folder, truths, rows, questions = data / "seed_bench", Truths(), [], []
    for i in range(40):
        asked, options, right = _choose(dice, 4)
        name = dice.choice(list(SEED_TYPES)) if i < 30 else "Action Recognition"
        type_id = SEED_TYPES[name] if i >= 30 or SEED_TYPES[name] < 10 else 1
        kind = "video" if i >= 30 else "image"
        key = f"v{i}" if kind == "video" else str(1000 + i)
        image = f"SEED-Bench-video-image/{key}.png" if kind == "video" else f"SEED-Bench-image/{i // 2}_{i}"
        questions.append(
            {"answer": NAMES[right], "data_type": kind, "question_id": key, "question_type_id": type_id}
            | {"question": asked, **{f"choice_{'abcd'[n]}": option for n, option in enumerate(options)}}
        )
        text = f"{asked}\n{write_options(options)}\n{LETTER}"
        rows.append({"question_id": int(key) if kind == "image" else key, "image": image, "text": text})
        truths.append(NAMES[right])
        _save(dice, folder / image)
    write_rows(folder / "llava-seed-bench.jsonl", rows)
    _write(folder / "SEED-Bench.json", {"question_type": SEED_TYPES, "questions": questions})
    return {"seed": truths, "seed_image": truths[:30]}


def write_judged(data: Path, dice: random.Random) -> dict[str, Truths]:
    """LLaVA-Bench and MM-Vet, up to the questions and images."""
    folder, vet = data / "llava-bench-in-the-wild", data / "mm-vet"
    rows = [
        {"question_id": i, "image": f"{i % 3:03d}.jpg", "category": ("conv", "detail", "complex")[i % 3]}
        | {"text": f"{_ask(dice)[0]} Describe it."}
        for i in range(8)
    ]
    write_rows(folder / "questions.jsonl", rows)
    write_rows(
        folder / "context.jsonl", [{"id": f"{i:03d}", "image": f"{i:03d}.jpg", "caption": "?"} for i in range(3)]
    )
    write_rows(
        folder / "answers_gpt4.jsonl", [{"question_id": i, "answer_id": f"gpt4-{i}", "text": "Red."} for i in range(8)]
    )
    _save(dice, *(folder / f"images/{i:03d}.jpg" for i in range(3)))
    asked = [{"question_id": f"v1_{i}", "image": f"v1_{i}.png", "text": _ask(dice)[0]} for i in range(8)]
    write_rows(vet / "llava-mm-vet.jsonl", asked)
    _save(dice, *(vet / f"images/v1_{i}.png" for i in range(8)))
    return {"llavabench": ["red"] * 8, "mmvet": ["two"] * 8}


def write_qbench(data: Path, dice: random.Random) -> dict[str, Truths]:
    """Q-Bench in both languages, with the same questions."""
    folder, truths, rows = data / "qbench", Truths(), []
    for i in range(24):
        asked, options, right = _choose(dice, dice.choice([2, 3, 4]))
        row = {"img_path": f"{i // 2:05d}.png", "question": asked, "candidates": options, "correct_ans": options[right]}
        rows.append({**row, "type": dice.randrange(3), "concern": dice.randrange(4)})
        truths.append(NAMES[right])
    for name in ("llvisionqa_dev.json", "llvisionqa_dev_zh.json"):
        _write(folder / name, rows)
    _save(dice, *(folder / "images_llvisionqa" / row["img_path"] for row in rows[::2]))
    return {"qbench": truths, "qbench_zh": truths}


def write_mmmu(data: Path, dice: random.Random) -> dict[str, Truths]:
    """MMMU: four subjects, open questions, images that only an option names."""
    truths, rows = Truths(), []
    for subject in SUBJECTS:
        for number in range(1, 9):
            asked, options, right = _choose(dice, dice.choice([2, 3, 4, 5]))
            row: dict[str, Any] = {"id": f"validation_{subject}_{number}", "question": f"<image 1> {asked}"}
            row |= {"options": repr(options), "question_type": "multiple-choice", "answer": NAMES[right]}
            if number % 4 == 0:
                row |= {"options": "[]", "question_type": "open", "answer": dice.choice(["3", "red", "['2', 'two']"])}
            elif number % 4 == 1:
                row["options"] = repr([*options[:-1], "<image 2>"])
            images = [_paint(dice), _paint(dice) if number % 4 == 1 else None, *[None] * 5]
            rows.append(row | {f"image_{place}": image for place, image in enumerate(images, 1)})
            truths.append("2" if row["answer"].startswith("[") else row["answer"])
    write_split(data / "mmmu/data", "validation", rows)
    return {"mmmu": truths, "mmmu_own": truths}


def write_math_vista(data: Path, dice: random.Random) -> dict[str, Truths]:
    """MathVista's testmini: choices, integers, numbers with one and two digits, lists."""
    truths, rows = Truths(), []
    for i in range(36):
        kind = dice.choice(["text", "text", "integer", "integer", "float", "list"])
        about = {"language": "english", "source": dice.choice(["GeoQA+", "IconQA"]), "skills": ["arithmetic reasoning"]}
        row = {"pid": str(i + 1), "image": f"images/{i + 1}.jpg", "decoded_image": _paint(dice), "unit": None}
        row |= {
            "question_type": "free_form",
            "answer_type": kind,
            "choices": None,
            "precision": None,
            "metadata": about,
        }
        if kind == "text":
            asked, options, right = _choose(dice, dice.choice([2, 3, 4]))
            row |= {"question_type": "multi_choice", "question": asked, "choices": options, "answer": options[right]}
            truths.append(NAMES[right])
        else:
            truth = {"integer": dice.choice(NUMBERS), "float": "0.5", "list": "[1, 2]"}[kind]
            row |= {"question": f"How many of the {dice.choice(THINGS)} are there?", "answer": truth}
            row |= {"precision": {"integer": None, "float": 1.0, "list": None}[kind]}
            row["unit"] = dice.choice([None, "cm"])
            truths.append(truth[0])
        row["query"] = f"Hint: ...\nQuestion: {row['question']}"  # what a judge is shown
        rows.append(row)
    write_split(data / "mathvista/data", "testmini", rows)
    return {"mathvista": truths}


def write_diagrams(data: Path, dice: random.Random) -> dict[str, Truths]:
    """AI2D."""
    truths, rows = Truths(), []
    for _ in range(30):
        asked, options, right = _choose(dice, 4)
        rows.append({"question": asked, "options": options, "answer": str(right), "image": _paint(dice)})
        truths.append(NAMES[right])
    write_split(data / "ai2d/data", "test", rows)
    return {"ai2d": truths}


def write_documents(data: Path, dice: random.Random) -> dict[str, Truths]:
    """DocVQA, InfoVQA, ChartQA and OCRBench."""
    truths: dict[str, Truths] = {name: [] for name in ("docvqa", "infovqa", "chartqa", "ocrbench")}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in truths}
    for i in range(24):
        for name in truths:
            asked, truth, pool = _ask(dice)
            row: dict[str, Any] = {"question": asked, "image": _paint(dice)}
            several = [truth, *dice.sample(list(pool), dice.randrange(2))]
            longer = f"{truth}{dice.choice(['', 's', ' one'])}"
            if name in ("docvqa", "infovqa"):
                row |= {"questionId": str(500 + i), "answers": [longer, *several[1:]]}
                row |= {"question_types": ["form"]} if name == "docvqa" else {"answer_type": "single span"}
            elif name == "chartqa":
                row |= {"answer": truth, "type": dice.choice(["human_test", "augmented_test"])}
            else:
                kind = dice.choice(["Regular Text Recognition", "Scene Text-centric VQA", "Doc-oriented VQA"])
                row |= {"answer": several, "question_type": kind, "dataset": dice.choice(["IIIT5K", "HME100k"])}
            rows[name].append(row)
            truths[name].append(truth)
    write_split(data / "docvqa/DocVQA", "validation", rows["docvqa"])
    write_split(data / "infovqa/InfographicVQA", "validation", rows["infovqa"])
    write_split(data / "chartqa/data", "test", rows["chartqa"])
    write_split(data / "ocrbench/data", "test", rows["ocrbench"])
    return truths


WRITERS = (
    *(write_vqav2, write_gqa, write_vizwiz, write_science, write_textvqa, write_pope, write_mme, write_mmbench),
    *(write_seed, write_judged, write_qbench, write_mmmu, write_math_vista, write_diagrams, write_documents),
)


def write_benchmarks(data: Path) -> dict[str, Truths]:
    """Writes the files of all benchmarks under ``data``; returns a right answer to each question, by task."""
    truths: dict[str, Truths] = {}
    for place, write in enumerate(WRITERS):
        truths |= write(data, random.Random(place))
    return truths
