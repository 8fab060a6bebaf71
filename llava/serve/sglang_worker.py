"""FRONT DOOR: ``python -m llava.serve.sglang_worker``, the original's worker in front of an SGLang server that runs.

It translates the command line into one of ``llava serve --engine sglang --engine-url`` and decides nothing.

Source: haotian-liu/LLaVA@c121f04 llava/serve/sglang_worker.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llava.serve.original_commands import serve, warn_unused


def build_parser() -> argparse.ArgumentParser:
    """The original's flags; their defaults too, but for the worker's address."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.sglang_worker")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=21002)
    parser.add_argument(
        "--worker-address", help="the URL that the controller gives to clients (default: its host and port)"
    )
    parser.add_argument("--controller-address", default="http://localhost:21001")
    parser.add_argument("--model-name", help="what clients call the model (default: the last part of its path)")
    parser.add_argument("--sgl-endpoint", required=True, help="the SGLang server, such as http://127.0.0.1:30000")
    parser.add_argument("--limit-model-concurrency", type=int, default=5)
    parser.add_argument("--stream-interval", type=int)
    parser.add_argument("--no-register", action="store_true")
    return parser


_UNUSED = {"stream_interval": "every piece of an answer is sent as soon as it is generated"}


def write_words(args: argparse.Namespace) -> list[str]:
    """The equivalent arguments of ``llava serve``."""
    words = ["--no-web", "--host", args.host, "--port", str(args.port)]
    words += ["--max-running", str(args.limit_model_concurrency), "--engine", "sglang"]
    given = {
        "--engine-url": args.sgl_endpoint,
        "--name": args.model_name,
        "--address": args.worker_address,
        "--controller": None if args.no_register else args.controller_address,
    }
    return words + [f"{flag}={value}" for flag, value in given.items() if value is not None]


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or Ctrl-C; returns the exit code."""
    args = build_parser().parse_args(argv)
    warn_unused(args, _UNUSED)
    return serve(write_words(args))


if __name__ == "__main__":
    sys.exit(main())
