"""The recipe of a model from scratch is checked before anything runs, and errors name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.errors import UsageError
from llava.scratch.pipeline import check_against_model
from llava.scratch.stages import load_scratch_recipe
from tests.scratch.tiny_recipe import tiny_recipe, write_recipe

TOWER, DECODER, ALIGN, NEXT = tiny_recipe()["stages"]


def test_the_shipped_recipe_loads_and_fits_its_own_model() -> None:
    recipe = load_scratch_recipe("default")
    assert [stage.kind for stage in recipe.stages] == [
        *("tower", "oracle", "align", "instruct") * 2,
        "instruct",
    ]
    for stage in recipe.stages[:4]:  # the other five have the same keys
        check_against_model(recipe, stage)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": 3}, "unknown key 'speed'"),
        ({"stages": []}, "has no stages"),
        ({"stages": 3}, "stages must be a list"),
        ({"stages": [{**TOWER, "kind": "magic"}]}, "no kind 'magic'"),
        ({"stages": [{**TOWER, "kind": "towr"}]}, "Did you mean 'tower'"),
        ({"stages": [{"name": "tower"}]}, "lacks the key 'kind'"),
        ({"stages": [{"name": "tower", "kind": "tower"}]}, "lacks the key"),
        ({"stages": [{**TOWER, "steps": 0}]}, "steps is 0"),
        ({"stages": [{**TOWER, "steps": "many"}]}, "steps is 'many' and must be a whole number"),
        ({"stages": [{**TOWER, "lr": "fast"}]}, "lr is 'fast' and must be a finite number"),
        ({"stages": [{**TOWER, "wieght_decay": 0.1}]}, "unknown key 'wieght_decay'.* Did you mean 'weight_decay'"),
        ({"stages": [{**TOWER, "optimizer": "muno"}]}, "no optimizer 'muno'.* Did you mean 'muon'"),
        ({"stages": [{**TOWER, "schedule": "cosin"}]}, "no schedule 'cosin'.* Did you mean 'cosine'"),
        ({"stages": [{**TOWER, "weight_averaging": 1.0}]}, r"weight_averaging is 1\.0"),
        ({"stages": [{**TOWER, "start": ["later"]}]}, "starts from 'later'"),
        ({"stages": [TOWER, TOWER]}, "'tower' occurs twice"),
        ({"stages": [{**TOWER, "name": "../tower"}]}, "use letters"),
        ({"stages": [{**TOWER, "name": "model"}]}, "none of model, tokenizer"),
        ({"stages": [{**TOWER, "train": ["projector"]}]}, "unknown key 'train'"),
        ({"stages": [{**TOWER, "answer_weighting": 0.5}]}, "unknown key 'answer_weighting'"),
        ({"stages": [{**ALIGN, "patch_loss": 0.5, "start": []}]}, "unknown key 'patch_loss'"),
        ({"stages": [{**TOWER, "data": {}}]}, "data lacks the key 'kinds'"),
        ({"stages": [{**TOWER, "data": {**TOWER["data"], "turns": 3}}]}, "unknown key 'turns'"),
        ({"stages": [{**TOWER, "data": {**TOWER["data"], "sizes": []}}]}, "sizes is empty"),
        (
            {"stages": [{**TOWER, "data": {**TOWER["data"], "sizes": [[9, 8, 9, 9]]}}]},
            "must be least width, most width",
        ),
        ({"stages": [{**TOWER, "data": {**TOWER["data"], "sizes": [[9, 9]]}}]}, "must have 4 items, not 2"),
        ({"stages": [{**TOWER, "data": {**TOWER["data"], "kinds": {"shape": 1}}}]}, "Did you mean 'shapes'"),
        ({"stages": [{**DECODER, "data": {**TOWER["data"], "kinds": {"page": 1}}}]}, "unknown kind of scene 'page'"),
        ({"stages": [{**NEXT, "start": [], "data": {"turns": 3}}]}, "needs the keys kinds and sizes, or json"),
        ({"stages": [{**NEXT, "start": [], "data": {"json": "a.json"}}]}, "patch_loss, which only drawn images"),
        ({"stages": [{**NEXT, "start": [], "train": []}]}, "train is empty"),
        ({"stages": [{**NEXT, "start": [], "aspect": "anyress"}]}, "Did you mean 'anyres'"),
        ({"model": {**tiny_recipe()["model"], "tile_px": 57}}, "tile_px is 57"),
    ],
)
def test_a_wrong_recipe_is_refused_and_the_key_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_scratch_recipe(str(write_recipe(tmp_path, **change)))


@pytest.mark.parametrize(
    ("stage", "change", "message"),
    [
        (
            NEXT,
            {"lr_scales": {"vision_towr": 0.1}},
            "lr_scales.vision_towr names no module.* mean 'vision_tower'.* There are",
        ),
        (NEXT, {"train": ["tower"]}, "unknown part 'tower'.* Did you mean 'vision_tower'"),
        (
            NEXT,
            {"train": ["projector"], "lr_scales": {"vision_tower": 0.1}},
            "nothing.* trains projector, heads",
        ),
        (TOWER, {"lr_scales": {"language_model": 0.1}}, "used by nothing: what it names is frozen"),
        (TOWER, {"lr_scales": {"label_haed": 0.1}}, "Did you mean 'label_head'"),
        (
            TOWER,
            {"lr_scales": {"vision_tower": 0.5, "encoder": 0.2, "embeddings": 0.3, "pre_layrnorm": 1}},
            "more specific keys",
        ),
    ],
)
def test_a_rate_that_nothing_uses_is_refused_before_the_first_step(
    tmp_path: Path, stage: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    recipe = load_scratch_recipe(str(write_recipe(tmp_path, stages=[{**stage, "start": [], **change}])))
    with pytest.raises(UsageError, match=message):
        check_against_model(recipe, recipe.stages[0])
