"""The original's names for LLaVA on MPT, which is not supported: using them raises UsageError.

The original's own class cannot run either: it calls the merge with arguments that the merge no longer accepts.
"""

from llava.model.language_model.unsupported import NotSupported

__all__ = ["LlavaMptConfig", "LlavaMptForCausalLM", "LlavaMptModel"]


class LlavaMptConfig(NotSupported):
    """The original's configuration; raises UsageError when it is created or loaded."""

    kind = "MPT"


class LlavaMptForCausalLM(NotSupported):
    """The original's model; raises UsageError when it is created or loaded."""

    kind = "MPT"


class LlavaMptModel(NotSupported):
    """The original's model; raises UsageError when it is created or loaded."""

    kind = "MPT"
