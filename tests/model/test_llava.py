from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from llava.constants import IGNORE_INDEX
from llava.errors import UsageError
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from llava.model.language_model.llava_qwen import LlavaQwenConfig
from llava.model.llava_arch import LlavaMetaForCausalLM
from tests.tiny import (
    DECODER,
    FAMILIES,
    ROWS,
    SIZES,
    SLOT,
    SQUARE,
    TILES,
    TOWER,
    make_config,
    make_labels,
    make_model,
    make_pixels,
    pad,
)

# ---------------------------------------------------------------------------------------------- what the model is


def read_tree(text: str) -> dict[str, str]:
    """The modules that a printed model shows: path -> description. Of numbered layers the first and the last."""
    modules: dict[str, str] = {}
    open_paths: list[list[str]] = [[""]]
    for line in text.splitlines()[1:]:
        match = re.match(r"( *)\((.+?)\): (?:\d+ x )?(.+?)(\()?$", line)
        if match is None:
            continue
        depth = len(match[1]) // 2
        names = match[2].split("-") if re.fullmatch(r"\d+-\d+", match[2]) else [match[2]]
        paths = [f"{parent}{name}." for parent in open_paths[depth - 1] for name in names]
        open_paths[depth:] = [paths]
        modules.update({path.rstrip("."): match[3] for path in paths})
    return modules


def describe(module: nn.Module) -> str:
    name = type(module).__name__
    if isinstance(module, (nn.Linear, nn.Embedding, nn.Conv2d, nn.GELU, nn.LayerNorm)):
        return f"{name}({module.extra_repr()})".replace("elementwise_affine=True, bias=True", "elementwise_affine=True")
    return name


@pytest.fixture(scope="module")
def released_size() -> Any:
    config = LlavaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        pad_token_id=0,
        mm_vision_tower="openai/clip-vit-large-patch14-336",
        unfreeze_mm_vision_tower=True,
        mm_hidden_size=1024,
        mm_projector_type="mlp2x_gelu",
        mm_vision_select_layer=-2,
    )
    with torch.device("meta"):
        return LlavaLlamaForCausalLM(config)


def test_the_printed_model_is_the_originals(released_size: Any) -> None:
    expected = read_tree((Path(__file__).parent / "original_tree.txt").read_text())
    shown = read_tree(str(released_size))
    # Two classes have new names since Transformers 4.37, and the rotary embedding is shared by all layers.
    renamed = {"LlamaSdpaAttention": "LlamaAttention", "SiLU()": "SiLUActivation()"}
    expected = {path: renamed.get(kind, kind) for path, kind in expected.items() if not path.endswith("rotary_emb")}
    assert len(expected) > 60
    assert shown.pop("model.rotary_emb") == "LlamaRotaryEmbedding()"
    assert set(shown) == set(expected)
    assert [path for path in shown if path in expected] == list(expected), "in the same order"
    for path, kind in expected.items():
        module = released_size.get_submodule(path)
        assert describe(module) == kind.removesuffix("()"), path


@pytest.mark.parametrize("unfrozen", [False, True])
def test_a_model_without_memory_has_its_whole_tree_wherever_its_tower_is_stored(unfrozen: bool) -> None:
    eyes = {"mm_vision_config": None, "mm_vision_tower": "openai/clip-vit-large-patch14-336", "mm_hidden_size": 1024}
    config = make_config(**eyes, unfreeze_mm_vision_tower=unfrozen)
    with torch.device("meta"):
        model = LlavaLlamaForCausalLM(config)
    assert "model.vision_tower.vision_tower.vision_model.encoder.layers.23.mlp.fc2.bias" in model.state_dict()
    tower = model.get_vision_tower()
    assert tower is not None
    assert tower.is_loaded is unfrozen
    if not unfrozen:  # with memory, the layers wait for their weights
        assert not list(LlavaLlamaForCausalLM(config).get_vision_tower().parameters())


def test_a_model_read_from_files_without_a_tower_has_no_random_one(tmp_path: Path) -> None:
    config = make_config(mm_vision_config=None, mm_vision_tower="openai/clip-vit-large-patch14-336", mm_hidden_size=32)
    LlavaLlamaForCausalLM(config).save_pretrained(tmp_path)
    tower = LlavaLlamaForCausalLM.from_pretrained(tmp_path).get_vision_tower()
    assert tower is not None
    assert not tower.is_loaded
    assert not list(tower.parameters())


