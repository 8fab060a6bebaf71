"""Measures a reader on drawn pages that training never drew, and counts lines that it reads on photographs.

``python -m llava.scratch.reading.measure --help``. The pages have held-out words, in fonts that training has
seen and in those kept apart. A line counts as read where the text at its place is the same, apart from spaces; a line
that was read in several parts, or together with its neighbour, counts if all of it is right.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from llava.model.lexical.characters import plain
from llava.model.lexical.line_reader import Line, LineReader
from llava.scratch.reading import page_kinds
from llava.scratch.reading.chart_images import draw_chart
from llava.scratch.reading.line_texts import LineTexts
from llava.scratch.reading.page import Mark, Sources
from llava.scratch.reading.reading_fonts import FaceBox

_SMALLEST_CAPITAL = 6.0


def main() -> None:
    """Prints a row for each kind of page and fonts, and one for photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="a safetensors file of LineReader's weights")
    parser.add_argument("--fonts", nargs="+", required=True, help="folders with fonts")
    parser.add_argument("--words", type=Path, required=True, help="Debian's word list, american-english")
    parser.add_argument("--photos", nargs="*", default=[], type=Path, help="images without text")
    parser.add_argument("--pages", type=int, default=12, help="pages of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mistakes", action="store_true", help="print what was read wrong")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    reader, weights = LineReader(), load_file(flags.weights)
    if not any("norm" in name for name in weights):
        reader.fuse_norms()  # as packed
    reader.load_state_dict(weights)
    reader.float().eval().fuse_norms()
    for held_out in (False, True):
        sources = Sources(FaceBox(tuple(flags.fonts), held_out), LineTexts(flags.words, True))
        for kind in ("sign", "receipt", "form", "table", "screen", "poster", "paragraphs", "program", "axes", "chart"):
            if not (held_out and kind == "chart"):
                _measure_kind(reader, kind, sources, flags, "fonts kept apart" if held_out else "fonts seen")
    for path in flags.photos:
        with Image.open(path) as file:
            lines = read(reader, file.convert("RGB"))
        print(f"photo {path.name}: {len(lines)} lines", [f"{line.text} {line.score:.2f}" for line in lines[:8]])


def read(reader: LineReader, image: Image.Image) -> list[Line]:
    """The lines on an RGB image."""
    return reader.read(torch.from_numpy(np.array(image)).permute(2, 0, 1))


def _measure_kind(reader: LineReader, kind: str, sources: Sources, flags: argparse.Namespace, fonts: str) -> None:
    rng = random.Random(f"{kind} {flags.seed}")
    draw = page_kinds.KINDS[kind][0]
    total = exact = found = extra = 0
    for i in range(flags.pages):
        if kind == "chart":
            pixels, marks = draw_chart(rng, sources.texts)
            image = Image.fromarray(pixels)
        else:
            image, marks = draw(rng, sources)
        lines = read(reader, image)
        legible = [m for m in marks if m.text and m.capital >= _SMALLEST_CAPITAL]
        used: set[int] = set()
        joined = {mark for line in lines for mark in _find_joined(line, legible)}
        for mark in legible:
            at = [n for n, line in enumerate(lines) if _lies_on(line, mark)]
            used.update(at)
            text = " ".join(lines[n].text for n in sorted(at, key=lambda n: lines[n].box[0]))
            is_exact = text.split() == plain(mark.text).split() or mark in joined
            total, exact, found = total + 1, exact + is_exact, found + bool(at)
            if flags.mistakes and not is_exact:
                print(f"   {kind} {i} {mark.capital:.0f} px: {plain(mark.text)!r} -> {text!r}")
        others = [m for m in marks if m not in legible]
        for n, line in enumerate(lines):
            if n not in used and not any(_lies_on(line, m) for m in others):
                extra += 1
                if flags.mistakes:
                    print(f"   {kind} {i} extra {line.text!r} {line.score:.2f}")
    print(
        f"{kind}, {fonts}: {exact / max(1, total):.3f} of {total} lines exact, {found / max(1, total):.3f} found, "
        f"{extra} others",
        flush=True,
    )


def _find_joined(line: Line, marks: list[Mark]) -> list[Mark]:
    """The drawn lines that stand in one row and were read together without a mistake."""
    x0, y0, x1, y1 = line.box
    on = [m for m in marks if x0 < (m.left + m.right) / 2 < x1 and y0 < m.baseline - m.capital / 2 < y1]
    text = " ".join(plain(m.text) for m in sorted(on, key=lambda m: m.left))
    return on if text.split() == line.text.split() else []


def _lies_on(line: Line, mark: Mark) -> bool:
    """Whether at least half of a line that was read lies on a drawn one."""
    x0, y0, x1, y1 = line.box
    y = mark.baseline + mark.slope * ((x0 + x1) / 2 - mark.left)
    across = min(x1, mark.right + mark.capital) - max(x0, mark.left - mark.capital)
    down = min(y1, y + 0.3 * mark.capital) - max(y0, y - 1.05 * mark.capital)
    return across > 0.5 * (x1 - x0) and down > 0.5 * max(y1 - y0 - abs(mark.slope) * (x1 - x0), 0.3 * mark.capital)


if __name__ == "__main__":
    main()
