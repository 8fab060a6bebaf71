"""The original's command lines leave the record that a recipe's stage leaves, and replace nothing they start from."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from llava import conversation as templates
from llava.errors import UsageError
from llava.train import train as door
from llava.train.dataset.sampler_choice import choose_sampler
from llava.train.llava_trainer import get_modality_length_grouped_indices
from llava.train.original.prepared_run import prepare_run
from llava.train.report.html_report import StageFacts
from llava.train.resumption import read_step
from tests.gold.training import command_lines, inputs, next_command_lines, next_inputs

TWO_STEPS = command_lines.STAGE_2 | {"max_steps": "2", "save_strategy": "no", "disable_tqdm": "True"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of the gold command lines."""
    folder = tmp_path_factory.mktemp("work")
    inputs.write_everything(folder)
    next_inputs.write_everything(folder)
    return folder


@pytest.fixture(autouse=True)
def _default_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "default_conversation", templates.default_conversation)


def run(monkeypatch: pytest.MonkeyPatch, flags: dict[str, str], work: Path, output: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["train.py", *command_lines.arguments(flags, work, output)])
    return door.main()


def test_a_run_leaves_a_report_test_answers_losses_by_source_and_evaluation_losses(
    monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"data_path": "{work}/parts.yaml", "eval_data_path": "{work}/images-27.json"}
    flags |= {"evaluation_strategy": "steps", "eval_steps": "1"}
    assert run(monkeypatch, TWO_STEPS | flags, work, tmp_path) == 0
    history = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
    assert [row["step"] for row in history if "eval_loss" in row] == [1, 2]
    sources = {key for row in history for key in row if key.startswith("loss/")}
    assert sources
    assert sources <= {"loss/part-a", "loss/part-b", "loss/part-c"}
    facts = StageFacts.load(tmp_path)
    assert [[step for step, _ in answer.by_step] for answer in facts.answers] == [[0, 2]] * 3
    assert len(facts.lengths) > 3
    assert {"vision_tower", "projector", "language_model"} == {row[0] for row in facts.parts}
    assert "What is trained" in capsys.readouterr().out
    assert (tmp_path / "report.html").is_file()


def test_a_dataset_of_research_code_is_reported_without_lengths_and_answers(
    monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path
) -> None:
    ours = door.LazySupervisedDataset

    class Other(Dataset[dict[str, Any]]):
        def __init__(self, data_path: str, tokenizer: Any, data_args: Any) -> None:
            self.items = ours(data_path, tokenizer, data_args)

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> dict[str, Any]:
            return self.items.make_item(index)

    monkeypatch.setattr(door, "LazySupervisedDataset", Other)
    assert run(monkeypatch, TWO_STEPS | {"group_by_modality_length": "False"}, work, tmp_path) == 0
    facts = StageFacts.load(tmp_path)
    assert (facts.answers, facts.lengths) == ([], [])
    assert len([row for row in json.loads((tmp_path / "history.json").read_text()) if "loss" in row]) == 2


