"""The lexical tower: an image becomes the looks of things, and a text about what is written and drawn in it.

Small networks look at an image, and their results are words of the language model or, through the projector,
soft words:

    things    EfficientNet-lite on the whole image: features, class logits and colour of the image and of nine cells;
              with ``guesses`` in its configuration, also the likely classes in words, and how a photograph looks
    reader    finds lines of text on the canvas and reads them
    objects   finds drawn shapes and the bars of charts on the canvas
    faces     finds faces in what is a photograph, if the configuration has ``faces``

The canvas is put together from the grid's tiles and cut to its content; without AnyRes it is the only tile. How many
positions an image takes follows from the length of the text. The networks run in float32 on any device, and no
gradient passes through them.

Shape letters: T tiles, S side of a tile in px, N positions, D values of a feature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from llava.errors import UsageError
from llava.image.geometry import TilePlan
from llava.image.pixels import ImageProcessor, make_pixels
from llava.model.lexical.cell_colours import average_colours, contrast_colours
from llava.model.lexical.efficientnet_lite import (
    IMAGE_SIZE_PX,
    EfficientNetLite,
    Seen,
    average_cells,
)
from llava.model.lexical.face_finder import FaceFinder
from llava.model.lexical.features import check_tokenizer, lay_out, read_features
from llava.model.lexical.frozen_norms import freeze_norms
from llava.model.lexical.line_reader import LineReader
from llava.model.lexical.object_finder import ObjectFinder
from llava.model.lexical.page_turns import read_upright
from llava.model.lexical.photo_frame import cut, find_frame
from llava.model.lexical.photo_line import write_photo
from llava.model.lexical.photo_look import cut_map, is_photo, locate_thing, look_at_photo
from llava.model.lexical.scene_text import describe_scene
from llava.model.lexical.seen_images import SeenImages
from llava.model.lexical.thing_guesses import guess_things
from llava.model.vision import VisionTower
from llava.prompt import escape_image_tokens, tokenizer_image_token
from llava.towers import LEXICAL_CELLS, LEXICAL_KIND, LEXICAL_WHOLE, complete_tower, find_position_range

_COLOURS = {"rgb": average_colours, "contrast": contrast_colours}
_UNSEEN = (
    "The lexical vision tower sees an image's tiles together, by their plan: call the model's forward, generate or "
    "encode_and_merge with the images, or see(tiles, plan)."
)


class LexicalVisionConfig(PreTrainedConfig):
    """The configuration of a lexical tower; see ``llava.towers`` for its values."""

    model_type = LEXICAL_KIND


class LexicalVisionTower(VisionTower):
    """``things``, ``reader`` and ``objects`` as a tower. Its weights are always inside of the checkpoint.

    Before it sees anything, ``take_companions`` gives it the tokenizer of the language model. Loading does.
    """

    config_class = LexicalVisionConfig
    squashes = True
    own_dtype = torch.float32

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False) -> None:
        nn.Module.__init__(self)
        if getattr(args, "mm_vision_config", None) is None:
            raise UsageError("A lexical vision tower has to be described by mm_vision_config.")
        self.vision_tower_name, self.select_feature = vision_tower, "patch"
        self.select_layer: int = -1
        self._folder, self._attention = None, None
        self._given_config = complete_tower(args.mm_vision_config)
        self.tokenizer: Any = None
        self.seen = SeenImages()
        values = self._given_config
        self.things = EfficientNetLite(**values["things_config"])
        self.reader = LineReader(**values["reader_config"])
        self.objects = ObjectFinder(**values["objects_config"])
        self.faces = FaceFinder() if values["faces"] else None
        freeze_norms(self)
        self.requires_grad_(False).eval()
        self.is_loaded = True

    def build_empty(self) -> None:
        """Does nothing: the layers are there from the start."""

    def load_model(self, device_map: Any = None) -> None:
        """Does nothing: the weights come with the checkpoint."""

    def take_companions(self, processor: ImageProcessor, tokenizer: Any) -> None:
        """Keeps the image processor, and the tokenizer for words. Raises CheckpointError if that is too large."""
        check_tokenizer(len(tokenizer))
        super().take_companions(processor, tokenizer)
        self.tokenizer = tokenizer
        self.seen.clear()

    def compute_buffers(self, device: torch.device) -> None:
        """Lays the convolutions' weights out as they are used. There are no buffers."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> LexicalVisionTower:
        """Stays in evaluation mode."""
        return super().train(False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        # The model's dtype is for matrices that are multiplied by many positions; these networks stay exact.
        def move(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            is_cast = tensor.dtype == torch.float32 and moved.dtype != tensor.dtype
            return tensor.to(moved.device) if is_cast else moved

        return super()._apply(move, recurse)

    # What it sees.

    def look(self, image: Image.Image, digest: str, plan: TilePlan, processor: ImageProcessor) -> torch.Tensor:
        """The features [N, D] of an image with that digest, which is looked at only once."""
        key = (digest, replace(plan, counted=None), repr(processor))
        return self.seen.get(key, lambda: self.see(make_pixels(image, plan, processor), plan))

    def see(self, tiles_TCHW: torch.Tensor, plan: TilePlan) -> torch.Tensor:
        """The features [N, D], float32, of one image from the pixels of its tiles, base tile first; see ``features``.

        Raises:
            UsageError: the tower has no tokenizer yet, or the tiles are not those of the plan.
        """
        features: torch.Tensor = self(tiles_TCHW, plan)
        return features

    def forward(self, images: Any, plan: TilePlan | None = None) -> torch.Tensor:
        """``see``, which calls it, so that hooks on the tower run."""
        if plan is None:
            raise UsageError(_UNSEEN)
        if self.tokenizer is None:
            raise UsageError(
                "The lexical vision tower has no tokenizer to write down what it reads: load the model with "
                "load_pretrained_model, or call model.get_vision_tower().take_companions(image_processor, tokenizer)."
            )
        if images.shape != (plan.num_tiles, 3, plan.tile_px, plan.tile_px):
            raise UsageError(
                f"The tiles of an image of {plan.image} px are [{plan.num_tiles}, 3, {plan.tile_px}, {plan.tile_px}], "
                f"but got {list(images.shape)}."
            )
        with torch.no_grad():
            if self.dtype != torch.float32:  # as Transformers' from_pretrained may leave it
                nn.Module._apply(self, lambda tensor: tensor.float())
            shown_TCHW = self.restore(images.to(self.device))
            pixels_1CHW = _scale_base(shown_TCHW[:1])
            seen = self.things(pixels_1CHW)
            canvas_CHW = join_canvas(shown_TCHW, plan)
            said = self.describe(canvas_CHW)
            if self.config.guesses:
                said = f"{self._guess(canvas_CHW, pixels_1CHW, seen, said)}\n{said}".strip()
            ids = self.write(said)
            return lay_out(self._look(pixels_1CHW, seen), ids).to(self.device)

    def restore(self, pixels_TCHW: torch.Tensor) -> torch.Tensor:
        """The 8-bit values of normalized pixels, uint8."""
        values = pixels_TCHW.float()
        if self.image_processor.do_normalize:
            mean, std = (
                torch.tensor(moment, device=values.device)[:, None, None]
                for moment in (self.image_processor.image_mean, self.image_processor.image_std)
            )
            values = values * std + mean
        scale = self.image_processor.rescale_factor if self.image_processor.do_rescale else 1
        return (values / scale).round().clamp(0, 255).to(torch.uint8)

    def describe(self, canvas_CHW: torch.Tensor) -> str:
        """The text about what is written and drawn on a canvas, uint8 [3, H, W], which is turned upright first."""
        canvas_CHW, lines = read_upright(canvas_CHW, self.reader.read)
        objects = self.objects.find(canvas_CHW)
        size = (canvas_CHW.shape[2], canvas_CHW.shape[1])
        return describe_scene(size, lines, objects, canvas_CHW, self.reader.read)

    def write(self, text: str) -> list[int]:
        """The token ids of a description, at most ``max_words``. What an image says never is a special token."""
        if not text:
            return []
        ids: list[int] = list(tokenizer_image_token(escape_image_tokens(text), self.tokenizer))
        if ids and ids[0] == self.tokenizer.bos_token_id:
            ids = ids[1:]
        return ids[: self.config.max_words]

    def read_out(self, features_ND: torch.Tensor) -> str:
        """The text of the words in an image's features: what the tower wrote about it."""
        text: str = self.tokenizer.decode(read_features(features_ND).token_ids)
        return text

    def _guess(self, canvas_CHW: torch.Tensor, pixels_1CHW: torch.Tensor, seen: Seen, said: str) -> str:
        """What the photo encoder takes the image for; of a photograph also how it looks. ``said``: its description."""
        logits_K = seen.logits_TC[0]
        map_HWC = seen.map_TCHW[0].permute(1, 2, 0)
        map_SS = locate_thing(self.things.classify(map_HWC) - self.things.classify(0 * map_HWC), logits_K)
        frame = find_frame(canvas_CHW)
        shown_CHW, map_SS = cut(canvas_CHW, frame), cut_map(map_SS, frame)
        if is_photo(shown_CHW, map_SS, said):
            faces = self.faces.find(shown_CHW) if self.faces is not None else []
            return write_photo(look_at_photo(cut(pixels_1CHW[0], frame), map_SS, logits_K, faces))
        return guess_things(logits_K)

    def _look(self, pixels_1CHW: torch.Tensor, seen: Seen) -> torch.Tensor:
        """The looks [15, D - 3] of the whole image, six times, and of its nine cells."""
        cells_NC = average_cells(seen.map_TCHW)[0]
        colours_NC = _COLOURS[self.config.colours](pixels_1CHW)[0]
        whole = torch.cat([seen.features_TC, seen.logits_TC, colours_NC[:1]], dim=1)
        cells = torch.cat([cells_NC, self.things.classify(cells_NC), colours_NC[1:]], dim=1)
        assert len(cells) == LEXICAL_CELLS
        return torch.cat([whole.expand(LEXICAL_WHOLE, -1), cells]).float()

    # What other towers have.

    @property
    def position_range(self) -> tuple[int, int] | None:
        """The fewest and the most positions of an image."""
        return find_position_range(self.config.to_dict())

    @property
    def blocks_run(self) -> list[nn.Module]:
        """None: it has no blocks."""
        return []

    @property
    def has_layers(self) -> bool:
        """Always true."""
        return True

    def is_watched(self) -> bool:
        """Always true: it is called as a whole."""
        return True

    def names_of_used_weights(self) -> set[str]:
        """None: no gradient reaches any of its parameters."""
        return set()

    def names_of_needed_weights(self) -> set[str]:
        """All of them."""
        return {name for name, _ in self.named_parameters()}

    @property
    def config(self) -> Any:
        """Its configuration."""
        return self.cfg_only

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return next(self.parameters()).device


def _scale_base(base_1CHW: torch.Tensor) -> torch.Tensor:
    """The base tile's RGB in 0..1, at the size that the photo encoder sees."""
    side = (IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    return F.interpolate(base_1CHW.float() / 255, side, mode="bilinear", antialias=True, align_corners=False)


def join_canvas(tiles_TCHW: torch.Tensor, plan: TilePlan) -> torch.Tensor:
    """The canvas [3, H, W] that a plan's tiles were cut from, without padding."""
    rows = tiles_TCHW[-plan.grid.width * plan.grid.height :].unflatten(0, (plan.grid.height, plan.grid.width))
    canvas = rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    (left, top), content = plan.offset, plan.content
    return canvas[:, max(top, 0) : top + content.height, max(left, 0) : left + content.width].contiguous()
