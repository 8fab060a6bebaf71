"""Bounds what Gradio holds for the open pages of the web chat, and frees it when a page is gone.

Gradio keeps a queue of updates for every page that ever made a call, read or not, and the last values of its
components. Here a page counts as closed when it does not fetch its updates, and the number of pages with state is
limited. Gradio's own sign of an open page, one connection per page, is not used: browsers allow only six per host.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llava.serve.api_errors import ApiError, limit_exceeded
from llava.serve.limits import Limits

if TYPE_CHECKING:
    from gradio.routes import App

# Concurrent calls of one page, such as a question and a vote.
_MAX_CALLS = 8
# An open page reconnects at once when its stream of updates breaks; a closed one does not.
_RECONNECT_S = 5.0


class GradioSessions:
    """The state that Gradio's application holds for pages, by session hash. For one event loop."""

    def __init__(self, app: App, limits: Limits, stop: Callable[[str], None]) -> None:
        """``stop`` cancels the answer of a page."""
        self._app, self._limits, self._stop = app, limits, stop
        self._queue: Any = app.get_blocks()._queue
        self._num_readers: Counter[str] = Counter()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._dropping: set[asyncio.Task[None]] = set()
        # A page's evicted values come back with its next call.
        app.state_holder.capacity = limits.running + limits.waiting

    def admit(self, page: str) -> None:
        """Raises ApiError (429) if the page, or all pages together, have too many open calls."""
        num_waiting = self._limits.running + self._limits.waiting
        if len(self._queue.event_ids_to_events) >= num_waiting or len(self._deadlines) >= num_waiting:
            value = f"{len(self._queue.event_ids_to_events):,} calls of open pages are waiting"
            raise limit_exceeded("waiting", self._limits.waiting, value, "Try again later.", status=429)
        if self.num_calls(page) >= _MAX_CALLS:
            raise ApiError(
                429, f"This page has {_MAX_CALLS} calls open already. Try again later.", code="too_many_calls"
            )

    def num_calls(self, page: str) -> int:
        """How many calls of the page have not ended."""
        return len(self._queue.pending_event_ids_session.get(page, ()))

    def has_updates(self, page: str) -> bool:
        """Whether there may be updates for the page."""
        return page in self._queue.pending_messages_per_session

    def expect_reader(self, page: str, *, was_reading: bool = False) -> None:
        """Starts the timeout after which a page that has made a call and does not fetch its updates is dropped."""
        if not self._num_readers[page] and page not in self._deadlines:
            loop, limit_s = asyncio.get_running_loop(), self._limits.send_s
            limit_s = min(limit_s, _RECONNECT_S) if was_reading else limit_s
            self._deadlines[page] = loop.call_later(limit_s, self._drop, page)

    @contextmanager
    def reading(self, page: str) -> Iterator[None]:
        """Marks the page as open while it fetches its updates."""
        self._forget_deadline(page)
        self._num_readers[page] += 1
        try:
            yield
        finally:
            self._num_readers[page] -= 1
            if not self._num_readers[page]:
                del self._num_readers[page]
                if self.num_calls(page):
                    self.expect_reader(page, was_reading=True)
                else:
                    self._forget_updates(page)

    def _forget_values(self, page: str) -> None:
        """Frees the component values of a closed page."""
        holder = self._app.state_holder
        holder.session_data.pop(page, None)
        holder.time_last_used.pop(page, None)

    def _drop(self, page: str) -> None:
        self._forget_deadline(page)
        task = asyncio.get_running_loop().create_task(self._end_calls(page))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _end_calls(self, page: str) -> None:
        calls = list(self._queue.pending_event_ids_session.get(page, ()))
        self._stop(page)
        await self._queue.clean_events(session_hash=page)
        for call in calls:
            await self._queue.reset_iterators(call)
        self._forget_updates(page)
        self._forget_values(page)

    def _forget_deadline(self, page: str) -> None:
        deadline = self._deadlines.pop(page, None)
        if deadline is not None:
            deadline.cancel()

    def _forget_updates(self, page: str) -> None:
        self._queue.pending_messages_per_session.pop(page, None)
        self._queue.pending_event_ids_session.pop(page, None)


def disable_gradio_analytics() -> None:
    """Stops Gradio from recording each call with pandas, for a monitoring page that is disabled here.

    Call it before Gradio is imported.
    """
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(2**53)
