"""The original's names for LLaVA on Qwen2-MoE, which is not supported: using them raises UsageError."""

from llava.model.language_model.unsupported import NotSupported

__all__ = ["LlavaQwenMoeConfig", "LlavaQwenMoeForCausalLM", "LlavaQwenMoeModel"]


class LlavaQwenMoeConfig(NotSupported):
    """The original's configuration; raises UsageError when it is created or loaded."""

    kind = "Qwen2-MoE"


class LlavaQwenMoeForCausalLM(NotSupported):
    """The original's model; raises UsageError when it is created or loaded."""

    kind = "Qwen2-MoE"


class LlavaQwenMoeModel(NotSupported):
    """The original's model; raises UsageError when it is created or loaded."""

    kind = "Qwen2-MoE"
