"""Every benchmark from its official files to its score, in small: answers are those of asking alone with ``generate``,
and scores are those of the published scorers on the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llava.cli import main
from llava.eval.askers import ImageReader
from llava.eval.benchmark_table import TASKS
from llava.eval.score_file import ScoredRun, read_scores
from llava.eval.task import Question, check
from llava.eval.task_score import ScoringOptions
from llava.eval.tasks.math_vista import find_unread, score_replies
from tests.eval.benchmark_files import write_benchmarks
from tests.eval.steered_checkpoint import MAX_NEW_TOKENS, ask_alone, find_words, write_steered

GOLD: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "gold/eval/benchmark_runs.json").read_text(encoding="utf-8")
)
NAME = "tiny"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, list[Question]]]]:
    """The folder of all benchmarks, answered and scored by one command, and their questions.

    The table has the splits' small sizes, so that nothing is a part, and short answers.
    """
    home = tmp_path_factory.mktemp("benchmarks")
    data, model = home / "data", home / NAME
    write_benchmarks(data)
    questions = {name: check(task, data, is_partial=True)[0] for name, task in TASKS.items()}
    model.mkdir()
    write_steered(model, find_words(one.text for row in questions.values() for one in row), GOLD["head"])
    with pytest.MonkeyPatch.context() as patch:
        for name, row in questions.items():
            patch.setitem(TASKS, name, replace(TASKS[name], count=len(row), max_new_tokens=MAX_NEW_TOKENS))
        assert main(["eval", *TASKS, "--data", str(data), "--model", str(model)]) == 0
        yield data, questions


def read_texts(data: Path, name: str) -> list[str]:
    rows = (data / name / f"answers/{NAME}.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["response"] if "response" in row else row["text"] for row in map(json.loads, rows)]


def read_run(data: Path, name: str) -> ScoredRun:
    return read_scores(data / name / f"answers/{NAME}.scores.json")


def test_every_answer_is_that_of_generate_asked_alone(asked: tuple[Path, dict[str, list[Question]]]) -> None:
    """The gold file has what ``generate`` said to all of them; every third one of each benchmark is asked again."""
    from llava.model.checkpoint import load_model

    data, questions = asked
    loaded, reader = load_model(str(data.parent / NAME)), ImageReader(28)
    for name, row in questions.items():
        gold = GOLD["answers"][name]
        alone = [ask_alone(loaded, one, [image.image for image in reader.read(one)]) for one in row[::3]]
        assert alone == gold[::3], f"{name}: the gold file is of another model, or of other questions"
        assert read_texts(data, name) == gold, name


@pytest.mark.parametrize("name", GOLD["scores"])
def test_every_score_is_the_published_scorers(name: str, asked: tuple[Path, dict[str, list[Question]]]) -> None:
    run = read_run(asked[0], name)
    wanted = GOLD["scores"][name]
    found = {**{f"by {key}": value for key, value in run.readings.items()}, **run.scores}
    if name == "mathvista":  # published with a judge, without which our score counts fewer answers
        data, questions, texts = asked[0], asked[1][name], GOLD["answers"][name]
        replies = {place: texts[place] for place in find_unread(questions, texts, data)}
        judged = score_replies(questions, texts, data, ScoringOptions(), replies)
        found["by MathVista, a judge that repeats the response"] = judged.scores[run.headline]
        assert run.scores[run.headline] < judged.scores[run.headline]
    else:
        assert run.headline in wanted
    for key, value in wanted.items():
        if isinstance(value, str):  # as the original prints it
            assert f"{found[key]:.2f}" == value, key
        else:
            assert found[key] == pytest.approx(value, abs=1e-9), key
    assert len(run.answers) == len(asked[1][name]) - (name == "gqa") * 3


def test_every_benchmark_is_there_and_asked_in_the_published_template(
    asked: tuple[Path, dict[str, list[Question]]],
) -> None:
    data, questions = asked
    assert GOLD["scores"].keys() == {name for name, task in TASKS.items() if task.score}
    assert GOLD["answers"].keys() == questions.keys() == TASKS.keys()
    assert sum(map(len, questions.values())) > 700
    headlines = {name: read_run(data, name) for name in GOLD["scores"]}
    shares = [run.scores[run.headline] for name, run in headlines.items() if name != "mme"]
    assert sum(2 < share < 98 for share in shares) > len(shares) - 4  # no model that is always wrong, or always right
    for name in GOLD["scores"]:
        settings = read_run(data, name).settings
        assert settings["template"] == ("llava_v1" if name.startswith("qbench") else "vicuna_v1")
        assert settings["temperature"] == 0


@pytest.mark.parametrize("name", GOLD["submissions"])
def test_a_submission_is_the_originals(name: str, asked: tuple[Path, dict[str, list[Question]]]) -> None:
    path = asked[0] / name / "answers" / (f"{NAME}.json" if name == "mmvet" else f"{NAME}.submission.json")
    assert json.loads(path.read_text(encoding="utf-8")) == GOLD["submissions"][name]


@pytest.mark.parametrize("name", ["mmbench", "mmbench_cn"])
def test_mmbenchs_table_has_the_answers(name: str, asked: tuple[Path, dict[str, list[Question]]]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    header, *rows = openpyxl.load_workbook(asked[0] / name / f"answers/{NAME}.xlsx").active.values
    assert [row[header.index("prediction")] for row in rows] == GOLD["answers"][name]
