"""Starts the server from the flags of ``llava serve``: checks them, chooses the backend, mounts the web chat.

Light until ``start`` runs: FastAPI, torch and the engines are imported where they are needed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import UsageError
from llava.serve.limits import Limits, Settings
from llava.text import find_flaw

# Seconds that a server's start may take longer for CUDA graphs of every number of requests.
RECORD_S = 30.0

if TYPE_CHECKING:
    from llava.backends.protocol import Backend


def need_serve_extra() -> None:
    """Raises UsageError if the dependencies of the server are not installed."""
    if importlib.util.find_spec("fastapi") is None:
        raise UsageError("Serving needs the package's serve extra: run pip install 'llava[serve]'.")


def start(arguments: argparse.Namespace, loading: Mapping[str, Any]) -> int:
    """Serves until SIGTERM or Ctrl-C, and returns the exit code.

    ``arguments``: the flags of ``llava serve``. ``loading``: the arguments of ``load_model`` among them. Raises
    UsageError for a flag that cannot be used, and the error with which the backend failed to start.
    """
    need_serve_extra()
    _check_texts(arguments)
    from llava.serve.host_and_origin import read_host_name, read_origin
    from llava.serve.request_path import read_root_path
    from llava.serve.server_process import serve

    settings = Settings(
        limits=Limits(**{one.name: getattr(arguments, one.name) for one in dataclasses.fields(Limits)}),
        keys=_read_keys(arguments.api_key),
        origins=tuple(map(read_origin, arguments.cors_origin)),
        hosts=tuple(read_host_name(name) for name in arguments.allow_host),
        root_path=read_root_path(arguments.root_path),
        fetch=not arguments.no_fetch,
        fetch_hosts=tuple(read_host_name(name, "--fetch-host") for name in arguments.fetch_host),
        fetch_private=arguments.fetch_private,
        address=_read_address(arguments.address),
        log=_check_log(arguments.log_conversations),
        consent=_check_consent(arguments.log_consent, arguments.log_conversations),
        keeps_keys_apart=arguments.keep_keys_apart,
    )
    mount = _find_web(arguments.web)
    if arguments.controller is not None:
        from llava.serve.worker_registration import register_with

        mount = register_with(arguments.controller, mount)
    make_backend = partial(choose_backend, arguments, settings, loading)
    return serve(make_backend, settings, host=arguments.host, port=arguments.port, mount=mount)


def _read_address(text: str | None) -> str:
    """This server's URL for clients; "" stands for its own host and port. Raises UsageError for an invalid URL."""
    if not text:
        return ""
    from llava.backends.workers import read_address

    return read_address(text)


def _check_log(path: Path | None) -> Path | None:
    """The path, with ``~`` expanded, after a check that it can be written. Raises UsageError."""
    if path is not None:
        path = Path(os.path.expanduser(path))  # a shell expands it neither in --config nor after --log-conversations=
        try:
            path.open("a").close()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"--log-conversations: {path} cannot be written: {reason}. Name another file.") from error
    return path


def _check_consent(notice: str | None, log: Path | None) -> str:
    """The notice on one line, "" for none. Raises UsageError for an empty one, and for one without a log."""
    if notice is None:
        return ""
    if not (text := " ".join(notice.split())):
        raise UsageError("--log-consent is empty: write the notice to which users of the web chat consent.")
    if log is None:
        raise UsageError("--log-consent has no effect without --log-conversations FILE: name the log, too.")
    return text


# Flags whose values are sent to clients and other servers and so must be valid Unicode. Others may name files.
_TEXTS = (
    "name",
    "host",
    "address",
    "controller",
    "workers_of",
    "engine_url",
    "engine_model",
    "cors_origin",
    "log_consent",
)


def _check_texts(arguments: argparse.Namespace) -> None:
    """Raises UsageError for a value that cannot be encoded as UTF-8."""
    for flag in _TEXTS:
        value = getattr(arguments, flag)
        for word in value if isinstance(value, list) else [value or ""]:
            if (flaw := find_flaw(word)) is not None:
                raise UsageError(f"The value of --{flag.replace('_', '-')} {flaw}.")


