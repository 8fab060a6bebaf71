"""Admission and answering: every route's way to the engine and back.

Every answer goes through ``Service.chat``. It is rejected at once if too many requests are waiting, queued in order of
arrival, counted, timed and logged, and its work is cancelled when the caller closes the generator.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace

from llava.backends.protocol import Backend, ChatRequest, Delta
from llava.errors import EngineClosed, LlavaError
from llava.serve.admission_queue import AdmissionQueue, Ticket
from llava.serve.api_errors import LOG, ApiError, limit_exceeded, model_loading
from llava.serve.conversation_log import ConversationLog
from llava.serve.image_loader import ImageLoader
from llava.serve.limits import Settings
from llava.serve.metrics import AnswerMetrics, Metrics

MakeRequest = Callable[[], Awaitable[ChatRequest]]
# The digest of the request's API key if keys are kept apart, else "". Set by the middleware.
TENANT: ContextVar[str] = ContextVar("tenant", default="")


class Service:
    """The engine as all routes share it.

    ``start`` starts ``backend`` in the background, so the server is up while a model loads. If that fails, ``failure``
    is the exception.
    """

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self.backend, self.settings = backend, settings
        self.limits = settings.limits
        self.metrics = Metrics(backend)
        self.images = ImageLoader(settings)
        self.log = ConversationLog(settings.log, settings.consent) if settings.log is not None else None
        self.failure: BaseException | None = None
        self.is_draining = False
        self.is_drained = asyncio.Event()  # no request is running, and none will be admitted
        self.on_ready: Callable[[], None] = lambda: None
        self.on_failure: Callable[[], None] = lambda: None
        self._num_open = 0
        self._queue = AdmissionQueue(self.limits.running)
        self._starting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the backend and the image decoders in the background."""
        self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        try:
            await asyncio.gather(self.backend.start(), self.images.start())
        except Exception as error:
            self.failure = error
            if not isinstance(error, LlavaError):
                LOG.error("the engine did not start", exc_info=error)
            self.on_failure()
        else:
            self.on_ready()

    async def stop(self) -> None:
        """Stops the backend and the image decoders. Idempotent."""
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self.backend.stop()
        self.images.close()

    async def started(self) -> None:
        """Returns when the engine has started. Raises the exception that it failed with."""
        assert self._starting is not None
        await asyncio.shield(self._starting)
        if self.failure is not None:
            raise self.failure

    @property
    def is_starting(self) -> bool:
        """Whether the backend is still starting."""
        return self._starting is None or not self._starting.done()

    @property
    def num_open(self) -> int:
        """The number of requests that are running or waiting."""
        return self._num_open

    async def is_ready(self) -> bool:
        """Whether a request sent now would be answered."""
        return not self.is_draining and not self.is_starting and await self.backend.is_ready()

    async def drain(self) -> None:
        """Stops admitting requests; returns when all running ones have ended, or after ``drain_s``."""
        self.is_draining = True
        end = time.monotonic() + self.limits.drain_s
        while self._num_open and time.monotonic() < end:
            await asyncio.sleep(0.02)
        self.is_drained.set()

    @asynccontextmanager
    async def _admit(self, ticket: Ticket) -> AsyncIterator[None]:
        """Holds a slot among the running requests.

        Raises ApiError: 503 while starting or draining, 429 if too many requests are waiting.
        """
        if self.is_draining:
            raise ApiError(503, "The server is shutting down. Use another one.", code="draining")
        if self.is_starting:
            raise model_loading()
        limits = self.limits
        if self._num_open >= limits.running + limits.waiting:
            raise limit_exceeded(
                "waiting", limits.waiting, f"{self._num_open:,} requests are open", "Try again later.", status=429
            )
        self._num_open += 1
        self.metrics.open.inc()
        try:
            with self.metrics.queue.track_inprogress():
                await self._queue.acquire(ticket)
            try:
                yield
            finally:
                self._queue.release()
        finally:
            self._num_open -= 1
            self.metrics.open.dec()

    async def chat(
        self, request: ChatRequest | MakeRequest, source: str = "api", ticket: Ticket | None = None
    ) -> AsyncGenerator[Delta, None]:
        """The answer as it is generated. Close it (``contextlib.aclosing``) unless it is read to its end.

        ``request``: the request, or a function that makes it (and loads its images) once it is admitted. ``source``:
        who asked, for the log. ``ticket``: reports the position in the queue.

        Raises ApiError and what ``Backend.chat`` raises, before the first delta where possible.
        """
        answer_metrics, tenant = AnswerMetrics(self.metrics), TENANT.get()
        outcome = "cancelled"
        made: ChatRequest | None = None
        seen: list[Delta] = []
        try:
            async with self._admit(ticket or Ticket()):
                made = request if isinstance(request, ChatRequest) else await request()
                made = replace(made, tenant=tenant)
                async with aclosing(self._stream(made)) as deltas:
                    async for delta in deltas:
                        answer_metrics.observe(delta)
                        if self.log is not None:
                            seen.append(delta)
                        if delta.usage is not None:
                            outcome = "answered"
                        yield delta
        except Exception as error:
            refused = isinstance(error, LlavaError) and not isinstance(error, EngineClosed)
            outcome = "refused" if refused else "failed"
            raise
        finally:
            answer_metrics.finish(outcome)
            if made is not None:
                self.images.release(made)
            if self.log is not None and made is not None:
                self.log.write_answer(source, self.backend.model_id, made, seen, outcome)

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The backend's iterator as a generator, which can be closed."""
        deltas = self.backend.chat(request)
        try:
            async for delta in deltas:
                yield delta
        finally:
            close = getattr(deltas, "aclose", None)
            if close is not None:
                await close()
