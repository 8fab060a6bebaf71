"""Mixtures: what they take of their sources, in which order, and how they are written for others."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from llava.cli import main
from llava.data.mixture import Mixture, open_mixture
from llava.data.mixture_file import list_shipped, read_mixture
from llava.data.mixture_writer import write_shards
from llava.data.readers import read_records
from llava.data.records import StoredImage
from llava.errors import LlavaError, UsageError

ROOT = Path(__file__).resolve().parents[2]


def row(id: str, image: str | None = None) -> dict[str, Any]:
    question = "Is it? Ünïcode 🚌" if image is None else "<image>\nWhat is it?"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f"Answer {id}"}]
    return {"id": id, **({} if image is None else {"image": image}), "conversations": turns}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sources: 20 rows with images, and 7 texts as JSON lines."""
    (tmp_path / "photos").mkdir()
    for i in range(20):
        Image.new("RGB", (8 + i, 6), (i, 9, 90)).save(tmp_path / f"photos/{i}.png")
    shown = [row(f"s{i}", f"{i}.png") for i in range(20)]
    (tmp_path / "shown.json").write_text(json.dumps(shown), encoding="utf-8")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row(f"t{i}")) + "\n" for i in range(7)), encoding="utf-8")
    return tmp_path


def write(folder: Path, name: str = "mix.yaml", **values: Any) -> Path:
    sources = {"shown": {"data": "shown.json", "images": "photos"}, "texts": {"data": "texts.jsonl"}}
    path = folder / name
    path.write_text(yaml.safe_dump({"sources": sources, **values}, sort_keys=False), encoding="utf-8")
    return path


def list_ids(mixture: Mixture) -> list[str]:
    return [mixture.record(i).id for i in range(len(mixture))]


def test_rows_come_from_all_sources_with_their_names_folders_and_prompts(folder: Path) -> None:
    sources = {
        "shown": {"data": "shown.json", "images": "photos", "prompt": "vqav2"},
        "texts": {"data": "texts.jsonl", "prompt": "Be brief."},
    }
    mixture = open_mixture(write(folder, sources=sources))
    assert len(mixture) == 27
    first, last = mixture.record(0), mixture.record(26)
    assert (first.source, first.images) == ("shown", ("photos/0.png",))
    assert first.turns[0][1] == "<image>\nWhat is it?\nAnswer the question using a single word or phrase."
    assert (last.source, last.images, last.turns[0][1]) == ("texts", (), "Is it? Ünïcode 🚌\nBe brief.")
    assert list_ids(pickle.loads(pickle.dumps(mixture))) == list_ids(mixture)
    assert mixture.sizes().num_images.tolist() == [1] * 20 + [0] * 7
    assert read_records(folder / "mix.yaml").digest() == mixture.digest()


@pytest.mark.parametrize(
    ("take", "ids"),
    [
        ("first:3", [0, 1, 2]),
        ("end:2", [18, 19]),
        ("first:12%", [0, 1, 2]),  # 2.4 is rounded up, as in LLaVA-NeXT
        ("random:4", random.Random("5:shown").sample(range(20), 20)[:4]),
        ("11%", random.Random("5:shown").sample(range(20), 20)[:3]),
        ("first:99", list(range(20))),
    ],
)
def test_a_source_takes_what_its_strategy_says(folder: Path, take: str, ids: list[int]) -> None:
    mixture = open_mixture(write(folder, seed=5, sources={"shown": {"data": "shown.json", "take": take}}))
    assert list_ids(mixture) == [f"s{i}" for i in ids]


@pytest.mark.parametrize(("weight", "num"), [(1, 20), (2, 40), (1.5, 30), (0.25, 5), (3.1, 62)])
def test_a_weight_is_how_often_each_row_occurs(folder: Path, weight: float, num: int) -> None:
    counts = Counter(list_ids(open_mixture(write(folder, sources={"a": {"data": "shown.json", "weight": weight}}))))
    assert sum(counts.values()) == num
    assert set(counts.values()) <= {int(weight), int(weight) + 1}
    assert all(count > 0 for count in counts.values())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_stream_is_disjoint_over_ranks_and_goes_on_at_the_exact_sample(folder: Path, world_size: int) -> None:
    mixture = open_mixture(write(folder))
    whole: list[tuple[int, str]] = []
    for rank in range(world_size):
        said = [(place, record.id) for place, record in mixture.stream(rank, world_size, epoch=1)]
        for stop in range(len(said)):
            rest = mixture.stream(rank, world_size, start=said[stop][0] + 1, epoch=1)
            assert [(place, record.id) for place, record in rest] == said[stop + 1 :]
        whole += said
    assert sorted(place for place, _ in whole) == list(range(27))
    assert Counter(id for _, id in whole) == Counter(list_ids(mixture))
    other = [record.id for _, record in mixture.stream(epoch=2)]
    assert [id for _, id in sorted(whole)] != other


