"""The original's names for LLaVA on MPT, which is not supported: using them says so.

The original's own class cannot run either: it calls the merge with arguments that the merge no longer takes.
"""

from llava.model.language_model.unsupported import NotSupported

__all__ = ["LlavaMptConfig", "LlavaMptForCausalLM", "LlavaMptModel"]


class LlavaMptConfig(NotSupported):
    kind = "MPT"


class LlavaMptForCausalLM(NotSupported):
    kind = "MPT"


class LlavaMptModel(NotSupported):
    kind = "MPT"
