"""Runs an engine's own server as a child process: starts, supervises and restarts it, and stops it with this server.

``Launch`` describes how one is started; ``EngineProcess`` keeps one alive on a private port of this machine. When the
process dies its open answers fail (their connections break, which ``Remote`` reports), and until the next one is
healthy ``check_alive`` raises an error that says why. The states:

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

from llava.errors import EngineClosed, LlavaError, UsageError

_log = logging.getLogger("llava.engine")

State = Literal["stopped", "starting", "ready", "waiting", "given up"]
_WATCHDOG = Path(__file__).with_name("watchdog.py")
_KEPT_LINES = 200
_SHOWN_LINES = 12
_MAX_LINE_CHARS = 400


@dataclass(frozen=True)
class Launch:
    """How an engine's server is started: the command for a port, and what is added to our environment."""

    name: str
    """The engine's name in messages, such as "SGLang"."""
    command: Callable[[int], Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    api_key: str | None = None


@dataclass(frozen=True)
class Supervision:
    """How an engine is supervised: health checks, restarts with backoff, and shutdown. Times are seconds.

    Raises UsageError for a startup timeout that is not above 0.
    """

    start_s: float = 1800.0
    """The startup timeout: large weights come from slow disks, and kernels are compiled."""
    check_s: float = 2.0
    """The interval of health checks, and their timeout."""
    unresponsive_s: float = 60.0
    """It is restarted when its health check has not answered for this long; a busy engine may be slow to answer."""
    unhealthy_s: float = 10.0
    """It is restarted when it has reported itself unhealthy for this long, as vLLM does when its workers died."""
    first_backoff_s: float = 1.0
    """The backoff before a restart; doubled with each recent death, up to ``max_backoff_s``."""
    max_backoff_s: float = 60.0
    max_deaths: int = 5
    """After this many deaths within ``window_s`` it is not restarted any more."""
    window_s: float = 600.0
    grace_s: float = 15.0
    """The time between SIGTERM and SIGKILL."""

    def __post_init__(self) -> None:
        if not self.start_s > 0:
            raise UsageError(f"The engine's startup timeout is {self.start_s} s; it has to be above 0.")


class EngineProcess:
    """Keeps one engine's server alive. ``on_progress`` gets sentences for the user who waits for the start."""

    def __init__(
        self, launch: Launch, supervision: Supervision = Supervision(), on_progress: Callable[[str], None] | None = None
    ) -> None:
        self.state: State = "stopped"
        self.port = 0
        self.num_starts = 0
        self.is_broken = False  # its health check reports an error
        self._launch = launch
        self._supervision = supervision
        self._on_progress = on_progress or _log.info
        self._watchdog: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._deaths: deque[float] = deque()
        self._death_callbacks: list[Callable[[], None]] = []

    @property
    def url(self) -> str:
        """Where the engine listens now; another port after each start."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The watchdog's process id, the parent of all of the engine's processes."""
        return None if self._watchdog is None else self._watchdog.pid

    def on_death(self, call: Callable[[], None]) -> None:
        """Registers a callback that runs at each death, before the restart."""
        self._death_callbacks.append(call)

    async def start(self) -> None:
        """Starts it and waits until it is healthy. Raises LlavaError with the last lines of its output."""
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
        """Ends it and all its processes. Idempotent."""
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
                f"{name} died {len(self._deaths)} times within {self._supervision.window_s:g} s and is not restarted. "
                "See the server's log for its output, and restart the server."
            )
        if self.state == "stopped":
            raise EngineClosed(f"{name} is not running.")
        if self.state != "ready" or self.is_broken:
            raise EngineClosed(f"{name} died and is being restarted. Try again later.")

    async def is_healthy(self) -> bool:
        """Whether its health check succeeds now."""
        if self.state != "ready" or self._watchdog is None or self._watchdog.returncode is not None:
            return False
        async with httpx.AsyncClient(trust_env=False) as client:
            return await self._is_healthy(client)

    def last_output(self, num_lines: int = _SHOWN_LINES) -> str:
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
            "LLAVA_ENGINE_GRACE_S": str(self._supervision.grace_s),
        }
        creating = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                str(_WATCHDOG),
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this server, which stops the engine in order
                limit=2**20,
            )
        )
        try:
            self._watchdog = await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._watchdog = await creating  # so that ``_end`` can stop it
            raise
        except OSError as error:
            raise LlavaError(f"{self._launch.name} cannot be started: {error.strerror}.") from error
        self._reading = asyncio.create_task(self._read(self._watchdog))

    async def _read(self, watchdog: asyncio.subprocess.Process) -> None:
        """Logs the engine's output and keeps its last lines. An unread pipe would block the engine."""
        assert watchdog.stdout is not None
        while True:
            try:
                line = await watchdog.stdout.readline()
            except ValueError:  # longer than the limit: asyncio has dropped it
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
                assert self._watchdog is not None
                waited_s = time.monotonic() - began
                if self._watchdog.returncode is not None:
                    await self._drain_output()
                    raise LlavaError(
                        f"{name} exited with code {self._watchdog.returncode} before it was ready. Last output:\n"
                        f"{self.last_output()}"
                    )
                if waited_s > self._supervision.start_s:
                    raise LlavaError(
                        f"{name} was not ready after {self._supervision.start_s:g} s and was stopped. Last output:\n"
                        f"{self.last_output()}"
                    )
                if waited_s > next_word_s:
                    last = f": {self._lines[-1][:100]}" if self._lines else ""
                    self._on_progress(f"{name} is starting, {waited_s:.0f} s{last}")
                    next_word_s += max(5.0, waited_s / 4)
                await asyncio.sleep(min(0.25, self._supervision.check_s))
        self._on_progress(f"{name} is ready after {time.monotonic() - began:.1f} s.")

    async def _drain_output(self) -> None:
        """Waits until the output of an engine that has exited is read."""
        if self._reading is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reading), 2.0)

    async def _is_healthy(self, client: httpx.AsyncClient) -> bool:
        try:
            answer = await client.get(self.url + self._launch.health_path, timeout=self._supervision.check_s)
        except httpx.HTTPError:
            return False
        self.is_broken = answer.status_code != 200
        return not self.is_broken

    async def _watch(self) -> None:
        """Waits for a death and restarts the engine, until ``stop``."""
        while True:
            why = await self._wait_for_death()
            self.state = "waiting"
            for call in self._death_callbacks:
                call()
            await self._end()
            now = time.monotonic()
            self._deaths.append(now)
            while now - self._deaths[0] > self._supervision.window_s:
                self._deaths.popleft()
            _log.error("%s %s. Last output:\n%s", self._launch.name, why, self.last_output())
            if len(self._deaths) >= self._supervision.max_deaths:
                self.state = "given up"
                _log.error("%s died %d times and is not restarted any more.", self._launch.name, len(self._deaths))
                return
            wait_s = min(
                self._supervision.first_backoff_s * 2 ** (len(self._deaths) - 1), self._supervision.max_backoff_s
            )
            _log.warning("restarting %s in %g s", self._launch.name, wait_s)
            await asyncio.sleep(wait_s)
            try:
                await self._begin()
                await self._wait_until_healthy()
            except LlavaError as error:
                _log.error("%s", error)
                continue  # an engine that did not start counts as dead: the loop sees it at once
            self.state = "ready"

    async def _wait_for_death(self) -> str:
        """Returns why the engine counts as dead: it exited, or was unhealthy for too long."""
        watchdog = self._watchdog
        if watchdog is None or self.state != "ready":
            return "did not come up"
        healthy_at = time.monotonic()
        async with httpx.AsyncClient(trust_env=False) as client:
            while not await _has_ended(watchdog, self._supervision.check_s):
                if await self._is_healthy(client):
                    healthy_at = time.monotonic()
                elif watchdog.returncode is None:
                    limit_s = self._supervision.unhealthy_s if self.is_broken else self._supervision.unresponsive_s
                    if time.monotonic() - healthy_at > limit_s:
                        return f"was unhealthy for {limit_s:g} s and is stopped"
        await self._drain_output()
        return f"exited with code {watchdog.returncode}"

    async def _end(self) -> None:
        """Closes the watchdog's standard input, which ends the engine, and waits until all processes are gone."""
        watchdog = self._watchdog
        if watchdog is None:
            return
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        await _has_ended(watchdog, self._supervision.grace_s + 10)
        if (
            watchdog.returncode is None or watchdog.returncode < 0
        ):  # it hangs or was killed: end its group, the engine's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(watchdog.pid, signal.SIGKILL)
        await watchdog.wait()
        reading, self._reading = self._reading, None
        if reading is not None:
            await asyncio.wait([reading], timeout=2.0)
            reading.cancel()
        self._watchdog = None  # not before: if this is cancelled on the way, the next call does the rest


async def _has_ended(watchdog: asyncio.subprocess.Process, seconds: float) -> bool:
    """Whether a process exits within so many seconds.

    asyncio's ``wait`` is not used: it also waits for EOF on the output pipe, which the engine's processes share.
    """
    end = time.monotonic() + seconds
    while watchdog.returncode is None and time.monotonic() < end:
        await asyncio.sleep(min(0.05, seconds))
    return watchdog.returncode is not None


def find_free_port() -> int:
    """A port of 127.0.0.1 that is free now.

    It is below the ephemeral range (which begins at 32768 or higher): an ephemeral port could be taken by another
    process in the seconds or minutes until the engine listens.
    """
    draw = random.SystemRandom()  # unseeded: two servers started alike must not choose the same ports
    for port in [*(draw.randrange(20_000, 30_000) for _ in range(100)), 0]:
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return int(found.getsockname()[1])
    raise LlavaError("There is no free port on 127.0.0.1.")
