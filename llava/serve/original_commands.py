"""Runs ``llava serve`` for the front doors of the original's serving commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.commands.serve import add_serve
from llava.entry_point import run_command
from llava.text import write_line


def serve(words: Sequence[str]) -> int:
    """Runs ``llava serve`` with these arguments; returns the exit code."""
    parser = argparse.ArgumentParser(prog="llava")
    add_serve(parser.add_subparsers())
    arguments = parser.parse_args(["serve", *words])
    return run_command(lambda: arguments.run(arguments))


def warn_unused(arguments: argparse.Namespace, reasons: dict[str, str]) -> None:
    """Prints a line on stderr for each flag of ``reasons`` that was given but has no effect here."""
    for name, reason in reasons.items():
        if getattr(arguments, name) not in (None, False):
            write_line(f"llava: --{name.replace('_', '-')} has no effect here: {reason}.")


def name_model(model_path: str | None) -> str | None:
    """The original's name for a model path: its last part, or for ``checkpoint-N`` its last two."""
    if model_path is None:
        return None
    parts = model_path.rstrip("/").split("/")
    return "_".join(parts[-2:]) if parts[-1].startswith("checkpoint-") else parts[-1]
