"""Weight files: finds those of a checkpoint's folder, reads the tensors in them, and writes new ones.

They are ``.safetensors`` or torch's ``.bin``, as one file or in shards with an index. Only one file is open at a time,
and tensors are mapped, not copied, so memory holds only what the caller keeps. No code in a file is ever run.
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
from llava.model.gguf.gguf_file import is_gguf

# In order of preference, which is Transformers'.
# Source: transformers 5.23 modeling_utils.py _get_resolved_checkpoint_files.
_CANDIDATES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# The same names with a variant in them, such as model.fp16.safetensors.
_VARIANT = re.compile(r"(model|pytorch_model)\.(?P<variant>[A-Za-z]\w*)\.(safetensors|bin)(\.index\.json)?")

# The cause of empty tensors, and the remedy.
_UNGATHERED = (
    "DeepSpeed ZeRO-3 or FSDP had sharded the weights over several GPUs, and they were saved without being gathered. "
    "Save them again with stage3_gather_16bit_weights_on_model_save: true (FSDP: FULL_STATE_DICT), or merge "
    "the training's own checkpoint with the zero_to_fp32.py beside its global_step folder."
)


def find_tensors(folder: Path) -> dict[str, Path]:
    """The file of each tensor in a checkpoint's folder, by tensor name. Only the index or headers are read.

    Raises:
        CheckpointError: there are no weights, a file is missing or damaged, or the index names a file outside of the
            folder.
    """
    candidates = find_candidates(folder)
    if candidates:
        chosen = folder / candidates[0]
        return _read_index(chosen) if chosen.suffix == ".json" else dict.fromkeys(names_in(chosen), chosen)
    for name in _CANDIDATES:
        if os.path.exists(folder / name):
            raise CheckpointError(
                f"{folder / name} is {_say_kind(folder / name)}, where a file of weights is needed: name the folder "
                "that has the files, or replace it by them."
            )
    names = list_names(folder)
    broken = [
        name for name in names if name.startswith(("model", "pytorch_model")) and not os.path.exists(folder / name)
    ]
    if broken:
        raise CheckpointError(
            f"{folder / broken[0]} is a link whose target is missing, as after an interrupted download or a copy "
            "that left out the targets of links. Download it again, or copy it with cp -L."
        )
    variants = [name for name in names if _VARIANT.fullmatch(name)]
    if variants:
        raise CheckpointError(
            f"{folder} has its weights in several variants ({', '.join(variants)}) but no {_CANDIDATES[0]}: "
            "give the one to be read that name, or remove the others."
        )
    shards = sorted(name for name in names if re.search(r"-of-.*\.(safetensors|bin)$", name))
    found = f"It has {', '.join(shards[:3])} ... but no index that lists them." if shards else ""
    raise CheckpointError(f"{folder} has no weights: none of {', '.join(_CANDIDATES)} is there. {found}".rstrip())


def _say_kind(path: Path) -> str:
    return "a folder" if os.path.isdir(path) else "not a regular file"


# Wrappers of a model in training, by the prefix that they add to the names of all tensors.
_WRAPPERS = {
    "module.": "DistributedDataParallel or DeepSpeed",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "base_model.model.": "PEFT",
}


def refuse_wrapped(folder: Path, names: Iterable[str]) -> None:
    """Raises CheckpointError if a model was saved inside its training wrapper, so that all names have a prefix."""
    names = list(names)
    for prefix, wrapper in _WRAPPERS.items():
        if names and all(name.startswith(prefix) for name in names):
            raise CheckpointError(
                f"All tensors in {folder} are named '{prefix}*': the model was saved inside its wrapper of {wrapper}. "
                "Save the unwrapped model: accelerator.unwrap_model(model).save_pretrained(FOLDER), with PEFT after "
                "model.merge_and_unload(). Or remove the prefix from the names."
            )


def find_candidates(folder: Path) -> list[str]:
    """The names of the files and indexes that are each the weights of a whole model. The first one is read.

    A variant such as model.fp16.safetensors counts only if it is the only one and there is no file without a variant.
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
    """A sentence that says which file is read, if the folder has several sets of weights or only a variant; else None.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    found = find_candidates(folder)
    if len(found) > 1:
        others = ", ".join(found[1:])
        return (
            f"{folder} has several sets of weights: {found[0]} is read, as Transformers does, and {others} is not. "
            "Remove the outdated one."
        )
    if found and _VARIANT.fullmatch(found[0]):
        return f"{folder} has its weights only as a variant: {found[0]} is read."
    return None


def list_names(folder: Path) -> list[str]:
    """The names of a folder's entries, sorted; none if there is no such folder. Raises CheckpointError."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}.") from error


def has_weights(folder: Path) -> bool:
    """Whether the folder has the weights of a whole model, in any format that ``find_tensors`` reads."""
    return bool(find_candidates(folder))


def has_safetensors(folder: Path) -> bool:
    """Whether the folder has a whole model as safetensors, or its index."""
    return any(os.path.isfile(folder / name) for name in _CANDIDATES[:2])


