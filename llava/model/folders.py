"""A checkpoint's folder appears whole or not at all.

Everything is written into a hidden folder beside it, which takes its name at the end. Nothing here knows what a
checkpoint holds, only which files belong to one, so that an older one's do not stay among the new.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llava.errors import UsageError
from llava.model.weights import is_weight_file

_COMPANIONS = frozenset(
    "config.json generation_config.json preprocessor_config.json processor_config.json chat_template.jinja "
    "chat_template.json tokenizer.json tokenizer.model tokenizer_config.json special_tokens_map.json "
    "added_tokens.json vocab.json merges.txt".split()
)


@contextmanager
def new_folder(folder: str | Path, sources: Iterable[Path] = ()) -> Iterator[Path]:
    """An empty folder to write a checkpoint into, which becomes ``folder`` if the block ends without an exception.

    An older checkpoint in ``folder`` is replaced; other files in it stay. The block has to write ``config.json``.

    Args:
        sources: folders that are read meanwhile, and so may be neither ``folder`` nor inside it.

    Raises:
        UsageError: ``folder`` is a file, or holds one of the sources.
    """
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder; a checkpoint is written as one.")
    refuse_sources(folder, sources)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in partial.iterdir():  # safetensors makes its files readable by their owner alone
            shutil.copymode(partial / "config.json", path)
        _put_in_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_sources(folder: str | Path, sources: Iterable[Path]) -> None:
    """UsageError if ``folder`` is one of the sources or holds one."""
    folder = Path(folder).expanduser().resolve()
    for source in (path.resolve() for path in sources):
        if folder == source or folder in source.parents:
            what = "is" if folder == source else f"holds {source}, which is"
            raise UsageError(f"{folder} {what} what is read here; write to another folder.")


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename ``partial`` to ``folder``; what an older ``folder`` had beside a checkpoint moves over."""
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
