"""The cache of a frozen tower's features: the same loss, whatever happens to the files and the processes."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from llava.errors import Notice
from llava.train.speed.tower_cache import TowerCache, can_cache
from tests.tiny import SIDE, TILE_PX, TOWER, make_lesson, make_model, make_pixels

NUM_TILES = 12  # of the lesson
ENTRY_BYTES = SIDE * SIDE * TOWER["hidden_size"] * 4 + 256


def make_cache(folder: Path, limit_bytes: int = 10**9) -> TowerCache:
    return TowerCache(folder / "features", limit_bytes)


def list_entries(folder: Path) -> list[Path]:
    return sorted((folder / "features").glob("*/*/*.safetensors"))


def teach(model: Any, cache: TowerCache | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the projector's gradient."""
    model.tower_cache = cache
    model.zero_grad()
    loss = model(**make_lesson()).loss
    loss.backward()
    return loss.detach(), model.model.mm_projector[0].weight.grad.clone()


@pytest.fixture
def model() -> Any:
    return make_model().train()


def test_loss_and_gradients_are_identical_and_nothing_is_encoded_twice(model: Any, tmp_path: Path) -> None:
    plain = teach(model, None)
    cache = make_cache(tmp_path)
    for encoded, found in ((NUM_TILES, 0), (NUM_TILES, NUM_TILES)):
        cached = teach(model, cache)
        assert torch.equal(cached[0], plain[0])
        assert torch.equal(cached[1], plain[1])
        assert (cache.num_encoded, cache.num_found) == (encoded, found)
    again = make_cache(tmp_path)
    assert torch.equal(teach(model, again)[0], plain[0])
    assert (again.num_encoded, again.num_found) == (0, NUM_TILES)


def test_a_batch_of_old_and_new_tiles_keeps_its_order(model: Any, tmp_path: Path) -> None:
    tower, cache = model.get_vision_tower(), make_cache(tmp_path)
    tiles = torch.cat(make_pixels(5))
    cache.encode(tower, tiles[1:4:2])
    torch.testing.assert_close(cache.encode(tower, tiles), tower(tiles))
    assert cache.num_found == 2


