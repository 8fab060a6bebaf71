"""What the photo encoder takes an image for, in words: its likeliest kinds, and its likeliest classes of each.

    Looks like: cup 70% (coffee mug 55%, tea cup 13%); bucket 12%.

The encoder knows ImageNet's 1,000 classes. Where it is sure it is usually right, and a small language model repeats a
name more easily than it finds one in soft words; what it is unsure of is not written down.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import torch

# Kinds and classes of a smaller probability are left out.
_LEAST_KIND, _LEAST_NAME = 0.12, 0.06
_MOST_KINDS, _MOST_NAMES = 2, 2


@cache
def class_names() -> tuple[tuple[str, str], ...]:
    """Everyday name and kind ("coffee mug", "cup") of each ImageNet class, in the encoder's order."""
    text = resources.files("llava.model.lexical").joinpath("class_names.txt").read_text("utf-8")
    names = [line.split("\t") for line in text.splitlines()]
    return tuple((name, kind) for name, kind in names)


def sum_by_kind(logits_C: torch.Tensor) -> list[tuple[str, dict[str, float]]]:
    """The kinds, likeliest first, each with the probabilities of its classes by their names."""
    chances: dict[str, dict[str, float]] = {}
    for (name, kind), chance in zip(class_names(), logits_C.float().softmax(0).tolist(), strict=True):
        of_kind = chances.setdefault(kind, {})
        of_kind[name] = of_kind.get(name, 0.0) + chance  # two classes may have one name
    return sorted(chances.items(), key=lambda one: -sum(one[1].values()))


def guess_things(logits_C: torch.Tensor) -> str:
    """The guesses of class logits [1000]; "" where none is likely enough."""
    guesses = []
    for kind, names in sum_by_kind(logits_C)[:_MOST_KINDS]:
        whole = sum(names.values())
        if whole < _LEAST_KIND:
            break
        best = sorted((name for name in names if name != kind), key=lambda name: -names[name])[:_MOST_NAMES]
        shown = [f"{name} {names[name]:.0%}" for name in best if names[name] >= _LEAST_NAME]
        guesses.append(f"{kind} {whole:.0%}" + (f" ({', '.join(shown)})" if shown else ""))
    return f"Looks like: {'; '.join(guesses)}." if guesses else ""
