"""Several processes train as one does, under DDP and FSDP2, and all of them end when one does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from llava.errors import CheckpointError, Notice, UsageError
from llava.model.checkpoint import load_model
from llava.train.dataset.epoch_order import ShuffledSampler
from llava.train.devices import parallel
from llava.train.devices.deepspeed_config import read_deepspeed, resolve_deepspeed, stand_in
from llava.train.recipe import Quantization, TuningStage
from llava.train.recipe_file import read_recipe
from llava.train.resumption import check_deepspeed_files
from llava.train.run import run
from llava.train.trainer_arguments import make_arguments, multiplies_bfloat16

NUM_SAMPLES, PER_PROCESS = 8, 2
LAUNCHER = Path(__file__).with_name("parallel_run.py")
TOWER = ["vision_tower", "projector", "image_newline", "language_model"]
LORA = {"rank": 4, "dropout": 0.0}


class Launched:
    """What two processes left: the folder of all runs, and what each launch printed, by its names."""

    def __init__(self, folder: Path, stderr: str) -> None:
        self.folder, self.told = folder, {}
        for launch in stderr.split("launch: ")[1:]:
            names, _, text = launch.partition("\n")
            self.told[names] = text

    def history(self, name: str) -> list[tuple[float, float, float]]:
        """Loss, gradient norm and rate of each step."""
        rows = json.loads((self.folder / name / "run/tune/history.json").read_text())
        return [(row["loss"], row["grad_norm"], row["learning_rate"]) for row in rows if "loss" in row]

    def report(self, name: str, rank: int) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.folder / name / f"rank-{rank}.json").read_text())
        return report

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        return dict(load_model(self.folder / name / "run/tune/model", device="cpu", dtype="float32").model.state_dict())


def write_data(folder: Path) -> None:
    """Samples in whose order the first process gets only texts in the first epoch, and the second only images."""
    order = list(ShuffledSampler(NUM_SAMPLES, 0))
    texts = {sample for place, sample in enumerate(order) if place // PER_PROCESS % 2 == 0}
    rows: list[dict[str, Any]] = []
    for i in range(NUM_SAMPLES):
        # Answers of different lengths, so that the mean over processes is not the mean over tokens.
        turns = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "an image " * (1 + i % 3)}]
        # Two sources, whose losses are told: the head's weights have to be there for each.
        row: dict[str, Any] = {"id": f"s{i}", "conversations": turns, "data_source": "ab"[i % 2]}
        if i not in texts:
            Image.new("RGB", (20 + 9 * i, 60 - 5 * i), (30 * i, 90, 120)).save(folder / f"{i}.png")
            turns[0]["value"] = "<image>\nWhat is it?"
            row["image"] = f"{i}.png"
        rows.append(row)
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    last = max(set(range(NUM_SAMPLES)) - texts)
    (folder / "broken.png").write_bytes((folder / f"{last}.png").read_bytes()[:60])
    rows[last] = {**rows[last], "image": "broken.png"}
    (folder / "broken.json").write_text(json.dumps(rows), encoding="utf-8")


def write_recipe(folder: Path, name: str, start: Path, **settings: Any) -> Path:
    values = {
        "name": "tiny",
        "start": str(start),
        "data": {"json": str(folder / "data.json"), "images": str(folder)},
        # In bfloat16, where the CPU has it, the halves of a batch round to something else than the whole.
        "stages": [
            {"name": "tune", "steps": 4, "batch_size": PER_PROCESS, "lr": 1e-2, "log_steps": 1, "save_steps": 2}
            | {"precision": "float32"}
        ],
    }
    values["stages"][0] |= settings
    (folder / name).mkdir()
    path = folder / name / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, next_folder: Path) -> Launched:
    """All runs: those of one process with the whole batch, and those of two."""
    folder = tmp_path_factory.mktemp("parallel")
    write_data(folder)
    whole = PER_PROCESS * 2
    for name, settings in (("single", {}), ("single-tower", {"train": TOWER}), ("single-lora", {"lora": LORA})):
        recipe = write_recipe(folder, name, next_folder, batch_size=whole, save_limit=2, **settings)
        run(read_recipe(recipe), folder / name / "run", workers=0)
    fsdp = {"sharding": "fsdp", "save_limit": 2}
    write_recipe(folder, "ddp", next_folder)
    write_recipe(folder, "fsdp-tower", next_folder, train=TOWER, **fsdp, trainer={"fsdp": "full_shard auto_wrap"})
    write_recipe(folder, "fsdp-lora", next_folder, lora=LORA, **fsdp)
    write_recipe(folder, "fsdp-resumed", next_folder, train=TOWER, **fsdp)
    begun = folder / "fsdp-resumed/run/tune/checkpoint-2"
    shutil.copytree(folder / "single-tower/run/tune/checkpoint-2", begun)
    write_recipe(folder, "killed", next_folder)
    broken = {"json": str(folder / "broken.json"), "images": str(folder)}
    write_recipe(folder, "broken", next_folder, data=broken)
    launches = ["ddp,fsdp-tower,fsdp-lora,fsdp-resumed", "killed", "broken"]
    command = [sys.executable, str(LAUNCHER), str(folder), *launches]
    done = subprocess.run(command, capture_output=True, text=True, cwd=LAUNCHER.parents[2], timeout=900)
    told = Launched(folder, done.stderr)
    assert set(told.told) == set(launches), done.stderr
    assert "exit code: 0" in told.told[launches[0]], done.stderr
    return told


@pytest.mark.parametrize(
    ("name", "single"),
    [
        ("ddp", "single"),
        ("fsdp-tower", "single-tower"),
        ("fsdp-lora", "single-lora"),
    ],
)
def test_two_processes_have_the_losses_norms_and_rates_of_one_although_one_has_only_texts(
    launched: Launched, name: str, single: str
) -> None:
    assert [launched.report(name, rank)["processes"] for rank in (0, 1)] == [2, 2]
    assert bool(launched.report(name, 1)["sharded"]) is name.startswith("fsdp")
    ours, wanted = launched.history(name), launched.history(single)
    assert len(ours) == 4
    for row, wanted_row in zip(ours, wanted, strict=True):
        assert row == pytest.approx(wanted_row, rel=1e-5)
    saved, wanted_tensors = launched.tensors(name), launched.tensors(single)
    for key, tensor in wanted_tensors.items():
        assert torch.allclose(saved[key], tensor, rtol=1e-3, atol=1e-4), key


def test_each_process_gets_its_share_of_every_batch(launched: Launched) -> None:
    order = [f"s{i}" for i in ShuffledSampler(NUM_SAMPLES, 0)]
    first, second = (launched.report("ddp", rank)["samples"] for rank in (0, 1))
    assert [*first[0], *second[0], *first[1], *second[1]] == order
    assert {len(update) for update in (*first, *second)} == {PER_PROCESS}


def test_only_the_first_process_writes_and_it_writes_what_a_single_one_does(launched: Launched) -> None:
    assert launched.report("ddp", 0)["written"]
    assert [launched.report(name, 1)["written"] for name in ("ddp", "fsdp-tower", "fsdp-lora")] == [[], [], []]

    def list_files(name: str) -> set[str]:
        here = launched.folder / name / "run/tune"
        return {str(path.relative_to(here)) for path in here.rglob("*") if "rng_state" not in path.name}

    assert list_files("fsdp-tower") == list_files("single-tower")
    assert list_files("fsdp-lora") == list_files("single-lora")


def test_a_checkpoint_of_two_processes_resumes_on_one_and_the_reverse(launched: Launched, tmp_path: Path) -> None:
    wanted = launched.history("single-tower")
    assert launched.history("fsdp-resumed")[2:] == [pytest.approx(row, rel=1e-5) for row in wanted[2:]]
    here = launched.folder / "single-tower/recipe.yaml"
    shutil.copytree(launched.folder / "fsdp-tower/run/tune/checkpoint-2", tmp_path / "tune/checkpoint-2")
    with pytest.warns(Notice) as told:
        run(read_recipe(here), tmp_path, workers=0)
    assert any("processes was 2 in " in str(each.message) for each in told)
    rows = [row for row in json.loads((tmp_path / "tune/history.json").read_text()) if "loss" in row]
    assert [row["loss"] for row in rows] == pytest.approx([row[0] for row in wanted], rel=1e-5)


def test_a_process_that_is_killed_ends_the_others_with_its_number_and_signal(launched: Launched) -> None:
    told = launched.told["killed"]
    assert "exit code: 1" in told
    assert told.count("llava: error: Process 1 of 2 (pid ") == 1
    assert "was killed or has crashed, so the others stop" in told
    assert "Signal 9 (SIGKILL) received" in told
    assert not (launched.folder / "killed/run/tune/model").exists()


def test_a_broken_image_ends_all_processes_before_the_first_step_and_is_named_once(launched: Launched) -> None:
    told = launched.told["broken"]
    assert "exit code: 1" in told
    assert told.count("broken.png") == 1
    assert told.count("llava: error: ") == 1
    assert re.search("llava: error: Process [01] of 2: Stage 'tune' has samples that cannot be trained on", told)
    assert "llava/train/" not in told  # no traceback of ours


def make_stage(**settings: Any) -> TuningStage:
    return TuningStage(**{"name": "tune", "steps": 4, "batch_size": 2, "lr": 1e-3, **settings})


def write_zero(folder: Path, zero_stage: int, **more: Any) -> str:
    """A file with the keys of the original's scripts/zero2.json, zero3.json and zero3_offload.json."""
    sizes = ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
    config = {
        "fp16": {"enabled": "auto", "loss_scale": 0},
        "bf16": {"enabled": "auto"},
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": {"stage": zero_stage, "overlap_comm": True, **dict.fromkeys(sizes, "auto")},
        **more,
    }
    path = folder / "zero.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


