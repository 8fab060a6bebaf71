"""The image half of a model: tiles are encoded by the tower, projected, and merged to the positions of a prompt.

Shape letters: T tiles of all images, S side of a tile in px, N features of one tile, P positions of all images, C width
of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from llava.errors import UsageError
from llava.image.geometry import Size, TilePlan, Tiling, plan_tiles, plan_whole
from llava.model import replacements
from llava.model.arguments import check_images, check_sizes
from llava.model.merge import merge_frames, merge_images
from llava.model.newline import find_newline
from llava.model.vision import VisionTower


class ImageEncoder:
    """A mixin for language models with a tower and a projector: ``LlavaMetaForCausalLM`` has it."""

    config: Any
    model: Any  # a LlavaMetaModel
    tower_cache: Any = None  # in training, a llava.train.speed.tower_cache.TowerCache for a frozen tower

    def get_model(self) -> Any:
        """The ``LlavaMetaModel`` inside: decoder, tower, projector and newline vector."""
        return self.model

    def get_vision_tower(self) -> VisionTower | None:
        """The vision tower; None where the model has none."""
        tower: VisionTower | None = self.get_model().get_vision_tower()
        return tower

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels [T, 3, S, S] of any float dtype -> features [T, N, C] in the projector's dtype.

        Raises:
            UsageError: the tower has no layers yet.
        """
        tower, projector = self.get_vision_tower(), self.get_model().mm_projector
        assert tower is not None, "a model without a tower encodes no images"
        if not getattr(tower, "has_layers", True):  # a tower of another class has no such property
            raise UsageError(
                f"The vision tower {tower.vision_tower_name!r} is not loaded: call "
                "model.get_vision_tower().load_model() first, or load the model with load_pretrained_model."
            )
        features = self._run_tower(tower, images.to(replacements.find_tower_dtype(tower, images.dtype)))
        weights = next(projector.parameters(), None)
        # A quantized projector stores integers and takes features of any float dtype.
        if weights is not None and weights.is_floating_point():
            # Offloaded weights are on the meta device; accelerate moves weights and features to one device.
            device = features.device if weights.is_meta else weights.device
            features = features.to(device=device, dtype=weights.dtype)
        return projector(features)

    def _run_tower(self, tower: Any, pixels_TCHW: torch.Tensor) -> Any:
        encode = tower if self.tower_cache is None else partial(self.tower_cache.encode, tower)
        # Towers of other classes may train what they do not show.
        is_frozen = isinstance(tower, VisionTower) and replacements.needs_no_graph(tower)
        with torch.no_grad() if is_frozen and not pixels_TCHW.requires_grad else nullcontext():
            return encode(pixels_TCHW)

    def encode_and_merge(
        self, images: torch.Tensor | Sequence[torch.Tensor], image_sizes: Any = None, modalities: Any = None
    ) -> tuple[torch.Tensor, list[int]]:
        """The positions of all images, one image after another, [P, C], and how many each image has.

        Args:
            images: [images, 3, S, S]: one tile each, whose features are used as they are (``mm_patch_merge_type`` is
                ignored); or [images, T, 3, S, S], or a list of [T, 3, S, S] and [3, S, S]: tiles, merged as the
                config says.
            image_sizes: (width, height) of each image before any resizing; needed where several tiles are merged
                spatially.
            modalities: "video" for an image whose tiles are the frames of a video, which are merged according to
                ``mm_spatial_pool_mode`` and ``mm_newline_position`` of the config; its size is ignored.

        Raises:
            UsageError: a size is missing, tiles and sizes disagree, or a video cannot be merged.
        """
        videos = find_videos(modalities)
        if getattr(self.get_vision_tower(), "position_range", None) is not None:
            if videos:
                raise UsageError("The vision tower reads images; it sees no videos.")
            return self._see_and_project(images, image_sizes)
        check_images(images)
        if isinstance(images, torch.Tensor) and images.ndim == 4:
            if videos:
                raise UsageError("A video comes in a list, its frames as [frames, 3, S, S], but images is one tensor.")
            features_TNC = self.encode_images(images)
            return features_TNC.flatten(0, 1), [features_TNC.shape[1]] * len(images)
        tiles = [image if image.ndim == 4 else image[None] for image in images]
        num_tiles = [len(tile) for tile in tiles]
        features_TNC = self.encode_images(torch.cat(tiles))
        if not videos:
            return self._merge_tiles(features_TNC, num_tiles, image_sizes)
        merged = []
        for i, part_TNC in enumerate(features_TNC.split(num_tiles)):
            if i in videos:
                merged.append(self._merge_video(part_TNC))
            else:
                size = None if image_sizes is None else image_sizes[i : i + 1]
                merged.append(self._merge_tiles(part_TNC, num_tiles[i : i + 1], size)[0])
        return torch.cat(merged), [len(image) for image in merged]

    def _see_and_project(self, images: Any, image_sizes: Any) -> tuple[torch.Tensor, list[int]]:
        """``encode_and_merge`` for a tower that sees an image's tiles together, and features [N, D] that it made."""
        if type(self).encode_images is not ImageEncoder.encode_images or "encode_images" in vars(self):
            raise UsageError(
                "encode_images was replaced, but this vision tower sees an image's tiles together and not through it: "
                "replace the tower instead."
            )
        check_images([image for image in images if image.ndim != 2])
        if image_sizes is not None:
            check_sizes(image_sizes)
        tower: Any = self.get_vision_tower()
        merged = []
        for i, image in enumerate(images):
            features_ND = image
            if image.ndim != 2:
                tiles = image if image.ndim == 4 else image[None]
                sizes = None if image_sizes is None else [Size(*map(int, image_sizes[i]))]
                features_ND = tower.see(tiles, plan_given_tiles([len(tiles)], sizes, self.tiling())[0])
            merged.append(self.project_features(features_ND))
        return torch.cat(merged), [len(rows_PC) for rows_PC in merged]

    def project_features(self, features_ND: torch.Tensor) -> torch.Tensor:
        """The positions [N, C] of one image from the features that its tower made: ``LoadedImage.features``."""
        embeddings = self.get_model().embed_tokens
        projected: torch.Tensor = self.get_model().mm_projector(features_ND.to(embeddings.weight.device), embeddings)
        return projected

    def merge_features(self, features_TNC: torch.Tensor, plans: Sequence[TilePlan]) -> tuple[torch.Tensor, list[int]]:
        """The positions of all images, one image after another, [P, C], and how many each image has.

        ``features_TNC``: what ``encode_images`` returned for the tiles of all images, in order.

        Raises:
            UsageError: a tile has more or fewer features than the plan of its image can lay out.
        """
        newline_C = find_newline(self.get_model())
        plans = replacements.fit_plans(plans, features_TNC.shape[1])
        if replacements.has_replaced_unpad():
            merged = replacements.merge_with_replaced_unpad(features_TNC, plans, newline_C)
            return torch.cat(merged), [len(rows_PC) for rows_PC in merged]
        return merge_images(features_TNC, plans, newline_C), [plan.num_positions for plan in plans]

    def _merge_tiles(
        self, features_TNC: torch.Tensor, num_tiles: Sequence[int], image_sizes: Any
    ) -> tuple[torch.Tensor, list[int]]:
        """``merge_features`` for tiles that came without plans."""
        tiling = self.tiling()
        if tiling.is_flat:
            return features_TNC.flatten(0, 1), [num * features_TNC.shape[1] for num in num_tiles]
        if image_sizes is not None:
            check_sizes(image_sizes)
        sizes = None if image_sizes is None else [Size(*map(int, size)) for size in image_sizes]
        return self.merge_features(features_TNC, plan_given_tiles(num_tiles, sizes, tiling))

    def _merge_video(self, features_TNC: torch.Tensor) -> torch.Tensor:
        config, merge = self.config, self.tiling().merge
        if getattr(config, "add_faster_video", False):
            raise UsageError("The configuration says add_faster_video: true, which is not supported.")
        newlines = getattr(config, "mm_newline_position", "one_token")
        if merge == "flat" or (newlines == "one_token" and "unpad" not in merge):
            newlines = "no_token"
        pooling = getattr(config, "mm_spatial_pool_mode", None)
        return merge_frames(features_TNC, pooling, newlines, find_newline(self.get_model()))

    def tiling(self) -> Tiling:
        """The tiling of this model's tower and of its configuration as it is now. Raises CheckpointError."""
        tower: Any = self.get_vision_tower()
        assert tower is not None, "a model without a tower cuts no images"
        if isinstance(tower, VisionTower):
            tile_px, patch_px = tower.tile_px, tower.patch_px
        else:
            tile_px, patch_px = replacements.measure_tower(tower)
        own = {name: getattr(tower, name) for name in ("squashes", "position_range") if isinstance(tower, VisionTower)}
        return Tiling.from_config(self.config, tile_px=tile_px, patch_px=patch_px, **own)


