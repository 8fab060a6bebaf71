"""CLIP's and SigLIP's vision encoders with the parameter names of released checkpoints: below ``vision_model.``.

Transformers removed that level in 5.6; it stays here, so that parameter names are those of the files. Each model is
an instance of Transformers' class of the same name, so ``isinstance`` checks find it.

Shape letters: T tiles, P patches of one tile (+1 for CLIP's CLS), D width, S side of a tile in pixels.

Source: transformers 5.23 models/clip/modeling_clip.py and models/siglip/modeling_siglip.py.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import CLIPVisionConfig, SiglipVisionConfig
from transformers.models.clip import modeling_clip as hf_clip
from transformers.models.siglip import modeling_siglip as hf_siglip

from llava.errors import UsageError
from llava.model.attention_switch import ShowsAttention
from llava.model.replacements import has_global_hook, has_hook


def _embed_patches(embeddings: Any, pixels_TCHW: torch.Tensor, interpolates: bool) -> torch.Tensor:
    """The patch embeddings [T, P, D] of tiles, without position embeddings. Raises UsageError for another tile size.

    The convolution's stride equals its kernel size, so it is one matrix product over unfolded patches. Computed as such
    it is as exact, and in bfloat16 on a CPU many times faster than torch's convolution. A convolution that has a hook
    or was replaced is called.
    """
    conv = embeddings.patch_embedding
    pixels_TCHW = pixels_TCHW.to(conv.weight.dtype)
    if pixels_TCHW.ndim != 4 or pixels_TCHW.shape[1] != embeddings.config.num_channels:
        raise UsageError(
            f"The vision tower takes pixels [tiles, {embeddings.config.num_channels}, S, S], but got "
            f"{list(pixels_TCHW.shape)}: RGB images, channels first."
        )
    height, width = pixels_TCHW.shape[2:]
    image_size, side = embeddings.image_size, embeddings.patch_size
    if not interpolates and (height, width) != (image_size, image_size):
        raise UsageError(f"The vision tower takes tiles of {image_size}x{image_size} px, but got {width}x{height} px.")
    if type(conv) is not nn.Conv2d or has_hook([conv]) or has_global_hook():
        called: torch.Tensor = conv(pixels_TCHW)
        return called.flatten(2).transpose(1, 2)
    patches = pixels_TCHW.unfold(2, side, side).unfold(3, side, side)  # [T, 3, rows, columns, side, side]
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    return nn.functional.linear(patches, conv.weight.flatten(1), conv.bias)


def _position_vectors(embeddings: Any) -> torch.Tensor:
    table = embeddings.position_embedding
    if type(table) is not nn.Embedding or has_hook([table]) or has_global_hook():
        looked_up: torch.Tensor = table(embeddings.position_ids)
        return looked_up
    return embeddings.position_embedding.weight


class CLIPVisionEmbeddings(hf_clip.CLIPVisionEmbeddings):
    """Patch, CLS and position embeddings; the same weights as Transformers' module of that name."""

    def forward(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        """``pixel_values`` [T, 3, S, S] -> [T, 1+P, D]."""
        features_TPD = _embed_patches(self, pixel_values, interpolate_pos_encoding)
        class_T1D = self.class_embedding.expand(len(features_TPD), 1, -1)
        embedded = torch.cat([class_T1D, features_TPD], dim=1)
        if interpolate_pos_encoding:
            return embedded + self.interpolate_pos_encoding(embedded, *pixel_values.shape[2:])
        return embedded + _position_vectors(self)


class CLIPVisionTransformer(ShowsAttention, hf_clip.CLIPVisionModel):
    """Transformers' CLIP vision model with the patch embedding above, as the ``vision_model`` of the class below."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = CLIPVisionEmbeddings(config)
        self.post_init()


class CLIPVisionModel(hf_clip.CLIPVisionModel):
    """CLIP's vision model with the ``vision_model.`` level.

    ``from_pretrained`` reads folders with either naming, and complete CLIP models (without their text encoder).
    """

    config_class = CLIPVisionConfig
    base_model_prefix = "vision_model"
    _input_embed_layer = "patch_embedding"
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"^text_model\.",
        r"^text_projection\.",
        r"^visual_projection\.",
        r"^logit_scale$",
        r"position_ids$",
    ]

    def __init__(self, config: CLIPVisionConfig) -> None:
        hf_clip.CLIPPreTrainedModel.__init__(self, config)  # the parent's constructor would build no such level
        self.vision_model = CLIPVisionTransformer(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding."""
        return self.vision_model.embeddings.patch_embedding

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """The output of all blocks, as Transformers runs them; takes ``output_hidden_states`` and attentions too."""
        return self.vision_model(pixel_values=pixel_values, **kwargs)


class SiglipVisionEmbeddings(hf_siglip.SiglipVisionEmbeddings):
    """Patch and position embeddings; SigLIP has no CLS."""

    def forward(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        """``pixel_values`` [T, 3, S, S] -> [T, P, D]. Incomplete patches at the right and bottom are dropped."""
        embedded = _embed_patches(self, pixel_values, interpolate_pos_encoding)
        if interpolate_pos_encoding:
            return embedded + self.interpolate_pos_encoding(embedded, *pixel_values.shape[2:])
        return embedded + _position_vectors(self)


class SiglipVisionTransformer(ShowsAttention, hf_siglip.SiglipVisionModel):
    """Transformers' SigLIP vision model with the patch embedding above, as the ``vision_model`` of the class below."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = SiglipVisionEmbeddings(config)
        self.post_init()


class SiglipVisionModel(hf_siglip.SiglipVisionModel):
    """SigLIP's vision model with the ``vision_model.`` level and without the pooling head, which LLaVA never runs.

    ``from_pretrained`` reads folders with either naming, and complete SigLIP or fixed-resolution SigLIP2 models.
    """

    config_class = SiglipVisionConfig
    base_model_prefix = "vision_model"
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"^text_model\.",
        r"^logit_(scale|bias)$",
        r"position_ids$",
        r"^(vision_model\.)?head\.",
    ]

    def __init__(self, config: SiglipVisionConfig) -> None:
        config.vision_use_head = False
        hf_siglip.SiglipPreTrainedModel.__init__(self, config)
        self.vision_model = SiglipVisionTransformer(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding."""
        return self.vision_model.embeddings.patch_embedding

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """The output of all blocks, as Transformers runs them; takes ``output_hidden_states`` and attentions too."""
        return self.vision_model(pixel_values=pixel_values, **kwargs)
