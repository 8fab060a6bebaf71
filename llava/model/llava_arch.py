"""Front door: the original's names for what LLaVA adds to a language model.

Whoever assigns to ``unpad_image`` here, as research on token pruning does, replaces it where models call it.
"""

import sys
from types import ModuleType
from typing import Any

from llava.model import merge
from llava.model.llava import LlavaMetaForCausalLM, LlavaMetaModel
from llava.model.merge import unpad_image

__all__ = ["LlavaMetaForCausalLM", "LlavaMetaModel", "unpad_image"]


class _Door(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "unpad_image":
            setattr(merge, name, value)


sys.modules[__name__].__class__ = _Door
