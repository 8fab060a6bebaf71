"""Pixels: bit for bit Pillow's, and the processor's interface as code written for the original uses it."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.errors import CheckpointError, UsageError
from llava.image.geometry import RELEASED_PINPOINTS, Size, Tiling, plan_tiles, plan_whole
from llava.image.pixels import (
    CLIP_MEAN,
    CLIP_STD,
    ImageProcessor,
    divide_to_patches,
    expand2square,
    get_anyres_image_grid_shape,
    make_pixels,
    process_anyres_image,
    process_images,
    resize_and_pad_image,
    select_best_resolution,
)

SIZES = [
    (1000, 667),
    (300, 200),
    (200, 300),
    (1, 1),
    (5, 70),
    (640, 480),
    (336, 336),
    (337, 335),
    (1200, 17),
    (17, 900),
]
PINPOINTS = [list(pinpoint) for pinpoint in RELEASED_PINPOINTS]
ANYRES = Tiling("anyres", "spatial_unpad", pinpoints=RELEASED_PINPOINTS)
PADDING = tuple(int(x * 255) for x in CLIP_MEAN)


def _noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _clip_pixels(image: Image.Image, tile_px: int = 336) -> torch.Tensor:
    """[3, tile, tile] as Transformers makes it."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    clip = CLIPImageProcessorPil(size={"shortest_edge": tile_px}, crop_size={"height": tile_px, "width": tile_px})
    return torch.from_numpy(np.asarray(clip(image)["pixel_values"][0]))


def tiles_of(image: Image.Image, tiling: Tiling, processor: Any) -> torch.Tensor:
    return make_pixels(image, plan_tiles(Size(*image.size), tiling), processor)


@pytest.fixture(scope="module")
def processor() -> ImageProcessor:
    return ImageProcessor()


@pytest.mark.parametrize("size", SIZES)
def test_a_cropped_square_is_bit_for_bit_transformers(size, processor) -> None:
    image = _noise(*size)
    mine = tiles_of(image, Tiling(), processor)
    assert mine.dtype == torch.float32
    assert torch.equal(mine, _clip_pixels(image)[None])


@pytest.mark.parametrize("size", SIZES)
def test_a_padded_square_is_bit_for_bit_transformers_on_the_padded_image(size, processor) -> None:
    image = _noise(*size)
    assert torch.equal(tiles_of(image, Tiling("pad"), processor)[0], _clip_pixels(expand2square(image, PADDING)))


@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_bit_for_bit_transformers_llava_next(size, processor) -> None:
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    # Transposed, because Transformers reads (height, width); the order then makes small images tie alike.
    transposed = [[height, width] for width, height in RELEASED_PINPOINTS]
    tile = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    theirs = LlavaNextImageProcessorPil(**tile, image_grid_pinpoints=transposed)(_noise(*size))["pixel_values"][0]
    assert torch.equal(tiles_of(_noise(*size), ANYRES, processor), torch.from_numpy(np.asarray(theirs)))


@pytest.mark.parametrize("size", SIZES)
def test_a_whole_image_is_its_base_tile(size, processor) -> None:
    whole = make_pixels(_noise(*size), plan_whole(Size(*size), ANYRES), processor)
    assert torch.equal(whole, tiles_of(_noise(*size), ANYRES, processor)[:1])
    pad = Tiling("pad")
    assert torch.equal(
        make_pixels(_noise(*size), plan_whole(Size(*size), pad), processor), tiles_of(_noise(*size), pad, processor)
    )


def test_a_processor_of_another_size_mean_and_resampling_is_transformers_too() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    fields = {"size": {"shortest_edge": 90}, "crop_size": {"height": 64, "width": 100}, "resample": 2}
    fields |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 1 / 127.5}
    image = _noise(123, 77)
    theirs = np.asarray(CLIPImageProcessorPil(**fields)(image)["pixel_values"][0])
    assert np.array_equal(ImageProcessor(**fields)(image)["pixel_values"][0], theirs)
    for switch in ("do_center_crop", "do_rescale", "do_normalize"):
        theirs = np.asarray(CLIPImageProcessorPil(**fields, **{switch: False})(image)["pixel_values"][0])
        assert np.array_equal(ImageProcessor(**fields, **{switch: False})(image)["pixel_values"][0], theirs), switch


