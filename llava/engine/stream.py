"""A question and its answer, as whoever asks sees them."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llava.engine.forms import Form
from llava.engine.request import Request
from llava.engine.sampling import Choice
from llava.image.geometry import TilePlan
from llava.image.source import Picture
from llava.prompt import Prompt
from llava.sampling import Sampling

if TYPE_CHECKING:
    from llava.engine.engine import Engine


@dataclass(frozen=True)
class Question:
    """What an engine is asked: a rendered prompt, its pictures with their plans, and where the answer ends.

    ``salt``: what is cached for this question serves only questions with the same one. ``form``: what the answer is
    held to.
    """

    prompt: Prompt
    pictures: Sequence[Picture] = ()
    plans: Sequence[TilePlan] = ()
    sampling: Sampling = field(default_factory=Sampling)
    stop_texts: Sequence[str] = ()
    stop_ids: Sequence[int] = ()
    salt: str = ""
    form: Form | None = None


@dataclass(frozen=True)
class Result:
    """How an answer ended. Times are seconds from ``submit``."""

    reason: str  # "stop", "length", "cancelled" or "error"
    error: Exception | None
    prompt_tokens: int
    cached_tokens: int  # of the prompt, known before it began
    new_tokens: int
    first_token_s: float
    total_s: float
    stopped_at: str = ""  # the stop text that ended it


@dataclass(frozen=True)
class Piece:
    """News of an answer: tokens, the text that became certain, and with the last piece the result."""

    text: str
    choices: tuple[Choice, ...] = ()
    result: Result | None = None


class Stream:
    """One answer on its way. Iterate over its pieces; ``result`` is there when they end."""

    def __init__(self, engine: Engine, on_piece: Callable[[Piece], None] | None) -> None:
        self.result: Result | None = None
        self._engine = engine
        self._on_piece = on_piece
        self._pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self.request: Request | None = None

    def __iter__(self) -> Iterator[Piece]:
        """The pieces as they come. An answer that ended by an error raises it after its last piece."""
        while self.result is None:
            piece = self._pieces.get()
            self.result = piece.result
            yield piece
        if self.result.error is not None:
            raise self.result.error

    def wait(self) -> tuple[str, Result]:
        """The whole text and how it ended. Raises the error that it ended by."""
        text = "".join(piece.text for piece in self)
        assert self.result is not None
        return text, self.result

    def cancel(self) -> None:
        """Ends the answer soon, from any thread and in any state; the last piece then says so."""
        self._engine._cancel(self)

    def _put(self, piece: Piece) -> None:
        if self._on_piece is None:
            self._pieces.put(piece)
        else:
            self.result = piece.result
            self._on_piece(piece)
