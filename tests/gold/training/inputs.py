"""The inputs of the gold runs: checkpoints, images, data and command lines, rebuilt identically on every machine.

Used by make_original.py, which runs the original on them, and by our tests, which run ours; so nothing here imports
either. Weights are ``numpy.random.RandomState(crc32(tensor's name)).uniform(-1, 1)``, whose stream NumPy has frozen,
times a scale that depends on the kind of tensor; images are drawn by a formula in integers.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent
VOCABULARY = 1000  # pieces in tokenizer.model; make_original.py trained it
Shapes = dict[str, tuple[int, ...]]

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": VOCABULARY,
}
TOWER: dict[str, Any] = {
    "architectures": ["CLIPVisionModel"],
    "attention_dropout": 0.0,
    "hidden_act": "quick_gelu",
    "hidden_size": 24,
    "image_size": 42,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 2,
    "num_channels": 3,
    "num_hidden_layers": 3,
    "patch_size": 14,
    "projection_dim": 16,
    "torch_dtype": "float32",
}
PROCESSOR: dict[str, Any] = {
    "crop_size": {"height": 42, "width": 42},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 42},
}


# Weights


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 weights of the tensor ``name``: the same on every machine and under every version."""
    uniform = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1.0, 1.0, size=shape)
    if "norm" in name or "layrnorm" in name:
        return (uniform * 0.1 + (1.0 if name.endswith("weight") else 0.0)).astype(np.float32)
    if name.endswith("bias"):
        return (uniform * 0.05).astype(np.float32)
    if "embed" in name:
        return (uniform * (0.1 if "patch" in name else 0.5)).astype(np.float32)
    return (uniform * 2.0 / math.sqrt(shape[-1])).astype(np.float32)


def tensors(shapes: Shapes, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values(name, shape)).to(dtype) for name, shape in shapes.items()}


