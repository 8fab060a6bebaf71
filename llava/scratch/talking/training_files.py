"""The files that the adapter's training reads, and the bundle that has all of them.

A bundle is a tar file, or its bytes in numbered parts beside it ("talking.tar.001" ...), where only so much can be
copied at once.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from llava.errors import UsageError
from llava.model.gguf.gguf_file import GgufFile
from llava.model.gguf.gguf_folder import read_tensors
from llava.model.gguf.gguf_tokenizer import write_tokenizer
from llava.scratch.talking.small_llama import SmallLlama, name_from_gguf, read_sizes

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GGUF, TOKENIZER, THINGS = "language_model.gguf", "tokenizer.json", "things"
FACTS, TALK, PROJECTOR, ADAPTER = "facts.json", "talk.json", "projector.safetensors", "adapter.pt"


@dataclass(frozen=True)
class TrainingFiles:
    """Where each input is: see ``--help`` of ``adapter_training``."""

    model: Path
    tokenizer: Path
    things: Path
    facts: Path
    projector: Path
    talk: Path | None = None
    adapter: Path | None = None

    @classmethod
    def names(cls) -> list[str]:
        """The names of all inputs."""
        return [one.name for one in fields(cls)]

    @classmethod
    def required(cls) -> list[str]:
        """The names of those without which there is no training."""
        return [one.name for one in fields(cls) if one.default is MISSING]

    def read_tokenizer(self) -> Any:
        """A ``tokenizers.Tokenizer``."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.tokenizer))

    def read_model(self) -> SmallLlama:
        """The language model in float32. Raises GgufFault."""
        if self.model.suffix != ".gguf":
            return SmallLlama(name_from_gguf(torch.load(self.model, weights_only=True)))
        sizes = read_sizes(GgufFile(self.model))
        return SmallLlama(name_from_gguf(read_language_model(self.model), sizes), sizes)


def read_language_model(gguf: Path) -> dict[str, torch.Tensor]:
    """A GGUF file's tensors by llama.cpp's names, float32, with their rows in Transformers' order. Raises GgufFault."""
    return {name: tensor.float().contiguous() for name, tensor in read_tensors(gguf)}


def find_parts(bundle: Path) -> list[Path]:
    """The files whose bytes are the bundle, in order. Raises UsageError."""
    if bundle.is_file():
        return [bundle]
    parts = sorted(bundle.parent.glob(f"{bundle.name}.[0-9][0-9][0-9]"))
    if not parts:
        raise UsageError(f"There is neither {bundle} nor a first part of it, {bundle.name}.001.")
    wanted = [bundle.with_name(f"{bundle.name}.{number:03}") for number in range(1, len(parts) + 1)]
    missing = [path for path in wanted if path not in parts]
    if missing:
        raise UsageError(f"The bundle's part {missing[0]} is missing: {parts[-1].name} is there.")
    return parts


def open_bundle(bundle: Path, folder: Path) -> TrainingFiles:
    """Unpacks the bundle into the folder. Raises UsageError if it or a part of it is missing, or it is damaged."""
    parts = find_parts(bundle)
    try:
        with io.BufferedReader(_Joined(parts)) as data, tarfile.open(fileobj=data, mode="r|") as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{parts[-1]} is not the end of a whole bundle ({error}): copy all of it again.") from error
    write_tokenizer(GgufFile(folder / GGUF), folder)

    def find(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    return TrainingFiles(
        folder / GGUF, folder / TOKENIZER, folder / THINGS, folder / FACTS, folder / PROJECTOR,
        find(TALK), find(ADAPTER),
    )  # fmt: skip


class _Joined(io.RawIOBase):
    """Files as if they were one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._waiting = list(paths)
        self._file: IO[bytes] | None = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while True:
            if self._file is None:
                if not self._waiting:
                    return 0
                self._file = self._waiting.pop(0).open("rb")
            data = self._file.read(len(view))
            if data:
                view[: len(data)] = data
                return len(data)
            self._file.close()
            self._file = None
