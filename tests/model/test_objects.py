"""The finder of drawn objects: how its output is read and refined, and what it is taught. No trained weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from llava.model.lexical.bar_edges import refine_bar
from llava.model.lexical.object_finder import (
    AREA_PX,
    COLORS,
    KINDS,
    MAX_SIDE_PX,
    STRIDE,
    Drawn,
    ObjectFinder,
    choose_size,
    decode,
    measure_overlap,
)
from llava.model.lexical.object_namer import SIDE_PX, cut_crops
from llava.scratch.objects.hues import PROTOTYPES, name_color
from llava.scratch.objects.looks import Mark
from llava.scratch.objects.samples import WINDOW_PX, Targets, make_targets
from llava.scratch.objects.training import ConvMuon, measure_loss
from llava.synth.drawing import COLORS as SYNTH_COLORS
from llava.synth.drawing import SHAPES

TINY = ((4, 4, 4, 4), (0, 1, 0, 0), 4)


def make_output(marks: list[Mark]) -> Tensor:
    """What a net says that has learnt these marks of a window by heart."""
    to = make_targets(marks)
    kinds, names = (
        torch.nn.functional.one_hot(index.clamp(min=0), count).permute(2, 0, 1) * 9.0
        for index, count in ((to.kind_hw, len(KINDS)), (to.color_hw, len(COLORS)))
    )
    return torch.cat((torch.logit(to.heat_hw, 1e-3)[None], kinds, names, to.reach_4hw))


class Fixed(ObjectFinder):
    """A finder whose net always says the same of its top left window."""

    def __init__(self, marks: list[Mark]) -> None:
        super().__init__(*TINY)
        self.marks = marks

        self.eval()
        torch.nn.init.zeros_(self.namer.head.weight)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        output = make_output(self.marks)
        height, width = (side // STRIDE for side in pixels_BCHW.shape[-2:])
        whole = torch.full((1, output.shape[0], max(height, 64), max(width, 64)), -9.0)
        whole[0, :, :64, :64] = output
        return whole[:, :, :height, :width]


def test_every_shape_and_colour_of_the_generator_has_its_class() -> None:
    assert {*SHAPES, "bar", "sign"} <= set(KINDS)
    assert set(SYNTH_COLORS) <= set(COLORS) == set(PROTOTYPES)


def test_an_untrained_net_has_one_output_per_cell_and_finds_nothing() -> None:
    finder = ObjectFinder(*TINY).eval()
    output = finder(torch.randn(2, 3, 64, 96))
    assert output.shape == (2, 1 + len(KINDS) + len(COLORS) + 4, 16, 24)
    assert finder.find(torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8)) == []
    assert finder.find(torch.zeros(3, 3, 500, dtype=torch.uint8)) == []


@pytest.mark.parametrize(("height", "width"), [(110, 224), (1200, 1500), (2000, 100), (90, 90)])
def test_every_image_is_seen_at_about_the_same_area(height: int, width: int) -> None:
    rows, columns = choose_size(height, width)
    assert max(rows, columns) <= MAX_SIDE_PX
    assert rows * columns <= 1.02 * AREA_PX
    assert rows * columns > 0.98 * AREA_PX or max(rows, columns) == MAX_SIDE_PX


def test_decoding_gives_back_what_the_targets_were_made_of() -> None:
    marks = [
        Mark("star", "red", 20, 30, 70, 82),
        Mark("bar", "blue", 100, 40, 110, 200),
        Mark("bar", "orange", 112, 90, 122, 200),
        Mark("ring", "cyan", 150, 20, 240, 108),
    ]
    found = {
        (KINDS[int(each.kinds_K.argmax())], COLORS[int(each.colors_C.argmax())]): each
        for each in decode(make_output(marks))
    }
    assert set(found) == {(mark.kind, mark.color) for mark in marks}
    for mark in marks:
        box = found[mark.kind, mark.color].box
        assert box == pytest.approx((mark.left, mark.top, mark.right, mark.bottom), abs=0.5)


def test_of_two_peaks_for_one_object_the_surer_stays() -> None:
    output = make_output([Mark("circle", "green", 40, 40, 120, 120)])
    weaker = make_output([Mark("oval", "green", 40, 56, 128, 124)])
    weaker[0] -= 3
    both = torch.where(weaker[0] > output[0], weaker, output)
    assert both[0, 22, 21] == weaker[0, 22, 21] > -2
    assert [KINDS[int(each.kinds_K.argmax())] for each in decode(both)] == ["circle"]


def test_boxes_are_in_the_pixels_of_the_image_in_reading_order() -> None:
    marks = [Mark("star", "red", 200, 20, 240, 60), Mark("cross", "blue", 20, 20, 60, 60)]
    rows, columns = choose_size(600, 800)
    found = Fixed(marks).find(torch.full((3, 600, 800), 255, dtype=torch.uint8))
    assert [(each.colour, each.kind) for each in found] == [("blue", "cross"), ("red", "star")]
    across, down = 800 / columns, 600 / rows
    assert found[0].box == pytest.approx((20 * across, 20 * down, 60 * across, 60 * down), abs=1)
    assert all(isinstance(each, Drawn) and 0.9 < each.score <= 1 for each in found)


def test_a_bar_ends_where_its_fill_ends_in_the_image() -> None:
    rows, columns = choose_size(600, 800)
    across, down = 800 / columns, 600 / rows
    image = torch.full((3, 600, 800), 255, dtype=torch.uint8)
    left, top, right, bottom = round(50 * across), round(60 * down), round(80 * across), round(200 * down)
    image[:, top:bottom, left:right] = torch.tensor([31, 119, 180], dtype=torch.uint8)[:, None, None]
    (bar,) = Fixed([Mark("bar", "blue", 51.2, 57.5, 78.9, 202)]).find(image)
    assert bar.box == (left, top, right, bottom)


def test_what_the_namer_takes_for_nothing_is_not_found() -> None:
    finder = Fixed([Mark("star", "red", 20, 20, 60, 60)])
    image = torch.full((3, 300, 400), 255, dtype=torch.uint8)
    assert len(finder.find(image)) == 1
    finder.namer.head.bias.data[len(KINDS)] = 9
    assert finder.find(image) == []


def test_the_namer_overrules_the_finder_where_it_is_surer() -> None:
    finder = Fixed([Mark("star", "red", 20, 20, 60, 60)])
    finder.namer.head.bias.data[KINDS.index("heart")] = 20
    finder.namer.head.bias.data[len(KINDS) + 1 + COLORS.index("pink")] = 20
    (found,) = finder.find(torch.full((3, 300, 400), 255, dtype=torch.uint8))
    assert (found.kind, found.colour) == ("heart", "pink")


def test_a_crop_holds_its_box_undistorted_and_continues_the_edge_of_the_image() -> None:
    pixels = torch.zeros(3, 60, 80)
    pixels[:, 20:40, 30:50] = 1
    inner, outer, beyond = cut_crops(pixels, [(30, 20, 50, 40), (-10, 10, 10, 30), (200, 200, 220, 220)])
    assert inner.shape == (3, SIDE_PX, SIDE_PX)
    assert inner[0].mean() == pytest.approx(1 / 1.35**2, abs=0.03)
    assert inner[0, 16, 16] == 1
    assert outer.max() == 0 == beyond.max()


class TestRefinedBars:
    def draw(self) -> Tensor:
        image = torch.full((3, 200, 100), 250, dtype=torch.uint8)
        image[:, 60:180, 20:40] = torch.tensor([200, 60, 40], dtype=torch.uint8)[:, None, None]
        return image

    def test_a_neighbour_of_another_colour_does_not_belong_to_it(self) -> None:
        image = self.draw()
        image[:, 80:180, 40:60] = torch.tensor([40, 80, 215], dtype=torch.uint8)[:, None, None]
        assert refine_bar(image, (22, 57, 43, 183), 4) == (20, 60, 40, 180)
        assert refine_bar(image, (38, 83, 62, 178), 4) == (40, 80, 60, 180)

    def test_lines_of_a_grid_and_digits_in_it_do_not_end_it(self) -> None:
        image = self.draw()
        image[:, 64:66] = 210
        image[:, 100:115, 24:36:2] = 255
        assert refine_bar(image, (19, 63, 42, 178), 4) == (20, 60, 40, 180)

    def test_an_edge_that_is_not_near_stays(self) -> None:
        assert refine_bar(self.draw(), (20, 100, 40, 180), 4) == (20, 100, 40, 180)

    def test_a_pattern_leaves_the_box_as_it_is(self) -> None:
        image = self.draw()
        image[:, 60:180:2] = 0
        image[:, 61:180:4] = 90
        assert refine_bar(image, (21, 58, 41, 182), 4) == (21, 58, 41, 182)

    def test_a_box_at_the_very_edge_of_the_image_is_no_error(self) -> None:
        assert refine_bar(self.draw(), (99.5, 199.5, 100, 200), 4) is not None


def test_what_the_window_cuts_or_is_too_small_is_neither_learnt_nor_punished() -> None:
    to = make_targets(
        [Mark("square", "red", WINDOW_PX - 20, 10, WINDOW_PX + 30, 60), Mark("circle", "blue", 50, 50, 54, 54)]
    )
    assert to.heat_hw.max() == 0 == to.weight_hw.max()
    assert (to.color_hw == -1).all()
    assert (to.kind_hw == -1).all()
    assert to.counts_hw[8, 60] == 0 == to.counts_hw[12, 12]
    assert to.counts_hw[40, 40] == 1


def test_the_loss_is_least_for_what_the_targets_say() -> None:
    marks = [Mark("star", "red", 20, 30, 70, 82), Mark("bar", "blue", 100, 40, 110, 200)]
    to = Targets(*(target[None] for target in make_targets(marks)))
    right = measure_loss(make_output(marks)[None], to)
    moved = measure_loss(make_output([mark._replace(left=mark.left + 16) for mark in marks])[None], to)
    renamed = measure_loss(make_output([mark._replace(kind="oval", color="pink") for mark in marks])[None], to)
    assert right[0] < 0.15 < moved[0]
    assert max(right[1:]) < 0.01
    assert renamed[1] > 1 < renamed[2]
    assert moved[3] > 0.1


def test_a_step_of_muon_moves_all_directions_of_a_convolution_alike() -> None:
    weight = torch.nn.Parameter(torch.zeros(4, 2, 3, 3))
    weight.grad = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [1.0, 0.3, 3.0, 0.1]
    ).view(4, 1, 1, 1)
    ConvMuon([weight], lr=1.0).step()
    strengths = torch.linalg.svdvals(weight.detach().flatten(1)) / (0.2 * 18**0.5)
    assert strengths.min() > 0.5
    assert strengths.max() < 1.5


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((31, 119, 180), "blue"), ((255, 127, 14), "orange"), ((188, 189, 34), "olive"), ((23, 190, 207), "cyan")],
)
def test_colours_of_plots_have_their_common_names(rgb: tuple[int, int, int], name: str) -> None:
    assert name_color(rgb) == (name, True)


def test_a_colour_between_two_names_is_in_dispute() -> None:
    assert not name_color((0, 128, 128))[1]


def test_overlap_is_the_shared_part_of_both() -> None:
    assert measure_overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert measure_overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