def test_failures_are_named_and_stop_a_stream_above_their_budget(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixture = open_mixture(write(folder, failures="4%"))
    assert mixture.num_failures == 1
    record = mixture.record
    broken = {3}
    monkey = lambda index: record(index) if index not in broken else record(10**9)  # noqa: E731

    def fail(index: int) -> Any:
        try:
            return monkey(index)
        except IndexError as error:
            raise UsageError(f"Row {index} is broken.") from error

    mixture.record = fail  # type: ignore[method-assign]
    assert len(list(mixture.stream())) == 26
    assert "Row 3 is broken. It is left out." in capsys.readouterr().err
    broken.add(4)
    with pytest.raises(UsageError, match=r"2 rows of the mixture 'mix' failed, and its 'failures' allow 1:(.|\n)*Row "):
        list(mixture.stream())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sorces": {}}, r"unknown key 'sorces'\. .*sources"),
        ({"sources": {"a": {"data": "x.json", "wieght": 1}}}, r"source 'a' has the unknown key 'wieght'\. .*weight"),
        ({"sources": {"a": "x.json"}}, r"source 'a' is 'x.json'; it needs keys"),
        ({"sources": {"a": {}}}, r"data is None"),
        ({"sources": ["x.json"]}, r"needs 'sources'"),
        ({"sources": {}}, r"no source that takes part"),
        ({"sources": {"a": {"data": "x.json", "weight": 0}}}, r"weight is 0; it has to be above 0"),
        ({"sources": {"a": {"data": "x.json", "weight": True}}}, r"weight is True"),
        ({"sources": {"a": {"data": "x.json", "weight": float("nan")}}}, r"weight is nan"),
        ({"sources": {"a": {"data": "x.json", "take": "frist:3"}}}, r"there is no take 'frist'\. .*first"),
        ({"sources": {"a": {"data": "x.json", "take": "first:0"}}}, r"takes no sample"),
        ({"sources": {"a": {"data": "x.json", "images": "../up"}}}, r"images is '\.\./up'"),
        ({"sources": {"a": {"data": "x.json", "optional": "yes"}}}, r"optional is 'yes'"),
        ({"seed": "a"}, r"seed is 'a'"),
        ({"failures": "-1"}, r"failures is '-1'"),
        ({"failures": "200%"}, r"failures is '200%'"),
        ({"with": ["texts"]}, r"no optional source 'texts'"),
        ({"extends": "nxt"}, r"extends 'nxt'\. .*next"),
        ({"extends": "mix.yaml"}, r"extends itself"),
    ],
)
def test_a_wrong_mixture_is_one_sentence(folder: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_mixture(write(folder, **values))


def test_all_missing_files_are_named_at_once_with_what_makes_them(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_mixture(ROOT / "llava/data/mixtures/next.yaml", folder)
    text = str(caught.value)
    assert "lacks 18 of its files" in text
    assert f"docvqa: '{folder}/docvqa.json', from `llava data convert docvqa SRC DST`; SRC is from https://" in text
    assert "textcaps" not in text


def test_the_published_mixtures_have_their_published_numbers_and_left_out_sources() -> None:
    assert {"558k", "665k", "next"} <= {*list_shipped()}
    files = {name: read_mixture(ROOT / f"llava/data/mixtures/{name}.yaml") for name in list_shipped()}
    assert sum(each.num_published or 0 for each in files["558k"].sources) == 558_128
    assert sum(each.num_published or 0 for each in files["665k"].sources) == 665_298
    names = [each.name for each in files["next"].sources]
    assert {"docvqa", "synthdog-en", "chartqa", "dvqa", "ai2d", "laion-gpt4v", "sharegpt4v"} <= {*names}
    assert [each.name for each in files["next"].left_out] == ["textcaps", "user-requests"]
    wanted = read_mixture(ROOT / "llava/data/mixtures/next.yaml", None, ["user-requests"])
    assert "user-requests" in [each.name for each in wanted.sources]


def test_a_file_may_extend_another_and_change_single_keys(folder: Path) -> None:
    base = {"shown": {"data": "shown.json"}, "more": {"data": "x", "optional": True}}
    write(folder, "base.yaml", seed=3, sources=base)
    sources = {"shown": {"take": "first:2"}, "more": {"data": "texts.jsonl"}}
    mixture = open_mixture(write(folder, extends="base.yaml", sources=sources, **{"with": "more"}))
    assert [(each.name, each.num_samples) for each in mixture.list_sizes()] == [("shown", 2), ("more", 7)]
    assert mixture.file.seed == 3


def run_mix(*words: str) -> int:
    return main(["data", "mix", *words])


def test_the_command_prints_a_table_and_draws_a_plot(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, plot = write(folder, about="Two sources."), folder / "mix.png"
    assert run_mix(str(path), "--images", str(folder), "--plot", str(plot), "--model", "embedded") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "mix: Two sources." in lines[0]
    (shown,) = (line.split() for line in lines if "shown" in line)
    assert shown[1::2][:3] == ["shown", "20", "74.1%"]
    assert int(shown[-2].replace(",", "")) == 20
    with Image.open(plot) as image:
        assert image.width > 900


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_shards_hold_every_row_and_its_image_and_others_read_them(folder: Path, format: str) -> None:
    path, out = write(folder), folder / "out"
    for part in ("2/2", "1/2"):
        words = ["--out", str(out), "--format", format, "--shard-rows", "5", "--shard", part]
        assert run_mix(str(path), "--images", str(folder), *words) == 0
    rows = read_records(out if format == "parquet" else f"{out}/*.tar")
    records = [rows.record(i) for i in range(len(rows))]
    assert Counter(each.id for each in records) == Counter(list_ids(open_mixture(path)))
    assert [each.id for each in records] != list_ids(open_mixture(path))
    for record in records:
        assert record.source == ("shown" if record.id[0] == "s" else "texts")
        for image in record.images:
            assert isinstance(image, StoredImage)
            assert image.read() == (folder / f"photos/{record.id[1:]}.png").read_bytes()
        assert len(record.images) == (record.id[0] == "s")
    if format == "parquet":
        datasets = pytest.importorskip("datasets")
        loaded = datasets.load_dataset("parquet", data_files=f"{out}/*.parquet", split="train", cache_dir=folder / "hf")
        assert sorted(loaded["id"]) == sorted(each.id for each in records)


@pytest.mark.parametrize("name", ["all.json", "all.jsonl"])
def test_one_file_has_the_rows_in_the_order_of_the_sources(folder: Path, name: str) -> None:
    path = write(folder)
    assert run_mix(str(path), "--out", str(folder / name)) == 0
    rows = read_records(folder / name)
    assert [rows.record(i) for i in range(27)] == [
        _with_place(open_mixture(path).record(i), rows.record(i)) for i in range(27)
    ]
    assert run_mix(str(path), "--out", str(folder / name)) == 2  # it exists
    assert run_mix(str(path), "--out", str(folder / f"part-{name}"), "--shard", "1/2") == 2  # each job would write all


def _with_place(record: Any, other: Any) -> Any:
    import dataclasses

    return dataclasses.replace(record, place=other.place)


KILLED = """
import os, signal, sys
from llava.cli import main

replace = os.replace
written = []

def die(source, target):
    if os.path.basename(target).startswith("train-"):
        written.append(target)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = die
sys.exit(main(sys.argv[1:]))
"""


def test_a_command_that_is_killed_goes_on_and_writes_nothing_twice(folder: Path) -> None:
    path, out = write(folder), folder / "out"
    words = ["data", "mix", str(path), "--images", str(folder), "--out", str(out), "--shard-rows", "5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, *words], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    before = {each.name: each.stat().st_mtime_ns for each in out.glob("train-*")}
    assert len(before) == 2
    assert main(words) == 0
    assert all((out / name).stat().st_mtime_ns == when for name, when in before.items())
    rows = read_records(out)
    assert Counter(rows.record(i).id for i in range(len(rows))) == Counter(list_ids(open_mixture(path)))


def test_shards_of_another_mixture_are_not_mixed_in(folder: Path) -> None:
    out = folder / "out"
    write_shards(open_mixture(write(folder)), out, "webdataset", folder, shard_rows=9)
    other = open_mixture(write(folder, sources={"shown": {"data": "shown.json", "images": "photos"}}))
    with pytest.raises(UsageError, match=r"shards of another mixture \(other digest, rows\)"):
        write_shards(other, out, "webdataset", folder, shard_rows=9)


def test_an_image_that_cannot_be_read_is_within_the_failures_or_stops(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "photos/3.png").write_bytes(b"<html>404</html>")
    with pytest.raises(UsageError, match=r"1 rows of the mixture 'mix' failed, and its 'failures' allow 0\."):
        write_shards(open_mixture(write(folder)), folder / "a", "parquet", folder)
    done = write_shards(open_mixture(write(folder, failures=1)), folder / "b", "parquet", folder)
    assert (done.num_rows, len(done.failed)) == (26, 1)
    assert "3.png' is not an image in a supported format. The row is left out." in capsys.readouterr().err


def test_a_full_disk_is_one_sentence_and_leaves_no_shard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava.data import mixture_writer

    def fill(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mixture_writer, "_pack_tar", fill)
    with pytest.raises(LlavaError, match=r"cannot be written: No space left on device"):
        write_shards(open_mixture(write(folder)), folder / "out", "webdataset", folder)
    assert [each.name for each in (folder / "out").iterdir()] == ["mixture.json"]