def plan_given_tiles(num_tiles: Sequence[int], sizes: Sequence[Size] | None, tiling: Tiling) -> list[TilePlan]:
    """The plans of images that a caller cut into tiles; ``num_tiles`` of each.

    ``sizes``, before any resizing, are needed for images of several tiles. A single tile is the whole image, whatever
    its size, as in the original; it may also be the blank image of a text-only sample.

    Raises:
        UsageError: a size is missing, or an image of this size has another number of tiles.
    """
    if sizes is not None and len(sizes) != len(num_tiles):
        raise UsageError(f"{len(num_tiles)} images came with {len(sizes)} image_sizes.")
    plan_of_single_tile = plan_whole(Size(1, 1), tiling)
    plans = []
    for image, num in enumerate(num_tiles):
        if num == 1:
            plans.append(plan_of_single_tile)
            continue
        if sizes is None:
            raise UsageError(f"An image came as {num} tiles without its size: pass image_sizes=[(width, height), ...].")
        plan = plan_tiles(sizes[image], replacements.choose_grid(sizes[image], tiling))
        if plan.num_tiles != num:
            raise UsageError(
                f"An image of {plan.image} px came as {num} tiles, but the configuration cuts it into "
                f"{plan.num_tiles}. image_sizes are (width, height), before any resizing."
            )
        plans.append(plan)
    return plans


def find_videos(modalities: str | Sequence[str] | None) -> frozenset[int]:
    """The indices of the images that are videos. Raises UsageError for a modality that LLaVA-NeXT does not have."""
    kinds = [modalities] if isinstance(modalities, str) else list(modalities or ())
    unknown = [kind for kind in kinds if kind not in ("image", "text", "video")]
    if unknown:
        raise UsageError(f"modalities holds {unknown[0]!r}; it can hold 'image', 'text' and 'video'.")
    return frozenset(i for i, kind in enumerate(kinds) if kind == "video")