def test_what_the_record_cannot_understand_costs_the_report_and_not_the_run(
    monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(door.LazySupervisedDataset):
        def plan(self, sizes: Any) -> Any:
            if sys._getframe(1).f_code.co_name == "measure_size":
                raise KeyError("no plan")
            return super().plan(sizes)

    monkeypatch.setattr(door, "LazySupervisedDataset", Odd)
    assert run(monkeypatch, TWO_STEPS, work, tmp_path) == 0
    assert "There is no report: KeyError: 'no plan'" in capsys.readouterr().err
    assert (tmp_path / "model.safetensors").is_file()


def test_a_fault_is_told_by_the_process_that_has_it(
    monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path
) -> None:
    seen: list[BaseException] = []

    @contextmanager
    def watching() -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            seen.append(error)
            raise

    monkeypatch.setattr(door, "explaining_rank_faults", watching)
    assert run(monkeypatch, TWO_STEPS | {"data_path": "none.json"}, work, tmp_path) == 2
    assert [type(error) for error in seen] == [UsageError]


@pytest.mark.parametrize(("flag", "output"), [("model_name_or_path", "llava"), ("pretrain_mm_mlp_adapter", ".")])
def test_a_result_does_not_replace_what_the_training_starts_from(
    flag: str, output: str, monkeypatch: pytest.MonkeyPatch, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(work.iterdir())
    flags = command_lines.TASK if flag == "model_name_or_path" else command_lines.STAGE_2
    assert run(monkeypatch, flags, work, work / output) == 2
    assert "from which the training starts: name another folder" in capsys.readouterr().err
    assert sorted(work.iterdir()) == before


@pytest.mark.filterwarnings("ignore::llava.errors.Notice")
def test_mistral_is_padded_on_the_left_by_llava_next_and_on_the_right_by_1_5(work: Path, tmp_path: Path) -> None:
    flags = {**next_command_lines.FAILS["mistral"]}
    kinds = (door.ModelArguments, door.DataArguments, door.TrainingArguments)
    del flags["pretrain_mm_mlp_adapter"]
    prepared = prepare_run(command_lines.arguments(flags, work, tmp_path), kinds)
    assert prepared.tokenizer.padding_side == prepared.model.config.tokenizer_padding_side == "left"
    data = door.make_supervised_data_module(prepared.tokenizer, prepared.data_args)
    samples = sorted((data["train_dataset"][i] for i in range(2)), key=lambda item: len(item["input_ids"]))
    batch = data["data_collator"](samples)
    num_pads = len(samples[1]["input_ids"]) - len(samples[0]["input_ids"])
    assert num_pads
    assert (batch["input_ids"][0, :num_pads] == prepared.tokenizer.pad_token_id).all()
    assert torch.equal(batch["input_ids"][0, num_pads:], samples[0]["input_ids"])
    older = command_lines.STAGE_2 | {"model_name_or_path": "{work}/mistral", "version": "mistral_instruct"}
    del older["pretrain_mm_mlp_adapter"]
    assert prepare_run(command_lines.arguments(older, work, tmp_path), kinds).tokenizer.padding_side == "right"


@pytest.mark.filterwarnings("ignore::llava.errors.Notice")
def test_early_mix_text_keeps_the_grouping_and_makes_one_modality_of_all_rows(work: Path, tmp_path: Path) -> None:
    kinds = (door.ModelArguments, door.DataArguments, door.TrainingArguments)
    flags = next_command_lines.FROZEN | {"early_mix_text": "True"}
    prepared = prepare_run(command_lines.arguments(flags, work, tmp_path), kinds)
    data = door.LazySupervisedDataset(flags["data_path"].format(work=work), prepared.tokenizer, prepared.data_args)
    sampler = choose_sampler(data, prepared.training_args, "llava-next")
    torch.manual_seed(3)
    order = list(sampler)
    torch.manual_seed(3)
    words = [sum(len(turn["value"].split()) for turn in row["conversations"]) for row in data.list_data_dict]
    assert order == get_modality_length_grouped_indices(words, 2, 2)


@pytest.mark.parametrize("run_name", ["stage 1", "lora"])
def test_the_best_checkpoint_is_loaded_with_all_that_was_trained(
    run_name: str, monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path
) -> None:
    flags = command_lines.RUNS[run_name] | {"max_steps": "2", "save_steps": "1", "save_total_limit": "3"}
    data = "captions" if run_name == "stage 1" else "mix-27"
    flags |= {"eval_data_path": f"{{work}}/{data}.json", "evaluation_strategy": "steps", "eval_steps": "1"}
    flags |= {"load_best_model_at_end": "True", "metric_for_best_model": "eval_loss", "disable_tqdm": "True"}
    flags |= {"greater_is_better": "True", "warmup_ratio": "0.0"}  # so the first one is the best
    assert run(monkeypatch, flags, work, tmp_path) == 0
    assert json.loads((tmp_path / "trainer_state.json").read_text())["best_global_step"] == 1
    name = "mm_projector.bin" if run_name == "stage 1" else "non_lora_trainables.bin"
    best, last, result = (
        torch.load(folder / name, weights_only=True)
        for folder in (tmp_path / "checkpoint-1", tmp_path / "checkpoint-2", tmp_path)
    )
    assert any(not torch.equal(best[key], last[key]) for key in best)
    assert all(torch.equal(best[key], result[key]) for key in best)


def test_answers_that_are_cut_at_a_small_length_are_no_fault_of_the_template(
    monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path
) -> None:
    assert run(monkeypatch, TWO_STEPS | {"model_max_length": "40", "max_steps": "1"}, work, tmp_path) == 0


def test_only_a_checkpoints_folder_can_be_resumed_from(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-12").mkdir()
    assert read_step(tmp_path / "checkpoint-12") == 12
    for name in ("checkpoint-13", "True", "."):
        with pytest.raises(UsageError, match="is no checkpoint to resume from: name a folder checkpoint-N"):
            read_step(tmp_path / name)
