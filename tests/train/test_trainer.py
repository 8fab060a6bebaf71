"""The trainer stops at a fault and names it, keeps the last checkpoint, and trains what was announced."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.cli import main
from llava.errors import LlavaError, Notice, TrainingStopped, UsageError
from llava.train import run as run_module
from llava.train.dataset import stage_data
from llava.train.recipe import TuningStage
from llava.train.recipe_file import read_recipe
from llava.train.run import choose_parameters, run
from llava.train.trainer import LLaVATrainer
from llava.train.trainer_arguments import LlavaTrainingArguments, make_arguments
from tests.tiny import ANYRES, make_lesson, make_model
from tests.train.tiny_stage import read_losses, write_recipe


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Calls ``act(loss)`` in that step, from 1 on, in place of what the loss was."""
    compute = LLaVATrainer.compute_loss

    def replaced(self: LLaVATrainer, *arguments: Any, **named: Any) -> Any:
        loss = compute(self, *arguments, **named)
        return act(loss) if self.state.global_step + 1 == step else loss

    monkeypatch.setattr(LLaVATrainer, "compute_loss", replaced)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_with_the_samples_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    recipe = write_recipe(tmp_path, steps=4)
    at_step(monkeypatch, 4, lambda loss: loss * float(value))
    assert main(["train", str(recipe), "--output", str(tmp_path / "run"), "--workers", "0"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: The loss is {value} in step 4, on samples row " in error
    assert f"The last good checkpoint is {tmp_path / 'run/tiny/checkpoint-2'}" in error
    monkeypatch.undo()
    run(read_recipe(recipe), tmp_path / "run", workers=0)
    assert [step for step, _, _ in read_losses(tmp_path / "run")] == [1, 2, 3, 4]


def test_gradients_that_are_not_finite_change_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe(write_recipe(tmp_path, steps=1))

    def poison(loss: torch.Tensor) -> torch.Tensor:
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    at_step(monkeypatch, 1, poison)
    with pytest.raises(
        LlavaError, match=r"The norm of the gradients is nan in step 1, on samples .* No checkpoint was"
    ):
        run(recipe, tmp_path / "run", workers=0)


def test_out_of_memory_names_the_batch_and_what_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_loss: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 TiB")

    at_step(monkeypatch, 2, fail)
    with pytest.raises(
        LlavaError, match=r"Out of memory on samples row \d, row \d\. It has 2 rows of up to \d+ tokens"
    ):
        run(read_recipe(write_recipe(tmp_path)), tmp_path / "run", workers=0)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file")]
)
def test_a_full_disk_leaves_the_older_checkpoint_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save = LLaVATrainer._save_optimizer_and_scheduler

    def fail(self: LLaVATrainer, output_dir: str) -> None:
        save(self, output_dir)
        if self.state.global_step == 4:
            raise error

    monkeypatch.setattr(LLaVATrainer, "_save_optimizer_and_scheduler", fail)
    with pytest.raises(
        LlavaError, match=r"checkpoint-4 could not be written: .* The last good checkpoint is .*point-2;"
    ):
        run(read_recipe(write_recipe(tmp_path)), tmp_path / "run", workers=0)
    assert [path.name for path in (tmp_path / "run/tiny").iterdir() if path.is_dir()] == ["checkpoint-2"]


def test_ctrl_c_saves_a_checkpoint_and_ends_with_a_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(loss: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return loss

    before = signal.getsignal(signal.SIGINT)
    at_step(monkeypatch, 3, interrupt)
    recipe = read_recipe(write_recipe(tmp_path))
    with pytest.raises(
        TrainingStopped, match=r"stopped after step 3 of 6\. The last good checkpoint is .*checkpoint-3;"
    ):
        run(recipe, tmp_path / "run", workers=0)
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "run/tiny/model").exists()
    monkeypatch.undo()
    run(recipe, tmp_path / "run", workers=0)
    assert len(read_losses(tmp_path / "run")) == 6


def test_a_broken_sample_in_a_worker_is_named_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_data, "_MOST_DECODED", 0)  # as in a set that is too large to be decoded before training
    recipe = write_recipe(tmp_path)
    (tmp_path / "data/1.png").write_bytes((tmp_path / "data/1.png").read_bytes()[:60])
    with pytest.raises(LlavaError, match=r"Sample row . \(row . of .*\) cannot be trained on") as caught:
        run(read_recipe(recipe), tmp_path / "run", workers=1)
    assert "Traceback" not in str(caught.value)


