"""``llava serve``: the flags of the server."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from llava.commands.answering import loading_options
from llava.commands.flags import RepeatedFlag, add_checkpoint_flags, add_command, add_engine_flags
from llava.commands.quantities import read_bytes
from llava.commands.server_config import MovedFlag, find_kind
from llava.serve.limits import Limits


def add_serve(commands: Any) -> None:
    """Adds the command to the parser's ``commands``."""
    parser = add_command(commands, "serve", _serve, "Serve OpenAI's API and a web chat.")
    # SUPPRESS: without the positional argument, the value of --model stays.
    parser.add_argument("model", nargs="?", default=argparse.SUPPRESS, metavar="MODEL", help="the same as --model")
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="a file of settings, which flags override")
    add_checkpoint_flags(parser)
    parser.add_argument("--conv-mode", metavar="NAME", help="conversation template (default: the checkpoint's own)")
    parser.add_argument("--name", metavar="NAME", help="the model's id in the API (default: the checkpoint's name)")
    add_engine_flags(parser)
    _add_external_engine_flags(parser)
    _add_access_flags(parser)
    _add_limits(parser)
    for flag, text in (
        ("--controller", "register as a worker with the original's controller at URL"),
        ("--address", "this server's URL, as the controller gives it to clients (default: its host and port)"),
        ("--workers-of", "forward requests to the workers of the original's controller at URL; --model names one"),
    ):
        parser.add_argument(flag, metavar="URL", help=text)


def _add_external_engine_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", default="own", metavar="NAME", help="own, sglang or vllm (default: %(default)s)")
    for flag, kind, default, metavar, text in (
        ("--engine-python", str, None, "PATH", "the interpreter that has sglang or vllm installed (default: this one)"),
        ("--tp", int, 1, "N", "tensor parallelism: accelerators per model replica (sglang, vllm)"),
        ("--dp", int, 1, "N", "data parallelism: model replicas (sglang, vllm)"),
        (
            "--quantization",
            str,
            None,
            "NAME",
            "quantization method, as the engine names it, such as fp8 (sglang, vllm)",
        ),
        ("--memory-share", float, None, "X", "fraction of an accelerator's memory, such as 0.85 (sglang, vllm)"),
        (
            "--context",
            int,
            None,
            "N",
            "a shorter context than the model's (sglang, vllm); that of --engine-url if it reports none",
        ),
        ("--engine-start-s", float, 1800.0, "S", "time for the engine to start (default: %(default)s)"),
        ("--engine-url", str, None, "URL", "an engine that is already running, with OpenAI's API"),
        ("--engine-model", str, None, "NAME", "the model's id at the engine's URL"),
    ):
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)
    text = "an argument for the engine's command line, for example --engine-arg=--enable-metrics; may be repeated"
    parser.add_argument("--engine-arg", action=RepeatedFlag, metavar="WORD", help=text)


def _add_access_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="(default: %(default)s, this machine only)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="(default: %(default)s)")
    for flag, metavar, text in (
        ("--api-key", "KEY", "require this key; may be repeated (default: the keys in LLAVA_API_KEYS)"),
        ("--cors-origin", "URL", "allow requests from web pages of this origin; may be repeated"),
        (
            "--allow-host",
            "NAME",
            "answer to this host name and localhost only; may be repeated (default: any name; only localhost if the "
            "server is local and keyless)",
        ),
        ("--fetch-host", "HOST", "fetch images from HOST only; may be repeated"),
    ):
        parser.add_argument(flag, action=RepeatedFlag, metavar=metavar, help=text)
    parser.add_argument(
        "--root-path",
        default="",
        metavar="PATH",
        help="the prefix under which a proxy publishes the server, for example /llava",
    )
    parser.add_argument(
        "--web",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="serve a web chat at / (default: if gradio is installed)",
    )
    for flag, text in (
        ("--no-fetch", "do not fetch images by URL"),
        ("--fetch-private", "also fetch images from addresses that are not public"),
        ("--keep-keys-apart", "share no cached prompts or images between API keys"),
    ):
        parser.add_argument(flag, action="store_true", help=text)
    parser.add_argument("--log-conversations", type=Path, metavar="FILE", help="append every conversation to FILE")
    parser.add_argument(
        "--log-consent",
        metavar="NOTICE",
        help="show NOTICE in the web chat, and log its conversations with it as consent to llava data collect",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the limits that operators set; the other limits, once flags, are set in the config file."""
    for one in dataclasses.fields(Limits):
        old = f"--max-{one.name.replace('_', '-')}"
        if (flag := one.metadata["flag"]) is None:
            parser.add_argument(old, action=MovedFlag, key=f"limits.{one.name}")
            parser.set_defaults(**{one.name: one.default})
            continue
        kind = find_kind(one.name)
        metavar = {read_bytes: "SIZE", float: "S"}.get(kind, "N")
        text = f"limit: {one.metadata['text']} (default: %(default)s)"
        names = dict.fromkeys((flag, old))
        parser.add_argument(*names, dest=one.name, type=kind, default=one.default, metavar=metavar, help=text)


def _serve(arguments: argparse.Namespace) -> int:
    from llava.serve.startup import start

    return start(arguments, loading_options(arguments))
