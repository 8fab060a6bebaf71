"""Pixel values for the vision tower, float32 [tiles, 3, tile_px, tile_px], from an image and its ``TilePlan``.

Images are resized with Pillow's bicubic filter on 8-bit values, rows first and then columns: bit-identical to what the
checkpoints were trained on. Other libraries' bicubic filters differ, and so does Pillow 13 for some portrait images,
because it resizes columns first. The result has 256 values per channel, so rescaling and normalizing is a table lookup.

Images are padded in two places: ``_pad_and_resize`` (to a square) and ``_place_on_canvas`` (AnyRes). The functions
after ``make_pixels`` carry the original's names, for code written against it. One of them, ``expand2square``, also
pads: for that code, and for image processors whose resizing ``_pad_and_resize`` does not replace.

Source: transformers 5.23 models/clip/image_processing_pil_clip.py and image_processing_backends.py;
haotian-liu/LLaVA@c121f04 llava/mm_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from llava.errors import CheckpointError, UsageError
from llava.image.geometry import Fit, Size, TilePlan, choose_canvas, crop_to_square, fit_inside, parse_pinpoints
from llava.image.tones import to_rgb

if TYPE_CHECKING:
    from transformers import BatchFeature

# OpenAI CLIP's. Source: transformers 5.23 image_utils.py OPENAI_CLIP_MEAN, OPENAI_CLIP_STD.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# SigLIP's. Source: transformers 5.23 image_utils.py IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD.
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)

# An image is resized before its centre is cropped. If that would make more px than this, as for a very thin image,
# only the centre is resized, and values may differ by 1 of 255.
_MAX_RESIZED_PX = 64_000_000

# How many px of the square are padded at a time.
_BAND_PX = 4_000_000

_FILE = "preprocessor_config.json"


class ImageProcessor:
    """Turns each image into one tile; has the interface and the values of Transformers' CLIPImageProcessorPil.

    Attributes may be changed at any time. ``size`` is ``{"shortest_edge": px}``, or ``{"height": px, "width": px}``
    for a tower whose images are squashed instead of cropped; ``crop_size`` is ``{"height": px, "width": px}``.

    Raises:
        CheckpointError: on construction, for sizes without the needed keys, or not three means and deviations.
    """

    model_input_names = ("pixel_values",)

    def __init__(
        self,
        *,
        size: Mapping[str, int] | int = 336,
        crop_size: Mapping[str, int] | int | None = None,
        do_resize: bool = True,
        resample: int = Image.Resampling.BICUBIC,
        do_center_crop: bool = True,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        do_convert_rgb: bool = True,
    ) -> None:
        """``crop_size`` defaults to ``size``. ``do_convert_rgb`` changes nothing: the output is always RGB."""
        self.size = {"shortest_edge": size} if isinstance(size, int) else _drop_none(size)
        if "shortest_edge" not in self.size and not {"height", "width"} <= self.size.keys():
            raise CheckpointError(
                f"The image processor's size is {self.size}; it needs shortest_edge or height and width."
            )
        if crop_size is None:
            edge = self.size.get("shortest_edge")
            crop_size = edge if edge else {"height": self.size["height"], "width": self.size["width"]}
        square = {"height": crop_size, "width": crop_size} if isinstance(crop_size, int) else _drop_none(crop_size)
        if not {"height", "width"} <= square.keys():
            raise CheckpointError(f"The image processor's crop_size is {square}; it needs height and width.")
        if len(image_mean) != 3 or len(image_std) != 3:
            raise CheckpointError(
                f"The image processor needs 3 means and deviations, not {image_mean} and {image_std}."
            )
        self.crop_size = square
        self.do_resize = do_resize
        self.resample = int(resample)
        self.do_center_crop = do_center_crop
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.do_convert_rgb = do_convert_rgb

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ImageProcessor:
        """The processor described by ``preprocessor_config.json`` in ``folder``; ``folder`` may be the file itself.

        The file may also be Transformers 5's ``processor_config.json``, which has an ``image_processor`` entry. Sizes
        may be numbers, as in old files. Missing fields default to CLIPImageProcessor's.

        Raises:
            CheckpointError: the file is missing, is not JSON, or describes no image processor.
        """
        path = Path(folder)
        path = path if path.suffix == ".json" else path / _FILE
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(f"There is no {path}, which describes the image processor.") from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read as JSON.") from error
        if not isinstance(read, dict):
            raise CheckpointError(f"{path} holds a {type(read).__name__}, not the description of an image processor.")
        return cls.from_values(read, path)

    @classmethod
    def from_values(cls, values: Mapping[str, Any], path: Path) -> ImageProcessor:
        """The processor that the values of the file ``path`` describe, as ``from_pretrained`` reads them.

        Raises CheckpointError, which names the file.
        """
        read = values.get("image_processor", values)
        # Files from before Transformers had image processors leave out what was then the only choice.
        kind = str(read.get("image_processor_type", "CLIP"))
        clip: dict[str, Any] = {"size": 224, "do_center_crop": "CLIP" in kind or "crop_size" in read}
        if "siglip" in kind.lower():
            clip = {"size": {"height": 224, "width": 224}, "do_center_crop": False}
            clip |= {"image_mean": SIGLIP_MEAN, "image_std": SIGLIP_STD}
        fields = {name: read[name] for name in cls().to_dict() if read.get(name) is not None}
        fields.pop("image_processor_type", None)
        try:
            return cls(**{**clip, **fields})
        except (CheckpointError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} does not describe an image processor: {error}") from error

    def scale_to(self, tile_px: int) -> None:
        """Sets the side of the tiles, px."""
        self.size = {"shortest_edge": tile_px}
        self.crop_size = {"height": tile_px, "width": tile_px}

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes ``preprocessor_config.json`` to ``folder``, in the format that Transformers reads."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / _FILE).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """The attributes, and the name of Transformers' class that reads them."""
        kind = "CLIP" if self.do_center_crop or "shortest_edge" in self.size else "Siglip"
        return {"image_processor_type": f"{kind}ImageProcessor", **vars(self)}

    def __repr__(self) -> str:
        return f"ImageProcessor({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    @property
    def tile_px(self) -> int:
        """The side of the tiles, px."""
        return self.crop_size["height"] if self.do_center_crop else self.size.get("height", self.crop_size["height"])

    def preprocess(self, images: Any, return_tensors: str | None = None, **changes: Any) -> BatchFeature:
        """``pixel_values`` of one or more images, one tile each.

        Args:
            images: a Pillow image, or an 8-bit array or tensor [height, width, 3] or [3, height, width]; or a sequence
                of these, or an array with a leading axis of images.
            return_tensors: "pt" for a tensor [N, 3, tile, tile], "np" for such an array, None for a list of arrays
                [3, tile, tile]. float32.
            changes: attribute values for this call only.

        Raises:
            UsageError: there are no images, an image has another type, or ``return_tensors`` is unknown.
        """
        from transformers import BatchFeature

        if changes:
            return ImageProcessor(**{**vars(self), **changes}).preprocess(images, return_tensors)
        pixels_NCHW = self.make_tiles(_as_images(images))
        if return_tensors is None:
            return BatchFeature({"pixel_values": list(pixels_NCHW)})
        kind = str(getattr(return_tensors, "value", return_tensors))
        if kind not in ("pt", "np"):
            raise UsageError(f"return_tensors is {return_tensors!r}; it can be 'pt', 'np' or None.")
        return BatchFeature({"pixel_values": torch.from_numpy(pixels_NCHW) if kind == "pt" else pixels_NCHW})

    __call__ = preprocess

    def make_tiles(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """N images as [N, 3, tile, tile]: resized, cropped and normalized.

        Raises:
            UsageError: the tiles have different sizes, or there are no images.
        """
        tiles = [np.asarray(self._fit(to_rgb(image))) for image in images]
        if len({tile.shape for tile in tiles}) != 1:
            sizes = ", ".join(sorted({f"{tile.shape[1]}x{tile.shape[0]}" for tile in tiles})) or "no images at all"
            raise UsageError(f"Images of one size are needed for one array, but there are {sizes}.")
        pixels_NCHW = np.empty((len(tiles), 3, *tiles[0].shape[:2]), dtype=np.float32)
        table = self._table()
        for pixels_CHW, tile_HWC in zip(pixels_NCHW, tiles, strict=True):
            for channel in range(3):
                np.take(table[channel], tile_HWC[:, :, channel], out=pixels_CHW[channel], mode="clip")
        return pixels_NCHW

    def _fit(self, image: Image.Image) -> Image.Image:
        """The image resized and cropped, still 8-bit."""
        crop = Size(self.crop_size["width"], self.crop_size["height"])
        if self.do_resize:
            resample = Image.Resampling(self.resample)
            edge = self.size.get("shortest_edge")
            if edge is None:
                image = resize(image, (self.size["width"], self.size["height"]), resample)
            else:
                content, _ = crop_to_square(Size(*image.size), edge)
                if self.do_center_crop and content.width * content.height > _MAX_RESIZED_PX:
                    return _resize_centre(image, content, crop, resample)
                image = resize(image, content, resample)
        if self.do_center_crop and image.size != crop:
            left, top = (image.width - crop.width) // 2, (image.height - crop.height) // 2
            image = image.crop((left, top, left + crop.width, top + crop.height))
        return image

    def _table(self) -> npt.NDArray[np.float32]:
        """The float32 value for each 8-bit value of each channel, [3, 256], rounded as in Transformers."""
        values = np.arange(256, dtype=np.float64)
        if self.do_rescale:
            values *= self.rescale_factor
        table = np.repeat(values.astype(np.float32)[None], 3, axis=0)
        if not self.do_normalize:
            return table
        mean, std = (np.array(moment, dtype=np.float32)[:, None] for moment in (self.image_mean, self.image_std))
        return (table - mean) / std


def _drop_none(size: Mapping[str, Any]) -> dict[str, int]:
    return {key: int(value) for key, value in dict(size).items() if value is not None}


def _resize_centre(image: Image.Image, content: Size, crop: Size, resample: Image.Resampling) -> Image.Image:
    """The central ``crop`` of the image resized to ``content``, without computing the rest."""
    scale_x, scale_y = image.width / content.width, image.height / content.height
    left, top = (content.width - crop.width) // 2, (content.height - crop.height) // 2
    right, bottom = left + crop.width, top + crop.height
    narrow = image.resize((crop.width, image.height), resample, box=(left * scale_x, 0, right * scale_x, image.height))
    return narrow.resize(crop, resample, box=(0, top * scale_y, crop.width, bottom * scale_y))


def resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """``image.resize(size, resample)`` with the pass order of Pillow up to 12: rows first, then columns.

    Values are rounded to 8 bits between the two passes, so the order changes them. Pillow 13 runs the cheaper pass
    first, unless it is asked for one pass at a time. Modes that Pillow converts internally, and resampling without a
    filter, go to Pillow directly.
    """
    if image.mode not in ("RGB", "L") or resample == Image.Resampling.NEAREST or image.size == tuple(size):
        return image.resize(size, resample)
    return image.resize((size[0], image.height), resample).resize(size, resample)


def _as_images(images: Any) -> list[Image.Image]:
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, (list, tuple)):
        return [one for image in images for one in _as_images(image)]
    if isinstance(images, torch.Tensor):
        images = images.cpu().numpy()
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim not in (3, 4):
        kind = f"{images.dtype} array {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise UsageError(f"A {kind} is not an image; pass Pillow images or uint8 arrays [height, width, 3].")
    if images.ndim == 4:
        return [one for image in images for one in _as_images(image)]
    if images.shape[2] != 3 and images.shape[0] == 3:
        images = images.transpose(1, 2, 0)
    if images.shape[2] != 3:
        raise UsageError(f"An array {images.shape} is not an image; pass uint8 arrays [height, width, 3].")
    return [Image.fromarray(np.ascontiguousarray(images))]


