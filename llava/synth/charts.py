"""Bar charts, with printed values or with an axis."""

from __future__ import annotations

import random

from llava.synth import words
from llava.synth.drawing import Drawing
from llava.synth.scene import SCENE_COLORS, Scene, Turn, choose, draw_light, draw_type


def draw_chart(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """A bar chart, upright or lying, with printed values or with an axis."""
    drawing = Drawing(rng, width, height, draw_light(rng))
    kind = draw_type(rng, rng.randint(12, 15))
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
            drawing.pen.line((left - 3, y, width - 2, y), fill=(215, 215, 215))
            label = str(i * step)
            drawing.write(left - 4 - kind.font.getlength(label), y - kind.line_px / 2, label, kind.font, "black")
        drawing.pen.line((left, top, left, bottom), fill=gray)
    drawing.pen.line((left, bottom, width - 2, bottom), fill=gray)
    one_color = rng.choice([c for c in SCENE_COLORS if c != "black"]) if rng.random() < 0.5 else None
    colors = [one_color] * count if one_color else rng.sample([c for c in SCENE_COLORS if c != "black"], count)
    slot = (width - 2 - left) / count
    bar = slot * rng.uniform(0.45, 0.75)
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        middle = left + (i + 0.5) * slot
        y = bottom - value * scale
        drawing.box("bar", str(colors[i]), middle - bar / 2, y, middle + bar / 2, bottom)
        drawing.write(middle - kind.font.getlength(name) / 2, bottom + 1, name, kind.font, "black")
        if printed:
            drawing.write(middle - kind.font.getlength(show[i]) / 2, y - kind.line_px, show[i], kind.font, "black")
    listing = ", ".join(f"{n} {v}" for n, v in zip(names, show, strict=True))
    scene = Scene("chart", drawing, f"A bar chart with {count} bars: {listing}.")
    add = lambda question, answer, task: scene.turns.append(Turn(question, answer, task))  # noqa: E731
    order = sorted(range(count), key=lambda i: values[i])
    add("How many bars are there?", str(count), "chart count")
    add(
        choose(rng, "Which bar is the largest?", "Which bar is the tallest?", "What has the largest value?"),
        names[order[-1]],
        "chart largest",
    )
    add(
        choose(rng, "Which bar is the smallest?", "Which bar is the shortest?", "What has the smallest value?"),
        names[order[0]],
        "chart smallest",
    )
    a, b = rng.sample(range(count), 2)
    add(f"Is {names[a]} larger than {names[b]}?", "yes" if values[a] > values[b] else "no", "chart compare")
    for i in rng.sample(range(count), min(2, count)):
        add(choose(rng, f"What is the value of {names[i]}?", f"What value does {names[i]} have?"), show[i],
            "printed value" if printed else "axis value")  # fmt: skip
    # Not in the suite, with numbers of their own, so that the suite's questions stay what they were.
    more = random.Random(listing)
    for task in ("chart compare again", "chart compare once more"):
        a, b = more.sample(range(count), 2)
        add(f"Is {names[a]} larger than {names[b]}?", "yes" if values[a] > values[b] else "no", task)
    # Not in the suite: every word of the answer teaches what largest, smallest and compare need.
    add("List the bars from the smallest to the largest.", ", ".join(names[i] for i in order), "chart order")
    if not one_color:
        i = rng.randrange(count)
        add(f"What color is the bar {names[i]}?", str(colors[i]), "bar color")
    if not printed:
        scene.turns = [
            turn._replace(task=turn.task + f"|{step}") if turn.task == "axis value" else turn for turn in scene.turns
        ]
    return scene
