"""Two runs are compared question by question, by tests with known p-values."""

from __future__ import annotations

import itertools
import math

import pytest

from llava.errors import UsageError
from llava.eval.report.paired_test import compare_pairs, mcnemar
from llava.eval.report.run_comparison import choose_flips, compare_runs, describe
from tests.eval.scored_runs import make_answer, make_run


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (6, 0, 2 / 64),
        (1, 9, 22 / 1024),
        (9, 1, 22 / 1024),
        (5, 5, 1.0),
        (150, 86, 3.7159e-05),  # the counts of Agresti's approval ratings, Categorical Data Analysis, table 10.1
    ],
)
def test_mcnemars_exact_test_has_its_known_values(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p_value, rel=2e-5)


def test_mcnemars_test_takes_any_number_of_questions() -> None:
    assert mcnemar(10_000, 10_000) == 1.0
    z = 400 / math.sqrt(19_601)  # the normal approximation, with its continuity correction
    assert mcnemar(9_600, 10_001) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)
    assert mcnemar(0, 5000) == 0.0


def test_partial_scores_get_the_permutation_test_by_all_signs() -> None:
    pairs = [(0.3, 0.6), (0.0, 1.0), (1.0, 0.9), (0.5, 0.5), (0.0, 0.3)]
    differences = [second - first for first, second in pairs if first != second]
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in itertools.product((1, -1), repeat=4)
    ]
    expected = sum(abs(each) >= abs(sum(differences)) - 1e-9 for each in sums) / len(sums)
    test = compare_pairs(pairs)
    assert (test.name, test.p_value) == ("permutation test, exact", pytest.approx(expected))
    assert test.difference == pytest.approx(sum(differences) / 5)


def test_many_partial_scores_get_drawn_signs_that_are_the_same_each_time() -> None:
    pairs = [(0.3 * (place % 4), 0.3 * (place * 7 % 4) + 0.05) for place in range(200)]
    first, second = compare_pairs(pairs), compare_pairs(pairs)
    assert first == second
    assert first.name == "permutation test, 20,000 draws, seed 0"
    z = first.difference / first.standard_error
    assert first.p_value == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), abs=0.03)


def test_scores_without_a_difference_have_no_evidence() -> None:
    assert compare_pairs([(0.3, 0.3)] * 5).p_value == 1.0
    assert compare_pairs([(1, 1), (0, 0)]).p_value == 1.0


def test_answers_are_joined_by_question_and_not_by_place() -> None:
    first = make_run([make_answer(place, float(place % 2)) for place in range(10)])
    second = make_run([make_answer(place, float(place % 2)) for place in reversed(range(10))], model="other")
    comparison = compare_runs(first, second)
    assert len(comparison.pairs) == 10
    assert (comparison.gained, comparison.lost) == ([], [])


def test_an_id_as_a_number_and_as_a_text_are_two_questions() -> None:
    first, second = make_run([make_answer(1, 1)]), make_run([make_answer(1, 1, id="1")])
    with pytest.raises(UsageError, match="no question in common: the first begins with 1, the second with '1'"):
        compare_runs(first, second)


def test_differing_questions_are_counted_and_named_and_not_tested() -> None:
    first = [make_answer(place, 1.0) for place in range(10)]
    second = [make_answer(place, 0.0) for place in range(2, 9)]
    second += [make_answer(9, 0.0, prompt="Otherwise?"), make_answer(40, 0.0, id="new")]
    comparison = compare_runs(make_run(first), make_run(second))
    assert len(comparison.pairs) == 7
    assert [answer.id for answer in comparison.only_first] == [0, 1, 9]
    assert [answer.id for answer in comparison.only_second] == [9, "new"]
    assert comparison.changed_prompts == [9]
    text = describe(comparison)
    for said in (
        "questions in both     7",
        "questions only in A   3: 0, 1, 9; they are not compared",
        "questions only in B   2: 9, 'new'; they are not compared",
        "asked otherwise       1 of these",
        "A is better           7",
        "p = 0.016, a difference beyond chance at 5 %",
        "A is better (5 of 7):",
    ):
        assert said in text


def test_questions_that_are_asked_twice_are_joined_in_their_order() -> None:
    first = [make_answer(0, 1.0), make_answer(1, 0.0, id=0, prompt="Question 0?")]
    comparison = compare_runs(make_run(first), make_run(first))
    assert [(a.score, b.score) for a, b in comparison.pairs] == [(1, 1), (0, 0)]


def test_mmbenchs_copies_of_a_question_are_one_observation() -> None:
    first = [make_answer(place + copy * 10**6, 1.0) for place in range(5) for copy in range(4)]
    second = [make_answer(place + copy * 10**6, float(copy > 0)) for place in range(5) for copy in range(4)]
    comparison = compare_runs(make_run(first, task="mmbench"), make_run(second, task="mmbench"))
    assert comparison.test.p_value == pytest.approx(2 / 32)  # five questions, not twenty rows
    assert "McNemar's exact test, each question with its copies" in describe(comparison)


def test_runs_on_different_benchmarks_or_without_answers_are_refused() -> None:
    answers = [make_answer(0, 1)]
    with pytest.raises(UsageError, match="first run is of gqa and the second of pope"):
        compare_runs(make_run(answers), make_run(answers, task="pope"))
    with pytest.raises(UsageError, match=r"second run, of 'llava-v1.5-7b', has no scored answers"):
        compare_runs(make_run(answers), make_run([]))


def test_the_flips_that_are_shown_differ_most_and_are_spread() -> None:
    pairs = [(make_answer(place, 0.0), make_answer(place, 1.0 if place % 10 == 0 else 0.3)) for place in range(100)]
    assert [a.id for a, _ in choose_flips(pairs, 5)] == [0, 20, 40, 60, 80]
    assert [b.score for _, b in choose_flips(pairs, 12)] == [1.0] * 10 + [0.3] * 2
    assert choose_flips([], 3) == []


def test_what_a_model_said_cannot_write_on_the_terminal() -> None:
    first = make_run([make_answer(0, 1.0, text="\x1b[2J yes")], model="a\nb")
    text = describe(compare_runs(first, make_run([make_answer(0, 0.0, text="\u202e")])))
    assert "\x1b" not in text
    assert "A is 'a\\nb'" in text


def test_the_settings_that_differ_are_named() -> None:
    answers = [make_answer(0, 1)]
    first = make_run(answers, settings={"quant": None, "versions": {"torch": "2.1"}, "temperature": 0.0})
    second = make_run(answers, settings={"quant": "int4", "versions": {"torch": "2.13"}, "temperature": 0.0, "new": 1})
    lines = describe(compare_runs(first, second)).splitlines()[1:4]
    assert lines == [
        "  differs, quant: A none, B int4",
        "  differs, versions.torch: A 2.1, B 2.13",
        "  differs, new: A none, B 1",
    ]