def _read_keys(given: list[str]) -> tuple[str, ...]:
    """The API keys; with none, no key is required. Raises UsageError for an empty key and for one that is not text."""
    keys, source = [key.strip() for key in given], "--api-key"
    if not given and (found := os.environ.get("LLAVA_API_KEYS")) is not None:
        keys, source = found.split() or [""], "LLAVA_API_KEYS"
    if not all(keys):
        raise UsageError(f"An API key in {source} is empty and would admit every client. Set a key, or remove it.")
    if not all(key.isprintable() for key in keys):
        raise UsageError(f"An API key in {source} holds a control character, which no client can send.")
    return tuple(keys)


def choose_backend(
    arguments: argparse.Namespace, settings: Settings, loading: Mapping[str, Any] | None = None
) -> Backend:
    """The backend that the flags ask for: this package's engine, or one that ``llava.backends.NAME.from_flags`` makes.

    Raises UsageError for an unknown engine, and for flags that contradict each other or that the engine ignores.
    """
    name = arguments.engine
    if arguments.workers_of is not None:
        if name != "own" or arguments.engine_url is not None:
            raise UsageError("--workers-of chooses the engine, and so do --engine and --engine-url: leave one out.")
        name = "workers"
    if arguments.engine_url is not None and name != "sglang":
        if name != "own":
            raise UsageError(f"--engine {name} starts an engine and --engine-url names a running one: leave one out.")
        name = "remote"
    _check_engine_flags(name if arguments.engine_url is None else "remote", arguments)
    if name != "own":
        if name not in ("sglang", "vllm", "remote", "workers"):
            raise UsageError(f"There is no engine '{name}'. The engines are own, sglang and vllm.")
        made: Backend = importlib.import_module(f"llava.backends.{name}").from_flags(arguments, settings)
        return made
    from llava.backends.engine_backend import EngineBackend

    return EngineBackend(
        arguments.model,
        model_id=arguments.name,
        template=arguments.conv_mode,
        loading=loading,
        memory_bytes=arguments.memory,
        arithmetic=arguments.arithmetic,
        max_waiting=settings.limits.running * settings.limits.choices,
        record_s=RECORD_S,
    )


# Flags of the engines that this server starts: the default, and the other backends that read the flag.
_LAUNCH_FLAGS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "engine_python": (None, ()),
    "tp": (1, ()),
    "dp": (1, ()),
    "quantization": (None, ()),
    "memory_share": (None, ()),
    "engine_arg": ([], ()),
    "context": (None, ("remote",)),
    "engine_model": (None, ("remote",)),
    "engine_start_s": (1800.0, ()),
}
# Flags of models that this process loads, which an engine that is already running has loaded; as above. The remote
# backend refuses --conv-mode itself.
_LOADING_FLAGS: dict[str, tuple[Any, tuple[str, ...]]] = {
    **dict.fromkeys(("model_base", "vision_tower", "device", "dtype", "quant", "memory"), (None, ("own",))),
    "merge": (True, ("own",)),
    "arithmetic": ("exact", ("own",)),
    "conv_mode": (None, ("own", "remote")),
}


def _check_engine_flags(name: str, arguments: argparse.Namespace) -> None:
    """Raises UsageError for a flag that the engine would ignore. The SGLang and vLLM backends check their own."""
    if name not in ("own", "remote", "workers"):
        return
    for flag, (default, readers) in (_LAUNCH_FLAGS | _LOADING_FLAGS).items():
        if getattr(arguments, flag) != default and name not in readers:
            shown = f"--{'no-' if default is True else ''}{flag.replace('_', '-')}"
            remedy = "" if name == "remote" or flag in _LOADING_FLAGS else ", or name the engine with --engine"
            raise UsageError(f"{shown} has no effect on the engine that was chosen: leave it out{remedy}.")


def _find_web(wanted: bool | None) -> Any:
    """The function that mounts the web chat, or None. Raises UsageError if it is requested and not installed."""
    name = "llava.serve.web"
    found = importlib.util.find_spec(name) is not None and importlib.util.find_spec("gradio") is not None
    if wanted and not found:
        raise UsageError("The web chat needs the package's web extra: run pip install 'llava[serve,web]'.")
    return importlib.import_module(name).mount if found and wanted is not False else None
