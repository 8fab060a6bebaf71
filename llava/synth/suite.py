"""The held-out suite: questions about drawn images that the default model was not trained on.

The seeds are fixed and used for nothing else; text comes from the held-out tenth of the words, and one task asks only
about colour-shape pairs that training never shows. Question i of a task is always the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from llava.synth.conversations import OFF_TOPIC_ANSWER, off_topic_questions
from llava.synth.scene import Scene
from llava.synth.scenes import KINDS
from llava.synth.texts import draw_words

SUITE_SEED = "held-out suite 1"
# Width and height ranges in pixels: squarish, wide and tall images, up to the default model's largest canvas.
SIZES = ((110, 224, 110, 224), (112, 224, 112, 224), (200, 330, 95, 112), (95, 112, 200, 330))


@dataclass(frozen=True)
class Task:
    """One row of the suite's table.

    Attributes:
        kind: the kind of scene that is drawn, or "any".
        tag: the task's name in the turns of a scene.
        goal: the share of right answers, 0 to 1, that the default model was meant to reach; 0 is no goal.
        max_answer: questions whose answer is a greater number are not asked.
        size: the type's, a key of ``texts.TYPE_SIZES``.
    """

    name: str
    kind: str
    tag: str
    goal: float
    held_out: bool = True
    max_answer: int | None = None
    size: str | None = None


class Item(NamedTuple):
    """One question of the suite. ``tolerance``: how far off a numeric answer may be and still be right."""

    image: Image.Image
    question: str
    answer: str
    tolerance: float


TASKS = (
    Task("color", "shapes", "color", 0.85, held_out=False),
    Task("shape", "shapes", "shape", 0.85, held_out=False),
    Task("existence", "shapes", "existence", 0.85, held_out=False),
    Task("position", "shapes", "position", 0.85, held_out=False),
    Task("relation", "shapes", "relation", 0.85, held_out=False),
    Task("counting up to 6", "shapes", "counting", 0.80, held_out=False, max_answer=6),
    Task("option letter", "shapes", "option letter", 0.0, held_out=False),
    Task("held-out color-shape pair", "shapes", "held-out pair", 0.70),
    Task("one word, large type", "words", "large type", 0.60, size="large"),
    Task("one word, medium type", "words", "medium type", 0.50, size="medium"),
    Task("one word, small type", "words", "small type", 0.25, size="small"),
    Task("n-th line", "lines", "n-th line", 0.40),
    Task("colored line", "lines", "colored line", 0.40),
    Task("number of lines", "lines", "line count", 0.0),
    Task("text color", "lines", "text color", 0.0),
    Task("form and receipt value", "form", "form value", 0.40),
    Task("sign and button text", "signs", "sign text", 0.0),
    Task("sign color", "signs", "sign color", 0.0),
    Task("chart: count", "chart", "chart count", 0.80),
    Task("chart: largest", "chart", "chart largest", 0.80),
    Task("chart: smallest", "chart", "chart smallest", 0.80),
    Task("chart: compare", "chart", "chart compare", 0.80),
    Task("chart: printed value", "chart", "printed value", 0.50),
    Task("chart: axis value, one tick off counts", "chart", "axis value", 0.40),
    Task("off topic: says it cannot tell", "any", "off topic", 0.0),
)


def _scene(rng: random.Random, task: Task) -> Scene:
    narrow, wide, low, high = rng.choice(SIZES)
    width, height = rng.randint(narrow, wide), rng.randint(low, high)
    if task.kind == "words":
        return draw_words(rng, width, height, task.held_out, task.size)
    kind = rng.choice(list(KINDS)) if task.kind == "any" else task.kind
    return KINDS[kind](rng, width, height, task.held_out)


def draw_item(task: Task, index: int) -> Item:
    """Question number ``index`` of a task; always the same."""
    rng = random.Random(f"{SUITE_SEED}:{task.name}:{index}")
    while True:
        scene = _scene(rng, task)
        if task.tag == "off topic":
            questions = off_topic_questions(held_out=True)
            return Item(scene.drawing.image, questions[index % len(questions)], OFF_TOPIC_ANSWER, 0.0)
        turns = [turn for turn in scene.turns if turn.task.split("|")[0] == task.tag]
        if task.max_answer is not None:
            turns = [turn for turn in turns if int(turn.answer) <= task.max_answer]
        if not turns:
            continue
        turn = rng.choice(turns)
        scene.drawing.spoil(0.5)
        tolerance = float(turn.task.split("|")[1]) if "|" in turn.task else 0.0
        return Item(scene.drawing.image, turn.question, turn.answer, tolerance)


def draw_items(task: Task, count: int) -> Iterator[Item]:
    """The first ``count`` questions of a task, drawn one by one."""
    return (draw_item(task, index) for index in range(count))


def is_right(item: Item, answer: str) -> bool:
    """Whether the answer, stripped of blanks, matches exactly; with a tolerance, whether its number is within it."""
    if item.tolerance:
        try:
            return abs(float(answer.strip()) - float(item.answer)) <= item.tolerance + 1e-9
        except ValueError:
            return False
    return answer.strip() == item.answer
