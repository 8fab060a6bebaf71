"""Names become folders: embedded, local, short, or in the hub's cache; no test reaches the network."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from llava.errors import CheckpointError
from llava.model.checkpoint import load_model
from llava.model.sources import DEFAULT_MODEL, SHORT_NAMES, find_checkpoint, find_tower
from tests.tiny_checkpoints import write_llava_1_5, write_llava_1_6

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def make_snapshot(cache: Path, repo_id: str) -> Path:
    """The folder of one revision, laid out as the hub's client lays it out."""
    repo = cache / f"models--{repo_id.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(REVISION)
    folder = repo / "snapshots" / REVISION
    folder.mkdir(parents=True)
    return folder


def test_the_short_names_are_the_last_parts_of_hub_ids() -> None:
    assert SHORT_NAMES["llava-v1.5-7b"] == "liuhaotian/llava-v1.5-7b"
    assert SHORT_NAMES["llava-v1.6-vicuna-7b"] == "liuhaotian/llava-v1.6-vicuna-7b"
    assert SHORT_NAMES["llava-v1.6-34b"] == "liuhaotian/llava-v1.6-34b"
    assert SHORT_NAMES["llama3-llava-next-8b"] == "lmms-lab/llama3-llava-next-8b"
    assert SHORT_NAMES["llava-1.5-7b-hf"] == "llava-hf/llava-1.5-7b-hf"
    assert all(repo_id.endswith("/" + name) for name, repo_id in SHORT_NAMES.items())


def test_a_short_name_and_its_hub_id_are_found_in_the_cache(cache: Path) -> None:
    folder = make_snapshot(cache, "liuhaotian/llava-v1.5-7b")
    assert find_checkpoint("llava-v1.5-7b") == folder
    assert find_checkpoint("liuhaotian/llava-v1.5-7b") == folder


def test_a_revision_can_be_named(cache: Path) -> None:
    main = make_snapshot(cache, "liuhaotian/llava-v1.5-7b")
    repo, other = main.parent.parent, "f" * 40
    (repo / "refs/refs/pr").mkdir(parents=True)
    (repo / "refs/refs/pr/3").write_text(other)
    (repo / "snapshots" / other).mkdir()
    assert find_checkpoint("llava-v1.5-7b@refs/pr/3") == repo / "snapshots" / other
    assert find_checkpoint(f"liuhaotian/llava-v1.5-7b@{REVISION}") == main
    with pytest.raises(
        CheckpointError, match=r"'liuhaotian/llava-v1\.5-7b@v9' is not, or not completely, in the hub's cache"
    ):
        find_checkpoint("llava-v1.5-7b@v9")


def test_a_local_folder_wins_over_the_short_name(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_snapshot(cache, "liuhaotian/llava-v1.5-7b")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llava-v1.5-7b").mkdir()
    assert find_checkpoint("llava-v1.5-7b") == Path("llava-v1.5-7b")


def test_a_1_5_in_the_cache_finds_its_tower_in_the_cache(cache: Path, tmp_path: Path) -> None:
    folder = make_snapshot(cache, "liuhaotian/llava-v1.5-7b")
    tower = make_snapshot(cache, "openai/clip-vit-large-patch14-336")
    tensors = write_llava_1_5(folder, tower, tower_name="openai/clip-vit-large-patch14-336")
    loaded = load_model("llava-v1.5-7b", device="cpu")
    assert loaded.model.state_dict().keys() == tensors.keys()
    assert loaded.spec.tiling.tile_px == 28
    assert loaded.template == "llava_v1"


def test_offline_without_a_copy_says_so_and_what_to_do(cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("liuhaotian/llava-v1.5-7b")
    assert "HF_HUB_OFFLINE is set" in str(caught.value)
    assert str(cache) in str(caught.value)


def test_a_tower_that_cannot_be_had_names_the_checkpoint_that_needs_it(cache: Path, tmp_path: Path) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip", tower_name="openai/clip-vit-large-patch14-336")
    with pytest.raises(CheckpointError, match="needs the vision tower 'openai/clip-vit-large-patch14-336'") as caught:
        load_model(tmp_path / "llava", device="cpu")
    assert str(tmp_path / "llava") in str(caught.value)
    assert "HF_HUB_OFFLINE" in str(caught.value)
    with pytest.raises(CheckpointError, match="is not a folder with a config"):
        find_tower("no tower", tmp_path)


def test_a_1_6_needs_no_tower_from_the_hub(cache: Path, tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "llava", mm_vision_tower="openai/clip-vit-large-patch14-336")
    assert load_model(tmp_path / "llava", device="cpu").spec.tower == "openai/clip-vit-large-patch14-336"
    assert not cache.exists()


@pytest.mark.parametrize("name", ["llava-v1.5-7", "lava-v1.5-7b", "LLaVA-v1.5-7b"])
def test_an_unknown_name_lists_the_known_ones_and_the_close_ones(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(name)
    assert "Did you mean" in str(caught.value)
    assert all(short in str(caught.value) for short in SHORT_NAMES)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/llava", "a/b/c", "../x", "a b/c"])
def test_a_path_that_leads_nowhere_is_not_sought_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # beside other folders, "../x" may lead somewhere
    monkeypatch.setattr("llava.model.sources.fetch", lambda repo_id: pytest.fail(f"asked the hub for {repo_id}"))
    with pytest.raises(CheckpointError, match="There is no folder"):
        find_checkpoint(name)


@pytest.mark.parametrize("name", ["/nowhere/llava.gguf", "models/llava.gguf", "x-00002-of-00002.GGUF"])
def test_a_gguf_file_that_is_missing_is_said_to_be_and_not_sought_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("llava.model.sources.fetch", lambda repo_id: pytest.fail(f"asked the hub for {repo_id}"))
    with pytest.raises(CheckpointError, match=f"There is no file '{name}'"):
        find_checkpoint(name)


def test_a_file_of_a_checkpoint_stands_for_its_folder(next_folder: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert find_checkpoint(next_folder / name) == next_folder


def test_a_file_that_would_not_be_read_does_not_stand_for_its_folder(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"model\.safetensors comes first, as in Transformers"):
        find_checkpoint(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="Name the folder"):
        find_checkpoint(tmp_path / "notes.txt")


def test_bin_files_are_fetched_only_where_there_are_no_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def download(repo_id: str, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    find_checkpoint("org/name")
    assert ["pytorch_model*.bin" in patterns for patterns in asked] == [False, True]
    asked.clear()
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    find_checkpoint("org/name")
    assert ["pytorch_model*.bin" in patterns for patterns in asked] == [False]


def test_a_failed_download_tells_what_the_hub_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo_id: str, **options: object) -> str:
        raise OSError("disk quota exceeded")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CheckpointError, match=r"'org/name' cannot be downloaded: OSError: disk quota exceeded"):
        find_checkpoint("org/name")


def test_the_embedded_model_is_a_folder_of_the_package_or_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava.model.default_choice.resources.files", lambda package: tmp_path)
    with pytest.raises(CheckpointError, match="no embedded model"):
        find_checkpoint(DEFAULT_MODEL)
    (tmp_path / "default_model").mkdir()
    (tmp_path / "default_model/config.json").write_text("{}")
    assert find_checkpoint(DEFAULT_MODEL) == tmp_path / "default_model"
