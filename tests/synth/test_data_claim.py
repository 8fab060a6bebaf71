"""benchmarks/data_claim.py compares two mixtures of one size on words that neither of them has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import data_claim
from benchmarks.data_claim import ARMS, Question, compare, draw_data, draw_questions, make_table, say_verdict
from llava.synth import words
from llava.synth.document_kinds import DOCUMENT_KINDS


def ask(answer: str, measure: str = "charts") -> Question:
    from PIL import Image

    return Question(Image.new("RGB", (4, 4)), "What?", answer, (measure,))


def test_both_mixtures_have_as_many_conversations_and_the_same_scenes_first(tmp_path: Path) -> None:
    rows = {arm: json.loads(file.read_text("utf-8")) for arm, file in draw_data(tmp_path, 0, 24).items()}
    assert len(rows["with"]) == len(rows["without"]) == 24
    assert rows["with"][:12] == rows["without"][:12]
    assert {row["data_source"] for row in rows["without"]} == {"scenes"}
    assert {row["data_source"] for row in rows["with"][12:]} <= set(DOCUMENT_KINDS)
    assert all((tmp_path / row["image"]).is_file() for arm in ARMS for row in rows[arm])


def test_the_questions_are_always_the_same_and_about_held_out_words_only() -> None:
    first, second = draw_questions(4, 9, 4), draw_questions(4, 9, 4)
    assert [(each.question, each.answer) for each in first] == [(each.question, each.answer) for each in second]
    assert [each.measures[0] for each in first].count("documents, plain") == 2
    pages = [each.answer for each in first if each.measures == ("documents",)]
    assert len(pages) == 4
    read = [word for text in pages for word in re.findall("[A-Za-z]{3,}", text)]
    assert read
    assert all(words.is_held_out(word) for word in read)


def test_a_page_is_scored_by_letters_and_a_chart_by_the_whole_answer() -> None:
    assert ask("Red fox", "documents").score(" Red fox\n") == 1
    assert ask("Red fox", "documents").score("The text says Red / fox") == 1
    assert ask("abcd", "documents").score("abcx") == 0.75
    assert ask("yes").score("Yes ") == 1
    assert ask("yes").score("yes it is") == 0


def test_the_interval_grows_with_the_spread_of_the_seeds_and_decides_what_is_said() -> None:
    zeros = [[0.0] * 40] * 3
    clear = compare(zeros, [[1.0] * 20 + [0.0] * 20, [1.0] * 21 + [0.0] * 19, [1.0] * 19 + [0.0] * 21])
    assert clear.mean == pytest.approx(0.5)
    assert clear.by_seed == (0.5, 0.525, 0.475)
    # By hand: variance of the seeds 0.000625 / 3, of the questions' means (19 of 1, 19 of 0, 2/3, 1/3) 0.2450 / 40.
    assert clear.high - clear.mean == pytest.approx(4.303 * (0.000625 / 3 + 0.245014 / 40) ** 0.5, rel=1e-3)
    assert say_verdict(clear) == "better"
    apart = compare(zeros, [[1.0] * 40, [0.0] * 40, [0.5] * 40])
    assert apart.mean == pytest.approx(0.5)
    assert say_verdict(apart) == "not significant"
    assert say_verdict(compare([[1.0] * 40] * 3, zeros)) == "worse"
    assert "| charts | 1.0 | 3.0 | 0.0 | 50.0 | +50.0 |" in make_table(
        {"charts": 0.03}, {"charts": 0.01}, {"charts": clear}
    )


def test_blind_answers_are_the_most_frequent_ones_of_training(tmp_path: Path) -> None:
    def turns(question: str, answer: str) -> list[dict[str, str]]:
        return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]

    rows = [turns("<image>\nWhat?\nIn a word.", "no"), turns("What?", "no"), turns("What?", "yes"), turns("Who?", "I")]
    file = tmp_path / "data.json"
    file.write_text(json.dumps([{"conversations": row} for row in rows]), encoding="utf-8")
    assert data_claim.answer_blindly(file, [ask("no"), ask("yes")]) == [1, 0]


def test_answers_that_are_kept_are_not_asked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "answers.json"
    file.write_text(json.dumps([{"question": "What?", "right": "no", "answer": "no"}]), encoding="utf-8")

    def load() -> Any:
        raise AssertionError("no model is needed")

    assert data_claim.answer_all(load, [ask("no")], file) == [1]
    other = Question(ask("no").image, "Who?", "no", ("charts",))
    with pytest.raises(SystemExit, match="answers other questions"):
        data_claim.answer_all(load, [other], file)
