"""Whose turn it is: requests are answered in the order in which they came, so many at once."""

from __future__ import annotations

import asyncio
from collections import deque


class Ticket:
    """A request's place among those that wait; ``is_queued`` is set once it has to."""

    def __init__(self) -> None:
        self.is_queued = asyncio.Event()
        self._queue: AdmissionQueue | None = None

    @property
    def place(self) -> int:
        """1 is the next; 0 does not wait, or waits no longer."""
        waiting = self._queue.tickets if self._queue is not None else []
        return waiting.index(self) + 1 if self in waiting else 0


class AdmissionQueue:
    """So many turns. For one event loop."""

    def __init__(self, num_turns: int) -> None:
        self._num_free = num_turns
        self._waiting: deque[tuple[Ticket, asyncio.Future[None]]] = deque()

    @property
    def tickets(self) -> list[Ticket]:
        return [ticket for ticket, _ in self._waiting]

    async def take(self, ticket: Ticket) -> None:
        """Returns when it is the ticket's turn."""
        if self._num_free > 0:
            self._num_free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ticket, turn))
        ticket._queue = self
        ticket.is_queued.set()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # it was there already
            else:
                self._waiting = deque(one for one in self._waiting if one[1] is not turn)
            raise

    def give(self) -> None:
        """Ends a turn: it is the next one's."""
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():  # else it was cancelled, and whoever waited has not heard of it yet
                turn.set_result(None)
                return
        self._num_free += 1
