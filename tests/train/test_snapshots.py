"""What a training leaves behind loads as it was trained, appears whole or not at all, and is where a run goes on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.cli import main
from llava.errors import CheckpointError, LlavaError, UsageError
from llava.model.checkpoint import load_model
from llava.model.conversion import convert
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.model.weights import read_bin
from llava.train.parts import choose_trainable, list_parts
from llava.train.recipe import JsonData, Lora, Recipe
from llava.train.run import run_stage
from llava.train.snapshots import check_snapshot, mend_generation, read_snapshot, save_result, write_snapshot
from llava.train.starting_model import build_start
from tests.tiny_checkpoints import write_llava_1_5, write_llava_1_6
from tests.tiny_starts import ANYRES, make_lesson, make_stage, make_tower, train_a_little, write_language_model

LORA = {"lora": Lora(rank=4, alpha=8, dropout=0.0)}
STAGE_1 = {"train": ("projector", "embed_tokens")}


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Language models, a tower and LLaVA checkpoints; not to be changed."""
    folder = tmp_path_factory.mktemp("starts")
    make_tower(folder / "tower")
    write_language_model(folder / "llama")
    write_language_model(folder / "tied", "qwen2", tie_word_embeddings=True)
    write_llava_1_5(folder / "llava-1.5", make_tower(folder / "tower-1.5"))
    write_llava_1_6(folder / "llava-1.6", mm_vision_tower=str(folder / "tower"))
    return folder


def build(starts: Path, which: str, vision: dict[str, Any] | None = None, **changes: Any) -> Any:
    towered = {} if which.startswith("llava") else {"mm_vision_tower": str(starts / "tower"), **ANYRES}
    stage = make_stage({**towered, **(vision or {})}, **changes)
    loaded = build_start(starts / which, stage)
    choose_trainable(loaded.model, list_parts(loaded.model), stage.train, "Stage 'tune'")
    return loaded


def run(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**make_lesson(model, seed=9)).logits
    return logits


MARKS = {"mm_use_im_start_end": True}
LORA_FILES = ("adapter_model.safetensors", "non_lora_trainables.bin")
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], set[str]]] = {
    "stage 1": ("llama", {}, {"train": ("projector",)}, {"mm_projector.bin"}),
    "stage 1, new tokens": ("llama", MARKS, STAGE_1, {"mm_projector.bin"}),
    "stage 1, new tokens, tied": ("tied", MARKS, STAGE_1, {"mm_projector.bin"}),
    "stage 1 of a checkpoint": ("llava-1.6", {}, {"train": ("projector", "image_newline")}, {"mm_projector.bin"}),
    "full": ("llama", {}, {}, {"model.safetensors"}),
    "full, tied": ("tied", {}, {}, {"model.safetensors"}),
    "full with the tower": ("llava-1.6", MARKS, {"train": ("vision_tower", "language_model")}, {"model.safetensors"}),
    "1.5": ("llava-1.5", {}, {}, {"model.safetensors"}),
    "only the newline": ("llava-1.6", {}, {"train": ("image_newline",)}, {"model.safetensors"}),
    "LoRA alone": ("llava-1.6", {}, {"train": ("language_model",), **LORA}, {*LORA_FILES}),
    "LoRA": ("llama", {}, LORA, {*LORA_FILES}),
}
WEIGHTS = {"mm_projector.bin", "model.safetensors", "adapter_model.safetensors", "non_lora_trainables.bin"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_loads_on_its_own_and_a_run_goes_on_from_it(starts: Path, tmp_path: Path, kind: str) -> None:
    start, vision, changes, files = KINDS[kind]
    loaded = build(starts, start, vision, **changes)
    began = run(loaded.model)
    train_a_little(loaded.model)
    trained = run(loaded.model)
    assert not torch.equal(trained, began)
    write_snapshot(loaded.model, loaded.tokenizer, tmp_path / "checkpoint-3")
    assert {path.name for path in (tmp_path / "checkpoint-3").iterdir()} & WEIGHTS == files
    alone = load_model(tmp_path / "checkpoint-3", device="cpu", dtype="float32")
    torch.testing.assert_close(run(alone.model), trained, rtol=0, atol=1e-5)
    assert alone.tokenizer("<im_start>").input_ids == loaded.tokenizer("<im_start>").input_ids
    resumed = build(starts, start, vision, **changes).model
    read_snapshot(resumed, tmp_path / "checkpoint-3")
    assert torch.equal(run(resumed), trained)
    tensors = resumed.state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensors[name], tensor), name


