"""How well objects are found and charts are read, on images that training never draws.

Run it as ``python -m llava.scratch.objects.measures WEIGHTS --plots FOLDER [--photos FOLDER]``; without weights, only
charts are read, from their exact bars. Lines are exact in both, so the reader of text is not measured.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from llava.model.lexical.chart_reading import Chart, read_chart
from llava.model.lexical.object_finder import Box, Drawn, ObjectFinder, measure_overlap
from llava.scratch.objects.looks import draw_looks
from llava.scratch.objects.samples import read_plot
from llava.synth.bars import BAR_KINDS
from llava.synth.charts import draw_chart
from llava.synth.drawing import Drawing
from llava.synth.scene import Kind
from llava.synth.shapes import draw_shapes
from llava.synth.suite import SIZES

_SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "hexagon", "ring", "rectangle", "oval",
           "pentagon", "heart")  # fmt: skip


class ExactLine(NamedTuple):
    """A line of text as it was drawn."""

    text: str
    box: Box


def list_lines(drawing: Drawing) -> list[ExactLine]:
    """The lines that were written on a drawing, with their characters' extents."""
    lines, first = [], 0
    for text in drawing.texts:
        count = sum(c != " " for c in text)
        marks = drawing.characters[first : first + count]
        first += count
        if marks:
            half = marks[0].height / 2
            left, right = marks[0].x - 0.45 * half, marks[-1].x + 0.45 * half
            lines.append(ExactLine(text, (left, marks[0].y - half, right, marks[0].y + half)))
    return lines


def as_tensor(image: Image.Image) -> Tensor:
    """An image as uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def load_finder(weights: Path) -> ObjectFinder:
    """The finder with these weights, in float32, for inference."""
    finder = ObjectFinder()
    finder.load_state_dict({k: v.float() for k, v in load_file(weights).items()}, strict=False)
    return finder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def draw_suite_shapes(count: int, is_large: bool) -> Iterator[tuple[Image.Image, Counter[str]]]:
    """Scenes of llava.synth, at the suite's sizes or at 400 to 1500 px, and what is on them."""
    for i in range(count):
        rng = random.Random(f"held-out objects {is_large} {i}")
        narrow, wide, low, high = (400, 1500, 400, 1200) if is_large else rng.choice(SIZES)
        drawing = draw_shapes(rng, rng.randint(narrow, wide), rng.randint(low, high), rng.random() < 0.2).drawing
        drawing.spoil(0.5)
        yield drawing.image, Counter(f"{o.color} {o.shape}" for o in drawing.objects)


def draw_new_looks(count: int) -> Iterator[tuple[Image.Image, Counter[str]]]:
    """Shapes in this folder's looks, some of them hard to see."""
    for i in range(count):
        rng = random.Random(f"held-out looks {i}")
        image, marks = draw_looks(rng, rng.randint(200, 700), rng.randint(200, 600))
        yield image, Counter(f"{m.color} {m.kind}" for m in marks)


def measure_shapes(finder: ObjectFinder, drawn: Iterator[tuple[Image.Image, Counter[str]]], name: str) -> None:
    """Prints how many images have all objects right, and the most common mistakes."""
    right = total = 0
    wrong: Counter[str] = Counter()
    for image, truth in drawn:
        found = Counter(f"{o.colour} {o.kind}" for o in finder.find(as_tensor(image)))
        right += found == truth
        total += 1
        wrong.update(f"missed {name}" for name in (truth - found).elements())
        wrong.update(f"extra {name}" for name in (found - truth).elements())
    print(f"{name}: {right}/{total} exact; {wrong.most_common(14)}", flush=True)


def _draw_charts(count: int) -> Iterator[tuple[Drawing, dict[str, Any]]]:
    for i in range(count):
        rng = random.Random(f"held-out charts {i}")
        name = rng.choice(("chart", *BAR_KINDS))
        draw: Kind = draw_chart if name == "chart" else BAR_KINDS[name]
        size = (rng.randint(160, 520), rng.randint(140, 420))
        scene = draw(rng, *size, True)
        yield scene.drawing, {"caption": scene.caption, "kind": name, "horizontal": False}


def measure_synth_charts(finder: ObjectFinder | None, count: int) -> None:
    """Prints, for charts of llava.synth, how often all bars are there, and how often bars have name and value right."""
    tally: Counter[str] = Counter()
    for drawing, about in _draw_charts(count):
        kind = about["kind"]
        objects = [Drawn(o.shape, o.color, (o.left, o.top, o.right, o.bottom), 1.0)
                   for o in (*drawing.objects, *drawing.keys)]  # fmt: skip
        if finder is not None:
            objects = finder.find(as_tensor(drawing.image))
        num_found = sum(o.kind == "bar" for o in objects)
        tally[f"{kind} charts"] += 1
        tally[f"{kind} count right"] += num_found == len(drawing.objects)
        told = about["caption"].split(": ", 1)[1].rstrip(".").split(", ")
        truth = Counter(" ".join(words.split()[:-1]).lower() + f" {float(words.split()[-1]):g}" for words in told)
        chart = read_chart(objects, list_lines(drawing))
        rows = _list_rows(chart)
        tally[f"{kind} bars"] += len(told)
        tally[f"{kind} bars right"] += sum((truth & rows).values())
        tally[f"{kind} charts right"] += truth == rows
        # The same with values that may be a tenth off.
        tally[f"{kind} bars near"] += _count_near(truth, rows)
    for key in sorted(tally):
        print(f"{key}: {tally[key]}")