def test_an_image_smaller_than_the_crop_is_framed_in_black_as_transformers_does() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    fields = {"size": {"shortest_edge": 31}, "crop_size": {"height": 64, "width": 64}}
    for size in [(50, 31), (31, 90), (40, 40)]:
        theirs = np.asarray(CLIPImageProcessorPil(**fields)(_noise(*size))["pixel_values"][0])
        assert np.array_equal(ImageProcessor(**fields)(_noise(*size))["pixel_values"][0], theirs), size


def test_a_processor_that_squashes_is_bit_for_bit_transformers_siglip() -> None:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    theirs = SiglipImageProcessorPil(size={"height": 48, "width": 48})(_noise(100, 70))["pixel_values"][0]
    half = [0.5, 0.5, 0.5]
    mine = ImageProcessor(size={"height": 48, "width": 48}, do_center_crop=False, image_mean=half, image_std=half)
    assert np.array_equal(mine(_noise(100, 70))["pixel_values"][0], np.asarray(theirs))
    assert mine.tile_px == mine.crop_size["height"] == 48


@settings(max_examples=25)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([Tiling(), Tiling("pad"), ANYRES]))
def test_any_image_gives_the_tiles_of_its_plan(width: int, height: int, tiling: Tiling) -> None:
    pixels = tiles_of(_noise(width, height), tiling, ImageProcessor())
    assert pixels.shape == (plan_tiles(Size(width, height), tiling).num_tiles, 3, 336, 336)
    assert torch.isfinite(pixels).all()


def test_the_plan_says_where_the_image_lies_among_the_tiles(processor) -> None:
    white = Image.new("RGB", (1000, 667), (255, 255, 255))
    tiles = tiles_of(white, ANYRES, processor)[1:, 0]
    canvas = torch.cat([torch.cat([tiles[0], tiles[1]], dim=1), torch.cat([tiles[2], tiles[3]], dim=1)])
    rows = (canvas > 1).all(dim=1).nonzero()[:, 0]
    plan = plan_tiles(Size(1000, 667), ANYRES)
    assert (rows[0].item(), len(rows)) == (plan.offset[1], plan.content.height)
    assert torch.allclose(canvas[0], torch.tensor(-CLIP_MEAN[0] / CLIP_STD[0])), "padding is black"


def test_a_very_thin_image_costs_no_more_than_its_tile(processor) -> None:
    stripes = Image.fromarray(np.repeat(np.arange(5000, dtype=np.uint8)[:, None, None], 3, axis=2))
    assert stripes.size == (1, 5000)
    square = tiles_of(stripes, Tiling(), processor)
    # The middle 336 of 1,680,000 rows show one pixel and a bit: that pixel's value, blended with its neighbour's.
    middle = ImageProcessor().make_tiles([Image.new("RGB", (9, 9), (2500 % 256,) * 3)])
    assert abs(square - torch.from_numpy(middle)).max() < 0.02
    assert tiles_of(stripes, Tiling("pad"), processor).shape == (1, 3, 336, 336)
    assert tiles_of(stripes, ANYRES, processor).shape == (3, 3, 336, 336)


def test_only_the_centre_of_a_thin_image_is_resized_and_comes_out_as_if_all_were(processor, monkeypatch) -> None:
    whole = tiles_of(_noise(300, 20), Tiling(), processor)
    monkeypatch.setattr("llava.image.pixels._MAX_RESIZED_PX", 0)
    assert abs(tiles_of(_noise(300, 20), Tiling(), processor) - whole).max() <= 1.01 / 255 / min(CLIP_STD)


@pytest.mark.parametrize("size", [(700, 40), (40, 700), (333, 331)])
def test_padding_a_band_at_a_time_changes_no_bit(size, processor, monkeypatch) -> None:
    whole = tiles_of(_noise(*size), Tiling("pad"), processor)
    monkeypatch.setattr("llava.image.pixels._BAND_PX", 3 * max(size))
    assert torch.equal(tiles_of(_noise(*size), Tiling("pad"), processor), whole)


def test_a_processor_of_another_size_than_the_tower_is_refused() -> None:
    with pytest.raises(UsageError, match=r"224 px.*336 px"):
        tiles_of(_noise(10, 10), Tiling(), ImageProcessor(size=224))


# process_images: what the original's callers do


def test_a_bare_namespace_is_enough_of_a_configuration(processor) -> None:
    images = [_noise(30, 20), _noise(20, 40, seed=1)]
    pixels = process_images(images, processor, Namespace(image_aspect_ratio="pad"))
    assert torch.equal(pixels, torch.cat([tiles_of(image, Tiling("pad"), processor) for image in images]))


