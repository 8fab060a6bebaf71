"""Charts drawn by matplotlib in many styles, with the exact boxes of their bars, legend keys and wedges.

Drawing one takes a tenth of a second, so a pool of them is drawn once to a folder, ``N.png`` with ``N.json`` beside it,
and reused under augmentation. Every tenth of the pool is held out by its seed. Run it as
``python -m llava.scratch.objects.plots FOLDER FIRST COUNT``; needs matplotlib.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llava.model.lexical.hues import name_color

_WORDS = (
    "Alpha Beta North South East West Apples Pears Plums Cherries Berlin Paris Rome Oslo Lima Tokyo Mon Tue Wed "
    "Thu Fri Sat Sun Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec Q1 Q2 Q3 Q4 2019 2020 2021 2022 2023 Tea "
    "Coffee Milk Juice Water Cats Dogs Birds Fish Horses Red Blue Green Team Product Item Math Art Music Science "
    "Sports A B C D E F G H "
).split()
TITLES = (
    "Sales by region", "Votes", "Monthly revenue", "Scores", "Population", "Rainfall (mm)", "Number of visitors",
    "Fruit sold per day", "Energy use in 2021", "Results", "Books read", "Average speed", "Survey: favourite drink",
)  # fmt: skip
_OFFICE = ("#4472c4", "#ed7d31", "#a5a5a5", "#ffc000", "#5b9bd5", "#70ad47")
_GOOGLE = ("#4285f4", "#db4437", "#f4b400", "#0f9d58", "#ab47bc", "#00acc1")
_NAMED = (
    "red green blue orange purple brown pink gray olive cyan gold yellow black skyblue steelblue salmon tomato "
    "teal navy coral seagreen crimson orchid slategray lightblue lightgreen darkorange royalblue firebrick indigo "
    "maroon tan "
).split()
STYLES = (
    "ggplot", "seaborn-v0_8", "seaborn-v0_8-whitegrid", "seaborn-v0_8-darkgrid", "fivethirtyeight", "bmh",
    "dark_background", "grayscale", "Solarize_Light2", "tableau-colorblind10", "seaborn-v0_8-deep", "classic",
    "seaborn-v0_8-pastel", "seaborn-v0_8-muted",
)  # fmt: skip


def choose_palette(rng: random.Random, count: int) -> list[Any]:
    """Colours for ``count`` series or bars."""
    import matplotlib.pyplot as plt

    cycle = plt.rcParams["axes.prop_cycle"].by_key().get("color", ["C0"])
    draw = rng.random()
    if draw < 0.5:
        pool = list(cycle)
    elif draw < 0.65:
        pool = list(rng.choice((_OFFICE, _GOOGLE)))
    elif draw < 0.9:
        pool = rng.sample(_NAMED, len(_NAMED))
    else:
        pool = [plt.get_cmap(rng.choice(("viridis", "tab20", "Set2", "Paired", "Blues", "Reds")))(x)
                for x in np.linspace(0.15, 0.9, max(2, count))]  # fmt: skip
    return [pool[i % len(pool)] for i in range(count)]


def _choose_values(rng: random.Random, count: int, scale: int) -> np.ndarray:
    low = rng.choice((0.02, 0.1, 0.3))
    values = [rng.uniform(low, 1.0) * scale for _ in range(count)]
    if rng.random() < 0.6 and scale >= 5:
        values = [float(max(1, round(v))) for v in values]
    if rng.random() < 0.06:
        values = [-v if rng.random() < 0.4 else v for v in values]
    return np.array(values)


def _record(patch: Any, kind: str, height: int, ground: Any) -> dict[str, Any]:
    """The mark of a patch: its box in pixels from the top left, and its colour."""
    area = patch.get_window_extent()
    x0, x1 = sorted((area.x0, area.x1))
    y0, y1 = sorted((height - area.y1, height - area.y0))
    face = np.array(patch.get_facecolor())
    rgb = (face[:3] * face[3] + np.array(ground[:3]) * (1 - face[3])) * 255
    if face[3] < 0.05:
        rgb = np.array(patch.get_edgecolor()[:3]) * 255
    name, is_sure = name_color(rgb)
    mark = {"kind": kind, "color": name if is_sure else "", "box": [round(float(v), 2) for v in (x0, y0, x1, y1)]}
    if kind == "bar":
        mark["data"] = [float(patch.get_width()), float(patch.get_height())]
    return mark


def list_texts(figure: Any, height: int) -> list[dict[str, Any]]:
    """All text of a drawn figure with its box in pixels from the top left; text that is turned is left out."""
    from matplotlib.text import Text

    texts = []
    for artist in figure.findobj(Text):
        if not artist.get_visible() or not artist.get_text().strip() or artist.get_rotation() % 360 != 0:
            continue
        area = artist.get_window_extent()
        box = (area.x0, height - area.y1, area.x1, height - area.y0)
        if all(np.isfinite(box)) and box[2] > 0 and box[0] < figure.bbox.width and box[3] > 0 and box[1] < height:
            texts.append({"text": artist.get_text(), "box": [round(float(v), 2) for v in box]})
    return texts


def _draw_bars(rng: random.Random, axes: Any, lying: bool) -> list[tuple[Any, str]]:
    """Single, grouped or stacked bars; returns their patches."""
    arrangement = rng.choice(("single", "single", "single", "grouped", "grouped", "stacked", "histogram"))
    count = rng.choice((2, 3, 4, 4, 5, 5, 6, 7, 8, 10, 12, 16)) if arrangement != "grouped" else rng.randint(2, 6)
    series = 1 if arrangement in ("single", "histogram") else rng.randint(2, 4)
    names = rng.sample(_WORDS, count)
    many = arrangement == "single" and rng.random() < 0.3
    colors = choose_palette(rng, count if many else series)
    width = 0.8 if rng.random() < 0.6 else rng.uniform(0.35, 0.95)
    edge: dict[str, Any] = {}
    if rng.random() < 0.25 or arrangement == "histogram":
        edge = {"edgecolor": rng.choice(("black", "black", "white", "gray")), "linewidth": rng.choice((0.5, 1, 1, 2))}
        if arrangement == "histogram":  # without an edge, touching bars of one colour are one to the eye
            edge = {"edgecolor": rng.choice(("black", "black", "white")), "linewidth": rng.choice((1, 1, 2))}
    if rng.random() < 0.08:
        edge |= {"hatch": rng.choice(("/", "//", "\\", "x", ".", "+")), "edgecolor": "black"}
    if rng.random() < 0.08:
        edge["alpha"] = rng.uniform(0.5, 0.9)
    if arrangement == "single" and rng.random() < 0.05:
        edge["yerr" if not lying else "xerr"] = [abs(v) for v in np.random.default_rng(rng.getrandbits(30)).uniform(
            0.01, 0.1, count)]  # fmt: skip
    plot = axes.barh if lying else axes.bar
    found: list[tuple[Any, str]] = []
    bottoms = np.zeros(count)
    scale = rng.choice((1, 5, 10, 10, 50, 100, 100, 1000, 20000))
    for i in range(series):
        values = _choose_values(rng, count, scale)
        if arrangement == "stacked":
            values = np.abs(values) / max(1e-9, np.abs(values).max()) * 10
        places, breadth = np.arange(count, dtype=float), width
        if arrangement == "grouped":
            breadth = width / series * (1.0 if rng.random() < 0.85 else 0.9)
            places = places + (i - (series - 1) / 2) * width / series
        if arrangement == "histogram":
            breadth = 1.0
        extra = {"left" if lying else "bottom": bottoms.copy()} if arrangement == "stacked" else {}
        color = colors if many else colors[i]
        label = rng.choice(_WORDS) if series > 1 or rng.random() < 0.1 else None
        bars = plot(places, values, breadth, color=color, label=label, **edge, **extra)
        bottoms += values if arrangement == "stacked" else 0
        found += [(patch, "bar") for patch in bars.patches]
        if rng.random() < 0.25:
            kind = "center" if arrangement == "stacked" or rng.random() < 0.15 else "edge"
            axes.bar_label(
                bars, label_type=kind, fmt="%g" if rng.random() < 0.6 else "%.1f", padding=rng.choice((0, 2))
            )
    set_ticks = axes.set_yticks if lying else axes.set_xticks
    turn = rng.choice((0, 0, 0, 30, 45, 90)) if not lying and max(map(len, names)) * count > 30 else 0
    set_ticks(np.arange(count), names, rotation=turn)
    return found


def _draw_pie(rng: random.Random, axes: Any) -> list[tuple[Any, str]]:
    count = rng.randint(2, 7)
    sizes = [rng.uniform(0.1, 1) for _ in range(count)]
    names = rng.sample(_WORDS, count) if rng.random() < 0.8 else None
    ring = {"wedgeprops": {"width": rng.uniform(0.3, 0.5)}} if rng.random() < 0.15 else {}
    parts = axes.pie(sizes, labels=names, autopct="%1.0f%%" if rng.random() < 0.6 else None,
                     startangle=rng.choice((0, 90, 140)), colors=choose_palette(rng, count),
                     explode=[rng.choice((0, 0, 0.1)) for _ in sizes] if rng.random() < 0.2 else None,
                     **ring)  # fmt: skip
    wedges = parts.wedges if hasattr(parts, "wedges") else parts[0]
    return [(wedge, "wedge") for wedge in wedges]


def _draw_other(rng: random.Random, axes: Any) -> list[tuple[Any, str]]:
    """A chart in which there is nothing to find."""
    generator = np.random.default_rng(rng.getrandbits(30))
    x = np.arange(rng.randint(4, 40))
    kind = rng.choice(("lines", "lines", "lines", "points", "area", "heat", "box", "steps"))
    if kind == "lines":
        for i in range(rng.randint(1, 4)):
            axes.plot(x, generator.normal(0, 1, len(x)).cumsum(), label=f"Series {i}" if rng.random() < 0.6 else None,
                      marker=rng.choice(("", "", "o", "s", "^", "x", "D")), lw=rng.choice((1, 1.5, 2, 3)))  # fmt: skip
    elif kind == "points":
        axes.scatter(generator.normal(0, 1, 60), generator.normal(0, 1, 60), s=generator.uniform(5, 80, 60),
                     c=generator.uniform(0, 1, 60) if rng.random() < 0.5 else None)  # fmt: skip
    elif kind == "area":
        axes.fill_between(x, generator.uniform(0, 1, len(x)).cumsum(), alpha=rng.choice((0.4, 1)))
    elif kind == "heat":
        axes.imshow(generator.uniform(0, 1, (rng.randint(4, 12), rng.randint(4, 12))))
    elif kind == "box":
        axes.boxplot(generator.normal(0, 1, (30, rng.randint(2, 6))))
    else:
        axes.step(x, generator.uniform(0, 5, len(x)))
    return []


def _draw_figure(rng: random.Random) -> tuple[Any, list[tuple[Any, str]]]:
    import matplotlib.pyplot as plt

    plain = rng.random() < 0.5
    size = (6.4, 4.8) if plain and rng.random() < 0.7 else (rng.uniform(3.5, 10), rng.uniform(2.6, 7))
    figure, axes = plt.subplots(figsize=size, dpi=100 if plain else rng.choice((60, 72, 80, 100, 100, 120, 150)))
    draw = rng.random()
    if draw < 0.76:
        lying = rng.random() < 0.28
        marks = _draw_bars(rng, axes, lying)
        grid = rng.random() < (0.3 if plain else 0.5)
        if grid:
            axes.grid(True, axis=rng.choice(("x" if lying else "y", "both")), alpha=rng.choice((0.3, 0.7, 1.0)))
            axes.set_axisbelow(rng.random() < 0.7)
        if rng.random() < 0.25:
            axes.spines[["top", "right"]].set_visible(False)
            if rng.random() < 0.4:
                axes.spines[["left"]].set_visible(False)
        if rng.random() < 0.25:
            axes.set_xlabel(rng.choice(_WORDS))
            axes.set_ylabel(rng.choice(_WORDS))
    elif draw < 0.86:
        marks = _draw_pie(rng, axes)
    else:
        marks = _draw_other(rng, axes)
    if rng.random() < 0.6:
        axes.set_title(rng.choice(TITLES))
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        legend = axes.legend(loc=rng.choice(("best", "best", "upper right", "upper left", "lower center")),
                             ncols=rng.choice((1, 1, 2, 3)), frameon=rng.random() < 0.8)  # fmt: skip
        marks += [(h, "key") for h in legend.legend_handles if hasattr(h, "get_facecolor") and hasattr(h, "get_width")]
    if rng.random() < 0.3:
        figure.tight_layout()
    return figure, marks


def draw_plot(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Plot number ``seed`` as uint8 [H, W, 3], and its "marks" and "texts"; the same for the same matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rng = random.Random(f"plot {seed}")
    style = "default" if rng.random() < 0.55 else rng.choice(STYLES)
    with plt.style.context(style):
        family = rng.choice(("sans-serif", "sans-serif", "sans-serif", "serif", "monospace"))
        with plt.rc_context({"font.family": family, "font.size": rng.choice((8, 9, 10, 10, 10, 12, 14))}):
            figure, marks = _draw_figure(rng)
            figure.canvas.draw()
            pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
            ground = figure.axes[0].get_facecolor()
            found = [_record(patch, kind, pixels.shape[0], ground) for patch, kind in marks]
            texts = list_texts(figure, pixels.shape[0])
            plt.close(figure)
    return pixels, {"marks": found, "texts": texts}


def fill_folder(draw: Callable[[int], tuple[np.ndarray, dict[str, Any]]], folder: str, first: str, count: str) -> None:
    """Draws plots ``first`` to ``first + count - 1`` into the folder; those that are there stay."""
    import warnings

    from PIL import Image

    warnings.simplefilter("ignore")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for seed in range(int(first), int(first) + int(count)):
        path = Path(folder) / f"{seed}.json"
        if path.exists():
            continue
        pixels, notes = draw(seed)
        Image.fromarray(pixels).save(path.with_suffix(".png"), compress_level=1)
        path.write_text(json.dumps(notes))


if __name__ == "__main__":
    fill_folder(draw_plot, *sys.argv[1:4])
