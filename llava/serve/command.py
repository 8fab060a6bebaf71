"""``llava serve``: arguments in, a server of the engine that they name.

Only arguments live here: what serves is imported when it is needed, so that ``llava --help`` loads none of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import UsageError
from llava.flags import QUANTIZATIONS, add_checkpoint_flags, add_command, read_bytes
from llava.serve.limits import Limits, Settings
from llava.text import find_flaw

if TYPE_CHECKING:
    from llava.backends.protocol import Backend


def add_serve(commands: Any) -> None:
    """Adds the command to those of the ``llava`` command."""
    parser = add_command(commands, "serve", _serve, "Answer OpenAI clients, and people in a browser.")
    # What stands here is the same as --model; without it, --model keeps what it said.
    parser.add_argument("model", nargs="?", default=argparse.SUPPRESS, metavar="MODEL", help="the same as --model")
    add_checkpoint_flags(parser)
    parser.add_argument("--conv-mode", metavar="NAME", help="conversation template (default: the checkpoint's own)")
    parser.add_argument("--name", metavar="NAME", help="what clients call the model (default: its own name)")
    parser.add_argument(
        "--memory", type=read_bytes, metavar="SIZE", help="for the KV cache (default: half of the free memory)"
    )
    parser.add_argument(
        "--arithmetic",
        choices=("exact", "int8"),
        default="exact",
        help="int8, with --quant on a CPU: prompts in integers of 8 bits, faster and a little less exact",
    )
    _add_engine_flags(parser)
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="(default: %(default)s, this machine only)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help="let nobody in without it; may be given again (default: the words of LLAVA_API_KEYS)",
    )
    parser.add_argument(
        "--cors-origin", action="append", default=[], metavar="URL", help="pages at URL may ask; may be given again"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer to this name too, and to no other; may be given again (default: localhost alone where only this "
        "machine reaches it and there is no key, else any)",
    )
    parser.add_argument(
        "--root-path", default="", metavar="PATH", help="the prefix under which a proxy shows the server, as /llava"
    )
    parser.add_argument(
        "--web",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="a page to chat at / (default: if gradio is installed)",
    )
    parser.add_argument("--no-fetch", action="store_true", help="fetch no images by URL")
    parser.add_argument(
        "--fetch-host", action="append", default=[], metavar="HOST", help="fetch from HOST only; may be given again"
    )
    parser.add_argument("--fetch-private", action="store_true", help="fetch from addresses that are not public too")
    parser.add_argument(
        "--keep-keys-apart",
        action="store_true",
        help="what is remembered of one API key's prompts and images speeds up no other key's answers",
    )
    parser.add_argument("--log-conversations", type=Path, metavar="FILE", help="append every conversation to FILE")
    for one in dataclasses.fields(Limits):
        kind: Any = read_bytes if one.name.endswith("_bytes") else float if one.name.endswith("_s") else int
        flag = one.name.replace("_", "-")
        parser.add_argument(
            *(["--keep-alive-s"] if one.name == "keep_alive_s" else []),
            f"--max-{flag}",
            dest=one.name,
            type=kind,
            default=one.default,
            metavar={read_bytes: "SIZE", float: "S", int: "N"}[kind],
            help=f"{one.metadata['text']} (default: %(default)s)",
        )
    _add_controller_flags(parser)


def _add_controller_flags(parser: argparse.ArgumentParser) -> None:
    for flag, text in (
        ("--controller", "register as a worker with the original's controller at URL"),
        ("--address", "where controllers and their clients find this server (default: its host and port)"),
        ("--workers-of", "answer with the workers of the original's controller at URL; --model is one of theirs"),
    ):
        parser.add_argument(flag, metavar="URL", help=text)


def _add_engine_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", default="own", metavar="NAME", help="own, sglang or vllm (default: %(default)s)")
    for flag, kind, default, metavar, text in (
        ("--engine-python", str, None, "PATH", "the interpreter that has sglang or vllm installed (default: this one)"),
        ("--tp", int, 1, "N", "accelerators that share a model (sglang, vllm)"),
        ("--dp", int, 1, "N", "copies of the model that run (sglang, vllm)"),
        ("--quantization", str, None, "NAME", "as the engine calls it, such as fp8 (sglang, vllm)"),
        ("--memory-share", float, None, "X", "of an accelerator's memory, as 0.85 (sglang, vllm)"),
        ("--context", int, None, "N", "a shorter context than the model's (sglang, vllm)"),
        ("--engine-start-s", float, 1800.0, "S", "until it is ready (default: %(default)s)"),
        ("--engine-url", str, None, "URL", "an engine that runs already, with an OpenAI interface"),
        ("--engine-model", str, None, "NAME", "what the engine at URL calls the model"),
    ):
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)
    text = "a further word for the engine's command line, as --engine-arg=--enable-metrics; may be given again"
    parser.add_argument("--engine-arg", action="append", default=[], metavar="WORD", help=text)


def need_serve_extra() -> None:
    """Raises UsageError if what serving needs is not installed."""
    if importlib.util.find_spec("fastapi") is None:
        raise UsageError("Serving needs the package's serve extra: run pip install 'llava[serve]'.")


def _serve(arguments: argparse.Namespace) -> int:
    need_serve_extra()
    _check_texts(arguments)
    from llava.serve.host_and_origin import read_host_name, read_origin
    from llava.serve.request_path import read_root_path
    from llava.serve.run import serve

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
        keeps_keys_apart=arguments.keep_keys_apart,
    )
    mount = _find_web(arguments.web)
    if arguments.controller is not None:
        from llava.serve.worker_registration import register_with

        mount = register_with(arguments.controller, mount)
    make_backend = partial(_choose_backend, arguments, settings)
    return serve(make_backend, settings, host=arguments.host, port=arguments.port, mount=mount)


def _read_address(text: str | None) -> str:
    """Where others find this server; "" is its own host and port. Raises UsageError for what nobody can call."""
    if not text:
        return ""
    from llava.backends.workers import read_address

    return read_address(text)


def _check_log(path: Path | None) -> Path | None:
    """The path, where it can be written. Raises UsageError."""
    if path is not None:
        try:
            path.open("a").close()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"--log-conversations: {path} cannot be written: {reason}. Name another file.") from error
    return path


# Flags whose words clients and other servers get, so that they have to be text. Others may name files.
_TEXTS = ("name", "host", "address", "controller", "workers_of", "engine_url", "engine_model", "cors_origin")


def _check_texts(arguments: argparse.Namespace) -> None:
    """Raises UsageError for a word that cannot be sent."""
    for flag in _TEXTS:
        value = getattr(arguments, flag)
        for word in value if isinstance(value, list) else [value or ""]:
            if (flaw := find_flaw(word)) is not None:
                raise UsageError(f"What --{flag.replace('_', '-')} was given {flaw}.")


def _read_keys(given: list[str]) -> tuple[str, ...]:
    """The keys that let somebody in; none lets everybody in. Raises UsageError for one that would keep nobody out."""
    keys, source = [key.strip() for key in given], "--api-key"
    if not given and (found := os.environ.get("LLAVA_API_KEYS")) is not None:
        keys, source = found.split() or [""], "LLAVA_API_KEYS"
    if not all(keys):
        raise UsageError(f"An API key in {source} is empty, so it would keep nobody out. Put one there, or remove it.")
    if not all(key.isprintable() for key in keys):
        raise UsageError(f"An API key in {source} holds a control character, which no client can send.")
    return tuple(keys)


def _choose_backend(arguments: argparse.Namespace, settings: Settings) -> Backend:
    """The engine that the flags ask for: ours, or what ``from_flags`` of ``llava.backends.<name>`` makes of them."""
    name = arguments.engine
    if arguments.workers_of is not None:
        if name != "own" or arguments.engine_url is not None:
            raise UsageError("--workers-of names who answers, and so do --engine and --engine-url: leave one out.")
        name = "workers"
    if arguments.engine_url is not None and name != "sglang":
        if name != "own":
            raise UsageError(f"--engine {name} starts an engine and --engine-url names one that runs: leave one out.")
        name = "remote"
    _check_engine_flags(name, arguments)
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
        loading={
            "base": arguments.model_base,
            "vision_tower": arguments.vision_tower,
            "merge": arguments.merge,
            "device": arguments.device,
            "dtype": arguments.dtype,
            "bits": QUANTIZATIONS.get(arguments.quant, 16),
        },
        memory_bytes=arguments.memory,
        arithmetic=arguments.arithmetic,
        max_waiting=settings.limits.running * settings.limits.choices,
    )


# What only engines read that are started here, and what else reads it.
_LAUNCH_FLAGS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "engine_python": (None, ()),
    "tp": (1, ()),
    "dp": (1, ()),
    "quantization": (None, ()),
    "memory_share": (None, ()),
    "engine_arg": ([], ()),
    "context": (None, ("remote",)),
    "engine_model": (None, ("remote",)),
}


def _check_engine_flags(name: str, arguments: argparse.Namespace) -> None:
    """Raises UsageError for a flag that the engine would pass over. SGLang's and vLLM's judge their own."""
    if name not in ("own", "remote", "workers"):
        return
    for flag, (default, readers) in _LAUNCH_FLAGS.items():
        if getattr(arguments, flag) != default and name not in readers:
            shown = f"--{flag.replace('_', '-')}"
            remedy = "" if name == "remote" else ", or name the engine with --engine"
            raise UsageError(f"{shown} has no effect on the engine that was chosen: leave it out{remedy}.")


def _find_web(wanted: bool | None) -> Any:
    """What mounts the web chat, or None. Raises UsageError if it was asked for and cannot be had."""
    name = "llava.serve.web"
    found = importlib.util.find_spec(name) is not None and importlib.util.find_spec("gradio") is not None
    if wanted and not found:
        raise UsageError("The web chat needs the package's web extra: run pip install 'llava[serve,web]'.")
    return importlib.import_module(name).mount if found and wanted is not False else None
