"""Methods of ``Conversation`` that web pages written for the original call; nothing in this package does.

Source: haotian-liu/LLaVA@c121f04 llava/conversation.py; LLaVA-VL/LLaVA-NeXT@df17966 llava/conversation.py.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import UsageError


class PageMethods:
    """Reads a conversation's fields for a Gradio page: its images, its turns as HTML, its log record."""

    system: str
    roles: Sequence[str]
    messages: list[list[Any]]
    offset: int
    sep: str
    sep2: str | None

    def process_image(
        self,
        image: Any,
        image_process_mode: str,
        return_pil: bool = False,
        image_format: str = "PNG",
        max_len: int = 1344,
        min_len: int = 672,
    ) -> Any:
        """The image as a web page shows it: a PIL image if ``return_pil``, else base64 of ``image_format``.

        Modes: Pad (to a square, in CLIP's mean colour), Resize (336 x 336), Default and Crop (as it is). An image with
        a side above ``max_len`` px is made smaller: at most ``max_len`` by ``min_len``, its shape kept.
        """
        if image_process_mode == "Pad":
            image = _pad_to_square(image)
        elif image_process_mode == "Resize":
            image = image.resize((336, 336))
        elif image_process_mode not in ("Default", "Crop"):
            raise UsageError(f"The image mode is '{image_process_mode}'; it has to be Pad, Resize, Default or Crop.")
        if max(image.size) > max_len:
            longest, shortest = max(image.size), min(image.size)
            ratio = longest / shortest
            short_px = int(min(max_len / ratio, min_len, shortest))
            long_px = int(short_px * ratio)
            width, height = image.size
            image = image.resize((short_px, long_px) if height > width else (long_px, short_px))
        if return_pil:
            return image
        if image_format == "JPEG" and image.mode not in ("RGB", "L", "CMYK"):
            image = image.convert("RGB")
        written = BytesIO()
        image.save(written, format=image_format)
        return base64.b64encode(written.getvalue()).decode()

    def get_images(self, return_pil: bool = False) -> list[Any]:
        """The images of the user's turns, in order, each through ``process_image`` with its own mode."""
        return [
            self.process_image(image, message[2], return_pil=return_pil)
            for _, message in self.messages[self.offset :: 2]
            if isinstance(message, tuple)
            for image in images_of(message)
        ]

    def to_gradio_chatbot(self) -> list[list[str | None]]:
        """``[question, answer]`` pairs for a chat page; an image is an ``<img>`` with its data before the question."""
        pairs: list[list[str | None]] = []
        for i, (_, message) in enumerate(self.messages[self.offset :]):
            if i % 2:
                pairs[-1][1] = message
            elif isinstance(message, tuple):
                shown = ""
                for image in images_of(message):
                    data = self.process_image(image, "Default", image_format="JPEG")
                    shown += f'<img src="data:image/jpeg;base64,{data}" alt="user upload image" />'
                pairs.append([shown + message[0].replace(DEFAULT_IMAGE_TOKEN, "").strip(), None])
            else:
                pairs.append([message, None])
        return pairs

    def dict(self) -> dict[str, Any]:
        """What web pages log: system, roles, messages (their texts only), offset, sep, sep2."""
        return {
            "system": self.system,
            "roles": self.roles,
            "messages": [[role, text_of(message)] for role, message in self.messages],
            "offset": self.offset,
            "sep": self.sep,
            "sep2": self.sep2,
        }


def text_of(message: Any) -> str | None:
    """The text of a message, which may be a tuple with images; None for an answer that is still to come."""
    return message[0] if isinstance(message, tuple) else message


def images_of(message: tuple[Any, ...]) -> list[Any]:
    """The images of a message that is a tuple."""
    return message[1] if isinstance(message[1], list) else [message[1]]


def _pad_to_square(image: Any) -> Any:
    """The image in the middle of a square filled with CLIP's mean colour."""
    from PIL import Image

    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(image.convert("RGB"), ((side - width) // 2, (side - height) // 2))
    return square
