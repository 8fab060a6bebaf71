"""What the adapter's training reads, in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


def write_things(folder: Path) -> Path:
    """Fills a folder of features: three views, the last one of a thing that is held out; returns the file of facts."""
    rng, chance = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for name, shape in {"g": (3, 1280), "cells": (3, 9, 1280), "contrast": (3, 10, 3)}.items():
        np.save(folder / f"{name}.npy", rng.random(shape).astype(np.float16))
    (folder / "done").write_text("3")
    thing = {"name": "dog", "kind": "animal", "cell": 4, "box": [0.2, 0.2, 0.8, 0.8], "colours": ["brown"]}
    view = {"layout": "single", "ground": "texture", "held_out": False, "objects": [thing]}
    cup, owl = {**thing, "name": "cup", "kind": "dish"}, {**thing, "name": "owl", "kind": "bird"}
    views = [view, {**view, "objects": [cup]}, {**view, "held_out": True, "objects": [owl]}]
    (folder / "views.json").write_text(json.dumps(views))
    (folder / "classes.json").write_text(json.dumps([{"name": "fox", "kind": "animal"}]))
    prototypes = torch.rand(3, 1280, generator=chance).half()
    save_file({"g": prototypes, "class": torch.zeros(3, dtype=torch.int32)}, folder / "prototypes.safetensors")
    head = torch.randn(1000, 1280, generator=chance) / 40
    save_file({"weight": head, "bias": torch.zeros(1000)}, folder / "head.safetensors")
    looks = {
        f"{kind} contrast": rng.random((2, 10, 2283)).astype(np.float16)
        for kind in ("shapes", "signs", "text", "chart", "nothing")
    }
    np.savez(folder / "looks.npz", **looks)  # type: ignore[arg-type]
    (folder / "facts.json").write_text(json.dumps({"dog": "A dog is a pet."}))
    return folder / "facts.json"