def test_other_weights_layers_and_dtypes_have_other_features(model: Any, tmp_path: Path) -> None:
    tower, cache, tiles = model.get_vision_tower(), make_cache(tmp_path), torch.cat(make_pixels(2))

    def is_found() -> bool:
        before = cache.num_found
        torch.testing.assert_close(cache.encode(tower, tiles), tower(tiles))
        return cache.num_found > before

    assert [is_found(), is_found()] == [False, True]
    with torch.no_grad():
        next(tower.parameters()).add_(0.1)
    assert [is_found(), is_found()] == [False, True]
    with torch.no_grad():
        next(tower.parameters()).data = next(tower.parameters()).data * 2
    assert [is_found(), is_found()] == [False, True]
    tower.select_layer = -3
    assert [is_found(), is_found()] == [False, True]
    tower.select_feature = "cls_patch"
    assert [is_found(), is_found()] == [False, True]
    with torch.autocast("cpu", torch.bfloat16):
        assert [is_found(), is_found()] == [False, True]
    tower.to(torch.bfloat16)
    assert [is_found(), is_found()] == [False, True]


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "header", "folder"])
def test_a_damaged_entry_is_encoded_again(model: Any, tmp_path: Path, damage: str) -> None:
    plain = teach(model, make_cache(tmp_path))
    entry = list_entries(tmp_path)[3]
    content = bytearray(entry.read_bytes())
    entry.unlink()
    if damage == "folder":
        entry.mkdir()
    else:
        content[-5 if damage == "flipped" else 3] ^= 0x40
        entry.write_bytes({"truncated": content[:-8], "empty": b""}.get(damage, bytes(content)))
    cache = make_cache(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # a folder cannot be replaced by a file
        assert torch.equal(teach(model, cache)[0], plain[0])
    assert (cache.num_encoded, cache.num_found) == (1, NUM_TILES - 1)
    if damage != "folder":
        mended = make_cache(tmp_path)
        teach(model, mended)
        assert mended.num_encoded == 0


def test_the_limit_is_kept_and_said_and_freed_bytes_are_used(model: Any, tmp_path: Path) -> None:
    plain = teach(model, None)
    cache = make_cache(tmp_path, limit_bytes=5 * ENTRY_BYTES)
    with pytest.warns(Notice, match="gets no more entries: it has .* bytes, its limit"):
        assert torch.equal(teach(model, cache)[0], plain[0])
    assert len(list_entries(tmp_path)) == 5
    assert sum(path.stat().st_size for path in list_entries(tmp_path)) <= 5 * ENTRY_BYTES
    assert torch.equal(teach(model, cache)[0], plain[0]), "and it is said once"
    for path in list_entries(tmp_path)[:2]:
        path.unlink()
    with pytest.warns(Notice, match="its limit"):
        teach(model, make_cache(tmp_path, limit_bytes=5 * ENTRY_BYTES))
    assert len(list_entries(tmp_path)) == 5


def test_a_disk_that_is_full_stops_the_cache_and_not_the_training(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(_tensors: Any, path: Path, _metadata: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    plain = teach(model, None)
    monkeypatch.setattr("llava.train.speed.tower_cache.save_file", fill)
    with pytest.warns(Notice, match="No space left"):
        assert torch.equal(teach(model, make_cache(tmp_path))[0], plain[0])
    assert not list((tmp_path / "features/unfinished").iterdir())


def test_what_a_killed_process_left_is_removed_later_and_never_read(model: Any, tmp_path: Path) -> None:
    make_cache(tmp_path)
    old, new = (tmp_path / "features/unfinished" / name for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 7200))
    (tmp_path / "features/bytes.txt").write_text("12x")
    teach(model, make_cache(tmp_path))
    assert not old.exists()
    assert new.exists(), "a process may be writing it"
    assert len(list_entries(tmp_path)) == NUM_TILES


class EncodedTiles(Dataset[int]):
    """Item n encodes four tiles of seed n; with workers, in another process."""

    def __init__(self, tower: Any, cache: TowerCache) -> None:
        self.tower, self.cache = tower, cache

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        warnings.simplefilter("ignore", Notice)
        self.cache.encode(self.tower, torch.cat(make_pixels(4, seed=index // 2)))
        return os.getpid()


def test_several_processes_share_the_entries_and_the_limit(model: Any, tmp_path: Path) -> None:
    tower, cache = model.get_vision_tower(), make_cache(tmp_path, 6 * ENTRY_BYTES)
    processes = DataLoader(EncodedTiles(tower, cache), batch_size=1, num_workers=2, collate_fn=lambda items: items[0])
    assert len(set(processes)) == 2
    entries = list_entries(tmp_path)
    assert 4 <= len(entries) <= 6
    assert sum(path.stat().st_size for path in entries) <= 6 * ENTRY_BYTES
    assert not list((tmp_path / "features/unfinished").iterdir())
    again = make_cache(tmp_path, 6 * ENTRY_BYTES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        for seed in (0, 1):
            again.encode(tower, torch.cat(make_pixels(4, seed=seed)))
    assert again.num_found == len(entries)


def test_a_tower_that_learns_or_is_watched_is_called(model: Any, tmp_path: Path) -> None:
    tower, cache, tiles = model.get_vision_tower(), make_cache(tmp_path), torch.cat(make_pixels(2))
    hook = tower.vision_tower.vision_model.encoder.layers[0].register_forward_hook(lambda *_: None)
    assert not can_cache(tower)
    hook.remove()
    assert can_cache(tower)
    tower.config.attention_dropout = 0.1
    assert not can_cache(tower.train())
    tower.config.attention_dropout = 0.0
    tower.requires_grad_(True)
    assert not can_cache(tower)
    with pytest.warns(Notice, match="is not used"):
        assert cache.encode(tower, tiles).requires_grad
    teach(model, cache)
    assert next(tower.parameters()).grad is not None
    assert not list_entries(tmp_path)


def test_features_have_a_graph_only_where_something_is_trained(model: Any) -> None:
    tower = model.get_vision_tower()
    tiles = torch.cat(make_pixels(2))
    seen: list[bool] = []
    model.model.mm_projector.register_forward_hook(lambda _module, inputs, _: seen.append(inputs[0].requires_grad))

    def has_graph(pixels_TCHW: torch.Tensor = tiles) -> bool:
        model.encode_images(pixels_TCHW)
        return seen[-1]

    model.enable_input_require_grads()
    tower.vision_tower.enable_input_require_grads()  # what Transformers' gradient checkpointing does
    assert not has_graph()
    assert has_graph(tiles.clone().requires_grad_(True))
    prompt = torch.zeros(TOWER["hidden_size"], requires_grad=True)
    hook = tower.vision_tower.vision_model.encoder.layers[0].register_forward_pre_hook(
        lambda _, inputs: (inputs[0] + prompt, *inputs[1:])
    )
    assert has_graph(), "a prompt that a hook adds is trained"
    hook.remove()
    assert not has_graph()
    tower.requires_grad_(True)
    assert has_graph()


def test_what_the_features_will_take_is_said_before(model: Any, tmp_path: Path) -> None:
    tower = model.get_vision_tower()
    cache = make_cache(tmp_path, limit_bytes=100 * ENTRY_BYTES)
    assert "50 tiles take 115 KB" in cache.describe(tower, 50, torch.float32)
    assert "which has room for 230 KB." in cache.describe(tower, 50, torch.float32)
    assert ": 50% of them are kept" in cache.describe(tower, 200, torch.float32)
    teach(model, make_cache(tmp_path))
    assert sum(path.stat().st_size for path in list_entries(tmp_path)) <= cache.estimate_bytes(
        tower, NUM_TILES, torch.float32
    )
    assert tower.tile_px == TILE_PX
