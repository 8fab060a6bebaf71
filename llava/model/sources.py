"""Where a checkpoint's files come from: the package itself, a folder, or the hub and its cache.

A name is tried in this order: the embedded model, a folder, a short name of the table below, a hub id ``org/name``.
The last two may end in ``@revision``: a branch, a tag or a commit. Tokens are the hub client's (``hf auth login``, or
``HF_TOKEN``), and so are offline mode (``HF_HUB_OFFLINE=1``), the cache and resuming a broken download.
"""

from __future__ import annotations

import difflib
import re
from importlib import resources
from pathlib import Path

from llava.config import find_tower_folder
from llava.errors import CheckpointError
from llava.model.weights import has_safetensors

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
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w-][\w./-]*)?")


def find_checkpoint(name: str | Path) -> Path:
    """The folder of the checkpoint with that name, downloaded if it has to be.

    Raises:
        CheckpointError: there is no such folder, short name or hub id, or the hub cannot be reached.
    """
    text = str(name)
    if not text:
        raise CheckpointError("The name of the checkpoint is empty: name a folder, a hub id or a short name.")
    if text == DEFAULT_MODEL:
        return _find_embedded()
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; name the folder of the checkpoint.")
    short, at, revision = text.partition("@")
    if short in SHORT_NAMES:
        return fetch(SHORT_NAMES[short] + at + revision)
    if _HUB_ID.fullmatch(text):
        return fetch(text)
    known = [DEFAULT_MODEL, *SHORT_NAMES]
    close = difflib.get_close_matches(text, known, n=3)
    guess = f" Did you mean {' or '.join(close)}?" if close else ""
    raise CheckpointError(
        f"There is no folder '{text}', and it is neither a hub id (org/name) nor a known short name.{guess} "
        f"Short names: {', '.join(known)}."
    )


def find_tower(name: str, checkpoint_folder: Path) -> Path:
    """The folder of a vision tower: absolute, from the current directory, from the checkpoint's, or of the hub.

    Raises:
        CheckpointError: none of these has it.
    """
    folder = find_tower_folder(name, checkpoint_folder)
    if folder is not None:
        return folder
    if _HUB_ID.fullmatch(name):
        try:
            return fetch(name)
        except CheckpointError as error:
            raise CheckpointError(
                f"The checkpoint in {checkpoint_folder} needs the vision tower '{name}': {error} "
                "A folder of it can be named in config.json as mm_vision_tower."
            ) from error
    raise CheckpointError(
        f"The vision tower '{name}' of the checkpoint in {checkpoint_folder} is no folder with a config.json, neither "
        "from the current directory nor from the checkpoint's, and no hub id. Set mm_vision_tower in config.json."
    )


def fetch(repo_id: str) -> Path:
    """The folder of ``org/name`` or ``org/name@revision`` in the hub's cache, fetched first if there is a network.

    Raises:
        CheckpointError: it is neither there nor to be had.
    """
    folder = _download(repo_id, _FILES)
    if not has_safetensors(folder):
        folder = _download(repo_id, [*_FILES, *_BIN_FILES])
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

    try:
        return Path(
            snapshot_download(repo_id, revision=revision or None, allow_patterns=patterns, ignore_patterns=["*/*"])
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
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        remedy = "unset it" if constants.HF_HUB_OFFLINE else "connect to the network"
        raise CheckpointError(
            f"'{name}' is not, or not wholly, in the hub's cache {constants.HF_HUB_CACHE}, and {why}. "
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
