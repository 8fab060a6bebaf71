"""Front door: the original's names for what LLaVA adds to a language model."""

from llava.model.llava import LlavaMetaForCausalLM, LlavaMetaModel
from llava.model.merge import unpad_image

__all__ = ["LlavaMetaForCausalLM", "LlavaMetaModel", "unpad_image"]