@pytest.mark.parametrize("config", [Namespace(), Namespace(image_aspect_ratio=None), Namespace(image_aspect_ratio="?")])
def test_with_an_unknown_aspect_the_centre_square_is_kept(config, processor) -> None:
    pixels = process_images([_noise(30, 20), _noise(20, 30)], processor, config)
    assert pixels.shape == (2, 3, 336, 336)
    assert torch.equal(pixels[0], _clip_pixels(_noise(30, 20)))


@pytest.mark.parametrize("aspect", ["anyres", "anyres_max_9"])
@pytest.mark.parametrize("pinpoints", [PINPOINTS, str(PINPOINTS)])
def test_tiled_images_are_stacked_only_where_they_have_as_many_tiles(aspect, pinpoints, processor) -> None:
    config = Namespace(image_aspect_ratio=aspect, image_grid_pinpoints=pinpoints)
    stacked = process_images([_noise(640, 480), _noise(500, 500)], processor, config)
    assert stacked.shape == (2, 5, 3, 336, 336)
    listed = process_images([_noise(640, 480), _noise(100, 100)], processor, config)
    assert type(listed) is list
    assert [len(tiles) for tiles in listed] == [5, 3]
    assert torch.equal(listed[0], tiles_of(_noise(640, 480), ANYRES, processor))


def test_a_third_party_processor_is_called_for_each_tile() -> None:
    class Mean:
        size, crop_size, image_mean = {"shortest_edge": 8}, {"height": 8, "width": 8}, CLIP_MEAN

        def preprocess(self, image: Image.Image, return_tensors: str) -> dict[str, list[torch.Tensor]]:
            return {"pixel_values": [torch.tensor(np.asarray(image).mean(axis=(0, 1)))]}

    left_black = Image.new("RGB", (16, 8), (0, 0, 0))
    left_black.paste((255, 255, 255), (8, 0, 16, 8))
    tiles = process_anyres_image(left_black, Mean(), [[16, 8]])
    assert tiles.shape == (3, 3)
    assert tiles[1:, 0].tolist() == [0, 255]
    padded = process_images([left_black], Mean(), Namespace(image_aspect_ratio="pad"))
    assert padded.shape == (1, 3)


def test_no_images_and_a_lone_image_are_refused(processor) -> None:
    for images in ([], _noise(5, 5)):
        with pytest.raises(UsageError, match="list of at least one image"):
            process_images(images, processor, Namespace())
    with pytest.raises(UsageError, match="'highres'"):
        process_images([_noise(5, 5)], processor, Namespace(image_aspect_ratio="highres"))
    with pytest.raises(CheckpointError, match="at least one"):
        process_images([_noise(5, 5)], processor, Namespace(image_aspect_ratio="anyres"))


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "RGBA", "LA"])
def test_images_of_any_mode_are_taken_as_their_rgb_form(mode, processor) -> None:
    image = _noise(50, 30).convert(mode)
    for config in (Namespace(), Namespace(image_aspect_ratio="pad")):
        mine = process_images([image], processor, config)
        assert torch.equal(mine, process_images([image.convert("RGB")], processor, config))


# The original's functions


def test_a_square_image_is_returned_itself_and_others_centred() -> None:
    square = _noise(7, 7)
    assert expand2square(square, PADDING) is square
    wide = expand2square(Image.new("RGB", (5, 2), "white"), PADDING)
    assert wide.size == (5, 5)
    assert [wide.getpixel((0, y)) == (255, 255, 255) for y in range(5)] == [False, True, True, False, False]
    tall = expand2square(Image.new("RGB", (2, 5), "white"), PADDING)
    assert [tall.getpixel((x, 0)) for x in range(2)] == [PADDING, (255, 255, 255)]


def test_the_canvas_is_black_around_the_image() -> None:
    padded = resize_and_pad_image(Image.new("RGB", (1000, 667), "white"), (672, 672))
    assert padded.size == (672, 672)
    assert padded.getbbox() == (0, 111, 672, 111 + 449)


def test_tiles_are_read_like_a_page() -> None:
    image = _noise(6, 4)
    tiles = divide_to_patches(image, 2)
    assert len(tiles) == 6
    assert np.array_equal(np.asarray(tiles[1]), np.asarray(image)[0:2, 2:4])
    assert np.array_equal(np.asarray(tiles[3]), np.asarray(image)[2:4, 0:2])


