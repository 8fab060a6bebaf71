"""``assemble``: the checkpoint folder that parts and own tensors become, written once into the cache.

Afterwards it is an ordinary folder in the original's layout, so that loading, conversion, evaluation and training know
nothing of parts. It appears whole or not at all; its name follows from everything that it is made of, so that another
version of a part or of our tensors is another folder. Where the cache cannot be written, the folder is made for this
process alone.

The language model is stored in bfloat16, which it was trained in: a Q4_1 weight is rounded by 0.2 % of itself, where
quantization had moved it by some 5 %, and the file is half as large as in float32.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llava.cache_folder import find_cache
from llava.errors import LlavaError
from llava.model.assembled.pretrained_parts import Parts
from llava.model.gguf.gguf_file import GgufFile
from llava.model.gguf.gguf_folder import read_tensors
from llava.model.gguf.gguf_tokenizer import write_tokenizer
from llava.model.gguf.tensor_names import make_renamer
from llava.model.weights import read_bin
from llava.text import list_all, write_line

_FORMAT = 1  # of the assembled folder; counted up when the code here makes another one of the same parts
_RECORD = "assembled.json"
_WEIGHTS = "model.safetensors"
_ENCODER = "model.vision_tower.things."
# The face finder's networks are three files; the points in faces that the last one gives are not used.
_FACES, _POINTS = "model.vision_tower.faces.", "dense6_3"
_STAGES = {"pnet": "proposals", "rnet": "refinement", "onet": "output"}
# After this time without use, another version's folder is deleted.
_KEPT_S = 30 * 24 * 3600
# A process that waits longer for another one's assembly makes its own.
_PATIENCE_S = 300

Tensors = Iterator[tuple[str, torch.Tensor]]


def _read_language_model(path: Path) -> Tensors:
    rename = make_renamer(is_straight=True)
    for name, tensor in read_tensors(path):
        ours = rename(name)
        if ours is not None:
            yield ours, tensor.to(torch.bfloat16)


def _read_photo_encoder(path: Path) -> Tensors:
    from llava.model.lexical.efficientnet_lite import fold_batch_norms

    for name, tensor in fold_batch_norms(read_bin(path)).items():
        yield _ENCODER + name, tensor


def _read_face_finder(path: Path) -> Tensors:
    for name, tensor in read_bin(path).items():
        if not name.startswith(_POINTS):
            yield f"{_FACES}{_STAGES[path.stem]}.{name}", tensor


READERS: dict[str, Callable[[Path], Tensors]] = {
    "language model": _read_language_model,
    "photo encoder": _read_photo_encoder,
    "face finder": _read_face_finder,
}
"""For each kind of part the function that reads its tensors, by our names."""

_TOKENIZER_OF = "language model"
# The folders that were made for this process alone, by where they would be kept.
_temporary: dict[Path, Path] = {}


def find_assembled(parts: Parts) -> Path | None:
    """The folder, if it was assembled before. Its parts need not be installed any more.

    Raises CheckpointError if own tensors are not the pinned ones.
    """
    place = _place(parts)
    if place in _temporary:
        return _temporary[place]
    return place if _is_whole(place) and _is_up_to_date(place, parts) else None


def assemble(parts: Parts) -> Path:
    """The folder, assembled now if it is not there. Several processes may call this at once.

    Raises:
        MissingParts: a package is not installed, or is another version.
        CheckpointError: own tensors are not the pinned ones.
        LlavaError: there is no room, neither in the cache nor for temporary files.
    """
    found = find_assembled(parts)
    if found is not None:
        return found
    place = _place(parts)
    for part in parts.parts:  # what is missing is said before anything is written
        part.check()
    for one in parts.own:
        one.check()
    try:
        with _alone(place.parent):
            if not _is_whole(place):
                _build(parts, place)
        return place
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    write_line(
        f"llava: {place.parent} cannot be written ({reason}), so the model is put together for this process alone. "
        "LLAVA_CACHE names another folder."
    )
    return _build_for_process(parts, place)


def _place(parts: Parts) -> Path:
    return find_cache() / "assembled" / f"{parts.folder.name}-{parts.key({'format': _FORMAT})}"


def _is_whole(place: Path) -> bool:
    """Whether every file is there in its full size."""
    try:
        sizes = json.loads((place / _RECORD).read_text(encoding="utf-8"))["sizes"]
        return all((place / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _is_up_to_date(place: Path, parts: Parts) -> bool:
    """Always, or an error: own tensors that were changed since without being pinned would be ignored in silence."""
    made = (place / _RECORD).stat().st_mtime
    if any(one.path.exists() and one.path.stat().st_mtime > made for one in parts.own):
        for one in parts.own:
            one.check()
        with contextlib.suppress(OSError):  # so that they are not checked again
            os.utime(place / _RECORD)
    return True


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Makes other processes wait, and removes what broken off ones and old versions left. Raises OSError.

    Where files cannot be locked, nobody waits; the folder appears at once all the same.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=_PATIENCE_S)
    except (Timeout, OSError, NotImplementedError):
        yield
        return
    try:
        _tidy(folder)
        yield
    finally:
        lock.release()


def _tidy(folder: Path) -> None:
    for path in folder.glob(".*.partial"):
        shutil.rmtree(path, ignore_errors=True)
    for record in folder.glob(f"*/{_RECORD}"):
        with contextlib.suppress(OSError):
            if time.time() - max(record.stat().st_mtime, record.stat().st_atime) > _KEPT_S:
                shutil.rmtree(record.parent, ignore_errors=True)


def _build(parts: Parts, place: Path) -> None:
    """Writes the folder beside its place and renames it. Raises OSError or SafetensorError."""
    names = list_all([part.name for part in parts.packages])
    write_line(f"llava: preparing the model once: {names} become a checkpoint in {place} ...")
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(parts, partial)
        if place.exists() and not _is_whole(place):
            shutil.rmtree(place)
        try:
            partial.rename(place)
        except OSError:
            if not _is_whole(place):  # else another process was first
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(parts: Parts, folder: Path) -> None:
    for path in parts.describe_files():
        shutil.copyfile(path, folder / path.name)
    tensors: dict[str, torch.Tensor] = {}
    for part in parts.parts:
        path = part.check()
        if part.becomes == _TOKENIZER_OF:
            write_tokenizer(GgufFile(path), folder)
        tensors.update(READERS[part.becomes](path))
    for one in parts.own:
        tensors.update({one.prefix + name: tensor for name, tensor in load_file(one.path).items()})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _WEIGHTS, {"format": "pt"})
    (folder / _WEIGHTS).chmod(0o666 & ~_umask())  # safetensors makes its files readable by their owner alone
    with (folder / _WEIGHTS).open("rb") as file:
        os.fsync(file.fileno())
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    (folder / _RECORD).write_text(json.dumps({"sizes": sizes}, indent=2) + "\n", encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _build_for_process(parts: Parts, place: Path) -> Path:
    own, maker = Path(tempfile.mkdtemp(prefix="llava-")), os.getpid()

    def remove() -> None:
        if os.getpid() == maker:  # and not in a process that was forked from it
            shutil.rmtree(own, ignore_errors=True)

    atexit.register(remove)
    try:
        _build(parts, own / place.name)
    except (OSError, SafetensorError) as error:
        raise LlavaError(
            f"The model cannot be put together, neither in {place.parent} nor in {own.parent}: "
            f"{getattr(error, 'strerror', None) or error}. It takes about 400 MB; LLAVA_CACHE names another folder."
        ) from error
    _temporary[place] = own / place.name
    return _temporary[place]
