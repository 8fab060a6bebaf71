"""What the front doors of the original's serving commands share: ``llava serve`` in other words."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.flags import run_door
from llava.serve.command import add_serve
from llava.text import write_line


def serve(words: Sequence[str]) -> int:
    """``llava serve`` with these words on its command line."""
    parser = argparse.ArgumentParser(prog="llava")
    add_serve(parser.add_subparsers())
    arguments = parser.parse_args(["serve", *words])
    return run_door(lambda: arguments.run(arguments))


def warn_unused(arguments: argparse.Namespace, reasons: dict[str, str]) -> None:
    """One line on stderr for each flag of ``reasons`` that was given and has no meaning here."""
    for name, reason in reasons.items():
        if getattr(arguments, name) not in (None, False):
            write_line(f"llava: --{name.replace('_', '-')} has no meaning here: {reason}.")


def name_model(model_path: str | None) -> str | None:
    """What the original calls a model: the last part of its path, ``checkpoint-N`` with the part before it."""
    if model_path is None:
        return None
    parts = model_path.rstrip("/").split("/")
    return "_".join(parts[-2:]) if parts[-1].startswith("checkpoint-") else parts[-1]
