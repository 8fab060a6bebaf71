"""Pages that hold no chart: coloured rows are no bars, words that lost a letter are read again, rows keep together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from llava.model.lexical.description import describe, join_rows
from llava.model.lexical.flat_fills import find_fills
from llava.model.lexical.missed_cells import find_missed_cells
from llava.model.lexical.object_finder import Drawn
from llava.model.lexical.scene_text import read_scene
from llava.model.lexical.turned_words import TurnedWord, read_words
from tests.model.seen_lines import Line

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]
BLUE, PALE, WHITE, BLACK = (68, 114, 196), (221, 232, 245), (255, 255, 255), (20, 20, 24)


def to_canvas(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()


def draw_table(rows: list[list[str]]) -> tuple[torch.Tensor, list[Line]]:
    """A table with a blue head and every second row pale."""
    image = Image.new("RGB", (620, 80 + 56 * len(rows)), WHITE)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(26)
    lines = []
    for y, row in enumerate(rows):
        top = 40 + 56 * y
        ground = BLUE if y == 0 else PALE if y % 2 == 0 else WHITE
        pen.rectangle((40, top, 580, top + 55), fill=ground)
        for x, text in enumerate(row):
            at = (54 + 170 * x, top + 12)
            pen.text(at, text, font=font, fill=WHITE if y == 0 else BLACK)
            lines.append(Line(text, pen.textbbox(at, text, font=font)))
    return to_canvas(image), lines


def test_coloured_rows_of_a_table_are_no_bars() -> None:
    rows = [
        ["Name", "Average", "Subject"],
        ["Anna", "1.7", "Music"],
        ["Boris", "2.3", "Latin"],
        ["Clara", "1.3", "Art"],
    ]
    canvas, lines = draw_table(rows)
    scene = read_scene(canvas, lines, [])
    assert scene.chart is None
    assert scene.lines == lines
    assert "3. Name: Boris | Average: 2.3 | Subject: Latin" in describe((620, 304), scene.lines, [])


SCORES = [["Name", "Points", "Place"], ["Anna", "-3", "7"], ["Boris", "1", "12"], ["Clara", "25", "4"]]


@pytest.mark.parametrize("missed", ["7", "-3", "1", "12"])
def test_a_missed_cell_is_found_where_its_row_and_column_meet(missed: str) -> None:
    canvas, lines = draw_table(SCORES)
    boxes = [(x0, y0 - 4, x1, y1 + 4) for text, (x0, y0, x1, y1), *_ in lines if text != missed]
    (found,) = find_missed_cells(canvas.numpy(), boxes)
    assert found == pytest.approx(next(line.box for line in lines if line.text == missed), abs=5)


def test_the_only_value_of_a_form_s_row_is_found_below_those_of_other_rows() -> None:
    canvas, lines = draw_table([["Flash", "Auto"], ["Grid", "On"], ["Timer", "3 s"], ["Place", "Off"], ["", "Help"]])
    boxes = [(x0, y0 - 4, x1, y1 + 4) for text, (x0, y0, x1, y1), *_ in lines if text and text != "3 s"]
    (found,) = find_missed_cells(canvas.numpy(), boxes)
    assert found == pytest.approx(next(line.box for line in lines if line.text == "3 s"), abs=5)
    between = [box for box, line in zip(boxes, [each for each in lines if each.text], strict=False) if line.text]
    assert find_missed_cells(canvas.numpy(), between[:4]) == []  # of two whole rows only: no table


def test_a_window_s_buttons_are_neither_text_nor_objects() -> None:
    texts = [
        Line("000", (20, 30, 150, 78), "green"),
        Line("www.zoo.example", (224, 40, 680, 76)),
        Line("Open daily", (64, 249, 576, 283)),
    ]
    buttons = [
        Drawn("hexagon", "red", (23.0, 44.0, 62.0, 65.0), 0.6),
        Drawn("star", "green", (107.0, 37, 149, 71), 0.6),
    ]
    scene = read_scene(None, texts, buttons)
    assert [line.text for line in scene.lines] == ["www.zoo.example", "Open daily"]
    assert scene.objects == []
    # A number is kept where other text stands above it, or where it is all there is.
    assert [line.text for line in read_scene(None, texts[::-1][1:], []).lines] == ["www.zoo.example", "000"]
    below = [Line("Order", (20, 5, 140, 25)), *texts]
    assert [line.text for line in read_scene(None, below, []).lines] == [line.text for line in below]


def test_nothing_is_missed_in_a_whole_table_an_empty_cell_a_blot_or_prose() -> None:
    canvas, lines = draw_table(SCORES)
    boxes = [(x0, y0 - 4, x1, y1 + 4) for _, (x0, y0, x1, y1), *_ in lines]
    assert find_missed_cells(canvas.numpy(), boxes) == []
    assert find_missed_cells(canvas.numpy(), boxes[:2]) == []
    x0, y0, x1, y1 = (int(side) for side in boxes[5])
    for grey in (255, 0):
        canvas[:, y0 - 10 : y1 + 10, x0 - 25 : x1 + 25] = grey
        assert find_missed_cells(canvas.numpy(), boxes[:5] + boxes[6:]) == []
    column = [(40, 30.0 * y, 400 - 50 * y, 30.0 * y + 20) for y in range(5)]
    assert find_missed_cells(canvas.numpy(), column) == []


def test_lines_on_one_height_are_one_row_whatever_their_letters_reach() -> None:
    lines = [
        Line("Chemistry", (448, 281, 616, 314)),
        Line("1.7", (232, 280, 284, 315)),
        Line("Anna", (64, 283, 152, 313)),
    ]
    assert join_rows(lines) == ["Anna | 1.7 | Chemistry"]
    below = Line("Latin", (444, 310, 532, 345))
    assert join_rows([*lines, below]) == ["Anna | 1.7 | Chemistry", "Latin"]


@pytest.mark.parametrize(("ground", "ink"), [(WHITE, BLACK), (BLUE, WHITE), (BLACK, WHITE)])
def test_a_word_that_lost_its_capital_is_read_again_on_any_ground(ground: Color, ink: Color) -> None:
    image = Image.new("RGB", (500, 200), WHITE)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(30)
    pen.rectangle((60, 50, 320, 130), fill=ground)
    pen.text((100, 70), "Trout", font=font, fill=ink)
    whole = pen.textbbox((100, 70), "Trout", font=font)
    rest = pen.textbbox((100 + pen.textlength("T", font=font), 70), "rout", font=font)
    seen: list[np.ndarray] = []

    def look(strip: torch.Tensor) -> list[Line]:
        seen.append(strip.float().mean(0).numpy())
        return [Line("Trout", (5, 5, strip.shape[2] - 5, strip.shape[1] - 5))]

    other = Line("Milk", (330, 150, 390, 180))
    scene = read_scene(to_canvas(image), [Line("rout", rest), other], [], look)
    assert [line.text for line in scene.lines] == ["Trout", "Milk"]
    assert scene.lines[0].box == pytest.approx(whole, abs=3)
    [strip] = seen
    dark = strip < 128  # dark letters on light, whichever way round they were
    assert 0.02 < dark.mean() < 0.5
    assert 0.9 <= np.ptp(np.flatnonzero(dark.any(0))) / (whole[2] - whole[0]) <= 2.1  # at most twice as large


def draw_sign(ground: np.ndarray) -> tuple[torch.Tensor, Box, Box]:
    """A blue sign that says "Trout" on a ground [200, 500, 3]; the boxes of the word and of "rout"."""
    image = Image.fromarray(ground.astype(np.uint8))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(30)
    pen.rectangle((90, 50, 200, 130), fill=BLUE)
    pen.text((100, 70), "Trout", font=font, fill=WHITE)
    start = 100 + pen.textlength("T", font=font)
    return to_canvas(image), pen.textbbox((100, 70), "Trout", font=font), pen.textbbox((start, 70), "rout", font=font)


def test_a_word_on_a_sign_before_a_texture_is_read_again_without_the_texture() -> None:
    ground = np.random.default_rng(0).normal(170, 40, (200, 500, 3)).clip(0, 255)
    canvas, whole, rest = draw_sign(ground)
    assert find_fills(canvas) is None
    seen: list[torch.Tensor] = []

    def look(strip: torch.Tensor) -> list[Line]:
        seen.append(strip)
        return [Line("Trout", (5, 5, strip.shape[2] - 5, strip.shape[1] - 5))]

    scene = read_scene(canvas, [Line("rout", rest)], [], look)
    assert [line.text for line in scene.lines] == ["Trout"]
    assert scene.lines[0].box == pytest.approx(whole, abs=3)
    assert (seen[0][:, :, :4] == 255).all()


@pytest.mark.parametrize(
    ("first", "again", "told"), [("Pout", "Trout", "Trout"), ("rout", "Tram car", "rout"), ("rout", "rouut", "rout")]
)
def test_what_a_cut_letter_was_taken_for_may_change(first: str, again: str, told: str) -> None:
    canvas, _, rest = draw_sign(np.full((200, 500, 3), 255))
    scene = read_scene(canvas, [Line(first, rest)], [], lambda strip: [Line(again, (5, 5, 60, 20))])
    assert [line.text for line in scene.lines] == [told]


def test_a_second_reading_counts_only_where_it_holds_the_first() -> None:
    image = Image.new("RGB", (500, 200), WHITE)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(30)
    pen.text((100, 70), "Trout", font=font, fill=BLACK)
    rest = pen.textbbox((100 + pen.textlength("T", font=font), 70), "rout", font=font)
    scene = read_scene(to_canvas(image), [Line("rout", rest)], [], lambda strip: [Line("Tram", (5, 5, 60, 20))])
    assert [line.text for line in scene.lines] == ["rout"]


def test_a_word_of_half_an_image_is_not_read_again_among_many_small_ones() -> None:
    canvas = torch.full((3, 1152, 1536), 255, dtype=torch.uint8)
    small = [TurnedWord(np.array([[20.0, 45 * y], [80.0, 45 * y + 16]]), 0.0, 4.0) for y in range(20)]
    huge = TurnedWord(np.array([[120.0, 100.0], [1500.0, 900.0]]), 0.0, 2.0)
    pages: list[torch.Tensor] = []

    def look(page: torch.Tensor) -> list[Line]:
        pages.append(page)
        return [Line("tea", (5, 5, 60, 20))]

    assert read_words(canvas, np.full(3, 255.0), small, 18.0, look) == ["tea", *[""] * 19]
    assert read_words(canvas, np.full(3, 255.0), [huge, *small], 18.0, look) == [""] * 21
    assert len(pages) == 1


def test_texts_that_are_mostly_marks_are_left_out() -> None:
    read = ("k.>>", "x = 3;", "E F P T O Z", "+ +!+")
    lines = [Line(text, (10, 30 * y, 60, 30 * y + 20)) for y, text in enumerate(read)]
    assert [line.text for line in read_scene(None, lines, []).lines] == ["x = 3;", "E F P T O Z"]


def test_dots_after_a_name_are_no_text_and_words_of_one_cell_are_one() -> None:
    rows = [["Seat........", "14C"], ["Name .....", "Ann"]]
    lines = [
        Line(text, (20 + 300 * x, 50 + 40 * y, 120 + 300 * x, 74 + 40 * y))
        for y, row in enumerate(rows)
        for x, text in enumerate(row)
    ]
    lines += [Line("5", (20, 130, 32, 154)), Line("June", (36, 130, 90, 154)), Line("May", (110, 130, 160, 154))]
    scene = read_scene(
        None, [*lines, Line("Wait...", (20, 170, 100, 194)), Line("31 De.......", (20, 210, 90, 234))], []
    )
    assert join_rows(scene.lines) == ["Seat | 14C", "Name | Ann", "5 June | May", "Wait..."]
