"""FRONT DOOR: ``python -m llava.serve.register_worker``, which registers a worker with a controller by hand.

It translates the command line into one request and decides nothing.

Source: lm-sys/FastChat fastchat/serve/register_worker.py, which the original's repository has under this name.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from llava.backends.workers import make_client, post_json, read_address
from llava.entry_point import run_command


def build_parser() -> argparse.ArgumentParser:
    """The original's flags."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.register_worker")
    parser.add_argument("--controller-address", required=True)
    parser.add_argument("--worker-name", required=True, help="the worker's URL")
    parser.add_argument("--check-heart-beat", action="store_true", help="remove it when it sends no heartbeats")
    return parser


async def register(controller_address: str, worker_name: str, check_heart_beat: bool) -> None:
    """Registers a worker; the controller asks it for its models. Raises LlavaError if either cannot be reached."""
    content = {"worker_name": read_address(worker_name), "check_heart_beat": check_heart_beat, "worker_status": None}
    async with make_client() as client:
        await post_json(client, f"{read_address(controller_address)}/register_worker", content)


def main(argv: Sequence[str] | None = None) -> int:
    """Registers the worker; returns the exit code."""
    args = build_parser().parse_args(argv)

    def work() -> int:
        asyncio.run(register(args.controller_address, args.worker_name, args.check_heart_beat))
        print(f"{args.worker_name} is registered with {args.controller_address}")
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
