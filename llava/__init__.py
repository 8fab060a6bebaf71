"""LLaVA-1.5 and LLaVA-NeXT: ask a model about an image, train one, measure it.

Importing this package loads neither torch nor transformers: the names below arrive when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Answer": "llava.backends.answerer",
    "LlavaError": "llava.errors",
    "LlavaLlamaForCausalLM": "llava.model.llava",
    "LlavaMistralForCausalLM": "llava.model.llava",
    "LlavaQwenForCausalLM": "llava.model.llava",
    "Sampling": "llava.sampling",
    "ask": "llava.answer",
    "load_image": "llava.image.source",
    "load_model": "llava.model.checkpoint",
}

__all__ = [
    "Answer",
    "LlavaError",
    "LlavaLlamaForCausalLM",
    "LlavaMistralForCausalLM",
    "LlavaQwenForCausalLM",
    "Sampling",
    "__version__",
    "ask",
    "load_image",
    "load_model",
]

if TYPE_CHECKING:
    from llava.answer import ask
    from llava.backends.answerer import Answer
    from llava.errors import LlavaError
    from llava.image.source import load_image
    from llava.model.checkpoint import load_model
    from llava.model.llava import LlavaLlamaForCausalLM, LlavaMistralForCausalLM, LlavaQwenForCausalLM
    from llava.sampling import Sampling


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'llava' has no attribute '{name}'")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