def llama_shapes() -> Shapes:
    width, inner, vocabulary = LLAMA["hidden_size"], LLAMA["intermediate_size"], LLAMA["vocab_size"]
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, width)}
    for i in range(LLAMA["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}self_attn.{x}_proj.weight": (width, width) for x in "qkvo"}
        shapes |= {f"{layer}mlp.{x}_proj.weight": (inner, width) for x in ("gate", "up")}
        shapes |= {f"{layer}mlp.down_proj.weight": (width, inner)}
        shapes |= {f"{layer}{x}_layernorm.weight": (width,) for x in ("input", "post_attention")}
    return shapes | {"model.norm.weight": (width,), "lm_head.weight": (vocabulary, width)}


def tower_shapes(prefix: str = "vision_model.") -> Shapes:
    """The names of CLIP's own checkpoint; with the prefix of a LLaVA checkpoint the same tensors are asked for."""
    width, inner, patch = TOWER["hidden_size"], TOWER["intermediate_size"], TOWER["patch_size"]
    positions = (TOWER["image_size"] // patch) ** 2 + 1
    shapes: Shapes = {
        "embeddings.class_embedding": (width,),
        "embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "embeddings.position_embedding.weight": (positions, width),
    }
    matrices = {f"self_attn.{x}_proj": (width, width) for x in ("k", "v", "q", "out")}
    matrices |= {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    for i in range(TOWER["num_hidden_layers"]):
        for name, shape in matrices.items():
            shapes[f"encoder.layers.{i}.{name}.weight"] = shape
            shapes[f"encoder.layers.{i}.{name}.bias"] = shape[:1]
    norms = [f"encoder.layers.{i}.layer_norm{n}" for i in range(TOWER["num_hidden_layers"]) for n in (1, 2)]
    for name in ["pre_layrnorm", "post_layernorm", *norms]:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return {prefix + name: shape for name, shape in shapes.items()}


def projector_shapes(kind: str = "mlp2x_gelu") -> Shapes:
    width, seen = LLAMA["hidden_size"], TOWER["hidden_size"]
    if kind == "linear":
        return {"model.mm_projector.weight": (width, seen), "model.mm_projector.bias": (width,)}
    layers = {"0": (width, seen), "2": (width, width)}
    shapes: Shapes = {}
    for name, shape in layers.items():
        shapes |= {f"model.mm_projector.{name}.weight": shape, f"model.mm_projector.{name}.bias": shape[:1]}
    return shapes


def lora_values(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The initial weights of a LoRA matrix: A by the formula, B zero; ``name`` is that of model.named_parameters()."""
    return torch.zeros(shape) if "lora_B" in name else torch.from_numpy(values(name, shape))


# Files


def _write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False))


def write_tokenizer(folder: Path, *, legacy: bool, marks: tuple[str, ...] = ()) -> None:
    """Llama's tokenizer files, without a pad token; ``marks`` are added special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes((HERE / "tokenizer.model").read_bytes())
    added = {str(i): _special(text) for i, text in enumerate(["<unk>", "<s>", "</s>"])}
    added |= {str(VOCABULARY + i): _special(text) for i, text in enumerate(marks)}
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True, "add_eos_token": False}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "added_tokens_decoder": added}
    config |= {"clean_up_tokenization_spaces": False, "padding_side": "right", "model_max_length": 2048}
    _write_json(folder / "tokenizer_config.json", config)


def _special(text: str) -> dict[str, Any]:
    return {
        "content": text,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }


def write_llama(folder: Path) -> None:
    """A base language model as Vicuna is published: float16 weights."""
    write_tokenizer(folder, legacy=False)
    _write_json(folder / "config.json", LLAMA)
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    save_file(tensors(llama_shapes(), torch.float16), folder / "model.safetensors", metadata={"format": "pt"})


def write_tower(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", TOWER)
    _write_json(folder / "preprocessor_config.json", PROCESSOR)
    save_file(tensors(tower_shapes()), folder / "model.safetensors", metadata={"format": "pt"})


def write_projector(file: Path, kind: str = "mlp2x_gelu", *, marks: int = 0) -> None:
    """What stage 1 saves; with ``marks`` also that many rows of embeddings, as with mm_use_im_start_end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shapes = projector_shapes(kind)
    if marks:
        shapes["model.embed_tokens.weight"] = (marks, LLAMA["hidden_size"])
    torch.save(tensors(shapes), file)


def write_llava(folder: Path, tower: Path) -> None:
    """A LLaVA-1.5 as published, float16, with the tower's own weights inside."""
    write_tokenizer(folder, legacy=False)
    config = LLAMA | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "pad",
        "mm_hidden_size": TOWER["hidden_size"],
        "mm_patch_merge_type": "flat",
        "mm_projector_lr": None,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": str(tower),
        "model_type": "llava_llama",
        "tokenizer_model_max_length": 256,
        "tokenizer_padding_side": "right",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    weights = tensors(llama_shapes() | projector_shapes(), torch.float16)
    inside = "model.vision_tower.vision_tower."
    weights |= {inside + name: tensor.half() for name, tensor in tensors(tower_shapes()).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# Images and data

SIZES = {
    "square.png": (42, 42),
    "wide.png": (90, 40),
    "tall.png": (37, 75),
    "large.png": (160, 120),
    "small.png": (20, 24),
}


def draw(size: tuple[int, int], seed: int) -> Image.Image:
    """An RGB image of ``size`` (width, height) whose pixels are a formula in integers."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    channels = [(x * (3 + c + seed) + y * (5 - c) + (x * y) // (7 + c) + 40 * seed + 11 * c) % 256 for c in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, size) in enumerate(SIZES.items()):
        draw(size, seed).save(folder / name)


WORDS = "the black cat sits on red mat and looks at small white dog near old door in green field".split()


def _words() -> Iterator[int]:
    """Numbers from a linear congruential generator: the same everywhere."""
    state = 12345
    while True:
        state = (state * 1103515245 + 12345) % 2**31
        yield state >> 16


def mix(count: int, *, text_only_every: int = 0, turns: int = 3) -> list[dict[str, Any]]:
    """``count`` samples of 1 to ``turns`` rounds; every ``text_only_every``-th has no image (0: all have one)."""
    numbers = _words()
    names = list(SIZES)
    samples: list[dict[str, Any]] = []
    for i in range(count):
        has_image = not text_only_every or i % text_only_every != text_only_every - 1
        conversation: list[dict[str, str]] = []
        for turn in range(1 + next(numbers) % turns):
            question, answer = (" ".join(_pick(numbers, 2 + next(numbers) % most)) for most in (6, 14))
            start = "<image>\n" if has_image and turn == 0 else ""
            conversation.append({"from": "human", "value": f"{start}What {question}?"})
            conversation.append({"from": "gpt", "value": f"{answer.capitalize()}."})
        image = {"image": names[next(numbers) % len(names)]} if has_image else {}
        samples.append({"id": f"s{i}", **image, "conversations": conversation})
    return samples


def _pick(numbers: Iterator[int], count: int) -> list[str]:
    return [WORDS[next(numbers) % len(WORDS)] for _ in range(count)]


def write_everything(work: Path) -> None:
    """All inputs of the command lines in ``RUNS`` under ``work``."""
    write_llama(work / "llama")
    write_tower(work / "tower")
    write_llava(work / "llava", work / "tower")
    write_projector(work / "projector.bin")
    write_projector(work / "projector-linear.bin", "linear")
    write_projector(work / "projector-marks.bin", marks=2)
    write_images(work / "images")
    _write_json(work / "captions.json", mix(48, turns=1))
    _write_json(work / "mix.json", mix(48, text_only_every=4))
    _write_json(work / "mix-27.json", mix(27, text_only_every=3))
    _write_json(work / "images-27.json", mix(27))
    _write_json(work / "texts.json", mix(48, text_only_every=1))


# Tables of cases

TOKENIZERS: dict[str, dict[str, Any]] = {
    "new": {"legacy": False},
    "legacy": {"legacy": True},
    "marks": {"legacy": True, "marks": ("<|im_start|>", "<|im_end|>")},
}
MASK_VERSIONS: dict[str, list[str]] = {
    "new": "v1 llava_v1 v1_mmtag llama_2 llava_llama_2 mistral_instruct mpt chatml_direct".split()
    + "llava_v0 default v0_mmtag plain v0".split(),
    "legacy": "v1 llama_2 mistral_instruct mpt llava_v0 plain v0".split(),
    "marks": ["mpt", "chatml_direct"],
}


def lengths(kind: str, count: int) -> list[int]:
    """Lengths as ``modality_lengths`` gives them, negative for text-only samples: "images", "texts", "mix", "zero"."""
    numbers = _words()
    values_ = [1 + next(numbers) % 200 for _ in range(count)]
    if kind == "texts":
        return [-value for value in values_]
    if kind == "mix":
        return [-value if next(numbers) % 3 == 0 else value for value in values_]
    if kind == "zero":
        values_[count // 2] = 0
    return values_


def sampler_cases() -> Iterator[dict[str, Any]]:
    """Calls of the sampler's functions; torch.manual_seed(seed) comes first, ``generator`` is one seeded seed + 1."""
    grid = [(n, b, w) for n in (2, 7, 16, 33) for b in (1, 2, 4) for w in (1, 2, 3, 8)]
    grid += [(1, 1, 1), (64, 2, 4), (64, 4, 8)]
    for at, (count, batch_size, world_size) in enumerate(grid):
        shared = {"count": count, "batch_size": batch_size, "world_size": world_size, "seed": (0, 42, 1234)[at % 3]}
        for generator in (False, True):
            case = shared | {"generator": generator}
            yield {"function": "get_length_grouped_indices", "kind": "images"} | case
            kind = ("mix", "mix", "mix", "images", "texts")[at % 5]
            yield {"function": "get_modality_length_grouped_indices", "kind": kind} | case
        if count in (16, 33) and batch_size > 1:
            kind = ("mix", "images")[at % 2]
            yield {"function": "LengthGroupedSampler", "kind": kind} | shared | {"generator": False}
    zero = {"kind": "zero", "count": 8, "batch_size": 2, "world_size": 1, "seed": 0, "generator": False}
    yield {"function": "get_modality_length_grouped_indices"} | zero


def chunk_cases() -> Iterator[dict[str, Any]]:
    for count in (1, 4, 6, 8, 9, 16):
        for num_chunks in (1, 2, 3, 4, 8):
            numbers = lengths("images", count)
            order = sorted(range(count), key=lambda i, n=numbers: n[i], reverse=True)
            yield {"indices": order, "lengths": numbers, "num_chunks": num_chunks}


def batch_cases() -> dict[str, dict[str, Any]]:
    """Lists of instances as the dataset returns them, for the collator."""

    def instance(seed: int, count: int, image: tuple[int, ...] | None = (3, 4, 4), first: int = 1) -> dict[str, Any]:
        ids = [first] + [3 + (seed * 31 + 7 * i) % 200 for i in range(count - 1)]
        labels = [-100] * (count // 2) + ids[count // 2 :]
        made = {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}
        if image is not None:
            made["image"] = torch.from_numpy(values(f"image {seed}", image))
        return made

    def case(instances: list[dict[str, Any]], pad: int = 0, most: int = 16) -> dict[str, Any]:
        return {"pad_token_id": pad, "model_max_length": most, "instances": instances}

    with_unk = instance(5, 7)
    with_unk["input_ids"][[2, 5]] = 0
    with_unk["labels"][5] = 0
    slot = instance(6, 8)
    slot["input_ids"][1] = -200
    return {
        "one": case([instance(1, 6)]),
        "padded": case([instance(1, 6), instance(2, 9), instance(3, 1)]),
        "same length": case([instance(1, 5), instance(2, 5)]),
        "cut": case([instance(1, 6), instance(2, 21), instance(3, 16), instance(4, 17)]),
        "unk inside": case([with_unk, instance(1, 9)]),
        "image slot": case([slot, instance(1, 5)]),
        "pad is an added token": case([with_unk, instance(1, 9)], pad=1000),
        "starts with pad": case([instance(1, 4, first=0), instance(2, 6)]),
        "images of two sizes": case([instance(1, 4), instance(2, 4, (3, 6, 4))]),
        "no image": case([instance(1, 4, None), instance(2, 6, None)]),
        "first without image": case([instance(1, 4, None), instance(2, 6)]),
        "last without image": case([instance(1, 4), instance(2, 6, None)]),
        "anyres tiles": case([instance(1, 4, (5, 3, 4, 4)), instance(2, 6, (3, 3, 4, 4))]),
        "empty": case([]),
    }


# Reading the gold

ABSENT = "(absent)"


def differences(of: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """What to change in ``base`` to get ``of``: keys with their values, ``ABSENT`` for those to leave out."""
    changed = {key: value for key, value in of.items() if key not in base or base[key] != value}
    return changed | dict.fromkeys(base.keys() - of.keys(), ABSENT)


def changed(base: dict[str, Any], differences_: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``differences`` applied: the flags of a run, from the file's ``shared_flags``."""
    return {key: value for key, value in (base | differences_).items() if value != ABSENT}


def gold(name: str) -> dict[str, Any]:
    """The content of ``name``.json."""
    return json.loads((HERE / f"{name}.json").read_text())


def mask_rows(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Every row of masks_15.json as (branch, sample's name, row), with whole ``ids`` and ``labels`` in place of spans.

    A row with ``error`` has neither. ``mismatch`` is what the original warned of: tokens counted, tokens found.
    """
    known: dict[tuple[str, str], dict[str, Any]] = {}
    for branch in content["branches"]:
        rows = dict(known[branch["as"][0], branch["as"][1]]) if "as" in branch else {}
        rows |= branch["rows"]
        known[branch["version"], branch["tokenizer"]] = rows
        for name, row in rows.items():
            if "error" in row:
                yield branch, name, row
                continue
            start = branch["start"] if row.get("start", True) else []
            ids = start + row["ids"]
            labels = [-100] * len(ids)
            for first, end in row["trained"]:
                labels[first + len(start) : end + len(start)] = ids[first + len(start) : end + len(start)]
            whole = {"ids": ids, "labels": labels}
            if "mismatch" in row:
                whole["mismatch"] = [count + len(start) for count in row["mismatch"]]
            yield branch, name, whole


def saved_files(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """files_15.json as {run: {file: what it holds, or None where only its name is gold}}."""
    tables: list[dict[str, Any]] = []
    for table in content["tables"]:
        tables.append(changed(tables[table["like"]], table["differences"]) if "like" in table else table)
    return {
        run: {file: None if at is None else tables[at] for file, at in files.items()}
        for run, files in content["runs"].items()
    }
