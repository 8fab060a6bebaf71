"""FRONT DOOR: ``python -m llava.serve.test_message``, the original's command that sends a worker a test question.

It translates the command line into one request and decides nothing.

Source: haotian-liu/LLaVA@c121f04 llava/serve/test_message.py.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from llava.backends.protocol import ChatRequest
from llava.backends.workers import Workers, make_client, post_json, read_address
from llava.conversation import default_conversation
from llava.entry_point import run_command
from llava.errors import EngineFailed, UsageError
from llava.sampling import Sampling
from llava.text import find_flaw, for_stream


def build_parser() -> argparse.ArgumentParser:
    """The original's flags; ``--model-name`` defaults to the controller's first model."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.test_message")
    parser.add_argument("--controller-address", default="http://localhost:21001")
    parser.add_argument("--worker-address", help="a worker to ask directly, without a controller")
    parser.add_argument("--model-name")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--message", default="Tell me a story with more than 1000 words.")
    return parser


async def send_message(args: argparse.Namespace) -> None:
    """Prints the model, the prompt and the streamed answer. Raises LlavaError."""
    if (flaw := find_flaw(args.message)) is not None:
        raise UsageError(f"The message {flaw}.")
    conversation = default_conversation.copy()
    conversation.append_message(conversation.roles[0], args.message)
    conversation.append_message(conversation.roles[1], None)
    stop = (conversation.sep2 or conversation.sep,)
    sampling = Sampling(temperature=0.7, max_new_tokens=args.max_new_tokens, stop=stop)
    request = ChatRequest(prompt=conversation.get_prompt(), sampling=sampling)
    name = args.model_name
    if args.worker_address and not name:
        async with make_client(api_key=os.environ.get("LLAVA_ENGINE_KEY")) as client:
            url = f"{read_address(args.worker_address)}/worker_get_status"
            name = _read_name(await post_json(client, url, {}, "worker"), args.worker_address)
    workers = Workers(args.controller_address, model_id=name, api_key=os.environ.get("LLAVA_ENGINE_KEY"))
    try:
        if args.worker_address:
            answer = workers.ask_worker(read_address(args.worker_address), request)
        else:
            await workers.start(waits=False)
            answer = workers.chat(request)
        print(for_stream(f"Model: {workers.model_id}\n{request.prompt}", sys.stdout), end="", flush=True)
        async with aclosing(answer) as deltas:
            async for delta in deltas:
                print(for_stream(delta.text, sys.stdout), end="", flush=True)
        print()
    finally:
        await workers.stop()


def _read_name(status: Any, address: str) -> str:
    """The first model of a worker's status."""
    names = status.get("model_names") if isinstance(status, dict) else None
    if not isinstance(names, list) or not names:
        raise EngineFailed(f"The worker at {address} has no model yet, or is not a LLaVA worker. Try again later.")
    return str(names[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Sends the question; returns the exit code."""
    args = build_parser().parse_args(argv)

    def work() -> int:
        asyncio.run(send_message(args))
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
