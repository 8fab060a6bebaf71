"""What a worker process does when it starts, so that it ends with the command that started it."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import parent_process


def start_worker() -> None:
    """To be called first in a worker: leaves Ctrl-C to its parent, and ends when that ends, also by ``kill -9``.

    The workers of a pool wait for their next task at a pipe that they hold open themselves, so none would end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
