"""The model classes by the original's names; they, torch and transformers are loaded when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "LlavaConfig": "llava.model.llava",
    "LlavaGemmaConfig": "llava.model.language_model.llava_gemma",
    "LlavaGemmaForCausalLM": "llava.model.language_model.llava_gemma",
    "LlavaLlamaForCausalLM": "llava.model.llava",
    "LlavaMistralConfig": "llava.model.llava",
    "LlavaMistralForCausalLM": "llava.model.llava",
    "LlavaMixtralConfig": "llava.model.language_model.llava_mixtral",
    "LlavaMixtralForCausalLM": "llava.model.language_model.llava_mixtral",
    "LlavaMptConfig": "llava.model.language_model.llava_mpt",
    "LlavaMptForCausalLM": "llava.model.language_model.llava_mpt",
    "LlavaQwenConfig": "llava.model.llava",
    "LlavaQwenForCausalLM": "llava.model.llava",
}

__all__ = [
    "LlavaConfig",
    "LlavaGemmaConfig",
    "LlavaGemmaForCausalLM",
    "LlavaLlamaForCausalLM",
    "LlavaMistralConfig",
    "LlavaMistralForCausalLM",
    "LlavaMixtralConfig",
    "LlavaMixtralForCausalLM",
    "LlavaMptConfig",
    "LlavaMptForCausalLM",
    "LlavaQwenConfig",
    "LlavaQwenForCausalLM",
]

if TYPE_CHECKING:
    from llava.model.language_model.llava_gemma import LlavaGemmaConfig, LlavaGemmaForCausalLM
    from llava.model.language_model.llava_mixtral import LlavaMixtralConfig, LlavaMixtralForCausalLM
    from llava.model.language_model.llava_mpt import LlavaMptConfig, LlavaMptForCausalLM
    from llava.model.llava import (
        LlavaConfig,
        LlavaLlamaForCausalLM,
        LlavaMistralConfig,
        LlavaMistralForCausalLM,
        LlavaQwenConfig,
        LlavaQwenForCausalLM,
    )


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'llava.model' has no attribute '{name}'")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
