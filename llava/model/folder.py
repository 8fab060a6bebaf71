"""``Folder``: a checkpoint's folder, of which every descriptive file is read once.

It answers what the files say: config.json and the other JSON files, which file holds each tensor. The answers are kept
as long as the value is, errors too, so all code that looks at one checkpoint while it is opened sees the same values.
It makes no decision about them; ``checkpoint_reader`` and ``recognition`` do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from llava.config import check_config_dict, read_json
from llava.errors import CheckpointError
from llava.model import weights

CONFIG = "config.json"


class Folder:
    """A checkpoint's folder. Its files are read when they are first asked for, and not a second time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: dict[str, dict[str, Any] | CheckpointError] = {}

    @staticmethod
    def of(folder: Folder | Path) -> Folder:
        """``folder`` itself if it is a ``Folder``, else a new one of that path, which may be that of a GGUF file.

        Raises CheckpointError for a GGUF file that cannot be used.
        """
        if isinstance(folder, Folder):
            return folder
        if os.path.isfile(folder):
            from llava.model.gguf.gguf_folder import open_gguf  # which imports this module

            return open_gguf(folder) or Folder(folder)
        return Folder(folder)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Folder({str(self.path)!r})"

    @property
    def config_path(self) -> Path:
        """Where config.json is, or would be."""
        return self.path / CONFIG

    def has(self, name: str) -> bool:
        """Whether the folder has a regular file of that name."""
        return os.path.isfile(self.path / name)

    def read_json(self, name: str) -> Mapping[str, Any]:
        """The JSON object in one of its files. Raises CheckpointError, naming the file and what is wrong with it."""
        if name not in self._read:
            try:
                self._read[name] = read_json(self.path / name)
            except CheckpointError as error:
                self._read[name] = error
        found = self._read[name]
        if isinstance(found, CheckpointError):
            raise found.with_traceback(None)
        return found

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json without any key that names code. Raises CheckpointError, for quantized weights as well."""
        return check_config_dict(self.read_json(CONFIG), self.config_path)

    @property
    def raw_config(self) -> Mapping[str, Any]:
        """config.json with all its keys; empty if there is none or it is not a JSON object."""
        try:
            return self.read_json(CONFIG) if self.has(CONFIG) else {}
        except CheckpointError:
            return {}

    @property
    def is_hf(self) -> bool:
        """Whether config.json is written in llava-hf's layout. Raises CheckpointError."""
        return self.has(CONFIG) and "text_config" in self.config

    @property
    def has_weights(self) -> bool:
        """Whether the folder has the weights of a whole model, in any form that is read."""
        return weights.has_weights(self.path)

    @cached_property
    def tensors(self) -> dict[str, Path]:
        """The file of each tensor, by its name there; see ``weights.find_tensors``. Raises CheckpointError."""
        return weights.find_tensors(self.path)

    @property
    def rename(self) -> Callable[[str], str | None] | None:
        """The function from the tensors' names to ours; None if config.json decides it."""
        return None

    @property
    def tokenizer_folder(self) -> Folder:
        """The folder that has the tokenizer's files: this one."""
        return self

    def measure_tensors(self) -> Iterator[tuple[str, int, int, str]]:
        """Name, number of elements, bytes and dtype of each tensor. Raises CheckpointError."""
        for name, tensor, _ in weights.stream_tensors(self.tensors):
            yield name, tensor.numel(), tensor.nbytes, str(tensor.dtype).removeprefix("torch.")
