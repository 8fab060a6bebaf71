"""GGUF both ways: what llama.cpp's converters wrote is the same model here, and what is written is read back whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from llava.answer import place_images, start_conversation
from llava.backends.checkpoints import find_hf_folder
from llava.cli import main
from llava.errors import UsageError
from llava.image.geometry import Size, plan_tiles
from llava.image.pixels import make_pixels
from llava.model.checkpoint import LoadedModel, load_model, save_checkpoint
from llava.model.checkpoint_reader import open_checkpoint
from llava.model.conversion import convert
from llava.model.gguf.gguf_file import GgufFile
from llava.model.gguf.tensor_names import interleave, separate
from llava.native import quantization
from llava.prompt import render
from tests import tiny_gguf, tiny_tokenizers
from tests.tiny_checkpoints import Tensors, write_llava_1_5, write_llava_1_6
from tests.tiny_configs import CONFIG, write_json

TOWER = "model.vision_tower.vision_tower.vision_model."
MERGED = ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight")


def save_pieces(folder: Path, **settings: Any) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "tokenizer.model").write_bytes(tiny_tokenizers.train_sentencepiece())
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", **settings})


def write_vicuna_1_5(folder: Path) -> Tensors:
    tensors = write_llava_1_5(folder, folder.with_name("clip"), vocab_size=460)
    save_pieces(folder, legacy=False)
    return tensors


def write_vicuna_1_6(folder: Path) -> Tensors:
    tensors = write_llava_1_6(folder, vocab_size=460, rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    save_pieces(folder, legacy=True)
    return tensors


def write_mistral(folder: Path) -> Tensors:
    own = {"model_type": "llava_mistral", "architectures": ["LlavaMistralForCausalLM"], "sliding_window": None}
    tensors = write_llava_1_6(folder, vocab_size=460, **own)
    save_pieces(folder, legacy=True)
    return tensors


def write_qwen(folder: Path) -> Tensors:
    own = {"model_type": "llava_qwen", "architectures": ["LlavaQwenForCausalLM"], "eos_token_id": 0}
    tensors = write_llava_1_6(folder, vocab_size=512, bos_token_id=None, **own)
    tiny_tokenizers.byte_level(["<|im_start|>", "<|im_end|>", "<|endoftext|>"]).save_pretrained(folder)
    return tensors


def write_yi(folder: Path) -> Tensors:
    tokenizer = tiny_tokenizers.byte_level(["<|startoftext|>", *tiny_tokenizers.MARKS], bos="<|startoftext|>")
    changes = {"conversation_template": "chatml_direct", "tie_word_embeddings": True}
    tensors = write_llava_1_6(folder, vocab_size=len(tokenizer), **changes)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    tokenizer.save_pretrained(folder)
    return tensors


KINDS: dict[str, Callable[[Path], Tensors]] = {
    "vicuna 1.5": write_vicuna_1_5,
    "vicuna 1.6": write_vicuna_1_6,
    "mistral": write_mistral,
    "qwen": write_qwen,
    "yi, tied": write_yi,
}
every_kind = pytest.mark.parametrize("write", KINDS.values(), ids=KINDS.keys())


def answer(folder: Path, photo: Path) -> tuple[tuple[int, ...], list[int]]:
    """The prompt and the greedy answer as ids, in float32."""
    loaded: LoadedModel = load_model(folder, device="cpu", dtype="float32")
    image = Image.open(photo).convert("RGB").resize((70, 50))
    conversation = start_conversation(loaded)
    conversation.append_message(conversation.roles[0], place_images(loaded, "What is in it?", 1))
    conversation.append_message(conversation.roles[1], None)
    plan = plan_tiles(Size(*image.size), loaded.spec.tiling)
    ids = render(conversation, loaded.tokenizer, [plan.num_positions], limit_tokens=None).input_ids
    said = loaded.model.generate(
        torch.tensor([ids]),
        images=[make_pixels(image, plan, loaded.image_processor)],
        image_sizes=[image.size],
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
    )
    return ids, said[0].tolist()


@every_kind
def test_written_as_f32_every_tensor_comes_back_bit_by_bit_and_answers_are_the_same(
    tmp_path: Path, photo: Path, write: Callable[[Path], Tensors]
) -> None:
    write(tmp_path / "a")
    done = convert(tmp_path / "a", tmp_path / "pair", "gguf", gguf_type="f32")
    source, found = open_checkpoint(tmp_path / "a"), open_checkpoint(tmp_path / "pair")
    expected = {name: tensor for name, tensor in source.stream() if "post_layernorm" not in name}
    tensors = dict(found.stream())
    assert tensors.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(tensors[name], tensor.float())] == []
    assert done.num_bytes == sum(path.stat().st_size for path in (tmp_path / "pair").glob("*.gguf"))
    assert (found.template, found.spec.tiling, found.spec.family) == (
        source.template,
        source.spec.tiling,
        source.spec.family,
    )
    prompt, said = answer(tmp_path / "a", photo)
    assert answer(tmp_path / "pair", photo) == (prompt, said)
    assert len({*said}) > 1


@every_kind
def test_written_as_f16_and_converted_back_it_has_the_same_bits(
    tmp_path: Path, write: Callable[[Path], Tensors]
) -> None:
    write(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "pair", "gguf")
    convert(tmp_path / "pair", tmp_path / "back", "original")
    source, back = open_checkpoint(tmp_path / "a"), open_checkpoint(tmp_path / "back")
    tensors = dict(back.stream())
    for name, tensor in source.stream():
        if "post_layernorm" not in name and tensor.dtype == torch.float16:  # 1.5's tower comes in float32
            assert tensors[name].dtype == torch.float16
            assert torch.equal(tensors[name], tensor), name
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert config["torch_dtype"] == "float16"
    assert back.spec.config["mm_vision_select_layer"] == -2
    assert back.load_tokenizer().get_vocab() == source.load_tokenizer().get_vocab()


def write_pair(folder: Path, tensors: Tensors, *, is_next: bool = True, kind: str = "F32", **changes: Any) -> Path:
    """A pair that llama.cpp's converters made of a checkpoint whose tokenizer is Vicuna's; returns the model's file."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**CONFIG, "model_type": "llava_llama", **changes}
    pieces = tiny_gguf.describe_pieces(tiny_tokenizers.train_sentencepiece())
    tiny_gguf.write_model(folder / "llava-v1.6-vicuna-7b.Q4_K_M.gguf", tensors, config, pieces, kind)
    eyes = "F16" if kind == "F16" else "F32"
    tiny_gguf.write_mmproj(folder / "mmproj-model-f16.gguf", tensors, is_next=is_next, kind=eyes)
    return folder / "llava-v1.6-vicuna-7b.Q4_K_M.gguf"


