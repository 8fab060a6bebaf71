"""The stated noise of a score is the error that a resampling of its questions shows, or it is not stated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from llava.eval.report.published_scores import compare_with_published, find_published
from llava.eval.report.score_noise import estimate_noise
from llava.eval.score_file import AnswerRecord
from tests.eval.scored_runs import make_answer, make_run


def resample(units: Sequence[Sequence[AnswerRecord]], score: Callable[[list[AnswerRecord]], float]) -> float:
    """The standard deviation of the score over 800 draws of as many units with replacement."""
    random = np.random.default_rng(3)
    scores = []
    for _ in range(800):
        drawn = random.integers(0, len(units), len(units))
        scores.append(score([answer for place in drawn for answer in units[place]]))
    return float(np.std(scores))


def test_a_share_of_right_answers_has_its_binomial_error() -> None:
    noise = estimate_noise(make_run([make_answer(place, float(place < 60)) for place in range(100)]))
    assert noise is not None
    assert noise.standard_error == pytest.approx(100 * math.sqrt(0.6 * 0.4 / 100))
    assert noise.how == "binomial, 100 answers"


def test_a_score_of_0_or_100_still_has_an_error() -> None:
    for score in (0.0, 1.0):
        noise = estimate_noise(make_run([make_answer(place, score) for place in range(20)]))
        assert noise is not None
        assert 100 / 22 / 2 < noise.standard_error < 10


def test_partial_scores_have_the_error_of_their_mean() -> None:
    answers = [make_answer(place, score) for place, score in enumerate([0, 0.3, 0.6, 0.9, 1, 1, 1, 0.3] * 20)]
    noise = estimate_noise(make_run(answers))
    assert noise is not None
    expected = resample([[each] for each in answers], lambda drawn: 100 * sum(a.score for a in drawn) / len(drawn))
    assert noise.standard_error == pytest.approx(expected, rel=0.1)
    assert "of the mean" in noise.how


def test_the_score_of_one_category_has_the_error_of_its_answers_alone() -> None:
    answers = [
        make_answer(place, float(place % 4 == 0 or place % 7 == 0), categories=("IMG",) if place % 2 else ("TXT",))
        for place in range(200)
    ]
    image = [answer for answer in answers if answer.categories == ("IMG",)]
    noise = estimate_noise(make_run(answers, 100 * sum(answer.score for answer in image) / len(image)))
    assert noise is not None
    assert noise.how == "binomial, 100 answers in IMG"


def test_a_count_of_right_answers_is_recognised() -> None:
    noise = estimate_noise(make_run([make_answer(place, float(place < 300)) for place in range(1000)], 300.0))
    assert noise is not None
    assert noise.standard_error == pytest.approx(math.sqrt(1000 * 0.3 * 0.7))


def test_circular_accuracy_counts_a_question_with_its_copies_once() -> None:
    random = np.random.default_rng(0)
    units = [
        [make_answer(place + copy * 10**6, float(random.random() < 0.85)) for copy in range(4)] for place in range(150)
    ]
    headline = 100 * sum(all(each.score for each in unit) for unit in units) / len(units)
    answers = [answer for copy in zip(*units, strict=True) for answer in copy]
    noise = estimate_noise(make_run(answers, headline, task="mmbench"))
    assert noise is not None
    assert noise.how == "binomial, 150 questions with their copies"
    assert noise.standard_error == pytest.approx(100 * math.sqrt(headline / 100 * (1 - headline / 100) / 150))
    assert estimate_noise(make_run(answers, headline)) is None, "only MMBench is scored so"


def test_mmes_sums_have_the_error_that_resampling_the_images_shows() -> None:
    random = np.random.default_rng(1)
    names = ["existence", "count", "OCR"]

    def ask(name: str, i: int, k: int, group: str = "perception") -> AnswerRecord:
        return make_answer(
            2 * i + k, float(random.random() < 0.7), id=f"{name}/{k * 'images/'}{i}.png", categories=(name, group)
        )

    units = [[ask(name, i, k) for k in range(2)] for name in names for i in range(60)]

    def score(drawn: list[AnswerRecord]) -> float:
        total = 0.0
        for name in names:
            pairs = [(a.score, b.score) for a, b in zip(drawn[::2], drawn[1::2], strict=True) if name in a.categories]
            total += sum(50 * (a + b) + 100 * (a == b == 1) for a, b in pairs) / len(pairs)
        return total

    answers = [answer for unit in units for answer in unit]
    others = [ask("code_reasoning", i, k, "cognition") for i in range(20) for k in range(2)]
    headline = {"headline": "perception", "scores": {"perception": score(answers)}}
    run = make_run([*others, *answers], task="mme", categories=dict.fromkeys(["code_reasoning", *names], (0.0, 0)))
    noise = estimate_noise(replace(run, **headline))
    assert noise is not None
    assert noise.standard_error == pytest.approx(resample(units, score), rel=0.12)


def test_popes_mean_f1_has_the_error_of_its_categories_which_share_their_images() -> None:
    random = np.random.default_rng(2)
    answers = []
    for place in range(900):
        truth = "yes" if place % 2 else "no"
        reading = truth if random.random() < 0.85 else "no" if truth == "yes" else "yes"
        name = ("random", "popular", "adversarial")[place % 3]
        right = float(reading == truth)
        answers.append(make_answer(place, right, reading=reading, references=(truth,), categories=(name,)))

    def f1(drawn: Sequence[AnswerRecord]) -> float:
        hits = sum(a.reading == "yes" and a.references == ("yes",) for a in drawn)
        return 200 * hits / sum((a.reading == "yes") + (a.references == ("yes",)) for a in drawn)

    groups = [[a for a in answers if a.categories == (name,)] for name in ("random", "popular", "adversarial")]
    noise = estimate_noise(make_run(answers, sum(map(f1, groups)) / 3, task="pope"))
    assert noise is not None
    alone = [resample([[each] for each in group], f1) for group in groups]
    assert noise.standard_error == pytest.approx(sum(alone) / 3, rel=0.1)


def test_the_mean_of_two_splits_weighs_them_equally() -> None:
    answers = [make_answer(place, float(place % 3 == 0), categories=("human",)) for place in range(60)]
    answers += [make_answer(60 + place, float(place % 5 != 0), categories=("augmented",)) for place in range(20)]
    noise = estimate_noise(make_run(answers, 100 * (1 / 3 + 0.8) / 2, task="chartqa"))
    assert noise is not None
    expected = 50 * math.sqrt(1 / 3 * 2 / 3 / 60 + 0.8 * 0.2 / 20)
    assert noise.standard_error == pytest.approx(expected)


def test_a_score_that_its_answers_do_not_give_has_no_stated_noise() -> None:
    answers = [make_answer(place, float(place < 60)) for place in range(100)]
    assert estimate_noise(make_run(answers, 61.5)) is None
    assert estimate_noise(make_run([])) is None
    assert compare_with_published(make_run(answers, 61.5)).verdict == "noise unknown"


@pytest.mark.parametrize(
    ("right", "verdict"), [(62, "same"), (60, "within noise"), (53, "within noise"), (51, "below"), (73, "above")]
)
def test_a_difference_is_judged_by_two_standard_errors(right: int, verdict: str) -> None:
    standing = compare_with_published(make_run([make_answer(place, float(place < right)) for place in range(100)]))
    assert (standing.checkpoint, standing.published) == ("llava-v1.5-7b", 62.0)
    assert standing.verdict == verdict
    assert standing.difference == pytest.approx(right - 62)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("llava-v1.5-7b", "llava-v1.5-7b"),
        ("liuhaotian/llava-v1.5-13b", "llava-v1.5-13b"),
        ("llava-hf/llava-1.5-7b-hf", "llava-v1.5-7b"),
        ("liuhaotian--llava-v1.6-mistral-7b@main", "llava-v1.6-mistral-7b"),
        ("./checkpoints/LLaVA-v1.5-7B/", "llava-v1.5-7b"),
        ("llava-v1.5-7b-lora", "llava-v1.5-7b-lora"),
        ("llava-v1.5-7b-mine", None),
        ("embedded", None),
        ("", None),
    ],
)
def test_the_published_row_is_found_by_the_models_name(model: str, found: str | None) -> None:
    assert find_published(model, make_run([make_answer(0, 1)]).published) == found


def test_mmes_published_score_is_perceptions() -> None:
    run = make_run([make_answer(0, 1)], 1519.2, task="mme", model="llava-v1.6-vicuna-7b")
    assert compare_with_published(run).published == 1519
    assert compare_with_published(run).verdict == "same"


def test_without_a_score_or_a_published_one_nothing_is_judged() -> None:
    answers = [make_answer(0, 1)]
    assert compare_with_published(make_run(answers, model="mine")).verdict == ""
    assert compare_with_published(make_run(answers, task="docvqa")).verdict == ""
    assert compare_with_published(make_run([])).verdict == ""
    assert compare_with_published(make_run(answers, model="mine"), "llava-v1.5-7b").published == 62.0


def test_a_part_of_the_questions_is_not_judged() -> None:
    answers = [make_answer(place, 1.0) for place in range(9)]
    for settings in ({"is_partial": True}, {"count": 9, "of": 12578}):
        standing = compare_with_published(make_run(answers, settings=settings))
        assert (standing.verdict, standing.published) == ("other questions", 62.0)
    assert compare_with_published(make_run(answers, settings={"count": 9, "of": 9})).verdict == "above"