def test_the_parameters_are_the_released_checkpoints(released_size: Any) -> None:
    names = set(released_size.state_dict())
    language = {name for name in names if "vision_tower" not in name and "mm_projector" not in name}
    assert len(language) == 3 + 32 * 9
    assert {name for name in names if "mm_projector" in name} == {
        f"model.mm_projector.{layer}.{leaf}" for layer in (0, 2) for leaf in ("weight", "bias")
    }
    tower = {name for name in names if "vision_tower" in name}
    assert len(tower) == 3 + 4 + 24 * 16
    assert "model.vision_tower.vision_tower.vision_model.embeddings.class_embedding" in tower
    assert "model.vision_tower.vision_tower.vision_model.encoder.layers.23.self_attn.out_proj.bias" in tower
    assert sum(p.numel() for name, p in released_size.named_parameters() if name not in tower) == 6_759_395_328


@pytest.mark.parametrize("merge", ["flat", "spatial", "spatial_unpad"])
def test_the_newline_exists_where_padding_is_left_out(merge: str) -> None:
    model = make_model(mm_patch_merge_type=merge)
    assert hasattr(model.model, "image_newline") == (merge == "spatial_unpad")
    if merge == "spatial_unpad":
        assert model.model.image_newline.shape == (48,)
        assert 0.05 < float(model.model.image_newline.detach().std()) < 0.3, "about 1 / sqrt(hidden_size)"


def test_a_newline_that_a_checkpoint_lacks_begins_like_a_new_one(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if "newline" not in k})
    again, info = LlavaLlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"model.image_newline"}
    assert 0.05 < float(again.model.image_newline.detach().std()) < 0.3


def test_a_model_that_names_no_tower_is_a_language_model() -> None:
    model = LlavaLlamaForCausalLM(LlavaConfig(**make_config("llama").to_dict() | {"mm_vision_config": None})).eval()
    assert model.get_vision_tower() is None
    ids = torch.tensor([[1, 5, 6]])
    assert model(input_ids=ids).logits.shape == (1, 3, 120)
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] <= 3


# ------------------------------------------------------------------------------------------------ files and classes


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_comes_back_whole_under_the_original_names(family: str, tmp_path: Path) -> None:
    model = make_model(family)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is type(model)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    position_ids = again.get_vision_tower().vision_tower.vision_model.embeddings.position_ids
    assert position_ids.tolist() == [list(range(17))]
    assert json.loads((tmp_path / "config.json").read_text())["mm_vision_config"] == TOWER
    again.save_pretrained(tmp_path / "again")
    with safe_open(tmp_path / "again" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict()), "a loaded model is saved under the same names"


