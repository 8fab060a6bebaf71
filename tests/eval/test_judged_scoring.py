"""Reading what judges say, against the published parsers on hard replies; what they get wrong is named."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from llava.eval.scoring.judge_drift import warn_of_drift
from llava.eval.scoring.judged import (
    is_failed,
    parse_score,
    read_published,
    read_strict,
    summarize_pairs,
)
from llava.eval.scoring.mm_vet import (
    TEMPERATURES,
    read_published_grade,
    read_strict_grade,
    summarize_grades,
    write_prompt,
)
from tests.gold.eval import judged_inputs as given

GOLD = json.loads((Path(__file__).parents[1] / "gold/eval/judged.json").read_text("utf-8"))


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)  # NaN is NaN, and -1 is not -1.0


def test_reviews_are_read_and_refused_as_published() -> None:
    assert len(GOLD["reviews"]) >= 60
    for review, pair, printed in GOLD["reviews"]:
        said: list[str] = []
        assert same(parse_score(review, said.append), pair), review
        assert "".join(f"{line}\n" for line in said) == printed
        assert (read_published(review).reading is None) == (pair == [-1, -1])


def test_a_strict_reading_is_the_published_one_or_none() -> None:
    for review, pair, _ in GOLD["reviews"]:
        verdict = read_strict(review)
        if verdict.reading is not None:
            assert verdict == read_published(review)
            assert verdict.score == pair[1] / 10
        else:
            assert verdict.note, review
            assert verdict.score == 0.0


@pytest.mark.parametrize(
    ("review", "note"),
    [
        ("8, 7", "has 3 parts"),
        ("nan 3", "'nan' is not a plain decimal number"),
        ("3 inf", "'inf' is not a plain"),
        ("-1 -1", "not two numbers, or is the published mark of a failure"),
        ("85 90", "85 is not on the scale of 1 to 10"),
        ("0 5", "0 is not on the scale"),
        ("8_0 7", "'8_0' is not a plain"),
        ("８ ７", "is not a plain"),
        ("", "the first line is empty"),
        ("eight seven", "is not two numbers"),
    ],
)
def test_a_strict_reading_names_what_is_wrong(review: str, note: str) -> None:
    verdict = read_strict(review)
    assert verdict.reading is None
    assert note in verdict.note


@pytest.mark.parametrize(
    ("pair", "failed"),
    [
        ([8.0, 7], False),
        ([-1, -1], True),
        ([math.nan, 3], True),
        ([8], True),
        (None, True),
        ("87", True),
        ([8, -1], True),
    ]
    + [([math.inf, 1], True), ([True, 1], True), (["8", "7"], True), ([0, 0], False), ([[1], [2]], True)],
)
def test_a_pair_that_holds_no_scores_is_failed(pair: object, failed: bool) -> None:
    assert is_failed(pair) is failed


def test_a_mean_of_zero_gives_no_relative_score() -> None:
    assert summarize_pairs([[0, 5], [0, 7]]).relative is None


def test_grades_are_read_and_refused_as_published() -> None:
    assert len(GOLD["grades"]) >= 60
    for reply, grade, num_asked in GOLD["grades"]:
        verdict = read_published_grade(reply)
        assert (verdict.reading is not None) == (num_asked == 1), reply
        if grade is not None:
            assert same(verdict.score, grade), reply


def test_a_strict_grade_is_the_published_one_or_none() -> None:
    strict = {reply: read_strict_grade(reply) for reply, _, _ in GOLD["grades"]}
    for reply, grade, _ in GOLD["grades"]:
        if strict[reply].reading is not None:
            assert 0 <= strict[reply].score == grade <= 1
    assert "'nan' is not a plain decimal number" in strict["nan"].note
    assert strict["nan"].reading is strict["0_1"].reading is strict["٠.٥"].reading is None
    assert [strict[reply].score for reply in ("0.8", ".5", "1.", "1", "0.5\n")] == [0.8, 0.5, 1.0, 1.0, 0.5]


def test_the_judge_is_asked_for_a_grade_as_published() -> None:
    row = given.MM_VET["v1_0"]
    prompts = [write_prompt(row["question"], row["answer"], "answer v1_0", again=again) for again in (False, True)]
    digests = [
        hashlib.sha256(json.dumps([{"role": "user", "content": prompt}]).encode()).hexdigest() for prompt in prompts
    ]
    assert [digest for _, _, digest in GOLD["asked"]] == digests[:1] + digests[1:] * 5
    temperatures = [temperature for temperature, _, _ in GOLD["asked"]]
    assert temperatures[:-1] == list(TEMPERATURES)  # the last one's reply is never read


def grades() -> dict[str, list[float | None]]:
    runs = [list(map(float, run)) for run in given.RUNS]
    return {key: [run[i] for run in runs] for i, key in enumerate(given.MM_VET)}


CAPABILITIES = {key: row["capability"] for key, row in given.MM_VET.items()}


def test_the_tables_are_the_published_ones() -> None:
    table = summarize_grades(grades(), CAPABILITIES)
    gold = GOLD["mm_vet"]
    assert {**table.by_capability, "total": table.total, "std": table.std} == {
        key: value for key, value in gold["capabilities"].items() if key != "runs"
    }
    assert next(iter(table.by_capability)) == next(iter(gold["capabilities"])) == "rec"  # equal counts: in any order
    assert {**table.by_combination, "total": table.total, "std": table.std} == {
        key: value for key, value in gold["combinations"].items() if key != "runs"
    }
    assert [f"np.float64({total})" for total in table.runs] == gold["combinations"]["runs"].strip("[]").split(", ")
    assert table.num_failed == 0


def test_a_failed_grade_is_left_out_and_counted() -> None:
    some = grades()
    some["v1_6"] = [None, 0.6, 0.2]
    table = summarize_grades(some, CAPABILITIES)
    assert table.num_failed == 1
    assert table.runs[0] == round((0.1 + 0.2 + 0.3 + 1.0 + 0.7 + 0.9) / 6 * 100, 1)
    assert summarize_grades(some, CAPABILITIES, failed_as_zero=True).runs[0] == round(3.2 / 7 * 100, 1)
    some["v1_6"] = [None] * 3
    assert math.isnan(summarize_grades(some, CAPABILITIES).by_capability["gen"])


def test_the_warning_names_the_judges_and_known_numbers() -> None:
    text = warn_of_drift("mm-vet", "gpt-4-0613", "other")
    assert "by gpt-4-0613, this one is by other" in text
    assert "27.9 instead of 31.1" in text
    assert "this one is by" not in warn_of_drift("llava-bench", "gpt-4-0314", "gpt-4-0314")
    assert "72.8, 72.7 and 72.1" in warn_of_drift("llava-bench", "gpt-4-0314", "gpt-4-0314")