def test_resolutions_and_grids_are_width_first() -> None:
    assert select_best_resolution((1000, 300), PINPOINTS) == (1008, 336)
    assert select_best_resolution((100, 100), [(672, 672), (336, 672), (672, 336)]) == (336, 672)
    assert get_anyres_image_grid_shape((1000, 300), PINPOINTS, 336) == (3, 1)
    assert get_anyres_image_grid_shape((300, 1000), str(PINPOINTS), 336) == (1, 3)


# The processor as an object


def test_preprocess_answers_as_transformers_does(processor) -> None:
    image = _noise(30, 20)
    batch = processor.preprocess(image, return_tensors="pt")
    assert batch.pixel_values.shape == (1, 3, 336, 336)
    assert torch.equal(batch["pixel_values"], processor([image], return_tensors="pt")["pixel_values"])
    assert np.array_equal(processor(image, return_tensors="np")["pixel_values"], batch["pixel_values"].numpy())
    assert batch.to(torch.float16)["pixel_values"].dtype == torch.float16
    assert [tile.shape for tile in processor([image, image])["pixel_values"]] == [(3, 336, 336)] * 2


def test_arrays_and_tensors_are_images_too(processor) -> None:
    image = _noise(30, 20)
    array = np.asarray(image)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    for form in (array, array[None], array.transpose(2, 0, 1), torch.from_numpy(array.copy()), [array]):
        assert torch.equal(processor(form, return_tensors="pt")["pixel_values"], expected)


@pytest.mark.parametrize("images", [[], None, np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), ["a.png"]])
def test_an_object_that_is_not_an_image_is_refused(images, processor) -> None:
    with pytest.raises(UsageError):
        processor(images)


def test_an_unknown_kind_of_tensor_is_refused(processor) -> None:
    with pytest.raises(UsageError, match="'tf'"):
        processor(_noise(5, 5), return_tensors="tf")


def test_changes_for_one_call_stay_in_that_call(processor) -> None:
    wide = processor.preprocess(_noise(40, 20), return_tensors="pt", do_center_crop=False, size={"shortest_edge": 100})
    assert wide["pixel_values"].shape == (1, 3, 100, 200)
    assert processor.size == {"shortest_edge": 336}
    with pytest.raises(UsageError, match="Images of one size"):
        processor.preprocess([_noise(40, 20), _noise(40, 40)], do_center_crop=False)


def test_attributes_may_be_changed() -> None:
    processor = ImageProcessor()
    processor.size["shortest_edge"] = processor.crop_size["height"] = processor.crop_size["width"] = 28
    processor.image_mean = [0.0, 0.0, 0.0]
    pixels = processor(Image.new("RGB", (9, 9)), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 28, 28)
    assert not pixels.any()


def test_saving_and_loading_changes_nothing_here_or_in_transformers(tmp_path: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = ImageProcessor(size=56, image_mean=[0.5, 0.4, 0.3])
    processor.save_pretrained(tmp_path / "new" / "folder")
    loaded = ImageProcessor.from_pretrained(tmp_path / "new" / "folder")
    assert loaded.to_dict() == processor.to_dict()
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path / "new" / "folder")
    image = _noise(80, 60)
    assert np.array_equal(loaded(image)["pixel_values"][0], np.asarray(theirs(image)["pixel_values"][0]))


def test_a_file_of_before_transformers_had_image_processors_is_read(tmp_path: Path) -> None:
    # As in openai/clip-vit-large-patch14-336.
    old = {
        "crop_size": 336,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
        "resample": 3,
        "size": 336,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    assert ImageProcessor.from_pretrained(tmp_path).to_dict() == ImageProcessor().to_dict()


def test_a_file_of_a_tower_that_squashes_does_not_crop(tmp_path: Path) -> None:
    siglip = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384}, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(siglip))
    loaded = ImageProcessor.from_pretrained(tmp_path)
    assert (loaded.do_center_crop, loaded.tile_px) == (False, 384)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds a list"),
        ('{"size": {"longest_edge": 5}}', "needs shortest_edge"),
        ('{"crop_size": {"height": 5}}', "needs height and width"),
        ('{"image_mean": [0.5]}', "3 means"),
        ('{"size": "large"}', "does not describe"),
        (None, "There is no"),
    ],
)
def test_a_broken_description_is_refused_by_name(text, message, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        ImageProcessor.from_pretrained(tmp_path)
    assert "preprocessor_config.json" in str(caught.value)