def test_the_tower_of_a_loaded_model_is_frozen(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    model = LlavaLlamaForCausalLM.from_pretrained(tmp_path)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert frozen == {name for name, _ in model.named_parameters() if "vision_tower" in name}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_rotary_frequencies_stay_exact_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    exact = make_model().model.rotary_emb.inv_freq
    assert not torch.equal(exact, exact.to(dtype).float())
    for model in (make_model().to(dtype), make_model().half(), make_model().to("cpu", dtype)):
        assert model.dtype in (dtype, torch.float16)
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32
        assert torch.equal(model.model.rotary_emb.inv_freq, exact)
        assert torch.equal(model.model.rotary_emb.original_inv_freq, exact)
    make_model().save_pretrained(tmp_path)
    loaded = LlavaLlamaForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    assert torch.equal(loaded.model.rotary_emb.inv_freq, exact)
    assert torch.equal(nn.ModuleDict({"inside": make_model()}).to(dtype)["inside"].model.rotary_emb.inv_freq, exact)


def test_a_model_without_memory_can_be_given_some() -> None:
    with torch.device("meta"):
        model = make_model()
    assert model.to_empty(device="cpu").model.rotary_emb.inv_freq.dtype == torch.float32


def test_registering_the_classes_once_more_is_no_error() -> None:
    AutoConfig.register("llava_qwen", LlavaQwenConfig)
    AutoConfig.register("llava_llama", LlavaConfig)
    AutoModelForCausalLM.register(LlavaConfig, LlavaLlamaForCausalLM)
    assert AutoConfig.for_model("llava_qwen").__class__ is LlavaQwenConfig
    assert type(AutoConfig.for_model("llava")).__module__.startswith("transformers.")


def test_importing_after_someone_registered_the_names_is_no_error() -> None:
    code = """
        from transformers import AutoConfig, LlamaConfig
        class Other(LlamaConfig):
            model_type = "llava_llama"
        AutoConfig.register("llava_llama", Other)
        theirs = type(AutoConfig.for_model("llava"))
        from llava.model import LlavaConfig
        assert type(AutoConfig.for_model("llava_llama")) is LlavaConfig
        assert type(AutoConfig.for_model("llava")) is theirs
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


# ------------------------------------------------------------------------------------------------------- the merge


def test_the_merge_returns_what_it_was_given_in_the_originals_order() -> None:
    model = make_model()
    batch = pad(ROWS)
    pixels = make_pixels(*TILES)
    mask = batch["attention_mask"].to(torch.int32)
    positions = torch.arange(mask.shape[1])[None].expand_as(mask)
    result = model.prepare_inputs_labels_for_multimodal(
        batch["input_ids"], positions, mask, "a cache", make_labels(batch), pixels, SIZES
    )
    ids, position_ids, out_mask, cache, embeds, labels = result
    counts = [sum(model.encode_and_merge([p], [s])[1]) for p, s in zip(pixels, SIZES, strict=True)]
    lengths = [5 + counts[0] + counts[1], 2 + counts[2], 4]
    assert ids is None
    assert cache == "a cache"
    assert out_mask.dtype == torch.int32
    assert out_mask.sum(1).tolist() == lengths
    assert embeds.shape == (3, max(lengths), 48)
    assert [row[:length].tolist() for row, length in zip(position_ids, lengths, strict=True)] == [
        list(range(length)) for length in lengths
    ]
    assert [row[row != IGNORE_INDEX].tolist() for row in labels] == [[5, 7, 9, 11], [6], [8, 9, 10]]


def test_what_is_not_given_is_not_returned_unless_it_is_needed() -> None:
    model = make_model()
    ids = torch.tensor([[1, SLOT, 6]])
    pixels = make_pixels(5)
    _, position_ids, mask, _, _, labels = model.prepare_inputs_labels_for_multimodal(
        ids, None, None, None, None, pixels, SIZES[:1]
    )
    assert (position_ids, mask, labels) == (None, None, None)
    two = torch.tensor([[1, SLOT, 6], [1, SLOT, 6]])
    _, position_ids, mask, *_ = model.prepare_inputs_labels_for_multimodal(
        two, None, None, None, None, make_pixels(5, 3), SIZES[:2]
    )
    assert position_ids is None
    assert mask.dtype == torch.bool
    assert not mask.all()
    model.config.tokenizer_padding_side = "left"
    _, position_ids, mask, *_ = model.prepare_inputs_labels_for_multimodal(
        two, None, None, None, None, make_pixels(5, 3), SIZES[:2]
    )
    assert mask[:, -1].all()
    assert position_ids[1][mask[1]][0] == 0


def test_text_and_single_new_tokens_pass_through() -> None:
    model = make_model()
    ids = torch.tensor([[1, 5, 6]])
    assert model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, None) == (
        ids,
        None,
        None,
        None,
        None,
        None,
    )
    step = torch.tensor([[5]])
    assert model.prepare_inputs_labels_for_multimodal(step, None, None, "past", None, make_pixels(3))[0] is step


def test_an_empty_list_of_images_is_none() -> None:
    model = make_model()
    ids = torch.tensor([[1, 5, 6]])
    assert torch.equal(model(input_ids=ids, images=[]).logits, model(input_ids=ids).logits)
    with pytest.raises(UsageError, match="1 image slots, but 0 images"):
        model.generate(torch.tensor([[1, SLOT]]), images=[])


def test_a_slot_without_images_is_refused_with_both_numbers() -> None:
    model = make_model()
    with pytest.raises(UsageError, match="2 image slots, but 0 images"):
        model(input_ids=torch.tensor([[1, SLOT, 5, SLOT]]))
    with pytest.raises(UsageError, match="1 image slots, but 0 images"):
        model.generate(torch.tensor([[SLOT]]))
    with pytest.raises(UsageError, match="1 image slots, but 2 images"):
        model.generate(torch.tensor([[1, SLOT]]), images=make_pixels(5, 3), image_sizes=SIZES[:2])


def test_images_of_one_tile_each_are_taken_as_they_come() -> None:
    model = make_model()
    ids = torch.tensor([[1, SLOT, 6], [1, 5, SLOT]])
    pixels = torch.cat(make_pixels(1, 1))
    *_, embeds, _ = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, pixels)
    assert embeds.shape == (2, 18, 48), "16 features and no newline, whatever the merge"
    torch.testing.assert_close(embeds[1, 2:], model.encode_images(pixels[1:])[0])


def test_equal_images_may_come_stacked() -> None:
    model = make_model()
    ids = torch.tensor([[1, SLOT, 6], [1, 5, SLOT]])
    pixels = make_pixels(5, 5)
    sizes = torch.tensor([[50, 40], [40, 50]])
    stacked = model(input_ids=ids, images=torch.stack(pixels), image_sizes=sizes)
    listed = model(input_ids=ids, images=pixels, image_sizes=[(50, 40), (40, 50)])
    torch.testing.assert_close(stacked.logits, listed.logits)


def test_all_images_of_a_batch_are_encoded_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    seen = []
    encode = model.encode_images
    monkeypatch.setattr(model, "encode_images", lambda images: (seen.append(len(images)), encode(images))[1])
    model(**pad(ROWS), images=make_pixels(*TILES), image_sizes=SIZES)
    assert seen == [sum(TILES)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pixels_of_any_precision_are_taken(dtype: torch.dtype) -> None:
    model = make_model()
    ids = torch.tensor([[1, SLOT, 6]])
    pixels = [image.to(dtype) for image in make_pixels(5)]
    expected = model(input_ids=ids, images=[image.float() for image in pixels], image_sizes=SIZES[:1])
    torch.testing.assert_close(model(input_ids=ids, images=pixels, image_sizes=SIZES[:1]).logits, expected.logits)


def test_rows_are_cut_at_the_models_length_only_if_it_is_asked_for() -> None:
    model = make_model(tokenizer_model_max_length=20)
    arguments = {**pad(ROWS), "images": make_pixels(*TILES), "image_sizes": SIZES}
    whole = model(**arguments).logits
    model.config.truncate_to_model_max_length = True
    cut = model(**arguments).logits
    assert whole.shape[1] > 20
    assert cut.shape[1] == 20
    torch.testing.assert_close(cut, whole[:, :20])


@pytest.mark.parametrize("target", ["class", "instance"])
def test_a_replaced_merge_is_used_by_forward_and_generate(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    calls = []
    original = LlavaMetaForCausalLM.prepare_inputs_labels_for_multimodal

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(args))
        return original(self, *args, **kwargs)

    if target == "class":
        monkeypatch.setattr(LlavaMetaForCausalLM, "prepare_inputs_labels_for_multimodal", counted)
    else:
        monkeypatch.setattr(model, "prepare_inputs_labels_for_multimodal", counted.__get__(model))
    ids = torch.tensor([[1, SLOT, 6]])
    model(input_ids=ids, images=make_pixels(5), image_sizes=SIZES[:1])
    assert len(calls) == 1
    model.generate(ids, images=make_pixels(5), image_sizes=SIZES[:1], max_new_tokens=2, do_sample=False)
    assert len(calls) > 1


def test_a_replaced_encoder_may_drop_features(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(**SQUARE)
    original = LlavaMetaForCausalLM.encode_images
    ids = torch.tensor([[1, SLOT, 6]])
    (pixels,) = make_pixels(1)
    whole = model.generate(ids, images=pixels, max_new_tokens=4, do_sample=False)
    monkeypatch.setattr(LlavaMetaForCausalLM, "encode_images", lambda self, images: original(self, images)[:, ::4])
    for images in (pixels, [pixels]):
        assert model(input_ids=ids, images=images).logits.shape[1] == 2 + 4
        assert not torch.equal(model.generate(ids, images=images, max_new_tokens=4, do_sample=False), whole)


# -------------------------------------------------------------------------------------------------------- answering


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("config_side", ["right", "left"])
def test_a_row_is_answered_alone_as_in_a_mixed_batch(family: str, side: str, config_side: str) -> None:
    model = make_model(family, tokenizer_padding_side=config_side)
    greedy = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    pixels = make_pixels(*TILES)
    together = model.generate(pad(ROWS, side)["input_ids"], images=pixels, image_sizes=SIZES, **greedy | pad_mask(side))
    first, next_image = [], 0
    for row in ROWS:
        num = row.count(SLOT)
        shown = slice(next_image, next_image + num)
        next_image += num
        images = {"images": pixels[shown], "image_sizes": SIZES[shown]} if num else {}
        first.append(model.generate(torch.tensor([row]), **images, **greedy)[0])
    assert together.tolist() == [answer.tolist() for answer in first]
    assert len({tuple(answer) for answer in together.tolist()}) == 3, "three different answers, or this shows nothing"


def pad_mask(side: str) -> dict[str, torch.Tensor]:
    return {"attention_mask": pad(ROWS, side)["attention_mask"]}


def test_a_blank_image_for_the_text_only_row_changes_nothing() -> None:
    model = make_model()
    batch = pad(ROWS)
    without = model(**batch, images=make_pixels(*TILES), image_sizes=SIZES)
    blank = torch.zeros(1, 3, 28, 28)
    with_blank = model(**batch, images=[*make_pixels(*TILES), blank], image_sizes=[*SIZES, (28, 28)])
    torch.testing.assert_close(without.logits, with_blank.logits)


def test_generation_agrees_with_repeated_forward_passes() -> None:
    model = make_model()
    ids = torch.tensor([[1, 5, SLOT, 7]])
    pixels = make_pixels(5)
    generated = model.generate(ids, images=pixels, image_sizes=SIZES[:1], max_new_tokens=6, do_sample=False)[0]
    for token in generated.tolist():
        logits = model(input_ids=ids, images=pixels, image_sizes=SIZES[:1]).logits
        assert int(logits[0, -1].argmax()) == token
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_only_new_tokens_are_returned_also_for_text() -> None:
    model = make_model()
    ids = torch.tensor([[1, 5, 6, 7]])
    limits = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    text = model.generate(ids, **limits)
    assert text.shape == (1, 3)
    assert torch.equal(text, model.generate(input_ids=ids, **limits))
    full = super(LlavaMetaForCausalLM, model).generate(ids, **limits)
    assert torch.equal(full, torch.cat([ids, text], dim=1))


def test_beams_and_samples_are_drawn_from_the_same_prompt() -> None:
    model = make_model()
    arguments = {"images": make_pixels(5), "image_sizes": SIZES[:1], "max_new_tokens": 5}
    ids = torch.tensor([[1, SLOT, 7]])
    beams = model.generate(ids, num_beams=3, num_return_sequences=2, do_sample=False, **arguments)
    assert len(beams) == 2
    assert not torch.equal(beams[0], beams[1])
    torch.manual_seed(3)
    sampled = model.generate(ids, do_sample=True, temperature=1.5, num_return_sequences=4, **arguments)
    assert len({tuple(row) for row in sampled.tolist()}) > 1
    torch.manual_seed(3)
    again = model.generate(ids, do_sample=True, temperature=1.5, num_return_sequences=4, **arguments)
    assert torch.equal(sampled, again)


def test_answers_can_be_streamed_as_they_come() -> None:
    model = make_model()
    ids = torch.tensor([ROWS[1]])
    arguments = {"images": make_pixels(5), "image_sizes": SIZES[:1], "max_new_tokens": 4, "do_sample": False}
    streamed: list[int] = []
    streamer = SimpleNamespace(put=lambda value: streamed.extend(value.flatten().tolist()), end=lambda: None)
    with torch.inference_mode():
        answer = model.generate(ids, attention_mask=ids != 0, streamer=streamer, **arguments)
    assert streamed == answer[0].tolist()


def test_generate_takes_ids_or_merged_embeddings_and_not_nothing() -> None:
    model = make_model()
    with pytest.raises(UsageError, match="token ids"):
        model.generate(torch.tensor([[1, 5]]), inputs_embeds=torch.zeros(1, 2, 48))
    with pytest.raises(UsageError, match="token ids"):
        model.generate(images=make_pixels(5))


def test_assisted_decoding_is_refused_whoever_drafts() -> None:
    model, other = make_model(**SQUARE), make_model(seed=1, **SQUARE)
    plain = LlamaForCausalLM(LlamaConfig(**DECODER)).eval()
    prompt, greedy = torch.tensor([[1, 5, 7]]), {"max_new_tokens": 2, "do_sample": False}
    with pytest.raises(UsageError, match="assistant_model cannot be used"):
        model.generate(torch.tensor([[1, SLOT, 7]]), images=make_pixels(1), assistant_model=plain, **greedy)
    with pytest.raises(UsageError, match="A LLaVA cannot be the assistant_model of another model"):
        plain.generate(prompt, assistant_model=other, **greedy)
