"""Loads the images in requests: decodes data URIs, fetches URLs within the limits, and decodes in separate processes.

A string from a client is never taken for a file name. The decoded images of all requests together are bounded: a
request waits until the memory for all of its own, which their headers tell, is free.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from llava.backends.protocol import ChatRequest
from llava.errors import BadImage, EngineClosed, FetchError
from llava.image.fetch import fetch
from llava.image.formats import COMMON
from llava.image.source import Limits as ImageLimits
from llava.image.source import LoadedImage, read_data_uri, read_size
from llava.serve.api_errors import limit_exceeded, to_api_error
from llava.serve.image_decoder import DecoderPool
from llava.serve.limits import Settings

# Concurrent fetches of one request. There are threads for those of all running requests, so an unresponsive host
# delays only the requests that name it.
_MAX_FETCHES = 4

Kind = TypeVar("Kind")


class ImageLoader:
    """Loads the images that clients send. ``close`` ends its processes."""

    def __init__(self, settings: Settings) -> None:
        limits = settings.limits
        self.settings = settings
        self.image_limits = ImageLimits(
            max_bytes=limits.image_bytes,
            max_pixels=limits.image_pixels,
            max_jpeg_pixels=limits.image_pixels,
            max_side_px=limits.image_side_px,
            timeout_s=limits.fetch_s,
            max_redirects=limits.fetch_redirects,
            allow_private_addresses=settings.fetch_private,
            # Every additional format is attack surface. And since API clients see no notes, a damaged file is an error
            # rather than an answer about half of an image.
            formats=COMMON,
            draws_damaged=False,
            explains=False,
        )
        self.decoders = DecoderPool(settings.decoders, self.image_limits, limits.decode_s)
        self._decoding = ThreadPoolExecutor(settings.decoders, "llava-decode")
        self._fetching = ThreadPoolExecutor(_MAX_FETCHES * limits.running, "llava-fetch")
        self._budget = _MemoryBudget(limits.images_bytes)
        self._held: dict[int, int] = {}  # bytes of the budget that an image holds, by the ``id`` of its Pillow image

    async def decode(self, data: bytes, name: str) -> LoadedImage:
        """The image in a file's bytes. Raises BadImage and EngineClosed."""
        return await _run(self._decoding, self.decoders.decode, data, name)

    async def load_all(self, named: Sequence[tuple[str, str]]) -> list[LoadedImage]:
        """The images of one request, from pairs of URL and field, such as ``messages.0.content.1.image_url``.

        They hold their part of the memory budget until ``release``. Raises ApiError, which names the field at fault.
        """

        turns, is_over = asyncio.Semaphore(_MAX_FETCHES), threading.Event()
        limit, num_fetched = self.settings.limits.fetched_bytes, 0

        async def read(url: str, param: str) -> tuple[str, bytes, int]:
            nonlocal num_fetched
            try:
                if _is_data_uri(url):
                    return await asyncio.to_thread(self._measure, url, is_over)
                async with turns:
                    file = await _run(self._fetching, self._measure, url, is_over)
            except BadImage as error:
                raise to_api_error(error, "", param) from error
            num_fetched += len(file[1])
            if num_fetched > limit:
                value = f"The images' files have {num_fetched:,} bytes or more"
                raise limit_exceeded("fetched_bytes", limit, value, "Send fewer or smaller ones.", param=param)
            return file

        try:
            files = await _gather([read(url, param) for url, param in named])
        finally:
            is_over.set()  # threads cannot be cancelled
        return await self._decode_all(files, [param for _, param in named])

    async def load_files(self, files: Sequence[tuple[str, bytes]]) -> list[LoadedImage]:
        """The images of one request, from pairs of file name and bytes. They hold their budget until ``release``."""
        measured = [
            (
                name,
                data,
                await asyncio.to_thread(self._count_bytes, data, name),
            )  # in a thread, since a header may be long
            for name, data in files
        ]
        return await self._decode_all(measured, [None] * len(files))

    async def _decode_all(
        self, files: Sequence[tuple[str, bytes, int]], params: Sequence[str | None]
    ) -> list[LoadedImage]:
        async def decode(data: bytes, name: str, param: str | None) -> LoadedImage:
            try:
                return await self.decode(data, name)
            except (BadImage, EngineClosed) as error:
                raise to_api_error(error, "", param) from error

        num_bytes = sum(size for _, _, size in files)
        if num_bytes > self._budget.size:
            value = f"The images take {num_bytes:,} bytes once they are decoded"
            raise limit_exceeded(
                "images_bytes", self._budget.size, value, "Send fewer or smaller ones.", param=params[0]
            )
        await self._budget.acquire(num_bytes)
        try:
            decoding = [decode(data, name, param) for (name, data, _), param in zip(files, params, strict=True)]
            images = await _gather(decoding)
        except BaseException:
            self._budget.release(num_bytes)
            raise
        for image, (_, _, size) in zip(images, files, strict=True):
            self._held[id(image.image)] = size
        return images

    def release(self, request: ChatRequest) -> None:
        """Releases the memory budget that the request's images hold, if any."""
        for sent in request.all_images:
            self._budget.release(self._held.pop(id(sent.loaded.image), 0))

    def _measure(self, url: str, is_over: threading.Event) -> tuple[str, bytes, int]:
        """A name for messages, the file's bytes, and how many bytes it decodes to. ``is_over``: the request ended."""
        url = url.strip()
        name, data = self._read(url, is_over)
        return name, data, self._count_bytes(data, name)

    def _count_bytes(self, data: bytes, name: str) -> int:
        size = read_size(data, name, self.image_limits)
        return size.width * size.height * 3

    def _read(self, url: str, is_over: threading.Event) -> tuple[str, bytes]:
        if _is_data_uri(url):
            return "The data URI", read_data_uri(url, self.image_limits)
        if not url[:8].lower().startswith(("http://", "https://")):
            raise BadImage("The image is neither a data URI nor an http or https URL. Send data:image/...;base64,...")
        settings, limits = self.settings, self.settings.limits
        if not settings.fetch:
            raise FetchError("This server fetches no images (setting fetch). Send the image as a data URI.")
        data = fetch(
            url,
            max_bytes=limits.image_bytes,
            timeout_s=limits.fetch_s,
            max_redirects=limits.fetch_redirects,
            allow_private_addresses=settings.fetch_private,
            allowed_hosts=settings.fetch_hosts or None,
            is_wanted=lambda: not is_over.is_set(),
        )
        return Path(urlsplit(url).path).name[:80] or "The image", data

    async def start(self) -> None:
        """Starts the decoder processes, so that the first image does not wait for them."""
        await _run(self._decoding, self.decoders.warm_up)

    def close(self) -> None:
        """Ends the decoder processes and all fetches."""
        self._fetching.shutdown(wait=False, cancel_futures=True)
        self._decoding.shutdown(wait=False, cancel_futures=True)
        self.decoders.close()


def _is_data_uri(url: str) -> bool:
    return url[:100].lstrip()[:5].lower() == "data:"


async def _run(executor: Executor, work: Callable[..., Kind], *arguments: Any) -> Kind:
    return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)


async def _gather(work: Sequence[Coroutine[Any, Any, Kind]]) -> list[Kind]:
    """The results in order. The first error cancels the rest."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


class _MemoryBudget:
    """A memory budget in bytes, granted in FIFO order. For one event loop."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._num_free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, num_bytes: int) -> None:
        """Returns when the bytes are granted. ``num_bytes`` is at most ``size``."""
        if not self._waiting and num_bytes <= self._num_free:
            self._num_free -= num_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((num_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(num_bytes)  # granted before the cancellation
            else:
                self._waiting = deque(one for one in self._waiting if one[1] is not turn)
                self.release(0)  # the next in the queue may fit now
            raise

    def release(self, num_bytes: int) -> None:
        self._num_free += num_bytes
        while self._waiting and self._waiting[0][0] <= self._num_free:
            wanted, turn = self._waiting.popleft()
            if not turn.done():  # a cancelled waiter has not removed itself yet
                self._num_free -= wanted
                turn.set_result(None)
