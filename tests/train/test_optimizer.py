"""The optimizer's groups are those of both originals: the same parameters at the same rates and weight decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.errors import Notice, UsageError
from llava.train.optimizer import build_groups
from llava.train.original.flag_translation import translate
from llava.train.original.parsed_flags import read_flags
from llava.train.parts import name_trainable
from llava.train.recipe import TuningStage
from llava.train.run import choose_parameters
from llava.train.starting_model import build_start
from tests.gold.training import inputs, next_inputs
from tests.tiny import ANYRES, make_model

GOLD: list[tuple[str, str]] = [
    ("groups_15", "stage 1, weight decay and projector rate"),
    ("groups_15", "stage 2, newline, projector rate"),
    ("groups_15", "lora, task"),
    ("groups_next", "mm_vision_tower,mm_mlp_adapter,mm_language_model, both rates"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gold")
    next_inputs.write_everything(folder)
    return folder


def read_gold(file: str, name: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The flags of a gold command line and its groups, with the parameters' names."""
    content = inputs.gold(file)
    row = content["command_lines"][name]
    if file == "groups_next":
        return next_inputs.flags_of(content, row), next_inputs.groups_of(content, name)
    groups = [{**group, "parameters": content["parameters"][group["parameters"]]} for group in row["groups"]]
    return inputs.changed(content["shared_flags"], row["flags"]), groups


@pytest.mark.parametrize(("file", "name"), GOLD)
def test_groups_equal_the_originals(work: Path, file: str, name: str) -> None:
    flags, wanted = read_gold(file, name)
    filled = {key: flag.replace("{work}", str(work)) for key, flag in flags.items()} | {"output_dir": "unused"}
    words = [word for key, flag in filled.items() for word in (f"--{key}", flag)]
    is_llava = "llava" in Path(filled["model_name_or_path"]).name
    translated = translate(read_flags(words), starts_from_llava=is_llava)
    stage = translated.recipe.stages[0]
    model = build_start(translated.recipe.start, stage).model
    trainable = choose_parameters(model, stage)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    found = [
        (sorted(names[id(each)] for each in group["params"]), group["lr"], group["weight_decay"])
        for group in build_groups(trainable, stage.lr, stage.weight_decay)
    ]
    unused = {key for key in names.values() if "post_layernorm" in key or "encoder.layers.2" in key}
    expected = [
        (sorted(set(group["parameters"]) - unused), pytest.approx(group["lr"], rel=1e-6), group["weight_decay"])
        for group in wanted
        if set(group["parameters"]) - unused
    ]
    assert found == expected


def test_a_model_of_any_class_has_its_parts_by_the_originals_substrings() -> None:
    model = make_model(**ANYRES)
    model.requires_grad_(True)
    named = name_trainable(model)
    assert len(named) == len(list(model.parameters()))
    counts = {each.part for each in named}
    assert counts == {"vision_tower", "projector", "image_newline", "language_model"}
    plain = [each.path for each in named if each.is_norm_or_bias]
    assert "model.norm.weight" in plain
    assert "model.mm_projector.0.bias" in plain
    assert "model.image_newline" not in plain
    assert not any("class_embedding" in path or "position_embedding" in path for path in plain)


def test_the_rate_of_a_frozen_part_is_a_notice_for_the_originals_command_lines_and_an_error_in_a_recipe() -> None:
    values: dict[str, Any] = {"name": "here", "steps": 1, "batch_size": 1, "lr": 1e-3, "train": ("projector",)}
    model = make_model(**ANYRES)
    stage = TuningStage(**values, lr_scales={"vision_tower": 0.1}, compatible_with="llava-next")
    with pytest.warns(Notice, match="freezes vision_tower, so its learning rate has no effect"):
        assert {each.part for each in choose_parameters(model, stage)} == {"projector"}
    with pytest.raises(UsageError, match="is used by nothing: what it names is frozen"):
        choose_parameters(model, TuningStage(**values, lr_scales={"vision_tower": 0.1}))


def test_freezing_the_backbone_leaves_the_head() -> None:
    model = make_model(**ANYRES)
    stage = TuningStage(name="here", steps=1, batch_size=1, lr=1e-3, train=("projector", "lm_head"))
    assert {each.path.split(".")[0] for each in choose_parameters(model, stage)} == {"mm_projector", "lm_head"}
