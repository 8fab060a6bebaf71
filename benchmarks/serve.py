"""A server under open-loop load: throughput, time to first token, time between tokens.

Questions arrive as a Poisson process at a given rate, whether or not earlier answers are complete. Every question has
an image of its own and a text, and its answer is streamed. Servers take turns, so that each sees the same machine.

    python benchmarks/serve.py [--rate 2 --rate 8] [--seconds 30] [--url NAME=http://host:port ...] [--model MODEL]

Without --url, `llava serve` is started and measured; with --url and without --no-own, both are measured in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Load:
    """The results of one server at one rate. Times are in seconds."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    num_asked: int = 0
    num_answered: int = 0
    num_refused: int = 0
    num_failed: int = 0
    num_tokens: int = 0
    seconds: float = 0.0


def main() -> int:
    """Measures every server at every rate and prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rate", type=float, action="append", help="questions per second; repeatable (default: 2 and 8)"
    )
    parser.add_argument("--seconds", type=float, default=30, help="how long questions arrive (default: %(default)s)")
    parser.add_argument("--url", action="append", default=[], metavar="NAME=URL", help="another server to measure")
    parser.add_argument("--no-own", action="store_true", help="measure only the servers of --url")
    parser.add_argument("--model", default="embedded", help="what llava serve loads (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="the most new tokens of an answer")
    parser.add_argument("--side", type=int, default=224, help="the side of each image in px")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    servers = dict(pair.split("=", 1) for pair in options.url)
    process = None
    try:
        if not options.no_own or not servers:
            process, servers["llava"] = start_own(options.model)
        print(f"{'server':12} {'rate':>6} {'asked':>6} {'answered':>8} {'refused':>7} {'failed':>6} ", end="")
        print(f"{'answers/s':>9} {'tokens/s':>8} {'first p50':>9} {'p99':>7} {'between p50':>11} {'p99':>7}")
        for rate in options.rate or [2.0, 8.0]:
            for name, url in servers.items():
                asyncio.run(warm_up(url, options))
                show(name, rate, asyncio.run(put_load(url, rate, options)))
    finally:
        if process is not None:
            process.terminate()
            process.wait()
    return 0


def start_own(model: str) -> tuple[subprocess.Popen[str], str]:
    """A process of ``llava serve`` on a free port that is ready, and its URL."""
    command = [
        sys.executable,
        "-m",
        "llava",
        "serve",
        "--port",
        "0",
        "--no-web",
        "--model",
        model,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    found = re.search(r"http://\S+", process.stderr.readline())
    assert found, "llava serve did not start"
    while True:
        try:
            urllib.request.urlopen(f"{found[0]}/ready").close()
            break
        except OSError:
            if process.poll() is not None:
                raise SystemExit(process.stderr.read()) from None
            time.sleep(0.05)
    print(f"llava serve was ready after {time.perf_counter() - began:.1f} s", flush=True)
    return process, found[0]


def make_question(dice: random.Random, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """The body of a request about an image that was not sent before."""
    from PIL import Image

    image = Image.new("RGB", (options.side, options.side), tuple(dice.randrange(256) for _ in range(3)))
    image.putpixel((dice.randrange(options.side), dice.randrange(options.side)), (0, 0, 0))
    file = io.BytesIO()
    image.save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Describe the image."}]
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": options.tokens,
        "temperature": 1.0,
        "seed": dice.randrange(2**31),
    }


def find_model(url: str) -> str:
    """The name of the server's model."""
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        return json.load(answer)["data"][0]["id"]


async def warm_up(url: str, options: argparse.Namespace) -> None:
    """Asks four questions that are not counted."""
    dice, model, load = random.Random(-1), find_model(url), Load()
    await asyncio.gather(*(ask(url, make_question(dice, model, options), load) for _ in range(4)))


async def put_load(url: str, rate: float, options: argparse.Namespace) -> Load:
    """Sends ``rate`` questions per second for ``options.seconds``, then waits for the remaining answers."""
    dice, model, load = random.Random(options.seed), find_model(url), Load()
    # Drawn in advance, so that it does not add to the load.
    arrivals, at = [], dice.expovariate(rate)
    while at < options.seconds:
        arrivals.append((at, make_question(dice, model, options)))
        at += dice.expovariate(rate)
    began = time.perf_counter()
    asking = []
    for at, question in arrivals:
        await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
        asking.append(asyncio.create_task(ask(url, question, load)))
    await asyncio.gather(*asking)
    load.num_asked, load.seconds = len(arrivals), time.perf_counter() - began
    return load


async def ask(url: str, question: dict[str, Any], load: Load) -> None:
    """One question; its times and tokens are added to ``load``."""
    target, body = urlsplit(url), json.dumps(question).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {target.netloc}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    began = last = time.perf_counter()
    is_first, is_whole, status = True, False, 0
    try:
        reader, writer = await asyncio.open_connection(target.hostname, target.port or 80, limit=2**20)
        try:
            writer.write(head.encode() + body)
            status = int((await reader.readline()).split()[1])
            while line := await reader.readline():
                if not line.startswith(b"data: "):
                    continue
                if line.startswith(b"data: [DONE]"):
                    is_whole = True
                    break
                event = json.loads(line[6:])
                if event.get("usage"):
                    load.num_tokens += event["usage"]["completion_tokens"]
                if any(choice["delta"].get("content") for choice in event.get("choices", ())):
                    now = time.perf_counter()
                    (load.first if is_first else load.between).append(now - (began if is_first else last))
                    is_first, last = False, now
        finally:
            writer.close()
    except (OSError, ValueError, IndexError):
        pass
    load.num_answered += is_whole
    load.num_refused += status in (429, 503)
    load.num_failed += not is_whole and status not in (429, 503)


def show(name: str, rate: float, load: Load) -> None:
    """Prints a row of the table."""
    print(
        f"{name:12} {rate:6g} {load.num_asked:6} {load.num_answered:8} {load.num_refused:7} {load.num_failed:6} "
        f"{load.num_answered / load.seconds:9.2f} {load.num_tokens / load.seconds:8.1f} "
        f"{at_share(load.first, 0.5):9.3f} {at_share(load.first, 0.99):7.3f} "
        f"{at_share(load.between, 0.5):11.4f} {at_share(load.between, 0.99):7.4f}",
        flush=True,
    )


def at_share(seconds: list[float], share: float) -> float:
    """The quantile ``share`` (0 to 1) of the values; NaN if there are none."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


if __name__ == "__main__":
    sys.exit(main())
