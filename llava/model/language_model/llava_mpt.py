"""The original's names for LLaVA on MPT, which is not supported: importing them works, and using them says so.

The original's own class cannot run either: it calls the merge with arguments that the merge no longer takes.
"""

from __future__ import annotations

from typing import Any, NoReturn

from llava.errors import UsageError

__all__ = ["LlavaMptConfig", "LlavaMptForCausalLM"]


class _NotSupported:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.from_pretrained()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise UsageError(f"{cls.__name__}: MPT is not supported; LLaVA on Llama, Mistral and Qwen2 is.")


class LlavaMptConfig(_NotSupported):
    """Raises UsageError when it is made or read."""


class LlavaMptForCausalLM(_NotSupported):
    """Raises UsageError when it is made or read."""
