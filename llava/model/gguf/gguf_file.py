"""``GgufFile``: the metadata and the tensors of one GGUF file, or of a model in several.

The ``gguf`` package dequantizes most types (``block_formats`` has the others) and writes. Its reader is not used: it
slices past the end of a truncated file without an error, and takes seconds for a vocabulary, of which it makes several
arrays per token. Here every length is checked against the file before it is used.

Source: ggml-org/ggml docs/gguf.md; gguf 0.19 constants.py, quants.py.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llava.errors import CheckpointError
from llava.model.gguf.block_formats import BLOCK_FORMATS
from llava.model.gguf.gguf_parts import NUM_TENSORS, NUMBER, count_parts, name_parts

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_AGAIN = "Copy or download it again."
# The types of metadata by their numbers, as struct writes them.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# The types of tensors that are not quantized.
_PLAIN = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}


class GgufFault(CheckpointError):
    """A file that cannot be used: a sentence that says why, and one with the next step."""

    def __init__(self, what: str, next_step: str = "") -> None:
        super().__init__(f"{what} {next_step}".rstrip())
        self.what, self.next_step = what, next_step


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is in its file. ``shape`` is torch's, the reverse of the file's; ``part`` is the file's number."""

    kind: int
    shape: tuple[int, ...]
    offset: int = 0  # in bytes, from the beginning of the file
    part: int = 0

    @property
    def num_elements(self) -> int:
        """The number of its elements."""
        return int(np.prod(self.shape, dtype=object)) if self.shape else 0


