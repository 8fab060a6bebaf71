"""FRONT DOOR: ``python -m llava.serve.model_worker``, the original's command that answers with a model.

It translates the command line into ``llava serve --controller`` and decides nothing. Deliberate differences: the device
is detected; without ``--worker-address`` a worker reports its own port; it serves OpenAI's API as well as the worker's
protocol.

Source: haotian-liu/LLaVA@c121f04 llava/serve/model_worker.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llava.serve.original_commands import name_model, serve, warn_unused


def build_parser() -> argparse.ArgumentParser:
    """The original's flags with its defaults, except for the device, the address and the model."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.model_worker")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=21002)
    parser.add_argument(
        "--worker-address", help="the URL that the controller gives to clients (default: its host and port)"
    )
    parser.add_argument("--controller-address", default="http://localhost:21001")
    parser.add_argument("--model-path", help="a folder, a hub id or a short name (default: a model of this package)")
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
    "stream_interval": "every piece of an answer is sent as soon as it is generated",
    "use_flash_attn": "the engine has its own attention kernels",
}


def write_words(args: argparse.Namespace) -> list[str]:
    """The equivalent arguments of ``llava serve``."""
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
    """Serves until SIGTERM or Ctrl-C; returns the exit code."""
    args = build_parser().parse_args(argv)
    warn_unused(args, _UNUSED)
    return serve(write_words(args))


if __name__ == "__main__":
    sys.exit(main())