def make_pixels(image: Image.Image, plan: TilePlan, processor: Any) -> torch.Tensor:
    """The tiles of one image as its plan lists them, float32 [plan.num_tiles, 3, tile_px, tile_px], base tile first.

    Raises:
        UsageError: the image processor makes tiles of another size than the plan has.
    """
    tile_px = processor.crop_size["height"]
    if tile_px != plan.tile_px:
        raise UsageError(
            f"The image processor makes tiles of {tile_px} px, but the vision tower takes tiles of {plan.tile_px} px."
        )
    image = to_rgb(image)
    assert plan.image == image.size, f"the plan is for {plan.image} px, but the image has {Size(*image.size)} px"
    tiles = [_fit_whole(image, plan.fit, processor)]
    if plan.num_tiles > 1:
        canvas = _place_on_canvas(image, plan.canvas, plan.content, plan.offset)
        tiles += divide_to_patches(canvas, plan.tile_px)
    return _normalise(tiles, processor)


def _fit_whole(image: Image.Image, fit: Fit, processor: Any) -> Image.Image:
    """The whole image, ready for the image processor to make one tile of it."""
    edge = processor.size.get("shortest_edge") or processor.size["height"]
    if fit == "base":
        return resize(image, (edge, edge), Image.Resampling.BICUBIC)
    if fit == "pad":
        color = tuple(int(x * 255) for x in processor.image_mean)
        if isinstance(processor, ImageProcessor) and processor.do_resize:
            return _pad_and_resize(image, color, edge, Image.Resampling(processor.resample))
        return expand2square(image, color)
    return image


