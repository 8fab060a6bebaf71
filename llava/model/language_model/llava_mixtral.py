"""The original's names for LLaVA on Mixtral, which is not supported: using them raises UsageError."""

from llava.model.language_model.unsupported import NotSupported

__all__ = ["LlavaMixtralConfig", "LlavaMixtralForCausalLM", "LlavaMixtralModel"]


class LlavaMixtralConfig(NotSupported):
    """The original's configuration; raises UsageError when it is created or loaded."""

    kind = "Mixtral"


class LlavaMixtralForCausalLM(NotSupported):
    """The original's model; raises UsageError when it is created or loaded."""

    kind = "Mixtral"


class LlavaMixtralModel(NotSupported):
    """The original's model; raises UsageError when it is created or loaded."""

    kind = "Mixtral"
