"""Data files that are damaged, appended or odd: each fault is named, and what a clean copy keeps can be read again."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava.cli import main
from llava.data import check_run, json_scan, records
from llava.data.check_run import check_files
from llava.data.clean_copy import write_clean_copy
from llava.data.convert.parquet_input import iterate_parquet
from llava.data.readers import read_records, scan_rows
from llava.data.records import parse_record
from llava.data.row_index import open_index
from llava.errors import UsageError
from llava.eval.parquet_shards import read_shards

HUMAN, GPT = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A."}


def row(id: Any, said: str = "A.", **fields: Any) -> dict[str, Any]:
    return {"id": id, "conversations": [HUMAN, {**GPT, "value": said}], **fields}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Image.new("RGB", (4, 2), "red").save("a.png")
    return tmp_path


def pack(name: str, rows: list[Any]) -> bytes:
    with tarfile.open(name, "w") as archive:
        for number, each in enumerate(rows):
            data = json.dumps(each).encode()
            member = tarfile.TarInfo(f"{number}.json")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return Path(name).read_bytes()


def write_parquet(name: str, columns: Any, **options: Any) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), name, **options)


def check(*words: str) -> int:
    return main(["data", "check", *words, "--workers", "1"])


def test_samples_after_a_damaged_header_are_not_dropped_in_silence(folder: Path) -> None:
    data = bytearray(pack("x.tar", [row("a"), row("b", "B."), row("c", "C.")]))
    data[1024 + 148 : 1024 + 156] = b"zzzzzzzz"  # the checksum of the second header
    Path("x.tar").write_bytes(data)
    first, fault = scan_rows("x.tar")
    assert (first.row["id"], first.fault) == ("a", "")
    assert "the header of a member is not valid, at byte 1024" in fault.fault
    with pytest.raises(UsageError, match="header of a member is not valid"):
        read_records("x.tar")


def test_an_archive_that_was_appended_to_another_is_told(folder: Path) -> None:
    data = pack("x.tar", [row("a")])
    Path("x.tar").write_bytes(data + pack("y.tar", [row("b", "B.")]))
    with pytest.raises(UsageError, match="more follows the end mark at byte 1024, perhaps another archive"):
        read_records("x.tar")
    Path("z.tar").write_bytes(data + bytes(3 * 1024 * 1024))  # padding as some tools write it
    assert len(read_records("z.tar")) == 1


def test_a_number_that_is_too_long_is_a_fault_of_its_row(folder: Path) -> None:
    text = json.dumps(row("a"))
    Path("x.json").write_text(f'[{text}, {{"id": {"9" * 5000}}}]')
    good, fault = scan_rows("x.json")
    assert good.row["id"] == "a"
    assert "Row 1 of 'x.json' holds a value that cannot be read" in fault.fault


def make_texts(letters: bytes) -> Any:
    """A column of texts of one byte each, which need not be UTF-8."""
    pa = pytest.importorskip("pyarrow")
    places = pa.array(range(len(letters) + 1), pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), len(letters), [None, places, pa.py_buffer(letters)])


def make_values(kind: str) -> tuple[Any, Any]:
    """Columns of ids and of conversations of three rows, the second of which holds a value that cannot be read."""
    pa = pytest.importorskip("pyarrow")
    turns: Any = [[HUMAN, GPT], [HUMAN, GPT], [HUMAN, {**GPT, "value": "C."}]]
    if kind == "text":
        return make_texts(b"a\xffc"), turns
    if kind == "date":
        return pa.array([1, 2**60, 3], pa.timestamp("us")), turns
    names = pa.array(["human", "gpt"] * 3)
    texts = make_texts(b"qaq\xffqc")
    struct = pa.StructArray.from_arrays([names, texts], ["from", "value"])
    return ["a", "b", "c"], pa.ListArray.from_arrays(pa.array([0, 2, 4, 6], pa.int32()), struct)


@pytest.mark.parametrize("kind", ["text", "date", "turn"])
def test_a_value_of_parquet_that_cannot_be_read_is_a_fault_of_its_row_alone(folder: Path, kind: str) -> None:
    ids, turns = make_values(kind)
    write_parquet("x.parquet", {"id": ids, "conversations": turns})
    assert check("x.parquet", "--fix", "y.parquet") == 1
    faults = [json.loads(line) for line in Path("x.parquet.findings.jsonl").read_text().splitlines()]
    assert [each["row"] for each in faults] == [1]
    assert "holds a value that cannot be read" in faults[0]["findings"][0]["reason"]
    assert len(read_records("y.parquet")) == 2
    with pytest.raises(UsageError, match=r"Row 1 of 'x\.parquet' holds a value that cannot be read"):
        read_records("x.parquet")


def test_two_columns_of_one_name_are_refused(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    arrays = [pa.array(["a"]), pa.array([[HUMAN, GPT]]), pa.array([1])]
    write_parquet("x.parquet", pa.Table.from_arrays(arrays, names=["id", "conversations", "id"]))
    with pytest.raises(UsageError, match=r"has 2 columns 'id': keep one of them"):
        read_records("x.parquet")


def test_a_damaged_column_that_only_a_clean_copy_reads_is_told_as_damage_of_its_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {"conversations": [[HUMAN, {**GPT, "value": str(n)}] for n in range(40)], "more": [os.urandom(99)] * 40}
    write_parquet("x.parquet", columns, row_group_size=20, use_dictionary=False)
    group = pq.ParquetFile("x.parquet").metadata.row_group(1)
    column = next(group.column(n) for n in range(group.num_columns) if group.column(n).path_in_schema == "more")
    data = bytearray(Path("x.parquet").read_bytes())
    data[column.data_page_offset : column.data_page_offset + 60] = b"\xff" * 60
    Path("x.parquet").write_bytes(data)
    assert check("x.parquet", "--fix", "y.parquet") == 2
    assert "Row group 1 of the data file 'x.parquet' cannot be read" in capsys.readouterr().err
    assert not list(folder.glob("*y.parquet*"))


def test_a_large_row_group_is_copied_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    from llava.data import row_groups

    turns = [[HUMAN, {**GPT, "value": str(n)}] for n in range(30)]
    write_parquet("x.parquet", {"id": [n // 2 for n in range(30)], "conversations": turns, "more": [b"x" * 50] * 30})
    monkeypatch.setattr(row_groups, "_PART_BYTES", 200)
    assert max(table.num_rows for _, table in row_groups.scan_tables("x.parquet")) < 15
    assert check("x.parquet", "--fix", "y.parquet") == 1
    copy = read_records("y.parquet")
    assert [copy.record(n).turns[1][1] for n in range(len(copy))] == [str(n) for n in range(30)]
    assert len({copy.record(n).id for n in range(len(copy))}) == 30


def test_a_loop_of_links_is_no_data_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.json").symlink_to("x.json")
    assert check("x.json", "--fix", "y.json") == 2
    assert "'x.json' cannot be read" in capsys.readouterr().err


def test_halves_of_surrogate_pairs_are_written_so_that_they_can_be_read(folder: Path) -> None:
    rows = [row("\ud800"), row("b", note="\udfff"), row("x.png"), row("b", "B.", note="\udfff")]
    Path("x.json").write_text(json.dumps(rows))
    Path("m.yaml").write_text("sources: {a: {data: x.json}}")
    assert check("x.json", "--fix", "y.jsonl") == 1
    assert [json.loads(line)["id"] for line in Path("y.jsonl").read_bytes().splitlines()] == [
        "\ud800",
        "b",
        "x.png",
        "b-2",
    ]
    pack("x.tar", rows)
    assert check("x.tar", "--fix", "y.tar") == 1
    assert [read_records("y.tar").record(n).id for n in (0, 3)] == ["\ud800", "b-2"]
    assert main(["data", "mix", "m.yaml", "--out", "z.json"]) == 0
    assert json.loads(Path("z.json").read_bytes())[0]["id"] == "\ud800"
    for format in ("webdataset", "parquet"):
        if format == "parquet":
            pytest.importorskip("pyarrow")
        assert main(["data", "mix", "m.yaml", "--out", format, "--format", format]) == 0
        assert len(read_records(format)) == 4


def test_a_row_is_not_dropped_for_repeating_one_that_has_a_fault(folder: Path) -> None:
    turns = [{**HUMAN, "value": "<image>"}, GPT]
    rows = [{"id": "a", "image": "a.png", "width": side, "height": 2, "conversations": turns} for side in (9, 4, 4)]
    Path("x.json").write_text(json.dumps(rows))
    facts = check_files(["x.json"], Path(), Path("j"))
    assert [[kind for kind, _ in each.findings] for each in facts] == [
        ["wrong size", "duplicate row"],
        [],
        ["duplicate row"],
    ]
    assert write_clean_copy(["x.json"], facts, Path("y.json")) == (1, 0)


def test_a_clean_copy_replaces_no_file_that_another_command_has_written_meanwhile(folder: Path) -> None:
    Path("x.json").write_text(json.dumps([row("a")]))
    facts = check_files(["x.json"], Path(), Path("j"))
    Path("y.json").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write_clean_copy(["x.json"], facts, Path("y.json"))
    assert Path("y.json").read_text() == "mine"


@pytest.mark.parametrize("step", ["named", "journal"])
def test_a_check_that_is_killed_as_its_copy_gets_its_name_can_be_repeated(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    Path("x.json").write_text(json.dumps([row("a"), row("a", "B.")]))
    with monkeypatch.context() as patch:
        if step == "named":
            replace = os.replace

            def stop(source: str, target: Path) -> None:
                if str(target) == "y.json":
                    raise KeyboardInterrupt
                replace(source, target)

            patch.setattr(os, "replace", stop)
        else:
            patch.setattr(check_run, "remove_journal", lambda journal: (_ for _ in ()).throw(KeyboardInterrupt))
        assert check("x.json", "--fix", "y.json") == 130
    assert not Path("y.json").exists()
    assert check("x.json", "--fix", "y.json") == 1
    assert [each["id"] for each in json.loads(Path("y.json").read_text())] == ["a", "a-2"]
    assert not list(folder.glob("*.part"))


def test_a_check_that_found_no_row_without_a_fault_looks_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{**HUMAN, "value": "<image>"}, GPT]
    Path("x.json").write_text(json.dumps([{"id": "a", "image": "b.png", "conversations": turns}]))
    assert check("x.json", "--fix", "y.json") == 1
    assert "No row is without a fault" in capsys.readouterr().err
    Path("a.png").rename("b.png")  # the image is fetched

    assert check("x.json", "--fix", "y.json") == 0


def test_long_rows_do_not_add_up_in_a_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_run, "_BATCH_BYTES", 1000)
    rows = [row(n, str(n) * 400) for n in range(9)]
    Path("x.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    pack("x.tar", rows)
    for name in ("x.jsonl", "x.tar"):
        assert [len(batch) for _, batch in check_run._cut([name])] == [3, 3, 3]


def test_rows_that_wait_for_a_process_do_not_add_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_run, "_BATCH_ROWS", 1)
    monkeypatch.setattr(check_run, "_MOST_WAITING_BYTES", 1)
    Path("x.jsonl").write_text("".join(f"{json.dumps(row(n))}\n" for n in range(5)))
    read: list[int] = []

    def note(file: str) -> Any:
        for scanned in scan_rows(file):
            read.append(scanned.number)
            yield scanned

    monkeypatch.setattr(check_run, "scan_rows", note)
    batches = check_run._cut(["x.jsonl"])
    checked = check_run._check_all(batches, check_run._MakeChecker(Path(), None), 2)
    for number in range(5):
        next(checked)
        assert read == list(range(number + 1))


def test_a_row_of_a_list_is_no_longer_than_a_line_may_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_scan, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(json_scan, "_CHUNK_BYTES", 300)
    for number, said in enumerate(("x" * 1100, "\u00e9" * 550, "x" * 900 + "\u00e9" * 100)):
        name = f"{number}.json"
        Path(name).write_text(json.dumps([row("a"), row("b", said), row("c")], ensure_ascii=False))
        good, fault = scan_rows(name)
        assert good.row["id"] == "a"
        assert f"Row 1 of '{name}' has" in fault.fault
        assert "at most 1,000 can be one sample" in fault.fault
    Path("y.json").write_text(json.dumps([row("a", "x" * 900), row("b", "\u00e9" * 450)], ensure_ascii=False))
    assert [scanned.fault for scanned in scan_rows("y.json")] == ["", ""]


def test_the_words_of_a_long_text_are_counted_as_those_of_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " one\u00a0two\u3000three\x1cfour\x85five\u200bsix\n\n seven "
    record = parse_record(row("a", text), 0, "x.json")
    few = record.num_words
    monkeypatch.setattr(records, "_LONG_TEXT", 1)
    assert record.num_words == few == 7


def test_files_with_the_same_columns_in_another_order_are_copied_into_one(folder: Path) -> None:
    write_parquet("0.parquet", {"id": ["a", "b"], "conversations": [[HUMAN, GPT]] * 2})
    write_parquet("1.parquet", {"conversations": [[HUMAN, GPT]], "id": ["c"]})
    assert check("{0,1}.parquet", "--fix", "y.parquet") == 0
    assert [read_records("y.parquet").record(n).id for n in range(3)] == ["a", "b", "c"]


def test_views_of_texts_are_read_and_refused_for_a_copy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pa = pytest.importorskip("pyarrow")
    turn = pa.struct([("from", pa.string_view()), ("value", pa.string_view())])
    columns = {"id": pa.array(["a"], pa.string_view()), "conversations": pa.array([[HUMAN, GPT]], pa.list_(turn))}
    write_parquet("x.parquet", columns)
    assert read_records("x.parquet").record(0).id == "a"
    assert check("x.parquet", "--fix", "y.parquet") == 2
    assert "x.parquet has a column of a type from which no rows can be taken" in capsys.readouterr().err
    assert not list(folder.glob("*y.parquet*"))


@pytest.mark.parametrize("kind", ["text", "date"])
def test_a_converter_names_the_parquet_file_with_a_value_that_cannot_be_read(folder: Path, kind: str) -> None:
    write_parquet("x.parquet", {"id": make_values(kind)[0]})
    with pytest.raises(UsageError, match=r"'x\.parquet' is no complete parquet file: .* Get it again"):
        list(iterate_parquet(Path("x.parquet"), ["id"]))


def test_a_benchmark_names_the_row_group_with_a_value_that_cannot_be_read(folder: Path) -> None:
    write_parquet("x.parquet", {"id": make_values("text")[0]})
    with pytest.raises(UsageError, match=r"Row group 0 of the data file 'x\.parquet' cannot be read"):
        list(read_shards(Path("x.parquet"), ["id"]))


def test_a_damaged_row_group_is_one_fault(folder: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    write_parquet(
        "x.parquet", {"id": [f"{n}" for n in range(40)], "conversations": [[HUMAN, GPT]] * 40}, row_group_size=20
    )
    column = pq.ParquetFile("x.parquet").metadata.row_group(0).column(0)
    data = bytearray(Path("x.parquet").read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 30] = b"\xff" * 30
    Path("x.parquet").write_bytes(data)
    faults = [scanned.fault for scanned in scan_rows("x.parquet") if scanned.fault]
    assert len(faults) == 1
    assert "Row group 0 of the data file 'x.parquet' cannot be read" in faults[0]


def test_an_index_of_a_time_when_archives_ended_at_a_damaged_header_is_made_anew(folder: Path) -> None:
    data = pack("x.tar", [row("a")])
    Path("x.tar").write_bytes(data + data)
    open_index(Path("x.tar"), "tar", lambda: {"num_words": np.array([2], np.uint32)})
    with pytest.raises(UsageError, match="more follows the end mark"):
        read_records("x.tar")
