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
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, UsageError
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from llava.model.language_model.llava_qwen import LlavaQwenConfig
from llava.model.llava_arch import LlavaMetaForCausalLM
from tests.tiny import FAMILIES, SQUARE, TOWER, make_config, make_model, make_pixels

SLOT = IMAGE_TOKEN_INDEX
# Two pictures in a row of text, one picture in a shorter row, and text alone.
ROWS = [[1, 5, SLOT, 7, SLOT, 9, 11], [1, SLOT, 6], [1, 8, 9, 10]]
TILES = (5, 3, 4)
SIZES = [(50, 40), (20, 28), (80, 20)]


def pad(rows: list[list[int]], side: str = "right") -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    gaps = [[0] * (width - len(row)) for row in rows]
    ids = [row + gap if side == "right" else gap + row for row, gap in zip(rows, gaps, strict=True)]
    mask = [
        [1] * len(row) + gap if side == "right" else gap + [1] * len(row) for row, gap in zip(rows, gaps, strict=True)
    ]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def make_labels(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    ids = batch["input_ids"]
    labels = torch.where((ids == SLOT) | (batch["attention_mask"] == 0), IGNORE_INDEX, ids)
    labels[:, 0] = IGNORE_INDEX  # nothing comes before the first token that could foretell it
    return labels


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
    counts = [sum(model.encode_pictures([p], [s])[1]) for p, s in zip(pixels, SIZES, strict=True)]
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


def test_a_slot_without_pictures_is_refused_with_both_numbers() -> None:
    model = make_model()
    with pytest.raises(UsageError, match="2 image slots, but 0 pictures"):
        model(input_ids=torch.tensor([[1, SLOT, 5, SLOT]]))
    with pytest.raises(UsageError, match="1 image slots, but 0 pictures"):
        model.generate(torch.tensor([[SLOT]]))
    with pytest.raises(UsageError, match="1 image slots, but 2 pictures"):
        model.generate(torch.tensor([[1, SLOT]]), images=make_pixels(5, 3), image_sizes=SIZES[:2])


def test_pictures_of_one_tile_each_are_taken_as_they_come() -> None:
    model = make_model()
    ids = torch.tensor([[1, SLOT, 6], [1, 5, SLOT]])
    pixels = torch.cat(make_pixels(1, 1))
    *_, embeds, _ = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, pixels)
    assert embeds.shape == (2, 18, 48), "16 features and no newline, whatever the merge"
    torch.testing.assert_close(embeds[1, 2:], model.encode_images(pixels[1:])[0])


def test_equal_pictures_may_come_stacked() -> None:
    model = make_model()
    ids = torch.tensor([[1, SLOT, 6], [1, 5, SLOT]])
    pixels = make_pixels(5, 5)
    sizes = torch.tensor([[50, 40], [40, 50]])
    stacked = model(input_ids=ids, images=torch.stack(pixels), image_sizes=sizes)
    listed = model(input_ids=ids, images=pixels, image_sizes=[(50, 40), (40, 50)])
    torch.testing.assert_close(stacked.logits, listed.logits)


def test_all_pictures_of_a_batch_are_encoded_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
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
    pixels = [picture.to(dtype) for picture in make_pixels(5)]
    expected = model(input_ids=ids, images=[picture.float() for picture in pixels], image_sizes=SIZES[:1])
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
    first, next_picture = [], 0
    for row in ROWS:
        num = row.count(SLOT)
        shown = slice(next_picture, next_picture + num)
        next_picture += num
        images = {"images": pixels[shown], "image_sizes": SIZES[shown]} if num else {}
        first.append(model.generate(torch.tensor([row]), **images, **greedy)[0])
    assert together.tolist() == [answer.tolist() for answer in first]
    assert len({tuple(answer) for answer in together.tolist()}) == 3, "three different answers, or this shows nothing"


def pad_mask(side: str) -> dict[str, torch.Tensor]:
    return {"attention_mask": pad(ROWS, side)["attention_mask"]}


def test_a_blank_picture_for_the_text_only_row_changes_nothing() -> None:
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


