"""ChartQA and DVQA: a conversation about each chart, its table, its texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.data.convert.chart_sets import sort_for_reading
from llava.errors import UsageError
from tests.data.convert.converting import run, turns, write_json

WORD = "\nAnswer the question with a single word."
SHORT = "\nAnswer the question using a single word or phrase."


def ask(image: str, query: str, label: Any) -> dict[str, Any]:
    return {"imgname": image, "query": query, "label": label}


@pytest.fixture
def charts(tmp_path: Path) -> Path:
    human = [ask("41699051005347.png", "How many food item is shown?", "14"), ask("8127.png", "Lowest bar?", "23")]
    augmented = [
        ask("two_col_1.png", "Which country received the highest\ufffd aid?", "Solomon Islands"),
        ask("41699051005347.png", "What is the difference?", "0.57"),
        ask("8127.png", "Value?", ""),
        ask("8127.png", "Years?", ["2015", "2016", "2016"]),
    ]
    write_json(tmp_path, "train/train_human.json", human)
    write_json(tmp_path, "train/train_augmented.json", augmented)
    return tmp_path


def test_both_files_questions_about_a_chart_are_one_conversation(charts: Path) -> None:
    rows, left_out = run("chartqa", charts)
    assert [row["image"] for row in rows] == [
        "chartqa/train/png/41699051005347.png",
        "chartqa/train/png/8127.png",
        "chartqa/train/png/two_col_1.png",
    ]
    assert turns(rows[0]) == [
        ("<image>\nHow many food item is shown?" + WORD, "14"),
        ("What is the difference?", "0.57"),
    ]
    assert turns(rows[1]) == [("<image>\nLowest bar?" + WORD, "23"), ("Years?", "2016")]
    assert left_out == {"has no answer": 1}


@pytest.mark.parametrize(("format", "ids"), [("human", 2), ("augmented", 3)])
def test_one_file_alone_is_converted(charts: Path, format: str, ids: int) -> None:
    rows, _ = run("chartqa", charts, format=format)
    assert len(rows) == ids


def test_a_format_that_lacks_its_file_says_so(charts: Path) -> None:
    (charts / "train/train_augmented.json").unlink()
    assert len(run("chartqa", charts, format="human")[0]) == 2
    with pytest.raises(UsageError, match=r"lacks 'train/train_augmented.json'"):
        run("chartqa", charts)


def test_tables_are_written_row_by_row(charts: Path) -> None:
    folder = charts / "train/tables"
    folder.mkdir()
    (folder / "two_col_1.csv").write_text('\ufeffYear,"Share, total"\n2019, 5\u2009% \n\n2020,7\n', encoding="utf-8")
    (folder / "empty.csv").write_text("Year\n", encoding="utf-8")
    (folder / "latin.csv").write_bytes(b"caf\xe9,1\n2,3\n")
    rows, left_out = run("chartqa", charts, format="tables")
    assert turns(rows[0]) == [
        (
            "<image>\nGenerate underlying data table of the figure below:",
            "Year | Share, total\n2019 | 5\u2009%\n2020 | 7",
        )
    ]
    assert left_out == {"has a table without rows": 1, "has a table that cannot be read": 1}


def bars(number: int, question: str, answer: str, **fields: Any) -> dict[str, Any]:
    """An entry of train_qa.json."""
    image = f"bar_train_{number:08d}.png"
    rest = {"question_id": 120000013, "template_id": "data", "answer_bbox": [295.4, 379.8, 54.5, 35.0]}
    return {**rest, "question": question, "answer": answer, "image": image, **fields}


def test_all_questions_about_bars_are_one_conversation_wherever_they_stand(tmp_path: Path) -> None:
    entries = [
        bars(7, "How many bars are there?", "two", answer_bbox=[]),
        bars(8, "What is the value of the smallest bar?", "2"),
        bars(7, "What is the label of the second bar from the bottom in each group?", "bond"),
        bars(7, "Is bond larger?", ""),
    ]
    write_json(tmp_path, "qa/train_qa.json", entries)
    rows, left_out = run("dvqa", tmp_path)
    assert [row["id"] for row in rows] == ["dvqa-bar_train_00000007", "dvqa-bar_train_00000008"]
    assert rows[0]["image"] == "dvqa/images/bar_train_00000007.png"
    assert turns(rows[0]) == [
        ("<image>\nHow many bars are there?" + SHORT, "two"),
        ("What is the label of the second bar from the bottom in each group?", "bond"),
    ]
    assert left_out == {"has no answer": 1}


def test_a_charts_texts_are_read_from_its_metadata(tmp_path: Path) -> None:
    def text(value: str, box: Any) -> dict[str, Any]:
        return {"text": value, "text_function": "label", "bbox": box}

    charts = [
        {"image": "bar_train_00000001.png", "bars": {}, "texts": [
            text("0", [10, 400, 8, 12]), text("Title", [150, 5, 80, 14]), text("bond", [60, 402, 30, 12]),
            text("ape", [120, 399, 30, 12]), text("", [0, 0, 1, 1]),
        ]},
        {"image": "bar_train_00000002.png", "bars": {}, "texts": []},
        {"image": "bar_train_00000003.png", "bars": {}, "texts": [text("x", [])]},
    ]  # fmt: skip
    write_json(tmp_path, "train_metadata.json", charts)
    rows, left_out = run("dvqa", tmp_path, format="labels")
    assert [turns(row)[0][1] for row in rows] == ["Title 0 bond ape"]
    assert left_out == {"has no texts": 1, "has a text without a box": 1}


def test_texts_at_the_border_and_of_different_heights_are_put_into_lines() -> None:
    texts = [("b", (30, 1, 10, 30)), ("a", (0, 0, 10, 10)), ("c", (0, 28, 10, 12)), ("d", (-5, 60, 5, 5))]
    assert sort_for_reading(texts) == ["a", "b", "c", "d"]