def test_stage_1_is_where_stage_2_starts_from_in_either_way(starts: Path, tmp_path: Path) -> None:
    first = build(starts, "llama", train=("projector",))
    train_a_little(first.model)
    save_result(first.model, first.tokenizer, tmp_path / "stage-1")
    as_start = build_start(tmp_path / "stage-1", make_stage())
    assert torch.equal(run(as_start.model), run(first.model))
    file = str(tmp_path / "stage-1/mm_projector.bin")
    as_file = build(starts, "llama", {"pretrain_mm_mlp_adapter": file}, seed=5)
    assert torch.equal(run(as_file.model), run(first.model)), "the newline is that of the file, not a new one"
    lora = build_start(tmp_path / "stage-1", make_stage(**LORA))
    train_a_little(lora.model)
    save_result(lora.model, lora.tokenizer, tmp_path / "lora")
    settings = json.loads((tmp_path / "lora/adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(starts / "llama")
    merged = load_model(tmp_path / "lora", device="cpu", dtype="float32").model
    torch.testing.assert_close(run(merged), run(lora.model), rtol=0, atol=1e-5)


def test_a_result_answers_on_the_command_line(
    starts: Path, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = build(starts, "llava-1.6", **LORA)
    save_result(loaded.model, loaded.tokenizer, tmp_path / "result")
    words = ["ask", str(photo), "What is in the image?", "--model", str(tmp_path / "result"), "--max-new-tokens", "3"]
    assert main(words) == 0
    assert capsys.readouterr().out


def test_a_tower_keeps_its_own_precision_and_the_rest_gets_the_one_asked_for(starts: Path, tmp_path: Path) -> None:
    loaded = build(starts, "llava-1.5")
    loaded.model.get_vision_tower().to(torch.float16)
    for dtype, others in ((None, torch.float32), (torch.bfloat16, torch.bfloat16)):
        save_result(loaded.model, loaded.tokenizer, tmp_path, dtype=dtype)
        tensors = load_file(tmp_path / "model.safetensors")
        modes = {(tmp_path / name).stat().st_mode for name in ("model.safetensors", "config.json")}
        assert len(modes) == 1, "who may read the configuration may read the weights"
        for name, tensor in tensors.items():
            assert tensor.dtype == (torch.float16 if "vision_tower" in name else others), name
        assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == str(others).removeprefix("torch.")


def test_a_result_never_replaces_its_own_base(starts: Path) -> None:
    loaded = build(starts, "llava-1.6", **LORA)
    before = {path.name for path in (starts / "llava-1.6").iterdir()}
    with pytest.raises(UsageError, match="from which the training starts"):
        save_result(loaded.model, loaded.tokenizer, starts / "llama/../llava-1.6")
    assert {path.name for path in (starts / "llava-1.6").iterdir()} == before


@pytest.mark.parametrize("kind", ["stage 1", "full", "LoRA"])
def test_a_checkpoint_in_llava_hfs_layout_may_be_the_base(starts: Path, tmp_path: Path, kind: str) -> None:
    convert(starts / "llava-1.6", tmp_path / "hf", "hf")
    stage = make_stage(**KINDS[kind][2])
    loaded = build_start(tmp_path / "hf", stage)
    choose_trainable(loaded.model, list_parts(loaded.model), stage.train, "Stage 'tune'")
    train_a_little(loaded.model)
    save_result(loaded.model, loaded.tokenizer, tmp_path / "result")
    alone = load_model(tmp_path / "result", device="cpu", dtype="float32")
    torch.testing.assert_close(run(alone.model), run(loaded.model), rtol=0, atol=1e-5)
    assert alone.spec.tiling == loaded.spec.tiling


def test_a_result_goes_between_the_checkpoints_and_replaces_one_of_another_kind(starts: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "history.json").write_text("[]", encoding="utf-8")
    whole, adapted = build(starts, "llava-1.6"), build(starts, "llava-1.6", **LORA)
    whole.model.config.use_cache = False
    save_result(whole.model, whole.tokenizer, tmp_path)
    assert not whole.model.config.use_cache
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["use_cache"]
    save_result(adapted.model, adapted.tokenizer, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names & WEIGHTS == {"adapter_model.safetensors", "non_lora_trainables.bin"}
    assert {"checkpoint-2", "history.json"} < names
    assert not any(name.startswith(".") for name in names)
    save_result(whole.model, whole.tokenizer, tmp_path)
    torch.testing.assert_close(run(load_model(tmp_path, device="cpu", dtype="float32").model), run(whole.model))


def test_a_full_disk_leaves_the_earlier_result_and_nothing_else(
    starts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = build(starts, "llava-1.6", **LORA)
    save_result(loaded.model, loaded.tokenizer, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    train_a_little(loaded.model, steps=1)

    def fail(value: Any, path: Path) -> None:
        Path(path).write_bytes(b"cut")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/0")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(LlavaError, match=r"cannot be written to .*PytorchStreamWriter failed.*is the disk full"):
        save_result(loaded.model, loaded.tokenizer, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_result_that_is_interrupted_while_it_is_moved_does_not_count(
    starts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = build(starts, "llava-1.6")
    save_result(loaded.model, loaded.tokenizer, tmp_path)
    replace, moved = os.replace, []

    def stop_at_the_third(source: Any, target: Any) -> None:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        save_result(loaded.model, loaded.tokenizer, tmp_path)
    assert moved
    assert "config.json" not in {path.name for path in tmp_path.iterdir()}
    monkeypatch.undo()
    save_result(loaded.model, loaded.tokenizer, tmp_path)
    load_model(tmp_path, device="cpu", dtype="float32")


@pytest.mark.parametrize("kind", ["stage 1", "full", "LoRA"])
def test_a_snapshot_that_lacks_something_is_refused_by_name(starts: Path, tmp_path: Path, kind: str) -> None:
    start, vision, changes, files = KINDS[kind]
    loaded = build(starts, start, vision, **changes)
    folder = tmp_path / "checkpoint-1"
    write_snapshot(loaded.model, loaded.tokenizer, folder)
    check_snapshot(loaded.model, folder)
    name = max(files)
    tensors = read_bin(folder / name) if name.endswith(".bin") else load_file(folder / name)
    gone, bent = sorted(tensors)[0], sorted(tensors)[-1]

    def store(content: dict[str, torch.Tensor]) -> None:
        torch.save(content, folder / name) if name.endswith(".bin") else save_file(content, folder / name)

    own = {key: tensor.clone() for key, tensor in tensors.items()}
    store({key: tensor for key, tensor in own.items() if key != gone})
    with pytest.raises(CheckpointError, match=rf"lacks '{gone}'. Delete .*checkpoint-1 to resume"):
        read_snapshot(loaded.model, folder)
    store({**own, bent: own[bent][:-1]})
    with pytest.raises(CheckpointError, match=rf"{bent} in .* has the shape"):
        read_snapshot(loaded.model, folder)
    (folder / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"{name}.*(damaged|cannot be read)"):
        check_snapshot(loaded.model, folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"checkpoint-1.*({name}|has no weights)"):
        check_snapshot(loaded.model, folder)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's own
def test_the_originals_way_of_loading_a_lora_result_gives_the_trained_model(starts: Path, tmp_path: Path) -> None:
    """Source: haotian-liu/LLaVA@c121f04 llava/model/builder.py, the branch with model_base."""
    from peft import PeftModel

    loaded = build(starts, "llava-1.6", **LORA)
    train_a_little(loaded.model)
    save_result(loaded.model, loaded.tokenizer, tmp_path)
    model = LlavaLlamaForCausalLM.from_pretrained(starts / "llava-1.6", dtype=torch.float32)
    others = torch.load(tmp_path / "non_lora_trainables.bin", map_location="cpu", weights_only=True)
    others = {(k[11:] if k.startswith("base_model.") else k): v for k, v in others.items()}
    if any(k.startswith("model.model.") for k in others):
        others = {(k[6:] if k.startswith("model.") else k): v for k, v in others.items()}
    assert not model.load_state_dict(others, strict=False).unexpected_keys
    merged = PeftModel.from_pretrained(model, str(tmp_path)).merge_and_unload()
    torch.testing.assert_close(run(merged), run(loaded.model), rtol=0, atol=1e-5)


def test_a_model_of_research_code_is_written_by_what_it_trains(starts: Path, tmp_path: Path) -> None:
    model = LlavaLlamaForCausalLM.from_pretrained(starts / "llava-1.6", dtype=torch.float32)
    model.requires_grad_(False)
    model.get_model().mm_projector.requires_grad_(True)
    write_snapshot(model, None, tmp_path / "projector")
    assert (tmp_path / "projector/mm_projector.bin").is_file()
    torch.testing.assert_close(
        run(load_model(tmp_path / "projector", device="cpu", dtype="float32").model), run(model), rtol=0, atol=1e-6
    )
    model.config.name_or_path = ""  # nothing says where the other weights are
    write_snapshot(model, None, tmp_path / "whole")
    assert (tmp_path / "whole/model.safetensors").is_file()


def test_generation_settings_are_mended_so_that_transformers_saves_them(starts: Path, tmp_path: Path) -> None:
    model = LlavaLlamaForCausalLM.from_pretrained(starts / "llava-1.6", dtype=torch.float32)
    assert model.generation_config.temperature == 0.9
    with pytest.raises(ValueError, match="temperature"):
        model.generation_config.validate(strict=True)  # as Transformers does before it saves settings that were changed
    mend_generation(model)
    model.generation_config.validate(strict=True)
    model.generation_config.save_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["stage 1", "LoRA"])
def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(
    starts: Path, tmp_path: Path, photo: Path, kind: str
) -> None:
    rows: list[dict[str, Any]] = [{"id": str(i), "image": photo.name} for i in range(6)]
    for row in rows:
        row["conversations"] = [
            {"from": "human", "value": f"<image>\nWhat is {row['id']}?"},
            {"from": "gpt", "value": "an image"},
        ]
    (tmp_path / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    vision = {"mm_vision_tower": str(starts / "tower"), **ANYRES}
    changes = KINDS[kind][2] | {"steps": 4, "save_steps": 2, "save_limit": 0, "log_steps": 1}
    stage = make_stage(vision, data=JsonData(json=str(tmp_path / "data.json"), images=str(photo.parent)), **changes)
    recipe = Recipe(name="tiny", start=str(starts / "llama"), stages=(stage,))
    run_stage(recipe, stage, tmp_path / "whole", workers=0)
    shutil.copytree(tmp_path / "whole/tune/checkpoint-2", tmp_path / "resumed/tune/checkpoint-2")
    run_stage(recipe, stage, tmp_path / "resumed", workers=0)
    for name in KINDS[kind][3]:
        one, other = (tmp_path / folder / "tune/model" / name for folder in ("whole", "resumed"))
        assert one.read_bytes() == other.read_bytes()
