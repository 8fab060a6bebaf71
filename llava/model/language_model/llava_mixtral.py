"""The original's names for LLaVA on Mixtral, which is not supported: using them says so."""

from llava.model.language_model.unsupported import NotSupported

__all__ = ["LlavaMixtralConfig", "LlavaMixtralForCausalLM", "LlavaMixtralModel"]


class LlavaMixtralConfig(NotSupported):
    kind = "Mixtral"


class LlavaMixtralForCausalLM(NotSupported):
    kind = "Mixtral"


class LlavaMixtralModel(NotSupported):
    kind = "Mixtral"