def _normalise(tiles: Sequence[Image.Image], processor: Any) -> torch.Tensor:
    if isinstance(processor, ImageProcessor):
        return torch.from_numpy(processor.make_tiles(tiles))
    return torch.stack([processor.preprocess(tile, return_tensors="pt")["pixel_values"][0] for tile in tiles])


def process_images(
    images: Sequence[Image.Image], image_processor: Any, model_cfg: Any
) -> torch.Tensor | list[torch.Tensor]:
    """The images as tiles according to ``model_cfg.image_aspect_ratio``, float32.

    Without the attribute, or with an unknown value, images are cropped to their centre square.

    Args:
        model_cfg: any object; "anyres" also needs ``image_grid_pinpoints``.

    Returns:
        [N, 3, S, S]; for "anyres" [N, T, 3, S, S], or a list of N tensors [T, 3, S, S] if T differs.

    Raises:
        UsageError: there are no images, or the aspect ratio is not supported.
        CheckpointError: ``image_grid_pinpoints`` is invalid.
    """
    aspect = getattr(model_cfg, "image_aspect_ratio", None) or "square"
    if isinstance(images, Image.Image) or not images:
        raise UsageError("process_images takes a list of at least one image.")
    if aspect in ("highres", "crop_split"):
        raise UsageError(f"image_aspect_ratio is {aspect!r}, which is not supported.")
    if not aspect.startswith("anyres"):
        fit: Fit = "pad" if aspect == "pad" else "crop"
        tiles = [_fit_whole(to_rgb(image), fit, image_processor) for image in images]
        return torch.cat([_normalise([tile], image_processor) for tile in tiles])
    pinpoints = getattr(model_cfg, "image_grid_pinpoints", None)
    pixels = [process_anyres_image(image, image_processor, pinpoints) for image in images]
    return torch.stack(pixels) if len({len(one) for one in pixels}) == 1 else pixels


