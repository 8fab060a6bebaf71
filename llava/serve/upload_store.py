"""Stores the images that browsers upload (HTTP 413 over the limits), for a day, and serves them by path.

A file that is not an image is never written to the final folder. The folder belongs to this process alone; one left by
a killed process is removed by the next.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import logging
import math
import os
import shutil
import stat
import tempfile
import time
import unicodedata
import uuid
from collections import OrderedDict
from pathlib import Path

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import FileResponse

from llava.errors import BadImage
from llava.image.signatures import sniff
from llava.image.source import Limits as ImageLimits
from llava.image.source import read_size
from llava.serve.api_errors import LOG, ApiError, limit_exceeded, to_api_error
from llava.serve.limits import Limits
from llava.serve.middleware import Message, Receive, Scope

# How long an image is kept, and the age from which it may be evicted for new ones.
STAY_S, _FRESH_S = 24 * 3600, 3600
SWEEP_S = 600
_PREFIX, _LOCK = "llava-web-", "lock"
# Allowance for the multipart body's headers and boundaries.
_AROUND_BYTES = 64 * 1024
# The disk space that even the smallest file takes.
_LEAST_BYTES = 4096
# File systems allow names of 255 bytes, some of 143.
_NAME_BYTES = 100
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
}


class UploadStore:
    """The uploaded images, by their paths in ``folder``. For one event loop."""

    def __init__(self, limits: Limits, image_limits: ImageLimits) -> None:
        self.folder = make_folder()
        self._limits, self._image_limits = limits, image_limits
        self._place = Path(tempfile.mkdtemp(prefix="uploads-", dir=self.folder))
        self._kept: OrderedDict[Path, tuple[int, float]] = OrderedDict()  # bytes, and time of arrival
        self._num_kept = 0  # bytes of all of them
        self._num_coming = 0  # bytes of uploads in progress

    async def accept(self, scope: Scope, receive: Receive) -> list[str]:
        """Stores the images in a form's field ``files``; returns their paths. Raises ApiError, and then stores none."""
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        num_announced = int(announced) if announced.isdigit() else 0
        self._check_bytes(num_announced)
        # ``body_s`` for each ``body_bytes`` of the upload.
        limit_s = self._limits.body_s * max(1, math.ceil(num_announced / self._limits.body_bytes))
        num_bytes = 0
        api_error: ApiError | None = None

        async def receive_within() -> Message:
            nonlocal num_bytes, api_error
            message = await receive()
            come = len(message.get("body", b""))
            num_bytes += come
            self._num_coming += come
            try:
                self._check_bytes(num_bytes)
                self._make_room()
            except ApiError as error:
                api_error = error
                raise MultiPartException("over a limit") from error  # on which the parser closes its files
            return message

        try:
            try:
                form = await asyncio.wait_for(self._read_form(Request(scope, receive_within)), limit_s)
            except ApiError as error:
                raise api_error or error from None
            try:
                return await self._keep_all(form)
            finally:
                await form.close()
        except asyncio.TimeoutError as error:
            raise limit_exceeded(
                "body_s", limit_s, "The upload did not arrive in time", "Send it faster.", status=408
            ) from error
        finally:
            self._num_coming -= num_bytes

    def holds(self, path: str) -> bool:
        """Whether the path is one of an upload, even if the image has been removed since."""
        return self._find(path) is not None

    async def respond(self, path: str) -> FileResponse:
        """The response with the image at ``path``. Raises ApiError (404)."""
        place = self._find(path)
        kind = FORMATS.get(Path(path).suffix.lower())
        if place is None or kind is None or not await asyncio.to_thread(place.is_file):
            raise ApiError(404, "That image is not on this server. Upload it again.", code="not_found")
        headers = {"Cache-Control": "private, max-age=3600"}
        return FileResponse(place, media_type=f"image/{kind.lower()}", headers=headers)

    def sweep(self) -> None:
        """Removes expired images."""
        while self._kept and time.monotonic() - next(iter(self._kept.values()))[1] > STAY_S:
            self._remove_oldest()

    def close(self) -> None:
        """Removes all images."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _find(self, path: str) -> Path | None:
        """The path, if it is exactly one that ``accept`` could have returned; else None."""
        place = Path(path)
        if str(place) != path or not path.isprintable() or place.suffix.lower() not in FORMATS:
            return None
        try:
            if place.resolve() != place or not place.is_relative_to(self.folder):
                return None
            return place if stat.S_ISREG(place.stat().st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return place
        except (ValueError, OSError, RuntimeError):  # the name is too long or not text
            return None

    def _check_bytes(self, num_bytes: int) -> None:
        limits = self._limits
        most = limits.image_bytes * max(1, limits.images) + _AROUND_BYTES
        if num_bytes > most:
            value = f"The upload has {num_bytes:,} bytes or more"
            remedy = f"Send at most {limits.images:,} images at once."
            raise limit_exceeded("image_bytes", limits.image_bytes, value, remedy, status=413)

    def _make_room(self) -> None:
        """Evicts old images until the uploads in progress fit. Raises ApiError (413)."""
        limit = self._limits.upload_bytes
        while (wanted := self._num_kept + self._num_coming) > limit:
            if not self._kept or time.monotonic() - next(iter(self._kept.values()))[1] < _FRESH_S:
                value = f"The images kept for open conversations would take {wanted:,} bytes"
                raise limit_exceeded(
                    "upload_bytes", limit, value, "Upload fewer or smaller ones, or try again later.", status=413
                )
            self._remove_oldest()

    async def _read_form(self, request: Request) -> FormData:
        limits = self._limits
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise ApiError(
                415, "Send uploads as multipart/form-data, with the images in the field 'files'.", code="not_form"
            )
        if request.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise ApiError(415, "The upload is compressed. Send it without Content-Encoding.", code="compressed")
        try:
            return await request.form(max_files=max(1, limits.images), max_fields=1, max_part_size=1024)
        except (MultiPartException, HTTPException) as error:
            if "Too many files" in str(getattr(error, "message", getattr(error, "detail", ""))):
                raise limit_exceeded("images", limits.images, "There are too many images", "Send fewer.") from error
            raise ApiError(400, "The upload is not a valid form.", code="invalid_form") from error
        except (ValueError, KeyError, UnicodeError) as error:
            raise ApiError(400, "The upload is not a valid form.", code="invalid_form") from error
        except OSError as error:  # the parser spools larger files to disk
            raise _disk_full(tempfile.gettempdir(), error) from error

    async def _keep_all(self, form: FormData) -> list[str]:
        """Stores all of a form's images, or none; returns their paths."""
        kept: list[Path] = []
        try:
            for field, part in form.multi_items():
                name, data = await self._read_image(field, part)
                kept.append(await asyncio.to_thread(self._write, name, data))
                size = max(len(data), _LEAST_BYTES)
                self._kept[kept[-1]] = size, time.monotonic()
                self._num_kept += size
            if not kept:
                raise ApiError(400, "There is no file in the upload.", code="invalid_form")
        except BaseException:
            for path in kept:
                self._remove(path)
            raise
        return [str(path) for path in kept]

    async def _read_image(self, field: str, part: UploadFile | str) -> tuple[str, bytes]:
        if field != "files" or isinstance(part, str):
            raise ApiError(400, "An upload may contain only files, in the field 'files'.", code="invalid_form")
        name = clean_name(part.filename or "")
        most = self._image_limits.max_bytes
        if (part.size or 0) > most:
            raise limit_exceeded(
                "image_bytes", most, f"{name} has {part.size or 0:,} bytes", "Send a smaller one.", status=413
            )
        data = await part.read()
        try:
            await asyncio.to_thread(read_size, data, name, self._image_limits)
        except BadImage as error:
            raise to_api_error(error, "") from error
        kind = sniff(data, name)
        assert kind is not None
        return name_like(name, kind), data

    def _write(self, name: str, data: bytes) -> Path:
        path = self._place / uuid.uuid4().hex / name
        try:
            path.parent.mkdir()
            path.write_bytes(data)
        except OSError as error:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise _disk_full(self._place, error) from error
        return path

    def _remove_oldest(self) -> None:
        self._remove(next(iter(self._kept)))

    def _remove(self, path: Path) -> None:
        self._num_kept -= self._kept.pop(path)[0]
        shutil.rmtree(path.parent, ignore_errors=True)


