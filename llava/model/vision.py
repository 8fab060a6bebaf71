"""Vision towers: the pixels of tiles become features, one vector per patch.

A tower is CLIP's or SigLIP's vision transformer, read at the hidden state ``mm_vision_select_layer``
(``count_blocks_run``): -2, LLaVA's value, is the output of the last block but one. The blocks after it and the last
norm do not run, unless one of them has a hook or was replaced. CLIP's are kept, because a checkpoint holds their
weights; SigLIP's are removed, as in LLaVA-NeXT. CLIP's CLS is dropped in one place, ``CLIPVisionTower.drop_cls``,
unless ``mm_vision_select_feature`` is "cls_patch". Grids, padding and prompts belong to other files.

Shape letters: T tiles, P patches of one tile (+1 where CLS is kept), D width of the tower, S side of a tile in px.

Source: haotian-liu/LLaVA@c121f04 llava/model/multimodal_encoder/{builder,clip_encoder}.py; LLaVA-VL/LLaVA-NeXT@df17966
llava/model/multimodal_encoder/siglip_encoder.py; transformers 5.23 models/clip and models/siglip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from transformers import CLIPVisionConfig, SiglipVisionConfig

from llava.config import DEFAULT_SCALES, find_tower_folder, read_tower_config
from llava.errors import UsageError
from llava.image.pixels import SIGLIP_MEAN, SIGLIP_STD, ImageProcessor
from llava.model.encoders import CLIPVisionModel, SiglipVisionModel
from llava.model.recorders import Picklable
from llava.model.replacements import is_tower_watched
from llava.towers import KNOWN_TOWERS, describe_foreign_tower, is_lexical, is_siglip

if TYPE_CHECKING:
    from typing_extensions import Self


class VisionTower(Picklable, nn.Module):
    """One inner hidden state of a vision transformer, as features; the subclasses are CLIP's and SigLIP's.

    Args:
        vision_tower: a folder or a hub id.
        args: an object with ``mm_vision_select_layer`` (negative counts from the end: -2 of 24 blocks is the output
            of block 23), and optionally ``mm_vision_select_feature`` (``patch`` or ``cls_patch``),
            ``mm_vision_config`` (the tower's own configuration as a dict) and ``unfreeze_mm_vision_tower``.
        delay_load: leave the weights to a later ``load_model`` or to the checkpoint of the model. The layers are built
            with random weights if ``args`` says that the checkpoint holds them (``mm_vision_config`` or
            ``unfreeze_mm_vision_tower``), else not at all.

    The parameters are frozen; a trainer calls ``requires_grad_(True)`` to train them. The dtype is float32 unless the
    tower's own files say otherwise.

    Raises:
        UsageError: ``mm_vision_select_feature`` has another value.
    """

    config_class: ClassVar[Any]
    model_class: ClassVar[Any]
    squashes: ClassVar[bool] = False  # images to a tile, instead of cropping their centre
    own_dtype: ClassVar[torch.dtype | None] = None  # of its weights, whatever the model's is
    vision_tower: Any  # a model_class, unless it was replaced

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False) -> None:
        super().__init__()
        self.is_loaded = False
        self.vision_tower_name = vision_tower
        self.select_layer: int = self._choose_layer(args)
        self.select_feature: str = self._choose_feature(args)
        if self.select_feature not in ("patch", "cls_patch"):
            raise UsageError(f"Unexpected select feature: {self.select_feature!r}. Use 'patch' or 'cls_patch'.")
        self._attention: str | None = getattr(args, "_attn_implementation", None)
        self._given_config: Mapping[str, Any] | None = getattr(args, "mm_vision_config", None)
        self._folder = find_tower_folder(vision_tower, getattr(args, "_name_or_path", ""))
        if not delay_load and (self._given_config is None or self._folder is not None):
            self.load_model()
        elif self._given_config is not None or _has_own_weights(args):
            self._hold(self.model_class(self.cfg_only))

    def _choose_layer(self, args: Any) -> int:
        layer: int = args.mm_vision_select_layer
        return layer

    def _choose_feature(self, args: Any) -> str:
        feature: str = getattr(args, "mm_vision_select_feature", "patch")
        return feature

    @classmethod
    def usual_processor(cls, tile_px: int) -> ImageProcessor:
        """The image processor of such a tower where no file describes it."""
        if not cls.squashes:
            return ImageProcessor(size=tile_px)
        square = {"height": tile_px, "width": tile_px}
        return ImageProcessor(size=square, do_center_crop=False, image_mean=SIGLIP_MEAN, image_std=SIGLIP_STD)

    def take_companions(self, processor: ImageProcessor, tokenizer: Any) -> None:
        """Keeps what it needs of a checkpoint's image processor and tokenizer."""
        self.image_processor = processor

    @classmethod
    def from_config(cls, vision_config: Mapping[str, Any], args: Any) -> Self:
        """A tower with this configuration and random weights, built without a folder."""
        described = SimpleNamespace(
            mm_vision_select_layer=args.mm_vision_select_layer,
            mm_vision_select_feature=getattr(args, "mm_vision_select_feature", "patch"),
            mm_vision_config=vision_config,
        )
        return cls("", described, delay_load=True)

    def load_model(self, device_map: Any = None) -> None:
        """Loads the tower's weights and its image processor from its folder or hub id; is idempotent."""
        if self.is_loaded:
            return
        self._folder = self._folder or _download_tower(self.vision_tower_name)
        settings = {} if self._attention is None else {"attn_implementation": self._attention}
        model = self.model_class.from_pretrained(self._folder, config=self.cfg_only, device_map=device_map, **settings)
        self._hold(model)

    def build_empty(self) -> None:
        """Builds the layers on the meta device, so that a model there has its whole module tree.

        Their weights still have to be loaded: ``is_loaded`` does not change. Does nothing if it is true, or if only
        the hub has the tower's configuration.
        """
        is_known = self._given_config is not None or self._folder is not None or self.vision_tower_name in KNOWN_TOWERS
        if is_known and not self.is_loaded:
            with torch.device("meta"):
                self.vision_tower = self._prepare(self.model_class(self.cfg_only))

    def _hold(self, model: Any) -> None:
        self.vision_tower = self._prepare(model)
        self.is_loaded = True

    def _prepare(self, model: Any) -> Any:
        """The model with the changes that this tower needs."""
        return model.requires_grad_(False)

    @cached_property
    def cfg_only(self) -> Any:
        """The tower's configuration, available without weights, with the attention implementation of ``args``."""
        if self._given_config is not None:
            config = self.config_class(**self._given_config)
        elif self._folder is None and self.vision_tower_name in KNOWN_TOWERS:
            config = self.config_class(**KNOWN_TOWERS[self.vision_tower_name])
        else:
            config = self.config_class.from_pretrained(self._folder or self.vision_tower_name)
        if self._attention is not None:
            config._attn_implementation = self._attention
        return config

    @cached_property
    def image_processor(self) -> ImageProcessor:
        """The tower's image processor: its folder's, else the usual one of its class, at this tile size."""
        if self._folder is not None and (self._folder / "preprocessor_config.json").is_file():
            return ImageProcessor.from_pretrained(self._folder)
        return self.usual_processor(self.image_size)

    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Pixels [T, 3, S, S] -> features [T, P, D] of the selected layer, in the pixels' dtype.

        A list of [3, S, S] or [n, 3, S, S] gives a list of [1 or n, P, D], and is encoded as one batch.
        """
        if isinstance(images, list):
            tiles = [image if image.ndim == 4 else image[None] for image in images]
            return list(self(torch.cat(tiles)).split([len(tile) for tile in tiles]))
        pixels_TCHW = images.to(device=self.device, dtype=self.dtype)
        if self.is_watched():
            outputs = self.vision_tower(pixels_TCHW, output_hidden_states=True)
            return self.feature_select(outputs).to(images.dtype)
        hidden_TPD = self.embed(pixels_TCHW)
        for block in self.blocks_run:
            hidden_TPD = block(hidden_TPD, attention_mask=None)
        return self.drop_cls(hidden_TPD).to(images.dtype)

    def embed(self, pixels_TCHW: torch.Tensor) -> torch.Tensor:
        """Hidden state 0, the input of the first block: [T, P, D], CLS included."""
        hidden_TPD: torch.Tensor = self.vision_tower.vision_model.embeddings(pixels_TCHW)
        return hidden_TPD

    def drop_cls(self, hidden_TPD: torch.Tensor) -> torch.Tensor:
        """The features [T, P, D] of a hidden state: without CLS, where the tower has one and is not to keep it."""
        return hidden_TPD

    def is_watched(self) -> bool:
        """Whether the whole model has to be called, because a module that ``forward`` skips is watched or replaced."""
        return is_tower_watched(self)

    def feature_select(self, image_forward_outs: Any) -> torch.Tensor:
        """The features [T, P, D] of the selected layer, from ``vision_tower(pixels, output_hidden_states=True)``.

        For code that runs the whole model itself, as research on token pruning does.
        """
        # Counted from the first block, because a checkpoint may lack the last ones.
        return self.drop_cls(image_forward_outs.hidden_states[self.num_blocks_run])

    @property
    def has_layers(self) -> bool:
        """Whether the layers exist; ``is_loaded`` says whether they have their weights."""
        return hasattr(self, "vision_tower")

    def names_of_used_weights(self) -> set[str]:
        """The names, within this tower, of the parameters that ``forward`` uses."""
        body = self.vision_tower.vision_model
        unused = [body.post_layernorm, *body.encoder.layers[self.num_blocks_run :]]
        unused_ids = {id(parameter) for module in unused for parameter in module.parameters()}
        return {name for name, parameter in self.named_parameters() if id(parameter) not in unused_ids}

    def names_of_needed_weights(self) -> set[str]:
        """The names, within this tower, of the parameters that a checkpoint has to hold."""
        return self.names_of_used_weights()

    def compute_buffers(self, device: torch.device) -> None:
        """Computes the buffers, which no file contains, and what else follows from loaded weights."""
        embeddings = self.vision_tower.vision_model.embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions, device=device).expand((1, -1))

    @property
    def position_range(self) -> tuple[int, int] | None:
        """The fewest and the most positions of an image, if they follow from what is seen in it; None otherwise.

        Such a tower has ``look`` and ``see``, which make one image's features.
        """
        return None

    @property
    def blocks_run(self) -> Sequence[nn.Module]:
        """The blocks that ``forward`` runs."""
        blocks: Sequence[nn.Module] = self.vision_tower.vision_model.encoder.layers[: self.num_blocks_run]
        return blocks

    @property
    def num_blocks_run(self) -> int:
        """How many blocks ``forward`` runs: those before the selected hidden state."""
        return count_blocks_run(self.select_layer, self.config.num_hidden_layers)

    @property
    def dummy_feature(self) -> torch.Tensor:
        """A feature of zeros [1, D], for callers of the original."""
        return torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tower's weights."""
        return self.vision_tower.dtype

    @property
    def device(self) -> torch.device:
        """The device that the tower computes on; with accelerate's offloading, the one that weights are moved to."""
        device: torch.device = self.vision_tower.device
        if device.type != "meta":
            return device
        hooks = (getattr(module, "_hf_hook", None) for module in self.vision_tower.modules())
        places = [place for hook in hooks if (place := getattr(hook, "execution_device", None)) is not None]
        return torch.device(places[0]) if places else device

    @property
    def config(self) -> Any:
        """The configuration of Transformers' model."""
        return self.vision_tower.config if self.is_loaded else self.cfg_only

    @property
    def hidden_size(self) -> int:
        """The width of a feature, D."""
        return self.config.hidden_size

    @property
    def image_size(self) -> int:
        """The side, px, of the images that the layers take."""
        return self.config.image_size

    @property
    def tile_px(self) -> int:
        """The side of a tile, px."""
        return self.image_size

    @property
    def patch_px(self) -> int:
        """The side, px of the tile, of the square that one feature stands for."""
        return self.tile_px // self.num_patches_per_side

    @property
    def num_patches_per_side(self) -> int:
        """Patches of a tile along one side."""
        return self.config.image_size // self.config.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of one tile; CLS is not counted even where it is kept."""
        return self.num_patches_per_side**2


class CLIPVisionTower(VisionTower):
    """A CLIP tower, without CLS or with it (``mm_vision_select_feature``)."""

    config_class = CLIPVisionConfig
    model_class = CLIPVisionModel

    def embed(self, pixels_TCHW: torch.Tensor) -> torch.Tensor:
        """Hidden state 0, after CLIP's first norm: [T, 1 + P, D]."""
        hidden_TPD: torch.Tensor = self.vision_tower.vision_model.pre_layrnorm(super().embed(pixels_TCHW))
        return hidden_TPD

    def drop_cls(self, hidden_TPD: torch.Tensor) -> torch.Tensor:
        """The features [T, P, D] without CLS, which comes first, or with it if ``select_feature`` is "cls_patch"."""
        return hidden_TPD[:, 1:] if self.select_feature == "patch" else hidden_TPD


class SigLipVisionTower(VisionTower):
    """A SigLIP tower, or a fixed-resolution SigLIP2: it has no CLS, and images are squashed to a tile.

    As in LLaVA-NeXT the output of the last block but one is read, whatever ``mm_vision_select_layer`` says, and the
    last block and the pooling head are removed. Only with ``mm_vision_config`` does ``mm_vision_select_layer`` count.
    """

    config_class = SiglipVisionConfig
    model_class = SiglipVisionModel
    squashes = True

    def __init__(self, vision_tower: str, vision_tower_cfg: Any, delay_load: bool = False) -> None:
        super().__init__(vision_tower, vision_tower_cfg, delay_load)

    def _choose_layer(self, args: Any) -> int:
        is_described = getattr(args, "mm_vision_config", None) is not None
        return super()._choose_layer(args) if is_described else -2

    def _choose_feature(self, args: Any) -> str:
        return "patch"

    def _prepare(self, model: Any) -> Any:
        num_blocks = model.config.num_hidden_layers
        del model.vision_model.encoder.layers[count_blocks_run(self.select_layer, num_blocks) :]
        return super()._prepare(model)


class CLIPVisionTowerS2(CLIPVisionTower):
    """A CLIP tower that encodes each image at several sizes (S2) and concatenates the features patch by patch.

    The image arrives at the largest size. It is scaled to each size and cut into squares of the smallest, which all go
    through the same layers; the features of a size, laid out as one map, are averaged down to the map of the smallest.
    So there are as many features as without S2, but ``hidden_size`` is CLIP's times the number of sizes.

    ``args.s2_scales``: the sizes in px, separated by commas, "336,672,1008" by default: each a multiple of the
    smallest, which is the layers' own image size. Other arguments are those of ``CLIPVisionTower``.

    Raises:
        UsageError: a size is not a multiple of the smallest, or ``mm_vision_select_feature`` is not "patch".

    Source: haotian-liu/LLaVA@c121f04 llava/model/multimodal_encoder/clip_encoder.py; bfshi/scaling_on_scales
    s2wrapper/core.py.
    """

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False) -> None:
        super().__init__(vision_tower, args, delay_load)
        self.s2_scales = sorted(int(side) for side in getattr(args, "s2_scales", DEFAULT_SCALES).split(","))
        self.s2_split_size, self.s2_image_size = self.s2_scales[0], self.s2_scales[-1]
        for side in self.s2_scales:
            if side % self.s2_split_size:
                raise UsageError(f"s2_scales holds {side} px, which is not a multiple of {self.s2_split_size} px.")
        if self.select_feature != "patch":
            raise UsageError(f"mm_vision_select_feature is {self.select_feature!r}; a multi-scale tower needs 'patch'.")

    @cached_property
    def image_processor(self) -> ImageProcessor:
        """The layers' image processor, for images of the largest size."""
        processor = super().image_processor
        processor.scale_to(self.s2_image_size)
        return processor

    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Pixels [T, 3, L, L], L the largest size -> features [T, P, D * number of sizes], smallest size first."""
        if isinstance(images, list):
            return super().forward(images)
        return torch.cat([self._read_at(images, side) for side in self.s2_scales], dim=2)

    def _read_at(self, pixels_TCHW: torch.Tensor, side: int) -> torch.Tensor:
        """Features [T, P, D] of the images scaled to ``side`` px."""
        scaled = nn.functional.interpolate(pixels_TCHW.float(), size=side, mode="bicubic").to(pixels_TCHW.dtype)
        num = side // self.s2_split_size
        squares = scaled.unflatten(2, (num, -1)).unflatten(4, (num, -1)).permute(0, 2, 4, 1, 3, 5)
        features = super().forward(squares.flatten(0, 2))
        assert isinstance(features, torch.Tensor)
        patches = self.num_patches_per_side
        maps = features.unflatten(1, (patches, patches)).unflatten(0, (-1, num, num))
        maps_TDHW = maps.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        # Each feature of the result is the mean of the features that show the same part of the image.
        averaged_TDHW = nn.functional.avg_pool2d(maps_TDHW.float(), num).to(features.dtype)
        return averaged_TDHW.flatten(2).transpose(1, 2)

    @property
    def hidden_size(self) -> int:
        """The width of a feature: CLIP's times the number of sizes."""
        return self.config.hidden_size * len(self.s2_scales)

    @property
    def tile_px(self) -> int:
        """The side of a tile, px: the largest size."""
        return self.s2_image_size


