"""The held-out suite at full size: questions about images of 400 to 1,500 pixels that no training draws.

The seeds are fixed and used for nothing else, and words come from the held-out tenth. Question i of a task is always
the same, on one version of Pillow and matplotlib.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from llava.synth.full_size.full_size_item import FullSizeItem
from llava.synth.full_size.papers import draw_form_item, draw_lines_item, draw_receipt_item
from llava.synth.full_size.pyplot_charts import draw_bar_item, draw_line_item, draw_pie_item
from llava.synth.full_size.shape_boards import draw_shapes_item
from llava.synth.full_size.sign_boards import draw_sign_item
from llava.synth.truth import Truth

SEED = "held-out suite at full size 1"
# Questions that none of these images answers.
UNANSWERABLE = (
    "What is the telephone number?",
    "What is the name of the person?",
    "How old is the woman in the image?",
    "What breed is the dog?",
    "What time does the clock show?",
    "What is the number plate of the car?",
    "Who wrote the book?",
    "What is the e-mail address?",
    "What is the man wearing?",
    "Which city is this?",
    "What is the child holding?",
    "What is the cat doing?",
    "What brand is the shoe?",
    "What is the score of the game?",
    "Who is in the photo?",
    "How many people are waiting at the bus stop?",
)


@dataclass(frozen=True)
class FullSizeTask:
    """One row of the suite's table: its name, how a question is drawn, and the share that is aimed at; 0 is no goal."""

    name: str
    draw: Callable[[random.Random], FullSizeItem]
    goal: float
    needs_matplotlib: bool = False


def _draw_unanswerable(rng: random.Random) -> FullSizeItem:
    """A form without the field that is asked for, or any image with a question that has nothing to do with it."""
    kind = rng.randrange(4)
    if kind == 0:
        return draw_form_item(rng, absent=True)
    if kind == 1:
        item = draw_sign_item(rng, textured=rng.random() < 0.5, other_face=False)
    elif kind == 2:
        item = draw_shapes_item(rng, "color")
    else:
        item = draw_receipt_item(rng)
    return FullSizeItem(item.image, rng.choice(UNANSWERABLE), Truth(form="cannot tell"))


FULL_SIZE_TASKS = (
    FullSizeTask("full size: sign, plain ground", partial(draw_sign_item, textured=False, other_face=False), 0.90),
    FullSizeTask("full size: sign, textured ground", partial(draw_sign_item, textured=True, other_face=False), 0.90),
    FullSizeTask("full size: sign, other typefaces", partial(draw_sign_item, textured=False, other_face=True), 0.85),
    FullSizeTask("full size: line", draw_lines_item, 0.85),
    FullSizeTask("full size: form", draw_form_item, 0.85),
    FullSizeTask("full size: receipt", draw_receipt_item, 0.85),
    FullSizeTask("full size: matplotlib bars", draw_bar_item, 0.75, needs_matplotlib=True),
    FullSizeTask("full size: matplotlib lines", draw_line_item, 0.75, needs_matplotlib=True),
    FullSizeTask("full size: matplotlib pie", draw_pie_item, 0.75, needs_matplotlib=True),
    FullSizeTask("full size: color of a shape", partial(draw_shapes_item, kind="color"), 0.95),
    FullSizeTask("full size: kind of a shape", partial(draw_shapes_item, kind="shape"), 0.95),
    FullSizeTask("full size: count up to five", partial(draw_shapes_item, kind="count"), 0.95),
    FullSizeTask("full size: place of a shape", partial(draw_shapes_item, kind="place"), 0.95),
    FullSizeTask("full size: relation of shapes", partial(draw_shapes_item, kind="relation"), 0.95),
    FullSizeTask("full size: says it cannot tell", _draw_unanswerable, 0.80),
)


def draw_full_size_item(task: FullSizeTask, index: int) -> FullSizeItem:
    """Question number ``index`` of a task; always the same. Raises UsageError where fonts or matplotlib are missing."""
    return task.draw(random.Random(f"{SEED}:{task.name}:{index}"))
