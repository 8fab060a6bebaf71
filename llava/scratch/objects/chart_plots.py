"""Bar, line and pie charts of matplotlib with the table that each shows, from 400 to 1,500 px wide.

Nothing is trained on them: they say how well charts are read. A chart is ``N.png``, its table ``N.json`` beside it.
Run it as ``python -m llava.scratch.objects.chart_plots FOLDER FIRST COUNT``; needs matplotlib.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np

from llava.scratch.objects.plots import STYLES, TITLES, choose_palette, fill_folder, list_texts
from llava.scratch.talking.chart_records import LABELS, X_NAMES, Y_NAMES

_FAMILIES = ("DejaVu Sans", "DejaVu Sans", "DejaVu Sans", "DejaVu Serif", "Liberation Sans", "DejaVu Sans Mono")
_SERIES = ("Plan", "Actual", "Men", "Women", "Paris", "Rome", "Model A", "Model B", "Morning", "Evening", "Group 1")


def draw_chart_plot(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Chart number ``seed`` as uint8 [H, W, 3], and its table; the same for the same matplotlib.

    The table has "kind" ("bar", "line" or "pie"), "title", "x_name", "y_name", "labels", "series" (names, "" where
    there is only one), "values" (a row for each series), "colors" of the series or, in a pie, of the parts, "span" (of
    the value axis), and "texts" with their boxes.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rng = random.Random(f"chart plot {seed}")
    style = "default" if rng.random() < 0.5 else rng.choice(STYLES)
    width = rng.randint(400, 1500)
    dpi = min(rng.choice((80, 100, 100, 100, 120, 150, 200)), width / 3.6)
    shape = rng.choice((0.6, 0.7, 0.75, 0.75, 0.75, 0.9, 1.0))
    with plt.style.context(style), plt.rc_context({"font.family": rng.choice(_FAMILIES)}):
        figure, axes = plt.subplots(figsize=(width / dpi, shape * width / dpi), dpi=dpi)
        kind = rng.choice(("bar", "bar", "line", "line", "pie"))
        table = {"bar": _draw_bars, "line": _draw_lines, "pie": _draw_pie}[kind](rng, axes)
        table = {"kind": kind, "title": rng.choice(TITLES) if rng.random() < 0.75 else "", **table}
        if table["title"]:
            axes.set_title(table["title"])
        if rng.random() < 0.5:
            figure.tight_layout()
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
        table |= {"style": style, "texts": list_texts(figure, pixels.shape[0])}
        plt.close(figure)
    return pixels, table


def _draw_values(rng: random.Random, count: int, *, is_smooth: bool = False) -> list[float]:
    scale = rng.choice((1, 10, 10, 100, 100, 1000, 5000))
    digits = 2 if scale == 1 else 1 if scale == 10 and rng.random() < 0.5 else 0
    values = [round(rng.uniform(0.08, 1) * scale, digits) for _ in range(count)]
    if is_smooth:
        level, values = rng.uniform(0.3, 0.7), []
        for _ in range(count):
            level = min(1.0, max(0.03, level + rng.uniform(-0.25, 0.28)))
            values.append(round(level * scale, digits))
    return values


def _choose_labels(rng: random.Random, count: int) -> list[str]:
    rows = [row for row in LABELS if len(row) >= count]
    row = rng.choice(rows)
    start = rng.randrange(len(row) - count + 1)
    return list(row[start : start + count])


def _draw_bars(rng: random.Random, axes: Any) -> dict[str, Any]:
    is_lying = rng.random() < 0.3
    arrangement = rng.choice(("single", "single", "single", "grouped", "stacked"))
    num_series = 1 if arrangement == "single" else rng.randint(2, 3)
    count = rng.randint(2, 8 if arrangement == "single" else 5)
    labels = _choose_labels(rng, count)
    names = [""] if num_series == 1 else rng.sample(_SERIES, num_series)
    values = [_draw_values(rng, count) for _ in names]
    scale = max(map(max, values))
    values = [[round(v * scale / max(row), 1 if scale < 20 else 0) or 1.0 for v in row] for row in values]
    many = num_series == 1 and rng.random() < 0.3
    colors = choose_palette(rng, count if many else num_series)
    look: dict[str, Any] = {}
    if rng.random() < 0.25:
        look = {"edgecolor": rng.choice(("black", "black", "white")), "linewidth": rng.choice((0.5, 1, 1.5))}
    if rng.random() < 0.1:
        look |= {"hatch": rng.choice(("/", "//", "x", ".")), "edgecolor": "black"}
    if rng.random() < 0.1:
        look["alpha"] = rng.uniform(0.5, 0.9)
    breadth = rng.choice((0.8, 0.8, 0.6, 0.5))
    places, bottoms = np.arange(count, dtype=float), np.zeros(count)
    plot = axes.barh if is_lying else axes.bar
    is_labelled = arrangement != "stacked" and rng.random() < 0.25
    for i, row in enumerate(values):
        at, wide = places, breadth
        if arrangement == "grouped":
            wide = breadth / num_series
            at = places + (i - (num_series - 1) / 2) * wide
        start = {"left" if is_lying else "bottom": bottoms.copy()} if arrangement == "stacked" else {}
        color = colors if many else colors[i]
        bars = plot(at, row, wide, color=color, label=names[i] or None, **look, **start)
        bottoms += np.array(row) if arrangement == "stacked" else 0
        if is_labelled:
            axes.bar_label(bars, fmt="%g", padding=rng.choice((0, 2)))
    (axes.set_yticks if is_lying else axes.set_xticks)(places, labels)
    table = _dress(rng, axes, num_series > 1, "x" if is_lying else "y")
    low, high = axes.get_xlim() if is_lying else axes.get_ylim()
    if is_lying:
        labels, values = labels[::-1], [row[::-1] for row in values]
        table["x_name"], table["y_name"] = table["x_name"], table["y_name"]
    return {"horizontal": is_lying, "arrangement": arrangement, "labels": labels, "series": names, "values": values,
            "span": abs(high - low), **table}  # fmt: skip


def _draw_lines(rng: random.Random, axes: Any) -> dict[str, Any]:
    num_lines = rng.choice((1, 1, 1, 2, 2, 3, 4))
    count = rng.randint(3, 10)
    is_numeric = rng.random() < 0.35
    if is_numeric:
        first, step = rng.choice(((0, 1), (1, 1), (2010, 1), (2000, 5), (0, 10)))
        labels = [str(first + step * i) for i in range(count)]
    else:
        count = min(count, 7)
        labels = _choose_labels(rng, count)
    names = rng.sample(_SERIES, num_lines) if num_lines > 1 else [""]
    values = [_draw_values(rng, count, is_smooth=True) for _ in names]
    scale = max(map(max, values))
    values = [[round(v * scale / max(row), 1 if scale < 20 else 0) for v in row] for row in values]
    colors = choose_palette(rng, num_lines)
    look = {"marker": rng.choice(("", "", "o", "o", "s", "^", "D")), "lw": rng.choice((1.5, 1.5, 2, 2.5, 3))}
    for i, row in enumerate(values):
        x = [float(label) for label in labels] if is_numeric else labels
        axes.plot(x, row, color=colors[i], label=names[i] or None, **look)
    if is_numeric and rng.random() < 0.5:
        axes.set_xticks([float(label) for label in labels])
    table = _dress(rng, axes, num_lines > 1, "y")
    low, high = axes.get_ylim()
    return {"horizontal": False, "arrangement": "lines", "labels": labels, "series": names, "values": values,
            "span": high - low, **table}  # fmt: skip


def _draw_pie(rng: random.Random, axes: Any) -> dict[str, Any]:
    count = rng.randint(2, 6)
    sizes = [rng.randint(5, 60) for _ in range(count)]
    labels = rng.sample(rng.choice([row for row in LABELS if len(row) >= count]), count)
    has_legend = rng.random() < 0.25
    ring: dict[str, Any] = {}
    if rng.random() < 0.12:
        ring = {"wedgeprops": {"width": rng.uniform(0.35, 0.5)}}
    elif rng.random() < 0.15:
        ring = {"wedgeprops": {"edgecolor": "white", "linewidth": rng.choice((1, 2))}}
    start, turns_right = rng.choice((0, 0, 90, 90, 140)), rng.random() < 0.25
    colors = choose_palette(rng, count)
    shares, apart = rng.choice((None, "%1.0f%%", "%1.1f%%")), None
    if rng.random() < 0.12:
        apart = [rng.choice((0, 0, 0.08)) for _ in sizes]
    parts = axes.pie(sizes, labels=None if has_legend else labels, colors=colors, startangle=start,
                     counterclock=not turns_right, autopct=shares, explode=apart, **ring)  # fmt: skip
    if has_legend:
        axes.legend(parts.wedges if hasattr(parts, "wedges") else parts[0], labels,
                    loc=rng.choice(("upper right", "center left", "lower left")),
                    bbox_to_anchor=rng.choice((None, (1, 0.5))))  # fmt: skip
    percent = [100 * size / sum(sizes) for size in sizes]
    return {"horizontal": False, "arrangement": "pie", "labels": labels, "series": [""], "values": [percent],
            "span": 100.0, "x_name": "", "y_name": ""}  # fmt: skip


def _dress(rng: random.Random, axes: Any, has_legend: bool, along: str) -> dict[str, Any]:
    """Grid, frame, names of the axes and legend."""
    if rng.random() < 0.4:
        axes.grid(True, axis=rng.choice((along, "both")), alpha=rng.choice((0.3, 0.7, 1.0)),
                  linestyle=rng.choice(("-", "-", "--", ":")))  # fmt: skip
        axes.set_axisbelow(rng.random() < 0.7)
    if rng.random() < 0.25:
        axes.spines[["top", "right"]].set_visible(False)
    x_name = rng.choice(X_NAMES if along == "y" else Y_NAMES) if rng.random() < 0.5 else ""
    y_name = rng.choice(Y_NAMES if along == "y" else X_NAMES) if rng.random() < 0.5 else ""
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    if has_legend:
        axes.legend(loc="best" if rng.random() < 0.85 else "upper right", frameon=rng.random() < 0.8)
    return {"x_name": x_name, "y_name": y_name}


if __name__ == "__main__":
    fill_folder(draw_chart_plot, *sys.argv[1:4])
