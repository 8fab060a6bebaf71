"""A server that looks like an engine's and does what it is told, on nothing but the standard library.

As a program: ``python fake_engine.py --port N`` with the flags below. What a question says decides the answer:

    say WORDS            the words, a piece each               die          it ends at once, by SIGKILL
    status N WORDS       a refusal                             break        two pieces, and the connection is gone
    echo                 the request itself, as JSON           unfinished   two pieces and [DONE], no finish_reason
    wait                 one piece, then nothing for ever      nonsense     an event that is no JSON
    sick N WORDS         such a refusal, once it is sick
    event WORDS          an error as an event of the stream    stranger     news of a choice that was not asked for

GET /seen tells the requests that began and those whose client left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any


class FakeEngine:
    def __init__(self, api_key: str | None = None, models: tuple[str, ...] = ("fake",), usage: bool = True) -> None:
        self.begun: list[dict[str, Any]] = []
        self.num_left = 0
        self.is_sick = False
        self.url = ""
        self._api_key, self._models, self._usage = api_key, models, usage
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=2**26)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            method, path, _ = lines[0].split()
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            await self._answer(method, path, headers, body, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if path in ("/health", "/ready"):
            return await self._reply(writer, 503 if self.is_sick else 200, {})
        if path == "/seen":
            return await self._reply(writer, 200, {"begun": len(self.begun), "left": self.num_left})
        if self._api_key and headers.get("authorization") != f"Bearer {self._api_key}":
            return await self._reply(writer, 401, {"error": {"message": "no key"}})
        if path == "/v1/models":
            listed = [{"id": name, "max_model_len": 4096} for name in self._models]
            return await self._reply(writer, 200, {"data": listed})
        asked = json.loads(body)
        self.begun.append({"path": path, "headers": headers, "body": asked})
        if "prompt" in asked:
            text = asked["prompt"]
        else:
            content = asked["messages"][-1]["content"]
            text = content if isinstance(content, str) else " ".join(p["text"] for p in content if p["type"] == "text")
        return await self._do(_find_order(text), asked, reader, writer)

    async def _do(
        self, order: list[str], asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        what = order[0]
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        while what == "sick" and not self.is_sick:
            await asyncio.sleep(0.02)
        if what in ("status", "sick"):
            extra = {"Retry-After": "7"} if order[1] == "429" else {}
            return await self._reply(writer, int(order[1]), {"error": {"message": " ".join(order[2:])}}, extra)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: hello\n\n")
        pieces = [json.dumps(asked)] if what == "echo" else [f"{word} " for word in order[1:]] or ["one ", "two"]
        is_text = "prompt" in asked
        for index in range(asked.get("n") or 1):
            for piece in pieces if what not in ("wait",) else ["one "]:
                self._say(writer, index, piece, is_text)
            await writer.drain()
        if what == "wait":
            await reader.read()  # ends when the client goes
            self.num_left += 1
            return None
        if what == "break":
            writer.transport.abort()
            return None
        if what == "nonsense":
            writer.write(b"data: {nonsense\n\n")
        if what == "event":
            writer.write(
                b"data: %s\n\n" % json.dumps({"error": {"message": " ".join(order[1:]), "code": 400}}).encode()
            )
        if what == "stranger":
            self._say(writer, 99, "boo", is_text)
        if what != "unfinished":
            for index in range(asked.get("n") or 1):
                self._say(writer, index, "", is_text, "length" if asked["max_tokens"] <= len(pieces) else "stop")
            if self._usage:
                usage = {"prompt_tokens": 11, "completion_tokens": len(pieces) * (asked.get("n") or 1)}
                usage["prompt_tokens_details"] = {"cached_tokens": 5}  # type: ignore[assignment]
                self._event(writer, {"choices": [], "usage": usage})
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
        return None

    def _say(
        self, writer: asyncio.StreamWriter, index: int, text: str, is_text: bool, reason: str | None = None
    ) -> None:
        said: dict[str, Any] = {"text": text} if is_text else {"delta": {"content": text}}
        logprobs = {"content": [{"token": text, "logprob": -0.5, "top_logprobs": [{"token": "x", "logprob": -0.7}]}]}
        choice = {"index": index, **said, "finish_reason": reason, "logprobs": None if is_text or reason else logprobs}
        self._event(writer, {"choices": [choice]})

    def _event(self, writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        writer.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    async def _reply(
        self, writer: asyncio.StreamWriter, status: int, body: dict[str, Any], extra: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(body).encode()
        head = {"Content-Length": str(len(data)), "Connection": "close", **(extra or {})}
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + data)
        await writer.drain()


_ORDERS = "say sick status echo wait event die break unfinished nonsense stranger".split()


def _find_order(text: str) -> list[str]:
    """The words from the last order on, up to what a template writes behind a question."""
    words = text.replace("ASSISTANT:", "").split()
    places = [i for i, word in enumerate(words) if word in _ORDERS]
    return words[places[-1] :] if places else ["say", "yes"]


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--api-key")
    parser.add_argument("--model", default="fake")
    parser.add_argument("--fail", help="say this and end with code 3")
    parser.add_argument("--slow", type=float, default=0, help="seconds until it listens")
    parser.add_argument("--child", action="store_true", help="start a process, and print its id")
    parser.add_argument("--stubborn", action="store_true", help="neither it nor the child ends by SIGTERM")
    parser.add_argument("--once", help="fail from the second start on; this file remembers the first")
    parser.add_argument("--sick-file", help="not healthy while this file exists")
    flags = parser.parse_args()
    print("fake engine starts", flush=True)
    if flags.once:
        if os.path.exists(flags.once):
            flags.fail = "not again"
        open(flags.once, "w").close()
    if flags.fail:
        print(flags.fail, file=sys.stderr)
        sys.exit(3)
    if flags.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if flags.child:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(f"child {child.pid}", flush=True)
    time.sleep(flags.slow)
    engine = FakeEngine(flags.api_key, (flags.model,))
    await engine.start(flags.port)
    while True:
        engine.is_sick = bool(flags.sick_file and os.path.exists(flags.sick_file))
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main())
