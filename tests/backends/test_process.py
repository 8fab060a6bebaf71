"""An engine's process: start, health checks, restarts, giving up, no orphans."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from llava.backends.process import EngineProcess, Launch, Supervision, find_free_port
from llava.errors import EngineClosed, LlavaError

FAKE = Path(__file__).with_name("fake_engine.py")
ROOT = Path(__file__).resolve().parents[2]
# Many times what anything takes here, so that it is waited for on a machine that is busy with other things, too.
PATIENCE_S = 200.0
QUICK = Supervision(
    start_s=PATIENCE_S,
    check_s=0.25,
    unresponsive_s=PATIENCE_S,
    unhealthy_s=0.5,
    first_backoff_s=0.05,
    max_backoff_s=0.2,
    max_deaths=3,
    grace_s=0.5,
)
# Looks wait longer for their answers, and an engine that is sick stays so.
PATIENT = replace(QUICK, check_s=1.0, unhealthy_s=PATIENCE_S)


def launch(*flags: str, name: str = "Fake") -> Launch:
    return Launch(name, lambda port: [sys.executable, str(FAKE), "--port", str(port), *flags])


@asynccontextmanager
async def running(*flags: str, supervision: Supervision = QUICK) -> AsyncIterator[EngineProcess]:
    process = EngineProcess(launch(*flags), supervision)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


def run(task: Callable[[], Awaitable[Any]]) -> Any:
    async def everything() -> Any:
        return await task()

    return asyncio.run(everything())


async def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.02)


def family(pid: int | None) -> list[psutil.Process]:
    """The watchdog and all processes below it."""
    assert pid is not None
    watchdog = psutil.Process(pid)
    return [watchdog, *watchdog.children(recursive=True)]


def living(processes: list[psutil.Process]) -> list[int]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def engine_of(processes: list[psutil.Process]) -> psutil.Process:
    return next(one for one in processes if str(FAKE) in one.cmdline() and "watchdog.py" not in one.cmdline()[1])


def test_it_starts_is_found_healthy_and_ends_with_all_that_it_started() -> None:
    said: list[str] = []

    async def task() -> None:
        process = EngineProcess(launch("--child", "--slow", "0.3"), QUICK, said.append)
        await process.start()
        assert process.state == "ready"
        process.check_alive()
        family_ = family(process.pid)
        assert len(family_) == 3  # watchdog, engine, child
        assert "fake engine starts" in process.last_output()
        await process.stop()
        assert living(family_) == []
        with pytest.raises(EngineClosed, match="Fake is not running"):
            process.check_alive()
        await process.stop()  # which is idempotent

    run(task)
    assert said[-1].startswith("Fake is ready after ")


def test_one_that_does_not_come_up_is_told_by_its_last_words() -> None:
    async def task() -> None:
        process = EngineProcess(launch("--fail", "no memory left"), QUICK)
        with pytest.raises(LlavaError, match=r"Fake exited with code 3 before it was ready(?s:.*)no memory left"):
            await process.start()
        assert process.state == "stopped"
        assert process.pid is None

    run(task)


def test_one_that_takes_too_long_is_ended() -> None:
    async def task() -> None:
        process = EngineProcess(launch("--slow", "600", "--child"), QUICK)
        starting = asyncio.create_task(process.start())
        await until(lambda: process.pid is not None and len(family(process.pid)) == 3)
        family_ = family(process.pid)
        process._supervision = replace(QUICK, start_s=0.1)  # not before there is somebody to be ended
        with pytest.raises(LlavaError, match=r"not ready after 0\.1 s"):
            await starting
        assert living(family_) == []

    run(task)


def test_a_command_that_is_not_there_is_told() -> None:
    async def task() -> None:
        process = EngineProcess(Launch("Ghost", lambda port: ["/no/such/program"]), QUICK)
        with pytest.raises(LlavaError, match=r"Ghost exited with code 1(?s:.*)/no/such/program"):
            await process.start()

    run(task)


def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    async def task() -> None:
        process = EngineProcess(launch("--slow", "600"), QUICK)
        starting = asyncio.create_task(process.start())
        await until(lambda: process.pid is not None and len(family(process.pid)) == 2)
        family_ = family(process.pid)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert living(family_) == []

    run(task)


def test_one_that_is_killed_is_started_again_on_another_port_and_its_child_is_gone() -> None:
    async def task() -> None:
        async with running("--child") as process:
            deaths: list[int] = []
            process.on_death(lambda: deaths.append(1))
            port, family_ = process.port, family(process.pid)
            engine_of(family_).kill()
            await until(lambda: process.state != "ready")
            with pytest.raises(EngineClosed, match="being restarted"):
                process.check_alive()
            await until(lambda: process.state == "ready")
            assert living(family_) == []
            assert (process.num_starts, len(deaths)) == (2, 1)
            assert process.port != port
            process.check_alive()

    run(task)


def test_a_killed_watchdog_takes_no_engine_into_oblivion() -> None:
    async def task() -> None:
        async with running("--child") as process:
            family_ = family(process.pid)
            family_[0].kill()
            await until(lambda: process.num_starts == 2 and process.state == "ready")
            await until(lambda: living(family_) == [])  # killed, but nobody is left who would wait for their end

    run(task)


def test_one_that_is_sick_for_too_long_is_ended_and_started_again(tmp_path: Path) -> None:
    sick = tmp_path / "sick"

    async def task() -> None:
        async with running("--sick-file", str(sick)) as process:
            family_ = family(process.pid)
            sick.touch()
            await until(lambda: process.state == "waiting")
            sick.unlink()
            await until(lambda: process.state == "ready")
            assert living(family_) == []

    run(task)


def test_a_short_sickness_is_waited_out(tmp_path: Path) -> None:
    sick = tmp_path / "sick"

    async def task() -> None:
        async with running("--sick-file", str(sick), supervision=PATIENT) as process:
            sick.touch()
            await until(lambda: process.is_broken)
            with pytest.raises(EngineClosed, match="being restarted"):
                process.check_alive()
            sick.unlink()
            await until(lambda: not process.is_broken)
            process.check_alive()
            assert process.num_starts == 1

    run(task)


def test_one_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    async def task() -> None:
        async with running("--once", str(tmp_path / "was here")) as process:
            engine_of(family(process.pid)).kill()
            await until(lambda: process.state == "given up")
            assert process.num_starts == 3  # the first, and two that failed: three deaths
            with pytest.raises(EngineClosed, match="died 3 times within 600 s and is not restarted"):
                process.check_alive()
            assert "not again" in process.last_output()

    run(task)


def test_one_that_does_not_listen_to_sigterm_is_ended_after_the_grace() -> None:
    async def task() -> None:
        process = EngineProcess(launch("--stubborn", "--child"), QUICK)
        await process.start()
        family_ = family(process.pid)
        began = time.monotonic()
        await process.stop()
        assert living(family_) == []
        assert time.monotonic() - began > QUICK.grace_s

    run(task)


def test_stopping_while_it_is_being_started_again_ends_that_too(tmp_path: Path) -> None:
    async def task() -> None:
        process = EngineProcess(launch("--slow", "0.5"), QUICK)
        await process.start()
        engine_of(family(process.pid)).kill()
        await until(lambda: process.num_starts == 2 and process.pid is not None)
        await until(lambda: len(family(process.pid)) == 2)
        family_ = family(process.pid)
        await process.stop()
        assert living(family_) == []
        assert process.state == "stopped"

    run(task)


def test_a_server_that_is_killed_leaves_no_engine_behind(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from llava.backends.process import Supervision, EngineProcess, Launch\n"
        "async def main():\n"
        f"    command = lambda port: [sys.executable, {str(FAKE)!r}, '--port', str(port), '--child', '--stubborn']\n"
        "    process = EngineProcess(Launch('Fake', command), Supervision(grace_s=0.3))\n"
        "    await process.start()\n"
        "    print(process.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    family_ = family(int(server.stdout.readline()))
    server.stdout.close()
    assert len(living(family_)) == 3
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    asyncio.run(until(lambda: living(family_) == []))


def test_a_free_port_is_free_and_no_other_program_is_given_it() -> None:
    import socket

    port = find_free_port()
    with socket.create_server(("127.0.0.1", port)):
        pass
    assert port < 32768
