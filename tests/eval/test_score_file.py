"""The scores file: what was scored is read back as it was, and files of another form are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.eval.benchmark_table import TASKS
from llava.eval.score_file import ScoredRun, make_scored_run, name_scores_file, read_scores, write_scores
from llava.eval.task import Question
from llava.eval.task_score import ScoredAnswer, TaskScore


def make_run() -> ScoredRun:
    questions = [
        Question(7, (Path("a.png"), b"bytes"), "What?\nShort.", "What?"),
        Question("é\ud800", (), "Why?", "Why?"),
    ]
    answers = [
        ScoredAnswer(0, 1 / 3, "a cat", ("cat", "dog"), ("all", "animals")),
        ScoredAnswer(1, 0.0, None, (), (), "nothing could be read"),
    ]
    score = TaskScore("accuracy", {"accuracy": 100 / 6}, {"animals": (33.3, 1)}, answers, {"lmms-eval": 50}, ["One."])
    settings = {"temperature": 0.0, "template": "vicuna_v1", "shard": None}
    return make_scored_run(TASKS["gqa"], "tiny", settings, score, questions, ["A cat.", "\ud83d"])


def test_a_scores_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = name_scores_file(tmp_path / "new" / "llava-v1.5-7b.jsonl")
    assert path.name == "llava-v1.5-7b.scores.json"
    run = make_run()
    write_scores(path, run)
    assert read_scores(path) == run
    assert run.answers[0].images == (str(Path("a.png").absolute()), None)
    assert run.answers[1].id == "é\ud800"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("version", 2, "not a scores file of this version"),
        ("scores", {"accuracy": "50"}, "'scores' is"),
        ("scores", {"accuracy": True}, "'scores' is"),
        ("categories", {"animals": [1]}, "'categories' is"),
        ("published", {"llava": 1}, "'published' is"),
        ("answers", {}, "'answers' is"),
        ("answers", [3], "answers, entry 1: 'id' is missing"),
        ("notes", None, "'notes' is"),
        ("headline", None, "'headline' is"),
        ("headline", "another", "'headline' is 'another'"),
        ("scores", {"accuracy": 10**400}, "'scores' is"),
        ("scores", 5, "'scores' is '5'"),
        ("categories", {"animals": [10**400, 1]}, "'categories' is"),
    ],
)
def test_a_file_of_another_form_is_refused_with_what_is_wrong(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    path = tmp_path / "a.scores.json"
    write_scores(path, make_run())
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UsageError, match=said):
        read_scores(path)


@pytest.mark.parametrize("score", [-0.5, 2, 10**400, 1e300])
def test_an_answer_has_no_score_beyond_the_full_mark(tmp_path: Path, score: float) -> None:
    path = tmp_path / "a.scores.json"
    write_scores(path, make_run())
    value = json.loads(path.read_text())
    value["answers"][0]["score"] = score
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError, match="answers, entry 1: 'score' is"):
        read_scores(path)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"version": 1', b'{"version": 1, "scores": {"a": NaN}}'])
def test_a_damaged_or_missing_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.scores.json"
    with pytest.raises(UsageError, match="cannot be read"):
        read_scores(path)
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"a\.scores\.json"):
        read_scores(path)
