"""A page is turned upright where it then is read far better, and left as it is wherever that is not sure."""

from __future__ import annotations

import pytest
import torch

from llava.model.lexical.line_reader import Line
from llava.model.lexical.page_turns import read_upright

# The canvas's upper left corner is marked, so that the reader here knows which way round it stands.
UPRIGHT = torch.zeros(3, 40, 60, dtype=torch.uint8)
UPRIGHT[:, 0, 0] = 255
PAGE = ["Corner Shop", "Bread", "2.50", "Cheese", "4.80", "Total", "7.30"]
UPSIDE_DOWN = ["dOHS 83NHOD", "pea.8", "OS'Z", "9S33LD", "08't", "V1OL", "0E'L"]
LETTERS = [*"OCLCUQOOCO"]


def make_lines(texts: list[str], score: float) -> list[Line]:
    return [Line(text, (0.0, 9.0 * i, 50.0, 9.0 * i + 8), "black", "white", score) for i, text in enumerate(texts)]


class Reader:
    """Reads a canvas as what it is given for each number of quarter turns, and counts how often it is asked."""

    def __init__(self, *readings: tuple[list[str], float]) -> None:
        self.readings, self.num_calls = readings, 0

    def __call__(self, canvas: torch.Tensor) -> list[Line]:
        self.num_calls += 1
        [turns] = [k for k in range(4) if torch.rot90(canvas, -k, (1, 2)).shape == UPRIGHT.shape
                   and torch.rot90(canvas, -k, (1, 2))[0, 0, 0] == 255]  # fmt: skip
        return make_lines(*self.readings[turns])


@pytest.mark.parametrize("turns", range(4))
def test_a_turned_page_is_read_as_the_upright_one(turns: int) -> None:
    reader = Reader((PAGE, 0.95), (LETTERS, 0.94), (UPSIDE_DOWN, 0.82), (LETTERS, 0.92))
    canvas, lines = read_upright(torch.rot90(UPRIGHT, turns, (1, 2)), reader)
    assert torch.equal(canvas, UPRIGHT)
    assert [line.text for line in lines] == PAGE
    assert reader.num_calls == (1, 3, 2, 3)[turns]


TICKS = [*"98765432101234"]
KEPT: dict[str, tuple[tuple[list[str], float], ...]] = {
    "a blurred page that no turn makes sure": ((PAGE, 0.8), (LETTERS, 0.9), (UPSIDE_DOWN, 0.78), (LETTERS, 0.9)),
    "a blurred page with a sure word upside down": (
        (PAGE, 0.8),
        (LETTERS, 0.9),
        (["NOON", "SOS!"], 0.97),
        (LETTERS, 0.9),
    ),
    "figures beside the turned name of an axis": (
        (TICKS, 0.96),
        (["Sales in thousands of euros", "0"], 0.96),
        (TICKS, 0.9),
        (["O", "C"], 0.9),
    ),
    "letters in a grid": ((LETTERS, 0.93), (LETTERS, 0.94), (LETTERS, 0.95), (LETTERS, 0.94)),
    "a short word that is unsure": ((["JAZZ"], 0.7), (["N"], 0.9), (["ZZVT"], 0.95), (["N"], 0.9)),
    "no text": (([], 0.0), (PAGE, 0.97), (PAGE, 0.97), (PAGE, 0.97)),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_page_is_left_as_it_is_where_a_turn_is_not_sure(name: str) -> None:
    canvas, lines = read_upright(UPRIGHT, Reader(*KEPT[name]))
    assert torch.equal(canvas, UPRIGHT)
    assert [line.text for line in lines] == KEPT[name][0][0]


def test_an_upright_page_is_read_once() -> None:
    reader = Reader((PAGE, 0.9), (PAGE, 0.99), (PAGE, 0.99), (PAGE, 0.99))
    assert torch.equal(read_upright(UPRIGHT, reader)[0], UPRIGHT)
    assert reader.num_calls == 1
