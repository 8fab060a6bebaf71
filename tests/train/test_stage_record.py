"""A stage keeps facts, test answers and a report of itself, whatever happens, and changes nothing by it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from llava.errors import LlavaError
from llava.model.llava import LlavaMetaForCausalLM
from llava.train.cautions import list_cautions, list_template_cautions
from llava.train.dataset.sample_sizes import MeasuredSizes, SampleSize
from llava.train.parts import choose_trainable, list_parts, scale_rates
from llava.train.recipe import JsonData, TuningStage
from llava.train.recipe_file import read_recipe
from llava.train.report.html_report import StageFacts
from llava.train.report.sample_answers import AnswerLog
from llava.train.run import run
from llava.train.trainer import LLaVATrainer
from tests.tiny import ANYRES, make_model

STAGE = TuningStage(name="tune", steps=1, batch_size=2, lr=1e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Samples of two sources, with an image and without one."""
    folder = tmp_path_factory.mktemp("data")
    Image.new("RGB", (40, 20), (60, 90, 120)).save(folder / "a.png")
    rows = [
        {
            "id": f"{source}{i}",
            "data_source": source,
            **({"image": "a.png"} if source == "seen" else {}),
            "conversations": [
                {"from": "human", "value": ("<image>\n" if source == "seen" else "") + f"What is {i}?"},
                {"from": "gpt", "value": "an image"},
            ],
        }
        for i in range(3)
        for source in ("seen", "read")
    ]
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    return {"json": str(folder / "data.json"), "images": str(folder)}


