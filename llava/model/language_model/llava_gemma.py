"""The original's names for LLaVA on Gemma, which is not supported: using them raises UsageError."""

from llava.model.language_model.unsupported import NotSupported

__all__ = ["LlavaGemmaConfig", "LlavaGemmaForCausalLM", "LlavaGemmaModel"]


class LlavaGemmaConfig(NotSupported):
    """The original's configuration; raises UsageError when it is created or loaded."""

    kind = "Gemma"


class LlavaGemmaForCausalLM(NotSupported):
    """The original's model; raises UsageError when it is created or loaded."""

    kind = "Gemma"


class LlavaGemmaModel(NotSupported):
    """The original's model; raises UsageError when it is created or loaded."""

    kind = "Gemma"
