"""Finds a model in Ollama's own store by its name, and the files that its manifest names.

A name is ``ollama:MODEL`` or ``ollama:MODEL:TAG``, and may have a namespace or a host before MODEL, as for
``ollama run``. The store is OLLAMA_MODELS, else ~/.ollama/models, else those of Ollama's service on Linux.

Source: ollama/ollama@v0.5 types/model/name.go, server/manifest.go, envconfig/config.go, docs/faq.md.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError
from llava.model.gguf.gguf_file import GgufFault

PREFIX = "ollama:"
_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_MEDIA = "application/vnd.ollama.image."
_SERVICES = ("/usr/share/ollama/.ollama/models", "/var/lib/ollama/.ollama/models", "/var/lib/ollama/models")
_MAX_MANIFEST_BYTES = 1_000_000
_WORD = r"[\w][\w.-]*"
_NAME = re.compile(
    rf"(?:(?:(?P<host>{_WORD}(?::\d+)?)/)?(?P<namespace>{_WORD})/)?(?P<model>{_WORD})(?::(?P<tag>{_WORD}))?"
)


@dataclass(frozen=True)
class OllamaModel:
    """What a manifest names: the files of a model, and the texts of its chat template."""

    manifest: Path
    model: Path
    projector: Path | None
    template: str | None

    @property
    def name(self) -> str:
        """The model's name for ``ollama run``."""
        return name_of(self.manifest)


def list_stores() -> list[Path]:
    """The folders that are Ollama's store on this machine, the user's own first."""
    said = os.environ.get("OLLAMA_MODELS")
    places = [Path(said).expanduser()] if said else [Path("~/.ollama/models").expanduser(), *map(Path, _SERVICES)]
    return [place for place in places if _is_folder(place / "manifests")]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # another user's
        return False


def find_manifest(name: str) -> Path:
    """The manifest of ``ollama:MODEL[:TAG]``. Raises CheckpointError if there is none."""
    match = _NAME.fullmatch(name.removeprefix(PREFIX).removeprefix("//"))
    if match is None:
        raise CheckpointError(f"'{name:.80}' is not a name of Ollama's; one is ollama:llava or ollama:llava:13b.")
    stores = list_stores()
    if not stores:
        said = os.environ.get("OLLAMA_MODELS")
        where = f"OLLAMA_MODELS={said}" if said else "~/.ollama/models"
        raise CheckpointError(
            f"There is no store of Ollama's models at {where}: set OLLAMA_MODELS to its folder, or pull the model "
            f"(ollama pull {name.removeprefix(PREFIX)})."
        )
    inside = Path(match["host"] or _HOST, match["namespace"] or _NAMESPACE, match["model"], match["tag"] or _TAG)
    for store in stores:
        path = store / "manifests" / inside
        if path.is_file():
            return path
    known = ", ".join(name_of(path) for store in stores for path in list_manifests(store)[:10])
    raise CheckpointError(
        f"Ollama has no model '{name.removeprefix(PREFIX)}' in {', '.join(map(str, stores))}. "
        + (f"It has {known}." if known else "It has none.")
        + f" To get it: ollama pull {name.removeprefix(PREFIX)}."
    )


def list_manifests(store: Path) -> list[Path]:
    """The manifests in a store."""
    return sorted(path for path in (store / "manifests").glob("*/*/*/*") if path.is_file())


def name_of(manifest: Path) -> str:
    """The model's name for ``ollama run``, from the manifest's path."""
    host, namespace, model, tag = manifest.parts[-4:] if len(manifest.parts) > 4 else ("", "", "", manifest.name)
    parts = [*([] if host in ("", _HOST) else [host]), *([] if namespace in ("", _NAMESPACE) else [namespace]), model]
    return "/".join(parts) + f":{tag}"


def is_manifest(path: Path) -> bool:
    """Whether the path is a manifest of Ollama's."""
    return _read(path) is not None


def read_manifest(path: Path) -> OllamaModel:
    """The files that a manifest names.

    Raises:
        GgufFault: it is damaged, or a file is not in the store.
    """
    values = _read(path)
    if values is None:
        raise GgufFault(f"{path} is not a manifest of Ollama's.")
    root = next((parent.parent for parent in path.absolute().parents if parent.name == "manifests"), None)
    if root is None:
        raise GgufFault(
            f"{path} is a manifest of Ollama's outside of its store, so its files cannot be found.",
            "Name the model as ollama:NAME, with OLLAMA_MODELS if the store is not in its usual place.",
        )
    blobs = {str(layer.get("mediaType", "")).removeprefix(_MEDIA): _find_blob(root, layer, path)
             for layer in values["layers"]}  # fmt: skip
    if "model" not in blobs:
        raise GgufFault(f"{path} names no model.", f"Pull it again: ollama pull {name_of(path)}.")
    template = blobs.get("template")
    for kind in ("model", "projector", "template"):
        if kind in blobs and not blobs[kind].is_file():
            raise GgufFault(
                f"{blobs[kind]}, the {kind} of {name_of(path)}, is missing from Ollama's store.",
                f"Pull it again: ollama pull {name_of(path)}.",
            )
    text = None if template is None else template.read_text(encoding="utf-8", errors="replace")
    return OllamaModel(path, blobs["model"], blobs.get("projector"), text)


def _find_blob(root: Path, layer: dict[str, Any], manifest: Path) -> Path:
    digest = str(layer.get("digest"))
    if not re.fullmatch(r"sha256[:-][0-9a-f]{8,64}", digest):
        raise GgufFault(f"{manifest} names a file by {digest!r:.80}, which is not a digest.", "Pull the model again.")
    return root / "blobs" / digest.replace(":", "-")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_MANIFEST_BYTES:
            return None
        with path.open("rb") as file:
            if not file.read(1).startswith(b"{"):
                return None
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    layers = values.get("layers") if isinstance(values, dict) else None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        return None
    return values if any(str(layer.get("mediaType", "")).startswith(_MEDIA) for layer in layers) else None
