"""A stage starts from a checkpoint or a language model, with the weights, tokens and config.json that it needs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN
from llava.errors import CheckpointError, UsageError
from llava.model.checkpoint import LoadedModel
from llava.model.conversion import convert
from llava.train.recipe import Lora, Quantization, TuningStage
from llava.train.starting_model import build_start, open_start
from tests.tiny_checkpoints import write_llava_1_5, write_llava_1_6
from tests.tiny_configs import PINPOINTS
from tests.tiny_starts import ANYRES, make_lesson, make_stage, make_tower, read_config, write_language_model
from tests.tiny_starts import write_projector as write_projector_file


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with language models, a tower, a projector and LLaVA checkpoints of both kinds; not to be changed."""
    folder = tmp_path_factory.mktemp("starts")
    make_tower(folder / "tower")
    for family in ("llama", "mistral", "qwen2"):
        write_language_model(folder / family, family)
    write_language_model(folder / "tied", "qwen2", tie_word_embeddings=True)
    write_projector_file(folder / "projector.bin")
    write_llava_1_5(folder / "llava-1.5", make_tower(folder / "tower-1.5"))
    write_llava_1_6(folder / "llava-1.6", mm_vision_tower=str(folder / "tower"))
    return folder


def in_vision(starts: Path, **changes: Any) -> dict[str, Any]:
    return {"mm_vision_tower": str(starts / "tower"), **changes}


def tensors_of(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return dict(loaded.model.state_dict())


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "tied"])
def test_a_language_model_becomes_a_llava_with_its_own_weights_and_the_towers(starts: Path, family: str) -> None:
    loaded = build_start(starts / family, make_stage(in_vision(starts, **ANYRES)))
    tensors, language = tensors_of(loaded), load_file(starts / family / "model.safetensors")
    for name, tensor in language.items():
        assert torch.equal(tensors[name], tensor.float()), name
    tower = torch.load(starts / "tower/pytorch_model.bin", weights_only=True)
    layer = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(tensors[f"model.vision_tower.vision_tower.{layer}"], tower[layer])
    assert loaded.spec.tiling.pinpoints == tuple(map(tuple, PINPOINTS))
    assert (loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight) == (family == "tied")
    assert loaded.model(**make_lesson(loaded.model)).loss.isfinite()


def test_new_weights_come_from_the_stages_seed_and_nothing_else(starts: Path) -> None:
    stage = make_stage(in_vision(starts, **ANYRES), lora=Lora(rank=2))
    drawn = []
    for noise, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        tensors = tensors_of(build_start(starts / "llama", dataclasses.replace(stage, seed=seed)))
        assert torch.equal(torch.get_rng_state(), before), "the global state is as it was"
        new = ("mm_projector", "image_newline", "lora_A")
        drawn.append({name: tensor for name, tensor in tensors.items() if any(word in name for word in new)})
    assert len(drawn[0]) == 4 + 1 + 14
    for name, tensor in drawn[0].items():
        assert torch.equal(tensor, drawn[1][name]), name
        assert not torch.equal(tensor, drawn[2][name]), name


def test_a_projector_learnt_before_is_taken_and_only_the_newline_is_new(starts: Path, tmp_path: Path) -> None:
    vision = in_vision(starts, **ANYRES, pretrain_mm_mlp_adapter=str(starts / "projector.bin"))
    loaded = build_start(starts / "llama", make_stage(vision))
    stored = torch.load(starts / "projector.bin", weights_only=True)
    for name, tensor in stored.items():
        assert torch.equal(tensors_of(loaded)[name], tensor)
    assert loaded.model.model.image_newline.std() > 0
    newline = torch.arange(32.0)
    file = tmp_path / "mm_projector.safetensors"
    save_file({**stored, "model.image_newline": newline}, file)
    loaded = build_start(starts / "llama", make_stage({**vision, "pretrain_mm_mlp_adapter": str(file)}))
    assert torch.equal(loaded.model.model.image_newline, newline)
    loaded = build_start(starts / "llava-1.5", make_stage({"pretrain_mm_mlp_adapter": str(file)}))
    assert torch.equal(tensors_of(loaded)["model.mm_projector.2.bias"], stored["model.mm_projector.2.bias"])


