"""A watchdog between server and engine, so that no engine process outlives the server: ``python watchdog.py COMMAND``.

It waits for the first of two events. Either its standard input reaches EOF: the server wants the engine to end, or has
died itself, even by SIGKILL. Or the engine's main process exits: its other processes are of no more use. In both cases
it ends all of them, with SIGTERM and after a grace period with SIGKILL. Its exit code is the engine's, or 128 plus the
number of the signal that killed the engine. It runs as a script of its own, so it imports nothing of this package.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_S = float(os.environ.get("LLAVA_ENGINE_GRACE_S", "15"))
_POLL_S = 0.05
# Source: Linux include/uapi/linux/prctl.h.
_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Runs the command until it exits or standard input ends; returns its exit code."""
    if sys.platform == "linux":
        # Orphans are reparented to us, so the children of an engine's dead main process are still found.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of standard input ends the watchdog
    engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_restore_signals)
    is_over = threading.Event()
    threading.Thread(target=_watch_input, args=(is_over,), daemon=True).start()
    while engine.poll() is None and not is_over.wait(_POLL_S):
        pass
    _end_all(engine)
    code = engine.wait()
    return code if code >= 0 else 128 - code


def _restore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _watch_input(is_over: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    is_over.set()


def _end_all(engine: subprocess.Popen[bytes]) -> None:
    # A living engine shuts down its own processes in its own order; those of a dead one get a short grace period.
    is_alive = engine.poll() is None
    for process in [engine.pid] if is_alive else _descendants():
        _send(process, signal.SIGTERM)
    deadline = time.monotonic() + (GRACE_S if is_alive else min(GRACE_S, 2.0))
    while time.monotonic() < deadline and (engine.poll() is None or _descendants()):
        time.sleep(_POLL_S)
    # More may be started while these are listed.
    while left := _descendants():
        for process in left:
            _send(process, signal.SIGKILL)
        time.sleep(_POLL_S)
    if engine.poll() is None:  # there is no /proc, so it was not listed
        engine.kill()


def _send(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def _descendants() -> list[int]:
    """All living descendants of this process, without zombies. Empty where there is no /proc."""
    parents: dict[int, int] = {}
    dead = set()
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        parents[int(name)] = int(parent)
        if state in "ZX":
            dead.add(int(name))
    found = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - dead - {os.getpid()})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
