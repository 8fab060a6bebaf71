"""Training: recipes are checked, samples become what the model sees at inference, and every stage runs and resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import BadImage, UsageError
from llava.image.geometry import Size, plan_tiles
from llava.train import attention, build
from llava.train.optimizer import MuonWithAdamW, build_optimizer
from llava.train.pictures import LabelledTiles, PictureMix
from llava.train.recipe import load_recipe
from llava.train.run import StageTrainer, run
from llava.train.samples import DrawnSamples, InstructionCollator, InstructionData, JsonSamples, as_conversation
from llava.train.vocabulary import build_tokenizer, collect_words

KINDS = {"shapes": 1.0, "lines": 1.0}
RECIPE = {
    "name": "tiny",
    "model": {
        "tile_px": 56,
        "patch_px": 14,
        "pinpoints": [[56, 112], [112, 56], [112, 112]],
        "tower": {"hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 32},
        "decoder": {"hidden_size": 16, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate_size": 32},
    },
    "stages": [
        {"name": "tower", "kind": "tower", "steps": 2, "batch_size": 4, "lr": 1e-3, "optimizer": "muon"},
        {"name": "decoder", "kind": "oracle", "steps": 2, "batch_size": 2, "lr": 1e-3, "aspect": "pad"},
        {"name": "align", "kind": "align", "start": ["tower", "decoder"], "steps": 2, "batch_size": 4, "lr": 1e-3},
        {
            "name": "next",
            "kind": "instruct",
            "start": ["align"],
            "train": ["tower", "projector", "language_model"],
            "patch_loss": 0.5,
            "steps": 2,
            "batch_size": 2,
            "lr": 1e-3,
        },
    ],
}
for stage in RECIPE["stages"]:
    stage["data"] = {"kinds": KINDS, "sizes": [[96, 112, 96, 112]]}
    stage["log_steps"] = 1


RECIPE_STAGES = ("tower", "decoder", "align")


def write_recipe(folder: Path, **changes) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(collect_words(200))


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    return load_recipe(write_recipe(tmp_path_factory.mktemp("recipe"))).model


def test_the_shipped_recipe_loads_and_its_first_stage_needs_no_other():
    recipe = load_recipe("default")
    assert recipe.stages[0].kind == "tower"
    assert recipe.stages[-1].kind == "instruct"
    assert recipe.model.tile_px % recipe.model.patch_px == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": 3}, "unknown key 'speed'"),
        ({"stages": [{**RECIPE["stages"][0], "kind": "magic"}]}, "unknown kind 'magic'"),
        ({"stages": [{**RECIPE["stages"][0], "steps": 0}]}, "steps is 0"),
        ({"stages": [{**RECIPE["stages"][0], "learnt_share": 1.5}]}, "learnt_share is 1.5"),
        ({"stages": [{**RECIPE["stages"][0], "start": ["later"]}]}, "starts from 'later'"),
        ({"stages": [{**RECIPE["stages"][0], "train": ["nose"]}]}, "unknown part 'nose'"),
        ({"stages": [{**RECIPE["stages"][0], "data": {}}]}, "needs either data.kinds"),
        ({"stages": [{"name": "tower"}]}, "lacks the key"),
    ],
)
def test_a_wrong_recipe_is_refused_and_the_key_is_named(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        load_recipe(write_recipe(tmp_path, **change))


def test_an_unknown_recipe_name_lists_the_shipped_ones(tmp_path):
    with pytest.raises(UsageError, match="default"):
        load_recipe("no-such-recipe")
    with pytest.raises(UsageError, match="does not exist"):
        load_recipe(tmp_path / "missing.yaml")


def test_drawn_text_is_spelled_letter_by_letter_and_comes_back_exactly(tokenizer):
    for text in ("USER: What is written?", "Harbor 42", "$19.95 A7-K", "two\nlines & symbols!", "naïve 鏡"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text
    assert len(tokenizer(" Zarbol", add_special_tokens=False).input_ids) == 7
    assert len(tokenizer(" picture", add_special_tokens=False).input_ids) == 1


def test_the_loss_sees_the_answers_and_their_ends_only(tokenizer, shape):
    tiling, processor = build.build_tiling(shape, "anyres"), build.build_processor(shape)
    mix = PictureMix(tuple(KINDS.items()), ((96, 112, 96, 112),))
    data = InstructionData(DrawnSamples(mix, 8, 3, 0.5), tokenizer, tiling, processor, ("vicuna_v1",), 2048)
    for index in range(8):
        item, sample = data[index], data.source.sample(index)
        learnt = item["labels"][item["labels"] != IGNORE_INDEX]
        answers = [turn["value"] for turn in sample.conversations if turn["from"] == "gpt"]
        assert tokenizer.decode(learnt).split("</s>")[:-1] == [f" {answer}" for answer in answers]
        assert item["input_ids"].tolist().count(IMAGE_TOKEN_INDEX) == 1
        plan = plan_tiles(Size(*sample.images[0].size), tiling)
        assert len(item["images"][0]) == plan.num_tiles
    batch = InstructionCollator(0)([data[0], data[1]])
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert len(batch["images"]) == len(batch["image_sizes"]) == 2


def test_llava_json_is_read_and_its_mistakes_are_named(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    turns = [{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "red"}]
    rows = [{"id": "a", "image": "red.png", "conversations": [{"from": "gpt", "value": "hello"}, *turns]}, {"id": "b"}]
    rows[1]["conversations"] = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    file = tmp_path / "data.json"
    file.write_text(json.dumps(rows))
    samples = JsonSamples(file, tmp_path)
    assert [len(samples.sample(i).images) for i in range(2)] == [1, 0]
    assert as_conversation(samples.sample(0).conversations, "vicuna_v1").messages[0][1] == "<image>\nWhat?"
    for broken, message in (
        ("{", "not valid JSON"),
        ("[]", "non-empty"),
        ('[{"id": "c"}]', "Sample c .* no list 'conversations'"),
        ('[{"id": "d", "conversations": [{"from": "human", "value": ""}]}]', "must alternate"),
    ):
        file.write_text(broken)
        with pytest.raises(UsageError, match=message):
            JsonSamples(file, tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        JsonSamples(tmp_path / "none.json", tmp_path)
    file.write_text(json.dumps([{"id": "e", "image": "../outside.png", "conversations": turns}]))
    with pytest.raises(BadImage, match="outside"):
        JsonSamples(file, tmp_path).sample(0)


def test_tiles_and_their_labels_come_in_pairs(shape):
    mix = PictureMix((("page", 1.0),), ((112, 112, 112, 112),))
    tiling = build.build_tiling(shape, "anyres")
    item = LabelledTiles(mix, tiling, build.build_processor(shape), 3, tiles_per_picture=2)[1]
    assert item["pixel_values"].shape == (2, 3, 56, 56)
    assert item["labels"].shape == (2, 16, 7)
    assert (item["labels"] > 0).any()


def test_the_fast_attention_equals_transformers_own_attention(shape, tokenizer):
    model = build.build_model(shape, len(tokenizer), 0).eval()
    ids = torch.randint(5, 90, (2, 12))
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    expected = model(input_ids=ids, attention_mask=mask).logits
    model.config._attn_implementation = attention.register()
    assert torch.allclose(model(input_ids=ids, attention_mask=mask).logits[0], expected[0], atol=1e-5)
    assert torch.allclose(model(input_ids=ids, attention_mask=mask).logits[1, :8], expected[1, :8], atol=1e-5)


def test_muon_moves_matrices_adamw_the_rest_and_a_saved_state_goes_on_the_same():
    def steps(optimizer, model, count):
        for i in range(count):
            optimizer.zero_grad()
            model(torch.full((2, 4), float(i + 1))).pow(2).sum().backward()
            optimizer.step()

    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
        return model, build_optimizer(model, "muon", 1e-2, lr_scales=(("1.", 0.5),))

    model, optimizer = make()
    assert isinstance(optimizer, MuonWithAdamW)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-2, 5e-3}
    assert sum(len(group["params"]) for group in optimizer.param_groups if group["muon"]) == 2
    steps(optimizer, model, 4)
    again, resumed = make()
    steps(resumed, again, 2)
    saved, weights = resumed.state_dict(), again.state_dict()
    other, optimizer_of_other = make()
    other.load_state_dict(weights)
    optimizer_of_other.load_state_dict(saved)
    for i in (2, 3):
        optimizer_of_other.zero_grad()
        other(torch.full((2, 4), float(i + 1))).pow(2).sum().backward()
        optimizer_of_other.step()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, other.state_dict()[name]), name


def test_a_recipe_runs_through_all_stages_to_a_checkpoint_that_answers(tmp_path):
    from llava.answer import Sampling, ask
    from llava.model.checkpoint import load_model

    folder = run(write_recipe(tmp_path), tmp_path / "run", workers=0)
    assert folder == tmp_path / "run" / "model"
    for name in ("tower", "decoder", "align", "next"):
        assert (tmp_path / "run" / name / "curves.png").stat().st_size > 1000
        assert json.loads((tmp_path / "run" / name / "history.json").read_text())[-1]["step"] == 2
    loaded = load_model(folder)
    answer = ask(loaded, "What is this?", [Image.new("RGB", (70, 50), "red")], Sampling(max_new_tokens=4))
    assert answer.new_tokens <= 4
    written = (folder / "model.safetensors").stat().st_mtime_ns
    run(write_recipe(tmp_path), tmp_path / "run", stage="tower", workers=0)
    assert (tmp_path / "run" / "tower" / build.WEIGHTS).exists()
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_stage_1_takes_the_tower_from_its_own_stage_and_the_decoder_from_the_other(tmp_path):
    run(write_recipe(tmp_path), tmp_path / "run", workers=0)
    tower, decoder, align = (load_file(tmp_path / "run" / name / "weights.safetensors") for name in RECIPE_STAGES)
    assert not set(tower) & set(decoder)
    for learnt in (tower, decoder):
        assert [name for name in learnt if not torch.equal(learnt[name], align[name])] == []
    assert set(align) - set(tower) - set(decoder) == {name for name in align if "mm_projector" in name}


def test_a_stage_whose_start_was_not_run_says_so(tmp_path):
    with pytest.raises(UsageError, match="has not been run"):
        run(write_recipe(tmp_path), tmp_path / "run", stage="align", workers=0)


def test_a_stage_may_save_the_mean_of_what_it_began_and_ended_with(tmp_path):
    first, second = RECIPE["stages"][0], {**RECIPE["stages"][0], "name": "more", "start": ["tower"]}
    saved = {}
    for share in (1.0, 0.25):
        recipe = write_recipe(tmp_path, stages=[first, {**second, "learnt_share": share}])
        run(recipe, tmp_path / f"run-{share}", workers=0)
        saved[share] = load_file(tmp_path / f"run-{share}" / "more" / build.WEIGHTS)
    began = load_file(tmp_path / "run-1.0" / "tower" / build.WEIGHTS)
    learnt = [name for name in began if name.startswith("model.") and not torch.equal(began[name], saved[1.0][name])]
    assert len(learnt) > 5
    for name in learnt:
        mean = 0.75 * began[name] + 0.25 * saved[1.0][name]
        torch.testing.assert_close(saved[0.25][name], mean, atol=1e-6, rtol=1e-5)


def test_an_interrupted_stage_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    stage = {**RECIPE["stages"][0], "steps": 4, "save_steps": 2}
    recipe = write_recipe(tmp_path, stages=[stage])
    run(recipe, tmp_path / "whole", workers=0)
    compute_loss, calls = StageTrainer.compute_loss, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return compute_loss(self, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "compute_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "parts", workers=0)
    assert not (tmp_path / "parts" / "tower" / build.WEIGHTS).exists()
    run(recipe, tmp_path / "parts", workers=0)
    assert len(calls) == 4 + 2  # steps 3 and 4 again, from the checkpoint at step 2
    whole, parts = (load_file(tmp_path / name / "tower" / build.WEIGHTS) for name in ("whole", "parts"))
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=1e-6), name
