"""Tensors in files: which files a checkpoint folder has, what they hold, and how new ones are written.

Knows ``.safetensors`` and torch's ``.bin``, in one piece or in shards with an index. One file is open at a time and
tensors are mapped, not copied, so reading takes the memory of what the caller keeps. Nothing in a file is ever run.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import pickle
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from llava.config import read_json
from llava.errors import CheckpointError, LlavaError

# In the order in which they are looked for, which is that of Transformers.
# Source: transformers 5.23 modeling_utils.py _get_resolved_checkpoint_files.
_CANDIDATES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# The same names with a variant in them, such as model.fp16.safetensors.
_VARIANT = re.compile(r"(model|pytorch_model)\.(?P<variant>[A-Za-z]\w*)\.(safetensors|bin)(\.index\.json)?")

# What leaves empty tensors behind, and what to do about it.
_UNGATHERED = (
    "DeepSpeed ZeRO-3 or FSDP had spread the weights over several GPUs, and they were saved without being gathered. "
    "Save them again with stage3_gather_16bit_weights_on_model_save: true (FSDP: FULL_STATE_DICT), or put them "
    "together from the training's own checkpoint: the zero_to_fp32.py beside its global_step folder does that."
)


def find_tensors(folder: Path) -> dict[str, Path]:
    """The file of each tensor in a checkpoint folder, by tensor name; only indexes and headers are read.

    Raises:
        CheckpointError: there are no weights, a file is missing or damaged, or the index names a file outside.
    """
    candidates = find_candidates(folder)
    if candidates:
        chosen = folder / candidates[0]
        return _read_index(chosen) if chosen.suffix == ".json" else dict.fromkeys(names_in(chosen), chosen)
    for name in _CANDIDATES:
        if os.path.exists(folder / name):
            raise CheckpointError(
                f"{folder / name} is {_say_kind(folder / name)}, where a file of weights is needed: name the folder "
                "that has the files, or put them in its place."
            )
    names = list_names(folder)
    broken = [
        name for name in names if name.startswith(("model", "pytorch_model")) and not os.path.exists(folder / name)
    ]
    if broken:
        raise CheckpointError(
            f"{folder / broken[0]} is a link whose target is missing, as after an interrupted download or a copy "
            "without what links lead to. Download it again, or copy it with cp -L."
        )
    variants = [name for name in names if _VARIANT.fullmatch(name)]
    if variants:
        raise CheckpointError(
            f"{folder} has its weights in several variants ({', '.join(variants)}) and not as {_CANDIDATES[0]}: "
            "rename the one to read to that, or remove the others."
        )
    shards = sorted(name for name in names if re.search(r"-of-.*\.(safetensors|bin)$", name))
    found = f"It has {', '.join(shards[:3])} ... but no index that lists them." if shards else ""
    raise CheckpointError(f"{folder} has no weights: none of {', '.join(_CANDIDATES)} is there. {found}".rstrip())


def _say_kind(path: Path) -> str:
    return "a folder" if os.path.isdir(path) else "no regular file"


# What wraps a model in a training, by what it puts before the names of all tensors.
_WRAPPERS = {
    "module.": "DistributedDataParallel or DeepSpeed",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "base_model.model.": "PEFT",
}


def refuse_wrapped(folder: Path, names: Iterable[str]) -> None:
    """CheckpointError if a model was saved with what wrapped it in its training, so that no name is known."""
    names = list(names)
    for prefix, wrapper in _WRAPPERS.items():
        if names and all(name.startswith(prefix) for name in names):
            raise CheckpointError(
                f"All tensors in {folder} are named '{prefix}*': the model was saved inside its wrapper of {wrapper}. "
                "Save it again without: accelerator.unwrap_model(model).save_pretrained(FOLDER), of PEFT after "
                "model.merge_and_unload(). Or take the prefix off the names."
            )


def find_candidates(folder: Path) -> list[str]:
    """The names of the files and indexes that each could be the weights of a whole model; the first is what is read.

    A variant such as model.fp16.safetensors counts only where nothing without one is there, and no other variant.
    """
    found = [name for name in _CANDIDATES if os.path.isfile(folder / name)]
    if found:
        return found
    variants = {match["variant"]: match for name in list_names(folder) if (match := _VARIANT.fullmatch(name))}
    if len(variants) != 1:
        return []
    named = (name.replace(".", f".{next(iter(variants))}.", 1) for name in _CANDIDATES)
    return [name for name in named if os.path.isfile(folder / name)]


def explain_choice(folder: Path) -> str | None:
    """A sentence about which file is read, where the folder has several that each could be the weights, or a variant.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    found = find_candidates(folder)
    if len(found) > 1:
        others = ", ".join(found[1:])
        return (
            f"{folder} has several sets of weights: {found[0]} is read, as Transformers does, and {others} is not. "
            "Remove what is out of date."
        )
    if found and _VARIANT.fullmatch(found[0]):
        return f"{folder} has its weights only as a variant: {found[0]} is read."
    return None


