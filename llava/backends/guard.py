"""Stands between this server and an engine's processes, so that none of them outlives it: ``python guard.py COMMAND``.

It waits for the first of two things. The pipe on its standard input ends: whoever started it wants the engine to end,
or is dead, even by SIGKILL. Or the engine's first process ends: then whatever that had started is of no more use.
Either way it ends all of them: SIGTERM, and after a while SIGKILL. Its exit code is the engine's, or 128 and the number
of the signal that ended that. It runs as a file by itself and so imports nothing of this package.
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
_LOOK_S = 0.05
# Source: Linux include/uapi/linux/prctl.h.
_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Run the command until it or standard input ends; returns its exit code."""
    if sys.platform == "linux":
        # Processes whose parent died come to us: what an engine's dead first process had started is still found.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the input is what ends us
    engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_hear_signals)
    is_over = threading.Event()
    threading.Thread(target=_watch_input, args=(is_over,), daemon=True).start()
    while engine.poll() is None and not is_over.wait(_LOOK_S):
        pass
    _end_all(engine)
    code = engine.wait()
    return code if code >= 0 else 128 - code


def _hear_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _watch_input(is_over: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    is_over.set()


def _end_all(engine: subprocess.Popen[bytes]) -> None:
    # An engine that lives ends its own processes in its own order; those of a dead one get a short while.
    lives = engine.poll() is None
    for process in [engine.pid] if lives else _descendants():
        _send(process, signal.SIGTERM)
    deadline = time.monotonic() + (GRACE_S if lives else min(GRACE_S, 2.0))
    while time.monotonic() < deadline and (engine.poll() is None or _descendants()):
        time.sleep(_LOOK_S)
    # New ones may be born while the old ones are counted.
    while left := _descendants():
        for process in left:
            _send(process, signal.SIGKILL)
        time.sleep(_LOOK_S)
    if engine.poll() is None:  # no /proc to find it in
        engine.kill()


def _send(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def _descendants() -> list[int]:
    """All living processes below this one; a dead one that nobody has waited for does not count. Linux only."""
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
