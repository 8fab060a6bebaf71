"""Writes a small SEED-Bench in its official files, of drawn images: python examples/make_seed.py playground/data/eval

The names, folders and formats are those of SEED-Bench and of the question file in LLaVA's eval.zip, so that whatever
scores SEED-Bench runs on them. The images are of the kinds of `llava eval synth`, and that suite asks none of them.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava.synth.suite import TASKS, draw_item

# The name and the number of SEED-Bench's types that are asked, and the kind of drawing that each is asked about.
TYPES = {
    "Instance Identity": (2, "shape"),
    "Instance Attributes": (3, "color"),
    "Instance Location": (4, "position"),
    "Instances Counting": (5, "counting up to 6"),
    "Spatial Relation": (6, "relation"),
    "Visual Reasoning": (8, "chart: largest"),
    "Text Understanding": (9, "one word, large type"),
}
COUNT = 5  # questions of each type
FIRST = 5000  # a question number that the held-out suite does not reach
LETTER = "Answer with the option's letter from the given choices directly."


def write_type(folder: Path, number: int, kind: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Writes the images of one type; yields each question as LLaVA's file has it, and as SEED-Bench.json has it."""
    task = next(task for task in TASKS if task.name == kind)
    items = [draw_item(task, FIRST + index) for index in range(COUNT)]
    pool = sorted({item.answer for item in items})
    for index, item in enumerate(items):
        dice = random.Random(f"{kind} {index}")
        others = [answer for answer in pool if answer != item.answer]
        options = [item.answer, *dice.sample(others, min(3, len(others)))]
        dice.shuffle(options)
        question_id, name = 100_000 * number + index, f"{number}_{index:02}"
        item.image.convert("RGB").save(folder / "SEED-Bench-image" / name, "PNG")
        lines = [item.question, *(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))]
        asked = {"question_id": question_id, "image": f"SEED-Bench-image/{name}", "text": "\n".join([*lines, LETTER])}
        choices = {f"choice_{letter}": option for letter, option in zip("abcd", options, strict=False)}
        answer = "ABCD"[options.index(item.answer)]
        row = {"question_id": str(question_id), "question_type_id": number, "data_type": "image", "data_id": name}
        yield asked, {**row, "question": item.question, **choices, "answer": answer}


def main() -> None:
    """Write the questions, the annotations and the images."""
    folder = Path(sys.argv[1]) / "seed_bench"
    (folder / "SEED-Bench-image").mkdir(parents=True, exist_ok=True)
    pairs = [pair for number, kind in TYPES.values() for pair in write_type(folder, number, kind)]
    lines = "".join(json.dumps(asked) + "\n" for asked, _ in pairs)
    (folder / "llava-seed-bench.jsonl").write_text(lines, encoding="utf-8")
    types = {name: number for name, (number, _) in TYPES.items()}
    annotations = {"question_type": types, "questions": [row for _, row in pairs]}
    (folder / "SEED-Bench.json").write_text(json.dumps(annotations), encoding="utf-8")
    print(f"{folder}: {len(pairs)} questions of {len(types)} types")


if __name__ == "__main__":
    main()
