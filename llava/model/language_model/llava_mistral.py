"""Front door: the original's names for LLaVA on Mistral."""

from llava.model.llava import LlavaMistralConfig, LlavaMistralForCausalLM, LlavaMistralModel

__all__ = ["LlavaMistralConfig", "LlavaMistralForCausalLM", "LlavaMistralModel"]
