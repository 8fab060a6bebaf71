"""The recipes in the package say what the published scripts say, each in a few lines; recipes may extend each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava.errors import UsageError
from llava.image.geometry import parse_pinpoints
from llava.train.original.flag_translation import translate
from llava.train.original.parsed_flags import read_flags
from llava.train.recipe import TuningStage, parse_recipe
from llava.train.recipe_file import RecipeFile, change_recipe, read_recipe

FOLDER = Path(__file__).parents[2] / "llava/train/recipes"
# Not ``tune``, which is of no publication.
NAMES = sorted(path.stem for path in FOLDER.glob("v1*.yaml"))
GOLD = Path(__file__).parents[1] / "gold/training/script_flags.json"


def stage_of(name: str) -> TuningStage:
    (stage,) = parse_recipe(read_recipe(name)).stages
    return stage


def stage_of_script(name: str, *, starts_from_llava: bool = False) -> TuningStage:
    script = json.loads(GOLD.read_text(encoding="utf-8"))["scripts"][name]
    set_here = script["variables"]
    words = [set_here.get(word.strip("${}"), word) for pair in script["flags"].items() for word in pair]
    return translate(read_flags(words), starts_from_llava=starts_from_llava).recipe.stages[0]


def test_every_published_model_and_kind_of_training_has_a_recipe() -> None:
    kinds = ("pretrain", "finetune", "lora", "qlora", "task", "task-lora")
    of_15 = {f"v1.5-{size}-{kind}" for size in ("7b", "13b") for kind in kinds}
    models = ("vicuna-7b", "vicuna-13b", "mistral-7b", "yi-34b", "llama-3-8b", "qwen2-7b")
    assert {*NAMES} == of_15 | {f"v1.6-{model}{lora}" for model in models for lora in ("", "-lora")}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_of_the_package_is_valid_and_names_its_source_on_one_screen(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert "# Source: " in text
    assert text.count("\n") <= 40
    recipe = parse_recipe(read_recipe(name))
    assert recipe.name == name
    (stage,) = recipe.stages
    assert stage.compatible_with == ""
    assert stage.global_batch_size % (stage.batch_size * 8) == 0
    if name.startswith("v1.6"):
        pinpoints = parse_pinpoints(stage.vision.image_grid_pinpoints, 336)
        assert [tuple(each) for each in pinpoints] == [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
        assert (stage.vision.mm_patch_merge_type, stage.vision.image_aspect_ratio) == ("spatial_unpad", "anyres")


SCRIPTS = {
    "v1.5-13b-pretrain": "LLaVA/scripts/v1_5/pretrain.sh",
    "v1.5-13b-finetune": "LLaVA/scripts/v1_5/finetune.sh",
    "v1.5-13b-lora": "LLaVA/scripts/v1_5/finetune_lora.sh",
    "v1.5-13b-task": "LLaVA/scripts/v1_5/finetune_task.sh",
    "v1.5-13b-task-lora": "LLaVA/scripts/v1_5/finetune_task_lora.sh",
    "v1.6-qwen2-7b": "LLaVA-NeXT/scripts/train/direct_finetune_clip.sh",
}
SAME = (
    *("lr", "epochs", "batch_size", "max_length", "warmup", "schedule", "weight_decay", "group_by", "lora"),
    *("gradient_checkpointing", "max_grad_norm"),
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_recipe_has_the_numbers_of_its_script(name: str) -> None:
    recipe, script = stage_of(name), stage_of_script(SCRIPTS[name], starts_from_llava="task" in name)
    assert {key: getattr(recipe, key) for key in SAME} == {key: getattr(script, key) for key in SAME}
    assert recipe.lr_scales == pytest.approx(script.lr_scales)
    # 1.5 has no newline vector, which the flags cannot say.
    assert {*recipe.train} | {"image_newline"} == {*script.train} | {"image_newline"}
    for key in ("mm_vision_tower", "mm_projector_type", "mm_vision_select_layer", "image_grid_pinpoints"):
        assert getattr(recipe.vision, key) == getattr(script.vision, key)
    assert (recipe.vision.image_aspect_ratio or "square") == script.vision.image_aspect_ratio


def test_each_language_model_is_tuned_in_its_own_template() -> None:
    data = {name: stage_of(name).data for name in NAMES}
    templates = {name: each.templates for name, each in data.items() if each is not None}
    assert templates["v1.6-mistral-7b"] == templates["v1.6-mistral-7b-lora"] == ("mistral_instruct",)
    assert templates["v1.6-yi-34b"] == ("chatml_direct",)
    assert templates["v1.6-llama-3-8b"] == ("llava_llama_3",)
    assert templates["v1.6-qwen2-7b"] == ("qwen_1_5",)
    assert templates["v1.5-7b-pretrain"] == ("plain",)


def test_the_lora_recipes_of_1_6_freeze_the_tower_and_leave_no_rate_of_it() -> None:
    for name in NAMES:
        if name.startswith("v1.6") and name.endswith("-lora"):
            stage = stage_of(name)
            assert stage.train == ("projector", "image_newline", "language_model")
            assert stage.lr_scales == {"projector": 0.1}
            assert stage.lora is not None


# ---- Recipes that extend each other, and settings of the command line


def write(folder: Path, name: str, values: dict[str, Any]) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def test_a_recipe_extends_another_one_key_by_key_and_null_takes_a_value_away(tmp_path: Path) -> None:
    below = {"name": "a", "start": "x", "lr": 1, "data": {"json": "d", "images": "i"}, "lr_scales": {"projector": 2}}
    write(tmp_path, "a", below)
    above = {"extends": "a.yaml", "name": "b", "data": {"images": None, "templates": ["v1"]}, "lr_scales": None}
    values = read_recipe(write(tmp_path, "b", above)).values
    assert values == {"name": "b", "start": "x", "lr": 1, "data": {"json": "d", "templates": ["v1"]}}


def test_recipes_that_extend_each_other_are_an_error_that_names_both(tmp_path: Path) -> None:
    write(tmp_path, "a", {"extends": "b.yaml"})
    path = write(tmp_path, "b", {"extends": "a.yaml"})
    with pytest.raises(UsageError, match=r"extends itself: .*b\.yaml -> .*a\.yaml -> .*b\.yaml"):
        read_recipe(path)


def test_extending_an_unknown_recipe_names_the_nearest_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a", {"extends": "v1.5-7b-finetun", "name": "a"})
    with pytest.raises(UsageError, match=r"Did you mean 'v1\.5-7b-finetune'\?"):
        read_recipe(path)


STAGED = RecipeFile(
    {"name": "r", "start": "x", "lr": 1, "stages": [{"name": "a.b", "steps": 1}, {"name": "c", "lr": 2}]}, "r"
)


def test_a_setting_of_one_stage_is_replaced_by_its_path() -> None:
    changed = change_recipe(STAGED, ["stages.a.b.steps=7", "stages.c.lora.rank=4", "lora.rank=8"])
    assert changed.values["stages"] == [{"name": "a.b", "steps": 7}, {"name": "c", "lr": 2, "lora": {"rank": 4}}]
    assert changed.values["lora"] == {"rank": 8}
    assert STAGED.values["stages"][0]["steps"] == 1


@pytest.mark.parametrize("setting", ["lr=3", "lr.x=3"])
def test_a_setting_that_a_stage_has_itself_is_refused_instead_of_having_no_effect(setting: str) -> None:
    recipe = RecipeFile({**STAGED.values, "lr": {}}, "r")
    with pytest.raises(UsageError, match=r"on the stage 'c', which has its own lr: write stages\.c\.lr=\.\.\."):
        change_recipe(recipe, [setting])


def test_data_images_and_start_of_the_command_line_replace_those_of_the_recipe() -> None:
    recipe = change_recipe(read_recipe("v1.5-7b-task"), ["lr=1e-5"], data=["a.json", "b.json"], images="i", start="s")
    parsed = parse_recipe(recipe)
    (stage,) = parsed.stages
    assert stage.data is not None
    assert (stage.data.files, stage.data.images, stage.data.templates) == (("a.json", "b.json"), "i", ("v1",))
    assert (parsed.start, stage.lr) == ("s", 1e-5)


def test_data_for_a_stage_with_data_of_its_own_or_for_a_recipe_from_scratch_is_refused() -> None:
    stages = [{"name": "a", "data": {"json": "own.json"}}]
    with pytest.raises(UsageError, match="--data and --images would have no effect on the stage 'a'"):
        change_recipe(RecipeFile({"name": "r", "start": "x", "stages": stages}, "r"), [], data=["d.json"])
    with pytest.raises(UsageError, match="--start cannot be used with 'default': it trains a model from scratch"):
        change_recipe(read_recipe("default"), [], start="x")
