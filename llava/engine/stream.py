"""What the engine is asked and what it answers: a question, and the stream of its answer."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from llava.engine.grammar import Grammar
from llava.engine.sampler import SampledToken
from llava.image.geometry import TilePlan
from llava.image.source import LoadedImage
from llava.model.generation import Processors
from llava.prompt import Prompt
from llava.sampling import Sampling


@dataclass(frozen=True)
class Question:
    """What an engine is asked: a rendered prompt, its images with their tile plans, and where the answer ends.

    Attributes:
        prompt: the token ids, with one slot per image.
        images, plans: one of each per slot, in order.
        sampling: how tokens are sampled, and how many there may be.
        stop_texts: the answer ends before the first of these; those of ``sampling`` count too.
        stop_ids: the answer ends with the first of these token ids.
        salt: cached content is shared only among questions with the same salt.
        grammar: what the answer is constrained to.
        processors: makes the logits processors of one answer.
        max_time_s: the answer ends after this many seconds, counted from its first step.
    """

    prompt: Prompt
    images: Sequence[LoadedImage] = ()
    plans: Sequence[TilePlan] = ()
    sampling: Sampling = field(default_factory=Sampling)
    stop_texts: Sequence[str] = ()
    stop_ids: Sequence[int] = ()
    salt: str = ""
    grammar: Grammar | None = None
    processors: Callable[[], Processors | None] | None = None
    max_time_s: float | None = None


@dataclass(frozen=True)
class Result:
    """How an answer ended. Times are seconds from ``submit``."""

    reason: str  # "stop", "length", "time", "cancelled" or "error"
    error: Exception | None
    prompt_tokens: int
    cached_tokens: int  # of the prompt, found in the prefix tree
    new_tokens: int
    first_token_s: float
    total_s: float
    stop_text: str | None = None  # the stop text that ended it, if one did


@dataclass(frozen=True)
class Piece:
    """The next part of an answer: sampled tokens, text that is now final, and in the last piece the result."""

    text: str
    tokens: tuple[SampledToken, ...] = ()
    result: Result | None = None


class Stream:
    """The answer to one question, as it is made. Iterate over its pieces; ``result`` is set with the last one.

    Args:
        cancel: asks the engine to end this answer; called by ``Stream.cancel`` from any thread.
        on_piece: gets each piece in place of the iterator, in the engine's thread.
    """

    def __init__(self, cancel: Callable[[], None], on_piece: Callable[[Piece], None] | None = None) -> None:
        self.result: Result | None = None
        self._cancel = cancel
        self._on_piece = on_piece
        self._pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Piece]:
        """The pieces as they come. If the answer failed, its error is raised after the last piece."""
        while self.result is None:
            piece = self._pieces.get()
            self.result = piece.result
            yield piece
        if self.result.error is not None:
            raise self.result.error

    def wait(self) -> tuple[str, Result]:
        """The whole text, and how the answer ended. Raises its error if it failed."""
        text = "".join(piece.text for piece in self)
        assert self.result is not None
        return text, self.result

    def cancel(self) -> None:
        """Ends the answer soon, from any thread and in any state; idempotent. The last piece says ``cancelled``."""
        self._cancel()

    def put(self, piece: Piece) -> None:
        """Delivers a piece. For the engine; raises whatever ``on_piece`` raises."""
        if self._on_piece is None:
            self._pieces.put(piece)
        else:
            self.result = piece.result
            self._on_piece(piece)