def build_vision_tower(vision_tower_cfg: Any, **kwargs: Any) -> VisionTower:
    """The tower named by ``mm_vision_tower`` (else ``vision_tower``) of a configuration or of training arguments.

    The name may be a local folder, an ``openai/``, ``laion/`` or SigLIP hub id, or a ShareGPT4V tower; with
    ``mm_vision_config``, the tower's own configuration, it may be anything, and the tower is lexical if that says so.
    With ``s2`` it is a ``CLIPVisionTowerS2``.

    Raises:
        UsageError: the tower is unknown or not supported.
    """
    name = getattr(vision_tower_cfg, "mm_vision_tower", None) or getattr(vision_tower_cfg, "vision_tower", None) or ""
    described = getattr(vision_tower_cfg, "mm_vision_config", None)
    folder = find_tower_folder(name, getattr(vision_tower_cfg, "_name_or_path", ""))
    kind = "siglip" if is_siglip({}, name) else "clip"
    if described is not None:
        if is_lexical(described):
            from llava.model.lexical.lexical_tower import LexicalVisionTower  # which imports this module

            return LexicalVisionTower(name, vision_tower_cfg, **kwargs)
        kind = "siglip" if is_siglip(described) else "clip"
    elif folder is not None:
        kind = "siglip" if is_siglip(read_tower_config(folder)) else "clip"
    elif not (name.startswith(("openai", "laion")) or "ShareGPT4V" in name or kind == "siglip"):
        what = describe_foreign_tower(name)
        raise UsageError(
            f"Unknown vision tower: {name!r}{f', which is {what}' if what else ''}. Supported are CLIP's and SigLIP's: "
            "name a folder with a config.json, or a hub id of one of them."
        )
    wants_scales = bool(getattr(vision_tower_cfg, "s2", False))
    if kind == "siglip":
        if wants_scales:
            raise UsageError(f"s2 asks for a multi-scale tower, but {name!r} is a SigLIP tower: only CLIP's can be.")
        return SigLipVisionTower(name, vision_tower_cfg, **kwargs)
    return (CLIPVisionTowerS2 if wants_scales else CLIPVisionTower)(name, vision_tower_cfg, **kwargs)


def _has_own_weights(args: Any) -> bool:
    """Whether a configuration says that the tower was trained, so its weights are in the checkpoint."""
    trained = getattr(args, "mm_tunable_parts", None) or ""  # LLaVA-NeXT's key
    return bool(getattr(args, "unfreeze_mm_vision_tower", False)) or "mm_vision_tower" in trained


def count_blocks_run(select_layer: int, num_blocks: int) -> int:
    """How many blocks run before the hidden state that ``mm_vision_select_layer`` selects.

    Hidden state 0 is the input of the first block, so a tower of N blocks has N + 1 of them; negative values count from
    the end.

    Raises:
        UsageError: the tower has no such hidden state.
    """
    index = select_layer if select_layer >= 0 else num_blocks + 1 + select_layer
    if not 0 <= index <= num_blocks:
        raise UsageError(f"mm_vision_select_layer is {select_layer}, but the tower has {num_blocks} blocks.")
    return index


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