def process_anyres_image(image: Image.Image, processor: Any, grid_pinpoints: Any) -> torch.Tensor:
    """The image squashed to a square, then the tiles of its canvas row by row: float32 [1 + tiles, 3, S, S].

    Raises:
        CheckpointError: ``grid_pinpoints`` is invalid; see ``parse_pinpoints``.
    """
    tile_px = processor.crop_size["height"]
    image = to_rgb(image)
    canvas = choose_canvas(Size(*image.size), parse_pinpoints(grid_pinpoints, tile_px))
    tiles = divide_to_patches(resize_and_pad_image(image, canvas), tile_px)
    return _normalise([_fit_whole(image, "base", processor), *tiles], processor)


def _pad_and_resize(image: Image.Image, color: tuple[int, ...], edge: int, resample: Image.Resampling) -> Image.Image:
    """``expand2square`` and a resize to ``edge``, bit for bit, without holding the whole square in memory.

    Rows are resized first and then columns (see ``resize``), so rows can be padded and resized a band at a time. Rows
    that are only padding are not resized, because it would not change them.
    """
    side = max(image.size)
    left, top = (side - image.width) // 2, (side - image.height) // 2
    narrow = Image.new("RGB", (edge, side), color)
    num_rows = max(1, _BAND_PX // side)
    for first in range(0, image.height, num_rows):
        height = min(num_rows, image.height - first)
        band = Image.new("RGB", (side, height), color)
        band.paste(image.crop((0, first, image.width, first + height)), (left, 0))
        narrow.paste(band.resize((edge, height), resample), (0, top + first))
    return narrow.resize((edge, edge), resample)


def expand2square(pil_img: Image.Image, background_color: Any) -> Image.Image:
    """The image centred on a square with its longer side; a square image is returned as is."""
    width, height = pil_img.size
    if width == height:
        return pil_img
    side = max(width, height)
    square = Image.new(pil_img.mode, (side, side), background_color)
    square.paste(pil_img, ((side - width) // 2, (side - height) // 2))
    return square


def resize_and_pad_image(image: Image.Image, target_resolution: tuple[int, int]) -> Image.Image:
    """The image resized to fit ``target_resolution`` (width, height) and centred on black."""
    canvas = Size(*target_resolution)
    return _place_on_canvas(image, canvas, *fit_inside(Size(*image.size), canvas))


def _place_on_canvas(image: Image.Image, canvas: Size, content: Size, offset: tuple[int, int]) -> Image.Image:
    """A black canvas with the image, resized to ``content``, at ``offset`` (x, y)."""
    padded = Image.new("RGB", canvas, (0, 0, 0))
    padded.paste(resize(image, content, Image.Resampling.BICUBIC), offset)
    return padded


def divide_to_patches(image: Image.Image, patch_size: int) -> list[Image.Image]:
    """The tiles of ``patch_size`` px (the original calls them patches) that cover the image, row by row."""
    corners = ((x, y) for y in range(0, image.height, patch_size) for x in range(0, image.width, patch_size))
    return [image.crop((x, y, x + patch_size, y + patch_size)) for x, y in corners]


def select_best_resolution(
    original_size: tuple[int, int], possible_resolutions: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """The canvas (width, height) of an image of this (width, height); see ``choose_canvas``."""
    width, height = choose_canvas(Size(*original_size), possible_resolutions)
    return width, height


def get_anyres_image_grid_shape(image_size: tuple[int, int], grid_pinpoints: Any, patch_size: int) -> tuple[int, int]:
    """The grid (columns, rows) of tiles of ``patch_size`` px of an image of this (width, height)."""
    canvas = choose_canvas(Size(*image_size), parse_pinpoints(grid_pinpoints, patch_size))
    return canvas.width // patch_size, canvas.height // patch_size
