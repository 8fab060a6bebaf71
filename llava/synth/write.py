"""Writes drawn images to disk in LLaVA's own data format: ``llava synth``."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.synth.conversations import as_conversations, ask_as_dataset, choose_turns
from llava.synth.document_kinds import DATASETS, NAMED_KINDS
from llava.synth.scenes import KINDS
from llava.synth.suite import SIZES

Sizes = Sequence[tuple[int, int, int, int]]


def write(
    folder: str | Path,
    count: int = 100,
    *,
    seed: int = 0,
    kinds: Sequence[str] = (),
    turns: int = 4,
    spoil: float = 0.5,
    held_out: bool = False,
    formats: Mapping[str, str] | None = None,
    sizes: Sizes = SIZES,
) -> Path:
    """Draws ``count`` images into ``folder/images`` and writes their conversations; returns the path of ``data.json``.

    The JSON is a list of ``{"id", "image", "conversations"}``, the original's format of training data. Kinds that stand
    in for a dataset also have ``data_source``, the kind's name.

    Args:
        seed: the same seed gives the same images and conversations.
        kinds: the keys of ``NAMED_KINDS`` to draw; empty means those of ``KINDS``.
        turns: questions per image.
        spoil: how much noise, blur and JPEG artefacts there are, 0 to 1.
        held_out: draw only words and colour-shape pairs that are never drawn without it.
        formats: answer-format sentences by dataset; the kinds that stand in for one are asked with its sentence.
        sizes: ranges (least width, most width, least height, most height) in pixels, of which each image takes one.

    Raises:
        UsageError: ``count`` is below 1, a kind is unknown, or the fonts are not installed.
    """
    if count < 1:
        raise UsageError(f"The number of images is {count}; it has to be at least 1.")
    unknown = [kind for kind in kinds if kind not in NAMED_KINDS]
    if unknown:
        raise UsageError(f"There is no kind of image '{unknown[0]}'; there are: {', '.join(NAMED_KINDS)}.")
    folder = Path(folder)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        rng = random.Random(f"{seed}:{index}")
        kind = rng.choice(list(kinds or KINDS))
        narrow, wide, low, high = rng.choice(sizes)
        scene = NAMED_KINDS[kind](rng, rng.randint(narrow, wide), rng.randint(low, high), held_out)
        scene.drawing.spoil(spoil)
        name = f"{seed}-{index:06d}.png"
        scene.drawing.image.save(images / name)
        row: dict[str, Any] = {"id": f"{seed}-{index}", "image": name}
        if kind in DATASETS:
            row["data_source"] = kind
            pairs = ask_as_dataset(rng, scene, turns, (formats or {}).get(DATASETS[kind], ""))
        else:
            pairs = choose_turns(rng, scene, turns)
        rows.append({**row, "conversations": as_conversations(pairs)})
    path = folder / "data.json"
    temporary = folder / "data.json.partial"
    temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path
