"""The words of ``llava ask``: images, and the question."""

from __future__ import annotations

import os
import re

from llava.errors import UsageError
from llava.text import find_flaw

# A path that need not exist; a question of one word does not end like this.
_IMAGE_NAME = re.compile(r"\S+\.(?:avif|bmp|gif|hei[cf]|jpe?g|png|tiff?|webp)", re.IGNORECASE)


def split_words(words: list[str], question: str | None) -> tuple[list[str], str]:
    """The images and the question, which is the last word unless ``question`` gives it. Raises UsageError."""
    if question is None:
        if not words:
            raise UsageError('There is no question. Write: llava ask image.jpg "What is in the image?"')
        *words, question = words
        if (
            question == "-"
            or question.startswith(("http://", "https://", "data:"))
            or _IMAGE_NAME.fullmatch(question)
            or os.path.isfile(os.path.expanduser(question))
        ):
            raise UsageError(f"The last word has to be the question, but '{question[:80]}' is an image.")
        if os.sep in question and os.path.isdir(os.path.expanduser(question)):
            raise UsageError(f"The last word has to be the question, but '{question[:80]}' is a folder.")
    if not question.strip():
        raise UsageError("The question is empty.")
    if (flaw := find_flaw(question)) is not None:
        raise UsageError(f"The question {flaw}.")
    return words, question
