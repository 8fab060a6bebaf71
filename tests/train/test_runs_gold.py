"""Twelve updates equal those of both originals: losses, gradient norms, rates, and the samples of each batch.

The gold is of the real originals' ``train()``, see tests/gold/training/make_original.py and make_next.py. The rate in
the originals' log is that of the next update; compared is the rate that was applied.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.errors import Notice
from llava.train import run
from llava.train.original.flag_translation import translate
from llava.train.original.parsed_flags import read_flags
from llava.train.recipe import TuningStage
from llava.train.starting_model import build_start
from llava.train.trainer import LLaVATrainer
from tests.gold.training import inputs, next_inputs

ORIGINALS = {"llava-1.5": (inputs, "runs_15"), "llava-next": (next_inputs, "runs_next")}
# Relative. A tower in float16 rounds differently with every version of torch and of the attention.
EXACT, HALF_TOWER = (5e-5, 1e-4), (2e-4, 2e-3)
RUNS: list[tuple[str, str, tuple[float, float]]] = [
    ("llava-1.5", "stage 1, float32 tower", EXACT),
    ("llava-1.5", "stage 2, float32 tower", EXACT),
    ("llava-1.5", "lora, float32 tower", EXACT),
    ("llava-1.5", "task, float32 tower", EXACT),
    ("llava-1.5", "stage 2, projector rate", HALF_TOWER),
    ("llava-1.5", "accumulation with a remainder", HALF_TOWER),
    ("llava-next", "anyres, weight decay, projector rate", EXACT),
    ("llava-next", "qwen, mixed batches", EXACT),
    ("llava-next", "several images, float32 tower", EXACT),
    ("llava-next", "lora, checkpoint", HALF_TOWER),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder with the inputs of an original's runs."""
    made: dict[str, Path] = {}

    def find(original: str) -> Path:
        if original not in made:
            made[original] = tmp_path_factory.mktemp("gold")
            ORIGINALS[original][0].write_everything(made[original])
        return made[original]

    return find


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(work: Path, row: dict[str, Any], flags: dict[str, str], output: Path) -> LLaVATrainer:
    """The trainer of a gold run, from the command line of the original."""
    filled = {name: flag.replace("{work}", str(work)) for name, flag in flags.items()} | {"output_dir": str(output)}
    words = [word for name, flag in filled.items() for word in (f"--{name}", flag)]
    is_llava = "llava" in Path(filled["model_name_or_path"]).name
    translated = translate(read_flags(words), starts_from_llava=is_llava)
    stage: TuningStage = translated.recipe.stages[0]
    loaded = build_start(translated.recipe.start, stage)
    set_initial_values(loaded.model, is_llava)
    trainer = run.build_trainer(loaded, stage, output, workers=0)
    trainer.args.save_strategy, trainer.args.disable_tqdm = "no", True
    return trainer


@torch.no_grad()
def set_initial_values(model: Any, is_llava: bool) -> None:
    """What the original draws at random, by the formula of the gold."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.copy_(inputs.lora_values(name, tuple(parameter.shape)))
        elif name.endswith("image_newline") and not is_llava:
            parameter.copy_(torch.from_numpy(inputs.values("model.image_newline", tuple(parameter.shape))))


class Recorded:
    """The applied rates, and the numbers of the samples of each micro-batch, of every update."""

    def __init__(self, trainer: LLaVATrainer) -> None:
        self.rates: list[list[float]] = []
        self.batches: list[list[list[int]]] = []
        complete = trainer.complete_gradients

        def record() -> None:
            complete()
            self.rates.append(sorted({round(group["lr"], 9) for group in trainer.optimizer.param_groups}))
            names = [[int(name.lstrip("s")) for name in batch] for batch in trainer._names.values()]
            self.batches.append(names)

        trainer.complete_gradients = record  # type: ignore[method-assign]


@pytest.mark.parametrize(("original", "name", "tolerances"), RUNS, ids=[f"{each[0]}: {each[1]}" for each in RUNS])
def test_updates_equal_the_originals(
    folders: Callable[[str], Path],
    original: str,
    name: str,
    tolerances: tuple[float, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = inputs.gold(ORIGINALS[original][1])
    row = content["runs"][name]
    is_next = original == "llava-next"
    flags = next_inputs.flags_of(content, row) if is_next else inputs.changed(content["shared_flags"], row["flags"])
    if "float32 tower" in name or row.get("tower") == "float32":
        monkeypatch.setattr(run, "set_precision", lambda *_, **__: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        trainer = build(folders(original), row, flags, tmp_path)
        recorded = Recorded(trainer)
        trainer.train()
    log = [line for line in trainer.state.log_history if "loss" in line]
    assert recorded.batches == row["batches"]
    assert recorded.rates == [
        pytest.approx(sorted({round(rate, 9) for rate in rates}), rel=1e-4) for rates in row["lr"]
    ]
    assert [line["loss"] for line in log] == pytest.approx(row["loss"], rel=tolerances[0])
    assert [float(line["grad_norm"]) for line in log] == pytest.approx(row["grad_norm"], rel=tolerances[1])
