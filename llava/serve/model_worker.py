"""FRONT DOOR: ``python -m llava.serve.model_worker``, the original's command that answers with a model.

It translates the command line into one of ``llava serve --controller`` and decides nothing. What is different, on
purpose: the device is found by itself; a worker without ``--worker-address`` says its own port; it speaks OpenAI's
interface besides the worker's protocol.

Source: haotian-liu/LLaVA@c121f04 llava/serve/model_worker.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llava.serve.original_commands import name_model, serve, warn_unused


def build_parser() -> argparse.ArgumentParser:
    """The original's flags; their defaults too, but for the device, the address and the model."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.model_worker")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=21002)
    parser.add_argument("--worker-address", help="what the controller tells clients (default: its host and port)")
    parser.add_argument("--controller-address", default="http://localhost:21001")
    parser.add_argument("--model-path", help="a folder, a hub id or a short name (default: the embedded model)")
    parser.add_argument("--model-base")
    parser.add_argument("--model-name", help="what clients call the model (default: the last part of its path)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument("--multi-modal", action="store_true")
    parser.add_argument("--limit-model-concurrency", type=int, default=5)
    parser.add_argument("--stream-interval", type=int)
    parser.add_argument("--no-register", action="store_true")
    bits = parser.add_mutually_exclusive_group()
    bits.add_argument("--load-8bit", action="store_true")
    bits.add_argument("--load-4bit", action="store_true")
    parser.add_argument("--use-flash-attn", action="store_true")
    return parser


_UNUSED = {
    "multi_modal": "every model that is served sees images",
    "stream_interval": "every piece of an answer is sent as it is made",
    "use_flash_attn": "the engine has its own attention",
}


def write_words(args: argparse.Namespace) -> list[str]:
    """The same for ``llava serve``."""
    words = ["--no-web", "--host", args.host, "--port", str(args.port)]
    words += ["--max-running", str(args.limit_model_concurrency)]
    given = {
        "--model": args.model_path,
        "--model-base": args.model_base,
        "--name": args.model_name or name_model(args.model_path),
        "--device": args.device,
        "--quant": "int8" if args.load_8bit else "int4" if args.load_4bit else None,
        "--address": args.worker_address,
        "--controller": None if args.no_register else args.controller_address,
    }
    return words + [f"{flag}={value}" for flag, value in given.items() if value is not None]


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until it is told to end; returns the exit code."""
    args = build_parser().parse_args(argv)
    warn_unused(args, _UNUSED)
    return serve(write_words(args))


if __name__ == "__main__":
    sys.exit(main())
