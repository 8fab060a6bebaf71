"""The original's names for LLaVA on Qwen2-MoE, which is not supported: using them says so."""

from llava.model.language_model.unsupported import NotSupported

__all__ = ["LlavaQwenMoeConfig", "LlavaQwenMoeForCausalLM", "LlavaQwenMoeModel"]


class LlavaQwenMoeConfig(NotSupported):
    kind = "Qwen2-MoE"


class LlavaQwenMoeForCausalLM(NotSupported):
    kind = "Qwen2-MoE"


class LlavaQwenMoeModel(NotSupported):
    kind = "Qwen2-MoE"
