"""A soak test: many clients, a third of whose requests are cancelled at random. Nothing may be lost, wrong or leaked.

The server runs in this process, so that the blocks of its KV cache can be audited at the end. Every client sends one
request after the other: with and without an image, streamed and not, and sometimes one that has to be refused. Answers
are compared with those that the same questions got before, one at a time.

    python benchmarks/soak.py [--clients 64] [--seconds 60] [--model MODEL]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import io
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# Shares of the requests.
LEAVING, BAD = 1 / 3, 0.05
# The fewest requests of each client, both before and after memory is first measured, even on a slow machine.
LEAST = 3
# The server notices disconnected clients one after the other; this is how long it may take.
SETTLE_S = 120
# Threads for decoding, fetching and preparing are started when they are needed, up to 2, 16 and at most 32.
THREADS = 2 + 16 + 32
BAD_REQUESTS: list[dict[str, Any]] = [
    {"messages": []},
    {"messages": [{"role": "user", "content": "word " * 4000}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,AAAA"}]}]},
    {"messages": [{"role": "user", "content": "Hi"}], "n": 100},
]


@dataclass
class Report:
    """The outcomes of all requests, and the resources of the process.

    ``memory_mib``: after a third of the time and at the end, both times without open requests. ``handles`` and
    ``threads``: before and after.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    memory_mib: tuple[float, float] = (0.0, 0.0)
    handles: tuple[int, int] = (0, 0)
    threads: tuple[int, int] = (0, 0)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.seconds) or [0.0]
        return "\n".join(
            [
                f"requests   {sum(self.outcomes.values()):,}: "
                + ", ".join(f"{count:,} {name}" for name, count in sorted(self.outcomes.items())),
                f"answers    median {ordered[len(ordered) // 2]:.2f} s, 99 % {ordered[len(ordered) * 99 // 100]:.2f} s",
                f"memory     {self.memory_mib[0]:.0f} MiB after a third, {self.memory_mib[1]:.0f} at the end",
                f"handles    {self.handles[0]} before, {self.handles[1]} after",
                f"threads    {self.threads[0]} before, {self.threads[1]} after",
                *(f"FAULT      {fault}" for fault in self.faults),
            ]
        )


def make_requests() -> list[dict[str, Any]]:
    """The bodies of requests with and without images, of one turn and of several."""
    from PIL import Image, ImageDraw

    requests: list[dict[str, Any]] = []
    for color in ("red", "green", "blue", "yellow"):
        for side in (64, 200):
            image = Image.new("RGB", (side, side), "white")
            ImageDraw.Draw(image).ellipse((8, 8, side - 8, side - 8), fill=color)
            file = io.BytesIO()
            image.save(file, "PNG")
            url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
            shown = {"type": "image_url", "image_url": {"url": url}}
            for question in ("What colour is the circle?", "Describe the image."):
                content = [shown, {"type": "text", "text": question}]
                requests.append({"messages": [{"role": "user", "content": content}]})
            said = [
                {"role": "user", "content": [shown, {"type": "text", "text": "What is it?"}]},
                {"role": "assistant", "content": "A circle."},
                {"role": "user", "content": "What colour is the circle?"},
            ]
            requests.append({"messages": said, "n": 2})
    requests.append({"messages": [{"role": "user", "content": "Hello"}]})
    return [{**request, "max_tokens": 24, "temperature": 0} for request in requests]


@dataclass
class Heard:
    """A response; ``is_whole``: whether it is complete, and the connection was not cut off."""

    status: int
    body: bytes
    is_whole: bool

    def texts(self) -> list[str] | None:
        """The texts of the choices; None if this is not a complete answer."""
        if not self.is_whole or self.status != 200:
            return None
        if not self.body.startswith((b"data:", b":")):
            return [choice["message"]["content"] for choice in json.loads(self.body)["choices"]]
        *events, done, _ = (event for event in self.body.decode().split("\n\n") if not event.startswith(":"))
        if done != "data: [DONE]":
            return None
        texts: dict[int, str] = {}
        for event in events:
            for choice in json.loads(event.removeprefix("data: "))["choices"]:
                texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
        return [texts[index] for index in sorted(texts)]


async def ask(port: int, content: Any, leave_after_s: float | None = None) -> Heard | None:
    """The response to one request on a connection of its own; None after ``leave_after_s``, when it disconnects."""
    body = json.dumps(content).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        if leave_after_s is not None:
            await asyncio.sleep(leave_after_s)
            return None
        answer = await reader.read()
    finally:
        writer.close()
    head_bytes, _, rest = answer.partition(b"\r\n\r\n")
    status = int(head_bytes.split()[1]) if head_bytes else 0
    if b"transfer-encoding: chunked" not in head_bytes.lower():
        return Heard(status, rest, bool(rest))
    pieces, is_whole = [], False
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            is_whole = True
            break
        pieces.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return Heard(status, b"".join(pieces), is_whole)


