"""Reading the datasets' JSON files entry by entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava.data.convert import json_input
from llava.data.convert.json_input import iterate_json, iterate_lines, read_json, take
from llava.errors import UsageError

VALUES: list[Any] = [
    [2.5e-30, 1e22, -1e-7, 10, -0.0],
    [],
    {},
    [1, -2.5e-3, True, None, "", 'a\\"b\n\u00e9☕\U0001f68c', [[]], {"a": {"b": [1]}}],
    {"": 0, "é": "x" * 50, "list": [12345678901234567890, 1.5], "nested": {"k": [{}, {"z": "\\"}]}},
    [{"id": i, "text": "word " * i} for i in range(40)],
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_file_read_by_entries_equals_the_file_read_whole(
    value: Any, chunk: int, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_input, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    for ensure_ascii in (False, True):
        path.write_text(
            "\ufeff " + json.dumps(value, indent=indent, ensure_ascii=ensure_ascii) + "\n", encoding="utf-8"
        )
        expected = list(value.items() if isinstance(value, dict) else enumerate(value))
        assert list(iterate_json(path)) == expected
        assert read_json(path) == value
        path.write_text(json.dumps({"info": {"n": [1, {}]}, "data": value, "x": "y"}, indent=indent), encoding="utf-8")
        assert list(iterate_json(path, "data")) == expected


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("[1, 2", "is cut off at its end"),
        ('[{"a": "b', "is not valid JSON|is cut off"),
        ("[1, 2}", "is not valid JSON"),
        ("[1 2]", "is not valid JSON"),
        ("[1,, 2]", "is not valid JSON"),
        ('{"a" 1}', "is not valid JSON"),
        ("[1]x", "goes on after its end"),
        ("[1] [2]", "goes on after its end"),
        ("12", "holds neither a list nor an object"),
        ("<html>", "holds neither a list nor an object"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_where(
    text: str, message: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_input, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=rf"a\.json' ({message}).*character \d+.*get it again"):
        list(iterate_json(path))


def test_what_was_read_before_a_fault_is_given_first(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"id": 1}, {"id": 2}, {"id":', encoding="utf-8")
    entries = iterate_json(path)
    assert [next(entries), next(entries)] == [(0, {"id": 1}), (1, {"id": 2})]
    with pytest.raises(UsageError):
        next(entries)


def test_an_absent_key_a_deep_file_and_other_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"images": [], "licenses": [1]}')
    with pytest.raises(UsageError, match="has no 'annotations': it is another file"):
        list(iterate_json(path, "annotations"))
    path.write_text("[" + "[" * 200_000)
    with pytest.raises(UsageError, match="nested too deeply"):
        list(iterate_json(path))
    path.write_bytes(b"\x1f\x8b\x08\x00\xff\xfe")
    with pytest.raises(UsageError, match=r"is not UTF-8\. It may be compressed"):
        list(iterate_json(path))
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_json(tmp_path / "absent.json")


def test_an_entry_that_is_too_long_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_input, "_CHUNK", 100)
    monkeypatch.setattr(json_input, "MOST_CHARACTERS", 1000)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(["x" * 5000]))
    with pytest.raises(UsageError, match="an entry of more than 1,000 characters"):
        list(iterate_json(path))
    path.write_text('{"a": "' + "x" * 5000)
    with pytest.raises(UsageError, match="a line of more than 1,000 characters"):
        list(iterate_lines(path))


def test_a_reader_holds_a_window_and_not_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_input, "_CHUNK", 1000)
    sizes = []
    fill = json_input._Window._fill

    def watch(window: Any, num: int) -> bool:
        more = fill(window, num)
        sizes.append(len(window._text))
        return more

    monkeypatch.setattr(json_input._Window, "_fill", watch)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"id": i} for i in range(10_000)]))
    assert sum(1 for _ in iterate_json(path)) == 10_000
    assert max(sizes) < 3000 < path.stat().st_size


def test_lines_are_numbered_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n  \n[2]\n{"a":')
    lines = iterate_lines(path)
    assert [next(lines), next(lines)] == [(0, {"a": 1}), (3, [2])]
    with pytest.raises(UsageError, match="Line 5 of"):
        next(lines)


@pytest.mark.parametrize(
    ("value", "kind", "is_taken"),
    [(1, int, True), (1, float, True), (1.5, float, True), (True, int, False), (True, float, False), ("1", int, False),
     ("1", (str, int), True), (None, str, False), ([], list, True)],
)  # fmt: skip
def test_a_field_has_to_be_of_its_kind(value: Any, kind: Any, is_taken: bool) -> None:
    if is_taken:
        assert take({"x": value}, "x", kind, "Entry 1") == value
    else:
        with pytest.raises(UsageError, match=r"Entry 1 needs .* 'x', which is "):
            take({"x": value}, "x", kind, "Entry 1")
