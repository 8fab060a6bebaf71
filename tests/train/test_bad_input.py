"""What strangers get wrong, and what breaks: each is named before training where it can be, and in a dry run, too."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.cli import main
from llava.data.readers import read_records
from llava.errors import BadImage, BadSample, CheckpointError, UsageError
from llava.train import resumption, training_faults
from llava.train.dataset.samples import Fault, JsonSamples
from llava.train.output_check import check_output, make_output
from llava.train.recipe import load_recipe
from llava.train.recipe_file import read_recipe
from llava.train.run import run
from llava.train.trainer_arguments import make_arguments
from tests.tiny_starts import make_stage
from tests.train.test_samples import BROKEN, EXTRA, GOOD, make_data, turns, write_data
from tests.train.tiny_stage import write_recipe

# --- the data ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), steps=1, save_steps=1)


def say_twice(recipe: Path, folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a dry run and a run both say on stderr before they end with exit code 2."""
    said = []
    for more in (["--dry-run"], ["--output", str(folder / "out"), "--workers", "0"]):
        capsys.readouterr()
        assert main(["train", str(recipe), *words, *more]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert "Traceback" not in said[0]
    return said[0]


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"", "1.png is empty"), (b"<!DOCTYPE html><html>404</html>", "it is a web page"), (None, "damaged or cut off")],
)
def test_an_image_that_cannot_be_decoded_is_named_before_training_and_in_a_dry_run(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, fault: str
) -> None:
    images = shutil.copytree(recipe.parent / "data", tmp_path / "data")
    whole = (images / "1.png").read_bytes()
    (images / "1.png").write_bytes(whole[: len(whole) - 30] if content is None else content)
    said = say_twice(recipe, tmp_path, capsys, f"data.images={images}")
    assert f"Sample row 1 (row 1 of '{recipe.parent}/data/data.json'): 1.png" in said
    assert fault in said
    said = say_twice(recipe, tmp_path, capsys, f"data.images={images}", "too_long=skip")
    assert fault in said  # that is for long samples, not for broken ones


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.images=/nowhere",), "the image folder '/nowhere' does not exist. Name it with --images"),
        (("max_length=20",), "none of 10 samples has an answer within 20 positions"),
        (("too_long=error", "max_length=160"), "set too_long: cut, or skip"),
        (("schedule=cosine_with_min_lr",), "the schedule cosine_with_min_lr cannot be made"),
        (("schedule=warmup_stable_decay",), "'num_decay_steps'"),
        (("trainer.lr_scheduler_kwargs={a: 1}",), "unexpected keyword argument 'a'"),
        (("trainer.learning_rate=1",), "trainer.learning_rate is set by lr: change that"),
        (("trainer.output_dir=x",), "trainer.output_dir is set by --output"),
        (("trainer.dataloader_num_workers=-1",), "trainer.dataloader_num_workers is set by --workers"),
        (("report_to=[wandbb]",), "report_to cannot be 'wandbb'. Did you mean 'wandb'?"),
        (("report_to=wandb",), "Stage 'tiny': report_to must be a list, not text. Write [wandb]."),
        (("lr=nan",), "Stage 'tiny': lr is nan and must be a finite number"),
        (("--workers", "100000"), "The number of workers is 100000; it must be from 0"),
    ],
)
def test_a_mistake_is_named_alike_by_a_run_and_a_dry_run(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    if "--workers" in words:
        assert main(["train", str(recipe), "--output", str(tmp_path / "out"), *words]) == 2
        assert main(["train", str(recipe), "--dry-run", *words]) == 2
        assert capsys.readouterr().err.count(message) == 2
        return
    assert message in say_twice(recipe, tmp_path, capsys, *words)


def test_a_leading_answer_or_an_image_in_an_answer_is_no_fault_of_the_template(recipe: Path, tmp_path: Path) -> None:
    rows = json.loads((recipe.parent / "data/data.json").read_text())
    answer = {"from": "gpt", "value": "Hello."}
    said = {"from": "human", "value": "What?"}, {"from": "gpt", "value": "This: <image>"}
    for conversations in ([answer, *rows[0]["conversations"]], list(said)):
        rows[0]["conversations"] = conversations
        (tmp_path / "data.json").write_text(json.dumps(rows))
        assert main(["train", str(recipe), "--data", str(tmp_path / "data.json"), "--dry-run"]) == 0


def test_texts_alone_train_the_language_model_and_nothing_before_it(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in json.loads((recipe.parent / "data/data.json").read_text()) if "image" not in row]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    words = f"data={{json: {tmp_path}/data.json, images: /nowhere}}"
    assert main(["train", str(recipe), words, "--output", str(tmp_path / "out"), "--workers", "0"]) == 0
    said = say_twice(recipe, tmp_path / "other", capsys, words, "train=[projector, image_newline]")
    assert "trains projector, image_newline, which samples without an image do not reach" in said


@pytest.mark.parametrize("name", ["a\0b.png", "a\ud800.png", "a" * 5000, "loop.png", "", "."])
def test_a_name_that_no_image_can_have_is_a_missing_image(tmp_path: Path, name: str) -> None:
    write_data(tmp_path, GOOD)
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(BadImage, match=r"There is no image|cannot be opened") as caught:
        JsonSamples(tmp_path / "data.json", tmp_path).find_image(name)
    assert len(str(caught.value)) < 500


def test_links_in_the_image_folder_may_lead_anywhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (7, 7)).save(tmp_path / "elsewhere/x.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/coco").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/y.png").symlink_to(tmp_path / "elsewhere/x.png")
    write_data(tmp_path, GOOD)
    samples = JsonSamples(tmp_path / "data.json", tmp_path / "images")
    assert samples.find_image("coco/x.png").is_file()
    assert samples.find_image("y.png").is_file()
    with pytest.raises(BadImage, match="outside"):
        samples.find_image("../elsewhere/x.png")


