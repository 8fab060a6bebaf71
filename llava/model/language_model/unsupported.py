"""The base class for language models that are not supported: they can be imported, but not created or loaded."""

from __future__ import annotations

from typing import Any, NoReturn

from llava.errors import UsageError


class NotSupported:
    """Raises UsageError when it is created or loaded. ``kind`` names the language model."""

    kind = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.from_pretrained()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(f"{cls.__name__}: {cls.kind} is not supported; LLaVA on Llama, Mistral and Qwen2 is.")
