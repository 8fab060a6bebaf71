"""Finds a checkpoint's folder by its name: inside the package, on disk, or on the hub and in its cache.

A name is tried in this order: one of the package's own models (``default_choice``), a folder or a GGUF file, a model
in Ollama's store (``ollama:NAME``), a short name of the table below, a hub id ``org/name``. The path of a GGUF file, or
of a manifest in Ollama's store, takes the place of a folder's. The last two may end in ``@revision``: a branch, a tag
or a commit. The hub's client takes care of tokens (``hf auth login``, or ``HF_TOKEN``), of offline mode
(``HF_HUB_OFFLINE=1``), of the cache and of resuming a broken download.
"""

from __future__ import annotations

import contextlib
import contextvars
import difflib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava.config import find_tower_folder
from llava.errors import CheckpointError
from llava.model.default_choice import (
    DEFAULT_MODEL,
    PACKAGED,
    TALKING,
    find_embedded,
    find_talking,
    name_default,
)
from llava.model.gguf import ollama_store
from llava.model.gguf.gguf_file import is_gguf
from llava.model.gguf.gguf_folder import find_model
from llava.model.gguf.ollama_store import is_manifest
from llava.model.recognition import read_hub_url, recognise, recognise_name
from llava.model.weights import find_candidates, has_safetensors, has_weights, is_weight_file, list_names
from llava.towers import KNOWN_TOWERS

_LOG = logging.getLogger("llava.model")

# Source: haotian-liu/LLaVA@c121f04 docs/MODEL_ZOO.md; LLaVA-VL/LLaVA-NeXT@df17966 docs; huggingface.co/llava-hf.
_ORGANISATIONS = {
    "liuhaotian": "llava-v1.5-7b llava-v1.5-13b llava-v1.6-vicuna-7b llava-v1.6-vicuna-13b llava-v1.6-mistral-7b "
    "llava-v1.6-34b",
    "lmms-lab": "llama3-llava-next-8b llava-next-72b llava-next-110b llava-next-qwen-32b",
    "llava-hf": "llava-1.5-7b-hf llava-1.5-13b-hf llava-v1.6-vicuna-7b-hf llava-v1.6-vicuna-13b-hf "
    "llava-v1.6-mistral-7b-hf llava-v1.6-34b-hf llama3-llava-next-8b-hf llava-next-72b-hf llava-next-110b-hf",
}
SHORT_NAMES = {name: f"{hub}/{name}" for hub, names in _ORGANISATIONS.items() for name in names.split()}

# The files that are downloaded from a hub repository; .bin files only if there are no safetensors.
_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.safetensors"]
_BIN_FILES = ["pytorch_model*.bin", "mm_projector.bin", "adapter_model.bin", "non_lora_trainables.bin"]
# The name of one of these files stands for its folder.
_COMPANIONS = frozenset(
    "config.json generation_config.json preprocessor_config.json processor_config.json adapter_config.json "
    "adapter_model.safetensors adapter_model.bin mm_projector.bin non_lora_trainables.bin tokenizer.json "
    "tokenizer.model tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt "
    "chat_template.jinja trainer_state.json".split()
)
# A folder with one of these, or with weights, is read as a checkpoint, also if it holds GGUF files.
_SIGNS = ("config.json", "adapter_config.json", "mm_projector.bin", "non_lora_trainables.bin")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w-][\w./-]*)?")


def find_checkpoint(name: str | Path) -> Path:
    """The folder of the checkpoint with that name, downloaded if need be.

    Raises:
        CheckpointError: there is no such folder, short name or hub id, or the hub cannot be reached.
    """
    text = read_hub_url(str(name))
    if "\0" in text:
        raise CheckpointError(f"The name of the checkpoint, {text!r:.80}, holds a NUL byte, which no name has.")
    if not text:
        raise CheckpointError("The name of the checkpoint is empty: name a folder, a hub id or a short name.")
    if text == DEFAULT_MODEL:
        text = read_hub_url(name_default())
    if text in PACKAGED:
        return find_talking() if text == TALKING else find_embedded()
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):
        place = find_snapshot(path) or path
        is_other = has_weights(place) or any((place / name).exists() for name in _SIGNS)
        return place if is_other else find_model(place) or place
    if os.path.exists(path):
        return path if is_gguf(path) or is_manifest(path) else _find_folder_of(path)
    if text.startswith(ollama_store.PREFIX):
        return ollama_store.find_manifest(text)
    if text.lower().endswith(".gguf") and "://" not in text and not os.path.islink(path):
        raise CheckpointError(f"There is no file '{text}'. Name a model's GGUF file, with its mmproj beside it.")
    short, at, revision = text.partition("@")
    if short in SHORT_NAMES:
        return fetch(SHORT_NAMES[short] + at + revision)
    if _HUB_ID.fullmatch(text):
        return fetch(text)
    found = recognise_name(text)
    if found is not None:
        raise CheckpointError(str(found))
    if os.path.islink(path):
        raise CheckpointError(f"{path} is a broken symbolic link: its target is missing, or is the link itself.")
    known = [*PACKAGED[1:], *SHORT_NAMES]
    close = difflib.get_close_matches(text, known, n=3)
    guess = f" Did you mean {' or '.join(close)}?" if close else ""
    raise CheckpointError(
        f"There is no folder '{text}', and it is neither a hub id (org/name) nor a known short name.{guess} "
        f"Short names: {', '.join(known)}."
    )


