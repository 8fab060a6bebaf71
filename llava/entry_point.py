"""Runs a command: what it raises becomes one sentence on stderr and an exit code, and notices become lines there."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from llava.deferred_imports import deferring_imports
from llava.errors import LlavaError, Notice, ToldElsewhere
from llava.text import Printer, give_up, open_streams, write_line

INTERRUPTED = 130
BROKEN_PIPE = 141

# An OSError with one of these numbers and no file name is a failed write to standard output.
_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def run_command(work: Callable[[], int]) -> int:
    """The exit code that ``work`` returns, or the one that belongs to the error it raises.

    An error is printed to stderr as one sentence. The standard streams accept any text while ``work`` runs, and notices
    are printed to stderr as lines.
    """
    open_streams()
    try:
        with _notices_as_lines():
            code = work()
        sys.stdout.flush()  # so that a closed pipe is detected here and not at interpreter exit
        return code
    except ToldElsewhere as error:
        return error.exit_code
    except LlavaError as error:
        return print_error(str(error), error.exit_code)
    except KeyboardInterrupt:
        write_line("")
        return INTERRUPTED
    except BrokenPipeError:
        give_up(sys.stdout)
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is None and error.errno not in _NOT_WRITTEN:
            raise
        if error.filename is None:
            give_up(sys.stdout)
            return print_error(f"Standard output cannot be written: {error.strerror}.", LlavaError.exit_code)
        return print_error(f"{error.strerror}: {error.filename}", LlavaError.exit_code)


def print_error(sentence: str, exit_code: int) -> int:
    """Returns ``exit_code`` after flushing stdout and then printing the sentence to stderr."""
    try:
        sys.stdout.flush()
    except OSError:
        give_up(sys.stdout)
    write_line(f"llava: error: {sentence}")
    return exit_code


def check_written(printer: Printer) -> None:
    """Prints to stderr what could not be written to stdout, and then raises LlavaError."""
    if printer.failure:
        write_line(printer.text)
        raise LlavaError(f"Standard output cannot be written ({printer.failure}); the output is above.")


@contextlib.contextmanager
def _notices_as_lines() -> Iterator[None]:
    """Prints each Notice, a warning in Python code, as a line on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        show_others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                write_line(f"llava: {message}")
            else:
                show_others(message, category, *rest, **more)

        warnings.showwarning = show
        yield


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Imports torch, and Transformers without what answering on a CPU never uses (``deferred_imports``).

    Garbage collection is disabled meanwhile, leaves what was imported alone afterwards, and is skipped when the process
    ends: both libraries create a million objects that all stay alive, and scanning them takes a seventh of a command's
    start, a tenth of a second in the middle of the first answer, and up to a second of its end.
    """
    was_enabled, num_modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    try:
        with deferring_imports():
            yield
    finally:
        if len(sys.modules) > num_modules:
            gc.freeze()
        if was_enabled:
            gc.enable()
