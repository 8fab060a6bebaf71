"""Where DeepSpeed is installed, ZeRO-2 and ZeRO-3 train on two processes, save, and resume to the same weights.

DeepSpeed compiles a module for its communication when it is first used, which takes a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.model.checkpoint import load_model
from llava.model.weights import read_bin
from llava.train.recipe_file import read_recipe
from llava.train.run import run
from tests.train.tiny_stage import write_recipe

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")

SCRIPT = Path(__file__).with_name("deepspeed_run.py")
LORA = {"lora": {"rank": 4, "dropout": 0.0}}
RUNS: dict[str, dict[str, Any]] = {
    "zero2": {},
    "zero3": {},
    "zero3-lora": LORA,
    "zero3-projector": {"train": ["projector"]},
}


def write_zero(folder: Path, stage: int) -> str:
    sizes = ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
    numbers = ("train_micro_batch_size_per_gpu", "train_batch_size", "gradient_accumulation_steps", "gradient_clipping")
    config = {
        **dict.fromkeys(numbers, "auto"),
        "fp16": {"enabled": "auto"},
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": stage, "overlap_comm": True, **dict.fromkeys(sizes, "auto")},
    }
    path = folder / f"zero{stage}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each run's folder with the result of the resumed run in ``run`` and that of the whole one in ``later``."""
    folder = tmp_path_factory.mktemp("deepspeed")
    common = {"steps": 4, "save_steps": 2, "save_limit": 3, "precision": "float32"}
    for name, settings in RUNS.items():
        zero = write_zero(folder, int(name[4]))
        write_recipe(folder / name, **common, deepspeed=zero, **settings)
        if name != "zero3":
            single = write_recipe(folder / f"single-{name}", **{**common, "batch_size": 4}, **settings)
            run(read_recipe(single), folder / f"single-{name}/run", workers=0)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command = [sys.executable, *launcher, "--rdzv-endpoint", "localhost:0", str(SCRIPT), str(folder), *RUNS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parents[2], timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def read_losses(folder: Path) -> list[float]:
    return [row["loss"] for row in json.loads((folder / "history.json").read_text()) if "loss" in row]


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of all files of weights in a result."""
    if (folder / "model.safetensors").is_file():
        return dict(load_model(folder, device="cpu", dtype="float32").model.state_dict())
    return {
        **{name: tensor for file in folder.glob("*.bin") for name, tensor in read_bin(file).items()},
        **{name: tensor for file in folder.glob("adapter*.safetensors") for name, tensor in load_adapter(file).items()},
    }


def load_adapter(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


@pytest.mark.parametrize("name", RUNS)
def test_a_deepspeed_run_that_is_resumed_ends_with_the_weights_of_the_uninterrupted_one(
    trained: Path, name: str
) -> None:
    whole, resumed = read_tensors(trained / name / "later/model"), read_tensors(trained / name / "run/tiny/model")
    assert whole
    assert whole.keys() == resumed.keys()
    for key, tensor in whole.items():
        assert torch.equal(tensor, resumed[key]), key
    assert read_losses(trained / name / "run/tiny") == read_losses(trained / name / "later")


@pytest.mark.parametrize("name", [name for name in RUNS if name != "zero3"])
def test_deepspeed_has_the_losses_of_a_single_process(trained: Path, name: str) -> None:
    ours, single = read_losses(trained / name / "later"), read_losses(trained / f"single-{name}/run/tiny")
    assert len(ours) == 4
    assert ours[:2] == pytest.approx(single[:2], rel=1e-5)  # then an epoch ends with an incomplete batch
