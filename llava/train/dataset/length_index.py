"""How many positions each sample takes, kept on disk between runs, so that packing a large data set starts in seconds.

A length is found by a digest of all that decides it: the text, the size and time of change of each image's file, how
samples are encoded, and the code that does it. So nothing is ever stale, stages and data files share one index, and a
changed sample is counted anew. A sample that cannot be trained on is not kept: its error is what is wanted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llava import conversation, prompt
from llava.image import geometry
from llava.train.dataset import image_slots, samples
from llava.train.dataset.samples import InstructionData

_DIGEST_BYTES = 16
# The modules that decide how many positions a sample takes.
_CODE = (conversation, prompt, geometry, image_slots, samples)


class LengthIndex:
    """The lengths of a data set's samples, from a file where they are known.

    Args:
        file: is written by ``save``; one that is missing or damaged is an empty index.
    """

    def __init__(self, file: Path, data: InstructionData) -> None:
        self._file, self._data = file, data
        self._lengths, self._num_stored = _read(file), 0
        self._num_stored = len(self._lengths)
        self._encoding = _describe_encoding(data)

    def count_positions(self, index: int) -> int:
        """As ``InstructionData.count_positions``, from which an unknown length comes."""
        key = self._find_key(index)
        length = self._lengths.get(key)
        if length is None:
            length = self._lengths[key] = self._data.count_positions(index)
        return length

    def add(self, other: Iterable[tuple[bytes, int]]) -> None:
        """Takes over what another process has counted."""
        self._lengths.update(other)

    def list_new(self) -> list[tuple[bytes, int]]:
        """What was counted since the index was read or saved."""
        return list(self._lengths.items())[self._num_stored :]

    def save(self) -> None:
        """Writes the index if there is something new; a folder that takes no file costs time at the next start only."""
        if len(self._lengths) == self._num_stored:
            return
        partial = self._file.with_name(f"{self._file.name}.{uuid4().hex}")
        tensors = {
            "digests": torch.frombuffer(bytearray(b"".join(self._lengths)), dtype=torch.uint8),
            "lengths": torch.tensor(list(self._lengths.values()), dtype=torch.int32),
        }
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial)
            os.replace(partial, self._file)
            self._num_stored = len(self._lengths)
        except (OSError, SafetensorError):
            with suppress(OSError):
                partial.unlink()

    def _find_key(self, index: int) -> bytes:
        source: Any = self._data.source
        record = source.record(index)
        digest = hashlib.blake2b(self._encoding, digest_size=_DIGEST_BYTES)
        files = [os.stat(source.find_image(name)) for name in record.images]
        described = (
            self._data.choose_template(index),
            record.turns,
            [(each.st_size, each.st_mtime_ns) for each in files],
        )
        digest.update(repr((record.images, *described)).encode())
        return digest.digest()


def _read(file: Path) -> dict[bytes, int]:
    try:
        tensors = load_file(file)
        digests, lengths = tensors["digests"].numpy().tobytes(), tensors["lengths"].tolist()
    except (OSError, SafetensorError, KeyError):
        return {}
    if len(digests) != len(lengths) * _DIGEST_BYTES:
        return {}
    starts = range(0, len(digests), _DIGEST_BYTES)
    return {digests[start : start + _DIGEST_BYTES]: length for start, length in zip(starts, lengths, strict=True)}


def _describe_encoding(data: InstructionData) -> bytes:
    """A digest of what all samples are encoded with."""
    tokenizer = data.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = sorted(tokenizer.get_vocab().items()) if backend is None else backend.to_str()
    settings = (
        *(
            [Path(str(module.__file__)).read_bytes() for module in _CODE],
            type(tokenizer).__name__,
            words,
            sorted(map(str, tokenizer.special_tokens_map.items())),
        ),
        *(data.tiling, data.templates, data.rule, data.has_start_end, data.max_length, data.limit_tokens),
    )
    return hashlib.blake2b(repr(settings).encode(), digest_size=_DIGEST_BYTES).digest()
