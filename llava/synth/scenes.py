"""The kinds of scene, by name.

A kind is a function (rng, width, height, held_out) -> Scene. With ``held_out`` it draws words and colour-shape pairs
that training never sees. Every question carries the name of its task, by which the held-out suite chooses it.
"""

from __future__ import annotations

import random

from llava.synth import words
from llava.synth.charts import draw_chart
from llava.synth.drawing import COLORS, SHAPES, Drawing
from llava.synth.scene import SCENE_COLORS, Kind, Scene, draw_paper, draw_type, is_held_out_pair
from llava.synth.shapes import draw_shapes
from llava.synth.texts import draw_form, draw_lines, draw_signs, draw_words


def draw_page(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """A page full of text, shapes, plates and bars, cut off at the edges as tiles cut them; it has no questions.

    For the tower's warm-up, which learns most from full images.
    """
    ground, ink = draw_paper(rng)
    drawing = Drawing(rng, width, height, ground)
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
                    drawing.box("bar", color, x, y + rng.uniform(0, 1.6 * radius), x + radius, y + 2 * radius)
                else:
                    pair = (rng.choice(SCENE_COLORS), rng.choice(SHAPES))
                    if not is_held_out_pair(*pair) and (not dark or pair[0] not in ("black", "brown")):
                        drawing.shape(pair[1], pair[0], x + radius, y + radius, radius)
                x += rng.uniform(2.2, 3.5) * radius
            y += 2 * radius + rng.uniform(2, 6)
            continue
        kind = draw_type(
            rng, rng.choice((rng.randint(12, 17), rng.randint(12, 17), rng.randint(15, 24), rng.randint(20, 34)))
        )
        ink = rng.choice(inks)
        plates = rng.random() < 0.2
        while x < width:
            text = words.draw_content(rng, held_out)
            wide = kind.font.getlength(text)
            if plates:
                color = rng.choice(tuple(COLORS))
                drawing.box(
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
            drawing.write(x, y, text, kind.font, ink)
            x += wide + (rng.uniform(9, 16) if plates else kind.font.getlength(" ") * rng.choice((1, 1, 2, 3)))
        y += kind.line_px * rng.uniform(0.95, 1.3) + (3 if plates else 0)
    return Scene("page", drawing, "")


KINDS: dict[str, Kind] = {
    "shapes": draw_shapes,
    "words": draw_words,
    "lines": draw_lines,
    "form": draw_form,
    "chart": draw_chart,
    "signs": draw_signs,
}
# Including the kind without questions, which only the tower's warm-up uses.
ALL_KINDS: dict[str, Kind] = {**KINDS, "page": draw_page}