def test_a_projector_of_another_shape_is_refused_with_both_shapes(starts: Path, tmp_path: Path) -> None:
    file = tmp_path / "mm_projector.bin"
    write_projector_file(file, hidden_size=48)
    vision = in_vision(starts, pretrain_mm_mlp_adapter=str(file))
    with pytest.raises(CheckpointError, match=r"0\.weight \[48, 16\].*mlp2x_gelu .*0\.weight \[32, 16\]"):
        open_start(starts / "llama", make_stage(vision))
    with pytest.raises(CheckpointError, match=r"2\.weight \[48, 48\], but mm_projector_type linear"):
        open_start(starts / "llama", make_stage({**vision, "mm_projector_type": "linear"}))
    torch.save({"model.embed_tokens.weight": torch.ones(2, 32)}, file)
    with pytest.raises(CheckpointError, match="holds no projector"):
        open_start(starts / "llama", make_stage(vision))
    with pytest.raises(UsageError, match=r"nowhere\.bin .*does not exist"):
        open_start(starts / "llama", make_stage({**vision, "pretrain_mm_mlp_adapter": "nowhere.bin"}))


def test_config_json_has_the_keys_that_the_originals_write(starts: Path) -> None:
    stage = make_stage(in_vision(starts), train=("projector",), lr=1e-3, lr_scales={"projector": 0.5}, max_length=300)
    config = build_start(starts / "llama", stage).model.config.to_dict()
    assert config["model_type"] == "llava_llama"
    wanted = {
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "square",
        "mm_hidden_size": 16,
        "mm_patch_merge_type": "flat",
        "mm_projector_lr": 5e-4,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": str(starts / "tower"),
        "tokenizer_model_max_length": 300,
        "tokenizer_padding_side": "right",
        "tune_mm_mlp_adapter": True,
        "use_mm_proj": True,
    }
    assert {key: config[key] for key in wanted} == wanted
    assert "unfreeze_mm_vision_tower" not in config
    parts = ("vision_tower", "language_model")
    config = build_start(starts / "llama", make_stage(in_vision(starts), train=parts)).model.config.to_dict()
    assert config["unfreeze_mm_vision_tower"]
    assert config["freeze_mm_mlp_adapter"]
    assert not config["tune_mm_mlp_adapter"]


def test_a_checkpoint_keeps_what_the_stage_does_not_change(starts: Path) -> None:
    loaded = build_start(starts / "llava-1.5", make_stage())
    before = read_config(starts / "llava-1.5")
    for key in ("image_aspect_ratio", "mm_projector_type", "mm_vision_select_layer", "mm_vision_tower"):
        assert getattr(loaded.model.config, key) == before[key]
    loaded = build_start(starts / "llava-1.5", make_stage(ANYRES))
    assert loaded.spec.tiling.merge == "spatial_unpad"
    assert loaded.model.model.image_newline.isfinite().all(), "a 1.5 has none, so it is new"
    assert loaded.model(**make_lesson(loaded.model)).loss.isfinite()


