"""``llava convert``: a checkpoint in another layout."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any

from llava.commands.flags import add_command, add_tower_flag
from llava.text import for_stream, write_line


def add_convert(commands: Any) -> None:
    """Adds the command to the parser's ``commands``."""
    parser = add_command(
        commands,
        "convert",
        _convert,
        "Rewrite a checkpoint in the original's layout, in llava-hf's or as GGUF; merges LoRA layers.",
    )
    parser.add_argument("source", metavar="SRC", help="a folder, a GGUF file, ollama:NAME, a hub id or a short name")
    parser.add_argument(
        "--model-base", metavar="MODEL", help="the base of SRC, if SRC holds only a projector or LoRA layers"
    )
    add_tower_flag(parser)
    parser.add_argument("folder", metavar="DST", help="the folder to write; an older checkpoint there is replaced")
    parser.add_argument(
        "--to",
        required=True,
        metavar="LAYOUT",
        help="original, for this package and the original; hf, for Transformers, vLLM and others; gguf, for llama.cpp "
        "and Ollama",
    )
    parser.add_argument(
        "--type",
        metavar="TYPE",
        help="with --to gguf: q8_0, q4_0, f16, bf16 or f32, of the language model's matrices (default: f16)",
    )


def _convert(arguments: argparse.Namespace) -> int:
    from llava.model.conversion import convert

    # On SIGTERM, as on Ctrl-C, the partly written files are removed.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        base, tower = arguments.model_base, arguments.vision_tower
        done = convert(
            arguments.source,
            arguments.folder,
            arguments.to,
            base=base,
            vision_tower=tower,
            gguf_type=arguments.type,
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    size = f"{done.num_tensors} tensors, {done.num_bytes / 1e9:.2f} GB, layout {done.layout}"
    print(for_stream(f"{done.folder}: {size}", sys.stdout))
    for note in done.notes:
        write_line(f"llava: {note}")
    return 0