def list_names(folder: Path) -> list[str]:
    """The names of what lies in a folder, sorted; none where there is no folder. Raises CheckpointError."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}.") from error


def has_weights(folder: Path) -> bool:
    """Whether the folder has the weights of a whole model, in any form that ``find_tensors`` knows."""
    return bool(find_candidates(folder))


def has_safetensors(folder: Path) -> bool:
    """Whether the folder has the weights of a whole model as safetensors, or the index of them."""
    return any(os.path.isfile(folder / name) for name in _CANDIDATES[:2])


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
        if not os.path.isfile(path.parent / place):
            what = f"is {_say_kind(path.parent / place)}" if os.path.exists(path.parent / place) else "is missing"
            raise CheckpointError(
                f"{path.parent / place} {what}: {path.name} says that it holds "
                f"{sum(other == place for other in places.values())} tensors. Copy or download it again."
            )
    return {name: path.parent / place for name, place in places.items()}


def check_not_empty(name: str, tensor: torch.Tensor, path: Path) -> None:
    """CheckpointError if the tensor has no elements, as no weight of a model has."""
    if tensor.numel() == 0:
        raise CheckpointError(f"{name} in {path} is empty (its shape is {list(tensor.shape)}). {_UNGATHERED}")


def names_in(path: Path) -> list[str]:
    """The names of the tensors in one file. Raises CheckpointError."""
    if path.suffix == ".safetensors":
        with _open_safetensors(path) as file:
            return list(file.keys())
    return list(read_bin(path))


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in one file, by its name there. Raises CheckpointError."""
    if not is_mapped(path):
        return {name: tuple(tensor.shape) for name, tensor in read_bin(path).items()}
    with _open_safetensors(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


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
            try:
                tensor = file.get_tensor(name)
            except Exception as error:  # what safetensors and torch raise for a header that makes no sense
                raise CheckpointError(
                    f"{name} in {path} cannot be read ({error}). Copy or download it again."
                ) from error
            yield name, tensor


def _open_safetensors(path: Path) -> safe_open:
    refuse_pointer(path)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        size = path.stat().st_size if os.path.isfile(path) else 0
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
    if os.path.isfile(path):
        with _open(path) as file:
            if file.read(len(start)) == start:
                raise CheckpointError(
                    f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in {path.parent}, or "
                    "download the file from the hub."
                )


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def read_bin(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that torch wrote, mapped from the file where its format allows. Runs nothing in it.

    Raises:
        CheckpointError: the file is damaged, or is a pickle with anything but plain tensors in it.
    """
    refuse_pointer(path)
    with _open(path) as file:
        is_zip = zipfile.is_zipfile(file)
    try:
        if is_zip:
            _refuse_compression(path)
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
    except Exception as error:  # the pickle may say anything, and each step of torch's reader raises something else
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be read as a file of tensors ({reason}). Copy or download it again."
        ) from error
    if isinstance(values, dict):
        for key in ("state_dict", "model", "module", "model_state_dict"):
            if isinstance(values.get(key), dict):
                raise CheckpointError(
                    f"{path} holds its tensors one level down, under {key!r}, as a training's own checkpoint does. "
                    f"Save that part alone: torch.save(torch.load(FILE, weights_only=True)[{key!r}], FILE)."
                )
    if not isinstance(values, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in values.values()):
        raise CheckpointError(f"{path} holds something other than named tensors, so it is no file of weights.")
    for name, tensor in values.items():
        _check_plain(name, tensor, path)
    return values


def _refuse_compression(path: Path) -> None:
    """ValueError for an archive that is larger unpacked than it is: torch writes none, and reading it takes memory."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("it is a compressed archive, which torch never writes")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("it claims to hold more than it is large")


def _check_plain(name: Any, tensor: torch.Tensor, path: Path) -> None:
    """CheckpointError unless the tensor is a dense one whose every element lies in the file."""
    if not isinstance(name, str):
        raise CheckpointError(f"{path} holds a tensor whose name is {name!r:.80}, so it is no file of weights.")
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        kind = "without data" if tensor.is_meta else "quantised" if tensor.is_quantized else str(tensor.layout)
        raise CheckpointError(f"{name} in {path} is not a plain tensor ({kind}); only dense weights can be read.")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{name} in {path} has the shape {list(tensor.shape)}, but the file holds fewer numbers for it: "
            "a damaged file. Copy or download it again."
        )


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
        (folder / _CANDIDATES[1]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_shard(shard: Mapping[str, torch.Tensor], path: Path) -> Path:
    """``path``, after writing the tensors there; from a device they are copied only now."""
    try:
        # Transformers insists on the "format" entry.
        save_file({name: tensor.cpu().contiguous() for name, tensor in shard.items()}, path, {"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise LlavaError(f"The weights cannot be written to {path.parent} ({error}): is the disk full?") from error
    return path
