"""What stops a training: a loss that is not a number, a device or a disk that is full, and Ctrl-C.

Each becomes one error that says what happened, in which batch, and what to do. Weights are not updated by the step that
failed, so the last checkpoint stays the last good one.
"""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llava.errors import LlavaError
from llava.train.resumption import find_last

# Texts of a RuntimeError where a CPU or a library of CUDA's has no memory.
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
_NO_SPACE = ("no space left on device", "disk quota exceeded", "file too large")
# What torch.save says, in place of the system's reason, where a write failed: which of them depends on the place.
_NOT_WRITTEN = ("pytorchstreamwriter failed writing", "unexpected pos", "iostream error")
_MOST_NAMES = 64


class StopSignal:
    """Whether SIGINT (Ctrl-C) or SIGTERM has arrived, so that training stops after the current step."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None


@contextmanager
def catching_stop_signals() -> Iterator[StopSignal]:
    """While it lasts, the first Ctrl-C or SIGTERM is only noted, and the second one interrupts at once."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def note(number: int, _frame: Any) -> None:
        stop.number = number
        for kind in kinds:
            signal.signal(kind, before[kind])

    for kind in kinds:
        signal.signal(kind, note)
    try:
        yield stop
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])


def name_samples(names: Sequence[str]) -> str:
    """The samples of a batch as a part of a sentence."""
    if not names:
        return "a batch whose samples have no names"
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"sample{'s' if len(names) > 1 else ''} {', '.join(names[:_MOST_NAMES])}{rest}"


def say_last_checkpoint(folder: Path) -> str:
    """Which checkpoint of the run is the last good one, as a sentence."""
    last = find_last(folder)
    if last is None:
        return "No checkpoint was written before."
    return f"The last good checkpoint is {last}; the same command resumes from it."


def not_finite(what: str, value: float, step: int, names: Sequence[str], folder: Path) -> LlavaError:
    """The error for a loss or a gradient norm that is NaN or infinite in update number ``step``, from 1 on."""
    return LlavaError(
        f"The {what} is {value:g} in step {step}, on {name_samples(names)}. Training stopped before this step changed "
        f"the weights. {say_last_checkpoint(folder)} Lower lr, lengthen warmup, or remove damaged samples."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that a device or this machine has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def out_of_memory(error: BaseException, inputs: Mapping[str, Any], names: Sequence[str], folder: Path) -> LlavaError:
    """The error for a batch that does not fit into memory, with its size."""
    ids, images = inputs.get("input_ids"), inputs.get("images")
    size = "" if ids is None else f" It has {ids.shape[0]} rows of up to {ids.shape[1]} tokens"
    if size and images is not None:
        tiles = sum(image.shape[0] if image.ndim == 4 else 1 for image in images)
        size += f" and {len(images)} images, {tiles} tiles in all"
    return LlavaError(
        f"Out of memory on {name_samples(names)}.{size + '.' if size else ''} {say_last_checkpoint(folder)} Lower "
        "batch_size and raise accumulation by the same factor, set gradient_checkpointing: [language_model], lower "
        f"max_length, or train with lora. ({str(error).strip().splitlines()[0]})"
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether the error, or one that it was raised from, says that a file could not be written for lack of space."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    text = str(error).lower()
    if any(words in text for words in (*_NO_SPACE, *_NOT_WRITTEN)):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and is_disk_full(cause)


def disk_full(error: BaseException, checkpoint: Path) -> LlavaError:
    """The error for a checkpoint that could not be written."""
    text = str(error).strip().splitlines()[0]
    if any(words in text.lower() for words in _NOT_WRITTEN):
        text = "No space left on device"
    reason = text if text.endswith(("?", ".")) else f"{text}."
    return LlavaError(
        f"{checkpoint} could not be written: {reason} What was written of it is removed. "
        f"{say_last_checkpoint(checkpoint.parent)} Free space there, or lower save_limit."
    )
