"""A data file is read once; after that an index stands for it, in any process, until the file changes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.data import json_scan, row_index
from llava.data.json_rows import JsonRows
from llava.data.json_scan import scan_lines, scan_list
from llava.data.readers import read_records
from llava.data.row_index import SUFFIX, find_index
from llava.errors import UsageError


def make_row(number: int, words: int = 3, image: bool = True) -> dict[str, Any]:
    answer = " ".join(["wörd"] * words)
    turns = [{"from": "human", "value": "<image>\nWhat?" if image else "What?"}, {"from": "gpt", "value": answer}]
    return {"id": f"r{number}", **({"image": f"{number}.jpg"} if image else {}), "conversations": turns}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LLAVA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["json", "jsonl"])
def data(request: Any, tmp_path: Path) -> Path:
    """20 rows, every third without an image."""
    rows = [make_row(i, i + 1, i % 3 > 0) for i in range(20)]
    path = tmp_path / f"data.{request.param}"
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(lines if request.param == "jsonl" else json.dumps(rows, indent=1, ensure_ascii=False))
    return path


def refuse_to_scan(*_: Any) -> Iterator[Any]:
    raise AssertionError("the file was read again")


def test_a_file_is_not_parsed_a_second_time(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_records(data)
    monkeypatch.setattr("llava.data.json_rows.scan_json", refuse_to_scan)
    again = read_records(data)
    assert len(again) == 20
    assert [again.record(i) for i in range(20)] == [first.record(i) for i in range(20)]
    assert find_index(data).is_file()


def test_sizes_are_those_of_the_records_and_need_no_row(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_records(data)
    expected = [(rows.record(i).num_words, len(rows.record(i).images)) for i in range(20)]
    monkeypatch.setattr("llava.data.json_rows.JsonRows.row", refuse_to_scan)
    sizes = read_records([data, data]).sizes()
    assert list(zip(sizes.num_words.tolist(), sizes.num_images.tolist(), strict=True)) == expected * 2


def test_a_changed_file_gets_a_new_index(data: Path) -> None:
    assert len(read_records(data)) == 20
    text = data.read_text()
    data.write_text(text.replace("r19", "s19"))
    assert read_records(data).record(19).id == "s19"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "other kind"])
def test_a_damaged_index_is_built_anew(data: Path, damage: str) -> None:
    rows = read_records(data)
    expected = [rows.record(i).id for i in range(20)]
    index = find_index(data)
    content = index.read_bytes()
    changed = {
        "cut": content[:-9],
        "flipped": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        "empty": b"",
        "foreign": b"\x89PNG" * 100,
        "other kind": content.replace(b'"kind": "json"', b'"kind": "jsom"'),
    }[damage]
    index.write_bytes(changed)
    again = read_records(data)
    assert [again.record(i).id for i in range(20)] == expected
    assert index.read_bytes() == content


def test_an_index_that_cannot_stand_beside_its_file_is_in_the_cache(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_index(data).mkdir()  # nothing can be renamed to a folder, not even by root
    read_records(data)
    assert len(list((cache / "llava/index").iterdir())) == 1
    monkeypatch.setattr("llava.data.json_rows.scan_json", refuse_to_scan)
    assert len(read_records(data)) == 20


def test_without_any_place_the_index_is_in_memory_and_says_so(
    data: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find_index(data).mkdir()
    cache.write_text("a file where the folder should be")
    rows = read_records(data)
    assert "can be written neither beside it" in capsys.readouterr().err
    assert pickle.loads(pickle.dumps(rows)).record(3) == rows.record(3)


def test_no_half_written_index_is_ever_seen(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_index.os, "fsync", fail)
    assert len(read_records(data)) == 20
    assert [path.name for path in data.parent.iterdir() if SUFFIX in path.name] == []


def test_another_process_reads_the_same_rows_without_parsing_the_file(data: Path, tmp_path: Path) -> None:
    rows = read_records(data)
    (tmp_path / "rows.pickle").write_bytes(pickle.dumps(rows))
    code = (
        "import pickle, sys; rows = pickle.load(open(sys.argv[1], 'rb'));"
        "print(rows.record(7).id, sys.modules.get('torch'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "rows.pickle")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["r7", "None"]
    assert len(pickle.dumps(rows)) < 2000


def test_a_file_that_changes_while_it_is_in_use_is_an_error(data: Path) -> None:
    rows = pickle.dumps(read_records(data))
    data.write_text(data.read_text().replace("r19", "r119"))
    with pytest.raises(UsageError, match="was changed while it was in use"):
        pickle.loads(rows).record(0)


def test_an_invalid_row_is_found_each_time(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([make_row(0), {"id": "bad"}]))
    for _ in range(2):
        with pytest.raises(UsageError, match=r"Row 1 of .*\(id bad\)"):
            read_records(path)
    assert not find_index(path).exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=8
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(), VALUES)), indent=st.sampled_from([None, 1]), chunk=st.integers(1, 40))
def test_a_list_is_read_the_same_however_the_file_is_cut_into_chunks(rows: Any, indent: Any, chunk: int) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=chunk % 2 == 0)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = json.dumps(rows, indent=indent).encode()
    path = Path(os.environ["XDG_CACHE_HOME"]).parent / "x.json"
    path.write_bytes(data)
    before = json_scan._CHUNK_BYTES
    json_scan._CHUNK_BYTES = chunk
    try:
        scanned = list(scan_list(str(path)))
    finally:
        json_scan._CHUNK_BYTES = before
    assert [each.row for each in scanned] == rows
    assert [json.loads(data[each.offset : each.offset + each.num_bytes]) for each in scanned] == rows


@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('[{"a": 1},\n {"b": 2,}]', "Correct it there"),
        ('[{"a": 1},\n {"b"', "cut off at its end, after 16 characters"),
        ('[{"a": 1}\n {"b": 2}]', "Correct it there"),
        ('[{"é": 1},\n\n {"b": "xy', "cut off"),
        ('[{"a": 1}]\n[]', "has to end with .jsonl"),
        ('[{"a": tru', "cut off|Correct"),
    ],
)
def test_a_fault_of_syntax_is_named_by_its_place_after_the_rows_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, remedy: str, chunk: int
) -> None:
    monkeypatch.setattr(json_scan, "_CHUNK_BYTES", chunk)
    (tmp_path / "x.json").write_text(text)
    *rows, last = scan_list(str(tmp_path / "x.json"))
    assert len(rows) == (0 if "tru" in text else 1)
    with pytest.raises(UsageError, match=remedy):
        raise UsageError(last.fault)
    with pytest.raises(json.JSONDecodeError) as found:
        json.loads(text)
    assert f"(line {found.value.lineno}, column {found.value.colno}: " in last.fault


def test_a_line_too_long_for_a_sample_is_named_and_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_scan, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(json_scan, "_CHUNK_BYTES", 100)
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join([json.dumps(make_row(0)), '{"id": "' + "x" * 5000 + '"}', json.dumps(make_row(2))]))
    first, long, last = scan_lines(str(path))
    assert (first.fault, last.fault, last.row["id"]) == ("", "", "r2")
    assert "Line 2" in long.fault
    assert "has 5,011 bytes; at most 1,000 can be one sample" in long.fault
    (tmp_path / "x.json").write_text(json.dumps([make_row(0), {"id": "x" * 50_000}]))
    *_, fault = scan_list(str(tmp_path / "x.json"))
    assert "Row 1 of" in fault.fault
    assert "has more than" in fault.fault


def test_rows_of_json_know_their_number_and_file(data: Path) -> None:
    rows = JsonRows(str(data))
    assert rows.locate(4) == (4, str(data))
    with pytest.raises(IndexError, match="no row 20; there are 20"):
        rows.record(20)
