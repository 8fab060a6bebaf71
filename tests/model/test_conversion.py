"""A converted checkpoint is the same model: in Transformers it says the same, and on the way back it is bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

from llava.answer import place_images, start_conversation
from llava.cli import main
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, LlavaError, UsageError
from llava.image.geometry import Size, plan_tiles
from llava.image.pixels import make_pixels
from llava.model.checkpoint import LoadedModel, load_model
from llava.model.conversion import convert
from llava.prompt import render
from tests import tiny_tokenizers
from tests.tiny_checkpoints import Tensors, write_llava_1_5, write_llava_1_6
from tests.tiny_configs import TOWER, write_json

TOWER_INSIDE = "model.vision_tower.vision_tower.vision_model."
GENERATED = 12


def save_sentencepiece(folder: Path, **settings: Any) -> None:
    """Nothing but a tokenizer.model and its settings, as Vicuna's and Mistral's folders have it."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "tokenizer.model").write_bytes(tiny_tokenizers.train_sentencepiece())
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", **settings})


def write_vicuna_1_5(folder: Path) -> Tensors:
    tensors = write_llava_1_5(folder, folder.with_name("clip"), vocab_size=460)
    save_sentencepiece(folder, legacy=False)
    return tensors


def write_vicuna_1_6(folder: Path) -> Tensors:
    tensors = write_llava_1_6(folder, vocab_size=460, rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    save_sentencepiece(folder, legacy=False)
    return tensors


def write_mistral(folder: Path) -> Tensors:
    own = {"model_type": "llava_mistral", "architectures": ["LlavaMistralForCausalLM"], "sliding_window": None}
    tensors = write_llava_1_6(folder, vocab_size=460, **own)
    save_sentencepiece(folder, legacy=True)
    return tensors


def write_qwen(folder: Path) -> Tensors:
    own = {"model_type": "llava_qwen", "architectures": ["LlavaQwenForCausalLM"], "eos_token_id": 0}
    tensors = write_llava_1_6(folder, vocab_size=512, bos_token_id=None, **own)
    marks = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    tiny_tokenizers.byte_level(marks).save_pretrained(folder)
    return tensors


def write_llama_3(folder: Path) -> Tensors:
    tokenizer = tiny_tokenizers.byte_level(tiny_tokenizers.LLAMA_3_MARKS, bos="<|begin_of_text|>")
    changes = {"conversation_template": "llava_llama_3", "eos_token_id": 0}
    tensors = write_llava_1_6(folder, vocab_size=len(tokenizer), **changes)
    tokenizer.save_pretrained(folder)
    return tensors


def write_yi(folder: Path) -> Tensors:
    """The 34B's, whose answers end with a token that generation_config.json does not name."""
    tokenizer = tiny_tokenizers.byte_level(["<|startoftext|>", *tiny_tokenizers.MARKS], bos="<|startoftext|>")
    tensors = write_llava_1_6(folder, vocab_size=len(tokenizer), conversation_template="chatml_direct")
    tokenizer.save_pretrained(folder)
    return tensors


def write_marked(folder: Path) -> Tensors:
    """One that was trained with marks around its images, on square ones, and with the class position."""
    changes = {"mm_use_im_start_end": True, "image_aspect_ratio": "square", "mm_patch_merge_type": "flat"}
    return write_llava_1_6(folder, mm_vision_select_feature="cls_patch", **changes)


def write_tied(folder: Path) -> Tensors:
    tensors = write_llava_1_6(folder, tie_word_embeddings=True, conversation_template="llava_llama_2")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    del tensors["lm_head.weight"]
    return tensors


def write_endless(folder: Path) -> Tensors:
    """One whose tower stops where it is read."""
    tensors = write_llava_1_6(folder)
    return drop_from_tower(folder, tensors, "encoder.layers.2.", "post_layernorm.")


def write_normless(folder: Path) -> Tensors:
    """One whose tower has every block, but not the norm behind them."""
    return drop_from_tower(folder, write_llava_1_6(folder, mm_vision_select_layer=2), "post_layernorm.")


def drop_from_tower(folder: Path, tensors: Tensors, *unused: str) -> Tensors:
    prefixes = tuple(TOWER_INSIDE + name for name in unused)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


KINDS: dict[str, Callable[[Path], Tensors]] = {
    "vicuna 1.5": write_vicuna_1_5,
    "vicuna 1.6": write_vicuna_1_6,
    "mistral": write_mistral,
    "qwen": write_qwen,
    "llama-3": write_llama_3,
    "yi": write_yi,
    "marked": write_marked,
    "tied": write_tied,
    "endless": write_endless,
    "normless": write_normless,
}
every_kind = pytest.mark.parametrize("write", KINDS.values(), ids=KINDS.keys())


def load(folder: Path) -> LoadedModel:
    return load_model(folder, device="cpu", dtype="float32")


def read_tensors(folder: Path) -> Tensors:
    return load_file(folder / "model.safetensors")


def read_config(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return values


def assert_same_bits(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def answer_here(loaded: LoadedModel, chat: list[str], images: list[Image.Image]) -> tuple[list[int], list[int]]:
    """Prompt and greedy answer as ids; the prompt has -200 in each position of an image."""
    conversation = start_conversation(loaded)
    for i, text in enumerate(chat):
        said = place_images(loaded, text, len(images)) if i == 0 else text
        conversation.append_message(conversation.roles[i % 2], said)
    conversation.append_message(conversation.roles[1], None)
    counts = [plan_tiles(Size(*image.size), loaded.spec.tiling).num_positions for image in images]
    ids = render(conversation, loaded.tokenizer, counts, limit_tokens=None).input_ids
    rest = iter(counts)
    long = [token for each in ids for token in ([each] * next(rest) if each == IMAGE_TOKEN_INDEX else [each])]
    pixels = [
        make_pixels(image, plan_tiles(Size(*image.size), loaded.spec.tiling), loaded.image_processor)
        for image in images
    ]
    new_ids = loaded.model.generate(
        torch.tensor([ids]),
        images=pixels,
        image_sizes=[image.size for image in images],
        max_new_tokens=GENERATED,
        do_sample=False,
        eos_token_id=None,
    )
    return long, new_ids[0].tolist()


def answer_there(folder: Path, chat: list[str], images: list[Image.Image]) -> tuple[list[int], list[int]]:
    """The same by Transformers alone, its own processor and its own model."""
    is_next = read_config(folder)["model_type"] == "llava_next"
    model_class: Any = LlavaNextForConditionalGeneration if is_next else LlavaForConditionalGeneration
    model, report = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(report.values()), report
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor).__name__ == ("LlavaNextProcessor" if is_next else "LlavaProcessor")
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": [{"type": "text", "text": text}]}
        for i, text in enumerate(chat)
    ]
    messages[0]["content"] = [*[{"type": "image"}] * len(images), *messages[0]["content"]]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(images=images, text=text, return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    new_ids = model.eval().generate(**inputs, max_new_tokens=GENERATED, do_sample=False, eos_token_id=None)
    image_id = model.config.image_token_id
    assert image_id == processor.tokenizer.convert_tokens_to_ids("<image>")
    return [IMAGE_TOKEN_INDEX if token == image_id else token for token in ids], new_ids[0][len(ids) :].tolist()


CHATS = {"one question": ["What is in it?"], "a chat": ["What is in it?", "A cat.", "Black,\n I think?"]}


@every_kind
@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS.keys())
def test_in_transformers_it_says_the_same(
    tmp_path: Path, photo: Path, write: Callable[[Path], Tensors], chat: list[str]
) -> None:
    write(tmp_path / "original")
    convert(tmp_path / "original", tmp_path / "hf", "hf")
    images = [Image.open(photo).convert("RGB"), Image.open(photo).convert("RGB").resize((70, 90))]
    expected = answer_here(load(tmp_path / "original"), chat, images)
    assert answer_there(tmp_path / "hf", chat, images) == expected
    assert len({*expected[1]}) > 1
    # Read back by this package it is the same model too: as Transformers does, it pads and marks as it was trained to.
    assert answer_here(load(tmp_path / "hf"), chat, images) == expected


@every_kind
def test_there_and_back_it_is_bit_for_bit(tmp_path: Path, write: Callable[[Path], Tensors]) -> None:
    tensors = write(tmp_path / "original")
    convert(tmp_path / "original", tmp_path / "hf", "hf")
    convert(tmp_path / "hf", tmp_path / "back", "original")
    assert_same_bits(read_tensors(tmp_path / "back"), tensors)
    convert(tmp_path / "original", tmp_path / "straight", "original")
    assert_same_bits(read_tensors(tmp_path / "straight"), tensors)
    assert read_config(tmp_path / "back") == read_config(tmp_path / "straight")
    loaded, again = load(tmp_path / "original"), load(tmp_path / "back")
    assert (again.template, again.spec.tiling) == (loaded.template, loaded.spec.tiling)
    assert again.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    assert again.tokenizer.pad_token_id == loaded.tokenizer.pad_token_id
    for text in ("What is in the image?\n", " two  blanks</s>USER:", "<|im_start|>user\n<image>", "é\u4e2d"):
        assert again.tokenizer(text).input_ids == loaded.tokenizer(text).input_ids
    convert(tmp_path / "back", tmp_path / "hf again", "hf")
    assert_same_bits(read_tensors(tmp_path / "hf again"), read_tensors(tmp_path / "hf"))
    first, second = read_config(tmp_path / "hf"), read_config(tmp_path / "hf again")
    assert second == first


HF_NAMINGS = {
    "hub": {},
    "without vision_model": {"vision_tower.vision_model.": "vision_tower."},
    "4.52": {
        "language_model.model.": "model.language_model.",
        "language_model.lm_head.": "lm_head.",
        "vision_tower.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
        "image_newline": "model.image_newline",
    },
    "5.6": {
        "language_model.model.": "model.language_model.",
        "language_model.lm_head.": "lm_head.",
        "vision_tower.vision_model.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
        "image_newline": "model.image_newline",
    },
}


@pytest.mark.parametrize("prefixes", HF_NAMINGS.values(), ids=HF_NAMINGS.keys())
def test_every_naming_of_llava_hf_is_converted(tmp_path: Path, prefixes: dict[str, str]) -> None:
    tensors = write_vicuna_1_6(tmp_path / "original")
    convert(tmp_path / "original", tmp_path / "hf", "hf")
    hub = read_tensors(tmp_path / "hf")
    renamed = {}
    for name, tensor in hub.items():
        old = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        renamed[prefixes.get(old, "") + name.removeprefix(old)] = tensor.clone()
    save_file(renamed, tmp_path / "hf/model.safetensors", {"format": "pt"})
    convert(tmp_path / "hf", tmp_path / "back", "original")
    assert_same_bits(read_tensors(tmp_path / "back"), tensors)
    convert(tmp_path / "hf", tmp_path / "hub", "hf")
    assert_same_bits(read_tensors(tmp_path / "hub"), hub)


def test_a_checkpoint_of_llava_hf_itself_loses_its_added_rows(tmp_path: Path) -> None:
    """Its config.json does not say how many rows the original had, and its added rows are other ones than ours."""
    tensors = write_vicuna_1_5(tmp_path / "original")
    convert(tmp_path / "original", tmp_path / "hf", "hf")
    config = read_config(tmp_path / "hf")
    for key in ("llava_original", "conversation_template"):
        del config[key]
    write_json(tmp_path / "hf/config.json", config)
    theirs = {name: tensor.clone() for name, tensor in read_tensors(tmp_path / "hf").items()}
    head, embeddings = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    assert len(theirs[head]) == len(theirs[embeddings]) == 512 == config["text_config"]["vocab_size"]
    theirs[head][460:] = 7
    save_file(theirs, tmp_path / "hf/model.safetensors", {"format": "pt"})
    done = convert(tmp_path / "hf", tmp_path / "back", "original")
    assert_same_bits(read_tensors(tmp_path / "back"), tensors)
    assert read_config(tmp_path / "back")["vocab_size"] == 460
    assert any("460 rows, not 512" in note for note in done.notes)
    again = load(tmp_path / "back")
    assert "<image>" not in again.tokenizer.get_vocab()
    assert (again.tokenizer.pad_token_id, again.model.generation_config.pad_token_id) == (0, 0)


def test_spare_rows_are_used_before_any_is_added(tmp_path: Path) -> None:
    tensors = write_qwen(tmp_path / "original")
    convert(tmp_path / "original", tmp_path / "hf", "hf")
    found, config = read_tensors(tmp_path / "hf"), read_config(tmp_path / "hf")
    num_tokens = len(load(tmp_path / "original").tokenizer)
    assert num_tokens < 512 == config["text_config"]["vocab_size"]
    assert config["image_token_index"] == num_tokens
    assert torch.equal(found["language_model.lm_head.weight"], tensors["lm_head.weight"])


def test_added_rows_are_the_mean_of_the_others(tmp_path: Path) -> None:
    tensors = write_vicuna_1_6(tmp_path / "original")
    done = convert(tmp_path / "original", tmp_path / "hf", "hf")
    found = read_tensors(tmp_path / "hf")["language_model.model.embed_tokens.weight"]
    old = tensors["model.embed_tokens.weight"]
    assert torch.equal(found[:460], old)
    assert torch.equal(found[460:], old.double().mean(0).half().expand(52, -1))
    assert any("512 rows, not 460: <image> is 460, <pad> is 461" in note for note in done.notes)


def test_the_files_say_what_transformers_and_others_look_for(tmp_path: Path) -> None:
    write_vicuna_1_5(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "hf", "hf")
    config = read_config(tmp_path / "hf")
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert (config["image_token_index"], config["image_seq_length"], config["torch_dtype"]) == (460, 4, "float16")
    assert (config["vision_feature_layer"], config["vision_feature_select_strategy"]) == (-2, "default")
    assert config["text_config"]["model_type"] == "llama"
    assert config["vision_config"].items() >= TOWER.items()
    assert config["llava_original"].items() >= {"vocab_size": 460, "image_aspect_ratio": "pad"}.items()
    images = json.loads((tmp_path / "hf/preprocessor_config.json").read_text())
    assert (images["image_processor_type"], images["do_pad"]) == ("LlavaImageProcessor", True)
    processor = json.loads((tmp_path / "hf/processor_config.json").read_text())
    assert (processor["patch_size"], processor["num_additional_image_tokens"]) == (14, 1)
    settings = json.loads((tmp_path / "hf/tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"  # Transformers 4 knows no other
    names = set(read_tensors(tmp_path / "hf"))
    assert {name.split(".")[0] for name in names} == {"language_model", "multi_modal_projector", "vision_tower"}
    assert "vision_tower.vision_model.pre_layrnorm.weight" in names

    write_vicuna_1_6(tmp_path / "b")
    convert(tmp_path / "b", tmp_path / "next", "hf")
    config = read_config(tmp_path / "next")
    assert config["architectures"] == ["LlavaNextForConditionalGeneration"]
    assert config["image_grid_pinpoints"][0] == [56, 28]  # (height, width)
    assert config["text_config"]["rope_scaling"]["factor"] == 2.0


def test_answers_end_where_they_end_here(tmp_path: Path) -> None:
    write_yi(tmp_path / "yi")
    convert(tmp_path / "yi", tmp_path / "hf", "hf")
    said = json.loads((tmp_path / "hf/generation_config.json").read_text())
    end = load(tmp_path / "yi").tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert said["eos_token_id"] == [2, end]
    assert said["pad_token_id"] == read_config(tmp_path / "hf")["pad_token_id"]
    assert not {"temperature", "top_p", "max_length"} & said.keys()


def test_the_original_layout_has_the_tower_inside(tmp_path: Path) -> None:
    tensors = write_vicuna_1_5(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", "original", max_shard_bytes=20_000)
    shutil.rmtree(tmp_path / "clip")
    shutil.rmtree(tmp_path / "a")
    config = read_config(tmp_path / "b")
    assert (config["unfreeze_mm_vision_tower"], config["image_aspect_ratio"]) == (True, "pad")
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 3
    found = dict(load(tmp_path / "b").model.state_dict())
    assert_same_bits(found, {name: tensor.float() for name, tensor in tensors.items()})
    assert (tmp_path / "b/tokenizer.model").is_file()


def test_the_dtypes_of_a_mixed_checkpoint_stay(tmp_path: Path) -> None:
    tensors = write_vicuna_1_5(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "hf", "hf")
    dtypes = {name: tensor.dtype for name, tensor in read_tensors(tmp_path / "hf").items()}
    assert {dtype for name, dtype in dtypes.items() if name.startswith("vision_tower")} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if name.startswith("language_model")} == {torch.float16}
    assert len(dtypes) == len(tensors)


def test_one_matrix_in_a_file_for_two_becomes_two(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "a")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    (tmp_path / "a/model.safetensors").unlink()
    torch.save(tensors, tmp_path / "a/pytorch_model.bin")
    convert(tmp_path / "a", tmp_path / "b", "original")
    assert_same_bits(read_tensors(tmp_path / "b"), tensors)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type linear.* only mlp2x_gelu"),
        ({"mm_projector_type": "mlp3x_gelu"}, "mlp3x_gelu"),
        ({"mm_patch_merge_type": "spatial"}, "anyres with mm_patch_merge_type spatial,"),
        ({"mm_patch_merge_type": "flat"}, "anyres with mm_patch_merge_type flat"),
        ({"image_aspect_ratio": "anyres_max_9"}, "anyres_max_9"),
        ({"image_aspect_ratio": "pad"}, "pad with mm_patch_merge_type spatial_unpad"),
    ],
)
def test_what_transformers_cannot_compute_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write_llava_1_6(tmp_path / "a", **changes)
    tensors = read_tensors(tmp_path / "a")
    projector = changes.get("mm_projector_type", "")
    if projector == "linear":
        tensors = {name: t for name, t in tensors.items() if ".mm_projector." not in name}
        tensors |= {"model.mm_projector.weight": torch.ones(32, 16), "model.mm_projector.bias": torch.ones(32)}
    if projector == "mlp3x_gelu":
        tensors |= {"model.mm_projector.4.weight": torch.ones(32, 32), "model.mm_projector.4.bias": torch.ones(32)}
    save_file(tensors, tmp_path / "a/model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=said):
        convert(tmp_path / "a", tmp_path / "hf", "hf")
    convert(tmp_path / "a", tmp_path / "b", "original")
    assert_same_bits(read_tensors(tmp_path / "b"), read_tensors(tmp_path / "a"))


def test_a_newline_that_is_never_read_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    tensors = write_marked(tmp_path / "a")
    tensors["model.image_newline"] = torch.ones(32)
    save_file(tensors, tmp_path / "a/model.safetensors", {"format": "pt"})
    done = convert(tmp_path / "a", tmp_path / "hf", "hf")
    assert any("model.image_newline was left out" in note for note in done.notes)


def test_a_source_that_does_not_fit_its_config_is_refused_as_by_loading(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "a")
    del tensors["model.norm.weight"]
    tensors["model.layers.9.mlp.up_proj.weight"] = torch.ones(2)
    save_file(tensors, tmp_path / "a/model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError) as refused:
        load(tmp_path / "a")
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / "a", tmp_path / "hf", "hf")
    assert str(caught.value) == str(refused.value)
    assert "1 tensors are missing: model.norm.weight" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"model.norm.weight": torch.ones(31)},
        {"model.norm.weight": torch.ones(32, dtype=torch.int8)},
    ],
)
def test_a_tensor_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, change: Tensors) -> None:
    tensors = write_llava_1_6(tmp_path / "a")
    save_file(tensors | change, tmp_path / "a/model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError) as refused:
        load(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/README.md").write_text("mine")
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / "a", tmp_path / "b", "hf", max_shard_bytes=10_000)
    assert str(caught.value) == str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["README.md"]


def test_heads_that_should_be_tied_and_are_not_are_refused(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "a", tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs"):
        convert(tmp_path / "a", tmp_path / "b", "original")


def test_the_source_is_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = write_vicuna_1_5(tmp_path / "all/a")
    monkeypatch.chdir(tmp_path / "all/a")
    for target in (".", str(tmp_path / "all/a"), "..", "../clip"):
        with pytest.raises(UsageError, match="being read"):
            convert(tmp_path / "all/a", target, "hf")
    assert_same_bits(
        dict(load(tmp_path / "all/a").model.half().state_dict()), {n: t.half() for n, t in tensors.items()}
    )
    convert(tmp_path / "all/a", "converted", "hf")
    assert (tmp_path / "all/a/converted/config.json").is_file()


def test_an_older_checkpoint_is_replaced_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    write_vicuna_1_6(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", "hf", max_shard_bytes=20_000)
    (tmp_path / "b/README.md").write_text("a card")
    convert(tmp_path / "a", tmp_path / "b", "original")
    names = {path.name for path in (tmp_path / "b").iterdir()}
    assert names >= {"README.md", "model.safetensors", "tokenizer.json"}
    assert not {"chat_template.jinja", "processor_config.json", "model.safetensors.index.json"} & names
    assert load(tmp_path / "b").spec.layout == "original"


def test_a_projector_alone_is_put_onto_its_base_first(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "whole")
    config = json.loads((tmp_path / "whole/config.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "part/config.json", config)
    own = {name: tensor for name, tensor in tensors.items() if "mm_projector" in name or "image_newline" in name}
    torch.save(own, tmp_path / "part/mm_projector.bin")
    base = {name: tensor for name, tensor in tensors.items() if name not in own}
    save_file(base, tmp_path / "whole/model.safetensors", {"format": "pt"})
    convert(tmp_path / "part", tmp_path / "merged", "original", base=tmp_path / "whole")
    found = load_file(tmp_path / "merged/model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    with pytest.raises(UsageError, match="takes no base"):
        convert(tmp_path / "merged", tmp_path / "again", "hf", base=tmp_path / "whole")
    with pytest.raises(UsageError, match="is being read"):
        convert(tmp_path / "part", tmp_path / "part", "original", base=tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "part", "whole"]


def test_an_unknown_layout_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'onnx' to convert to; use original, hf or gguf"):
        convert(tmp_path / "nowhere", tmp_path / "b", "onnx")


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_llava_1_6(tmp_path / "a")

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llava.model.weights.save_file", fail)
    with pytest.raises(LlavaError, match="is the disk full"):
        convert(tmp_path / "a", tmp_path / "b", "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("where", ["shutil.copymode", "llava.model.conversion.write_json", "tokenizers.Tokenizer.save"])
def test_a_disk_that_is_full_is_said_to_be_wherever_it_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    """An OSError of a write names no file, and tokenizers raises an Exception with a text."""
    write_llava_1_6(tmp_path / "a")

    def fail(*arguments: Any, **options: Any) -> None:
        raise Exception("no space") if "tokenizers" in where else OSError(28, "no space")

    if "tokenizers" in where:
        monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", fail)
    else:
        monkeypatch.setattr(where, fail)
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--to", "hf"]) == 1
    assert f"llava: error: {tmp_path / 'b'} cannot be written: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_conversion_that_is_ended_takes_away_what_it_wrote(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "a")
    lines = """
        import os, signal, sys
        from llava.cli import main
        from llava.model import conversion
        def interrupt(*arguments):
            print(*os.listdir(sys.argv[1]))
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("still running")
        conversion.write_json = interrupt
        sys.exit(main(["convert", sys.argv[1] + "/a", sys.argv[1] + "/b", "--to", "hf"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(lines), str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 143, done.stderr
    assert ".partial" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_no_folder_or_a_mount_point_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_llava_1_6(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe is not a folder"):
        convert(tmp_path / "a", tmp_path / "pipe", "hf")
    with pytest.raises(UsageError, match="is empty"):
        convert(tmp_path / "a", "", "hf")
    monkeypatch.setattr("pathlib.Path.is_mount", lambda path: path.name == "mounted")
    with pytest.raises(UsageError, match="mounted is a mount point"):
        convert(tmp_path / "a", tmp_path / "mounted", "hf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "pipe"]


def test_the_command_says_what_it_wrote_and_what_is_not_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_vicuna_1_6(tmp_path / "a")
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--to", "hf"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'b'}: 81 tensors, 0.00 GB, layout hf\n"
    assert said.err.startswith("llava: The embeddings have 512 rows, not 460")
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "a"), "--to", "hf"]) == 2
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "c"), "--to", "onnx"]) == 2
    assert main(["convert", str(tmp_path / "gone"), str(tmp_path / "c"), "--to", "hf"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "loop/there"], ids=["long", "null", "circle"])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    write_llava_1_6(tmp_path / "llava")
    with pytest.raises(LlavaError, match=r"null byte|cannot be written"):
        convert(tmp_path / "llava", tmp_path / name, "hf")
    assert not list(tmp_path.glob(".*.partial"))