def test_skipping_long_samples_skips_no_broken_ones_and_both_are_counted(tmp_path: Path) -> None:
    long = (None, turns("Q" * 5000, "A"))
    data = make_data(write_data(tmp_path, long, GOOD, BROKEN, EXTRA), skips_long=True, skip_limit=1)
    assert [data[i]["id"] for i in (0, 1)] == ["s1", "s1"]
    assert data.list_left_out(Fault.LONG) == ["s0"]
    assert [index for index, _ in data.find_damage(range(4))] == [2, 3]
    with pytest.raises(BadSample, match=r"Sample s3 \(row 3 of .* 1 others were left out already"):
        data[2]
    assert data.list_left_out(Fault.UNUSABLE) == ["s2"]


def test_samples_that_are_left_out_are_counted_and_named_at_the_end(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = shutil.copytree(recipe.parent / "data", tmp_path / "data")
    (images / "1.png").write_bytes(b"")
    words = [f"data.images={images}", "max_skipped=3", "batch_size=10", "--output", str(tmp_path / "out")]
    assert main(["train", str(recipe), *words, "--workers", "0"]) == 0
    assert "3 samples were left out, with images or turns that cannot be used: row 1, row 4, row 7." in (
        capsys.readouterr().err
    )


def test_rows_with_other_content_have_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    digests = []
    for text in ("A", "B", "A"):
        row = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": text}]}
        file.write_text(json.dumps([row]))
        digests.append(read_records(file).digest())
    assert digests[0] == digests[2] != digests[1]


# --- the output --------------------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_written_or_is_the_start_is_refused_before_anything_is_made(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("")
    link.symlink_to("nowhere")
    (tmp_path / "run/tiny").mkdir(parents=True)
    (tmp_path / "run/tiny/model").write_text("")
    for folder, message in (
        (file, "is a file"),
        (file / "below", "is a file"),
        (link, "a link that leads nowhere"),
        (tmp_path / "run", "tiny/model, which is a file"),
    ):
        with pytest.raises(UsageError, match=message):
            check_output(folder, ["tiny"], [])
        with pytest.raises(UsageError, match=message):
            run(read_recipe(recipe), folder, workers=0)
    check_output(tmp_path / "new/run", ["tiny"], [str(tmp_path), "a/hub"])
    assert not (tmp_path / "new").exists()
    for start in (tmp_path / "start/tiny", tmp_path / "start/tiny/model"):
        shutil.copytree(recipe.parent / "start", start, dirs_exist_ok=True)
        before = sorted(os.listdir(start))
        said = []
        for more in (["--dry-run"], []):
            words = ["--start", str(start), "--output", str(tmp_path / "start"), *more]
            assert main(["train", str(recipe), *words]) == 2
            said.append(capsys.readouterr().err)
        assert said[0] == said[1]
        assert "from which the training starts" in said[0]
        assert sorted(os.listdir(start)) == before
    assert main(["train", str(recipe), "--output", ""]) == 2


def test_a_folder_without_room_for_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UsageError, match=r"cannot be written into \(Read-only file system\)"):
        make_output(tmp_path / "run")


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at inline_container.cc:672] . unexpected pos 302464 vs 302352",
        "basic_ios::clear: iostream error",
        "PytorchStreamWriter failed writing file data/1: file write failed",
        "Error while serializing: I/O error: No space left on device (os error 28)",
    ],
)
def test_what_torch_and_safetensors_say_on_a_full_disk_is_known(tmp_path: Path, text: str) -> None:
    error = RuntimeError(text)
    assert training_faults.is_disk_full(error)
    said = str(training_faults.disk_full(error, tmp_path / "checkpoint-2"))
    assert "No space left on device" in said
    assert "?." not in said
    assert "enforce" not in said