OFFLOAD = {
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": "auto"}},
}


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_each_auto_of_a_deepspeed_file_becomes_the_value_of_the_run(tmp_path: Path, zero_stage: int) -> None:
    stage = make_stage(accumulation=3, max_grad_norm=0.5, precision="float32")
    config = read_deepspeed(write_zero(tmp_path, zero_stage), "Stage")
    model = types.SimpleNamespace(config=types.SimpleNamespace(hidden_size=10))
    resolved = resolve_deepspeed(config, make_arguments(stage, tmp_path), model, num_steps=4)
    assert resolved["train_micro_batch_size_per_gpu"] == 2
    assert resolved["train_batch_size"] == 6
    assert resolved["gradient_accumulation_steps"] == 3
    assert resolved["gradient_clipping"] == 0.5
    assert resolved["bf16"]["enabled"] is False
    zero = resolved["zero_optimization"]
    assert zero["reduce_bucket_size"] == 100
    if zero_stage == 3:
        assert zero["stage3_prefetch_bucket_size"] == 90
        assert zero["stage3_param_persistence_threshold"] == 100
        assert zero["stage3_gather_16bit_weights_on_model_save"] is True


def test_the_optimizer_and_schedule_of_a_deepspeed_file_give_way_to_those_of_the_run(tmp_path: Path) -> None:
    with pytest.warns(Notice, match="optimizer and scheduler of .* are left out"):
        config = read_deepspeed(write_zero(tmp_path, 3, **OFFLOAD), "Stage")
    assert not {"optimizer", "scheduler"} & set(config)