def write(folder: Path, start: Path, data: dict[str, str], **stage: Any) -> Any:
    values = {
        "name": "tiny", "start": str(start), "data": data, "steps": 4, "batch_size": 2, "lr": 1e-2, "log_steps": 1,
        "save_steps": 2, "train": ["projector", "language_model"], **stage,
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return read_recipe(path)


def read_losses(folder: Path) -> list[float]:
    return [row["loss"] for row in json.loads((folder / "history.json").read_text()) if "loss" in row]


def test_a_run_keeps_facts_answers_and_a_report_and_has_the_losses_that_it_has_without(
    tmp_path: Path,
    next_folder: Path,
    data: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = write(tmp_path, next_folder, data, lora={"rank": 2, "dropout": 0.5})
    here = tmp_path / "run/tiny"
    run(recipe, tmp_path / "run", workers=0)
    facts = StageFacts.load(here)
    assert [[step for step, _ in answer.by_step] for answer in facts.answers] == [[0, 2, 4]] * 3
    assert [answer.question for answer in facts.answers] == ["What is 0?", "What is 1?", "What is 2?"]
    assert [bool(answer.image) for answer in facts.answers] == [True, True, True]
    assert facts.answers[0].by_step[0][1]
    assert facts.answers[0].by_step[0][1] != facts.answers[0].by_step[-1][1]
    assert ("lora.rank", "2") in facts.settings
    assert any(part == "language_model" and "adapters" in modules for part, modules, *_ in facts.parts)
    assert len(facts.lengths) == 6
    assert (here / "report.html").is_file()
    history = json.loads((here / "history.json").read_text())
    assert any({"loss/seen", "loss/read"} <= set(row) for row in history)
    said = capsys.readouterr().err
    assert "step 0: to 'What is 0?' the model answers" in said
    assert f"The report of stage 'tiny' is {here / 'report.html'}" in said

    monkeypatch.setattr(AnswerLog, "ask", lambda *_: None)
    run(recipe, tmp_path / "other", workers=0)
    assert read_losses(tmp_path / "other/tiny") == read_losses(here)
    run(recipe, tmp_path / "run", workers=0)
    assert f"Its report is {here / 'report.html'}." in capsys.readouterr().out


def test_answers_that_fail_are_told_once_and_end_no_run(
    tmp_path: Path,
    next_folder: Path,
    data: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(LlavaMetaForCausalLM, "generate", fail)
    run(write(tmp_path, next_folder, data), tmp_path / "run", workers=0)
    assert capsys.readouterr().err.count("Test answers are left out from step 0 on: RuntimeError: no kernel") == 1
    assert StageFacts.load(tmp_path / "run/tiny").answers[0].by_step == []


def test_test_answers_end_where_the_model_says_that_its_own_end(
    tmp_path: Path, next_folder: Path, data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[list[int]] = []

    def note(*_: Any, generation_config: Any, **__: Any) -> None:
        ends.append(generation_config.eos_token_id)
        raise RuntimeError("enough")

    monkeypatch.setattr(LlavaMetaForCausalLM, "generate", note)
    folder = shutil.copytree(next_folder, tmp_path / "model")
    path = folder / "generation_config.json"
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**said, "eos_token_id": [2, 7]}), encoding="utf-8")
    run(write(tmp_path, folder, data), tmp_path / "run", workers=0)
    assert {2, 7} <= set(ends[0])


def test_a_run_that_fails_leaves_a_report_and_goes_on_with_the_answers_from_before(
    tmp_path: Path, next_folder: Path, data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, here = write(tmp_path, next_folder, data), tmp_path / "run/tiny"
    step = LLaVATrainer.training_step

    def fail(trainer: LLaVATrainer, *rest: Any, **named: Any) -> torch.Tensor:
        if trainer.state.global_step == 3:
            raise LlavaError("The loss is nan in step 4.")
        return step(trainer, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(LLaVATrainer, "training_step", fail)
        with pytest.raises(LlavaError, match="is nan"):
            run(recipe, tmp_path / "run", workers=0)
    facts = StageFacts.load(here)
    assert facts.fault == "The loss is nan in step 4."
    assert "is nan in step 4" in (here / "report.html").read_text()
    assert [step for step, _ in facts.answers[0].by_step] == [0, 2]
    run(recipe, tmp_path / "run", workers=0)
    again = StageFacts.load(here)
    assert again.fault == ""
    assert again.answers[0].by_step[:2] == facts.answers[0].by_step
    assert [step for step, _ in again.answers[0].by_step] == [0, 2, 4]
    assert len(read_losses(here)) == 4


SIZES = MeasuredSizes(100, 100, [SampleSize(10, 3, 1, 10)] * 100, [SampleSize(10, 3, 1, 10)] * 100)


def list_all(stage: TuningStage, sizes: MeasuredSizes = SIZES, large: bool = False, batch: int = 2) -> list[str]:
    model = make_model(**ANYRES)
    where = "Here"
    trainable = choose_trainable(model, list_parts(model), stage.train, where)
    trainable = scale_rates(trainable, list_parts(model), stage.lr_scales, where)
    if large:
        model.parameters = lambda: iter([torch.empty(10**9, device="meta")])
    return list(list_cautions(stage, model, trainable, sizes, batch))


def test_many_epochs_over_few_samples_are_cautioned_against() -> None:
    assert list_all(replace(STAGE, steps=0, epochs=3)) == []
    assert list_all(replace(STAGE, steps=500)) == []
    (caution,) = list_all(replace(STAGE, steps=0, epochs=100))
    assert caution.startswith("100 epochs over 100 samples")
    (caution,) = list_all(replace(STAGE, steps=1000), batch=4)
    assert caution.startswith("40 epochs over 100 samples")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"train": ("projector",), "lr": 1e-3}, None),
        ({"train": ("projector",), "lr": 2e-5}, "low"),
        ({"train": ("projector", "language_model"), "lr": 2e-5}, None),
        ({"train": ("projector", "language_model"), "lr": 1e-3}, "high"),
        ({"train": ("vision_tower", "language_model"), "lr": 2e-5, "lr_scales": {"vision_tower": 0.1}}, None),
        ({"train": ("vision_tower", "language_model"), "lr": 2e-5, "lr_scales": {"vision_tower": 10.0}}, "high"),
    ],
)
def test_an_unusual_rate_is_cautioned_against_in_large_models_only(change: dict[str, Any], word: str | None) -> None:
    stage = replace(STAGE, **change)
    assert list_all(stage) == []
    cautions = list_all(stage, large=True)
    assert [f"unusually {word}" in caution for caution in cautions] == ([] if word is None else [True])


def test_samples_that_are_cut_and_those_that_lose_everything_are_counted() -> None:
    sizes = [*SIZES.typical, SampleSize(50, 3, 1, 80), SampleSize(50, 0, 1, 90)]
    (caution,) = list_all(STAGE, replace(SIZES, typical=sizes))
    assert caution.startswith("2 of 102 measured samples are longer than 50 positions and are cut there, 1 of them")


def test_another_template_than_the_checkpoints_own_is_cautioned_against() -> None:
    def ask(*templates: str) -> int:
        stage = replace(STAGE, data=JsonData(json="x.json", templates=templates))
        return len(list(list_template_cautions(stage, "vicuna_v1")))

    assert (ask(), ask("vicuna_v1"), ask("plain"), ask("chatml_direct")) == (0, 0, 0, 1)