def test_the_tower_that_was_trained_is_the_tower_that_is_loaded(starts: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = str(starts / "tower-1.5")
    loaded = build_start(starts / "llava-1.6", make_stage({"mm_vision_tower": other}))
    inside = load_file(starts / "llava-1.6/model.safetensors")
    name = "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(tensors_of(loaded)[name], inside[name].float())
    assert "weights inside: they are used" in caplog.text


def test_a_checkpoint_in_llava_hfs_layout_is_trained_as_it_is_or_not_at_all(starts: Path, tmp_path: Path) -> None:
    convert(starts / "llava-1.6", tmp_path / "hf", "hf")
    same = {key: value for key, value in ANYRES.items() if key != "image_grid_pinpoints"}
    one = build_start(tmp_path / "hf", make_stage(same))
    other = build_start(starts / "llava-1.6", make_stage())
    for name, tensor in tensors_of(other).items():
        assert torch.equal(tensors_of(one)[name][: len(tensor)], tensor)
    with pytest.raises(UsageError, match=r"image_aspect_ratio: pad.*says anyres.*--to original"):
        open_start(tmp_path / "hf", make_stage({"image_aspect_ratio": "pad"}))


@pytest.mark.parametrize("start", ["llama", "tied", "llava-1.6"])
def test_new_tokens_get_the_mean_row_whatever_was_drawn_before(starts: Path, start: str) -> None:
    vision = {} if start == "llava-1.6" else in_vision(starts)
    before = build_start(starts / start, make_stage(vision))
    loaded = build_start(
        starts / start, make_stage({**vision, "mm_use_im_start_end": True, "mm_use_im_patch_token": True})
    )
    num = len(before.tokenizer)
    assert loaded.tokenizer.convert_tokens_to_ids(["<im_patch>", "<im_start>", "<im_end>"]) == [num, num + 1, num + 2]
    assert loaded.spec.vocab_size == loaded.model.config.vocab_size == max(400, num + 3)
    for table in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before.model, table)().weight, getattr(loaded.model, table)().weight
        assert torch.equal(new[:num], old[:num])
        torch.testing.assert_close(new[num : num + 3], old[:num].mean(0).expand(3, -1))
    assert loaded.model.config.mm_use_im_start_end


def test_tokens_for_an_images_ends_and_an_ordinary_projector_go_together(starts: Path, tmp_path: Path) -> None:
    vision = in_vision(starts, mm_use_im_start_end=True, pretrain_mm_mlp_adapter=str(starts / "projector.bin"))
    loaded = build_start(starts / "llama", make_stage(vision))  # the original ends with a KeyError
    ids = loaded.tokenizer.convert_tokens_to_ids([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN])
    embeddings = loaded.model.get_input_embeddings().weight
    torch.testing.assert_close(embeddings[ids[0]], embeddings[: ids[0]].mean(0))
    rows = torch.randn(2, 32)
    stored = torch.load(starts / "projector.bin", weights_only=True)
    torch.save({**stored, "model.embed_tokens.weight": rows}, tmp_path / "rows.bin")
    loaded = build_start(
        starts / "llama", make_stage({**vision, "pretrain_mm_mlp_adapter": str(tmp_path / "rows.bin")})
    )
    assert torch.equal(loaded.model.get_input_embeddings().weight[ids], rows)


@pytest.mark.parametrize(
    ("start", "templates", "expected"),
    [
        ("llama", (), "llava_v1"),
        ("llama", ("plain",), "llava_v1"),
        ("llama", ("plain", "llava_llama_2"), "llava_llama_2"),
        ("mistral", (), "mistral_instruct"),
        ("qwen2", (), "qwen_1_5"),
        ("llava-1.6", ("mpt",), "mpt"),
    ],
)
def test_the_template_is_the_stages_or_that_of_the_language_model(
    starts: Path, start: str, templates: tuple[str, ...], expected: str
) -> None:
    stage = make_stage({} if "llava" in start else in_vision(starts), data=templates)
    loaded = build_start(starts / start, stage)
    assert loaded.template == loaded.model.config.conversation_template == expected


def test_a_language_models_chat_template_says_which_turns_it_knows(starts: Path, tmp_path: Path) -> None:
    write_language_model(tmp_path / "lm")
    for text, expected in (("{{'<|im_start|>'}}", "chatml_direct"), ("{{'[INST] <<SYS>>'}}", "llava_llama_2")):
        (tmp_path / "lm/chat_template.jinja").write_text(text, encoding="utf-8")
        assert build_start(tmp_path / "lm", make_stage(in_vision(starts))).template == expected


def test_padding_is_the_unknown_token_as_in_the_originals(starts: Path, tmp_path: Path) -> None:
    write_language_model(tmp_path / "lm")
    path = tmp_path / "lm/tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, "pad_token": "</s>", "padding_side": "left"}), encoding="utf-8")
    tokenizer = build_start(tmp_path / "lm", make_stage(in_vision(starts))).tokenizer
    assert (tokenizer.pad_token, tokenizer.padding_side) == ("<unk>", "right")