def test_a_deepspeed_file_that_contradicts_the_run_is_refused_with_both_values(tmp_path: Path) -> None:
    path = write_zero(tmp_path, 2, gradient_accumulation_steps=4)
    arguments = make_arguments(make_stage(), tmp_path)
    with pytest.raises(UsageError, match=r"gradient_accumulation_steps is 4, but .* of the run is 1"):
        resolve_deepspeed(read_deepspeed(path, "Stage"), arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "has to be an object"),
        ('{"zero_optimization": {"stage": 4}}', r"stage: 4, which can be 0, 1, 2 or 3"),
        ('{"zero_optimization": 2}', "stage: None"),
    ],
)
def test_a_file_that_is_no_deepspeed_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "zero.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_deepspeed(str(tmp_path / "zero.json"), "Stage 'tune'")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_deepspeed(str(tmp_path / "none.json"), "Stage 'tune'")


@pytest.mark.parametrize(("zero", "kinds"), [(3, ["full_shard"]), (2, ["shard_grad_op"])])
def test_without_deepspeed_one_process_goes_on_and_several_use_fsdp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero: int, kinds: list[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    stage = make_stage(deepspeed=write_zero(tmp_path, zero))
    with pytest.warns(Notice, match="DeepSpeed is not installed: each device holds the whole model"):
        assert stand_in(stage, 1) == make_stage()
    with pytest.warns(Notice, match=rf"FSDP2 \({kinds[0]}\) shards the model in its place"):
        assert stand_in(stage, 2) == make_stage(sharding="fsdp", trainer={"fsdp": kinds})
    quantized = make_stage(deepspeed=stage.deepspeed, quantization=Quantization())
    with pytest.warns(Notice, match="each device holds the whole model"):
        assert stand_in(quantized, 2) == make_stage(quantization=Quantization())


def test_an_installed_deepspeed_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    stage = make_stage(deepspeed=write_zero(tmp_path, 3))
    assert stand_in(stage, 2) is stage


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deepspeed": "zero3.json"}, "both shard the model"),
        ({"optimizer": "muon"}, "needs whole matrices"),
        ({"cache_features": True}, "the run would hang"),
    ],
)
def test_what_cannot_be_sharded_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parallel.check_sharding(make_stage(sharding="fsdp", **settings))


