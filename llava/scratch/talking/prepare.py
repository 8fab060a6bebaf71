"""Writes the frozen language model as the adapter's training reads it: its tensors and its tokenizer.

    python -m llava.scratch.talking.prepare FOLDER

``smol.pt`` has the tensors of SmolLM2-135M-Instruct in float32 by llama.cpp's names, and ``tokenizer.json`` is its
tokenizer. They come from the installed package that ``llava/talking_model/parts.json`` pins, or from ``--gguf``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from llava.errors import LlavaError
from llava.model.assembled.pretrained_parts import Parts
from llava.model.gguf.gguf_file import GgufFile
from llava.model.gguf.gguf_tokenizer import write_tokenizer
from llava.scratch.talking.pack import FOLDER
from llava.scratch.talking.training_files import TOKENIZER, read_language_model

MODEL = "smol.pt"


def find_language_model() -> Path:
    """The language model's GGUF file in the installed package, whose content is the pinned one. Raises MissingParts."""
    [part] = [part for part in Parts.read(FOLDER).parts if part.becomes == "language model"]
    return part.check()


def write_model(gguf: Path, folder: Path) -> None:
    """Writes both files into the folder. Raises GgufFault."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        write_tokenizer(GgufFile(gguf), Path(partial))
        torch.save(read_language_model(gguf), Path(partial) / MODEL)
        for name in (TOKENIZER, MODEL):
            (Path(partial) / name).replace(folder / name)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", type=Path, help="the language model's file, where its package is not installed")
    arguments = parser.parse_args()
    try:
        write_model(arguments.gguf or find_language_model(), arguments.folder)
    except LlavaError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
