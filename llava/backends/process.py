"""An engine's own server as a process of ours: started, watched, started again when it dies, and ended with us.

``Launch`` says how one is started; ``EngineProcess`` keeps one alive on a private port of this machine. A process that
dies takes its open answers with it (their connections break, which ``Remote`` says), and until the next one is healthy
there is none to ask: ``check_alive`` says why. The life of an engine:

    starting -> ready -> dead, waiting -> starting ...   until ``stop``, or too many deaths: given up
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import shlex
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx2 as httpx

from llava.errors import EngineClosed, LlavaError

_log = logging.getLogger("llava.engine")

State = Literal["stopped", "starting", "ready", "waiting", "given up"]
_GUARD = Path(__file__).with_name("guard.py")
_KEPT_LINES = 200
_SHOWN_LINES = 12
_MAX_LINE_CHARS = 400


@dataclass(frozen=True)
class Launch:
    """How an engine's server is started: the command for a port, and what its environment has beside ours."""

    name: str
    """What to call it in messages, as "SGLang"."""
    command: Callable[[int], Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    api_key: str | None = None


@dataclass(frozen=True)
class Care:
    """How an engine is looked after. Times are seconds."""

    start_s: float = 1800.0
    """Until it is healthy: large weights come from slow disks, and kernels are compiled."""
    look_s: float = 2.0
    """Between two looks at its health, and for the answer to one."""
    sick_s: float = 60.0
    """So long without an answer about its health, and it is ended and started again: a busy one may be slow to tell."""
    broken_s: float = 10.0
    """So long with nothing but the answer that it is not healthy: vLLM says so when its workers are dead."""
    first_wait_s: float = 1.0
    """Before it is started again; doubled with each death in a row, up to ``longest_wait_s``."""
    longest_wait_s: float = 60.0
    most_deaths: int = 5
    """So many within ``window_s``, and it is given up."""
    window_s: float = 600.0
    grace_s: float = 15.0
    """Between asking it to end and ending it."""


class EngineProcess:
    """One engine's server, kept alive. ``on_progress`` gets sentences for the person who waits for the start."""

    def __init__(self, launch: Launch, care: Care = Care(), on_progress: Callable[[str], None] | None = None) -> None:
        self.state: State = "stopped"
        self.port = 0
        self.num_starts = 0
        self.is_broken = False  # it says itself that it is not healthy
        self._launch = launch
        self._care = care
        self._on_progress = on_progress or _log.info
        self._guard: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._deaths: deque[float] = deque()
        self._on_death: list[Callable[[], None]] = []

    @property
    def url(self) -> str:
        """Where the engine listens now; another port after each start."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Of the process that all of the engine's are below."""
        return None if self._guard is None else self._guard.pid

    def when_dead(self, call: Callable[[], None]) -> None:
        """``call`` is made at each death, before the engine is started again."""
        self._on_death.append(call)

    async def start(self) -> None:
        """Starts it and waits until it is healthy. Raises LlavaError with the last lines that it said."""
        assert self.state == "stopped"
        try:
            await self._begin()
            await self._wait_until_healthy()
        except BaseException:
            await self._end()
            self.state = "stopped"
            raise
        self.state = "ready"
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Ends it and everything that it started. Again is harmless."""
        self.state = "stopped"
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        await self._end()

    def check_alive(self) -> None:
        """Raises EngineClosed unless it can be asked now."""
        name = self._launch.name
        if self.state == "given up":
            raise EngineClosed(
                f"{name} died {len(self._deaths)} times within {self._care.window_s:g} s and was given up. "
                "See the server's log for what it said, and start the server again."
            )
        if self.state == "stopped":
            raise EngineClosed(f"{name} does not run.")
        if self.state != "ready" or self.is_broken:
            raise EngineClosed(f"{name} died and is being started again. Ask again later.")

    async def look(self) -> bool:
        """Whether it is healthy at this moment."""
        if self.state != "ready" or self._guard is None or self._guard.returncode is not None:
            return False
        async with httpx.AsyncClient(trust_env=False) as client:
            return await self._is_healthy(client)

    def last_words(self, num_lines: int = _SHOWN_LINES) -> str:
        """The last lines of the engine's output, indented."""
        lines = list(self._lines)[-num_lines:]
        return "\n".join(f"    {line}" for line in lines) if lines else "    (nothing)"

    async def _begin(self) -> None:
        self.state = "starting"
        self.num_starts += 1
        self.is_broken = False
        self._lines.clear()
        self.port = find_free_port()
        command = list(self._launch.command(self.port))
        shown = shlex.join("KEY" if word == self._launch.api_key else word for word in command)
        self._on_progress(f"Starting {self._launch.name}: {shown}")
        environment = {
            **os.environ,
            **self._launch.environment,
            "PYTHONUNBUFFERED": "1",
            "LLAVA_ENGINE_GRACE_S": str(self._care.grace_s),
        }
        creating = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                str(_GUARD),
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us, who end it in our own time
                limit=2**20,
            )
        )
        try:
            self._guard = await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._guard = await creating  # or nobody would know of it
            raise
        except OSError as error:
            raise LlavaError(f"{self._launch.name} cannot be started: {error.strerror}.") from error
        self._reading = asyncio.create_task(self._read(self._guard))

    async def _read(self, guard: asyncio.subprocess.Process) -> None:
        """Keeps the engine's last lines and logs all of them: an unread pipe would stop it."""
        assert guard.stdout is not None
        while True:
            try:
                line = await guard.stdout.readline()
            except ValueError:  # longer than the limit: what was read of it is gone
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()[:_MAX_LINE_CHARS]
            if text:
                self._lines.append(text)
                _log.debug("%s: %s", self._launch.name, text)

    async def _wait_until_healthy(self) -> None:
        name, began = self._launch.name, time.monotonic()
        next_word_s = 5.0
        async with httpx.AsyncClient(trust_env=False) as client:
            while not await self._is_healthy(client):
                assert self._guard is not None
                waited_s = time.monotonic() - began
                if self._guard.returncode is not None:
                    await self._hear_out()
                    raise LlavaError(
                        f"{name} ended with code {self._guard.returncode} before it was ready. It said last:\n"
                        f"{self.last_words()}"
                    )
                if waited_s > self._care.start_s:
                    raise LlavaError(
                        f"{name} was not ready after {self._care.start_s:g} s and was given up. It said last:\n"
                        f"{self.last_words()}"
                    )
                if waited_s > next_word_s:
                    last = f": {self._lines[-1][:100]}" if self._lines else ""
                    self._on_progress(f"{name} is starting, {waited_s:.0f} s{last}")
                    next_word_s += max(5.0, waited_s / 4)
                await asyncio.sleep(min(0.25, self._care.look_s))
        self._on_progress(f"{name} is ready after {time.monotonic() - began:.1f} s.")

    async def _hear_out(self) -> None:
        """Waits for the end of what an ended engine said."""
        if self._reading is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reading), 2.0)

    async def _is_healthy(self, client: httpx.AsyncClient) -> bool:
        try:
            answer = await client.get(self.url + self._launch.health_path, timeout=self._care.look_s)
        except httpx.HTTPError:
            return False
        self.is_broken = answer.status_code != 200
        return not self.is_broken

    async def _watch(self) -> None:
        """Until ``stop``: waits for a death, and starts the engine again."""
        while True:
            why = await self._wait_for_death()
            self.state = "waiting"
            for call in self._on_death:
                call()
            await self._end()
            now = time.monotonic()
            self._deaths.append(now)
            while now - self._deaths[0] > self._care.window_s:
                self._deaths.popleft()
            _log.error("%s %s. It said last:\n%s", self._launch.name, why, self.last_words())
            if len(self._deaths) >= self._care.most_deaths:
                self.state = "given up"
                _log.error("%s is given up after %d deaths.", self._launch.name, len(self._deaths))
                return
            wait_s = min(self._care.first_wait_s * 2 ** (len(self._deaths) - 1), self._care.longest_wait_s)
            _log.warning("%s is started again in %g s.", self._launch.name, wait_s)
            await asyncio.sleep(wait_s)
            try:
                await self._begin()
                await self._wait_until_healthy()
            except LlavaError as error:
                _log.error("%s", error)
                continue  # an engine that did not come up is dead: the loop sees it at once
            self.state = "ready"

    async def _wait_for_death(self) -> str:
        """Returns what happened: the process ended, or was not healthy for too long."""
        guard = self._guard
        if guard is None or self.state != "ready":
            return "did not come up"
        healthy_at = time.monotonic()
        async with httpx.AsyncClient(trust_env=False) as client:
            while not await _has_ended(guard, self._care.look_s):
                if await self._is_healthy(client):
                    healthy_at = time.monotonic()
                elif guard.returncode is None:
                    limit_s = self._care.broken_s if self.is_broken else self._care.sick_s
                    if time.monotonic() - healthy_at > limit_s:
                        return f"was not healthy for {limit_s:g} s and is ended"
        await self._hear_out()
        return f"ended with code {guard.returncode}"

    async def _end(self) -> None:
        """Ends the guard by the end of its input, and with it the engine; waits until all are gone."""
        guard = self._guard
        if guard is None:
            return
        assert guard.stdin is not None
        guard.stdin.close()
        await _has_ended(guard, self._care.grace_s + 10)
        if guard.returncode is None or guard.returncode < 0:  # it hangs or was killed: end its group, the engine's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(guard.pid, signal.SIGKILL)
        await guard.wait()
        reading, self._reading = self._reading, None
        if reading is not None:
            await asyncio.wait([reading], timeout=2.0)
            reading.cancel()
        self._guard = None  # not before: whoever is cancelled on the way here leaves the rest to the next


async def _has_ended(guard: asyncio.subprocess.Process, seconds: float) -> bool:
    """Waits so long for the end of a process. Its own ``wait`` waits for the end of its output too, which is shared."""
    end = time.monotonic() + seconds
    while guard.returncode is None and time.monotonic() < end:
        await asyncio.sleep(min(0.05, seconds))
    return guard.returncode is not None


def find_free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now.

    It is below those that systems hand out by themselves (from 32768 up, or higher): one of these could be given to
    somebody else in the seconds or minutes that an engine takes until it listens.
    """
    draw = random.SystemRandom()  # no seed: two servers that begin alike must not find the same
    for port in [*(draw.randrange(20_000, 30_000) for _ in range(100)), 0]:
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return int(found.getsockname()[1])
    raise LlavaError("There is no free port on 127.0.0.1.")