def is_weight_file(name: str) -> bool:
    """Whether a file of that name contains a whole model's weights, a shard of them or their index."""
    return bool(re.fullmatch(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?", name))


def _read_index(path: Path) -> dict[str, Path]:
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise CheckpointError(f"{path} has no weight_map that names a file for each tensor. Copy or download it again.")
    for place in sorted(set(places.values())):
        # An index is untrusted: it may name files beside it, and no others.
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
    """Raises CheckpointError if the tensor has no elements: no weight of a model is empty."""
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
    """Each tensor of the files in ``places`` with its name and file, file by file. Tensors are views into the file.

    Tensors that a file has beside those in ``places`` are yielded as well: the caller accounts for all of them.

    Raises:
        CheckpointError: a file is damaged, or lacks a tensor that it has according to ``places``.
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
                f"{path} lacks {len(promised)} tensors that the index says it has, such as {min(promised)}. "
                "Copy or download it again."
            )


def open_tensors(places: Mapping[str, Path]) -> Callable[[str], torch.Tensor]:
    """A function that reads one of these tensors by its name, in any order. Files stay open as long as it exists.

    It raises CheckpointError if a file is damaged or lacks the tensor.
    """
    opened: dict[Path, Any] = {}

    def read(name: str) -> torch.Tensor:
        path = places[name]
        if path not in opened:
            opened[path] = _open_safetensors(path) if is_mapped(path) else read_bin(path)
        file = opened[path]
        if name not in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
            raise CheckpointError(
                f"{path} lacks {name}, which it has according to the index. Copy or download it again."
            )
        return file.get_tensor(name) if is_mapped(path) else file[name]

    return read


def _tensors_in(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    if is_gguf(path):
        from llava.model.gguf.gguf_folder import read_tensors  # which imports this module

        yield from read_tensors(path)
        return
    if not is_mapped(path):
        yield from read_bin(path).items()
        return
    with _open_safetensors(path) as file:
        for name in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
            try:
                tensor = file.get_tensor(name)
            except Exception as error:  # safetensors and torch raise several types for an invalid header
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
    """Whether tensors of this file are views into it that share no memory with each other."""
    return path.suffix == ".safetensors"


def forget_pages(tensor: torch.Tensor) -> None:
    """Drops the pages of a view into a file from this process's memory, after it was read for the last time.

    They stay in the page cache as long as there is room.
    """
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if begin < end:
        call = ctypes.CDLL(None).madvise
        call(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), ctypes.c_int(mmap.MADV_DONTNEED))


def refuse_pointer(path: Path) -> None:
    """Raises CheckpointError for a Git LFS pointer, which git leaves in place of a file if LFS is not installed."""
    start = b"version https://git-lfs.github.com/spec/"
    if os.path.isfile(path):
        with _open(path) as file:
            if file.read(len(start)) == start:
                raise CheckpointError(
                    f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in {path.parent}, or "
                    "download the file from the hub."
                )


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def read_bin(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a torch file, mapped from the file if its format allows it. No code in it is run.

    Raises:
        CheckpointError: the file is damaged, or contains anything but dense tensors by name.
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
            f"contains code besides tensors ({called[1]})" if called else "is damaged, or contains more than tensors"
        )
        raise CheckpointError(f"{path} {fault}; no code was run. Use the same checkpoint as .safetensors.") from error
    except Exception as error:  # torch raises any type for a malformed pickle or archive
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be read as a file of tensors ({reason}). Copy or download it again."
        ) from error
    if isinstance(values, dict):
        for key in ("state_dict", "model", "module", "model_state_dict"):
            if isinstance(values.get(key), dict):
                raise CheckpointError(
                    f"{path} has its tensors nested under {key!r}, as the checkpoint of a training run does. "
                    f"Save that part alone: torch.save(torch.load(FILE, weights_only=True)[{key!r}], FILE)."
                )
    if not isinstance(values, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in values.values()):
        raise CheckpointError(f"{path} contains something other than named tensors, so it is not a file of weights.")
    for name, tensor in values.items():
        _check_plain(name, tensor, path)
    return values


def _refuse_compression(path: Path) -> None:
    """Raises ValueError for a compressed archive, which torch never writes and which may be huge when unpacked."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("it is a compressed archive, which torch never writes")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its entries claim more bytes than the file has")


def _check_plain(name: Any, tensor: torch.Tensor, path: Path) -> None:
    """Raises CheckpointError unless the tensor is dense and all its elements are in the file."""
    if not isinstance(name, str):
        raise CheckpointError(f"{path} contains a tensor whose name is {name!r:.80}, so it is not a file of weights.")
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        kind = "without data" if tensor.is_meta else "quantized" if tensor.is_quantized else str(tensor.layout)
        raise CheckpointError(f"{name} in {path} is not a dense tensor ({kind}); only dense weights can be read.")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{name} in {path} has the shape {list(tensor.shape)}, but the file has fewer elements for it: "
            "it is damaged. Copy or download it again."
        )


def write_tensors(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, max_shard_bytes: int) -> None:
    """Writes ``model.safetensors``, or shards with an index if the tensors take more than ``max_shard_bytes``.

    Tensors keep their dtype and bits. The caller passes tensors that share memory (tied ones) once. A shard is written
    as soon as it is full, so memory holds one shard and the next tensor at most.

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
    for number, (path, names) in enumerate(parts, start=1):  # only now is their number known
        file = "model.safetensors" if len(parts) == 1 else f"model-{number:05}-of-{len(parts):05}.safetensors"
        path.rename(folder / file)
        places.update(dict.fromkeys(names, file))
    if len(parts) > 1:
        index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(places.items()))}
        (folder / _CANDIDATES[1]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_shard(shard: Mapping[str, torch.Tensor], path: Path) -> Path:
    """``path``, after the tensors were written there. Tensors on a device are copied only now."""
    try:
        # Transformers insists on the "format" entry.
        save_file({name: tensor.cpu().contiguous() for name, tensor in shard.items()}, path, {"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise LlavaError(f"The weights cannot be written to {path.parent} ({error}): is the disk full?") from error
    return path
