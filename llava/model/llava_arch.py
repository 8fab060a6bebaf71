"""Front door: the original's names for what LLaVA adds to a language model.

Whoever assigns to ``unpad_image``, ``build_vision_tower`` or ``build_vision_projector`` here, as research on towers and
token pruning does, replaces it where models call it.
"""

import sys
from types import ModuleType
from typing import Any

from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_PATCH_TOKEN,
    IGNORE_INDEX,
    IMAGE_TOKEN_INDEX,
)
from llava.image.pixels import get_anyres_image_grid_shape
from llava.model import llava, merge
from llava.model.llava import LlavaMetaForCausalLM, LlavaMetaModel
from llava.model.merge import unpad_image
from llava.model.projector import build_vision_projector
from llava.model.vision import build_vision_tower

__all__ = [
    "DEFAULT_IMAGE_PATCH_TOKEN",
    "DEFAULT_IM_END_TOKEN",
    "DEFAULT_IM_START_TOKEN",
    "IGNORE_INDEX",
    "IMAGE_TOKEN_INDEX",
    "LlavaMetaForCausalLM",
    "LlavaMetaModel",
    "build_vision_projector",
    "build_vision_tower",
    "get_anyres_image_grid_shape",
    "unpad_image",
]

_HOMES = {"unpad_image": merge, "build_vision_tower": llava, "build_vision_projector": llava}


class _Door(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _HOMES:
            setattr(_HOMES[name], name, value)


sys.modules[__name__].__class__ = _Door
