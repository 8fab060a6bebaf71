"""Parts of the filters that a user supplies: a reader of the text on images (OCR), and a classifier of harm.

Both are callables, named as ``module:name`` on the command line; a class is called once without arguments, and its
instance is used. ``EndpointReader`` is a reader that asks a model behind any OpenAI-compatible endpoint.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from llava.data.budget import Usage
from llava.data.chat_client import ChatClient, ClientSettings
from llava.data.collection.answer_checks import strip_thoughts
from llava.errors import LlavaError, UsageError

READING_PROMPT = (
    "Transcribe all text in the image exactly, line by line, handwriting, numbers and small print included. "
    "Write nothing else. If there is no text, write NONE."
)
_MOST_SIDE_PX = 2048


class TextReader(Protocol):
    """Reads the text on an image; "" if there is none. An exception means that the image cannot be judged."""

    def __call__(self, image: Image.Image) -> str: ...


class Classifier(Protocol):
    """Judges what a user asked: the kind of harm in a few words, or "" if there is none. ``images``: their files."""

    def __call__(self, text: str, images: Sequence[Path]) -> str: ...


def load_plug_in(name: str, flag: str) -> Callable[..., Any]:
    """The callable that ``module:name`` names; modules in the current folder are found, too.

    Raises UsageError if it cannot be imported or called.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"{flag}: '{name}' has to name a callable as module:name, such as my_filters:read_text.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        found = found() if isinstance(found, type) else found
    except Exception as error:  # whatever the module raises
        raise UsageError(f"{flag}: '{name}' cannot be loaded: {type(error).__name__}: {error}.") from error
    if not callable(found):
        raise UsageError(f"{flag}: '{name}' is a {type(found).__name__}, which cannot be called.")
    return found


class EndpointReader:
    """Reads the text on an image by asking the model of an endpoint. Images leave this machine unless it runs here."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        ChatClient(settings)  # so that a wrong URL is refused before any image is read

    def __call__(self, image: Image.Image) -> str:
        return asyncio.run(self._read(image))

    async def _read(self, image: Image.Image) -> str:
        async with ChatClient(self._settings) as teacher:
            parts = [write_image_part(image), {"type": "text", "text": READING_PROMPT}]
            reply = await teacher.ask([{"role": "user", "content": parts}], Usage())
        if reply.fault:
            raise LlavaError(reply.fault)
        text = strip_thoughts(reply.text)
        if reply.finish_reason == "length":
            raise LlavaError("the text on the image is longer than the longest answer")
        return "" if text.strip(" .").upper() == "NONE" else text


def write_image_part(image: Image.Image) -> dict[str, Any]:
    """An image as a part of a message: PNG where that is small, else JPEG, at most 2048 px a side."""
    if max(image.size) > _MOST_SIDE_PX:
        image = image.copy()
        image.thumbnail((_MOST_SIDE_PX, _MOST_SIDE_PX), Image.Resampling.LANCZOS)
    data, kind = _encode(image, "PNG"), "png"
    if len(data) > 2**20:
        data, kind = _encode(image, "JPEG", quality=92), "jpeg"
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}}


def _encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