def test_generate_takes_ids_and_nothing_else() -> None:
    model = make_model()
    with pytest.raises(UsageError, match="token ids"):
        model.generate(inputs_embeds=torch.zeros(1, 2, 48))
    with pytest.raises(UsageError, match="token ids"):
        model.generate(images=make_pixels(5))


# --------------------------------------------------------------------------------------------------------- learning


def make_lesson() -> dict[str, Any]:
    batch = pad(ROWS)
    return {**batch, "labels": make_labels(batch), "images": make_pixels(*TILES), "image_sizes": SIZES}


def learn(model: Any, **arguments: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss, and the gradient of every parameter that got one."""
    model.zero_grad()
    loss = model(**{**make_lesson(), **arguments}).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(one: tuple[Any, dict[str, torch.Tensor]], other: tuple[Any, dict[str, torch.Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_loss_is_the_mean_over_all_next_tokens_in_float32() -> None:
    model = make_model()
    lesson = make_lesson()
    *_, labels = model.prepare_inputs_labels_for_multimodal(
        lesson["input_ids"], None, lesson["attention_mask"], None, lesson["labels"], lesson["images"], SIZES
    )
    logits = model(**lesson).logits
    picked = logits[:, :-1].log_softmax(-1).gather(2, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    is_target = labels[:, 1:] != IGNORE_INDEX
    expected = -(picked * is_target).sum() / is_target.sum()
    torch.testing.assert_close(model(**lesson).loss, expected)
    assert model.to(torch.bfloat16)(**lesson).loss.dtype == torch.float32
    # The sum over items counted elsewhere, as a trainer that accumulates gradients asks for it.
    summed = make_model()(**lesson, num_items_in_batch=torch.tensor(100)).loss
    torch.testing.assert_close(summed, expected * is_target.sum() / 100)


def test_everything_but_the_frozen_tower_learns() -> None:
    model = make_model().train()
    _, gradients = learn(model)
    silent = {name for name, _ in model.named_parameters()} - gradients.keys()
    assert silent == {name for name, _ in model.named_parameters() if "vision_tower" in name}
    assert all(gradient.any() for gradient in gradients.values())
    model.get_vision_tower().requires_grad_(True)
    _, gradients = learn(model)
    assert "model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight" in gradients


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_the_targets_alone_teach_the_same(family: str) -> None:
    model = make_model(family).train()
    assert_same(learn(model), learn(model, logits_at_targets_only=True))
    output = model(**make_lesson(), logits_at_targets_only=True)
    num_targets = int((make_lesson()["labels"][:, 1:] != IGNORE_INDEX).sum())
    assert output.logits.shape == (num_targets, 120)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_teaches_the_same(reentrant: bool) -> None:
    model = make_model().train()
    model.get_vision_tower().requires_grad_(True)
    plain = learn(model, use_cache=False)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    checkpointed = learn(model, use_cache=False)
    if reentrant:
        # The reentrant kind needs an input that learns: what comes straight from pixels stays out of the graph.
        plain = (plain[0], {name: plain[1][name] for name in checkpointed[1]})
    assert any("mm_projector" in name for name in checkpointed[1])
    assert_same(plain, checkpointed)


def test_padding_side_and_a_text_only_rows_blank_picture_teach_the_same() -> None:
    model = make_model().train()
    plain = learn(model)
    blank = [*make_pixels(*TILES), torch.zeros(1, 3, 28, 28)]
    assert_same(plain, learn(model, images=blank, image_sizes=[*SIZES, (28, 28)]))
    model.config.tokenizer_padding_side = "left"
    left = learn(model)
    torch.testing.assert_close(left[0], plain[0], atol=1e-5, rtol=1e-5)


def test_a_batch_of_text_reaches_the_projector_through_its_blank_pictures() -> None:
    model = make_model().train()
    ids = torch.tensor([[1, 5, 6], [1, 7, 8]])
    blanks = torch.zeros(2, 3, 28, 28)
    model(input_ids=ids, labels=ids, images=blanks).loss.backward()
    assert model.model.mm_projector[0].weight.grad is not None
    assert not model.model.mm_projector[0].weight.grad.any()


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_last_logits_are_computed_if_only_they_are_wanted(keep: int) -> None:
    model = make_model()
    arguments = {"input_ids": torch.tensor([ROWS[0]]), "images": make_pixels(5, 3), "image_sizes": SIZES[:2]}
    whole = model(**arguments).logits
    torch.testing.assert_close(model(**arguments, logits_to_keep=keep).logits, whole[:, -keep:])


def test_hidden_states_are_given_on_request() -> None:
    output = make_model()(**make_lesson(), output_hidden_states=True)
    assert len(output.hidden_states) == 3
    assert output.hidden_states[-1].shape[:2] == output.logits.shape[:2]
    assert make_model()(**make_lesson(), return_dict=False)[0].ndim == 0, "a tuple that begins with the loss"


def test_transformers_trainer_lowers_the_loss(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    model = make_model()
    before = float(model(**make_lesson()).loss.detach())
    lesson = make_lesson()
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        max_steps=6,
        learning_rate=1e-2,
        remove_unused_columns=False,
        activation_checkpointing=True,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, train_dataset=[0, 0], data_collator=lambda _: lesson)  # type: ignore[arg-type]
    trainer.train()
    assert float(model.eval()(**lesson).loss.detach()) < 0.8 * before


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT asks for it
def test_low_rank_adapters_learn_and_answer() -> None:
    from peft import LoraConfig, get_peft_model

    model = make_model()
    arguments = {"images": make_pixels(5), "image_sizes": SIZES[:1], "max_new_tokens": 4, "do_sample": False}
    ids = torch.tensor([ROWS[1]])
    before = model.generate(ids, **arguments)
    targets = r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    assert torch.equal(adapted.generate(ids, **arguments), before), "adapters begin as zero"
    adapted.train()
    first = adapted(**make_lesson()).loss
    first.backward()
    learning = [name for name, parameter in adapted.named_parameters() if parameter.grad is not None]
    assert learning
    assert all("lora_" in name for name in learning)
    assert adapted.to(torch.bfloat16).base_model.model.model.rotary_emb.inv_freq.dtype == torch.float32


# ------------------------------------------------------------------------------------- giving a language model eyes


def make_text_model() -> Any:
    torch.manual_seed(0)
    plain = {key: value for key, value in make_config().to_dict().items() if not key.startswith(("mm_", "image_"))}
    return LlavaLlamaForCausalLM(LlavaConfig(**plain))


def make_arguments(**changes: Any) -> SimpleNamespace:
    defaults = {
        "vision_tower": "a tower of its own",
        "mm_vision_config": TOWER,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "pretrain_mm_mlp_adapter": None,
        "tune_mm_mlp_adapter": False,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
    }
    return SimpleNamespace(**{**defaults, **changes})


def test_a_language_model_is_given_eyes_and_its_configuration_says_so(tmp_path: Path) -> None:
    model = make_text_model()
    assert model.get_vision_tower() is None
    model.get_model().initialize_vision_modules(make_arguments())
    config = model.config
    assert (config.mm_vision_tower, config.mm_projector_type) == ("a tower of its own", "mlp2x_gelu")
    assert (config.mm_hidden_size, config.mm_vision_select_layer, config.use_mm_proj) == (32, -2, True)
    assert config.mm_patch_merge_type == "spatial_unpad"
    assert model.model.image_newline.requires_grad
    config.image_aspect_ratio, config.image_grid_pinpoints = "anyres", [[28, 56], [56, 28], [56, 56], [84, 28]]
    assert model(**make_lesson()).loss.isfinite()
    model.save_pretrained(tmp_path)
    assert LlavaLlamaForCausalLM.from_pretrained(tmp_path)(**make_lesson()).loss.isfinite()


def test_eyes_that_are_there_are_kept_and_the_projector_is_set_free() -> None:
    model = make_model()
    model.requires_grad_(False)
    tower, projector = model.get_vision_tower(), model.model.mm_projector
    model.get_model().initialize_vision_modules(make_arguments())
    assert model.get_vision_tower() is tower
    assert model.model.mm_projector is projector
    assert all(parameter.requires_grad for parameter in projector.parameters())


def test_under_fsdp_the_tower_stays_out_of_the_module_tree() -> None:
    model = make_text_model()
    model.get_model().initialize_vision_modules(make_arguments(), fsdp=["full_shard"])
    assert not any("vision_tower" in name for name, _ in model.named_parameters())
    assert model.get_vision_tower().is_loaded
    assert model.encode_images(make_pixels(1)[0]).shape == (1, 16, 48)


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_a_projector_learnt_before_is_taken_over(kind: str, tmp_path: Path) -> None:
    weights = {
        f"model.mm_projector.{name}": value
        for name, value in make_model(seed=7).model.mm_projector.state_dict().items()
    }
    file = str(tmp_path / f"mm_projector.{kind}")
    torch.save(weights, file) if kind == "bin" else save_file(weights, file)
    model = make_text_model()
    model.get_model().initialize_vision_modules(make_arguments(pretrain_mm_mlp_adapter=file))
    for name, value in model.model.mm_projector.state_dict().items():
        assert torch.equal(value, weights[f"model.mm_projector.{name}"])
    torch.save({"model.embed_tokens.weight": torch.zeros(2, 2)}, tmp_path / "other.bin")
    with pytest.raises(CheckpointError, match="holds no projector"):
        model.get_model().initialize_vision_modules(make_arguments(pretrain_mm_mlp_adapter=str(tmp_path / "other.bin")))


class Tokenizer:
    """As much of a tokenizer as new tokens need."""

    def __init__(self, num_tokens: int) -> None:
        self.tokens = [str(index) for index in range(num_tokens)]

    def __len__(self) -> int:
        return len(self.tokens)

    def add_tokens(self, tokens: list[str], special_tokens: bool) -> int:
        new = [token for token in tokens if token not in self.tokens]
        self.tokens += new
        return len(new) if special_tokens else 0


def test_new_image_tokens_begin_as_the_mean_of_all_others() -> None:
    model = make_model()
    old = [table.weight.detach().clone() for table in (model.get_input_embeddings(), model.get_output_embeddings())]
    tokenizer = Tokenizer(120)
    model.initialize_vision_tokenizer(make_arguments(mm_use_im_start_end=True, tune_mm_mlp_adapter=True), tokenizer)
    assert tokenizer.tokens[120:] == ["<im_start>", "<im_end>"]
    for table, before in zip((model.get_input_embeddings(), model.get_output_embeddings()), old, strict=True):
        assert torch.equal(table.weight[:120], before)
        torch.testing.assert_close(table.weight[120:], before.mean(0).expand(2, -1))
    assert model.get_input_embeddings().weight.requires_grad
    assert not model.get_output_embeddings().weight.requires_grad


def test_a_patch_token_alone_is_added_and_never_learns_with_the_projector() -> None:
    model = make_model()
    tokenizer = Tokenizer(120)
    model.initialize_vision_tokenizer(make_arguments(mm_use_im_patch_token=True, tune_mm_mlp_adapter=True), tokenizer)
    assert tokenizer.tokens[120:] == ["<im_patch>"]
    assert model.config.vocab_size == 121
    assert not model.get_input_embeddings().weight.requires_grad
    assert not model.get_output_embeddings().weight.requires_grad


@pytest.mark.parametrize("num_rows", [2, 122, 5])
def test_new_tokens_may_come_with_a_projector(num_rows: int, tmp_path: Path) -> None:
    model = make_model()
    rows = torch.randn(num_rows, 48)
    file = str(tmp_path / "mm_projector.bin")
    torch.save({"model.embed_tokens.weight": rows}, file)
    arguments = make_arguments(mm_use_im_start_end=True, pretrain_mm_mlp_adapter=file)
    if num_rows == 5:
        with pytest.raises(CheckpointError, match="5 embedding rows, but 2 new rows or all 122"):
            model.initialize_vision_tokenizer(arguments, Tokenizer(120))
    else:
        model.initialize_vision_tokenizer(arguments, Tokenizer(120))
        assert torch.equal(model.get_input_embeddings().weight[-2:], rows[-2:])