@pytest.mark.parametrize(("follows", "kept"), [("", "</s>"), ("llava-1.5", "<unk>")])
def test_padding_that_config_json_names_is_kept_where_no_original_is_followed(
    starts: Path, tmp_path: Path, follows: str, kept: str
) -> None:
    write_language_model(tmp_path / "lm")
    for name, said in (("tokenizer_config.json", {"pad_token": "</s>"}), ("config.json", {"pad_token_id": 2})):
        path = tmp_path / "lm" / name
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **said}), encoding="utf-8")
    loaded = build_start(tmp_path / "lm", make_stage(in_vision(starts), compatible_with=follows))
    assert loaded.tokenizer.pad_token == kept
    ids = {loaded.model.config.pad_token_id, loaded.model.generation_config.pad_token_id}
    assert ids == {loaded.tokenizer.pad_token_id}


def test_settings_that_cannot_be_saved_are_mended_before_the_first_step(starts: Path) -> None:
    assert json.loads((starts / "llama/generation_config.json").read_text())["temperature"] == 0.9
    generation = build_start(starts / "llama", make_stage(in_vision(starts))).model.generation_config
    generation.validate(strict=True)


WRONG: dict[str, tuple[str, TuningStage, str]] = {
    "no tower": (
        "llama",
        make_stage(),
        r"a language model alone \(llama\): name the vision tower.*vision\.mm_vision_t",
    ),
    "another projector type": (
        "llava-1.5",
        make_stage({"mm_projector_type": "linear"}),
        "vision.mm_projector_type: linear, but .*of the type mlp2x_gelu",
    ),
    "no pinpoints": (
        "llava-1.5",
        make_stage({"image_aspect_ratio": "anyres"}),
        "anyres, which needs vision.image_grid_pinpoints",
    ),
    "quantization without LoRA": ("llava-1.5", make_stage(quantization=Quantization()), "add lora"),
    "quantization without a GPU": (
        "llava-1.5",
        make_stage(quantization=Quantization(), lora=Lora()),
        "needs an NVIDIA GPU and bitsandbytes: leave quantization out",
    ),
    "rank": ("llava-1.5", make_stage(lora=Lora(rank=0)), "lora.rank is 0"),
    "dropout": ("llava-1.5", make_stage(lora=Lora(dropout=1.0)), "lora.dropout is 1.0"),
    "bias": ("llava-1.5", make_stage(lora=Lora(bias="some")), "lora.bias cannot be 'some'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_stage_that_does_not_fit_its_start_is_refused_before_weights_are_read(
    starts: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    start, stage, message = WRONG[case]
    with pytest.raises(UsageError, match=message) as caught:
        open_start(starts / start, stage)
    assert str(caught.value).startswith("Stage 'tune'")


def test_weights_that_are_quantized_already_are_refused_with_a_remedy(starts: Path, tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "four", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(UsageError, match=r"quantized already \(bitsandbytes\).*16-bit"):
        open_start(tmp_path / "four", make_stage(lora=Lora(), quantization=Quantization()))


def test_a_language_model_with_a_fault_is_not_just_called_a_language_model(starts: Path, tmp_path: Path) -> None:
    tensors = write_language_model(tmp_path / "lm")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "lm/model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors are missing: model\.layers\.1\.mlp\.up_proj\.weight"):
        open_start(tmp_path / "lm", make_stage(in_vision(starts)))


def test_another_kind_of_language_model_is_named(starts: Path, tmp_path: Path) -> None:
    write_language_model(tmp_path / "lm", model_type="llama", architectures=["GemmaForCausalLM"])
    config = {**read_config(tmp_path / "lm"), "model_type": "gemma"}
    (tmp_path / "lm/config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match="gemma"):
        open_start(tmp_path / "lm", make_stage(in_vision(starts)))
