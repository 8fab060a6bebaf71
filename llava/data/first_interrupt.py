"""The first Ctrl-C lets running requests end, since they are paid; the second one ends at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def catch_first_interrupt(stop: Callable[[], object]) -> Iterator[None]:
    """Calls ``stop`` at the first Ctrl-C, in the running event loop; in another thread than the main one, never."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop()

    is_main = threading.current_thread() is threading.main_thread() and sys.platform != "win32"
    before = signal.getsignal(signal.SIGINT) if is_main else None
    if is_main:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if is_main:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)
