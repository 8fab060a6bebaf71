"""Charts in matplotlib's default look, with the marks of their lines of text."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from llava.scratch.reading.line_texts import LineTexts, number
from llava.scratch.reading.page import Mark

_CAPITAL = 0.729
_STYLES = (*("default",) * 5, "ggplot", "seaborn-v0_8", "bmh", "fivethirtyeight", "dark_background")


def draw_chart(rng: random.Random, texts: LineTexts) -> tuple[npt.NDArray[np.uint8], list[Mark]]:
    """A bar, line, scatter or pie chart, RGB [height, width, 3], with its horizontal lines of text."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.style.context(rng.choice(_STYLES)):
        if rng.random() < 0.3:
            matplotlib.rcParams["font.size"] = rng.choice((8, 9, 11, 12, 14))
        figure, axes = pyplot.subplots(
            figsize=(rng.uniform(4.2, 9), rng.uniform(3.2, 6)), dpi=rng.choice((80, 100, 100, 100, 120, 150))
        )
        kind = rng.choice(("bar", "bar", "barh", "line", "scatter", "pie", "hist", "grouped"))
        _plot(rng, axes, kind, texts)
        if rng.random() < 0.75:
            axes.set_title(texts.draw(rng, 32).replace("$", ""))
        if rng.random() < 0.6 and kind != "pie":
            axes.set_xlabel(texts.draw(rng, 20).replace("$", ""))
        if rng.random() < 0.6 and kind != "pie":
            axes.set_ylabel(texts.draw(rng, 20).replace("$", ""))
        if rng.random() < 0.15:
            axes.text(0.5, 0.5, number(rng).replace("$", ""), transform=axes.transAxes)
        if rng.random() < 0.4:
            figure.tight_layout()
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
        marks = _collect(figure, pixels)
        pyplot.close(figure)
    return pixels, marks


def _plot(rng: random.Random, axes, kind: str, texts: LineTexts) -> None:  # type: ignore[no-untyped-def]
    count = rng.randint(3, 7)
    names = [texts.word(rng) if rng.random() < 0.75 else str(rng.randrange(1990, 2030)) for _ in range(count)]
    top = 10 ** rng.uniform(-0.5, 4)
    values = [rng.uniform(-0.2 if rng.random() < 0.05 else 0.05, 1) * top for _ in range(count)]
    if kind == "bar":
        bars = axes.bar(range(count), values, color=rng.choice((None, "C1", "C2", "tab:purple")))
        axes.set_xticks(range(count), names, rotation=0 if max(map(len, names)) < 60 / count else 45)
        if rng.random() < 0.4:
            axes.bar_label(bars, fmt=rng.choice(("%.0f", "%.1f")))
    elif kind == "barh":
        axes.barh(range(count), values)
        axes.set_yticks(range(count), names)
    elif kind == "grouped":
        for i in range(2):
            axes.bar(
                [x + 0.4 * i for x in range(count)],
                [rng.random() * top for _ in range(count)],
                0.4,
                label=texts.word(rng),
            )
        axes.set_xticks(range(count), names, rotation=0 if max(map(len, names)) < 60 / count else 90)
        axes.legend()
    elif kind == "pie":
        axes.pie([abs(v) + top / 20 for v in values], labels=names, autopct=rng.choice((None, "%1.0f%%", "%1.1f%%")))
    else:
        span = 10 ** rng.uniform(-0.5, 3.5)
        for _ in range(rng.randint(1, 3)):
            xs = sorted(rng.uniform(rng.choice((-span, 0)), span) for _ in range(30))
            ys = [rng.gauss(0, 0.2) * top + top * (x / span) ** 2 for x in xs]
            if kind == "line":
                axes.plot(xs, ys, label=texts.word(rng), marker=rng.choice((None, "o", "s")))
            elif kind == "scatter":
                axes.scatter(xs, ys, label=texts.word(rng))
            else:
                axes.hist(ys, alpha=0.6, label=texts.word(rng))
        if rng.random() < 0.6:
            axes.legend()
        axes.grid(rng.random() < 0.3)


def _collect(figure, pixels: npt.NDArray[np.uint8]) -> list[Mark]:  # type: ignore[no-untyped-def]
    """The horizontal lines of text that are drawn on the figure."""
    from matplotlib.text import Text

    height, width = pixels.shape[:2]
    renderer = figure.canvas.get_renderer()
    marks = []
    for artist in figure.findobj(Text):
        text = artist.get_text().strip()
        if not text or not artist.get_visible() or artist.get_rotation() % 360 or "$" in text or "\n" in text:
            continue
        box = artist.get_window_extent(renderer)
        if box.x0 < 0 or box.x1 > width or box.y0 < 0 or box.y1 > height:
            continue
        if not _is_drawn(pixels, box):
            continue
        size = artist.get_fontsize() * figure.dpi / 72
        _, _, descent = renderer.get_text_width_height_descent(text, artist.get_fontproperties(), False)
        marks.append(Mark(text, box.x0, box.x1, height - box.y0 - descent, _CAPITAL * size))
    return marks


def _is_drawn(pixels: npt.NDArray[np.uint8], box) -> bool:  # type: ignore[no-untyped-def]
    """Whether there is any ink in a box: matplotlib keeps labels outside an axis's limits without drawing them."""
    height = pixels.shape[0]
    part = pixels[int(height - box.y1) : int(height - box.y0) + 1, int(box.x0) : int(box.x1) + 1]
    return bool(part.size and int(part.max()) - int(part.min()) > 40)
