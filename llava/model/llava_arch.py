"""Front door: the original's names for what LLaVA adds to a language model.

An assignment to a name in ``replacements.LOOKED_UP_IN``, as in research on towers and on token pruning, replaces the
function that models call.
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
from llava.model.llava import LlavaMetaForCausalLM, LlavaMetaModel
from llava.model.multimodal_resampler.builder import build_vision_resampler
from llava.model.projector import build_vision_projector
from llava.model.replacements import LOOKED_UP_IN, unpad_image
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
    "build_vision_resampler",
    "build_vision_tower",
    "get_anyres_image_grid_shape",
    "unpad_image",
]


class _Door(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in LOOKED_UP_IN:
            setattr(sys.modules[LOOKED_UP_IN[name]], name, value)


sys.modules[__name__].__class__ = _Door
