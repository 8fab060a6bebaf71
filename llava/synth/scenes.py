"""The kinds of picture, each with questions whose answers follow from how it was drawn.

A kind is a function (rng, width, height, held_out) -> Scene. ``held_out`` draws with words and colour-shape pairs
that training never sees. Every question carries the name of the task it belongs to, which is the row of the
held-out suite that counts it.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import ImageFont

from llava.synth import words
from llava.synth.canvas import COLORS, SHAPES, Canvas, draw_font, load_font, vary_color

SCENE_COLORS = tuple(name for name in COLORS if name != "white")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
FORM_KEYS = (
    "Name City Date Phone Age Code Room Street Email Country Item Number Price Order Status Owner Team Year Floor Seat "
    "Gate Flight Train Model Size Weight Height Speed Level Score Grade Class Amount Tax Discount Balance Account"
).split()
RECEIPT_ITEMS = (
    "Bread Milk Tea Coffee Cake Soup Rice Fish Eggs Salt Juice Apple Pear Plum Lemon Pasta Pizza Salad Honey Cheese "
    "Butter Beans Corn Nuts Pie Jam Water Soda Sugar Flour Ham Beef Pork Lamb Curry Toast Bagel Muffin Cookie Tuna"
).split()


def is_held_out_pair(color: str, shape: str) -> bool:
    """Whether a colour-shape pair is kept from training: about one in ten, by hash."""
    return zlib.crc32(f"{color} {shape}".encode()) % 9 == 0


class Turn(NamedTuple):
    """One question with its only right answer, and the task it counts for."""

    question: str
    answer: str
    task: str


@dataclass
class Scene:
    """A finished picture with its questions; ``caption`` says all that is on it."""

    kind: str
    canvas: Canvas
    caption: str
    turns: list[Turn] = field(default_factory=list)


Kind = Callable[[random.Random, int, int, bool], Scene]


def _light(rng: random.Random) -> tuple[int, int, int]:
    base = rng.randint(232, 255)
    return tuple(min(255, base + rng.randint(-6, 6)) for _ in range(3))  # type: ignore[return-value]


def _ask(rng: random.Random, *phrasings: str) -> str:
    return rng.choice(phrasings)


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _spread(rng: random.Random, width: int, height: int, count: int) -> list[tuple[float, float, float]]:
    """Up to ``count`` circles (x, y, radius) that do not touch."""
    scale = min(width, height)
    largest = min(0.24, 0.52 / max(count, 1) ** 0.5)
    placed: list[tuple[float, float, float]] = []
    for _ in range(count * 30):
        radius = max(6.0, scale * rng.uniform(largest * 0.55, largest))
        if 2 * radius + 4 > scale:
            continue
        x, y = rng.uniform(radius + 1, width - radius - 1), rng.uniform(radius + 1, height - radius - 1)
        if all((x - a) ** 2 + (y - b) ** 2 > (radius * 1.25 + r * 1.25 + 2) ** 2 for a, b, r in placed):
            placed.append((x, y, radius))
            if len(placed) == count:
                break
    return placed


def name_place(x: float, y: float, width: int, height: int) -> str:
    """Which ninth of the picture a point is in: "top left", "top", ..., "center", ..., "bottom right"."""
    row = ("top", "", "bottom")[min(2, int(3 * y / height))]
    column = ("left", "", "right")[min(2, int(3 * x / width))]
    return f"{row} {column}".strip() or "center"


def draw_shapes(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """One to eight shapes on a plain ground; colour, shape, existence, count, position, relation."""
    canvas = Canvas(rng, width, height, _light(rng))
    count = rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8))
    pairs = [(c, s) for c in SCENE_COLORS for s in SHAPES if is_held_out_pair(c, s) == held_out]
    if rng.random() < 0.5:  # repeats make counting by kind worth asking
        few = [rng.choice(pairs) for _ in range(rng.randint(2, 3))]
        pairs = few + [rng.choice(pairs)]
    for x, y, radius in _spread(rng, width, height, count):
        color, shape = rng.choice(pairs)
        canvas.shape(shape, color, x, y, radius)
    found = [(o.color, o.shape, o.anchor_x, o.anchor_y) for o in canvas.objects]
    ordered = sorted(found, key=lambda o: (int(3 * o[3] / height), o[2]))
    noun = "object" if len(found) == 1 else "objects"
    listing = ", ".join(f"{article(c)} {c} {s}" for c, s, _, _ in ordered)
    scene = Scene("shapes", canvas, f"There {'is' if len(found) == 1 else 'are'} {len(found)} {noun}: {listing}.")
    _ask_about_shapes(rng, scene, found, held_out)
    return scene


def _ask_about_shapes(
    rng: random.Random, scene: Scene, found: list[tuple[str, str, float, float]], held_out: bool
) -> None:
    add = lambda question, answer, task: scene.turns.append(Turn(question, answer, task))  # noqa: E731
    colors, shapes = [o[0] for o in found], [o[1] for o in found]
    pairs = [(o[0], o[1]) for o in found]
    width, height = scene.canvas.width, scene.canvas.height
    task_pair = "held-out pair" if held_out else ""
    for color, shape, x, y in found:
        if shapes.count(shape) == 1:
            add(
                _ask(rng, f"What color is the {shape}?", f"What is the color of the {shape}?"),
                color,
                task_pair or "color",
            )
        if colors.count(color) == 1:
            add(
                _ask(rng, f"What shape is the {color} object?", f"What is the {color} object?"),
                shape,
                task_pair or "shape",
            )
        if pairs.count((color, shape)) == 1:
            add(_ask(rng, f"Where is the {color} {shape}?", f"Where in the picture is the {color} {shape}?"),
                name_place(x, y, width, height), "position")  # fmt: skip
    # Existence: half of the questions name a pair that is there; the others share its colour or its shape.
    pool = [(c, s) for c in SCENE_COLORS for s in SHAPES if is_held_out_pair(c, s) == held_out and (c, s) not in pairs]
    near = [p for p in pool if p[0] in colors or p[1] in shapes]
    yes = rng.random() < 0.5
    color, shape = rng.choice(pairs) if yes else rng.choice(near if near and rng.random() < 0.7 else pool)
    named = f"{article(color)} {color} {shape}"
    question = _ask(rng, f"Is there {named}?", f"Is there {named} in the picture?")
    add(question, "yes" if yes else "no", task_pair or "existence")
    add(_ask(rng, "How many objects are there?", "How many shapes are there?", "How many objects are in the picture?"),
        str(len(found)), "counting")  # fmt: skip
    kind = rng.choice(colors if rng.random() < 0.8 else SCENE_COLORS)
    add(
        _ask(rng, f"How many {kind} objects are there?", f"How many objects are {kind}?"),
        str(colors.count(kind)),
        "counting",
    )
    shape = rng.choice(shapes if rng.random() < 0.8 else SHAPES)
    plural = "crosses" if shape == "cross" else shape + "s"
    add(f"How many {plural} are there?", str(shapes.count(shape)), "counting")
    single = [o for o in found if pairs.count((o[0], o[1])) == 1]
    for _ in range(2):
        if len(single) < 2:
            break
        a, b = rng.sample(single, 2)
        across = abs(a[2] - b[2]) > abs(a[3] - b[3])
        if max(abs(a[2] - b[2]), abs(a[3] - b[3])) < 0.1 * min(width, height):
            continue
        relation = ("left of" if a[2] < b[2] else "right of") if across else ("above" if a[3] < b[3] else "below")
        opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[relation]
        says = rng.random() < 0.5
        stated = relation if says else opposite
        add(f"Is the {a[0]} {a[1]} {stated} the {b[0]} {b[1]}?", "yes" if says else "no", "relation")
    unique = [o for o in found if shapes.count(o[1]) == 1]
    if unique:
        color, shape, _, _ = rng.choice(unique)
        options = rng.sample([c for c in SCENE_COLORS if c != color], 3) + [color]
        rng.shuffle(options)
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
        add(f"What color is the {shape}?\n{listed}\nAnswer with the option's letter from the given choices directly.",
            "ABCD"[options.index(color)], "option letter")  # fmt: skip


class _Type(NamedTuple):
    font: ImageFont.FreeTypeFont
    line_px: float


def _type(rng: random.Random, size_px: int) -> _Type:
    font = load_font(draw_font(rng), size_px)
    ascent, descent = font.getmetrics()
    return _Type(font, ascent + descent)


def _paper(rng: random.Random) -> tuple[tuple[int, int, int], str]:
    """A ground and an ink that can be read on it."""
    if rng.random() < 0.85:
        return _light(rng), rng.choice(("black", "black", "black", "blue", "red", "green", "purple", "brown"))
    ground = vary_color(rng, rng.choice(("black", "blue", "green", "purple", "brown", "red")), 10)
    return ground, rng.choice(("white", "white", "yellow"))


# Type sizes in pixels of the picture: large, medium, small.
TYPE_SIZES = {"large": (23, 34), "medium": (16, 22), "small": (12, 15)}


def draw_words(rng: random.Random, width: int, height: int, held_out: bool, size: str | None = None) -> Scene:
    """One word, number or code, anywhere on the picture."""
    ground, ink = _paper(rng)
    canvas = Canvas(rng, width, height, ground)
    size = size or rng.choice(("large", "medium", "medium", "small"))
    low, high = TYPE_SIZES[size]
    text = words.draw_content(rng, held_out)
    for _ in range(40):
        kind = _type(rng, rng.randint(low, high))
        wide, tall = canvas.measure(text, kind.font)
        if wide <= width - 4 and tall <= height:
            break
        text = words.draw_content(rng, held_out, max_letters=max(3, int(len(text) * (width - 4) / wide)))
    x, y = rng.uniform(2, max(2.0, width - wide - 2)), rng.uniform(0, max(0.0, height - tall))
    canvas.write(x, y, text, kind.font, ink)
    scene = Scene("words", canvas, f"The text says {text}")
    question = _ask(rng, "What is written?", "What does the text say?", "What is written in the picture?",
                    "Read the text.", "What does it say?")  # fmt: skip
    scene.turns.append(Turn(question, text, f"{size} type"))
    scene.turns.append(Turn("What color is the text?", ink, "text color"))
    return scene


def draw_lines(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """Several lines of text, one of them in another colour."""
    ground, canvas_ink = _light(rng), rng.choice(("black", "black", "blue", "brown"))
    canvas = Canvas(rng, width, height, ground)
    kind = _type(rng, rng.randint(13, 20))
    gap = kind.line_px * rng.uniform(1.0, 1.5)
    most = max(1, min(6, int((height - 4) / gap)))
    count = rng.randint(min(2, most), most)
    y = rng.uniform(1, max(1.5, height - count * gap))
    x = rng.uniform(2, 10)
    odd = rng.randrange(count) if rng.random() < 0.75 else -1
    odd_ink = rng.choice([c for c in ("red", "green", "blue", "purple", "orange", "pink") if c != canvas_ink])
    lines: list[tuple[str, str]] = []
    while len(lines) < count:
        text = words.draw_content(rng, held_out)
        if rng.random() < 0.35:
            text += " " + words.draw_content(rng, held_out)
        if kind.font.getlength(text) > width - x - 2:
            text = words.draw_content(rng, held_out, max_letters=max(3, int((width - x - 2) / (kind.font.size * 0.75))))
            if kind.font.getlength(text) > width - x - 1:
                text = text[: max(2, int(len(text) * (width - x - 1) / kind.font.getlength(text)))]
        if text in [line for line, _ in lines]:
            continue
        ink = odd_ink if len(lines) == odd else canvas_ink
        canvas.write(x, y + len(lines) * gap, text, kind.font, ink)
        lines.append((text, ink))
    scene = Scene("lines", canvas, "The text says " + " / ".join(text for text, _ in lines))
    for i in rng.sample(range(count), min(3, count)):
        text = lines[i][0]
        nth = ORDINALS[i]
        question = _ask(
            rng, f"What does the {nth} line say?", f"What is written on the {nth} line?", f"Read line {i + 1}."
        )
        scene.turns.append(Turn(question, text, "n-th line"))
    if odd >= 0:
        scene.turns.append(Turn(_ask(rng, f"What does the {odd_ink} line say?", f"What is written in {odd_ink}?"),
                                lines[odd][0], "colored line"))  # fmt: skip
    text, ink = rng.choice(lines)
    scene.turns.append(Turn(f"What color is the text {text}?", ink, "text color"))
    scene.turns.append(
        Turn(_ask(rng, "How many lines are there?", "How many lines of text are there?"), str(count), "line count")
    )
    return scene


def _form_value(rng: random.Random, receipt: bool, held_out: bool, font: ImageFont.FreeTypeFont, room_px: float) -> str:
    """A price, or any value a form can hold, that fits its line; "" if nothing does."""
    for _ in range(20):
        if receipt:
            value = words.draw_price(rng)
        else:
            draw = rng.choice((words.draw_number, words.draw_code, words.draw_date, words.draw_price, None))
            value = draw(rng) if draw else words.draw_word(rng, held_out, 7)
        if font.getlength(value) <= room_px:
            return value
    return ""


def draw_form(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """A form (key: value) or a receipt (item, price, total)."""
    receipt = rng.random() < 0.45
    canvas = Canvas(rng, width, height, _light(rng))
    kind = _type(rng, rng.randint(12, 17))
    gap = kind.line_px * rng.uniform(1.0, 1.4)
    most = max(2, min(6, int((height - 2) / gap)))
    count = rng.randint(2, most)
    x, y = rng.uniform(2, 8), rng.uniform(0, max(0.5, height - count * gap))
    ink = rng.choice(("black", "black", "black", "blue"))
    own_keys = RECEIPT_ITEMS if receipt else FORM_KEYS
    keys: list[str] = []
    while len(keys) < count:
        key = rng.choice(own_keys) if rng.random() < 0.7 else words.draw_word(rng, held_out, 6).title()
        if key not in keys:
            keys.append(key)
    if receipt and rng.random() < 0.8:
        keys[-1] = "Total"
    rows: list[tuple[str, str]] = []
    aligned = receipt or rng.random() < 0.4
    column = max(kind.font.getlength(k + ":") for k in keys) + x + rng.uniform(5, 14)
    for key in keys:
        label = key if receipt else key + ":"
        left = column if aligned else x + kind.font.getlength(label + " ")
        value = _form_value(rng, receipt, held_out, kind.font, width - 2 - left)
        if not value:
            continue
        if receipt and rng.random() < 0.5:
            left = max(left, width - 4 - kind.font.getlength(value))
        canvas.write(x, y + len(rows) * gap, label, kind.font, ink)
        canvas.write(left, y + len(rows) * gap, value, kind.font, ink)
        rows.append((key, value))
    if not rows:
        return draw_form(rng, width, height, held_out)
    scene = Scene(
        "form", canvas, "The text says " + " / ".join(f"{k} {v}" if receipt else f"{k}: {v}" for k, v in rows)
    )
    for key, value in rng.sample(rows, min(4, len(rows))):
        phrasings = (
            (f"How much is the {key}?", f"What is the price of {key}?", f"What is the {key}?")
            if receipt
            else (f"What is the {key}?", f"What is the value of {key}?", f"What does it say for {key}?")
        )
        scene.turns.append(Turn(_ask(rng, *phrasings), value, "form value"))
    return scene


def draw_chart(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """A bar chart, upright or lying, with printed values or with an axis."""
    canvas = Canvas(rng, width, height, _light(rng))
    kind = _type(rng, rng.randint(12, 15))
    printed = rng.random() < 0.55
    count = rng.randint(2, max(2, min(6, width // 34)))
    step = rng.choice((1, 2, 5, 10, 20))
    num_ticks = rng.randint(3, 5)
    top_value = step * num_ticks
    letters = rng.sample("ABCDEFGHJKLMNPRSTUVWXYZ", count)
    short = rng.random() < 0.5
    slot_room = (width - 34) / count
    names: list[str] = []
    for letter in letters:
        name = letter
        if short:
            word = words.draw_word(rng, held_out, 4).title()
            if kind.font.getlength(word) < slot_room - 3 and word not in names:
                name = word
        names.append(name)
    values: list[float] = []
    grain = step if printed else step / 2
    while len(values) < count:
        value = rng.randint(1, max(2, int(top_value / grain))) * grain
        if printed:
            value = rng.randint(1, 99)
        if value not in values and value <= (99 if printed else top_value):
            values.append(value)
    show = [str(int(v)) if v == int(v) else f"{v:.1f}" for v in values]
    left = 4.0 if printed else 6 + kind.font.getlength(str(top_value))
    bottom = height - kind.line_px - 2
    top = kind.line_px + 3 if printed else 6.0
    scale = (bottom - top) / (max(values) if printed else top_value)
    gray = (150, 150, 150)
    if not printed:
        for i in range(num_ticks + 1):
            y = bottom - i * step * scale
            canvas.pen.line((left - 3, y, width - 2, y), fill=(215, 215, 215))
            label = str(i * step)
            canvas.write(left - 4 - kind.font.getlength(label), y - kind.line_px / 2, label, kind.font, "black")
        canvas.pen.line((left, top, left, bottom), fill=gray)
    canvas.pen.line((left, bottom, width - 2, bottom), fill=gray)
    one_color = rng.choice([c for c in SCENE_COLORS if c != "black"]) if rng.random() < 0.5 else None
    colors = [one_color] * count if one_color else rng.sample([c for c in SCENE_COLORS if c != "black"], count)
    slot = (width - 2 - left) / count
    bar = slot * rng.uniform(0.45, 0.75)
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        middle = left + (i + 0.5) * slot
        y = bottom - value * scale
        canvas.box("bar", str(colors[i]), middle - bar / 2, y, middle + bar / 2, bottom)
        canvas.write(middle - kind.font.getlength(name) / 2, bottom + 1, name, kind.font, "black")
        if printed:
            canvas.write(middle - kind.font.getlength(show[i]) / 2, y - kind.line_px, show[i], kind.font, "black")
    listing = ", ".join(f"{n} {v}" for n, v in zip(names, show, strict=True))
    scene = Scene("chart", canvas, f"A bar chart with {count} bars: {listing}.")
    add = lambda question, answer, task: scene.turns.append(Turn(question, answer, task))  # noqa: E731
    order = sorted(range(count), key=lambda i: values[i])
    add("How many bars are there?", str(count), "chart count")
    add(
        _ask(rng, "Which bar is the largest?", "Which bar is the tallest?", "What has the largest value?"),
        names[order[-1]],
        "chart largest",
    )
    add(
        _ask(rng, "Which bar is the smallest?", "Which bar is the shortest?", "What has the smallest value?"),
        names[order[0]],
        "chart smallest",
    )
    a, b = rng.sample(range(count), 2)
    add(f"Is {names[a]} larger than {names[b]}?", "yes" if values[a] > values[b] else "no", "chart compare")
    for i in rng.sample(range(count), min(2, count)):
        add(_ask(rng, f"What is the value of {names[i]}?", f"What value does {names[i]} have?"), show[i],
            "printed value" if printed else "axis value")  # fmt: skip
    if not one_color:
        i = rng.randrange(count)
        add(f"What color is the bar {names[i]}?", str(colors[i]), "bar color")
    if not printed:
        scene.turns = [
            turn._replace(task=turn.task + f"|{step}") if turn.task == "axis value" else turn for turn in scene.turns
        ]
    return scene


def draw_signs(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """Coloured plates with a word each: signs on a ground, or the buttons of a screen."""
    screen = rng.random() < 0.5
    noun = "button" if screen else "sign"
    ground = (
        _light(rng)
        if screen or rng.random() < 0.4
        else vary_color(rng, rng.choice(("green", "blue", "gray", "brown")), 40)
    )
    canvas = Canvas(rng, width, height, ground)
    kind = _type(rng, rng.randint(13, 22 if width * height > 15000 else 17))
    title = ""
    y = rng.uniform(2, 6)
    if screen and height > 60 and rng.random() < 0.6:
        title = words.draw_word(rng, held_out, 7).title()
        bar = kind.line_px + 4
        canvas.box("plate", rng.choice(("gray", "black")), 0, 0, width, bar)
        color = canvas.objects[-1].color
        canvas.write(4, 2, title, kind.font, "white" if color == "black" else "black")
        y += bar + 2
    pad = rng.uniform(3, 7)
    tall = kind.line_px + 2 * pad
    most = max(1, min(4, int((height - y) / (tall + 4))))
    count = rng.randint(1, most)
    slack = max(0.0, height - y - count * (tall + 4)) / count
    names: list[tuple[str, str]] = []
    plates = rng.sample(
        ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black", "white"), count
    )
    for color in plates:
        text = words.draw_content(rng, held_out)
        if kind.font.getlength(text) > width - 2 * pad - 6:
            text = words.draw_content(rng, held_out, max_letters=max(3, int((width - 2 * pad - 6) / kind.font.size)))
        wide = kind.font.getlength(text) + 2 * pad
        left = rng.uniform(2, max(2.5, width - wide - 2))
        y += rng.uniform(0, slack)
        canvas.box("plate", color, left, y, left + wide, y + tall, round_px=rng.choice((0, 3, 6)), outline=(90, 90, 90))
        ink = "black" if color in ("yellow", "white", "orange", "pink") else "white"
        canvas.write(left + pad, y + pad, text, kind.font, ink)
        names.append((color, text))
        y += tall + 4
    listing = ", ".join(f"{article(color)} {color} {noun} {text}" for color, text in names)
    scene = Scene("signs", canvas, (f"A window {title} with " if title else "There is ") + listing)
    for color, text in names:
        if count == 1:
            question = _ask(
                rng,
                f"What does the {noun} say?",
                f"What is written on the {noun}?",
                f"What does the {color} {noun} say?",
            )
        else:
            question = _ask(rng, f"What does the {color} {noun} say?", f"What is written on the {color} {noun}?")
        scene.turns.append(Turn(question, text, "sign text"))
    color, text = rng.choice(names)
    what = f"What color is the {noun}?" if count == 1 else f"What color is the {noun} {text}?"
    scene.turns.append(Turn(what, color, "sign color"))
    scene.turns.append(Turn(f"How many {noun}s are there?", str(count), "sign count"))
    if title:
        scene.turns.append(Turn("What is the title of the window?", title, "window title"))
    return scene


def draw_page(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """Rows of text, shapes, plates and bars, cut off at the edges as tiles cut them; no questions.

    The tower's warm-up learns most from pictures that are full.
    """
    ground, ink = _paper(rng)
    canvas = Canvas(rng, width, height, ground)
    dark = ink in ("white", "yellow")
    inks = (
        ("white", "yellow", "pink") if dark else ("black", "black", "blue", "red", "green", "purple", "brown", "orange")
    )
    y = rng.uniform(-8, 4)
    while y < height:
        x = rng.uniform(-10, 6)
        if rng.random() < 0.2:
            radius = rng.uniform(7, 20)
            bars = rng.random() < 0.3
            color = rng.choice(SCENE_COLORS)
            while x < width:
                if bars:
                    canvas.box("bar", color, x, y + rng.uniform(0, 1.6 * radius), x + radius, y + 2 * radius)
                else:
                    pair = (rng.choice(SCENE_COLORS), rng.choice(SHAPES))
                    if not is_held_out_pair(*pair) and (not dark or pair[0] not in ("black", "brown")):
                        canvas.shape(pair[1], pair[0], x + radius, y + radius, radius)
                x += rng.uniform(2.2, 3.5) * radius
            y += 2 * radius + rng.uniform(2, 6)
            continue
        kind = _type(
            rng, rng.choice((rng.randint(12, 17), rng.randint(12, 17), rng.randint(15, 24), rng.randint(20, 34)))
        )
        ink = rng.choice(inks)
        plates = rng.random() < 0.2
        while x < width:
            text = words.draw_content(rng, held_out)
            wide = kind.font.getlength(text)
            if plates:
                color = rng.choice(tuple(COLORS))
                canvas.box(
                    "plate",
                    color,
                    x - 4,
                    y - 1,
                    x + wide + 4,
                    y + kind.line_px + 1,
                    round_px=rng.choice((0, 3)),
                    outline=(90, 90, 90),
                )
                ink = "black" if color in ("yellow", "white", "orange", "pink") else "white"
            canvas.write(x, y, text, kind.font, ink)
            x += wide + (rng.uniform(9, 16) if plates else kind.font.getlength(" ") * rng.choice((1, 1, 2, 3)))
        y += kind.line_px * rng.uniform(0.95, 1.3) + (3 if plates else 0)
    return Scene("page", canvas, "")


KINDS: dict[str, Kind] = {
    "shapes": draw_shapes,
    "words": draw_words,
    "lines": draw_lines,
    "form": draw_form,
    "chart": draw_chart,
    "signs": draw_signs,
}
# Kinds without questions, for the tower's warm-up alone.
WARM_UP_KINDS: dict[str, Kind] = {"page": draw_page}
