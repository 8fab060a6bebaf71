"""Loads the images that the web chat uploaded, and saves them by digest where conversations are logged."""

from __future__ import annotations

import asyncio
import mimetypes
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from llava.errors import BadImage
from llava.image.source import LoadedImage
from llava.serve.api_errors import LOG
from llava.serve.image_loader import ImageLoader

# How many files' digests are remembered, for votes.
_MAX_DIGESTS = 10_000


class UploadedImages:
    """Loads uploaded files as images, and saves them by digest in ``save_in`` unless that is None.

    Only files in ``folders`` are read.
    """

    def __init__(self, loader: ImageLoader, folders: Sequence[Path], save_in: Path | None = None) -> None:
        self._loader, self._save_in = loader, save_in
        self._folders = [folder.resolve() for folder in folders]
        self._digests: OrderedDict[str, str] = OrderedDict()
        self._failed = False

    async def load(self, paths: Sequence[str]) -> list[LoadedImage]:
        """The images of one request. Raises BadImage, and ApiError if together they are too large."""
        files = [(Path(path).name, await asyncio.to_thread(self._read, Path(path))) for path in paths]
        images = await self._loader.load_files(files)
        for path, image in zip(paths, images, strict=True):
            self._digests[path] = image.digest
            if self._save_in is not None:
                await asyncio.to_thread(self._save, image, self._save_in)
        while len(self._digests) > _MAX_DIGESTS:
            self._digests.popitem(last=False)
        return images

    def holds(self, path: str) -> bool:
        """Whether the path is an existing image in one of the folders."""
        place = Path(path).resolve()
        is_inside = any(place.is_relative_to(folder) for folder in self._folders)
        is_image = (mimetypes.guess_type(place.name)[0] or "").startswith("image/")
        return is_inside and is_image and place.is_file()

    def find_digest(self, path: str) -> str | None:
        """The digest of a file that was loaded before; None if it is no longer remembered."""
        return self._digests.get(path)

    def _read(self, path: Path) -> bytes:
        if not any(path.resolve().is_relative_to(folder) for folder in self._folders):
            raise BadImage(f"{path.name} was not uploaded here. Upload it again.")
        limit = self._loader.image_limits.max_bytes
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise BadImage(f"{path.name} is no longer on this server. Upload it again.") from error
        if len(data) > limit:
            raise BadImage(f"{path.name} has more than {limit:,} bytes, which is the most allowed.")
        return data

    def _save(self, image: LoadedImage, folder: Path) -> None:
        """Saves the image once per digest, atomically. A full disk affects the log, not the answer."""
        path = folder / f"{image.digest}.png"
        if path.exists():
            return
        part = folder / f"{image.digest}.{uuid.uuid4().hex}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                image.image.save(part, "PNG")
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            if not self._failed:
                LOG.error("%s cannot be written: %s. Images are not logged.", folder, error.strerror)
            self._failed = True
