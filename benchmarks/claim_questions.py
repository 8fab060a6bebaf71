"""The held-out questions of ``next_claims.py`` about images of 400 to 1,500 px, by what they measure.

Seeds are this file's own, and words are from the tenth that no training draws. A question is judged as
``llava eval synth`` judges it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from PIL import Image, ImageDraw

from benchmarks.data_claim import Question
from llava.synth import words
from llava.synth.full_size.full_size_item import FullSizeItem, compress, draw_color, draw_size
from llava.synth.full_size.papers import draw_form_item, draw_receipt_item
from llava.synth.full_size.pyplot_charts import draw_bar_item, draw_line_item, draw_pie_item
from llava.synth.full_size.shape_boards import draw_shapes_item
from llava.synth.full_size.typefaces import Typeface
from llava.synth.truth import Truth

TYPE_PX = {"type of 12 to 18 px": (12, 18), "type of 20 to 32 px": (20, 32), "type of 40 to 80 px": (40, 80)}
TYPES, TEXT, DOCUMENTS, CHARTS, SCENES = tuple(TYPE_PX), "text", "documents", "charts", "scenes"
_ASKS = ("What is written here?", "What does it say?", "What can you read?")

Draw = Callable[[random.Random], FullSizeItem]


def draw_type_item(rng: random.Random, sizes_px: tuple[int, int]) -> FullSizeItem:
    """One or two words in dark type of a size in that range anywhere on a light ground, and a request to read them."""
    width, height = draw_size(rng)
    font = Typeface(rng).load(rng.randint(*sizes_px))
    text = " ".join(words.draw_word(rng, True, 8) for _ in range(rng.choice((1, 2))))
    if font.getlength(text) > width - 8:
        return draw_type_item(rng, sizes_px)
    image = Image.new("RGB", (width, height), draw_color(rng, 225, 255))
    place = (rng.uniform(4, width - font.getlength(text) - 4), rng.uniform(4, height - 1.4 * font.size - 4))
    ImageDraw.Draw(image).text(place, text, font=font, fill=draw_color(rng, 0, 70))
    return FullSizeItem(compress(rng, image), rng.choice(_ASKS), Truth((text,), "text"))


# What is drawn in turns for each measure.
_DRAWS: Mapping[str, tuple[Draw, ...]] = {
    **{name: (partial(draw_type_item, sizes_px=sizes),) for name, sizes in TYPE_PX.items()},
    DOCUMENTS: (draw_form_item, draw_receipt_item),
    CHARTS: (draw_bar_item, draw_line_item, draw_pie_item),
    SCENES: tuple(partial(draw_shapes_item, kind=kind) for kind in ("color", "shape", "count", "place")),
}
NUM_QUESTIONS = {**dict.fromkeys(TYPES, 12), DOCUMENTS: 24, CHARTS: 24, SCENES: 24}


def draw_questions() -> list[Question]:
    """``NUM_QUESTIONS``, always the same; text in type of any size counts for "text", too.

    Raises UsageError where fonts or matplotlib are missing.
    """
    return [question for measure, count in NUM_QUESTIONS.items() for question in _draw(measure, count)]


def _draw(measure: str, count: int) -> Iterator[Question]:
    draws, measures = _DRAWS[measure], (measure, TEXT) if measure in TYPES else (measure,)
    for index in range(count):
        image, question, truth = draws[index % len(draws)](random.Random(f"next claims:{measure}:{index}"))
        yield Question(image, question, " or ".join(truth.answers), measures, truth)
