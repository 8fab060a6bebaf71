"""What the data commands write never replaces what they read, is written by one command at a time, and is complete."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from llava.cli import main
from llava.data.check_run import check_files
from llava.data.clean_copy import write_clean_copy
from llava.data.mixture import open_mixture
from llava.data.mixture_writer import write_shards
from llava.data.readers import read_records
from llava.data.row_check import RowFacts
from llava.data.whole_file import hold_file, whole_file
from llava.errors import LlavaError, UsageError


def row(name: str, image: str | None = None) -> dict[str, object]:
    turns = [{"from": "human", "value": "<image>\nq" if image else "q"}, {"from": "gpt", "value": "a"}]
    values: dict[str, object] = {"id": name, "conversations": turns}
    return {**values, "image": image} if image else values


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("x.json").write_text(json.dumps([row("a"), row("b")]))
    return tmp_path


def mix(text: str) -> Path:
    Path("m.yaml").write_text(text)
    return Path("m.yaml")


@pytest.mark.parametrize(
    "words",
    [
        ["x.json", "--bad", "x.json"],
        ["x.json", "--bad", "link.json"],
        ["x.json.part", "--bad", "x.json"],
        ["x.json", "--bad", "notes.txt"],
        ["x.json", "--fix", "notes.json"],
        ["x.json", "--fix", "y.json", "--bad", "y.json"],
    ],
)
def test_a_check_replaces_no_file_that_it_has_not_written(folder: Path, words: list[str]) -> None:
    Path("link.json").symlink_to("x.json")
    for name in ("notes.txt", "notes.json", "x.json.part"):
        Path(name).write_text("[1]")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert main(["data", "check", *words, "--workers", "1"]) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_an_empty_file_is_no_clean_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.json").write_text("[]")
    assert main(["data", "check", "empty.json", "--workers", "1"]) == 2
    assert "There is no row in empty.json" in capsys.readouterr().err
    assert not list(Path().glob("*.part"))


def test_a_file_that_changes_while_it_is_checked_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = RowFacts.to_list

    def change(facts: RowFacts) -> list[object]:
        Path("x.json").write_text(json.dumps([row("c"), row("d"), row("e")]))
        return find(facts)

    monkeypatch.setattr(RowFacts, "to_list", change)
    with pytest.raises(UsageError, match=r"x\.json' was changed while it was checked"):
        check_files(["x.json"], Path(), Path("x.part"))
    assert not Path("x.part").exists()


def test_a_clean_copy_of_a_file_that_has_changed_is_refused(folder: Path) -> None:
    facts = check_files(["x.json"], Path(), Path("x.part"))
    Path("x.json").write_text(json.dumps([row("c")]))
    with pytest.raises(UsageError, match="changed while they were checked"):
        write_clean_copy(["x.json"], facts, Path("fix.json"))
    assert not Path("fix.json").exists()


def test_two_commands_do_not_write_one_file(folder: Path) -> None:
    with whole_file(Path("out.json")) as unfinished:
        unfinished.write_text("first")
        with pytest.raises(UsageError, match=r"Another command is writing 'out\.json'"), whole_file(Path("out.json")):
            pass
    assert Path("out.json").read_text() == "first"
    with pytest.raises(UsageError, match="exists already"), whole_file(Path("out.json"), is_new=True):
        pass
    assert Path("out.json").read_text() == "first"


def test_what_a_killed_command_left_is_written_over(folder: Path) -> None:
    Path(".out.json.partial").write_text("a long beginning")
    with whole_file(Path("out.json")) as unfinished:
        assert unfinished.read_text() == ""
        unfinished.write_text("new")
    assert [path.name for path in folder.glob("*out.json*")] == ["out.json"]


def test_a_failed_write_leaves_nothing(folder: Path) -> None:
    with pytest.raises(LlavaError, match="cannot be written"), whole_file(Path("out.json")):
        raise OSError(28, "No space left on device")
    assert not list(folder.glob("*out.json*"))


def test_two_checks_do_not_share_a_journal(folder: Path) -> None:
    with Path("x.part").open("wb") as file:
        hold_file(file, Path("x.part"))
        with pytest.raises(UsageError, match=r"Another command is writing 'x\.part'"):
            check_files(["x.json"], Path(), Path("x.part"))


def test_shards_of_two_formats_do_not_share_a_folder(folder: Path) -> None:
    mixture = open_mixture(mix("sources: {a: {data: x.json}}"))
    write_shards(mixture, Path("out"), "webdataset", Path())
    with pytest.raises(UsageError, match="other format"):
        write_shards(mixture, Path("out"), "parquet", Path())


def test_rows_that_were_left_out_count_when_the_command_goes_on(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save("good.png")
    Path("x.json").write_text(json.dumps([row(str(n), "none.png" if n in (0, 1) else "good.png") for n in range(4)]))
    mixture = open_mixture(mix("failures: 1\nsources: {a: {data: x.json}}"))
    for _ in range(2):  # the second time, the first shards are there
        with pytest.raises(UsageError, match="2 rows of the mixture 'm' failed"):
            write_shards(mixture, Path("out"), "webdataset", Path(), shard_rows=1)
    Image.new("RGB", (8, 8)).save("none.png")
    done = write_shards(mixture, Path("out"), "webdataset", Path(), shard_rows=1)
    assert len(done.files) == 4
    assert len(done.failed) == 1


def test_jobs_that_start_at_once_keep_the_first_description(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = open_mixture(mix("sources: {a: {data: x.json}}"))
    link = os.link

    def be_late(source: str, target: Path) -> None:
        if not target.exists():
            target.write_text("{}")  # by another job, of another mixture, after this one had looked
        link(source, target)

    monkeypatch.setattr(os, "link", be_late)
    with pytest.raises(UsageError, match="holds shards of another mixture"):
        write_shards(mixture, Path("out"), "webdataset", Path())
    assert [path.name for path in Path("out").iterdir()] == ["mixture.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plot", "p.xyz"], "--plot is 'p.xyz'; it has to end with"),
        (["--out", "x.json"], "'x.json' exists"),
        (["--out", "m.yaml"], "'m.yaml' is a file"),
    ],
)
def test_a_wrong_output_is_refused_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["data", "mix", str(mix("sources: {a: {data: x.json}}")), *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_brackets_and_dollars_in_names_are_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mix('about: "[/about]"\nsources: {"[bold]$\\\\x$": {data: x.json}}'.replace("\\\\", "/"))
    assert main(["data", "mix", str(path), "--plot", "p.png"]) == 0
    out = capsys.readouterr().out
    assert "[/about]" in out
    assert "[bold]$/x$" in out
    assert Path("p.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: {a: {data: m.yaml}}", "contains itself"),
        ("root: ~no-such-user-here/x\nsources: {a: {data: x.json}}", "no such user"),
        ("name: [1]\nsources: {a: {data: x.json}}", r"name is \[1\]; it has to be text"),
        ("sources: {a: {data: x.json, images: [b]}}", r"images is \['b'\]; it has to be text"),
        ("sources: {a: {data: x.json, take: 200%}}", "no more than 100%"),
    ],
)
def test_a_wrong_mixture_says_what_is_wrong(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_mixture(mix(text))


def test_a_weight_may_be_written_as_a_power(folder: Path) -> None:
    assert len(open_mixture(mix("sources: {a: {data: x.json, weight: 5e-1}}"))) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo("p.jsonl")
    with pytest.raises(UsageError, match=r"p\.jsonl' is a pipe"):
        read_records("p.jsonl")


def test_datasets_still_loads_shards_that_were_read_here(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write_shards(open_mixture(mix("sources: {a: {data: x.json}}")), Path("out"), "parquet", Path())
    assert len(read_records("out")) == 2
    names = datasets.data_files.DataFilesDict.from_patterns(
        datasets.data_files.get_data_patterns(str(folder / "out")), base_path=str(folder / "out")
    )
    assert [Path(name).name for name in names["train"]] == ["train-00000-of-00001.parquet"]
