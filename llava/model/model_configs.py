"""The configurations of the models: Transformers' with the ``model_type`` of the originals' checkpoints.

What LLaVA adds to one, such as ``mm_vision_tower`` and ``mm_projector_type``, are further values under the originals'
names; ``llava.config`` judges them.
"""

from __future__ import annotations

from transformers import LlamaConfig, MistralConfig, Qwen2Config


class LlavaConfig(LlamaConfig):
    """The configuration of LLaVA on Llama."""

    model_type = "llava_llama"


class LlavaMistralConfig(MistralConfig):
    """The configuration of LLaVA on Mistral."""

    model_type = "llava_mistral"


class LlavaQwenConfig(Qwen2Config):
    """The configuration of LLaVA on Qwen2."""

    model_type = "llava_qwen"