def find_snapshot(folder: Path) -> Path | None:
    """The snapshot of a repository's folder in the hub's cache (``models--org--name``), or of a folder inside it.

    This is the snapshot that refs/main names, or the only one. None for any other folder.

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
        raise CheckpointError(f"{root} in the hub's cache has no snapshot: the download never began. Start it again.")
    main = root / "refs" / "main"
    try:
        named = main.read_text(encoding="utf-8", errors="replace").strip() if os.path.isfile(main) else ""
    except OSError as error:
        raise CheckpointError(f"{main} cannot be read: {error.strerror}.") from error
    for snapshot in snapshots:
        if snapshot.name == named or len(snapshots) == 1:
            return snapshot
    raise CheckpointError(
        f"{root} in the hub's cache has {len(snapshots)} snapshots, and refs/main names none of them: name one, "
        f"such as {snapshots[0]}."
    )


def _find_folder_of(path: Path) -> Path:
    """The folder of a checkpoint's file. Raises CheckpointError if the file does not belong to a checkpoint."""
    candidates = find_candidates(path.parent)
    if path.name in candidates[1:]:
        raise CheckpointError(
            f"{path} is not the file that is read in its folder: {candidates[0]} comes first, as in Transformers. "
            f"Name the folder, or remove {candidates[0]} if it is out of date."
        )
    if path.name in _COMPANIONS or path.name in candidates or (is_weight_file(path.name) and candidates):
        return path.parent
    found = recognise(path)
    raise CheckpointError(str(found) if found else f"{path} is a file; name the folder of the checkpoint.")


def find_tower(name: str, checkpoint_folder: Path) -> Path:
    """The folder of a vision tower: on disk, relative to the current directory or the checkpoint's, or from the hub.

    Raises:
        CheckpointError: it is in none of these places.
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
        f"is not a folder with a config.json, relative to the current directory or to {checkpoint_folder}"
        + (", but a path on another machine" if looks_like_path(name) else ", and not a hub id")
        + "."
    )
    if _HUB_ID.fullmatch(repo_id):
        try:
            return fetch(repo_id)
        except CheckpointError as error:
            reason = f"cannot be downloaded: {error}"
    if known is not None:
        try:
            folder = fetch(known)
        except CheckpointError as error:
            reason += f" {known}, the well-known tower of that name, cannot be downloaded either: {error}"
        else:
            _LOG.warning(
                "The vision tower '%s' is not there; %s, which has the same name, is used instead.", name, known
            )
            return folder
    raise CheckpointError(
        f"The checkpoint in {checkpoint_folder} needs the vision tower '{name}', which {reason} Name the tower's "
        "folder or hub id with --vision-tower (in Python vision_tower=), or in config.json as mm_vision_tower."
    )


def find_known_tower(name: str) -> str | None:
    """The hub id of the well-known tower whose name is the last part of ``name``, a path on another machine."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    last = last.rpartition("--")[2]  # the hub's cache calls a folder models--org--name
    return next((known for known in KNOWN_TOWERS if known.rpartition("/")[2] == last), None)


def looks_like_path(name: str) -> bool:
    """Whether a name can only be a path, on this machine or another one."""
    return name.startswith((".", "/", "~", "\\")) or re.match(r"[A-Za-z]:", name) is not None or name.count("/") > 1


_DOWNLOADING: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("downloading", default=None)


@contextlib.contextmanager
def downloading(**options: Any) -> Iterator[None]:
    """Inside the block, downloads use these options of ``snapshot_download``, such as cache_dir and token."""
    token = _DOWNLOADING.set({name: value for name, value in options.items() if value is not None})
    try:
        yield
    finally:
        _DOWNLOADING.reset(token)


def fetch(repo_id: str) -> Path:
    """The folder of ``org/name`` or ``org/name@revision`` in the hub's cache, downloaded if need be.

    Raises:
        CheckpointError: it is not in the cache and cannot be downloaded.
    """
    folder = _download(repo_id, _FILES)
    if not has_safetensors(folder):
        folder = _download(repo_id, [*_FILES, *_BIN_FILES])
    return folder


def fetch_description(name: str) -> Path:
    """The folder of a hub repository with only its JSON files, without weights. Raises CheckpointError."""
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(f"'{name}' is not a hub id.")
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
            f"The hub's repository '{repo_id}' is gated: accept its terms on "
            f"https://huggingface.co/{repo_id}, then log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"The hub's repository '{repo_id}' has no branch, tag or commit '{revision}': see "
            f"https://huggingface.co/{repo_id}/tree/main for those it has."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is no folder '{repo_id}', and the hub has no such repository, or this account has no access to it. "
            f"Short names: {', '.join(SHORT_NAMES)}."
        ) from error
    except LocalEntryNotFoundError as error:
        switch = "HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "local_files_only"
        why = f"{switch} is set" if is_offline else "the hub cannot be reached"
        remedy = "unset it" if is_offline else "connect to the network"
        raise CheckpointError(
            f"'{name}' is not, or not completely, in the hub's cache {cache}, and {why}. "
            f"To download it {remedy}; or name a local folder of it."
        ) from error
    except Exception as error:
        raise CheckpointError(f"'{name}' cannot be downloaded: {type(error).__name__}: {error}") from error


def name_checkpoint(path: str) -> str:
    """The last part of a path or hub id; ``checkpoint-N`` is prefixed with the part before it, if there is one."""
    parts = path.strip("/").split("/")
    return "_".join(parts[-2:]) if parts[-1].startswith("checkpoint-") else parts[-1]
