"""Pictures that clients name: data URIs are read, URLs fetched within limits, and all are decoded apart.

A string from a client never names a file here, whatever it looks like.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from llava.errors import BadImage, FetchError
from llava.image.fetch import fetch
from llava.image.source import Limits as ImageLimits
from llava.image.source import Picture, read_data_uri
from llava.serve.decoder import Decoders
from llava.serve.limits import Settings

# So many are fetched at once; each ends by its deadline.
_FETCHES = 16


class PictureLoader:
    """Loads what clients send. ``close`` ends its processes."""

    def __init__(self, settings: Settings) -> None:
        limits = settings.limits
        self.settings = settings
        self.image_limits = ImageLimits(
            max_bytes=limits.picture_bytes,
            max_pixels=limits.picture_pixels,
            max_side_px=limits.picture_side_px,
            timeout_s=limits.fetch_s,
            max_redirects=limits.fetch_redirects,
            allow_private_addresses=settings.fetch_private,
        )
        self.decoders = Decoders(settings.decoders, self.image_limits, limits.decode_s)
        self._decoding = ThreadPoolExecutor(settings.decoders, "llava-decode")
        self._fetching = ThreadPoolExecutor(_FETCHES, "llava-fetch")

    async def load(self, url: str) -> Picture:
        """The picture of a data URI or an http(s) URL. Raises BadImage and FetchError."""
        loop = asyncio.get_running_loop()
        name, data = await loop.run_in_executor(self._fetching, self._read, url)
        return await self.decode(data, name)

    async def decode(self, data: bytes, name: str) -> Picture:
        """The picture in a file's bytes. Raises BadImage."""
        return await asyncio.get_running_loop().run_in_executor(self._decoding, self.decoders.decode, data, name)

    def _read(self, url: str) -> tuple[str, bytes]:
        begin = url[:8].lower()
        if begin.startswith("data:"):
            return "The data URI", read_data_uri(url, self.image_limits)
        if not begin.startswith(("http://", "https://")):
            raise BadImage("The picture is neither a data URI nor an http or https URL. Send data:image/...;base64,...")
        settings, limits = self.settings, self.settings.limits
        if not settings.fetch:
            raise FetchError("This server fetches no pictures (setting fetch). Send the picture as a data URI.")
        data = fetch(
            url,
            max_bytes=limits.picture_bytes,
            timeout_s=limits.fetch_s,
            max_redirects=limits.fetch_redirects,
            allow_private_addresses=settings.fetch_private,
            allowed_hosts=settings.fetch_hosts or None,
        )
        return Path(urlsplit(url).path).name[:80] or "The picture", data

    async def start(self) -> None:
        """Starts the decoders, so that the first picture does not wait for them."""
        await asyncio.get_running_loop().run_in_executor(self._decoding, self.decoders.warm_up)

    def close(self) -> None:
        self._fetching.shutdown(wait=False, cancel_futures=True)
        self._decoding.shutdown(wait=False, cancel_futures=True)
        self.decoders.close()
