"""Weight deltas: the difference between a fine-tune and its base as a checkpoint, and the fine-tune from the two.

The first LLaVAs were published as deltas because Llama's licence did not allow publishing its weights. A delta is a
checkpoint whose weights are differences. Tensors are processed one at a time, in the dtype of the fine-tune's or the
delta's files; the base's are rounded to it first. Tensors that LLaVA adds to a language model, and the rows and columns
by which the embeddings and the head have grown, are copied unchanged.

Source: haotian-liu/LLaVA@c121f04 llava/model/apply_delta.py, make_delta.py, consolidate.py (all of it in float16).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from llava.config import read_json
from llava.errors import CheckpointError
from llava.model import layouts
from llava.model.companions import write_json
from llava.model.output_folder import new_folder, refuse_target
from llava.model.sources import find_checkpoint
from llava.model.weights import find_tensors, is_weight_file, open_tensors, stream_tensors, write_tensors

SHARD_BYTES = 5 * 2**30
_MAY_GROW = (layouts.EMBEDDINGS, layouts.HEAD)
_ADDED_BY_LLAVA = (layouts.PROJECTOR, layouts.NEWLINE, "model.vision_tower.", "model.vision_resampler.")
_COMPANIONS = ("*.json", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True)
class Combined:
    """The checkpoint that was written. ``num_lossy``: how many values ``add_delta`` cannot restore bit by bit."""

    folder: Path
    num_tensors: int
    num_lossy: int = 0


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line of the original's commands: the folders of the base, the fine-tune and the delta."""
    parser = argparse.ArgumentParser(prog=prog)
    for name in ("base-model", "target-model", "delta"):
        parser.add_argument(f"--{name}-path", required=True)
    return parser


def add_delta(base: str | Path, delta: str | Path, folder: str | Path) -> Combined:
    """Writes the fine-tune that ``delta`` was made from into ``folder``.

    Raises:
        CheckpointError: one of them cannot be read, they do not fit, or a sum is too large for its dtype.
        UsageError: ``folder`` is one of them.
    """
    return _combine(base, delta, folder, torch.add, check_back=False)


def take_delta(base: str | Path, target: str | Path, folder: str | Path) -> Combined:
    """Writes the difference between ``target`` and ``base`` into ``folder``. Raises as ``add_delta`` does."""
    return _combine(base, target, folder, torch.sub, check_back=True)


def consolidate(source: str | Path, folder: str | Path) -> Combined:
    """Rewrites a checkpoint's weights in float16 as safetensors, without buffers that are computed.

    Raises as ``add_delta`` does.
    """
    found = find_checkpoint(source)
    refuse_target(folder, [found])
    places = _find_weights(found)

    def cast() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in _stream(places, "Writing"):
            changed = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
            _check_finite(name, changed, tensor)
            yield name, changed

    return Combined(_write(cast(), found, [found], folder), len(places))


def _combine(
    base: str | Path,
    other: str | Path,
    folder: str | Path,
    operation: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    check_back: bool,
) -> Combined:
    base_folder, other_folder = find_checkpoint(base), find_checkpoint(other)
    refuse_target(folder, [base_folder, other_folder])
    base_places, places = _find_weights(base_folder), _find_weights(other_folder)
    names = {name: name for name in base_places}
    if layouts.HEAD in places and read_json(base_folder / "config.json").get("tie_word_embeddings"):
        names.setdefault(layouts.HEAD, layouts.EMBEDDINGS)
    _check_names(base_folder, names, other_folder, places)
    read_base = open_tensors(base_places)
    num_lossy = 0

    def combine() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal num_lossy
        for name, tensor in _stream(places, "Combining"):
            if name not in names:
                yield name, tensor
                continue
            own = read_base(names[name]).to(tensor.dtype)
            where = _find_part(name, tensor, own)
            result = tensor.clone()
            result[where] = operation(tensor[where], own)
            _check_finite(name, result, tensor)
            if check_back:
                num_lossy += int((result[where] + own != tensor[where]).sum())
            yield name, result

    written = _write(combine(), other_folder, [base_folder, other_folder], folder)
    return Combined(written, len(places), num_lossy)


def _find_weights(folder: Path) -> dict[str, Path]:
    """The file of each tensor, by its name there, without buffers that are computed."""
    return {name: path for name, path in find_tensors(folder).items() if layouts.name_from_original(name) is not None}


def _check_names(base: Path, base_names: Iterable[str], other: Path, names: Iterable[str]) -> None:
    base_set, set_ = set(base_names), set(names)
    alone = sorted(name for name in set_ - base_set if not name.startswith(_ADDED_BY_LLAVA))
    absent = sorted(base_set - set_)
    for left, without, here in ((alone, base, other), (absent, other, base)):
        if left:
            raise CheckpointError(
                f"{here} has {len(left)} tensors that {without} lacks, such as {left[0]}: one is not a "
                "fine-tune of the other."
            )


def _find_part(name: str, tensor: torch.Tensor, own: torch.Tensor) -> tuple[slice, ...]:
    """The part of a tensor that the base has too. Raises CheckpointError if their shapes do not fit."""
    fits = tensor.shape == own.shape or (
        name in _MAY_GROW and tensor.dim() == own.dim() and all(map(int.__ge__, tensor.shape, own.shape))
    )
    if not fits:
        raise CheckpointError(
            f"{name} is {list(tensor.shape)}, but {list(own.shape)} in the base: only the embeddings and the head may "
            "have grown. Use the base that it was trained from."
        )
    return tuple(slice(0, size) for size in own.shape)


def _check_finite(name: str, result: torch.Tensor, tensor: torch.Tensor) -> None:
    if result.is_floating_point() and not bool(result.isfinite().all()) and bool(tensor.isfinite().all()):
        raise CheckpointError(f"{name} does not fit {str(result.dtype).removeprefix('torch.')}: a value is too large.")


def _stream(places: dict[str, Path], what: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor with its name; shows progress on a terminal."""
    console = Console(stderr=True)
    tensors = ((name, tensor) for name, tensor, path in stream_tensors(places) if places.get(name) == path)
    return iter(
        track(tensors, what, total=len(places), console=console, transient=True, disable=not console.is_terminal)
    )


def _write(tensors: Iterable[tuple[str, torch.Tensor]], like: Path, sources: list[Path], folder: str | Path) -> Path:
    """``folder``, after writing these tensors and copies of the files beside the weights in ``like``."""
    dtypes: dict[str, torch.dtype] = {}
    seen: set[tuple[int, int]] = set()

    def apart() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in tensors:
            place = (tensor.data_ptr(), tensor.nbytes)
            dtypes[name] = tensor.dtype
            yield name, tensor.clone() if place in seen else tensor
            seen.add(place)

    with new_folder(folder, sources) as partial:
        write_tensors(apart(), partial, SHARD_BYTES)
        companions = {path for pattern in _COMPANIONS for path in like.glob(pattern) if not is_weight_file(path.name)}
        for path in companions:
            shutil.copyfile(path, partial / path.name)
        config: dict[str, Any] = read_json(like / "config.json")
        if layouts.EMBEDDINGS in dtypes:
            config = {key: value for key, value in config.items() if key != "dtype"}
            config["torch_dtype"] = str(dtypes[layouts.EMBEDDINGS]).removeprefix("torch.")
        write_json(config, partial / "config.json")
    return Path(folder)
