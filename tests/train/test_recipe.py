"""Recipes are read as YAML, and an error names the key that is wrong and the nearest right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llava.errors import UsageError
from llava.train.recipe import load_recipe, parse_recipe
from llava.train.recipe_file import RecipeFile, read_recipe
from llava.train.typed_values import apply_overrides

STAGE: dict[str, Any] = {"name": "tune", "steps": 2, "batch_size": 2, "lr": 1e-3, "data": {"json": "data.json"}}
RECIPE: dict[str, Any] = {"name": "tiny", "start": "some/checkpoint", "stages": [STAGE]}


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_with_defaults_trains_everything_but_the_tower(tmp_path: Path) -> None:
    (stage,) = load_recipe(write(tmp_path, yaml.safe_dump(RECIPE))).stages
    assert stage.train == ("projector", "image_newline", "image_adapter", "language_model")
    assert (stage.weight_averaging, stage.answer_weighting, stage.lr_scales) == (0.0, 0.0, {})


def test_a_rate_in_scientific_notation_without_a_point_is_a_number(tmp_path: Path) -> None:
    text = yaml.safe_dump(RECIPE).replace("lr: 0.001", "lr: 1e-3")
    assert "1e-3" in text
    assert load_recipe(write(tmp_path, text)).stages[0].lr == 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sped": 3}, "unknown key 'sped'"),
        ({"stages": None}, "stages must be a list, not nothing"),
        ({"stages": [{**STAGE, "stesp": 2}]}, "unknown key 'stesp'. Did you mean 'steps'"),
        ({"stages": [{**STAGE, "steps": True}]}, "steps is true and must be a whole number"),
        ({"stages": [{**STAGE, "steps": 2.5}]}, "steps is 2.5 and must be a whole number"),
        ({"stages": [{**STAGE, "lr": float("nan")}]}, "lr is nan and must be a finite number"),
        ({"stages": [{**STAGE, "seed": -1}]}, "seed is -1"),
        ({"stages": [{**STAGE, "name": 7}]}, "name is 7 and must be text"),
        ({"stages": [{**STAGE, "train": "projector"}]}, "train must be a list, not text"),
        ({"stages": [{**STAGE, "lr_scales": [1]}]}, "lr_scales must be a mapping"),
        ({"stages": [{**STAGE, "lr_scales": {"norms": -1}}]}, "lr_scales.norms is -1"),
        ({"stages": [{**STAGE, "warmup": 30}]}, "warmup is 30.0; as a share"),
        ({"stages": [{**STAGE, "data": "data.json"}]}, "data must be a mapping of keys to values, not text"),
        ({"stages": [{**STAGE, "data": {"json": "a", "templates": ["vicuna"]}}]}, "Did you mean 'vicuna_v"),
        ({"stages": [{**STAGE, "lora": {}, "train": ["projector"]}]}, "trains none of them: add language_model"),
        ({"stages": [{**STAGE, "lora": {}, "train": ["projector", "layers"]}]}, "frozen below LoRA layers"),
        ({"stages": [{**STAGE, "lr": 10**400}]}, "lr is 1000.* and must be a finite number"),
        ({"stages": [{**STAGE, "a\nb": 1}]}, r"unknown key 'a\\nb'"),
        ({"stages": [{**STAGE, "answer_weighting": -1}]}, "answer_weighting is -1"),
        ({"stages": [{**STAGE, "steps": 2, "epochs": 5}]}, "has 2 and 5. Set the one that is not meant to 0"),
        ({"stages": [{**STAGE, "steps": 0}]}, "has 0 and 0. Set one of them"),
    ],
)
def test_a_wrong_recipe_is_refused_and_the_key_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_recipe(RecipeFile({**RECIPE, **change}, "here"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping of keys to values, not nothing"),
        ("- a", "must be a mapping of keys to values, not a list"),
        ("name: [", "not valid YAML in line"),
        ("name: a\nstart: b\nname: c", "in line 3: the key 'name' occurs twice"),
        ("name: a", "needs either start .* or model"),
        ("name: a\nstart: b\nmodel: {}", "needs either start .* or model"),
        ("name: a\nmodel: {}", "no checkpoint to start from"),
        ("a: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe(write(tmp_path, text))


def test_a_merged_key_may_be_overridden(tmp_path: Path) -> None:
    text = "name: a\nstart: b\nshared: &shared {steps: 1}\nstages: [{<<: *shared, steps: 2}]\n"
    assert read_recipe(write(tmp_path, text)).values["stages"] == [{"steps": 2}]


def test_an_unknown_name_lists_the_shipped_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe 'defualt'\. Did you mean 'default'"):
        read_recipe("defualt")
    with pytest.raises(UsageError, match="does not exist"):
        read_recipe(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        read_recipe(tmp_path)
    assert read_recipe("default").is_from_scratch


def test_the_top_level_keys_of_a_recipe_without_stages_are_those_of_its_only_stage() -> None:
    values = {"name": "v1.5-tiny", "start": "x", "epochs": 1, "batch_size": 2, "lr": 1e-3, "train": ["projector"]}
    recipe = parse_recipe(RecipeFile(values, "tiny"))
    assert [(stage.name, stage.epochs, stage.train) for stage in recipe.stages] == [("v1.5-tiny", 1.0, ("projector",))]


def test_the_top_level_keys_of_a_recipe_with_stages_are_shared_by_all_of_them() -> None:
    values = {"name": "two", "start": "x", "batch_size": 2, "lr": 1e-3, "steps": 5}
    stages = [{"name": "a"}, {"name": "b", "lr": 2e-3}]
    recipe = parse_recipe(RecipeFile({**values, "stages": stages}, "two"))
    assert [(stage.name, stage.lr, stage.steps) for stage in recipe.stages] == [("a", 1e-3, 5), ("b", 2e-3, 5)]
    with pytest.raises(UsageError, match="unknown key 'sped'"):
        parse_recipe(RecipeFile({**values, "stages": stages, "sped": 3}, "two"))


def test_an_override_replaces_a_key_of_the_recipe_as_yaml() -> None:
    values = {"lr": 1e-3, "lora": {"rank": 8, "alpha": 16}}
    changed = apply_overrides(values, ["lr=2e-5", "lora.rank=4", "train=[projector]", "vision.image_aspect_ratio=pad"])
    assert changed == {
        "lr": "2e-5",  # PyYAML reads a number without a point as text; build makes it a number
        "lora": {"rank": 4, "alpha": 16},
        "train": ["projector"],
        "vision": {"image_aspect_ratio": "pad"},
    }
    assert values["lora"] == {"rank": 8, "alpha": 16}
    for wrong, message in (
        ("lr", "is not a setting of the recipe; write key=value"),
        ("lr=[1", "The value of lr is not valid YAML"),
        ("lr.peak=1", "lr is 0.001, which has no keys"),
    ):
        with pytest.raises(UsageError, match=message):
            apply_overrides(values, [wrong])
