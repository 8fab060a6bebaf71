"""``new_folder``: a folder to write a checkpoint into, which appears whole or not at all.

Everything is written into a hidden folder beside it, which is renamed at the end. Nothing here knows what a checkpoint
contains, only which files belong to one, so that an older checkpoint's files are not left among the new ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llava.errors import LlavaError, UsageError
from llava.model.weights import is_weight_file

_COMPANIONS = frozenset(
    "config.json generation_config.json preprocessor_config.json processor_config.json chat_template.jinja "
    "chat_template.json tokenizer.json tokenizer.model tokenizer_config.json special_tokens_map.json "
    "added_tokens.json vocab.json merges.txt".split()
)


@contextmanager
def new_folder(folder: str | Path, sources: Iterable[Path] = ()) -> Iterator[Path]:
    """An empty folder to write a checkpoint into, which becomes ``folder`` if the block ends without an exception.

    An older checkpoint in ``folder`` is replaced; its other files are kept.

    Args:
        sources: folders that the block reads from; ``folder`` may be none of them and contain none of them.

    Raises:
        UsageError: see ``refuse_target``.
        LlavaError: it cannot be written.
    """
    refuse_target(folder, sources)
    folder = Path(folder).expanduser().resolve()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        if (partial / "config.json").exists():
            for path in partial.iterdir():  # safetensors makes its files readable by their owner alone
                shutil.copymode(partial / "config.json", path)
        _put_in_place(partial, folder)
    except OSError as error:
        raise LlavaError(f"{folder} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_target(folder: str | Path, sources: Iterable[Path] = ()) -> None:
    """Raises UsageError if ``folder`` is something else than a folder, or is or contains one of ``sources``.

    A mount point is refused as well, because no other folder can be renamed to it.
    """
    if not str(folder):
        raise UsageError("The name of the output folder is empty.")
    if "\0" in str(folder):
        raise UsageError("The name of the output folder contains a null byte.")
    try:
        folder = Path(folder).expanduser().resolve()
        is_other = folder.exists() and not folder.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long, links that lead in a circle, an unknown home
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{str(folder)!r:.200} cannot be written to: {reason}.") from error
    if is_other:
        raise UsageError(f"{folder} is not a folder, but a checkpoint is written as one.")
    if folder.is_mount():
        raise UsageError(f"{folder} is a mount point: name a folder in it, such as {folder / 'llava'}.")
    for source in (path.resolve() for path in sources):
        if folder == source or folder in source.parents:
            what = "is" if folder == source else f"contains {source}, which is"
            raise UsageError(f"{folder} {what} being read; write to another folder.")


def _put_in_place(partial: Path, folder: Path) -> None:
    """Renames ``partial`` to ``folder``; files of an older ``folder`` that are not a checkpoint's are moved into it."""
    if not folder.exists():
        partial.rename(folder)
        return
    aside = partial.with_suffix(".old")
    folder.rename(aside)
    partial.rename(folder)
    for entry in aside.iterdir():
        is_old = is_weight_file(entry.name) or entry.name in _COMPANIONS
        if not is_old and not (folder / entry.name).exists():
            entry.rename(folder / entry.name)
    shutil.rmtree(aside)
