"""Writes drawn images to disk in LLaVA's own data format: ``llava synth``."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from llava.errors import UsageError
from llava.synth.conversations import as_conversations, choose_turns
from llava.synth.scenes import KINDS
from llava.synth.suite import SIZES


def write(
    folder: str | Path,
    count: int = 100,
    *,
    seed: int = 0,
    kinds: Sequence[str] = (),
    turns: int = 4,
    spoil: float = 0.5,
) -> Path:
    """Draws ``count`` images into ``folder/images`` and writes their conversations; returns the path of ``data.json``.

    The JSON is a list of ``{"id", "image", "conversations"}``, the original's format of training data.

    Args:
        seed: the same seed gives the same images and conversations.
        kinds: the keys of ``KINDS`` to draw; empty means all.
        turns: questions per image.
        spoil: how much noise, blur and JPEG artefacts there are, 0 to 1.

    Raises:
        UsageError: ``count`` is below 1, a kind is unknown, or the fonts are not installed.
    """
    if count < 1:
        raise UsageError(f"The number of images is {count}; it has to be at least 1.")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UsageError(f"There is no kind of image '{unknown[0]}'; there are: {', '.join(KINDS)}.")
    folder = Path(folder)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        rng = random.Random(f"{seed}:{index}")
        kind = rng.choice(list(kinds or KINDS))
        narrow, wide, low, high = rng.choice(SIZES)
        scene = KINDS[kind](rng, rng.randint(narrow, wide), rng.randint(low, high), False)
        scene.drawing.spoil(spoil)
        name = f"{seed}-{index:06d}.png"
        scene.drawing.image.save(images / name)
        rows.append(
            {"id": f"{seed}-{index}", "image": name, "conversations": as_conversations(choose_turns(rng, scene, turns))}
        )
    path = folder / "data.json"
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return path
