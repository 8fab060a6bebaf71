"""Front door: the original's names for what LLaVA adds to a language model."""

from llava.model.llava import LlavaMetaForCausalLM, LlavaMetaModel

__all__ = ["LlavaMetaForCausalLM", "LlavaMetaModel"]