async def keep_asking(
    port: int, requests: list[dict[str, Any]], expected: list[list[str]], end: float, seed: int, report: Report
) -> None:
    """One client: sends random requests until ``end`` and counts their outcomes in ``report``."""
    dice, num_asked = random.Random(seed), 0
    while time.monotonic() < end or num_asked < LEAST:
        num_asked += 1
        began = time.monotonic()
        if dice.random() < BAD:
            heard = await ask(port, dice.choice(BAD_REQUESTS))
            assert heard is not None
            name = {400: "refused as wrong", 429: "refused as too many"}.get(heard.status, "LOST")
            report.outcomes[name] += 1
            continue
        which = dice.randrange(len(requests))
        leave_after_s = dice.expovariate(5) if dice.random() < LEAVING else None
        heard = await ask(port, {**requests[which], "stream": dice.random() < 0.5}, leave_after_s)
        if heard is None:
            report.outcomes["left"] += 1
        elif heard.status in (429, 503):
            report.outcomes["refused as too many"] += 1
            await asyncio.sleep(0.2)
        elif heard.texts() is None:
            report.outcomes["LOST"] += 1
            report.faults.append(f"status {heard.status}: {heard.body[-300:]!r}")
        elif heard.texts() != expected[which]:
            report.outcomes["WRONG"] += 1
            report.faults.append(f"{heard.texts()} instead of {expected[which]}")
        else:
            report.outcomes["right"] += 1
            report.seconds.append(time.monotonic() - began)


def resident_mib() -> float:
    """The resident memory of this process."""
    gc.collect()
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024


def count_handles() -> int:
    """The number of open file handles of this process."""
    return len(os.listdir("/proc/self/fd"))


def soak(clients: int, seconds: float, model: str = "embedded", seed: int = 0) -> Report:
    """Runs the server and its clients, and audits it; every defect is one of the report's faults."""
    from llava.backends.engine_backend import EngineBackend
    from llava.serve.app import create_app
    from llava.serve.limits import Limits, Settings
    from llava.serve.listener import listen
    from llava.serve.server_process import make_server

    backend, report = EngineBackend(model), Report()
    server = make_server(create_app(backend, Settings(limits=Limits(running=16, waiting=24, decode_s=60))))
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=lambda: server.run([listener]))
    thread.start()
    requests = make_requests()

    async def run() -> None:
        while not server.started or server.service.is_starting:
            await asyncio.sleep(0.02)
        if server.service.failure is not None:
            raise server.service.failure
        expected = []
        for request in requests:
            heard = await ask(port, request)
            texts = None if heard is None else heard.texts()
            assert texts is not None, f"{request} got {heard}"
            expected.append(texts)
        handles, threads = count_handles(), threading.active_count()
        memory_mib = []
        for part, share in enumerate((1 / 3, 2 / 3)):
            end, first = time.monotonic() + seconds * share, seed + part * clients
            asking = [keep_asking(port, requests, expected, end, first + i, report) for i in range(clients)]
            await asyncio.gather(*asking)
            settled = time.monotonic() + SETTLE_S
            while (find_held(server.service, backend) or count_handles() > handles + 2) and time.monotonic() < settled:
                await asyncio.sleep(0.1)
            memory_mib.append(resident_mib())
        report.memory_mib = (memory_mib[0], memory_mib[1])
        report.handles = (handles, count_handles())
        report.threads = (threads, threading.active_count())

    try:
        asyncio.run(run())
        report.faults += audit(server.service, backend)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
    if report.memory_mib[1] > report.memory_mib[0] * 1.1 + 30:
        report.faults.append("memory grew")
    if report.handles[1] > report.handles[0] + 2:
        report.faults.append("file handles were left open")
    if report.threads[1] > report.threads[0] + THREADS:
        report.faults.append("threads were left running")
    return report


def find_held(service: Any, backend: Any) -> list[str]:
    """The resources that open requests hold, as text; empty if there are none."""
    engine = backend.engine
    held = {
        "requests open": service.num_open,
        "requests in the engine": engine._num_open,
        "blocks held": engine.stats().blocks_used,
        "gauge of open requests": service.metrics.open._value.get(),
    }
    return [f"{name}: {number:g}" for name, number in held.items() if number]


def audit(service: Any, backend: Any) -> list[str]:
    """The resources that are held although no request is open. Asserts the scheduler's invariants."""
    backend.engine._scheduler.audit()
    return find_held(service, backend)


def main() -> int:
    """Runs the soak test and prints its report; returns 1 if it has faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--model", default="embedded")
    options = parser.parse_args()
    report = soak(options.clients, options.seconds, options.model)
    print(report)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
