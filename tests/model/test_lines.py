"""Finding and reading lines of text: the mechanics, with hand-made maps and random networks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from llava.model.lexical.characters import ALPHABET, BLANK, NUM_CLASSES, decode, encode, plain, read_steps
from llava.model.lexical.colour_names import COLOURS, name_colour
from llava.model.lexical.components import find_components
from llava.model.lexical.crop_reader import CROP_HEIGHT, CropReader, colour_features, normalize
from llava.model.lexical.line_finder import LineFinder, TextLine, make_levels, measure_targets, merge_levels
from llava.model.lexical.line_reader import Line, LineReader, Reading, choose, count_steps, is_ornament, sort_lines
from llava.synth.drawing import COLORS


class DrawnMaps(LineFinder):
    """A finder whose network finds black pixels to be cores of lines with capitals of 10 px and baselines below."""

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        dark = torch.nn.functional.avg_pool2d((pixels_N3HW[:, :1] < -1.5).float(), 2) * 20 - 10
        core = torch.nn.functional.pixel_unshuffle(dark, 2)
        shape = core[:, 0].shape
        sizes = measure_targets(torch.full(shape, 6.0), torch.full(shape, 10.0))
        return torch.cat((core, sizes.transpose(0, 1)), dim=1)


@pytest.fixture(scope="module")
def random_reader() -> LineReader:
    torch.manual_seed(0)
    reader = LineReader()
    with torch.no_grad():
        for module in reader.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return reader


def line(
    left: float, right: float, baseline: float, capital: float = 10, score: float = 0.9, slope: float = 0.0
) -> TextLine:
    return TextLine(left, right, baseline, slope, capital, score)


def test_decoding_merges_repeats_and_drops_blanks() -> None:
    a, b = encode("ab")
    assert decode([BLANK, a, a, BLANK, a, b, b, BLANK]) == "aab"
    assert decode([]) == ""


def steps_of(*shares: dict[str, float]) -> np.ndarray:
    """Log probabilities of steps with these shares of characters; the rest of each is blank."""
    chances = np.full((len(shares), NUM_CLASSES), 1e-6, dtype=np.float32)
    for step, given in enumerate(shares):
        chances[step, BLANK] = max(1 - sum(given.values()), 1e-6)
        for character, share in given.items():
            chances[step, encode(character)[0]] = share
    return np.log(chances)


def reading_of(text: str, sure: float = 1.0) -> Reading:
    """A crop that says a text, with that sureness."""
    steps = [shares for character in text for shares in ({character: 1.0}, {})]
    return Reading(steps_of(*steps, {}), "red", "white", sure, text, torch.zeros(3, 24, 16))


def test_steps_are_read_with_their_sureness() -> None:
    text, sure = read_steps(steps_of({}, {"a": 0.9}, {"a": 0.4}, {}, {"b": 0.9}, {}))
    assert (text, sure) == ("ab", pytest.approx(0.9, abs=1e-3))
    assert read_steps(steps_of({}, {})) == ("", 0.0)


def test_two_readings_of_one_character_become_the_likelier_one() -> None:
    assert read_steps(steps_of({"T": 0.9}, {}, {}, {"o": 0.5, "O": 0.4}, {"o": 0.3, "O": 0.65}, {}))[0] == "TO"


def test_narrow_characters_may_follow_each_other_closely() -> None:
    assert read_steps(steps_of({"i": 0.9}, {"l": 0.9}))[0] == "il"


def test_characters_with_blanks_between_them_stay_apart() -> None:
    assert read_steps(steps_of({"o": 0.9}, {}, {"O": 0.9}))[0] == "oO"


def test_every_character_of_the_alphabet_survives_encoding() -> None:
    assert len(set(ALPHABET)) == len(ALPHABET)
    for character in ALPHABET:
        assert decode(encode(character)) == character


def test_characters_that_look_alike_are_read_as_the_plain_one() -> None:
    assert plain("−5 – ‘x’ “y” …") == "-5 - 'x' \"y\" ..."


def test_the_colours_of_drawn_images_get_their_own_names() -> None:
    assert tuple(COLORS) == COLOURS
    assert {name: name_colour(*rgb) for name, rgb in COLORS.items()} == {name: name for name in COLORS}


def test_components_touch_by_sides_and_corners() -> None:
    rows = ["110001", "000010", "011100", "100000", "000011"]
    mask = np.array([[c == "1" for c in row] for row in rows])
    parts = find_components(mask)
    assert parts.num_parts == 3
    labels = np.full(mask.shape, -1)
    labels[parts.rows, parts.columns] = parts.labels
    assert (labels >= 0).tolist() == mask.tolist()
    assert labels[0, 0] == labels[0, 1] != labels[0, 5]
    assert labels[0, 5] == labels[1, 4] == labels[2, 1] == labels[3, 0] != labels[4, 5]


def test_components_of_random_masks_agree_with_flooding() -> None:
    generator = np.random.default_rng(0)
    for share in (0.1, 0.4, 0.6):
        mask = generator.random((23, 31)) < share
        parts = find_components(mask)
        labels = np.full((25, 33), -1)
        labels[parts.rows + 1, parts.columns + 1] = parts.labels
        for y, x in zip(parts.rows, parts.columns, strict=True):
            around = labels[y : y + 3, x : x + 3]
            assert set(around[around >= 0]) == {labels[y + 1, x + 1]}
        assert sorted(set(parts.labels)) == list(range(parts.num_parts))
        assert parts.num_parts == _count_by_flooding(mask)


def _count_by_flooding(mask: np.ndarray) -> int:
    left, count = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}, 0
    while left:
        count, stack = count + 1, [left.pop()]
        while stack:
            y, x = stack.pop()
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            stack += near
    return count


def test_a_mask_of_nothing_has_no_components() -> None:
    assert find_components(np.zeros((4, 5), dtype=bool)).num_parts == 0


def test_a_drawn_core_becomes_a_line_with_its_ends_and_baseline() -> None:
    image = torch.full((3, 64, 128), 255.0)
    image[:, 20:28, 16:96] = 0
    (found,) = DrawnMaps().find([image])
    assert (found.left, found.right) == pytest.approx((16, 96), abs=0.1)
    assert found.capital == pytest.approx(10, abs=0.01)
    # The middle of the core's rows of stride 4 is at 24, and the maps say that the baseline is 6 px below.
    assert found.baseline == pytest.approx(30, abs=0.1)
    assert found.slope == pytest.approx(0, abs=1e-3)


def test_cells_side_by_side_are_lines_of_their_own() -> None:
    image = torch.full((3, 32, 128), 255.0)
    image[:, 8:16, 8:40] = 0
    image[:, 8:16, 60:100] = 0
    assert len(DrawnMaps().find([image])) == 2


def test_a_line_of_a_smaller_level_is_given_in_pixels_of_the_image() -> None:
    level = torch.full((3, 64, 128), 255.0)
    level[:, 20:28, 16:96] = 0
    (found,) = DrawnMaps().find([torch.full((3, 128, 256), 255.0), level])
    assert (found.left, found.right, found.capital) == pytest.approx((32, 192, 20), abs=0.2)


def test_specks_are_no_lines() -> None:
    image = torch.full((3, 64, 64), 255.0)
    image[:, 20:22, 20:22] = 0
    assert DrawnMaps().find([image]) == []


def test_of_a_line_found_at_two_sizes_the_whole_one_stays() -> None:
    whole, part, other = line(0, 200, 50, 20, 0.9), line(5, 80, 49, 17, 0.92), line(0, 200, 100, 20)
    assert sorted(merge_levels([part, whole, other])) == sorted([whole, other])


def test_lines_are_merged_as_pair_by_pair() -> None:
    generator = np.random.default_rng(0)

    def share_covered(a: TextLine, b: TextLine) -> float:
        x0, x1 = max(a.left, b.left), min(a.right, b.right)
        ay, by = (each.baseline + each.slope * ((x0 + x1) / 2 - each.left) for each in (a, b))
        high = min(ay, by) - max(ay - a.capital, by - b.capital)
        area = min((each.right - each.left) * each.capital for each in (a, b))
        return max(0.0, high) * max(0.0, x1 - x0) / area

    left, top = generator.uniform(0, 300, 200), generator.uniform(20, 200, 200)
    wide, high = generator.uniform(5, 80, 200), generator.uniform(5, 20, 200)
    slope, score = generator.normal(0, 0.02, 200), generator.uniform(0.4, 1, 200)
    lines = [TextLine(*map(float, row)) for row in zip(left, left + wide, top, slope, high, score, strict=True)]
    kept: list[TextLine] = []
    for each in sorted(lines, key=lambda each: -each.score * ((each.right - each.left) / each.capital) ** 0.15):
        if all(share_covered(each, other) <= 0.4 for other in kept):
            kept.append(each)
    assert merge_levels(lines) == kept
    assert 20 < len(kept) < 180
    assert merge_levels([]) == []


def test_lines_one_below_the_other_both_stay() -> None:
    assert len(merge_levels([line(0, 100, 20), line(0, 100, 33)])) == 2


def test_lines_are_sorted_by_rows_and_then_from_the_left() -> None:
    lines = [line(200, 240, 21), line(0, 90, 60), line(0, 100, 20), line(150, 180, 58, 6)]
    assert [(found.left, found.baseline) for found in sort_lines(lines)] == [(0, 20), (200, 21), (0, 60), (150, 58)]


def test_rows_of_a_turned_page_stay_together() -> None:
    slope = 0.08
    lines = [line(x, x + 80, y + slope * x, slope=slope) for y in (20, 40, 60) for x in (0, 200, 400)]
    shuffled = [lines[i] for i in np.random.default_rng(1).permutation(len(lines))]
    assert sort_lines(shuffled) == lines


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (16, 16), (45, 77)])
def test_an_image_of_any_size_can_be_read(random_reader: LineReader, size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for read in random_reader.read(image):
        assert isinstance(read, Line)


def test_an_image_larger_than_the_limit_is_halved_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.model.lexical.line_reader._MAX_PIXELS", 64 * 128)
    monkeypatch.setattr("llava.model.lexical.line_finder._MAX_LEVELS", 1)
    image = torch.full((3, 128, 256), 255, dtype=torch.uint8)
    image[:, 40:56, 32:192] = 0
    reader = LineReader()
    reader.finder = DrawnMaps()
    monkeypatch.setattr(reader, "_read_crops", lambda crops: [reading_of("text")] * len(crops))
    (read,) = reader.read(image)
    assert read.box == pytest.approx((32, 39, 192, 66), abs=0.5)


def test_grey_images_are_read_as_coloured_ones(random_reader: LineReader) -> None:
    grey = torch.randint(0, 256, (40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    coloured = random_reader.read(grey[None].repeat(3, 1, 1))
    assert random_reader.read(grey) == random_reader.read(grey[None]) == coloured


def test_an_empty_image_has_no_lines() -> None:
    assert LineReader().read(torch.full((3, 100, 120), 255, dtype=torch.uint8)) == []


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.uint8), torch.zeros(3, 0, 8, dtype=torch.uint8)]
)
def test_what_is_no_image_is_refused(image: Tensor) -> None:
    with pytest.raises(ValueError, match="An image must"):
        LineReader().read(image)


def test_the_surer_of_two_readings_counts_and_unsure_ones_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.full((3, 200, 128), 255, dtype=torch.uint8)
    for y in (20, 60, 100, 140):
        image[:, y : y + 8, 16:96] = 0
    reader = LineReader()
    reader.finder = DrawnMaps()
    # Each line is read twice.
    answers = [("sur", 0.9), ("sure", 0.95), ("unsure", 0.2), ("no", 0.1), ("", 0.0), ("", 0.0), ("i", 0.7), ("l", 0.6)]
    monkeypatch.setattr(reader, "_read_crops", lambda crops: [reading_of(*answer) for answer in answers])
    (read,) = reader.read(image)
    assert (read.text, read.ink, read.ground, read.score) == ("sure", "red", "white", 0.95)


@pytest.mark.parametrize(
    ("sure", "other", "chosen"),
    [
        (("arage", 0.98), ("Garage", 0.95), "Garage"),
        (("Church Hil", 0.98), ("Church Hills", 0.9), "Church Hills"),
        (("arage", 0.98), ("Garage", 0.7), "arage"),
        (("Keep left", 0.98), ("iKeep left", 0.95), "Keep left"),
        (("Keep left", 0.98), ("Keep left.", 0.95), "Keep left"),
        (("Keep", 0.98), ("Sleep", 0.95), "Keep"),
    ],
)
def test_a_reading_that_has_a_letter_more_counts_before_a_surer_one(
    sure: tuple[str, float], other: tuple[str, float], chosen: str
) -> None:
    for both in ([sure, other], [other, sure]):
        assert choose([reading_of(*each) for each in both]).text == chosen


def draw_crop(draw: Callable[[ImageDraw.ImageDraw], None], width: int) -> Tensor:
    """A crop that is drawn four times as large."""
    image = Image.new("RGB", (4 * width, 4 * CROP_HEIGHT), "white")
    draw(ImageDraw.Draw(image))
    return torch.from_numpy(np.asarray(image.reduce(4)).copy()).permute(2, 0, 1).float()


def draw_dashes(pen: ImageDraw.ImageDraw) -> None:
    for x in range(32, 760, 45):
        pen.line((x, 48, x + 25, 48), "black", 8)


def draw_dots(pen: ImageDraw.ImageDraw) -> None:
    for x in range(32, 760, 39):
        pen.ellipse((x, 40, x + 20, 60), "black")


def draw_wave(pen: ImageDraw.ImageDraw) -> None:
    pen.line([(x, 48 + 24 * math.sin(x / 13)) for x in range(32, 770)], "black", 8)


def draw_triangles(pen: ImageDraw.ImageDraw) -> None:
    for x in range(32, 720, 66):
        pen.polygon(((x, 72), (x + 24, 24), (x + 48, 72)), "black")


@pytest.mark.parametrize("paint", [draw_dashes, draw_dots, draw_wave, draw_triangles])
def test_what_repeats_itself_is_an_ornament(paint: Callable[[ImageDraw.ImageDraw], None]) -> None:
    assert is_ornament(draw_crop(paint, 200))


@pytest.mark.parametrize("text", ["Anna Hanna Anna", "Information", "10.00 10.00 20.00", "www.mmm.org", "1111"])
def test_a_text_is_no_ornament(text: str) -> None:
    font = ImageFont.load_default(72)
    crop = draw_crop(lambda pen: pen.text((32, 4), text, "black", font), 16 + round(font.getlength(text) / 4))
    assert not is_ornament(crop)
    assert not is_ornament(torch.full_like(crop, 255))


def test_an_ornament_is_no_line_and_vouches_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.full((3, 128, 256), 255, dtype=torch.uint8)
    for x in range(16, 240):
        image[:, 20:28, x] = 0 if x % 16 < 8 else 200
    reader = LineReader()
    found = [line(16, 240, 28), line(16, 60, 90, score=0.5)]
    monkeypatch.setattr(reader.finder, "find", lambda levels: found)
    monkeypatch.setattr(reader, "_read_crops", lambda crops: [reading_of("AmAm")] * 2 + [reading_of("seven")] * 2)
    assert reader.read(image) == []


def test_a_missed_cell_is_read_in_its_place_in_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.full((3, 200, 300), 255, dtype=torch.uint8)
    places = [(x, y) for y in (40, 80, 120) for x in (20, 120, 220)]
    for x, y in places:
        image[:, y - 10 : y, x + 2 : x + 12] = 0
    reader = LineReader()
    found = [line(x, x + 14, y) for x, y in places if (x, y) != (120, 80)]
    monkeypatch.setattr(reader.finder, "find", lambda levels: found)
    answers = iter(("Lima", "7"))

    def read_crops(crops: list[Tensor]) -> list[Reading]:
        return [reading_of(next(answers))] * len(crops)

    monkeypatch.setattr(reader, "_read_crops", read_crops)
    read = reader.read(image)
    assert [each.text for each in read] == ["Lima"] * 4 + ["7"] + ["Lima"] * 4
    assert read[4].box == pytest.approx((122, 70, 132, 80), abs=1)


def test_fusing_the_norms_changes_no_output(random_reader: LineReader) -> None:
    fused = LineReader()
    fused.load_state_dict(random_reader.state_dict())
    fused.fuse_norms()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    crops = torch.randn(2, 3, CROP_HEIGHT, 48, generator=torch.Generator().manual_seed(3))
    pixels = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        torch.testing.assert_close(fused.crops(crops), random_reader.crops(crops), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(fused.finder(pixels), random_reader.finder(pixels), atol=1e-4, rtol=1e-4)


def test_two_steps_come_from_each_column_and_padding_has_none() -> None:
    with torch.inference_mode():
        assert CropReader().eval()(torch.zeros(1, 3, CROP_HEIGHT, 48)).shape[0] == 24
    assert count_steps(48, 48) == 24
    assert count_steps(33, 48) == 18


def test_a_crops_ground_and_ink_are_measured() -> None:
    crop = torch.full((3, CROP_HEIGHT, 60), 250.0)
    crop[:, 8:16, 10:50:2] = torch.tensor([200.0, 20.0, 30.0])[:, None, None]
    features = colour_features(crop) * 255
    assert features[:3].tolist() == pytest.approx([250] * 3, abs=1)
    assert features[3:6].tolist() == pytest.approx([200, 20, 30], abs=1)


def test_normalized_crops_do_not_depend_on_contrast() -> None:
    crop = torch.rand(3, CROP_HEIGHT, 40) * 200
    torch.testing.assert_close(normalize(crop), normalize(crop * 0.5 + 60), atol=0.1, rtol=0.1)


def test_levels_halve_the_image_until_it_is_a_line_high() -> None:
    sizes = [tuple(level.shape[1:]) for level in make_levels(torch.zeros(3, 200, 90, dtype=torch.uint8))]
    assert sizes == [(200, 90), (100, 45), (50, 22)]


def test_a_faintly_found_line_counts_only_beside_a_clear_one_of_its_height(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = LineReader()
    monkeypatch.setattr(reader, "_read_crops", lambda crops: [reading_of("text")] * len(crops))
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    clear, faint, other = line(0, 50, 20), line(60, 70, 20, 11, 0.5), line(0, 50, 80, 16, 0.5)
    monkeypatch.setattr(reader.finder, "find", lambda levels: [clear, faint, other])
    assert [read.box[0] for read in reader.read(image)] == [0, 60]
    monkeypatch.setattr(reader.finder, "find", lambda levels: [faint, other])
    assert reader.read(image) == []
