"""Every file that ``--data_path`` of the originals takes is read, and a file that cannot be read says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava.data.readers import Rows, read_records
from llava.errors import UsageError


def rows(*names: Any) -> list[dict[str, Any]]:
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    return [{"id": name, "conversations": turns} for name in names]


def names(records: Rows) -> list[str]:
    return [records.record(i).id for i in range(len(records))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.json with 10 rows, b.json with 3, c.jsonl with 2; the current folder."""
    monkeypatch.chdir(tmp_path)
    for file, count in (("a", 10), ("b", 3)):
        Path(f"{file}.json").write_text(json.dumps(rows(*(f"{file}{i}" for i in range(count)))))
    Path("c.jsonl").write_text("\n\n".join(map(json.dumps, rows("c0", "c1"))) + "\n")
    return tmp_path


def mixture(*datasets: dict[str, Any]) -> str:
    Path("mix.yaml").write_text(json.dumps({"datasets": list(datasets)}))  # JSON is YAML
    return "mix.yaml"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("b.json", ["b0", "b1", "b2"]),
        ("c.jsonl", ["c0", "c1"]),
        ("{b,b}.json", ["b0", "b1", "b2"] * 2),
        (["c.jsonl", Path("b.json")], ["c0", "c1", "b0", "b1", "b2"]),
    ],
)
def test_files_are_read_in_the_order_in_which_they_are_named(folder: Path, path: Any, expected: list[str]) -> None:
    assert names(read_records(path)) == expected


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (None, range(10)),
        ("all", range(10)),
        ("first:3", range(3)),
        ("end:3", range(7, 10)),
        ("first:10%", range(1)),
        ("first:11%", range(2)),  # rounded up, as in the original
        ("end:0.5%", range(9, 10)),
        ("end:99", range(10)),
        ("first:100%", range(10)),
    ],
)
def test_a_mixture_takes_from_each_file_what_its_strategy_says(
    folder: Path, strategy: str | None, expected: range
) -> None:
    chosen = {} if strategy is None else {"sampling_strategy": strategy}
    path = mixture({"json_path": "a.json", **chosen}, {"json_path": "c.jsonl"})
    assert names(read_records(path)) == [*(f"a{i}" for i in expected), "c0", "c1"]


def test_a_random_choice_is_decided_by_the_seed(folder: Path) -> None:
    path = mixture(*[{"json_path": "a.json", "sampling_strategy": "random:50%"}] * 2)
    first, again, other = (names(read_records(path, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first[:5])) == len(set(first[5:])) == 5
    assert first[:5] != first[5:]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"json_path": "a.json", "sampling_strategy": "frist:3"}, "no sampling_strategy 'frist'.*Did you mean 'first'"),
        ({"json_path": "a.json", "sampling_strategy": "first"}, "with a number or a percentage"),
        ({"json_path": "a.json", "sampling_strategy": "all:3"}, "has to be all, or first"),
        ({"json_path": "a.json", "sampling_strategy": "first:-3"}, "with a number or a percentage"),
        ({"json_path": "a.json", "sampling_strategy": "end:0"}, "takes no sample"),
        ({"json_path": "a.json", "sampling": "all"}, "unknown key 'sampling'. Did you mean 'sampling_strategy'"),
        ({"json_path": "none.json"}, "'none.json' does not exist"),
        ({"json_path": "a.parquet"}, "has to end with .json"),
        ({}, "Dataset 1 of 'mix.yaml' needs a json_path"),
    ],
)
def test_a_mistake_in_a_mixture_names_the_value_and_the_remedy(
    folder: Path, dataset: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read_records(mixture(dataset))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty. Fetch it again"),
        (json.dumps(rows("a", "b"))[:-40], r"line 1, column \d+.*cut off at its end.*fetch it again"),
        ('[{"id": 1,}]', r"line 1, column \d+.*Correct it there"),
        ("\n".join(map(json.dumps, rows("a", "b"))), "has to end with .jsonl"),
        ('{"data": []}', "must hold a JSON list of samples, but holds an object with the keys data"),
        ("[]", "non-empty"),
        ("[" * 100_000, "nested too deeply|cut off"),
        (json.dumps([*rows("a"), {"id": "b"}]), r"Row 1 of '.*x.json' \(id b\) needs a list"),
    ],
)
def test_a_file_that_holds_no_list_of_samples_says_why(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_records(tmp_path / "x.json")


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(rows("a")[0]) + "\n\n" + json.dumps(rows("b")[0])[:-9])
    with pytest.raises(UsageError, match=r"Line 3 of .*x.jsonl.* may be incomplete: fetch it again"):
        read_records(tmp_path / "x.jsonl")


def test_a_byte_order_mark_is_no_mistake_but_another_encoding_is(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(rows("a")).encode())
    assert names(read_records(tmp_path / "x.json")) == ["a"]
    (tmp_path / "x.json").write_bytes('["é"]'.encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8 at byte 2"):
        read_records(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.json", "'none.json' does not exist. The path is relative to /"),
        ("none.yaml", "'none.yaml' does not exist"),
        ("{a,b}_x.json", "write it as folder/name_{a,b}.json"),
        ("folder.json", "cannot be read: Is a directory"),
        ("data", "has to end with .json"),
        ([], "list of data files is empty"),
    ],
)
def test_a_path_that_names_no_file_is_an_error(folder: Path, path: Any, message: str) -> None:
    Path("folder.json").mkdir()
    with pytest.raises(UsageError, match=message):
        read_records(path)
