"""Images and videos become the positions that stand for them in a prompt: encoded, projected, merged.

Shape letters: T tiles of all images together, S side of a tile in px, N features of one tile, P positions of all
images together, C width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from llava.errors import UsageError
from llava.image.geometry import Size, Tiling
from llava.model.arguments import check_images, check_sizes
from llava.model.merge import merge_and_count, merge_frames, plan_images
from llava.model.vision import SigLipVisionTower, VisionTower


class ImageEncoder:
    """What a language model with a tower and a projector does with pixels; ``LlavaMetaForCausalLM`` is one."""

    config: Any
    model: Any  # a LlavaMetaModel

    def get_model(self) -> Any:
        return self.model

    def get_vision_tower(self) -> VisionTower | None:
        tower: VisionTower | None = self.get_model().get_vision_tower()
        return tower

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels [T, 3, S, S] of any float dtype -> features [T, N, C] in the projector's dtype."""
        tower, projector = self.get_vision_tower(), self.get_model().mm_projector
        assert tower is not None, "a model without a tower encodes no images"
        if not getattr(tower, "has_layers", True):  # an outsider's tower has what the original's callers read
            raise UsageError(
                f"The vision tower {tower.vision_tower_name!r} is not loaded: call "
                "model.get_vision_tower().load_model() first, or load the model with load_pretrained_model."
            )
        dtype = getattr(tower, "dtype", None) or next((part.dtype for part in tower.parameters()), images.dtype)
        features = tower(images.to(dtype))
        weights = next(projector.parameters(), None)
        # A quantized projector stores integers; it takes the dtype it is given.
        if weights is not None and weights.is_floating_point():
            # Weights that are kept elsewhere show no device; accelerate brings both together.
            device = features.device if weights.is_meta else weights.device
            features = features.to(device=device, dtype=weights.dtype)
        return projector(features)

    def encode_and_merge(
        self, images: torch.Tensor | Sequence[torch.Tensor], image_sizes: Any = None, modalities: Any = None
    ) -> tuple[torch.Tensor, list[int]]:
        """The positions of all images, one after another, [P, C], and how many belong to each image.

        Args:
            images: [images, 3, S, S]: one tile each, taken as it comes (``mm_patch_merge_type`` is not asked); or
                [images, T, 3, S, S], or a list of [T, 3, S, S] and [3, S, S]: tiles, merged as the config says.
            image_sizes: (width, height) of each image as it was before any resizing; needed where several tiles
                are merged spatially.
            modalities: "video" where an image's tiles are the frames of a video, merged as ``mm_spatial_pool_mode``
                and ``mm_newline_position`` of the config say; their ``image_sizes`` are not read.

        Raises:
            UsageError: a size is missing, tiles do not fit together, or a video cannot be merged.
        """
        videos = find_videos(modalities)
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
            return self._merge_images(features_TNC, num_tiles, image_sizes)
        merged = []
        for i, part_TNC in enumerate(features_TNC.split(num_tiles)):
            if i in videos:
                merged.append(self._merge_video(part_TNC))
            else:
                size = None if image_sizes is None else image_sizes[i : i + 1]
                merged.append(self._merge_images(part_TNC, num_tiles[i : i + 1], size)[0])
        return torch.cat(merged), [len(image) for image in merged]

    def _merge_images(
        self, features_TNC: torch.Tensor, num_tiles: Sequence[int], image_sizes: Any
    ) -> tuple[torch.Tensor, list[int]]:
        tiling = self.tiling()
        if tiling.is_flat:
            return features_TNC.flatten(0, 1), [num * features_TNC.shape[1] for num in num_tiles]
        if image_sizes is not None:
            check_sizes(image_sizes)
        sizes = None if image_sizes is None else [Size(*map(int, size)) for size in image_sizes]
        plans = plan_images(num_tiles, sizes, tiling)
        return merge_and_count(features_TNC, plans, getattr(self.get_model(), "image_newline", None), tiling)

    def _merge_video(self, features_TNC: torch.Tensor) -> torch.Tensor:
        config, merge = self.config, self.tiling().merge
        if getattr(config, "add_faster_video", False):
            raise UsageError("The configuration says add_faster_video: true, which is not supported.")
        newlines = getattr(config, "mm_newline_position", "one_token")
        if merge == "flat" or (newlines == "one_token" and "unpad" not in merge):
            newlines = "no_token"
        pooling = getattr(config, "mm_spatial_pool_mode", None)
        return merge_frames(features_TNC, pooling, newlines, getattr(self.get_model(), "image_newline", None))

    def tiling(self) -> Tiling:
        """How this model's configuration, as it stands now, cuts images into tiles and puts them together again."""
        tower: Any = self.get_vision_tower()
        assert tower is not None, "a model without a tower cuts no images"
        if isinstance(tower, VisionTower):
            tile_px, patch_px = tower.tile_px, tower.patch_px  # an outsider's has the original's names alone
        else:
            tile_px = getattr(tower, "image_size", None) or tower.config.image_size
            patch_px = tile_px // tower.num_patches_per_side
        squashes = isinstance(tower, SigLipVisionTower)
        return Tiling.from_config(self.config, tile_px=tile_px, patch_px=patch_px, squashes=squashes)


def find_videos(modalities: str | Sequence[str] | None) -> frozenset[int]:
    """Which of the images are videos. Raises UsageError for a modality that LLaVA-NeXT does not have."""
    kinds = [modalities] if isinstance(modalities, str) else list(modalities or ())
    unknown = [kind for kind in kinds if kind not in ("image", "text", "video")]
    if unknown:
        raise UsageError(f"modalities holds {unknown[0]!r}; it can hold 'image', 'text' and 'video'.")
    return frozenset(i for i, kind in enumerate(kinds) if kind == "video")
