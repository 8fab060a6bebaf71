"""The report of a stage: complete in itself, and nothing of the data is read as HTML."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.html_page import encode_image
from llava.train.report.html_report import HISTORY, SampleAnswer, StageFacts, write_report
from llava.train.report.plot import list_sources
from llava.train.report.svg_charts import Line, draw_histogram, draw_lines, smooth

HISTORY_ROWS: list[dict[str, Any]] = [
    {
        "step": step,
        "loss": 3 / step,
        "loss/ocr": 2 / step,
        "loss/vqa": 4 / step,
        "grad_norm": 1.0,
        "learning_rate": 1e-3,
    }
    for step in range(1, 12)
]
HISTORY_ROWS += [
    {"step": 11, "eval_loss": 0.4321},
    {"step": 11, "train_runtime": 3700.0, "train_samples_per_second": 5.0},
]


class Parsed(HTMLParser):
    """The tags, image sources and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def make_facts() -> StageFacts:
    image = encode_image(Image.new("RGB", (900, 300), "red"))
    answers = [
        SampleAnswer(
            "What is <b>this</b>?", "A cat.", image, [(0, ""), (5, "A dog."), (11, "A <script>alert(1)</script> cat.")]
        ),
        SampleAnswer("And 2 + 2?", "4", "", [(0, "5"), (11, "4")]),
    ]
    return StageFacts(
        "v1.5-7b: tune & more",
        [("lr", "2e-5")],
        [("projector", "mm_projector", "21", "2e-5", "0")],
        [3, 9, 700],
        answers,
    )


def test_a_report_shows_everything_and_needs_no_other_file(tmp_path: Path) -> None:
    (tmp_path / HISTORY).write_text(json.dumps(HISTORY_ROWS))
    facts = make_facts()
    facts.notes.append("2 of 9 samples were left out.")
    facts.save(tmp_path)
    assert StageFacts.load(tmp_path).answers == facts.answers
    page = Parsed(write_report(tmp_path).read_text())
    assert "script" not in page.tags
    assert "b" in page.tags  # the summary's, and none of the question's
    text = " ".join(page.texts)
    for said in ("v1.5-7b: tune & more", "What is <b>this</b>?", "A <script>alert(1)</script> cat.", "nothing",
                 "step 5", "A dog.", "at the saves between",
                 "3.000 → 0.273", "0.432", "1 h 1 min", "2 of 9 samples were left out.", "projector"):  # fmt: skip
        assert said in text
    assert all(source.startswith("data:image/") for source in page.sources)
    assert page.tags.count("svg") == 4  # loss, rate, gradient norm, lengths
    assert len(page.sources) == 1  # the image of one of the two samples
    for source in page.sources:
        with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as image:
            image.load()
            assert image.width >= 320


def test_a_report_of_a_run_that_failed_says_why(tmp_path: Path) -> None:
    (tmp_path / HISTORY).write_text(json.dumps(HISTORY_ROWS[:3]))
    StageFacts("tune", fault="The loss is nan in step 4, on sample <7>.").save(tmp_path)
    text = " ".join(Parsed(write_report(tmp_path).read_text()).texts)
    assert "The run ended early. The loss is nan in step 4, on sample <7>." in " ".join(text.split())


def test_a_report_of_an_empty_history_has_no_plots(tmp_path: Path) -> None:
    (tmp_path / HISTORY).write_text("[]")
    StageFacts("nothing").save(tmp_path)
    page = write_report(tmp_path).read_text()
    assert "<h1>nothing</h1>" in page
    assert not re.search("<img", page)


def test_the_loss_is_drawn_for_all_samples_each_source_and_those_held_out(tmp_path: Path) -> None:
    assert list_sources(HISTORY_ROWS) == ["ocr", "vqa"]
    (tmp_path / HISTORY).write_text(json.dumps(HISTORY_ROWS))
    StageFacts("tune", lengths=[10, 20, 30, 40, 4000]).save(tmp_path)
    page = write_report(tmp_path).read_text()
    legend = page.split("<div class=legend>")[1].split("</div>")[0]
    assert re.findall(r"</i>(.*?)</span>", legend) == ["all samples", "ocr", "vqa", "held out"]
    for said in ("ocr, step 4: 0.5", "all samples, step 3: 1", "held out, step 11: 0.4321"):
        assert f"<title>{said}</title>" in page
    assert "Positions per sample: median 30, longest 4,000" in page
    assert "<title>4 of 10 to 109 positions</title>" in page


def test_many_points_are_smoothed_and_stay_visible() -> None:
    points = [(float(step), 1.0 + step % 2) for step in range(1, 201)]
    averages = [value for _, value in smooth(points)]
    assert averages[0] == points[0][1]
    assert max(averages[50:]) - min(averages[50:]) < 0.35
    assert sum(averages[50:]) / 150 == pytest.approx(1.5, abs=0.02)
    assert draw_lines([Line("loss", points, is_bold=True)]).count("<path d=") == 2
    assert draw_lines([Line("loss", points)]).count("<path d=") == 1


@pytest.mark.parametrize(
    "values", [[5.0], [3.0, 3.0], [0.0, 0.0], [1e-9, 2e-9], [-1.0, 1e7], [math.nan, 1.0, math.inf]]
)
def test_any_values_can_be_drawn_inside_the_chart(values: list[float]) -> None:
    drawn = draw_lines([Line("x", [(float(i), value) for i, value in enumerate(values)])])
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="(.*?)" cy="(.*?)"', drawn)]
    assert len(places) == sum(map(math.isfinite, values))
    assert all(58 <= x <= 590 and 10 <= y <= 240 for x, y in places)
    assert 2 <= len(re.findall("class=.grid", drawn)) <= 9
    assert draw_lines([Line("x", [(1.0, math.nan)])]) == ""


def test_values_that_lie_close_together_do_not_look_constant() -> None:
    def find_heights(*values: float) -> list[float]:
        drawn = draw_lines([Line("x", [(float(i), value) for i, value in enumerate(values)])])
        assert ">step</text>" in drawn
        return [float(y) for y in re.findall(r'<circle cx=".*?" cy="(.*?)"', drawn)]

    high, low = find_heights(5.99, 5.88)
    assert low - high > 150
    above_zero, at_zero = find_heights(6.0, 0.0)
    assert at_zero == 240
    assert above_zero < 30


def test_counts_have_whole_numbers_beside_them() -> None:
    assert set(re.findall(r'text-anchor="end">([\d.]+)<', draw_histogram([3, 3, 9], "positions"))) == {"0", "1", "2"}
