"""``GgufFolder``: a language model and its mmproj, in two GGUF files, as the folder of a checkpoint.

Its path is the language model's file, or the manifest of a model in Ollama's store. What other checkpoints have as
files (config.json, the tokenizer's ...) is made from the metadata, so that the loader reads it like any other layout
and accounts for every tensor.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from llava.errors import UsageError
from llava.model.folder import CONFIG, Folder
from llava.model.gguf import tensor_names
from llava.model.gguf.gguf_config import describe_generation, describe_llava, describe_processor
from llava.model.gguf.gguf_file import GgufFault, GgufFile, is_gguf
from llava.model.gguf.gguf_parts import drop_part, is_later_part
from llava.model.gguf.gguf_tokenizer import write_tokenizer
from llava.model.gguf.ollama_store import OllamaModel, is_manifest, read_manifest
from llava.model.weights import list_names

_MMPROJ = "mmproj"
# The quantization at the end of a file's name, by which a model's name differs from its mmproj's.
_QUANTIZATION = re.compile(r"[-._](ggml|model|i?q\d\w*|f16|f32|bf16|fp16|mxfp4)(?=[-._]|$)", re.IGNORECASE)


class GgufFolder(Folder):
    """The checkpoint in a language model's GGUF file and an mmproj.

    Args:
        path: the language model's file, or a manifest of Ollama's.
        projector: the mmproj; by default the one beside ``path``, or the one that the manifest names.

    Raises:
        GgufFault: the language model's file is damaged or an mmproj. Faults of the mmproj are raised when it is used.
    """

    def __init__(self, path: Path, projector: Path | None = None) -> None:
        super().__init__(path)
        self.ollama: OllamaModel | None = None if is_gguf(path) else read_manifest(path)
        self.text = GgufFile(path if self.ollama is None else self.ollama.model)
        if self.text.architecture == "clip":
            raise GgufFault(
                f"{path} is the vision half (mmproj) of a model.",
                "Name the language model's file, and this one as --mmproj if it lies elsewhere.",
            )
        self._projector = projector

    @cached_property
    def vision(self) -> GgufFile:
        """The mmproj. Raises GgufFault if there is none, or it is damaged."""
        projector = self._projector
        if projector is None:
            projector = _find_projector(self.path) if self.ollama is None else self.ollama.projector
        if projector is None:
            name = str(self.path) if self.ollama is None else self.ollama.name
            raise GgufFault(
                f"{name} is a language model alone ({self.text.architecture or 'GGUF'}), which cannot see: there is "
                + ("no mmproj beside it." if self.ollama is None else "no projector in its manifest."),
                "Download the mmproj of the same LLaVA and put it beside the file, or name it with --mmproj.",
            )
        return GgufFile(projector)

    def check(self) -> None:
        """Raises CheckpointError unless both files are whole and describe a LLaVA that is read."""
        for file in (self.text, self.vision):
            file.check_extent()
        self.read_json(CONFIG)

    def with_projector(self, projector: Path) -> GgufFolder:
        """The same language model with another mmproj. Raises GgufFault."""
        return GgufFolder(self.path, projector)

    @property
    def files(self) -> list[Path]:
        """All files that the checkpoint is read from."""
        return list(dict.fromkeys([self.path, *self.text.parts, *self.vision.parts]))

    @cached_property
    def _descriptions(self) -> dict[str, Mapping[str, Any]]:
        template = None if self.ollama is None else self.ollama.template
        config = describe_llava(self.text, self.vision, template)
        if self.ollama is not None:
            config["_name_or_path"] = config.get("_name_or_path") or self.ollama.name
        return {
            CONFIG: config,
            "generation_config.json": describe_generation(self.text),
            "preprocessor_config.json": describe_processor(self.vision),
        }

    def has(self, name: str) -> bool:
        """Whether the metadata takes the place of a file of that name."""
        return name in (CONFIG, "generation_config.json", "preprocessor_config.json")

    def read_json(self, name: str) -> Mapping[str, Any]:
        """The values that the file of that name would have. Raises GgufFault."""
        return self._descriptions[name]

    @property
    def has_weights(self) -> bool:
        """Always: both files are there."""
        return True

    @cached_property
    def tensors(self) -> dict[str, Path]:
        """The file of each tensor, by llama.cpp's name."""
        for file in (self.text, self.vision):
            file.check_extent()
        places = dict.fromkeys(self.vision.tensors, self.vision.path)
        twice = sorted(places.keys() & self.text.tensors.keys())
        if twice:
            raise GgufFault(f"{self.text.path} and {self.vision.path} both have {twice[0]}: one is not what it seems.")
        return {**dict.fromkeys(self.text.tensors, self.text.path), **places}

    @cached_property
    def rename(self) -> Callable[[str], str | None]:
        """The function from llama.cpp's names to ours."""
        info = self.vision.tensors.get(tensor_names.FIRST_FFN)
        width = self.vision.metadata.get("clip.vision.embedding_length")
        return tensor_names.make_renamer(is_straight=info is not None and bool(info.shape) and info.shape[-1] != width)

    @cached_property
    def tokenizer_folder(self) -> Folder:
        """A folder with the tokenizer's files, which exists as long as this object does. Raises GgufFault."""
        folder = Path(tempfile.mkdtemp(prefix="llava-gguf-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        write_tokenizer(self.text, folder)
        return Folder(folder)

    def measure_tensors(self) -> Iterator[tuple[str, int, int, str]]:
        """Name, number of elements, bytes in the file, and type of each tensor."""
        for file in (self.text, self.vision):
            for name, info in file.tensors.items():
                yield self.rename(name) or name, info.num_elements, file.num_bytes(name), file.type_name(name)


def open_gguf(path: Path) -> GgufFolder | None:
    """The checkpoint at the path of a GGUF file or of a manifest of Ollama's, else None. Raises GgufFault."""
    return GgufFolder(path) if is_gguf(path) or is_manifest(path) else None


def take_projector(folder: Folder, named: str | Path | None) -> tuple[Folder, str | Path | None]:
    """The folder with the mmproj that ``--mmproj`` names, and the tower that is still to be found.

    Raises GgufFault or UsageError if the two do not go together.
    """
    if named is not None and str(named).lower().endswith(".gguf") and not os.path.exists(os.path.expanduser(named)):
        raise UsageError(f"There is no file '{named}', which --mmproj names.")
    is_file = named is not None and is_gguf(Path(os.path.expanduser(named)))
    if isinstance(folder, GgufFolder) and named is not None:
        if not is_file:
            raise UsageError(f"{folder} is a GGUF file, whose tower is in its mmproj: '{named}' is not a GGUF file.")
        return folder.with_projector(Path(os.path.expanduser(named))), None
    if is_file:
        raise UsageError(f"{named} is a GGUF file, which fits a model in GGUF only, but {folder} is not one.")
    return folder, named


def find_model(folder: Path) -> Path | None:
    """The language model among a folder's GGUF files; None if there is none.

    Raises:
        GgufFault: there are several.
    """
    names = [name for name in list_names(folder) if name.lower().endswith(".gguf") and is_gguf(folder / name)]
    found = [name for name in names if _MMPROJ not in name.lower()]
    models = [name for name in found if not is_later_part(name)] or found[:1]  # whose first part is missed when read
    if len(models) > 1:
        raise GgufFault(
            f"{folder} has several GGUF files ({', '.join(models[:4])}).", f"Name one, such as {folder / models[0]}."
        )
    return folder / models[0] if models else None


def _find_projector(path: Path) -> Path | None:
    """The mmproj beside a model's file: the only one, or the one whose name says that it belongs to the model.

    Raises GgufFault if there are several.
    """
    names = [name for name in list_names(path.parent) if _MMPROJ in name.lower() and is_gguf(path.parent / name)]
    own = [name for name in names if _bare(name) == _bare(path.name)] or names
    if len(own) > 1:
        raise GgufFault(
            f"There are several mmproj files beside {path} ({', '.join(own[:4])}).",
            f"Name the one that belongs to it, such as --mmproj {path.parent / own[0]}.",
        )
    return path.parent / own[0] if own else None


def _bare(name: str) -> str:
    """A file's name without what tells an mmproj and a quantization."""
    stem = re.sub(_MMPROJ, "", drop_part(name.lower()).removesuffix(".gguf"))
    return re.sub(r"[-._]+", "-", _QUANTIZATION.sub("", "-" + stem)).strip("-")


def read_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor of a GGUF file by llama.cpp's name, dequantized, with its rows in the original's order.

    llama.cpp stores vectors in float32 whatever the matrices have; a vector that loses nothing takes the dtype of the
    matrices again, unless these are quantized. Raises GgufFault.
    """
    file = GgufFile(path)
    kind = file.architecture
    heads = file.get(f"{kind}.attention.head_count", int, 0)
    kv_heads = file.get(f"{kind}.attention.head_count_kv", int, heads)
    kinds = {info.kind for info in file.tensors.values()} - {0}
    narrow = {1: torch.float16, 30: torch.bfloat16}.get(next(iter(kinds))) if len(kinds) == 1 else None
    for name in file.tensors:
        tensor = file.read(name)
        if kind == "llama" and (count := tensor_names.count_heads(name, heads, kv_heads)) is not None:
            if tensor.shape[0] % (2 * count):
                raise GgufFault(f"{name} in {path} has {tensor.shape[0]} rows, which {count} heads cannot share.")
            tensor = tensor_names.separate(tensor, count)
        if narrow is not None and tensor.dtype == torch.float32 and torch.equal(tensor.to(narrow).float(), tensor):
            tensor = tensor.to(narrow)
        yield name, tensor
