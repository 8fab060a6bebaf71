"""What asking a model may cost: requests, tokens and money, estimated before, reserved while it runs, and counted.

A request is sent only if even its longest answer fits what is left, so a budget is never exceeded as long as the
estimates are not too low. Images are estimated by OpenAI's rule, which other endpoints exceed or undercut.

Source: OpenAI's documentation, Images and vision, "Calculating costs" (GPT-4o: 85 tokens, and 170 per 512-px tile).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from llava.image.geometry import Size

_BASE_TOKENS, _TILE_TOKENS, _TILE_PX = 85, 170, 512
_LONG_PX, _SHORT_PX = 2048, 768
_MESSAGE_TOKENS = 8  # of a turn's frame, rounded up


def estimate_image_tokens(size: Size) -> int:
    """The tokens of an image: fitted into 2048 px, its shorter side at most 768 px, in tiles of 512 px."""
    scale = min(1.0, _LONG_PX / max(size), _SHORT_PX / min(size))
    tiles = math.prod(max(1, math.ceil(side * scale / _TILE_PX)) for side in size)
    return _BASE_TOKENS + _TILE_TOKENS * tiles


def estimate_text_tokens(text: str) -> int:
    """The tokens of a text: a quarter of its ASCII characters, and one for each other character."""
    num_ascii = sum(letter.isascii() for letter in text)
    return math.ceil(num_ascii / 4) + len(text) - num_ascii + _MESSAGE_TOKENS


@dataclass(frozen=True)
class Prices:
    """US dollars, or any other currency, per million tokens; None if unknown."""

    per_million_in: float | None = None
    per_million_out: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether a cost can be given."""
        return self.per_million_in is not None or self.per_million_out is not None

    def find_cost(self, tokens_in: float, tokens_out: float) -> float:
        """What these tokens cost."""
        return (tokens_in * (self.per_million_in or 0) + tokens_out * (self.per_million_out or 0)) / 1e6


@dataclass(frozen=True)
class Usage:
    """Tokens of one or of many requests."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out
        )

    def __sub__(self, other: Usage) -> Usage:
        return self + Usage(-other.requests, -other.tokens_in, -other.tokens_out)


@dataclass
class Budget:
    """What may still be spent. Limits are for everything that one output has cost, over all its runs.

    ``flags``: what the names of the limits' flags begin with.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    prices: Prices = field(default_factory=Prices)
    spent: Usage = field(default_factory=Usage)
    flags: str = "--"
    _reserved: Usage = field(default_factory=Usage)

    @property
    def cost(self) -> float:
        """What was spent so far, in the currency of the prices."""
        return self.prices.find_cost(self.spent.tokens_in, self.spent.tokens_out)

    def find_limit(self, request: Usage) -> str:
        """The limit that a request could exceed, in words; "" if it fits."""
        total = self.spent + self._reserved + request
        if self.max_requests is not None and total.requests > self.max_requests:
            return f"{self.flags}max-requests {self.max_requests:,}"
        if self.max_tokens is not None and total.tokens_in + total.tokens_out > self.max_tokens:
            return f"{self.flags}max-tokens {self.max_tokens:,}"
        if self.max_cost is not None and self.prices.find_cost(total.tokens_in, total.tokens_out) > self.max_cost:
            return f"{self.flags}max-cost {self.max_cost:g}"
        return ""

    def reserve(self, request: Usage) -> None:
        """Sets aside what a request may cost at most."""
        self._reserved += request

    def settle(self, request: Usage, used: Usage) -> None:
        """Replaces what was reserved for a request by what it has used."""
        self._reserved -= request
        self.spent += used


class Attempts:
    """Reserves a request of the budget for each further attempt."""

    def __init__(self, budget: Budget, is_over: Callable[[], bool]) -> None:
        self._budget, self._is_over = budget, is_over
        self.num_more = 0

    def may_send(self) -> bool:
        """Whether one more attempt may be sent; it is reserved then."""
        if self._is_over() or self._budget.find_limit(Usage(1)):
            return False
        self._budget.reserve(Usage(1))
        self.num_more += 1
        return True


class RunningRequests:
    """Requests that share a budget: one that does not fit waits for what the running ones give back.

    Attributes:
        num_open: how many run.
        limit: the limit of the budget that ended the work, in words; "" as long as none did.
    """

    def __init__(self, budget: Budget, is_over: Callable[[], bool]) -> None:
        self._budget, self._is_over = budget, is_over
        self.num_open = 0
        self.limit = ""

    def open(self) -> None:
        """Begins in this event loop, to which the waiting belongs."""
        self._changed = asyncio.Condition()

    async def reserve(self, estimate: Usage) -> bool:
        """Waits until the request fits the budget whatever the running ones cost; False if it cannot."""
        while (limit := self._budget.find_limit(estimate)) and self.num_open:
            async with self._changed:
                await self._changed.wait()
        if limit or self._is_over():
            self.limit = self.limit or limit
            return False
        self.num_open += 1
        self._budget.reserve(estimate)
        return True

    async def settle(self, reserved: Usage, used: Usage) -> None:
        """Ends a request: what was reserved for it, further attempts included, is replaced by what it has used."""
        self.num_open -= 1
        self._budget.settle(reserved, used)
        async with self._changed:
            self._changed.notify_all()