def _list_rows(chart: Chart | None) -> Counter[str]:
    if chart is None:
        return Counter()
    return Counter(f"{f'{b.series} {b.label}'.strip()} {b.value:g}".lower() if b.value is not None else f"{b.label} ?"
                   for b in chart.bars)  # fmt: skip


def _count_near(truth: Counter[str], rows: Counter[str]) -> int:
    left = [row.rsplit(" ", 1) for row in rows.elements() if not row.endswith("?")]
    near = 0
    for name, value in (row.rsplit(" ", 1) for row in truth.elements()):
        hit = next(
            (r for r in left if r[0] == name and abs(float(r[1]) - float(value)) <= 0.1 * abs(float(value)) + 0.3), None
        )
        if hit:
            left.remove(hit)
            near += 1
    return near


def measure_plots(finder: ObjectFinder | None, folder: Path) -> None:
    """Prints, for matplotlib's charts, counts of bars, errors of edges, and errors of values read off the axis."""
    tally: Counter[str] = Counter()
    edges: list[float] = []
    errors: list[float] = []
    for path in sorted(folder.glob("*.json")):
        image, marks = read_plot(path)
        notes = json.loads(path.read_text())
        bars = [m for m in marks if m.kind == "bar" and min(m.right - m.left, m.bottom - m.top) >= 2]
        objects = [Drawn(m.kind, m.color, (m.left, m.top, m.right, m.bottom), 1.0) for m in marks]
        if finder is not None:
            objects = finder.find(as_tensor(image))
        found = [o for o in objects if o.kind == "bar"]
        kind = "bar charts" if bars else "pies" if any(m.kind == "wedge" for m in marks) else "others"
        tally[kind] += 1
        same = len(found) == len(bars)
        tally[f"{kind}, count right"] += same
        if kind == "pies":
            wedges = sum(m.kind == "wedge" for m in marks)
            tally["pies, wedges right"] += wedges == sum(o.kind == "wedge" for o in objects)
        if not bars:
            tally[f"{kind}, read as a chart"] += read_chart(objects, []) is not None
            continue
        if not same:
            print(path.stem, len(bars), len(found))
        extent = (
            max(m.bottom for m in bars) - min(m.top for m in bars),
            max(m.right for m in bars) - min(m.left for m in bars),
        )
        for m in bars:
            box = (m.left, m.top, m.right, m.bottom)
            best = max(found, key=lambda o: measure_overlap(box, o.box), default=None)
            tally["bars"] += 1
            if best is None or measure_overlap(box, best.box) < 0.3:
                continue
            off = max(max(abs(a - b) for a, b in zip(box[1::2], best.box[1::2], strict=True)) / extent[0],
                      max(abs(a - b) for a, b in zip(box[::2], best.box[::2], strict=True)) / extent[1])  # fmt: skip
            edges.append(off)
            tally["bars found"] += 1
            tally["bars' colours right"] += m.color in ("", best.colour)
            tally["bars within 2 %"] += off <= 0.02
        lines = [ExactLine(t["text"], tuple(t["box"])) for t in notes["texts"]]
        chart = read_chart(objects, lines)
        tally["bar charts read"] += chart is not None
        data = {(m["box"][0], m["box"][1]): m["data"] for m in notes["marks"] if m["kind"] == "bar"}
        if chart is None:
            continue
        tally["bar charts with values"] += all(b.value is not None for b in chart.bars)
        worst = max(max(map(abs, values)) for values in data.values())
        for m in bars:
            box = (m.left, m.top, m.right, m.bottom)
            row = max(chart.bars, key=lambda b: measure_overlap(box, b.box))
            if measure_overlap(box, row.box) > 0.3 and row.value is not None:
                value = data[(m.left, m.top)][0 if chart.is_horizontal else 1]
                errors.append(abs(abs(row.value) - abs(value)) / worst)
    for key in sorted(tally):
        print(f"{key}: {tally[key]}")
    if edges:
        print("edge error", np.quantile(edges, (0.5, 0.9, 0.95, 0.99)).round(4))
    if errors:
        print("value error over greatest value", np.quantile(errors, (0.5, 0.9, 0.95, 0.99)).round(4), len(errors))


def measure_photos(finder: ObjectFinder, paths: list[Path]) -> None:
    """Prints what is found where nothing should be."""
    for path in paths:
        found = finder.find(as_tensor(Image.open(path)))
        said = [f"{o.colour} {o.kind} {o.score:.2f}" for o in sorted(found, key=lambda o: -o.score)]
        print(f"{path.name}: {said[:8] or '-'}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=150)
    told = parser.parse_args()
    finder = load_finder(told.weights) if told.weights else None
    if finder is not None:
        measure_shapes(finder, draw_suite_shapes(told.count, False), "suite's sizes")
        measure_shapes(finder, draw_suite_shapes(told.count, True), "400 to 1500 px")
        measure_shapes(finder, draw_new_looks(told.count), "new looks")
        if told.photos:
            measure_photos(finder, sorted(p for p in told.photos.rglob("*") if p.suffix in (".png", ".jpg", ".gif")))
    measure_synth_charts(finder, told.count)
    if told.plots:
        measure_plots(finder, told.plots)


if __name__ == "__main__":
    main()
