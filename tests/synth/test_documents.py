"""Pages and charts that stand in for SynDog's and DVQA's: what is asked follows from what is drawn."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from llava.data.prompts import ANSWER_FORMATS
from llava.errors import UsageError
from llava.synth import words
from llava.synth.bar_questions import BarData
from llava.synth.bars import BAR_KINDS
from llava.synth.document_kinds import DATASETS, DOCUMENT_KINDS, NAMED_KINDS
from llava.synth.drawing import CHARACTERS, Character, Drawing
from llava.synth.paper import find_homography, tilt
from llava.synth.scene import Scene
from llava.synth.scenes import ALL_KINDS, KINDS
from llava.synth.write import write

SIZES = [(112, 112), (224, 200), (300, 100), (100, 300), (400, 300)]


def draw(kind: str, i: int, held_out: bool = False) -> Scene:
    return DOCUMENT_KINDS[kind](random.Random(f"{kind}{i}"), *SIZES[i % len(SIZES)], held_out)


def ask(scene: Scene, question: str) -> str:
    return next(turn.answer for turn in scene.turns if question in turn.question)


@pytest.mark.parametrize("kind", DOCUMENT_KINDS)
def test_the_same_seed_draws_the_same_document(kind: str) -> None:
    for i in range(5):
        first, second = draw(kind, i), draw(kind, i)
        assert np.array_equal(np.asarray(first.drawing.image), np.asarray(second.drawing.image))
        assert first.turns == second.turns
        assert first.drawing.characters == second.drawing.characters


@pytest.mark.parametrize("kind", DOCUMENT_KINDS)
def test_every_document_has_questions_and_its_characters_lie_on_the_image(kind: str) -> None:
    for i in range(40):
        scene = draw(kind, i)
        assert scene.turns
        assert all(turn.answer for turn in scene.turns)
        for mark in scene.drawing.characters:
            assert mark.text in CHARACTERS
            assert -2 <= mark.x <= scene.drawing.width + 2, (i, mark)
            assert -2 <= mark.y <= scene.drawing.height + 2, (i, mark)


@pytest.mark.parametrize("kind", DOCUMENT_KINDS)
def test_held_out_documents_share_no_word_with_those_of_training(kind: str) -> None:
    for held_out in (False, True):
        texts = [text for i in range(15) for text in draw(kind, i, held_out).drawing.texts]
        drawn = {word for text in texts for word in re.findall("[A-Za-z]{3,}", text)}
        named = {"Units", "sold", "Accuracy", "Preferences"}
        assert len(drawn - named) > 5
        assert all(words.is_held_out(word) == held_out for word in drawn - named)


def test_a_transcription_reads_column_by_column_from_the_top() -> None:
    for i in range(30):
        scene = draw("page-text", i)
        assert scene.turns == [("", " ".join(scene.drawing.texts), "transcription")]
        assert "".join(scene.drawing.texts) == "".join(mark.text for mark in scene.drawing.characters)
        # Reading goes on to the right or further down, or begins a new column on the right.
        heights = [mark.y for mark in scene.drawing.characters]
        falls = [a for a, b in itertools.pairwise(heights) if b < a - 20]
        assert len(falls) <= 1, "there are at most two columns"


def test_pages_have_one_or_two_columns_and_both_occur() -> None:
    counts = set()
    for i in range(40):
        scene = DOCUMENT_KINDS["page-text"](random.Random(i), 300, 220, False)
        heights = [mark.y for mark in scene.drawing.characters]
        counts.add(sum(b < a - 20 for a, b in itertools.pairwise(heights)))
    assert counts == {0, 1}


def test_paper_is_textured_and_text_on_it_is_darker() -> None:
    scene = draw("page-text", 1)
    light = np.asarray(scene.drawing.image.convert("L"), dtype=float)
    assert np.std(light[-20:, 20:-20]) > 0.5, "no flat ground"
    near = [light[int(mark.y) - 3 : int(mark.y) + 4, int(mark.x) - 3 : int(mark.x) + 4] for mark in
            scene.drawing.characters if 4 < mark.y < 196 and 4 < mark.x < 220]  # fmt: skip
    assert np.mean([patch.min() for patch in near]) < np.median(light) - 40


def test_marks_move_with_the_sheet_when_it_is_tilted() -> None:
    moved = 0
    for seed in range(6):
        drawing = Drawing(random.Random(0), 200, 160)
        for x, y in ((30, 25), (170, 30), (100, 130)):
            drawing.pen.rectangle((x - 3, y - 3, x + 3, y + 3), fill=(0, 0, 255))
            drawing.characters.append(Character("x", x, y, 8.0, "blue"))
        tilt(drawing, random.Random(seed))
        pixels = np.asarray(drawing.image).astype(int)
        for before, mark in zip(((30, 25), (170, 30), (100, 130)), drawing.characters, strict=True):
            there = pixels[round(mark.y), round(mark.x)]
            assert there[2] > 200, mark
            assert max(there[0], there[1]) < 60, mark
            moved += abs(before[0] - mark.x) + abs(before[1] - mark.y) > 1
    assert moved > 6


def test_a_homography_takes_four_points_to_four_others() -> None:
    before, after = [(0, 0), (9, 1), (8, 7), (1, 6)], [(2, 1), (11, 0), (9, 9), (0, 5)]
    matrix = find_homography(before, after)
    for (x, y), (u, v) in zip(before, after, strict=True):
        a, b, c = matrix @ (x, y, 1)
        assert (a / c, b / c) == pytest.approx((u, v))


@pytest.mark.parametrize("kind", BAR_KINDS)
def test_answers_about_bars_follow_from_the_bars_drawn(kind: str) -> None:
    seen = set()
    for i in range(60):
        scene = draw(kind, i)
        bars = [thing for thing in scene.drawing.objects if thing.shape == "bar"]
        pairs = [pair.split(" ") for pair in scene.caption.split(": ")[1].rstrip(".").split(", ")]
        values = [int(pair[-1]) for pair in pairs]
        assert len(bars) == len(values)
        is_lying = ask(scene, "Are the bars horizontal?") == "yes"
        lengths = [bar.right - bar.left if is_lying else bar.bottom - bar.top for bar in bars]
        # A longer bar has a higher value, on whatever scale.
        for a in range(len(bars)):
            for b in range(len(bars)):
                if values[a] > values[b]:
                    assert lengths[a] > lengths[b], (i, scene.caption)
        assert ask(scene, "the highest value in the whole chart") == str(max(values))
        assert ask(scene, "the lowest value in the whole chart") == str(min(values))
        if kind != "stacked-bars":
            assert ask(scene, "How many bars are there?") == str(len(bars))
        is_logarithmic = ask(scene, "logarithmic") == "yes"
        if is_logarithmic:
            assert all(value in (10, 100, 1000, 10000) for value in values)
        is_percentage = ask(scene, "percentage") == "yes"
        assert is_percentage == any(text.endswith("%") for text in scene.drawing.texts)
        seen.add((is_lying, is_logarithmic, is_percentage, ask(scene, "without patterns")))
    assert {lying for lying, *_ in seen} == {True, False}
    assert {row[3] for row in seen} == {"yes", "no"}
    assert any(row[1] for row in seen) == (kind != "stacked-bars")
    assert any(row[2] for row in seen)


def test_a_bar_has_the_colour_that_its_legend_has() -> None:
    for i in range(25):
        scene = DOCUMENT_KINDS["grouped-bars"](random.Random(i), 224, 200, False)
        for turn in scene.turns:
            if "color represent" in turn.question:
                color = turn.question.split(" ")[4]
                place = scene.drawing.texts.index(turn.answer)
                names = scene.drawing.texts[: place + 1]
                first = sum(len(text.replace(" ", "")) for text in names[:-1])
                mark = scene.drawing.characters[first]
                boxes = [thing for thing in scene.drawing.objects if thing.color == color]
                bar = boxes[0]
                pixels = scene.drawing.image.load()
                assert pixels is not None
                here = pixels[round(bar.left) + 1, round((bar.top + bar.bottom) / 2)]
                row = [pixels[x, round(mark.y)] for x in range(max(0, round(mark.x) - 16), round(mark.x))]
                solid = scene.turns and ask(scene, "without patterns") == "yes"
                assert not solid or here in row, (i, color, turn.answer)


def test_equal_bars_leave_the_question_for_the_largest_out() -> None:
    for i in range(120):
        scene = DOCUMENT_KINDS["single-bars"](random.Random(i), 224, 200, False)
        pairs = [pair.split(" ") for pair in scene.caption.split(": ")[1].rstrip(".").split(", ")]
        values = {name: int(value) for name, value in pairs}
        largest = [name for name, value in values.items() if value == max(values.values())]
        asked = [
            turn for turn in scene.turns if re.search("the most units|the highest acc|the most preferred", turn[0])
        ]
        assert [turn.answer for turn in asked] == (largest if len(largest) == 1 else [])


def test_sums_are_over_groups() -> None:
    from llava.synth.bar_questions import DOMAINS

    data = BarData(DOMAINS[0], "grouped", False, "linear", ("a", "b"), ("x", "y", "z"), ((1, 2, 3), (4, 5, 6)))
    assert data.totals == (5, 7, 9)
    assert data.describe() == "A chart of grouped bars: a x 1, a y 2, a z 3, b x 4, b y 5, b z 6."


def test_what_is_drawn_without_a_kind_has_not_changed(tmp_path: Path) -> None:
    """The default model and its tokenizer were made from these kinds, in this order."""
    assert list(KINDS) == ["shapes", "words", "lines", "form", "chart", "signs"]
    assert list(ALL_KINDS) == [*KINDS, "page"]
    rows = write(tmp_path, 12, seed=3).read_bytes()
    assert hashlib.sha256(rows).hexdigest() == "46bf2ab395fcf4c9b4c8fd3eabde6ca0d601292619a63e5e2decacd4132e715f"


def test_a_document_is_asked_as_its_dataset_is(tmp_path: Path) -> None:
    path = write(tmp_path, 12, kinds=tuple(DOCUMENT_KINDS), turns=3, formats=ANSWER_FORMATS)
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert {row["data_source"] for row in rows} <= set(DOCUMENT_KINDS)
    for row in rows:
        sentence = ANSWER_FORMATS[DATASETS[row["data_source"]]]
        first, *rest = [turn["value"] for turn in row["conversations"] if turn["from"] == "human"]
        assert first.startswith("<image>\n")
        assert first.endswith(sentence)
        assert not any(sentence in value for value in rest)
        if row["data_source"] == "page-text":
            assert first == f"<image>\n{sentence}"
            assert not rest
        else:
            assert len(rest) == 2
        assert not any("cannot tell" in turn["value"] for turn in row["conversations"])


def test_a_page_without_a_sentence_is_asked_for_its_text(tmp_path: Path) -> None:
    rows = json.loads(write(tmp_path, 1, kinds=("page-text",)).read_text(encoding="utf-8"))
    assert rows[0]["conversations"][0]["value"] == "<image>\nRead all the text."


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no kind of image 'pages'; there are: shapes, .*page-text, single-bars"):
        write(tmp_path, 1, kinds=("pages",))
    assert set(NAMED_KINDS) == set(KINDS) | set(DOCUMENT_KINDS)
