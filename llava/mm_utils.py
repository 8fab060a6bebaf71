"""FRONT DOOR: the original's ``llava.mm_utils``, for code written against it. Only another front door imports it.

Most names are imported from ``image.pixels`` and ``prompt``; the functions defined here are used by outside code only.

Source: haotian-liu/LLaVA@c121f04 llava/mm_utils.py; LLaVA-VL/LLaVA-NeXT@df17966 llava/mm_utils.py for the functions
that only it has: for image_aspect_ratio highres and crop_split, which the models here do not support.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from transformers import StoppingCriteria

from llava.errors import BadImage, UsageError
from llava.image.formats import COMMON, RARER
from llava.image.pixels import (
    divide_to_patches,
    expand2square,
    get_anyres_image_grid_shape,
    process_anyres_image,
    process_images,
    resize_and_pad_image,
    select_best_resolution,
)
from llava.model.sources import name_checkpoint
from llava.prompt import tokenizer_image_token

__all__ = [
    "KeywordsStoppingCriteria",
    "auto_pad_images",
    "divide_to_patches",
    "expand2square",
    "extract_patches",
    "get_anyres_image_grid_shape",
    "get_model_name_from_path",
    "load_image_from_base64",
    "process_anyres_image",
    "process_highres_image",
    "process_highres_image_crop_split",
    "process_images",
    "resize_and_center_crop",
    "resize_and_pad_image",
    "select_best_resolution",
    "tokenizer_image_token",
]


def load_image_from_base64(image: str | bytes) -> Image.Image:
    """The image in base64 text, opened by Pillow but not decoded, in its own mode.

    Raises:
        BadImage: the text is not base64, or not an image in a format that this package reads (so not PostScript).
    """
    Image.init()
    known = {"HEIF", "CUR", *COMMON, *RARER}
    try:
        return Image.open(BytesIO(base64.b64decode(image)), formats=[name for name in Image.OPEN if name in known])
    except (ValueError, OSError, Image.DecompressionBombError) as error:
        raise BadImage(f"This text is not an image in base64: {error}.") from error


def resize_and_center_crop(image: Image.Image, shortest_edge_length: int) -> Image.Image:
    """The centre square of the image, after its shorter side was resized to ``shortest_edge_length`` px."""
    edge, ratio = shortest_edge_length, image.width / image.height
    size = (int(edge * ratio), edge) if ratio > 1 else (edge, int(edge / ratio))
    resized = image.resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - edge) / 2, (size[1] - edge) / 2
    return resized.crop((left, top, size[0] - left, size[1] - top))


def auto_pad_images(image: Image.Image, grid_params: Sequence[int]) -> Image.Image:
    """The image centred on the black canvas with sides from ``grid_params`` whose shape is nearest to its own."""
    if not grid_params:
        raise UsageError("grid_params is empty: it has to list the sides that a canvas may have.")
    ratio = image.width / image.height
    canvases = [(width, height) for width in grid_params for height in grid_params]
    nearest = min((width / height for width, height in canvases), key=lambda each: abs(ratio - each))
    fitting = [canvas for canvas in canvases if abs(canvas[0] / canvas[1] - nearest) < 1e-3]
    width, height = canvas = min(fitting, key=lambda each: abs(max(image.size) / max(each) - 1))
    size = (width, int(width / ratio)) if image.width > image.height else (int(height * ratio), height)
    padded = Image.new("RGB", canvas, (0, 0, 0))
    padded.paste(image.resize(size, Image.Resampling.LANCZOS), ((width - size[0]) // 2, (height - size[1]) // 2))
    return padded


def extract_patches(image: Image.Image, patch_size: int, overlap_ratio: float) -> list[Image.Image]:
    """Squares of ``patch_size`` px, row by row, centred on the image; a remainder is cut off equally at both ends."""
    if patch_size <= 0 or not 0 <= overlap_ratio < 1:
        raise UsageError(f"Squares of {patch_size} px that overlap by {overlap_ratio} cannot be cut out.")
    stride = int(patch_size * (1 - overlap_ratio))
    columns, rows = ((side - patch_size) // stride + 1 for side in image.size)
    left = (image.width - (columns - 1) * stride - patch_size) // 2
    top = (image.height - (rows - 1) * stride - patch_size) // 2
    corners = [(left + column * stride, top + row * stride) for row in range(rows) for column in range(columns)]
    return [image.crop((x, y, x + patch_size, y + patch_size)) for x, y in corners]


def process_highres_image(image: Image.Image, processor: Any, grid_pinpoints: str) -> torch.Tensor:
    """Pixels [1 + n, 3, S, S]: the whole image, and squares of it at the largest of ``grid_pinpoints`` ("336,672")."""
    edge = processor.size["shortest_edge"]
    side = max(int(each) for each in grid_pinpoints.split(","))
    padded = expand2square(image, tuple(int(each * 255) for each in processor.image_mean)).resize((side, side))
    return _preprocess([image.resize((edge, edge)), *extract_patches(padded, edge, 0)], processor)


def process_highres_image_crop_split(image: Image.Image, data_args: Any, processor: Any = None) -> torch.Tensor:
    """Pixels [n, 3, S, S]: the image cropped to ``image_crop_resolution``, in squares of ``image_split_resolution``."""
    cropped = resize_and_center_crop(image, data_args.image_crop_resolution)
    pieces = extract_patches(cropped, data_args.image_split_resolution, 0)
    return _preprocess(pieces, processor or data_args.image_processor)


def _preprocess(pieces: Sequence[Image.Image], processor: Any) -> torch.Tensor:
    return torch.stack([processor.preprocess(piece, return_tensors="pt")["pixel_values"][0] for piece in pieces])


def get_model_name_from_path(model_path: str) -> str:
    """The last part of a path or hub id; ``checkpoint-N`` is prefixed with the part before it, if there is one."""
    return name_checkpoint(model_path)


class KeywordsStoppingCriteria(StoppingCriteria):
    """Stops each row of a batch as soon as its answer ends with a keyword.

    ``input_ids``: the prompt, ``[batch, length]``. ``generate`` may or may not pass it before the answer; only the
    answer is searched. A keyword matches by its ids at the end of the answer, or in the text of the last tokens.

    The result is a bool tensor ``[batch]``, one value per row. The original searches the text only after as many new
    tokens as the prompt has ids, and stops a batch only when all rows match in the same step.
    """

    def __init__(self, keywords: Sequence[str], tokenizer: Any, input_ids: torch.Tensor) -> None:
        self.keywords = list(keywords)
        self.tokenizer = tokenizer
        self.start_len = input_ids.shape[1]
        self.keyword_ids = []
        for keyword in self.keywords:
            ids = list(tokenizer(keyword).input_ids)
            self.keyword_ids.append(ids[1:] if len(ids) > 1 and ids[0] == tokenizer.bos_token_id else ids)
        # A keyword has at most one token per byte; two more, because a token may begin with other text.
        self.max_keyword_len = max((len(keyword.encode()) for keyword in self.keywords), default=0) + 2
        self._prompt = input_ids

    def __call__(self, output_ids: torch.Tensor, scores: Any = None, **kwargs: Any) -> torch.Tensor:
        num_before = self.start_len if self._begins_with_prompt(output_ids) else 0
        ends = [self._has_keyword(row[num_before:].tolist()) for row in output_ids]
        return torch.tensor(ends, dtype=torch.bool, device=output_ids.device)

    def call_for_batch(self, output_ids: torch.Tensor, scores: Any = None, **kwargs: Any) -> bool:
        """Whether all rows of ``output_ids`` end with a keyword; for one row, as in the original."""
        return bool(self(output_ids, scores, **kwargs).all())

    def _begins_with_prompt(self, output_ids: torch.Tensor) -> bool:
        prompt = self._prompt.to(output_ids.device)
        rows = output_ids.shape[0]
        if output_ids.shape[1] < self.start_len or rows % prompt.shape[0]:
            return False
        # Beams and multiple answers repeat each row of the prompt in place.
        prompt = prompt.repeat_interleave(rows // prompt.shape[0], dim=0)
        return bool((output_ids[:, : self.start_len] == prompt).all())

    def _has_keyword(self, answer: list[int]) -> bool:
        if any(ids and answer[-len(ids) :] == ids for ids in self.keyword_ids):
            return True
        tail = [token for token in answer[-self.max_keyword_len :] if token >= 0]
        text = self.tokenizer.decode(tail, skip_special_tokens=True)
        return any(keyword in text for keyword in self.keywords)
