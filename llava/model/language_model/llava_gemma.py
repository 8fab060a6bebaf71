"""The original's names for LLaVA on Gemma, which is not supported: using them says so."""

from llava.model.language_model.unsupported import NotSupported

__all__ = ["LlavaGemmaConfig", "LlavaGemmaForCausalLM", "LlavaGemmaModel"]


class LlavaGemmaConfig(NotSupported):
    kind = "Gemma"


class LlavaGemmaForCausalLM(NotSupported):
    kind = "Gemma"


class LlavaGemmaModel(NotSupported):
    kind = "Gemma"
