"""The full-size suite: its questions are always the same, and their truths accept what is right and nothing else."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava.eval import synth_suite
from llava.eval.scoring.sentence_answers import judge
from llava.eval.synth_suite import NO_REFUSAL, draw_asked, find_tasks, make_table, run_suite
from llava.synth.full_size.full_size_suite import FULL_SIZE_TASKS, FullSizeTask, draw_full_size_item
from llava.synth.full_size.pyplot_charts import _draw_plot, draw_bar_item
from llava.synth.suite import TASKS, Task, draw_item
from llava.synth.suite_truths import find_truth


@pytest.mark.parametrize("task", FULL_SIZE_TASKS, ids=lambda task: task.name)
def test_a_full_size_question_is_always_the_same_and_accepts_its_own_answer_alone(task: FullSizeTask) -> None:
    first, again = draw_full_size_item(task, 1), draw_full_size_item(task, 1)
    assert first[1:] == again[1:]
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))
    assert min(first.image.size) >= 380
    assert max(first.image.size) <= 1500
    truth = first.truth
    for wrong in ("", "something else", "I do not know." if truth.answers else "It is 42."):
        assert not judge(wrong, truth, first.question).is_right
    if not truth.answers:
        assert judge("I cannot tell from this image.", truth, first.question).is_right
        return
    assert judge(truth.answers[0], truth, first.question).is_right
    if truth.form in ("name", "text"):
        assert judge(f"It is {truth.answers[0]}.", truth, first.question).is_right
    if truth.others:
        assert not judge(", ".join((truth.answers[0], *truth.others)), truth, first.question).is_right


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_an_exact_answer_of_the_old_suite_is_right_by_the_rule_for_sentences_too(task: Task) -> None:
    for index in range(6):
        item = draw_item(task, index)
        truth = find_truth(task, item)
        assert judge(item.answer, truth, item.question).is_right
        assert not judge("something else", truth, item.question).is_right
        if truth.form == "text":
            assert judge(f'It says "{item.answer}".', truth, item.question).is_right


def test_the_bars_that_are_asked_about_are_those_that_are_drawn() -> None:
    counts = [draw_bar_item(random.Random(i)) for i in range(12)]
    asked = [item for item in counts if item.question.startswith("How many")]
    assert asked
    for item in asked[:4]:
        pixels = np.asarray(item.image, dtype=int)
        inner = pixels[2:, 2:]
        filled = (inner == pixels[:-2, 2:]).all(-1) & (inner == pixels[2:, :-2]).all(-1)
        bars = filled & (inner.min(-1) < 200) & (inner.max(-1) > 100)
        assert max(_count_runs(bars.any(axis=axis)) for axis in (0, 1)) == int(item.truth.answers[0])


def test_no_two_values_of_a_chart_are_too_near_to_be_told_apart() -> None:
    for seed in range(200):
        values = sorted(_draw_plot(random.Random(seed), 3 + seed % 6).values)
        assert min(b - a for a, b in itertools.pairwise(values)) >= values[-1] / 25


def _count_runs(marks: Any) -> int:
    return int(np.count_nonzero(np.diff(np.concatenate(([0], marks.astype(int)))) == 1))


def test_a_run_counts_right_exact_and_refused_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [*find_tasks(["color"])[:1], *find_tasks(["full size: color", "full size: says"])]

    def answer(_: Any, items: Any, most: int) -> list[tuple[str, bool]]:
        assert most in (synth_suite.MAX_NEW_TOKENS, synth_suite.FULL_SIZE_NEW_TOKENS)
        texts = [
            f"It is {item.truth.answers[0]}." if item.truth.answers else "There is no such thing." for item in items
        ]
        return [("I cannot tell.", True), *((text, False) for text in texts[1:])]

    monkeypatch.setattr(synth_suite, "answer_items", answer)
    seen: list[str] = []
    run = run_suite(None, tasks, 4, lambda task, item, text, why: seen.append(why))
    old, new, unknown, refusals = run.scores
    assert (old.right, old.exact) == (3, 0.0)
    assert (new.right, new.exact) == (3, None)
    assert unknown.right == 4
    assert (refusals.task, refusals.right, refusals.asked) == (NO_REFUSAL, 3, 4)
    assert sum(map(bool, seen)) == 2
    assert run.health.cut == pytest.approx(3 / 12)
    assert make_table(run.scores, "x").row_count == 4


def test_charts_are_left_out_where_matplotlib_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth_suite, "has_matplotlib", lambda: False)
    run = run_suite(None, find_tasks(["full size: matplotlib"]), 1)
    assert run.scores == []
    assert len(run.left_out) == 3


def test_an_item_is_asked_with_its_image_at_full_size() -> None:
    (task,) = find_tasks(["full size: relation"])
    item = draw_asked(task, 0)
    assert isinstance(item.image, Image.Image)
    assert item.is_exact is None
