"""Checkpoints whose random weights answer differently to each image, and images to ask them about."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest


def enliven(tensors: dict[str, Any]) -> None:
    """Weights of a size at which what an image shows reaches the answer; no bytes and special tokens are said."""
    import torch

    generator = torch.Generator().manual_seed(5)
    for name, tensor in tensors.items():
        if "norm" in name:
            tensor.fill_(float(name.endswith("weight")))
        elif tensor.ndim > 1:
            gain = 3.0 if "q_proj" in name or "k_proj" in name else 1.0
            fan_in = tensor[0].numel()
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * gain / fan_in**0.5)
    if "model.embed_tokens.weight" in tensors:
        tensors["model.embed_tokens.weight"].mul_(tensors["model.embed_tokens.weight"].shape[1] ** 0.5)
    if "lm_head.weight" in tensors:
        tensors["lm_head.weight"][:259] = 0


@pytest.fixture(scope="session")
def next_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA-1.6 checkpoint in one .safetensors; not to be changed."""
    from safetensors.torch import load_file, save_file

    from tests.tiny_checkpoints import write_llava_1_6

    folder = tmp_path_factory.mktemp("models") / "llava-v1.6-tiny"
    write_llava_1_6(folder)
    tensors = load_file(folder / "model.safetensors")
    enliven(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def square_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA-1.5 checkpoint in shards of .bin, its tower in a folder of its own; not to be changed."""
    import torch

    from tests.tiny_checkpoints import write_llava_1_5

    folder = tmp_path_factory.mktemp("models") / "llava-v1.5-tiny"
    write_llava_1_5(folder, folder.with_name("clip-tiny"))
    for path in [*folder.glob("*.bin"), *folder.with_name("clip-tiny").glob("*.bin")]:
        tensors = torch.load(path, weights_only=True)
        enliven(tensors)
        torch.save(tensors, path)
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three images of unlike shapes and contents, which LLaVA-1.6 cuts into different numbers of tiles."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    paths = []
    for name, size, turn in (("wide", (90, 30), 0), ("tall", (25, 28), 90), ("square", (64, 60), 180)):
        red, green = Image.linear_gradient("L").rotate(turn), Image.radial_gradient("L").rotate(turn)
        channels = [red, green, red.transpose(Image.Transpose.TRANSPOSE)][:: 1 if turn else -1]
        Image.merge("RGB", channels).resize(size).save(folder / f"{name}.png")
        paths.append(folder / f"{name}.png")
    return paths


def copy_as(folder: Path, name: str) -> Path:
    """The checkpoint in a folder of another name, for outsiders who read the name."""
    return Path(shutil.copytree(folder, folder.with_name(name), dirs_exist_ok=True))
