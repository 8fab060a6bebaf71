"""What is told when one of several processes fails or is killed: once, by the process that knows the cause.

The process that fails prints its error and ends, and torchrun ends the others and says which one was the first. Those
wait in a collective operation, which fails when its connections close; here that failure becomes a sentence that names
the process that is gone. An error that all processes have, such as a wrong setting, is printed by the first one.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore

from llava.errors import LlavaError, Notice, ToldElsewhere, TrainingStopped
from llava.train.devices.parallel import count_processes, read_rank

# Parts of the errors that gloo and NCCL raise where another process is gone or does not answer.
_LOST = (
    *("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "Socket closed"),
    *("Timed out waiting", "gloo/transport", "NCCL", "Watchdog caught collective"),
    "Application timeout caused pair closure",
)
_EXPLAINED: set[int] = set()
_PLACE, _FAULT = "llava/process/", "llava/fault"
_GRACE_S = 5.0


class PeerLost(LlavaError):
    """Another process of this training has ended, so that this one cannot go on."""


@contextmanager
def explaining_rank_faults() -> Iterator[None]:
    """Inside the block, a failure says on which process it happened, or which other process is gone.

    Raises:
        PeerLost: another process was killed, or does not answer.
        ToldElsewhere: another process prints the cause, which may be this process's own error.
    """
    if count_processes() == 1:
        yield
        return
    store = _connect()
    if store is not None:
        store.set(f"{_PLACE}{read_rank()}", f"{os.getpid()} {socket.gethostname()}")
    try:
        yield
    except (TrainingStopped, PeerLost, ToldElsewhere):
        raise
    except Exception as error:
        if id(error) in _EXPLAINED:  # by a block inside this one
            raise
        _EXPLAINED.add(id(error))
        if is_peer_lost(error):
            lost = _find_cause(store, error)
            _tell_once(store, lost)
            raise lost from error
        if store is not None:
            _claim(store, _FAULT)
        if isinstance(error, LlavaError):
            _tell_once(store, error)
            error.args = (f"Process {read_rank()} of {count_processes()}: {error}", *error.args[1:])
        raise


@contextmanager
def told_by_first_process() -> Iterator[None]:
    """Inside the block only the first process warns of what all of them notice."""
    with warnings.catch_warnings():
        if read_rank() != 0:
            warnings.simplefilter("ignore", Notice)
        yield


def is_peer_lost(error: BaseException) -> bool:
    """Whether the error comes from a collective operation in which another process did not take part."""
    if isinstance(error, distributed.DistBackendError | distributed.DistNetworkError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST)


def _connect() -> Any:
    """The store that torchrun's agent keeps for all processes; None where another launcher started them."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    try:
        store = distributed.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=10)
        )
    except (RuntimeError, KeyError, ValueError):
        return None
    return PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)


def _tell_once(store: Any, error: LlavaError) -> None:
    """Raises ToldElsewhere where another process tells the same."""
    digest = hashlib.sha256(str(error).encode()).hexdigest()
    if store is not None and not _claim(store, f"{_FAULT}/{digest}"):
        told = ToldElsewhere(str(error))
        told.exit_code = error.exit_code
        raise told from error


def _claim(store: Any, key: str) -> bool:
    """Whether this process is the first one to have that key."""
    own = str(read_rank())
    try:
        return bytes(store.compare_set(key, "", own)) == own.encode()
    except RuntimeError:  # the agent is gone
        return True


def _find_cause(store: Any, error: BaseException) -> LlavaError:
    """Why another process did not take part. It may take a moment until this is known."""
    ends_at = time.monotonic() + _GRACE_S
    while store is not None:
        if (rank := _read(store, _FAULT)) is not None:
            return ToldElsewhere(f"Process {rank} failed.")
        if gone := _find_gone(store):
            return PeerLost(f"{gone} was killed or has crashed, so the others stop. torchrun says by which signal.")
        if time.monotonic() > ends_at:
            break
        time.sleep(0.1)
    detail = str(error).strip().splitlines()[0]
    return PeerLost(
        f"Process {read_rank()} of {count_processes()} stops, because another one has ended or does not answer. The "
        f"output of that one says why. ({detail})"
    )


def _find_gone(store: Any) -> str | None:
    """The process on this machine that is gone, if there is one."""
    for rank in range(count_processes()):
        pid, _, host = (_read(store, f"{_PLACE}{rank}") or "").partition(" ")
        if rank == read_rank() or host != socket.gethostname():
            continue
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return f"Process {rank} of {count_processes()} (pid {pid})"
        except (OSError, ValueError):
            continue
    return None


def _read(store: Any, key: str) -> str | None:
    try:
        return bytes(store.get(key)).decode() if store.check([key]) else None
    except RuntimeError:
        return None