@pytest.mark.parametrize("is_next", [True, False], ids=["1.6", "1.5"])
def test_what_llama_cpps_converters_wrote_answers_as_the_checkpoint_did(
    tmp_path: Path, photo: Path, is_next: bool
) -> None:
    changes = {"vocab_size": 460, "conversation_template": "llava_v1"}
    looks = (
        {} if is_next else {"image_aspect_ratio": "pad", "mm_patch_merge_type": "flat", "image_grid_pinpoints": None}
    )
    tensors = write_llava_1_6(tmp_path / "a", **changes, **looks)
    save_pieces(tmp_path / "a", legacy=True)
    model = write_pair(tmp_path / "pair", tensors, is_next=is_next)
    source, found = open_checkpoint(tmp_path / "a"), open_checkpoint(model)
    assert (found.template, found.spec.tiling) == ("llava_v1", source.spec.tiling)
    assert answer(model, photo) == answer(tmp_path / "a", photo)


@pytest.mark.parametrize("kind", ["BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantized_matrices_have_the_values_that_gguf_itself_gives_them(tmp_path: Path, kind: str) -> None:
    tensors = write_llava_1_6(tmp_path / "a", vocab_size=460, intermediate_size=64)
    model = write_pair(tmp_path / "pair", tensors, kind=kind, intermediate_size=64)
    found = dict(open_checkpoint(model).stream())
    for name in (*MERGED, "model.layers.0.mlp.down_proj.weight", "model.embed_tokens.weight"):
        values, chosen = tensors[name].float().numpy(), gguf.GGMLQuantizationType[kind]
        expected = gguf.quants.dequantize(gguf.quants.quantize(values, chosen), chosen)
        assert torch.equal(found[name].float(), torch.from_numpy(expected).view(found[name].shape)), name


def test_int4_keeps_the_numbers_of_q4_0_and_rounds_its_scales_only() -> None:
    chosen = gguf.GGMLQuantizationType.Q4_0
    weight = np.random.default_rng(2).normal(size=(32, 128)).astype(np.float32)
    stored = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight, chosen), chosen))
    packed = quantization.dequantize(quantization.quantize(stored, 4))
    assert torch.allclose(packed, stored, rtol=2**-8, atol=0)


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_have_the_values_that_gguf_itself_gives_them(tmp_path: Path, kind: str) -> None:
    """The package only reads these: their bytes are drawn."""
    chosen = gguf.GGMLQuantizationType[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[chosen]
    raw = np.random.default_rng(3).integers(0, 60, (4, 2 * block_bytes), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("blk.0.ffn_up.weight", raw, raw_dtype=chosen)
    tiny_gguf.finish(writer)
    found = GgufFile(tmp_path / "x.gguf").read("blk.0.ffn_up.weight")
    assert found.shape == (4, 2 * block)
    assert found.abs().sum() > 0
    assert torch.equal(found, torch.from_numpy(gguf.quants.dequantize(raw, chosen)))


def test_the_order_of_rows_is_llama_cpps_and_is_undone() -> None:
    weight = torch.arange(48.0).view(24, 2)
    for heads in (1, 2, 3, 6):
        expected = torch.from_numpy(tiny_gguf.permute(weight.numpy(), heads))
        assert torch.equal(interleave(weight, heads), expected)
        assert torch.equal(separate(expected, heads), weight)


def test_the_tower_of_a_newer_converter_has_its_names_the_right_way_round(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "a", vocab_size=460)
    model = write_pair(tmp_path / "pair", tensors)
    legacy = dict(open_checkpoint(model).stream())
    swapped = {
        name.replace("fc1", "fcX").replace("fc2", "fc1").replace("fcX", "fc2"): tensor
        for name, tensor in tensors.items()
    }
    tiny_gguf.write_mmproj(tmp_path / "pair/mmproj-model-f16.gguf", swapped, is_next=True, kind="F32")
    straight = dict(open_checkpoint(model).stream())
    assert all(torch.equal(straight[name], tensor) for name, tensor in legacy.items())


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_written_quantized_it_is_read_back_as_gguf_quantizes(tmp_path: Path, kind: str) -> None:
    write_vicuna_1_6(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "pair", "gguf", gguf_type=kind)
    found, source = dict(open_checkpoint(tmp_path / "pair").stream()), dict(open_checkpoint(tmp_path / "a").stream())
    chosen = gguf.GGMLQuantizationType[kind.upper()]
    name = "model.layers.0.self_attn.q_proj.weight"
    values = tiny_gguf.permute(source[name].float().numpy(), 4)
    expected = gguf.quants.dequantize(gguf.quants.quantize(values, chosen), chosen)
    assert torch.equal(interleave(found[name], 4), torch.from_numpy(expected))
    eyes = TOWER + "encoder.layers.1.mlp.fc1.weight"
    assert torch.equal(found[eyes], source[eyes])
    assert GgufFile(next((tmp_path / "pair").glob(f"pair-{kind.upper()}.gguf"))).type_name("output.weight") == "Q8_0"


def test_llava_info_shows_the_pair_with_its_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = write_llava_1_6(tmp_path / "a", vocab_size=460, intermediate_size=64)
    model = write_pair(tmp_path / "pair", tensors, kind="Q8_0", intermediate_size=64)
    assert main(["info", str(model.parent)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (f"checkpoint {model}", "mmproj-model-f16.gguf", "template llava_v1", "anyres, spatial_unpad", "Q8_0"):
        assert words in out


def test_the_mmproj_may_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = write_llava_1_6(tmp_path / "a", vocab_size=460)
    model = write_pair(tmp_path / "pair", tensors)
    (tmp_path / "pair/mmproj-model-f16.gguf").rename(tmp_path / "eyes.gguf")
    assert main(["info", str(model)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "cannot see: there is no mmproj beside it." in out
    assert "name it with --mmproj" in out
    assert main(["info", str(model), "--mmproj", str(tmp_path / "eyes.gguf")]) == 0
    assert "template llava_v1" in " ".join(capsys.readouterr().out.split())
    assert open_checkpoint(model, vision_tower=tmp_path / "eyes.gguf").spec.tiling.is_anyres
    with pytest.raises(UsageError, match="is a GGUF file, whose tower is in its mmproj"):
        open_checkpoint(model, vision_tower="openai/clip-vit-large-patch14")
    with pytest.raises(UsageError, match=r"There is no file '.*none\.gguf', which --mmproj names"):
        open_checkpoint(model, vision_tower=tmp_path / "none.gguf")
    with pytest.raises(UsageError, match="fits a model in GGUF only"):
        open_checkpoint(tmp_path / "a", vision_tower=tmp_path / "eyes.gguf")


def test_what_was_loaded_is_saved_as_any_other_checkpoint(tmp_path: Path, photo: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "a", vocab_size=460)
    model = write_pair(tmp_path / "pair", tensors)
    loaded = load_model(model, device="cpu", dtype="float32")
    save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "saved")
    assert answer(tmp_path / "saved", photo) == answer(model, photo)


def test_other_engines_get_it_in_llava_hfs_layout(tmp_path: Path, photo: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "a", vocab_size=460)
    model = write_pair(tmp_path / "pair", tensors)
    folder = find_hf_folder(model, tmp_path / "cache")
    assert find_hf_folder(model, tmp_path / "cache") == folder
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llava_next"
    assert answer(folder, photo)[1] == answer(model, photo)[1]
    model.with_name("mmproj-model-f16.gguf").touch()
    assert find_hf_folder(model, tmp_path / "cache") != folder


def test_the_command_writes_a_pair_with_a_modelfile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_vicuna_1_5(tmp_path / "a")
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "cat"), "--to", "gguf", "--type", "q8_0"]) == 0
    assert "layout gguf" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "cat").iterdir()) == [
        "Modelfile",
        "cat-Q8_0.gguf",
        "mmproj-cat-F16.gguf",
    ]
    lines = (tmp_path / "cat/Modelfile").read_text().splitlines()
    assert lines[:2] == ["FROM ./cat-Q8_0.gguf", "FROM ./mmproj-cat-F16.gguf"]
    assert lines[2] == 'TEMPLATE """{{ .System }} USER: {{ .Prompt }} ASSISTANT:{{ .Response }}"""'
    assert 'PARAMETER stop "</s>"' in lines
    write_qwen(tmp_path / "q")
    convert(tmp_path / "q", tmp_path / "dog", "gguf")
    assert (
        'TEMPLATE """<|im_start|>system\n{{ .System }}<|im_end|>\n<|im_start|>user\n{{ .Prompt }}<|im_end|>\n'
        '<|im_start|>assistant\n{{ .Response }}"""\nSYSTEM """You are a helpful assistant."""\n'
    ) in (tmp_path / "dog/Modelfile").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"mm_vision_select_feature": "cls_patch", "mm_patch_merge_type": "flat", "image_aspect_ratio": "pad"},
            "mm_vision_select_feature cls_patch",
        ),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "a scaling of rotary embeddings other than linear"),
    ],
)
def test_what_llama_cpp_cannot_run_is_not_written(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write_llava_1_6(tmp_path / "a", vocab_size=460, **changes)
    save_pieces(tmp_path / "a", legacy=True)
    with pytest.raises(UsageError, match=words):
        convert(tmp_path / "a", tmp_path / "pair", "gguf")
    assert not (tmp_path / "pair").exists()


def test_a_weight_beyond_float16_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    write_vicuna_1_5(tmp_path / "a")
    tower = torch.load(tmp_path / "clip/pytorch_model.bin", weights_only=True)
    tower["vision_model.encoder.layers.0.mlp.fc1.weight"][0, 0] = 1e6
    torch.save(tower, tmp_path / "clip/pytorch_model.bin")
    with pytest.raises(
        UsageError, match=r"v\.blk\.0\.ffn_down\.weight reaches 1e\+06, too large for float16: use --type f32"
    ):
        convert(tmp_path / "a", tmp_path / "pair", "gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "clip"]
    convert(tmp_path / "a", tmp_path / "pair", "gguf", gguf_type="f32")
    assert sorted(path.suffix for path in (tmp_path / "pair").iterdir()) == ["", ".gguf", ".gguf"]


def test_a_wrong_type_and_a_foreign_tokenizer_are_refused(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "a")
    with pytest.raises(UsageError, match="There is no type 'q9' for --type; use f32, f16, bf16, q8_0, q4_0"):
        convert(tmp_path / "a", tmp_path / "pair", "gguf", gguf_type="q9")
    with pytest.raises(UsageError, match="--type f16 is for --to gguf"):
        convert(tmp_path / "a", tmp_path / "pair", "hf", gguf_type="f16")
    with pytest.raises(UsageError, match="The tokenizer cannot be written as GGUF"):
        convert(tmp_path / "a", tmp_path / "pair", "gguf")
    assert not (tmp_path / "pair").exists()
