"""The admission queue: a limited number of requests run at once, the others wait in FIFO order."""

from __future__ import annotations

import asyncio
from collections import deque


class Ticket:
    """A request's position in the queue; ``is_queued`` is set once it has to wait."""

    def __init__(self) -> None:
        self.is_queued = asyncio.Event()
        self._queue: AdmissionQueue | None = None

    @property
    def position(self) -> int:
        """1 for the next request to run; 0 if it is not waiting."""
        waiting = self._queue.tickets if self._queue is not None else []
        return waiting.index(self) + 1 if self in waiting else 0


class AdmissionQueue:
    """Admits at most ``num_slots`` requests at once. For one event loop."""

    def __init__(self, num_slots: int) -> None:
        self._num_free = num_slots
        self._waiting: deque[tuple[Ticket, asyncio.Future[None]]] = deque()

    @property
    def tickets(self) -> list[Ticket]:
        """The waiting requests' tickets, in order."""
        return [ticket for ticket, _ in self._waiting]

    async def acquire(self, ticket: Ticket) -> None:
        """Returns when the request may run. Every ``acquire`` needs a ``release``."""
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
                self.release()  # the slot was granted before the cancellation
            else:
                self._waiting = deque(one for one in self._waiting if one[1] is not turn)
            raise

    def release(self) -> None:
        """Frees a slot for the next request."""
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():  # a cancelled request has not removed itself yet
                turn.set_result(None)
                return
        self._num_free += 1