def test_the_loss_of_an_update_is_the_mean_over_all_its_targets(tmp_path: Path) -> None:
    one: dict[str, Any] = {"steps": 1, "precision": "float32"}  # halves of a batch round differently in bfloat16
    whole = read_recipe(write_recipe(tmp_path, **one, batch_size=4))
    run(whole, tmp_path / "whole", workers=0)
    parts = read_recipe(write_recipe(tmp_path, **one, batch_size=1, accumulation=4))
    run(parts, tmp_path / "parts", workers=0)
    assert read_losses(tmp_path / "parts")[0] == pytest.approx(read_losses(tmp_path / "whole")[0], rel=1e-5)
    original = read_recipe(write_recipe(tmp_path, **one, batch_size=1, accumulation=4, compatible_with="llava-1.5"))
    run(original, tmp_path / "original", workers=0)
    assert read_losses(tmp_path / "original")[0][1] != pytest.approx(read_losses(tmp_path / "whole")[0][1], rel=1e-6)


def test_the_order_does_not_hang_on_torchs_global_state(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, steps=2))
    for name in ("one", "two"):
        torch.manual_seed(len(name) + ord(name[0]))
        run(recipe, tmp_path / name, workers=0)
    assert read_losses(tmp_path / "one") == read_losses(tmp_path / "two")


def test_the_evaluation_loss_is_in_the_log(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, steps=4, held_out=0.2, eval_steps=2)
    run(read_recipe(recipe), tmp_path / "run", workers=0)
    history = json.loads((tmp_path / "run/tiny/history.json").read_text())
    assert [line["step"] for line in history if line.get("eval_loss", 0) > 0] == [2, 4]
    with pytest.raises(UsageError, match=r"held_out is 0\.01, which is 0 of 10 samples"):
        run(read_recipe(write_recipe(tmp_path, held_out=0.01)), tmp_path / "other", workers=0)


def test_a_template_of_another_tokenizer_is_refused_before_any_weight_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "build_start", lambda *_: pytest.fail("weights were read"))
    recipe = write_recipe(tmp_path)
    text = recipe.read_text().replace("data:\n", "data:\n  templates: [qwen_1_5]\n")
    recipe.write_text(text)
    with pytest.raises(UsageError, match=r"The template qwen_1_5 ends turns with <\|im_end\|>, which is \d+ tokens"):
        run(read_recipe(recipe), tmp_path / "run", workers=0)


def make_stage(**changes: Any) -> TuningStage:
    return TuningStage(**{"name": "here", "steps": 2, "batch_size": 2, "lr": 1e-3, **changes})


def test_float16_weights_are_not_trained(tmp_path: Path) -> None:
    model = make_model(**ANYRES).half()
    model.lm_head.requires_grad_(True)
    with pytest.raises(UsageError, match=r"trained weights are in float16, such as .*: updates are lost or overflow"):
        LLaVATrainer(model=model, args=make_arguments(make_stage(), tmp_path), train_dataset=[])


def test_what_a_cpu_lacks_is_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.train.trainer_arguments.cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.warns(Notice) as caught:
        arguments = LlavaTrainingArguments(output_dir=str(tmp_path), bf16=True, tf32=True)
    assert (arguments.bf16, arguments.tf32) == (False, None)
    assert len(caught) == 2


def test_every_parameter_has_its_group_and_a_change_behind_the_back_is_an_error(tmp_path: Path) -> None:
    model = make_model(**ANYRES)
    stage = make_stage(lr_scales={"projector": 0.5}, weight_decay=0.1, trainer={"optim": "adafactor"})
    trainable = choose_parameters(model, stage)
    arguments = make_arguments(stage, tmp_path)
    trainer = LLaVATrainer(model=model, args=arguments, trainable=trainable, train_dataset=[])
    groups = trainer.create_optimizer().param_groups
    assert type(trainer.optimizer).__name__ == "Adafactor"
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        *((1e-3, 0.1), (1e-3, 0.0)),
        *((5e-4, 0.1), (5e-4, 0.0)),
    ]
    model.lm_head.requires_grad_(False)
    again = LLaVATrainer(model=model, args=arguments, trainable=trainable, train_dataset=[])
    with pytest.raises(UsageError, match=r"lm_head\.weight is announced, but is frozen"):
        again.create_optimizer()


def test_research_code_of_transformers_4_trains_as_it_did(tmp_path: Path) -> None:
    class Lessons(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"lesson": index}

    class Halved(LLaVATrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:  # type: ignore[override]
            return super().compute_loss(model, inputs, return_outputs) / 2

        def _get_train_sampler(self) -> Any:  # type: ignore[override]
            return torch.utils.data.SequentialSampler(self.train_dataset)

    losses = []
    for kind in (LLaVATrainer, Halved):
        model = make_model(**ANYRES)
        model.get_model().mm_projector.requires_grad_(True)
        arguments = LlavaTrainingArguments(
            output_dir=str(tmp_path), max_steps=1, gradient_accumulation_steps=2, per_device_train_batch_size=1
        )
        arguments.disable_tqdm, arguments.report_to, arguments.logging_steps = True, [], 1
        arguments.save_strategy = "no"
        trainer = kind(
            model=model,
            tokenizer=None,
            args=arguments,
            train_dataset=Lessons(),
            data_collator=lambda items: make_lesson(),
        )
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[1] == pytest.approx(losses[0] / 2, rel=1e-5)
