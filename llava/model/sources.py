"""Where a checkpoint's files come from: the package itself, a folder, or the hub and its cache.

A name is tried in this order: the embedded model, a folder, a short name of the table below, a hub id ``org/name``.
The last two may end in ``@revision``: a branch, a tag or a commit. Tokens are the hub client's (``hf auth login``, or
``HF_TOKEN``), and so are offline mode (``HF_HUB_OFFLINE=1``), the cache and resuming a broken download.
"""

from __future__ import annotations

import contextlib
import contextvars
import difflib
import logging
import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from llava.config import find_tower_folder
from llava.errors import CheckpointError
from llava.model.foreign import read_hub_url, recognise, recognise_name
from llava.model.weights import find_candidates, has_safetensors, is_weight_file, list_names
from llava.towers import KNOWN_TOWERS

_LOG = logging.getLogger("llava.model")

# The small model that comes inside the package, as `load_model` takes it.
DEFAULT_MODEL = "embedded"

# Source: haotian-liu/LLaVA@c121f04 docs/MODEL_ZOO.md; LLaVA-VL/LLaVA-NeXT@df17966 docs; huggingface.co/llava-hf.
_ORGANISATIONS = {
    "liuhaotian": "llava-v1.5-7b llava-v1.5-13b llava-v1.6-vicuna-7b llava-v1.6-vicuna-13b llava-v1.6-mistral-7b "
    "llava-v1.6-34b",
    "lmms-lab": "llama3-llava-next-8b llava-next-72b llava-next-110b llava-next-qwen-32b",
    "llava-hf": "llava-1.5-7b-hf llava-1.5-13b-hf llava-v1.6-vicuna-7b-hf llava-v1.6-vicuna-13b-hf "
    "llava-v1.6-mistral-7b-hf llava-v1.6-34b-hf llama3-llava-next-8b-hf llava-next-72b-hf llava-next-110b-hf",
}
SHORT_NAMES = {name: f"{hub}/{name}" for hub, names in _ORGANISATIONS.items() for name in names.split()}

# What is fetched from a hub repository. The .bin files only where there are no safetensors.
_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.safetensors"]
_BIN_FILES = ["pytorch_model*.bin", "mm_projector.bin", "adapter_model.bin", "non_lora_trainables.bin"]
# Who names one of these means the folder that it lies in.
_COMPANIONS = frozenset(
    "config.json generation_config.json preprocessor_config.json processor_config.json adapter_config.json "
    "adapter_model.safetensors adapter_model.bin mm_projector.bin non_lora_trainables.bin tokenizer.json "
    "tokenizer.model tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt "
    "chat_template.jinja trainer_state.json".split()
)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w-][\w./-]*)?")


def find_checkpoint(name: str | Path) -> Path:
    """The folder of the checkpoint with that name, downloaded if it has to be.

    Raises:
        CheckpointError: there is no such folder, short name or hub id, or the hub cannot be reached.
    """
    text = read_hub_url(str(name))
    if not text or "\0" in text:
        raise CheckpointError("The name of the checkpoint is empty: name a folder, a hub id or a short name.")
    if text == DEFAULT_MODEL:
        return _find_embedded()
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):
        return find_snapshot(path) or path
    if os.path.exists(path):
        return _find_folder_of(path)
    short, at, revision = text.partition("@")
    if short in SHORT_NAMES:
        return fetch(SHORT_NAMES[short] + at + revision)
    if _HUB_ID.fullmatch(text):
        return fetch(text)
    found = recognise_name(text)
    if found is not None:
        raise CheckpointError(str(found))
    if os.path.islink(path):
        raise CheckpointError(f"{path} is a link that leads nowhere: its target is missing, or leads back to it.")
    known = [DEFAULT_MODEL, *SHORT_NAMES]
    close = difflib.get_close_matches(text, known, n=3)
    guess = f" Did you mean {' or '.join(close)}?" if close else ""
    raise CheckpointError(
        f"There is no folder '{text}', and it is neither a hub id (org/name) nor a known short name.{guess} "
        f"Short names: {', '.join(known)}."
    )


def find_snapshot(folder: Path) -> Path | None:
    """Of a repository's folder in the hub's cache (``models--org--name``), or one below it, the snapshot to read.

    That of refs/main, or the only one. None for any other folder.

    Raises:
        CheckpointError: there are several snapshots and refs/main names none of them, or there is none.
    """
    inside = folder.name in ("snapshots", "blobs", "refs") and os.path.isdir(folder.parent / "snapshots")
    root = folder.parent if inside else folder
    if not (root.name.startswith("models--") or os.path.isdir(root / "refs")) or os.path.isfile(root / "config.json"):
        return None
    snapshots = [root / "snapshots" / name for name in list_names(root / "snapshots")]
    snapshots = [snapshot for snapshot in snapshots if os.path.isdir(snapshot)]
    if not snapshots:
        if not root.name.startswith("models--"):
            return None
        raise CheckpointError(f"{root} of the hub's cache has no snapshot: the download never began. Start it again.")
    main = root / "refs" / "main"
    try:
        named = main.read_text(encoding="utf-8", errors="replace").strip() if os.path.isfile(main) else ""
    except OSError as error:
        raise CheckpointError(f"{main} cannot be read: {error.strerror}.") from error
    for snapshot in snapshots:
        if snapshot.name == named or len(snapshots) == 1:
            return snapshot
    raise CheckpointError(
        f"{root} of the hub's cache has {len(snapshots)} snapshots, and refs/main names none of them: name one, "
        f"such as {snapshots[0]}."
    )


