"""The charts of talking_suites.py: matplotlib with other fonts and styles, and charts as office programs draw them."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.talking_drawings import FACES, Asked, Drawn, Kit, name, number, text, unknown

_DATA: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("Coffee sold", "Cups", {"Monday": 42, "Tuesday": 55, "Wednesday": 31, "Thursday": 68, "Friday": 90}),
    ("Rain by season", "mm", {"Spring": 180, "Summer": 95, "Autumn": 240, "Winter": 150}),
    ("Favourite pets", "Votes", {"Dog": 24, "Cat": 31, "Fish": 9, "Bird": 15}),
    ("Visitors", "People", {"Museum": 820, "Zoo": 1460, "Tower": 540, "Castle": 1010}),
    ("Energy mix", "TWh", {"Wind": 132, "Solar": 64, "Gas": 91, "Hydro": 25, "Coal": 110}),
    ("Exports", "Million", {"Norway": 75, "Chile": 43, "Kenya": 21, "Japan": 98}),
    ("Library loans", "Books", {"Novels": 340, "Comics": 270, "Travel": 120, "Science": 190}),
    ("Goals scored", "Goals", {"Reds": 18, "Blues": 26, "Greens": 11, "Whites": 22}),
)
_OFFICE = {
    "blue": (68, 114, 196),
    "orange": (237, 125, 49),
    "gray": (165, 165, 165),
    "yellow": (255, 192, 0),
    "green": (112, 173, 71),
}
_STYLES = (
    "ggplot",
    "bmh",
    "dark_background",
    "seaborn-v0_8-whitegrid",
    "fivethirtyeight",
    "grayscale",
    "classic",
    "default",
)


def _ask(rng: random.Random, title: str, values: dict[str, float], noun: str, tolerance: float) -> Asked:
    order = sorted(values, key=lambda key: values[key])
    most, least = order[-1], order[0]
    some = rng.choice(list(values))

    def rest(one: str) -> tuple[str, ...]:
        return tuple(each for each in values if each != one)

    asked = [
        text(f"Which {noun} is the largest?", most, others=rest(most)),
        text(f"Which {noun} is the smallest?", least, others=rest(least)),
        number(f"How many {noun}s are there?", len(values)),
        number(f"What is the value of {some}?", values[some], tolerance),
        text("What is the title of the chart?", title),
    ]
    return [
        *rng.sample(asked, 3),
        unknown(rng.choice(("Who made this chart?", "What was the value ten years before?"))),
    ]


def draw_charts(fetch: Callable[[str], Path]) -> Iterator[tuple[str, Drawn]]:
    """Every chart with its group."""
    for place, (title, unit, values) in enumerate(_DATA):
        yield "charts of other looks", _draw_pyplot(fetch, place, title, unit, values)
        yield "charts of other looks", _draw_office(Kit(fetch, f"office {title}"), title, values)


def _draw_pyplot(fetch: Callable[[str], Path], place: int, title: str, unit: str, values: dict[str, float]) -> Drawn:
    import matplotlib.font_manager
    import matplotlib.pyplot
    import matplotlib.style

    rng = random.Random(f"pyplot {title}")
    packages = ["fonts-lato", "fonts-cantarell", "fonts-comic-neue", "fonts-cardo", "fonts-hosny-amiri", "fonts-mplus"]
    package = packages[place % len(packages)]
    path = str(next(path for path in sorted(fetch(package).rglob(FACES[package][0]))))
    matplotlib.font_manager.fontManager.addfont(path)
    family = matplotlib.font_manager.FontProperties(fname=path).get_name()
    with (
        matplotlib.style.context(_STYLES[place]),
        matplotlib.pyplot.rc_context({"font.family": family, "font.size": 13}),
    ):
        figure: Any = matplotlib.pyplot.figure(figsize=(7, 5), dpi=rng.choice((100, 130, 160)))
        axes = figure.subplots()
        kind = ("bar", "line", "pie", "level")[place % 4]
        noun = {"bar": "bar", "level": "bar", "pie": "slice", "line": "point"}[kind]
        if kind == "bar":
            axes.bar_label(axes.bar(list(values), list(values.values())))
        elif kind == "level":
            axes.barh(list(values), list(values.values()))
        elif kind == "line":
            axes.plot(list(values), list(values.values()), marker="s", linewidth=2)
        else:
            axes.pie(list(values.values()), labels=list(values), autopct="%1.0f%%")
        axes.set_title(title)
        if kind != "pie":
            (axes.set_xlabel if kind == "level" else axes.set_ylabel)(unit)
        file = io.BytesIO()
        figure.savefig(file, format="png")
        matplotlib.pyplot.close(figure)
    tolerance = 0.0 if kind == "bar" else 0.05 * max(values.values())
    asked = _ask(rng, title, values, noun, tolerance)
    if kind == "pie":  # shows shares, not values
        asked = [row for row in asked if not row["question"].startswith("What is the value")]
    if kind == "line":
        asked = [{**row, "question": row["question"].replace("is the largest", "is the highest")} for row in asked]
    return Image.open(file).convert("RGB"), asked


def _draw_office(kit: Kit, title: str, values: dict[str, float]) -> Drawn:
    """Columns in the manner of spreadsheets: grey lines behind, no frame, a legend or labels above the columns."""
    rng = kit.rng
    width, height = rng.randint(760, 1100), rng.randint(480, 640)
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    head, font = kit.font("fonts-lato", 34), kit.font(rng.choice(("fonts-lato", "fonts-cantarell", "fonts-mplus")), 22)
    pen.text(((width - head.getlength(title)) / 2, 22), title, font=head, fill=(89, 89, 89))
    top, bottom, left, right = 100, height - 70, 90, width - 40
    most = max(values.values())
    step = next(s for s in (5, 10, 20, 50, 100, 200, 500) if most / s <= 6)
    ceiling = step * (int(most / step) + 1)
    for tick in range(0, ceiling + 1, step):
        y = bottom - (bottom - top) * tick / ceiling
        pen.line((left, y, right, y), fill=(217, 217, 217), width=2)
        pen.text((left - 12 - font.getlength(str(tick)), y - 14), str(tick), font=font, fill=(89, 89, 89))
    slot = (right - left) / len(values)
    varied = rng.random() < 0.5
    colors = list(_OFFICE)
    printed = rng.random() < 0.5
    for i, (label, value) in enumerate(values.items()):
        x, y = left + slot * (i + 0.5), bottom - (bottom - top) * value / ceiling
        pen.rectangle((x - slot * 0.3, y, x + slot * 0.3, bottom), fill=_OFFICE[colors[i % 5] if varied else "blue"])
        pen.text((x - font.getlength(label) / 2, bottom + 10), label, font=font, fill=(89, 89, 89))
        if printed:
            pen.text((x - font.getlength(str(value)) / 2, y - 30), str(value), font=font, fill=(64, 64, 64))
    asked = _ask(rng, title, values, "column", 0.0 if printed else 0.05 * most)
    if varied:
        i = rng.randrange(len(values))
        other = tuple(color for color in _OFFICE if color != colors[i % 5])
        right_names = (colors[i % 5], "grey") if colors[i % 5] == "gray" else (colors[i % 5],)
        asked.append(name(f"What color is the column {list(values)[i]}?", *right_names, others=other))
    return image, asked
