"""Sees: the pixels of tiles become features, one vector per patch.

The tower is CLIP's vision transformer, read at an inner layer: blocks behind that layer and the last norm are
kept (a checkpoint holds their weights) but never run. Nothing here knows about grids, padding or prompts.

Shape letters: T tiles, P patches of one tile (+1 where the class position is kept), D width of the tower,
S side of a tile in pixels.

Source: haotian-liu/LLaVA@c121f04 llava/model/multimodal_encoder/{builder,clip_encoder}.py;
transformers 5.23 models/clip/modeling_clip.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import CLIPPreTrainedModel, CLIPVisionConfig
from transformers.models.clip import modeling_clip as hf_clip

from llava.config import DEFAULT_SCALES, KNOWN_TOWERS, find_tower_folder
from llava.errors import UsageError
from llava.image.pixels import ImageProcessor


class CLIPVisionEmbeddings(hf_clip.CLIPVisionEmbeddings):
    """Patches, the class position and position vectors; same weights as Transformers' module of that name."""

    def forward(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        """``pixel_values`` [T, 3, S, S] -> [T, 1+P, D].

        The convolution's stride equals its kernel, so it is one matrix product over unfolded patches. Written as
        such it is as exact, and in bfloat16 on a CPU many times faster than torch's convolution.
        """
        pixels_TCHW = pixel_values.to(self.patch_embedding.weight.dtype)
        num_tiles, _, height, width = pixels_TCHW.shape
        if not interpolate_pos_encoding and (height, width) != (self.image_size, self.image_size):
            raise UsageError(
                f"The vision tower takes tiles of {self.image_size}x{self.image_size} px, but got {width}x{height} px."
            )
        side = self.patch_size
        patches = pixels_TCHW.unfold(2, side, side).unfold(3, side, side)  # [T, 3, rows, columns, side, side]
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        features_TPD = nn.functional.linear(patches, self.patch_embedding.weight.flatten(1))
        class_T1D = self.class_embedding.expand(num_tiles, 1, -1)
        embedded = torch.cat([class_T1D, features_TPD], dim=1)
        if interpolate_pos_encoding:
            return embedded + self.interpolate_pos_encoding(embedded, height, width)
        return embedded + self.position_embedding.weight


class CLIPVisionTransformer(hf_clip.CLIPVisionModel):
    """Transformers' CLIP vision model under the name and with the patch embedding that belong to this tree."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = CLIPVisionEmbeddings(config)
        self.post_init()


class CLIPVisionModel(CLIPPreTrainedModel):
    """CLIP's vision model with the ``vision_model.`` level that every released checkpoint names.

    Transformers dropped that level in 5.6; here it stays, so that parameter names are those of the files.
    ``from_pretrained`` takes a folder of either naming and a complete CLIP (the text half is left out).
    """

    config_class = CLIPVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"^text_model\.",
        r"^text_projection\.",
        r"^visual_projection\.",
        r"^logit_scale$",
        r"position_ids$",
    ]

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__(config)
        self.vision_model = CLIPVisionTransformer(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.embeddings.patch_embedding

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """All blocks, as Transformers runs them; for code that asks for ``output_hidden_states`` or attentions."""
        return self.vision_model(pixel_values=pixel_values, **kwargs)


class CLIPVisionTower(nn.Module):
    """A CLIP tower as LLaVA reads it: one inner layer, with or without the class position.

    Args:
        vision_tower: a folder or a hub id.
        args: an object with ``mm_vision_select_layer`` (negative counts from the end: -2 of 24 blocks is the output
            of block 23), and optionally ``mm_vision_select_feature`` (``patch`` or ``cls_patch``),
            ``mm_vision_config`` (the tower's own configuration as a dict) and ``unfreeze_mm_vision_tower``.
        delay_load: leave the weights to a later ``load_model`` or to the checkpoint around this tower. The layers
            are then built empty if ``args`` says that the checkpoint holds them (``mm_vision_config`` or
            ``unfreeze_mm_vision_tower``), else not at all.

    The tower's parameters start frozen; a trainer that wants to move them says ``requires_grad_(True)``.
    Loaded in float32 unless its own files say otherwise.
    """

    vision_tower: CLIPVisionModel

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False) -> None:
        super().__init__()
        self.is_loaded = False
        self.vision_tower_name = vision_tower
        self.select_layer: int = args.mm_vision_select_layer
        self.select_feature: str = getattr(args, "mm_vision_select_feature", "patch")
        if self.select_feature not in ("patch", "cls_patch"):
            raise UsageError(f"Unexpected select feature: {self.select_feature!r}. Use 'patch' or 'cls_patch'.")
        self._given_config: Mapping[str, Any] | None = getattr(args, "mm_vision_config", None)
        self._folder = find_tower_folder(vision_tower, getattr(args, "_name_or_path", ""))
        if not delay_load and (self._given_config is None or self._folder is not None):
            self.load_model()
        elif self._given_config is not None or getattr(args, "unfreeze_mm_vision_tower", False):
            self._hold(CLIPVisionModel(self.cfg_only))

    @classmethod
    def from_config(cls, vision_config: Mapping[str, Any], args: Any) -> CLIPVisionTower:
        """A tower of the given CLIPVisionConfig values, built without any folder, with random weights."""
        described = SimpleNamespace(
            mm_vision_select_layer=args.mm_vision_select_layer,
            mm_vision_select_feature=getattr(args, "mm_vision_select_feature", "patch"),
            mm_vision_config=vision_config,
        )
        return cls("", described, delay_load=True)

    def load_model(self, device_map: Any = None) -> None:
        """Reads the tower's weights and its image processor from the folder or hub id it was named by; once only."""
        if self.is_loaded:
            return
        self._folder = self._folder or _download_tower(self.vision_tower_name)
        self._hold(CLIPVisionModel.from_pretrained(self._folder, config=self.cfg_only, device_map=device_map))

    def build_empty(self) -> None:
        """The layers without memory, so that a model on the meta device shows its whole tree.

        Their weights still have to be read: ``is_loaded`` stays as it is. Nothing happens where that is true, or where
        only the hub knows what the tower looks like.
        """
        is_known = self._given_config is not None or self._folder is not None or self.vision_tower_name in KNOWN_TOWERS
        if is_known and not self.is_loaded:
            with torch.device("meta"):
                self.vision_tower = CLIPVisionModel(self.cfg_only).requires_grad_(False)

    def _hold(self, model: CLIPVisionModel) -> None:
        self.vision_tower = model
        self.vision_tower.requires_grad_(False)
        self.is_loaded = True

    @cached_property
    def cfg_only(self) -> CLIPVisionConfig:
        """The tower's configuration, known before any weight is read."""
        if self._given_config is not None:
            return CLIPVisionConfig(**self._given_config)
        if self._folder is None and self.vision_tower_name in KNOWN_TOWERS:
            return CLIPVisionConfig(**KNOWN_TOWERS[self.vision_tower_name])
        return CLIPVisionConfig.from_pretrained(self._folder or self.vision_tower_name)

    @cached_property
    def image_processor(self) -> ImageProcessor:
        """Prepares pictures for this tower: what its folder says, else CLIP's own numbers at this tile size."""
        if self._folder is not None and (self._folder / "preprocessor_config.json").is_file():
            return ImageProcessor.from_pretrained(self._folder)
        return ImageProcessor(size=self.image_size)

    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Pixels [T, 3, S, S] -> features [T, P, D] of the chosen layer, in the pixels' dtype.

        A list of [3, S, S] or [n, 3, S, S] gives a list of [1 or n, P, D]; it is encoded in one go all the same.
        """
        if isinstance(images, list):
            tiles = [image if image.ndim == 4 else image[None] for image in images]
            return list(self(torch.cat(tiles)).split([len(tile) for tile in tiles]))
        model = self.vision_tower.vision_model
        hidden_TPD = model.embeddings(images.to(device=self.device, dtype=self.dtype))
        hidden_TPD = model.pre_layrnorm(hidden_TPD)
        for block in model.encoder.layers[: self.num_blocks_run]:
            hidden_TPD = block(hidden_TPD, attention_mask=None)
        if self.select_feature == "patch":
            hidden_TPD = hidden_TPD[:, 1:]
        return hidden_TPD.to(images.dtype)

    def feature_select(self, image_forward_outs: Any) -> torch.Tensor:
        """The chosen layer, [T, P, D], of what ``vision_tower(pixels, output_hidden_states=True)`` returned.

        For code that runs the layers itself, as research on token pruning does; ``forward`` runs only what it needs.
        """
        hidden_TPD = image_forward_outs.hidden_states[self.select_layer]
        return hidden_TPD[:, 1:] if self.select_feature == "patch" else hidden_TPD

    @property
    def has_layers(self) -> bool:
        """Whether the layers exist, with or without their weights; ``is_loaded`` says whether they have them."""
        return hasattr(self, "vision_tower")

    def names_of_used_weights(self) -> set[str]:
        """The parameters that ``forward`` runs, by their names below this tower; the others change nothing."""
        body = self.vision_tower.vision_model
        unused = [body.post_layernorm, *body.encoder.layers[self.num_blocks_run :]]
        theirs = {id(parameter) for module in unused for parameter in module.parameters()}
        return {name for name, parameter in self.named_parameters() if id(parameter) not in theirs}

    @property
    def num_blocks_run(self) -> int:
        """How many blocks lie before the layer that is read: hidden state 0 is the input of the first block."""
        num_blocks = self.config.num_hidden_layers
        index = self.select_layer if self.select_layer >= 0 else num_blocks + 1 + self.select_layer
        if not 0 <= index <= num_blocks:
            raise UsageError(f"mm_vision_select_layer is {self.select_layer}, but the tower has {num_blocks} blocks.")
        return index

    @property
    def dummy_feature(self) -> torch.Tensor:
        return torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        return self.vision_tower.dtype

    @property
    def device(self) -> torch.device:
        return self.vision_tower.device

    @property
    def config(self) -> CLIPVisionConfig:
        return self.vision_tower.config if self.is_loaded else self.cfg_only

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def image_size(self) -> int:
        return self.config.image_size

    @property
    def tile_px(self) -> int:
        """The side of the pictures it takes."""
        return self.image_size

    @property
    def patch_px(self) -> int:
        """The side of what one feature shows, in px of such a picture."""
        return self.tile_px // self.num_patches_per_side

    @property
    def num_patches_per_side(self) -> int:
        return self.config.image_size // self.config.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of one tile; the class position is not counted even where it is kept."""
        return self.num_patches_per_side**2


class CLIPVisionTowerS2(CLIPVisionTower):
    """A CLIP tower that looks at each picture in several sizes and joins what it saw patch by patch.

    The picture arrives in the largest size. It is scaled to each size, cut into squares of the smallest, and each
    square is read by the same layers; a size's features, laid out as one map, are averaged down to the map of the
    smallest. So there are as many features as without this, but ``hidden_size`` is that of CLIP times the sizes.

    ``args.s2_scales``: the sizes in px, separated by commas, "336,672,1008" by default: each a multiple of the
    smallest, which is the size that the layers read. Other arguments are those of ``CLIPVisionTower``.

    Raises:
        UsageError: a size is no multiple of the smallest, or ``mm_vision_select_feature`` is not "patch".

    Source: haotian-liu/LLaVA@c121f04 llava/model/multimodal_encoder/clip_encoder.py; bfshi/scaling_on_scales
    s2wrapper/core.py.
    """

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False) -> None:
        super().__init__(vision_tower, args, delay_load)
        self.s2_scales = sorted(int(side) for side in getattr(args, "s2_scales", DEFAULT_SCALES).split(","))
        self.s2_split_size, self.s2_image_size = self.s2_scales[0], self.s2_scales[-1]
        for side in self.s2_scales:
            if side % self.s2_split_size:
                raise UsageError(f"s2_scales holds {side} px, which is no multiple of {self.s2_split_size} px.")
        if self.select_feature != "patch":
            raise UsageError(f"mm_vision_select_feature is {self.select_feature!r}; a multi-scale tower needs 'patch'.")

    @cached_property
    def image_processor(self) -> ImageProcessor:
        """That of the layers, but for pictures of the largest size."""
        processor = super().image_processor
        processor.scale_to(self.s2_image_size)
        return processor

    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Pixels [T, 3, L, L], L the largest size -> features [T, P, D * sizes], smallest size first."""
        if isinstance(images, list):
            return super().forward(images)
        return torch.cat([self._read_at(images, side) for side in self.s2_scales], dim=2)

    def _read_at(self, pixels_TCHW: torch.Tensor, side: int) -> torch.Tensor:
        """Features [T, P, D] of the pictures scaled to ``side`` px."""
        scaled = nn.functional.interpolate(pixels_TCHW.float(), size=side, mode="bicubic").to(pixels_TCHW.dtype)
        num = side // self.s2_split_size
        squares = scaled.unflatten(2, (num, -1)).unflatten(4, (num, -1)).permute(0, 2, 4, 1, 3, 5)
        features = super().forward(squares.flatten(0, 2))
        assert isinstance(features, torch.Tensor)
        patches = self.num_patches_per_side
        maps = features.unflatten(1, (patches, patches)).unflatten(0, (-1, num, num))
        maps_TDHW = maps.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        # Each feature of the result is the mean over the square of features that shows the same part of the picture.
        averaged_TDHW = nn.functional.avg_pool2d(maps_TDHW.float(), num).to(features.dtype)
        return averaged_TDHW.flatten(2).transpose(1, 2)

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size * len(self.s2_scales)

    @property
    def tile_px(self) -> int:
        return self.s2_image_size


def build_vision_tower(vision_tower_cfg: Any, **kwargs: Any) -> CLIPVisionTower:
    """The tower named by ``mm_vision_tower`` (else ``vision_tower``) of a configuration or of training arguments.

    A name is accepted if it is a local folder, an ``openai/`` or ``laion/`` hub id or a ShareGPT4V tower, or if the
    configuration describes the tower itself (``mm_vision_config``). With ``s2`` it is a ``CLIPVisionTowerS2``.

    Raises:
        UsageError: no such tower is known.
    """
    name = getattr(vision_tower_cfg, "mm_vision_tower", None) or getattr(vision_tower_cfg, "vision_tower", None) or ""
    is_described = getattr(vision_tower_cfg, "mm_vision_config", None) is not None
    is_hub_id = name.startswith(("openai", "laion")) or "ShareGPT4V" in name
    is_folder = find_tower_folder(name, getattr(vision_tower_cfg, "_name_or_path", "")) is not None
    if not (is_described or is_hub_id or is_folder):
        raise UsageError(f"Unknown vision tower: {name!r}. Name a folder with a config.json, or a CLIP hub id.")
    kind = CLIPVisionTowerS2 if getattr(vision_tower_cfg, "s2", False) else CLIPVisionTower
    return kind(name, vision_tower_cfg, **kwargs)


def _download_tower(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [
        "config.json",
        "preprocessor_config.json",
        "*.safetensors",
        "*.safetensors.index.json",
        "pytorch_model*",
    ]
    return Path(snapshot_download(name, allow_patterns=patterns))
