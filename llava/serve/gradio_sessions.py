"""The open pages of the web chat: what Gradio keeps for each, and that it keeps none of it for nobody.

Gradio holds a queue of news for every page that ever asked, read or not, and the last values of its components. Here a
page counts as gone when it does not fetch its news, and so much for so many pages is held at once. Gradio's own sign of
a page that is open is not used: a connection for each, of which a browser has six for all its tabs together.
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

# Things that a page does at once: it asks, and votes.
_CALLS = 8
# A page that is open fetches its news again at once when they were cut off; one that was left does not.
_LEFT_S = 5.0


class GradioSessions:
    """What Gradio's application holds for pages, by their session hashes. For one event loop."""

    def __init__(self, app: App, limits: Limits, stop: Callable[[str], None]) -> None:
        """``stop`` ends what is being done for a page."""
        self._app, self._limits, self._stop = app, limits, stop
        self._queue: Any = app.get_blocks()._queue
        self._num_readers: Counter[str] = Counter()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._dropping: set[asyncio.Task[None]] = set()
        # The values of a page that is left out here come with its next call.
        app.state_holder.capacity = limits.running + limits.waiting

    def admit(self, page: str) -> None:
        """Raises ApiError (429) if the page, or all of them, have too many calls open."""
        num_waiting = self._limits.running + self._limits.waiting
        if len(self._queue.event_ids_to_events) >= num_waiting or len(self._deadlines) >= num_waiting:
            value = f"{len(self._queue.event_ids_to_events):,} calls of open pages wait"
            raise limit_exceeded("waiting", self._limits.waiting, value, "Ask again later.", status=429)
        if self.num_calls(page) >= _CALLS:
            raise ApiError(429, f"This page has {_CALLS} calls open already. Ask again later.", code="too_many_calls")

    def num_calls(self, page: str) -> int:
        """Calls of the page that are not over."""
        return len(self._queue.pending_event_ids_session.get(page, ()))

    def knows(self, page: str) -> bool:
        """Whether there may be news for the page."""
        return page in self._queue.pending_messages_per_session

    def expect_reader(self, page: str, *, was_there: bool = False) -> None:
        """The page has called; if it does not fetch the news in time, it is not there any more."""
        if not self._num_readers[page] and page not in self._deadlines:
            loop, limit_s = asyncio.get_running_loop(), self._limits.send_s
            limit_s = min(limit_s, _LEFT_S) if was_there else limit_s
            self._deadlines[page] = loop.call_later(limit_s, self._drop, page)

    @contextmanager
    def read(self, page: str) -> Iterator[None]:
        """While the page fetches its news."""
        self._forget_deadline(page)
        self._num_readers[page] += 1
        try:
            yield
        finally:
            self._num_readers[page] -= 1
            if not self._num_readers[page]:
                del self._num_readers[page]
                if self.num_calls(page):
                    self.expect_reader(page, was_there=True)
                else:
                    self._forget_news(page)

    def _forget_values(self, page: str) -> None:
        """The page is not there any more."""
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
        self._forget_news(page)
        self._forget_values(page)

    def _forget_deadline(self, page: str) -> None:
        deadline = self._deadlines.pop(page, None)
        if deadline is not None:
            deadline.cancel()

    def _forget_news(self, page: str) -> None:
        self._queue.pending_messages_per_session.pop(page, None)
        self._queue.pending_event_ids_session.pop(page, None)


def disable_gradio_analytics() -> None:
    """To be called before Gradio is imported: it counts each call with pandas, for a page that is not shown here."""
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(2**53)
