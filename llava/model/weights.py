"""Tensors in files: which files a checkpoint folder has, what they hold, and how new ones are written.

Knows ``.safetensors`` and torch's ``.bin``, in one piece or in shards with an index. One file is open at a time and
tensors are mapped, not copied, so reading takes the memory of what the caller keeps. Nothing in a file is ever run.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import pickle
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from llava.config import read_json
from llava.errors import CheckpointError, LlavaError

# In the order in which they are looked for; Transformers prefers safetensors too.
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def find_tensors(folder: Path) -> dict[str, Path]:
    """The file of each tensor in a checkpoint folder, by tensor name; only indexes and headers are read.

    Raises:
        CheckpointError: there are no weights, a file is missing or damaged, or the index names a file outside.
    """
    for single, index in zip(_SINGLE_FILES, _INDEX_FILES, strict=True):
        if (folder / index).is_file():
            return _read_index(folder / index)
        if (folder / single).is_file():
            return dict.fromkeys(names_in(folder / single), folder / single)
    shards = sorted(path.name for pattern in ("*-of-*.safetensors", "*-of-*.bin") for path in folder.glob(pattern))
    found = f"It has {', '.join(shards[:3])} ... but no index that lists them." if shards else ""
    raise CheckpointError(
        f"{folder} has no weights: none of {', '.join([*_SINGLE_FILES, *_INDEX_FILES])} is there. {found}".rstrip()
    )


def has_weights(folder: Path) -> bool:
    """Whether the folder has the weights of a whole model, in any form that ``find_tensors`` knows."""
    return any((folder / name).is_file() for name in (*_SINGLE_FILES, *_INDEX_FILES))


def has_safetensors(folder: Path) -> bool:
    """Whether the folder has the weights of a whole model as safetensors, or the index of them."""
    return (folder / _SINGLE_FILES[0]).is_file() or (folder / _INDEX_FILES[0]).is_file()


def is_weight_file(name: str) -> bool:
    """Whether a file of that name holds a whole model's weights, a shard of them or their index."""
    return bool(re.fullmatch(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?", name))


def _read_index(path: Path) -> dict[str, Path]:
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise CheckpointError(f"{path} has no weight_map that names a file for each tensor. Copy or download it again.")
    for place in sorted(set(places.values())):
        # An index is data from strangers: it may name files beside it, and no others.
        parts = {*PurePosixPath(place).parts, *PureWindowsPath(place).parts}
        if ".." in parts or PurePosixPath(place).is_absolute() or PureWindowsPath(place).anchor or not parts:
            raise CheckpointError(f"{path} names '{place}', which is outside the checkpoint's folder; it was not read.")
        if not (path.parent / place).is_file():
            raise CheckpointError(
                f"{path.parent / place} is missing: {path.name} says that it holds "
                f"{sum(other == place for other in places.values())} tensors. Copy or download it again."
            )
    return {name: path.parent / place for name, place in places.items()}


def names_in(path: Path) -> list[str]:
    """The names of the tensors in one file. Raises CheckpointError."""
    if path.suffix == ".safetensors":
        with _open_safetensors(path) as file:
            return list(file.keys())
    return list(read_bin(path))


def stream_tensors(places: Mapping[str, Path]) -> Iterator[tuple[str, torch.Tensor, Path]]:
    """Each tensor of the named files with its name and file, file by file; the tensors are views into the file.

    Also yields what a file holds beside the names asked for: the caller accounts for everything.

    Raises:
        CheckpointError: a file is damaged, or lacks a tensor that ``places`` says it has.
    """
    names_by_file: dict[Path, set[str]] = defaultdict(set)
    for name, path in places.items():
        names_by_file[path].add(name)
    for path, promised in sorted(names_by_file.items()):
        for name, tensor in _tensors_in(path):
            promised.discard(name)
            yield name, tensor, path
        if promised:
            raise CheckpointError(
                f"{path} lacks {len(promised)} tensors that the index says it has, {min(promised)} among them. "
                "Copy or download it again."
            )


def open_tensors(places: Mapping[str, Path]) -> Callable[[str], torch.Tensor]:
    """A function that reads one of these tensors by its name, in any order; files stay open as long as it is kept.

    It raises CheckpointError for a file that is damaged or lacks the tensor.
    """
    opened: dict[Path, Any] = {}

    def read(name: str) -> torch.Tensor:
        path = places[name]
        if path not in opened:
            opened[path] = _open_safetensors(path) if is_mapped(path) else read_bin(path)
        file = opened[path]
        if name not in file.keys():  # noqa: SIM118 (safetensors' is no mapping)
            raise CheckpointError(f"{path} lacks {name}, which the index says it has. Copy or download it again.")
        return file.get_tensor(name) if is_mapped(path) else file[name]

    return read


def _tensors_in(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    if not is_mapped(path):
        yield from read_bin(path).items()
        return
    with _open_safetensors(path) as file:
        for name in file.keys():  # noqa: SIM118 (it is no mapping)
            yield name, file.get_tensor(name)


def _open_safetensors(path: Path) -> safe_open:
    refuse_pointer(path)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise CheckpointError(
            f"{path} is cut short or damaged ({size} bytes: {error}). Copy or download it again."
        ) from error


def is_mapped(path: Path) -> bool:
    """Whether ``stream_tensors`` gives views into this file, rather than memory that several may share."""
    return path.suffix == ".safetensors"


def forget_pages(tensor: torch.Tensor) -> None:
    """Lets a view into a file that was read for the last time count no more to this process's memory.

    It stays in the system's cache as long as there is room, instead of beside what was made of it.
    """
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if begin < end:
        call = ctypes.CDLL(None).madvise
        call(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), ctypes.c_int(mmap.MADV_DONTNEED))


def refuse_pointer(path: Path) -> None:
    """CheckpointError if the file only says where its content is, as git leaves it where Git LFS is not installed."""
    start = b"version https://git-lfs.github.com/spec/"
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(start)) == start:
                raise CheckpointError(
                    f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in {path.parent}, or "
                    "download the file from the hub."
                )


def read_bin(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that torch wrote, mapped from the file where its format allows. Runs nothing in it.

    Raises:
        CheckpointError: the file is damaged, or is a pickle with anything but plain tensors in it.
    """
    refuse_pointer(path)
    is_zip = zipfile.is_zipfile(path)
    try:
        with path.open("rb") as file:
            if not is_zip and file.read(2) == b"PK":
                raise EOFError("it is cut short: the end of the archive is missing")
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        fault = (
            f"holds code besides tensors ({called[1]})" if called else "is damaged, or holds more than plain tensors"
        )
        raise CheckpointError(
            f"{path} {fault}; nothing in it was run. Use the same checkpoint as .safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be read as a file of tensors ({reason}). Copy or download it again."
        ) from error
    if not isinstance(values, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in values.values()):
        raise CheckpointError(f"{path} holds something other than named tensors, so it is no file of weights.")
    return values


def write_tensors(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, max_shard_bytes: int) -> None:
    """Write ``model.safetensors``, or shards with an index if it takes more than ``max_shard_bytes``.

    The tensors keep their dtype bit by bit. Of those that share memory (tied ones) the caller gives one. A shard is
    written as soon as it is full, so no more is held than one shard and the tensor after it.

    Raises:
        LlavaError: the files cannot be written.
    """
    parts: list[tuple[Path, list[str]]] = []
    shard: dict[str, torch.Tensor] = {}
    shard_bytes = total_bytes = 0
    for name, tensor in tensors:
        if shard and shard_bytes + tensor.nbytes > max_shard_bytes:
            parts.append((_write_shard(shard, folder / f"{len(parts)}.partial"), list(shard)))
            shard, shard_bytes = {}, 0
        shard[name] = tensor.detach()
        shard_bytes += tensor.nbytes
        total_bytes += tensor.nbytes
    parts.append((_write_shard(shard, folder / f"{len(parts)}.partial"), list(shard)))
    places: dict[str, str] = {}
    for number, (path, names) in enumerate(parts, start=1):  # only now is it known how many there are
        file = "model.safetensors" if len(parts) == 1 else f"model-{number:05}-of-{len(parts):05}.safetensors"
        path.rename(folder / file)
        places.update(dict.fromkeys(names, file))
    if len(parts) > 1:
        index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(places.items()))}
        (folder / _INDEX_FILES[0]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_shard(shard: Mapping[str, torch.Tensor], path: Path) -> Path:
    """``path``, after writing the tensors there; from a device they are copied only now."""
    try:
        # Transformers insists on the "format" entry.
        save_file({name: tensor.cpu().contiguous() for name, tensor in shard.items()}, path, {"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise LlavaError(f"The weights cannot be written to {path.parent} ({error}): is the disk full?") from error
    return path
