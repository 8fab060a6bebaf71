"""Features of a frozen vision tower, kept on disk: every tile is encoded once, however many epochs and runs follow.

A tile's file is named by the digest of its pixels, in a folder named by the digest of everything else that decides its
features: the tower's weights, the layer that is read, and the dtypes. So nothing is ever stale, and runs share a cache.
A file is written under another name and renamed, so several processes may share one too, and may be killed at any
moment. A damaged file is encoded again. Entries are never replaced: in training every tile is as likely as any other.

A CLIP ViT-L/14-336 has 1.2 MB of features per tile in 16 bits: 650 GB for the 558,128 images of LLaVA-1.5's first
stage. Beyond ``limit_bytes`` nothing more is written, and tiles that are not in the cache are encoded as without it.

Shape letters: T tiles, S side of a tile in px, N features of one tile, D width of the tower.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from llava.errors import Notice
from llava.model.replacements import needs_no_graph
from llava.model.vision import VisionTower

_UNFINISHED = "unfinished"
_COUNT = "bytes.txt"
# A file is written in milliseconds; one that is this old was left by a process that was killed.
_LEFT_S = 3600.0
# Beside the features, a file has a header of so many bytes.
_HEADER_BYTES = 256
_THREADS = 4


class TowerCache:
    """The features of tiles from a frozen tower, from disk where they are there. ``model.tower_cache`` takes one.

    Args:
        folder: is created; several processes may use it.
        limit_bytes: of the whole folder.
    """

    def __init__(self, folder: str | Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self.num_found = self.num_encoded = 0
        self._is_full = self._is_bypassed = False
        self._state_of_weights: Any = None
        self._digest_of_weights = ""
        (self.folder / _UNFINISHED).mkdir(parents=True, exist_ok=True)
        for path in (self.folder / _UNFINISHED).iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFT_S:
                    path.unlink()

    def encode(self, tower: Any, pixels_TCHW: torch.Tensor) -> torch.Tensor:
        """Features [T, N, D] of these tiles, equal to ``tower(pixels_TCHW)``.

        A tower of another class, with hooks, or with dropout in training is called for all tiles.
        """
        if pixels_TCHW.requires_grad or not can_cache(tower):
            if not self._is_bypassed:
                self._is_bypassed = True
                warnings.warn(
                    f"The cache of vision features {self.folder} is not used: the tower is trained, has dropout or "
                    "hooks, as under FSDP and ZeRO-3, or is of another class.",
                    Notice,
                    stacklevel=2,
                )
            return tower(pixels_TCHW)
        folder = self.folder / self._name_folder(tower, pixels_TCHW)
        tiles = pixels_TCHW.detach().to("cpu").contiguous()
        with ThreadPoolExecutor(_THREADS) as threads:
            paths = list(threads.map(lambda tile_CHW: folder / _name_file(tile_CHW), tiles))
            features = list(threads.map(_read, paths))
        missing = [i for i, feature_ND in enumerate(features) if feature_ND is None]
        self.num_found += len(features) - len(missing)
        self.num_encoded += len(missing)
        if missing:
            encoded_TND = tower(pixels_TCHW[missing])
            for i, feature_ND in zip(missing, encoded_TND.to("cpu"), strict=True):
                self._write(paths[i], feature_ND)
            if len(missing) == len(features):
                return encoded_TND
            for i, feature_ND in zip(missing, encoded_TND, strict=True):
                features[i] = feature_ND
        return torch.stack([each.to(pixels_TCHW.device) for each in features if each is not None])

    def _name_folder(self, tower: VisionTower, pixels_TCHW: torch.Tensor) -> str:
        device = pixels_TCHW.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        read = (tower.num_blocks_run, tower.select_feature, tower.dtype, pixels_TCHW.dtype, autocast, device)
        return _digest(self._digest_weights(tower), type(tower).__name__, tower.config.to_json_string(), read)[:32]

    def _digest_weights(self, tower: VisionTower) -> str:
        used = tower.names_of_used_weights()
        weights = {name: weight for name, weight in tower.state_dict(keep_vars=True).items() if name in used}
        state = [(weight.data_ptr(), weight._version, weight.dtype) for weight in weights.values()]
        if state != self._state_of_weights:
            digest = hashlib.sha256()
            for name, weight in sorted(weights.items()):
                digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
                digest.update(_as_bytes(weight))
            self._state_of_weights, self._digest_of_weights = state, digest.hexdigest()
        return self._digest_of_weights

    def _write(self, path: Path, feature_ND: torch.Tensor) -> None:
        num_bytes = feature_ND.numel() * feature_ND.element_size() + _HEADER_BYTES
        if self._is_full:
            return
        unfinished = self.folder / _UNFINISHED / uuid4().hex
        try:
            if not self._reserve(num_bytes):
                self._stop(f"it has {self.limit_bytes:,} bytes, its limit")
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            feature_ND = feature_ND.contiguous()
            save_file({"features": feature_ND}, unfinished, {"crc32": str(zlib.crc32(_as_bytes(feature_ND)))})
            unfinished.replace(path)
        except (OSError, SafetensorError) as error:  # the disk is full, most likely
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            self._stop(f"writing to it failed: {error}")

    def _stop(self, reason: str) -> None:
        self._is_full = True
        warnings.warn(
            f"The cache of vision features {self.folder} gets no more entries: {reason}. Tiles that are not in it are "
            "encoded whenever they are needed.",
            Notice,
            stacklevel=2,
        )

    def _reserve(self, num_bytes: int) -> bool:
        """Whether so many bytes more fit; then they are counted, for all processes."""
        with _locked(self.folder / _COUNT) as file:
            file.seek(0)
            text = file.read()
            used = int(text) if text.strip().isdigit() else self.count_bytes()
            if used + num_bytes > self.limit_bytes:
                used = self.count_bytes()  # files may have been deleted
                if used + num_bytes > self.limit_bytes:
                    return False
            file.seek(0)
            file.truncate()
            file.write(str(used + num_bytes))
            return True

    def count_bytes(self) -> int:
        """The bytes of all entries, which are counted one by one."""
        return sum(path.stat().st_size for path in self.folder.glob("*/*/*.safetensors"))

    def describe(self, tower: VisionTower, num_tiles: int, dtype: torch.dtype) -> str:
        """A line for the start of a run: what the features of so many tiles take on disk, and whether they fit."""
        needed = self.estimate_bytes(tower, num_tiles, dtype)
        free = shutil.disk_usage(self.folder).free
        room = min(self.limit_bytes, free + self.count_bytes())
        text = f"Vision features: {num_tiles:,} tiles take {_say_bytes(needed)} in {self.folder}"
        if needed <= room:
            return f"{text}, which has room for {_say_bytes(room)}."
        return (
            f"{text}, which has room for {_say_bytes(room)} (limit {_say_bytes(self.limit_bytes)}, free "
            f"{_say_bytes(free)}): {room / needed:.0%} of them are kept, the others encoded in each epoch."
        )

    @staticmethod
    def estimate_bytes(tower: VisionTower, num_tiles: int, dtype: torch.dtype) -> int:
        """The bytes that the features of so many tiles take on disk."""
        num_features = tower.num_patches + (tower.select_feature == "cls_patch")
        return num_tiles * (num_features * tower.hidden_size * dtype.itemsize + _HEADER_BYTES)


def can_cache(tower: Any) -> bool:
    """Whether a tower's features depend on nothing but its weights and the pixels.

    Under FSDP and DeepSpeed's ZeRO-3 a tower has hooks, which all processes must call together.
    """
    if not isinstance(tower, VisionTower) or tower.is_watched() or not needs_no_graph(tower):
        return False
    return not (tower.training and getattr(tower.config, "attention_dropout", 0.0) > 0)


def _name_file(tile_CHW: torch.Tensor) -> str:
    name = _digest(tuple(tile_CHW.shape), _as_bytes(tile_CHW))
    return f"{name[:2]}/{name}.safetensors"


def _digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, memoryview) else f"{part}\n".encode())
    return digest.hexdigest()


def _as_bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    content: Any = flat.numpy()
    return memoryview(content)


def _read(path: Path) -> torch.Tensor | None:
    """The features in a file; None if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            feature_ND: torch.Tensor = file.get_tensor("features")
            expected = (file.metadata() or {}).get("crc32")
    except (OSError, SafetensorError):
        return None
    return feature_ND if str(zlib.crc32(_as_bytes(feature_ND))) == expected else None


@contextmanager
def _locked(path: Path) -> Iterator[Any]:
    """A text file, open for reading and writing, that no other process has open in this way."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="ascii") as file:
        try:
            import fcntl
        except ImportError:  # Windows, where processes may exceed the limit together
            yield file
            return
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        yield file


def _say_bytes(num_bytes: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
