"""The truths of the held-out suite's questions, so that answers in sentences can be judged as well as exact ones."""

from __future__ import annotations

from collections.abc import Iterable

from llava.synth.drawing import COLORS, SHAPES
from llava.synth.suite import Item, Task
from llava.synth.truth import Truth

_NUMBERS = ("counting", "line count", "chart count", "printed value", "axis value")
_PLACES = (
    "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right"
)  # fmt: skip
_CHOICES: dict[str, tuple[str, ...]] = {
    "color": tuple(COLORS),
    "text color": tuple(COLORS),
    "sign color": tuple(COLORS),
    "shape": SHAPES,
    "position": _PLACES,
    "option letter": tuple("ABCD"),
}


def find_truth(task: Task, item: Item) -> Truth:
    """The truth of a question of that task. What is read keeps its capitals, as the exact match has them."""
    answer = item.answer
    if task.tag == "off topic":
        return Truth(form="cannot tell")
    if answer in ("yes", "no"):
        return Truth((answer,), "yes/no")
    if task.tag in _NUMBERS:
        return Truth((answer,), "number", tolerance=item.tolerance)
    if task.tag == "held-out pair":
        return Truth((answer,), others=_without(COLORS if answer in COLORS else SHAPES, answer))
    if task.tag in _CHOICES:
        return Truth((answer,), others=_without(_CHOICES[task.tag], answer))
    return Truth((answer,), "text", keeps_case=True)


def _without(names: Iterable[str], name: str) -> tuple[str, ...]:
    return tuple(other for other in names if other != name)