def _find_folder_of(path: Path) -> Path:
    """The folder of a checkpoint of which a file was named. CheckpointError if it is no checkpoint's file."""
    candidates = find_candidates(path.parent)
    if path.name in candidates[1:]:
        raise CheckpointError(
            f"{path} is not what is read of its folder: {candidates[0]} comes first, as in Transformers. "
            f"Name the folder, or remove {candidates[0]} if it is out of date."
        )
    if path.name in _COMPANIONS or path.name in candidates or (is_weight_file(path.name) and candidates):
        return path.parent
    found = recognise(path)
    raise CheckpointError(str(found) if found else f"{path} is a file; name the folder of the checkpoint.")


def find_tower(name: str, checkpoint_folder: Path) -> Path:
    """The folder of a vision tower: absolute, from the current directory, from the checkpoint's, or of the hub.

    Raises:
        CheckpointError: none of these has it.
    """
    folder = find_tower_folder(name, checkpoint_folder)
    if folder is not None:
        return folder
    snapshot = find_snapshot(Path(name)) if os.path.isdir(name) else None
    if snapshot is not None:
        return snapshot
    repo_id = read_hub_url(name)
    known = None if repo_id in KNOWN_TOWERS else find_known_tower(name)
    reason = (
        f"is no folder with a config.json, neither from the current directory nor from {checkpoint_folder}"
        + (", but a path of another machine" if looks_like_path(name) else ", and no hub id")
        + "."
    )
    if _HUB_ID.fullmatch(repo_id):
        try:
            return fetch(repo_id)
        except CheckpointError as error:
            reason = f"cannot be had: {error}"
    if known is not None:
        try:
            folder = fetch(known)
        except CheckpointError as error:
            reason += f" {known}, which its name stands for, cannot be had either: {error}"
        else:
            _LOG.warning("The vision tower '%s' is not there; %s, whose name is the same, was taken.", name, known)
            return folder
    raise CheckpointError(
        f"The checkpoint in {checkpoint_folder} needs the vision tower '{name}', which {reason} Name the tower's "
        "folder or hub id with --vision-tower (in Python vision_tower=), or in config.json as mm_vision_tower."
    )


def find_known_tower(name: str) -> str | None:
    """The hub id of a well-known tower whose name is the last part of ``name``, as of a path of another machine."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    last = last.rpartition("--")[2]  # as a folder of the hub's cache is called
    return next((known for known in KNOWN_TOWERS if known.rpartition("/")[2] == last), None)


def looks_like_path(name: str) -> bool:
    """Whether a name can only be a path, of whatever machine."""
    return name.startswith((".", "/", "~", "\\")) or re.match(r"[A-Za-z]:", name) is not None or name.count("/") > 1


_DOWNLOADING: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("downloading", default=None)


@contextlib.contextmanager
def downloading(**options: Any) -> Iterator[None]:
    """Within the block, the hub is asked with these options of ``snapshot_download``, such as cache_dir and token."""
    token = _DOWNLOADING.set({name: value for name, value in options.items() if value is not None})
    try:
        yield
    finally:
        _DOWNLOADING.reset(token)


def fetch(repo_id: str) -> Path:
    """The folder of ``org/name`` or ``org/name@revision`` in the hub's cache, fetched first if there is a network.

    Raises:
        CheckpointError: it is neither there nor to be had.
    """
    folder = _download(repo_id, _FILES)
    if not has_safetensors(folder):
        folder = _download(repo_id, [*_FILES, *_BIN_FILES])
    return folder


def fetch_description(name: str) -> Path:
    """The folder of a hub repository with its JSON files alone, without any weights. Raises CheckpointError."""
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(f"'{name}' is no hub id.")
    folder = _download(name, ["*.json"])
    if not os.path.isfile(folder / "config.json"):
        raise CheckpointError(f"The hub's repository '{name}' has no config.json.")
    return folder


def _download(name: str, patterns: list[str]) -> Path:
    repo_id, _, revision = name.partition("@")
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    options = _DOWNLOADING.get() or {}
    is_offline = constants.HF_HUB_OFFLINE or options.get("local_files_only")
    cache = options.get("cache_dir") or constants.HF_HUB_CACHE
    try:
        return Path(
            snapshot_download(
                repo_id, revision=revision or None, allow_patterns=patterns, ignore_patterns=["*/*"], **options
            )
        )
    except GatedRepoError as error:
        raise CheckpointError(
            f"The hub gives '{repo_id}' only to accounts that accepted its terms: accept them on "
            f"https://huggingface.co/{repo_id}, then log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"The hub's repository '{repo_id}' has no branch, tag or commit '{revision}': see "
            f"https://huggingface.co/{repo_id}/tree/main for those it has."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is no folder '{repo_id}', and the hub has no such repository, or not for this account. "
            f"Short names: {', '.join(SHORT_NAMES)}."
        ) from error
    except LocalEntryNotFoundError as error:
        switch = "HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "local_files_only"
        why = f"{switch} is set" if is_offline else "the hub cannot be reached"
        remedy = "unset it" if is_offline else "connect to the network"
        raise CheckpointError(
            f"'{name}' is not, or not wholly, in the hub's cache {cache}, and {why}. "
            f"To download it {remedy}; or name a local folder of it."
        ) from error
    except Exception as error:
        raise CheckpointError(f"'{name}' cannot be downloaded: {type(error).__name__}: {error}") from error


def _find_embedded() -> Path:
    folder = Path(str(resources.files("llava") / "default_model"))
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"This installation has no embedded model: {folder} is missing. Install the package again, "
            "or name a checkpoint: a folder, a hub id or a short name such as llava-v1.5-7b."
        )
    return folder