# --- resuming ----------------------------------------------------------------------------------------------------


def write_checkpoint(folder: Path, settings: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "run_state.json").write_text(json.dumps({"settings": settings}))
    return folder


def test_every_setting_that_matters_is_told_when_it_has_changed_and_some_are_refused(tmp_path: Path) -> None:
    watched = make_arguments(make_stage(), tmp_path).watched
    folder = write_checkpoint(tmp_path / "checkpoint-2", watched)
    assert resumption.list_changes(folder, watched) == []
    for changes, name in (
        ({"max_length": 100}, "max_length"),
        ({"schedule": "linear"}, "schedule"),
        ({"packing": True}, "packing"),
        ({"held_out": 0.2}, "held_out"),
        ({"data": ("vicuna_v1",)}, "templates"),
        ({"weight_decay": 0.1}, "weight_decay"),
    ):
        now = make_arguments(make_stage(**changes), tmp_path).watched
        assert any(text.startswith(f"{name} was ") for text in resumption.list_changes(folder, now)), name
    for changes, name in (({"optimizer": "muon"}, "optimizer"), ({"train": ("projector",)}, "train")):
        now = make_arguments(make_stage(**changes), tmp_path).watched
        with pytest.raises(UsageError, match=f"{name} was .* with which that checkpoint cannot be continued"):
            resumption.list_changes(folder, now)


@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json"])
def test_a_file_of_a_checkpoint_that_is_cut_off_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"a": [1, 2' if name.endswith("json") else b"PK\x03\x04" + bytes(200))
    with pytest.raises(CheckpointError, match=rf"{name} is damaged .*Delete "):
        resumption.check_files(tmp_path, [name])


def test_a_finished_stage_says_with_which_settings_it_was_not_trained(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = load_recipe(recipe).stages[0]
    here = tmp_path / "tiny"
    write_checkpoint(here / "checkpoint-1", make_arguments(stage, here).watched)
    (here / "model").mkdir()
    (here / "model/config.json").write_text("{}")
    words = ["train", str(recipe), "--output", str(tmp_path)]
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    assert main([*words, "lr=0.5"]) == 0
    assert "Stage 'tiny' was trained with lr 0.01, not 0.5, and is not trained again" in capsys.readouterr().err
