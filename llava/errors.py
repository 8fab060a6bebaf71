"""Everything that can go wrong, as one tree.

Messages are complete sentences that name the value, the limit and the remedy: they are printed to
people as they stand. ``exit_code`` is what a command line ends with: 2 for a wrong invocation,
1 for a failure.
"""

from __future__ import annotations


class LlavaError(Exception):
    """Any failure that this package foresees and explains."""

    exit_code = 1


class UsageError(LlavaError, ValueError):
    """The call itself is wrong: an unknown flag value, a number out of range, images and prompts that disagree."""

    exit_code = 2


class BadSchema(UsageError):
    """Answers cannot be constrained to a JSON schema: it is invalid, unsatisfiable, or too complex."""


class BadSample(UsageError):
    """A sample cannot be trained on: its image is missing or broken, its turns and images disagree, nobody answers."""


class BadImage(LlavaError, ValueError):
    """An image cannot be used: missing, unreadable, truncated, too large, too thin, unsupported format.

    ``limit`` is the field of ``llava.image.source.Limits`` that it exceeds, where it is that.
    """

    def __init__(self, message: str, limit: str | None = None) -> None:
        self.limit = limit
        super().__init__(message)


class FetchError(BadImage):
    """An image named by URL could not be fetched, or its address is not allowed."""


class ContextTooLong(LlavaError, ValueError):
    """A prompt does not fit the model's context."""

    def __init__(
        self, num_tokens: int, limit_tokens: int, remedy: str = "Shorten the text or use fewer or smaller images."
    ) -> None:
        self.num_tokens = num_tokens
        self.limit_tokens = limit_tokens
        super().__init__(
            f"The prompt takes {num_tokens} tokens, but the model's context holds {limit_tokens}. {remedy}"
        )


class RequestTooLarge(LlavaError, ValueError):
    """A request does not fit into the KV cache, or exceeds another limit, so that it could never run."""

    exit_code = 2


class EngineFull(LlavaError):
    """The engine's queue is full: ``max_waiting`` requests wait already."""


class EngineClosed(LlavaError):
    """The engine was closed, is not ready yet, or its thread or process failed."""


class EngineFailed(LlavaError):
    """An external engine refused a request, or sent an invalid answer; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int = 500) -> None:
        self.status = status
        super().__init__(message)


class CheckpointError(LlavaError, ValueError):
    """A checkpoint cannot be used as it stands: files missing, tensors that do not fit, an unsafe format."""


class TrainingStopped(LlavaError):
    """A signal (Ctrl-C, SIGTERM) stopped a training, which saved a checkpoint first."""

    exit_code = 130


class ToldElsewhere(LlavaError):
    """A failure that another process of the same training prints; this one ends without a word."""


class Notice(UserWarning):
    """What a user should know though nothing failed, as a complete sentence. Commands print it, Python code warns."""