@dataclass(frozen=True)
class Header:
    """What a GGUF file says before its tensors' data. Floats are the shortest decimal numbers of their float32."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shown = {key: shorten(value) if isinstance(value, float) else value for key, value in self.metadata.items()}
        object.__setattr__(self, "metadata", shown)

    @property
    def architecture(self) -> str:
        """llama, qwen2, clip ...; "" if the file does not say it."""
        return str(self.metadata.get("general.architecture", ""))

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The value of that key, which has to be of that type; ``default`` if there is none. Raises GgufFault."""
        value = self.metadata.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, float)):
            names = kind if isinstance(kind, tuple) else (kind,)
            wanted = " or ".join({int: "an integer", float: "a number", str: "a string", bool: "true or false",
                                  list: "an array"}[name] for name in names)  # fmt: skip
            raise GgufFault(f"{self.path} says {key}: {value!r:.80}, where {wanted} is needed.", _AGAIN)
        return value

    def need(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """The value of that key. Raises GgufFault if there is none."""
        value = self.get(key, kind)
        if value is None:
            raise GgufFault(
                f"{self.path} lacks the metadata {key}, without which the model is not described.",
                "Convert the model again with a current llama.cpp.",
            )
        return value

    def get_array(self, key: str, kind: type, size: int | None = None) -> list[Any] | None:
        """The array of that key; None if there is none. Raises GgufFault for another kind of elements or length."""
        values = self.get(key, list)
        if values is None:
            return None
        if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
            raise GgufFault(f"{self.path} says {key}: {values[:4]!r:.80} ..., with elements of the wrong type.", _AGAIN)
        if size is not None and len(values) != size:
            raise GgufFault(f"{self.path} has {len(values)} values of {key}, where {size} are needed.", _AGAIN)
        return values


def shorten(value: float) -> float:
    """The shortest decimal number that rounds to the same float32, such as 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def is_gguf(path: Path) -> bool:
    """Whether the path is a regular file that begins as GGUF does, in either byte order."""
    if not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


def load_gguf() -> Any:
    """The ``gguf`` package. Raises CheckpointError that says how to install it."""
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError(
            f"GGUF files need the package gguf, which is not installed ({error}): pip install 'llava[gguf]'."
        ) from error
    return gguf


class GgufFile(Header):
    """A GGUF file. Its header is read at once, each tensor when it is asked for.

    Of a model in several files, ``path`` is one of them, and all are read.

    Attributes:
        parts: the files, the first of which has the metadata.

    Raises:
        GgufFault: it is truncated or damaged, has another byte order or version, or another part of it is missing.
    """

    def __init__(self, path: Path) -> None:
        metadata, tensors = _read_header(path)
        self.parts: tuple[Path, ...] = (path,)
        count = count_parts(metadata)
        if count > 1:
            self.parts, metadata, tensors = _read_parts(path, count)
        super().__init__(path, metadata, tensors)

    @cached_property
    def _data(self) -> list[np.ndarray]:
        return [np.memmap(part, mode="c") for part in self.parts]  # torch warns about arrays that cannot be written to

    def check_extent(self) -> None:
        """Raises GgufFault if a tensor is of an unknown type or reaches beyond the end of its file."""
        sizes = [part.stat().st_size for part in self.parts]
        for name, info in self.tensors.items():
            end, size = info.offset + self.num_bytes(name), sizes[info.part]
            if end > size:
                raise GgufFault(
                    f"{self.parts[info.part]} is cut short: it has {size:,} bytes, but {name} ends at byte {end:,}.",
                    "Copy or download it again.",
                )

    def type_name(self, name: str) -> str:
        """The type of a tensor as llama.cpp calls it, such as Q4_K. Raises GgufFault for an unknown one."""
        own = BLOCK_FORMATS.get(self.tensors[name].kind)
        if own is not None:
            return own.name
        gguf = load_gguf()
        try:
            return str(gguf.GGMLQuantizationType(self.tensors[name].kind).name)
        except ValueError:
            raise GgufFault(
                f"{name} in {self.path} is of the type {self.tensors[name].kind}, which gguf {_version_of(gguf)} does "
                "not know.",
                "Update the package (pip install -U gguf), or use a file of another quantization.",
            ) from None

    def num_bytes(self, name: str) -> int:
        """How many bytes a tensor takes in the file. Raises GgufFault."""
        info = self.tensors[name]
        own = BLOCK_FORMATS.get(info.kind)
        if own is not None:
            block, block_bytes = own.num_values, own.num_bytes
        else:
            self.type_name(name)
            gguf = load_gguf()
            block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(info.kind)]
        if not info.num_elements:
            raise GgufFault(f"{name} in {self.path} is empty: its shape is {list(info.shape)}.", _AGAIN)
        if not info.shape or info.shape[-1] % block:
            raise GgufFault(
                f"{name} in {self.path} has the shape {list(info.shape)}, but its type {self.type_name(name)} needs "
                f"rows of a multiple of {block}: the file is damaged.",
                _AGAIN,
            )
        return info.num_elements // block * int(block_bytes)

    def read(self, name: str) -> torch.Tensor:
        """A tensor: float32 if it is quantized, else as stored, as a view into the file. Raises GgufFault."""
        info, num_bytes = self.tensors[name], self.num_bytes(name)
        raw = self._data[info.part][info.offset : info.offset + num_bytes]
        if len(raw) < num_bytes:
            self.check_extent()
        if info.kind in _PLAIN:
            return torch.frombuffer(raw, dtype=_PLAIN[info.kind]).view(info.shape)
        own = BLOCK_FORMATS.get(info.kind)
        if own is not None and own.dequantize is not None:
            return torch.from_numpy(own.dequantize(np.asarray(raw).reshape(-1, own.num_bytes))).view(info.shape)
        gguf = load_gguf()
        kind = gguf.GGMLQuantizationType(info.kind)
        try:
            rows = raw.reshape(-1, num_bytes // max(info.num_elements // info.shape[-1], 1))
            values = gguf.quants.dequantize(np.asarray(rows), kind)
        except (NotImplementedError, KeyError) as error:
            raise GgufFault(
                f"{name} in {self.path} is of the type {kind.name}, which cannot be dequantized to a weight.",
                "Use a file of another quantization, such as Q8_0 or Q4_K_M.",
            ) from error
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).view(info.shape)


def _version_of(package: Any) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package.__name__)
    except PackageNotFoundError:
        return "of this installation"


def _read_header(path: Path) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """The metadata and the tensors of one file. Raises GgufFault."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(path, data).read()
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise GgufFault(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.", _AGAIN) from error


def _read_parts(path: Path, count: int) -> tuple[tuple[Path, ...], dict[str, Any], dict[str, TensorInfo]]:
    """All files of a model, the metadata of the first one, and the tensors of all. Raises GgufFault."""
    parts = name_parts(path, count)
    if parts is None:
        raise GgufFault(
            f"{path} is one of {count} parts of a model, but is not called NAME-00001-of-{count:05}.gguf or the like.",
            "Give the parts their names again, by which the others are found.",
        )
    metadata: dict[str, Any] = {}
    tensors: dict[str, TensorInfo] = {}
    for number, part in enumerate(parts):
        if not part.is_file():
            raise GgufFault(
                f"{part} is missing: {path.name} is one of {count} parts of a model.", "Put all parts into one folder."
            )
        values, found = _read_header(part)
        if (values.get(NUMBER), count_parts(values)) != (number, count):
            raise GgufFault(f"{part} says that it is another part than its name does.", "Copy or download it again.")
        metadata = metadata or values
        twice = sorted(tensors.keys() & found.keys())
        if twice:
            raise GgufFault(f"{part} has the tensor {twice[0]}, which an earlier part has, too.", _AGAIN)
        tensors |= {name: replace(info, part=number) for name, info in found.items()}
    wanted = metadata.get(NUM_TENSORS, len(tensors))
    if wanted != len(tensors):
        raise GgufFault(f"{parts[0]} and its other parts have {len(tensors)} tensors in place of {wanted}.", _AGAIN)
    return tuple(parts), metadata, tensors


class _Reader:
    """Reads a header value by value, from the beginning."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, 0

    def read(self) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        """The metadata and the tensors' places."""
        self._check_version()
        num_tensors, num_values = self._take("QQ")
        metadata: dict[str, Any] = {}
        for _ in range(num_values):
            key = self._take_string("a key of the metadata")
            if key in metadata:
                raise self._damaged(f"the key {key:.80} appears twice")
            metadata[key] = self._take_value(self._take("I")[0], key)
        found = {}
        for _ in range(num_tensors):
            name = self._take_string("a tensor's name")
            (num_dimensions,) = self._take("I")
            if num_dimensions > _MAX_DIMENSIONS:
                raise self._damaged(f"{name:.80} has {num_dimensions} dimensions")
            shape = self._take("Q" * num_dimensions)
            kind, offset = self._take("IQ")
            if name in found:
                raise self._damaged(f"the tensor {name:.80} appears twice")
            found[name] = (kind, tuple(reversed(shape)), offset)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise self._damaged(f"general.alignment is {alignment!r:.80}, not a power of two")
        start = -(-self._at // alignment) * alignment
        return metadata, {name: TensorInfo(kind, shape, start + at) for name, (kind, shape, at) in found.items()}

    def _check_version(self) -> None:
        magic = bytes(self._data[:4])
        if magic in (b"lmgg", b"tjgg", b"fmgg"):
            raise GgufFault(
                f"{self._path} is a file of llama.cpp from before GGUF (GGML).", "Convert the original model again."
            )
        if magic != MAGIC:
            raise GgufFault(f"{self._path} does not begin with GGUF: it is another kind of file.", _AGAIN)
        self._at = 4
        (version,) = self._take("I")
        if version & 0xFFFF == 0:
            raise GgufFault(
                f"{self._path} is written for big-endian machines, which is not supported.",
                "Use the file for little-endian ones; gguf-convert-endian of the gguf package makes it.",
            )
        if version not in _VERSIONS:
            is_new = version > max(_VERSIONS)
            raise GgufFault(
                f"{self._path} is GGUF version {version}; versions {_VERSIONS[0]} and {_VERSIONS[1]} can be read.",
                "Update this package, or use a file of version 3." if is_new else "Convert the model again.",
            )

    def _take(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + form)
        if self._at + size > len(self._data):
            raise self._cut()
        values = struct.unpack_from("<" + form, self._data, self._at)
        self._at += size
        return values

    def _take_string(self, what: str) -> str:
        (size,) = self._take("Q")
        if self._at + size > len(self._data):
            raise self._cut()
        text = self._data[self._at : self._at + size]
        self._at += size
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged(f"{what} is not UTF-8: {text[:40]!r}") from error

    def _take_value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._take_string(key)
        if kind in _SCALARS:
            return self._take(_SCALARS[kind])[0]
        if kind != _ARRAY:
            raise self._damaged(f"{key:.80} is of the unknown type {kind}")
        inner, count = self._take("IQ")
        if inner == _STRING:
            if count > (len(self._data) - self._at) // 8:
                raise self._cut()
            return [self._take_string(key) for _ in range(count)]
        if inner not in _SCALARS:
            raise self._damaged(f"{key:.80} is an array of the type {inner}, which no model has")
        code = _SCALARS[inner]
        if count > (len(self._data) - self._at) // struct.calcsize("<" + code):
            raise self._cut()
        return list(self._take(f"{count}{code}"))

    def _cut(self) -> GgufFault:
        return GgufFault(
            f"{self._path} is cut short or damaged: its header does not end within its {len(self._data):,} bytes.",
            _AGAIN,
        )

    def _damaged(self, reason: str) -> GgufFault:
        return GgufFault(f"{self._path} is damaged: {reason}.", _AGAIN)
