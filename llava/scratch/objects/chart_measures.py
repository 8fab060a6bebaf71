"""How well charts are read from their pixels alone, by the shipped reader and finder and by what they are joined by.

Run it as ``python -m llava.scratch.objects.chart_measures PLOTS [--mistakes]``, PLOTS a folder of ``chart_plots``. What
the two networks saw is kept beside each chart, so that later runs take seconds; ``--afresh`` looks again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from llava.image.geometry import Size, choose_canvas, fit_inside
from llava.image.pixels import resize
from llava.model.lexical.description import ChartTable
from llava.model.lexical.frozen_norms import freeze_norms
from llava.model.lexical.line_reader import Line, LineReader
from llava.model.lexical.object_finder import Drawn, ObjectFinder
from llava.model.lexical.scene_text import read_scene
from llava.model.lexical.value_axis import read_number

_MODEL = Path(__file__).parents[2] / "talking_model"
# A value is right within this share of the axis' span.
_SLACK = 0.03


def make_canvas(image: Image.Image) -> Tensor:
    """The canvas on which the talking model sees an image, uint8 [3, H, W]."""
    pinpoints = json.loads((_MODEL / "config.json").read_text())["image_grid_pinpoints"]
    content, _ = fit_inside(Size(*image.size), choose_canvas(Size(*image.size), pinpoints))
    shown = resize(image.convert("RGB"), (content.width, content.height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(shown)).permute(2, 0, 1).contiguous()


def load_networks() -> tuple[LineReader, ObjectFinder]:
    """The reader and the finder of the talking model."""
    networks = LineReader(), ObjectFinder()
    for name, network in zip(("reader", "objects"), networks, strict=True):
        freeze_norms(network)
        network.load_state_dict({k: v.float() for k, v in load_file(_MODEL / f"{name}.safetensors").items()})
        network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return networks


class Sight:
    """What the networks see on a canvas, kept in a file beside each image."""

    def __init__(self, afresh: bool) -> None:
        self.afresh = afresh
        self.waited = 0.0  # seconds of further looks
        self._nets: tuple[LineReader, ObjectFinder] | None = None

    def open(self) -> tuple[LineReader, ObjectFinder]:
        """The reader and the finder."""
        if self._nets is None:
            self._nets = load_networks()
        return self._nets

    def see(self, path: Path, canvas: Tensor) -> tuple[list[Line], list[Drawn]]:
        """Lines and objects."""
        kept = path.with_suffix(".seen")
        if self.afresh or not kept.exists():
            reader, finder = self.open()
            kept.write_text(json.dumps([reader.read(canvas), finder.find(canvas)]))
            path.with_suffix(".strips").unlink(missing_ok=True)
        lines, objects = json.loads(kept.read_text())
        return _as_lines(lines), [Drawn(kind, colour, tuple(box), score) for kind, colour, box, score in objects]

    def read_again(self, path: Path) -> Callable[[Tensor], list[Line]]:
        """The reader for further looks at an image."""
        kept = path.with_suffix(".strips")

        def read(strip: Tensor) -> list[Line]:
            strips = json.loads(kept.read_text()) if kept.exists() else {}
            name = hashlib.sha256(strip.numpy().tobytes()).hexdigest()[:16]
            if name not in strips:
                start = time.thread_time()
                strips[name] = self.open()[0].read(strip)
                kept.write_text(json.dumps(strips))
                self.waited += time.thread_time() - start
            return _as_lines(strips[name])

        return read


def _as_lines(stored: list[Any]) -> list[Line]:
    return [Line(text, tuple(box), ink, ground, score) for text, box, ink, ground, score in stored]


def judge(table: ChartTable | None, truth: dict[str, Any]) -> dict[str, bool]:
    """What of a chart's table is right: "kind", "count", "labels", "values", "title", "axes" and,
    of the first four, "all".
    """
    series, labels, values = truth["series"], truth["labels"], truth["values"]
    verdict = dict.fromkeys(("kind", "count", "labels", "values", "title", "axes", "all"), False)
    if table is None or truth["kind"] != ("line" if table.lines else "pie" if table.is_pie else "bar"):
        return verdict
    verdict["kind"] = True
    verdict["title"] = _fold(table.title) == _fold(truth["title"])
    axes = [(table.x_name, truth["x_name"]), (table.y_name, truth["y_name"])]
    verdict["axes"] = all(_fold(told) == _fold(name) for told, name in axes)
    told: list[tuple[str, str]]
    if table.lines:
        verdict["count"] = sorted(len(line.points) for line in table.lines) == [len(labels)] * len(series)
        told = [(f"{line.name} {point.label}", point.value) for line in table.lines for point in line.points]
        wanted = [
            (f"{s} {label}", v)
            for s, row in zip(series, values, strict=True)
            for label, v in zip(labels, row, strict=True)
        ]
    else:
        verdict["count"] = len(table.bars) == len(labels) * len(series)
        told = [(bar.label, bar.value) for bar in table.bars]
        wanted = [
            (f"{label} {s}", row[i]) for i, label in enumerate(labels) for s, row in zip(series, values, strict=True)
        ]
    names, expected = Counter(_fold(name) for name, _ in told), Counter(_fold(name) for name, _ in wanted)
    verdict["labels"] = names == expected
    left = [(n.value if (n := read_number(text)) else np.nan) for _, text in told]
    slack = _SLACK * truth["span"]
    if verdict["labels"]:
        by_name = {_fold(name): value for (name, _), value in zip(told, left, strict=True)}
        verdict["values"] = all(abs(by_name[_fold(name)] - value) <= slack for name, value in wanted)
    elif verdict["count"]:
        pairs = zip(sorted(left), sorted(value for _, value in wanted), strict=True)
        verdict["values"] = all(abs(a - b) <= slack for a, b in pairs)
    verdict["all"] = all(verdict[key] for key in ("count", "labels", "values"))
    return verdict


def _fold(text: str) -> str:
    return " ".join(text.lower().split())


def measure(paths: Sequence[Path], sight: Sight, show: bool, found_only: bool = False) -> None:
    """Prints, for each kind of chart, the share of which each thing is right.

    ``found_only``: charts are put together from what the finder found, and not measured on pixels.
    """
    tally: dict[str, Counter[str]] = {}
    spent = 0.0
    for path in paths:
        truth = json.loads(path.read_text())
        canvas = make_canvas(Image.open(path.with_suffix(".png")))
        lines, objects = sight.see(path, canvas)
        start = time.thread_time()
        seen = read_scene(None if found_only else canvas, lines, objects, sight.read_again(path))
        spent += time.thread_time() - start
        verdict = judge(seen.chart, truth)
        kind = f"{truth['kind']} {truth['arrangement']}{' lying' if truth['horizontal'] else ''}"
        for row in (truth["kind"], kind):
            counts = tally.setdefault(row, Counter())
            counts["charts"] += 1
            counts.update(key for key, holds in verdict.items() if holds)
        if show and not verdict["all"]:
            failed = [key for key in ("kind", "count", "labels", "values") if not verdict[key]]
            print(f"{path.stem} {kind} ({truth['style']}): not {failed[0] if failed else ''}", flush=True)
    for row, counts in sorted(tally.items()):
        shares = ", ".join(f"{key} {100 * counts[key] / counts['charts']:.0f}" for key in
                           ("kind", "count", "labels", "values", "title", "axes", "all"))  # fmt: skip
        print(f"{row} ({counts['charts']}): {shares} %")
    print(f"{1000 * (spent - sight.waited) / max(1, len(paths)):.0f} ms a chart beside the networks")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plots", type=Path)
    parser.add_argument("--mistakes", action="store_true")
    parser.add_argument("--afresh", action="store_true", help="look at images again")
    parser.add_argument("--found-only", action="store_true", help="read charts from the finder's boxes alone")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seen", action="store_true", help="only images that were looked at before")
    told = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(told.plots.glob("*.json"), key=lambda path: int(path.stem))
    paths = paths[told.first :][: told.count]
    paths = [path for path in paths if not told.seen or path.with_suffix(".seen").exists()]
    measure(paths, Sight(told.afresh), told.mistakes, told.found_only)


if __name__ == "__main__":
    main()