def write_deepspeed_checkpoint(folder: Path, processes: int, states: int) -> Path:
    """What matters of a checkpoint that so many processes wrote under ZeRO."""
    (folder / "global_step2").mkdir(parents=True)
    (folder / "latest").write_text("global_step2")
    (folder / "run_state.json").write_text(json.dumps({"settings": {"processes": processes}}))
    for rank in range(states):
        (folder / f"global_step2/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("states", "processes", "is_enabled", "error", "message"),
    [
        (2, 4, True, UsageError, "written by 2 processes with DeepSpeed; here are 4"),
        (1, 2, True, CheckpointError, "lacks optimizer states of some processes"),
        (2, 2, False, UsageError, "was written with DeepSpeed, and this run is without it"),
    ],
)
def test_a_checkpoint_of_deepspeed_that_does_not_fit_the_run_is_refused(
    tmp_path: Path, states: int, processes: int, is_enabled: bool, error: type[Exception], message: str
) -> None:
    folder = write_deepspeed_checkpoint(tmp_path / "checkpoint-2", 2, states)
    with pytest.raises(error, match=message):
        check_deepspeed_files(folder, processes, is_enabled)


def test_a_checkpoint_without_deepspeed_is_refused_by_a_run_with_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was written without DeepSpeed, and this run is with it"):
        check_deepspeed_files(tmp_path, 2, is_enabled=True)
    check_deepspeed_files(tmp_path, 2, is_enabled=False)
    check_deepspeed_files(write_deepspeed_checkpoint(tmp_path / "checkpoint-2", 2, 2), 2, is_enabled=True)


def test_bfloat16_that_a_gpu_only_emulates_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not multiplies_bfloat16()


def test_the_originals_words_for_fsdp_are_those_of_fsdp2() -> None:
    full = parallel.translate_fsdp("full_shard auto_wrap", None, "Stage")["fsdp_config"]
    kept = parallel.translate_fsdp(["shard_grad_op", "offload"], {"fsdp_min_num_params": 5}, "Stage")["fsdp_config"]
    assert (full["version"], full["reshard_after_forward"]) == (2, True)
    assert (kept["reshard_after_forward"], kept["cpu_offload"], kept["min_num_params"]) == (False, True, 5)
    with pytest.raises(UsageError, match="fsdp cannot be 'hybrid_shard'; it can be full_shard, shard_grad_op"):
        parallel.translate_fsdp("hybrid_shard", None, "Stage")


def test_sharding_on_one_process_has_no_effect_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(Notice, match="sharding: fsdp has no effect on a single process"):
        assert not make_arguments(make_stage(sharding="fsdp"), tmp_path).fsdp_plugin_args


def test_a_process_takes_the_gpu_of_its_number_among_those_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setenv("LOCAL_RANK", "1")
    parallel.claim_device()
    assert taken == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match=r"3 processes or more, but CUDA_VISIBLE_DEVICES=4,6 shows 2 GPUs"):
        parallel.claim_device()