def _disk_full(place: Path | str, error: OSError) -> ApiError:
    LOG.error("an uploaded image cannot be written to %s: %s", place, error.strerror)
    return ApiError(507, "The server cannot store the image. See its log.", code="disk_full")


def clean_name(name: str) -> str:
    """A safe file name: the last part of the path, without unusual characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(filter(_is_harmless, unicodedata.normalize("NFC", last))).strip(" .")
    stem, dot, ending = kept.rpartition(".")
    if not dot:
        stem, ending = ending, ""
    return f"{stem.encode()[:_NAME_BYTES].decode(errors='ignore')}{dot}{ending[:10]}".strip(" .") or "image"


def _is_harmless(letter: str) -> bool:
    return letter.isalnum() or letter in " ._-()" or unicodedata.category(letter) in ("Mc", "Mn")


def name_like(name: str, kind: str) -> str:
    """The name with the extension of the file's format, added if its own is another format's."""
    fitting = [ending for ending, format in FORMATS.items() if format == kind]
    return name if Path(name).suffix.lower() in fitting else f"{name}{fitting[0]}"


@functools.cache
def make_folder() -> Path:
    """This process's folder for uploads: accessible to this user only, removed at exit, and set as Gradio's own.

    It contains a lock, by which other processes see that this one is alive.
    """
    # Its warnings about broken forms quote their content.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    place = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    remove_stale(place)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place)).resolve()
    new = os.open(folder / f"{_LOCK}.new", os.O_CREAT | os.O_RDWR, 0o600)
    os.write(new, f"{os.getpid()}\n".encode())
    _lock(new)
    # Renamed only once it is locked: another process may remove a folder whose lock is free.
    with contextlib.suppress(PermissionError):  # on Windows, where nothing reads it
        os.rename(folder / f"{_LOCK}.new", folder / _LOCK)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def remove_stale(place: Path) -> list[Path]:
    """Removes the folders in ``place`` of processes that have ended; returns them."""
    removed: list[Path] = []
    if not hasattr(os, "getuid"):  # Windows
        return removed
    for folder in sorted(place.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                if _lock(lock):
                    shutil.rmtree(folder, ignore_errors=True)
                    removed.append(folder)
            finally:
                os.close(lock)
    return removed


def _lock(file: int) -> bool:
    """Whether the file could be locked for this process. The lock is released when the process ends."""
    try:
        import fcntl
    except ImportError:  # Windows, where stale folders are not removed
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
