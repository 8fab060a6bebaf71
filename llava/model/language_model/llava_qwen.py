"""Front door: the original's names for LLaVA on Qwen."""

from llava.model.llava import LlavaQwenConfig, LlavaQwenForCausalLM, LlavaQwenModel

__all__ = ["LlavaQwenConfig", "LlavaQwenForCausalLM", "LlavaQwenModel"]
