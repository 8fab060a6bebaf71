"""The inputs of LLaVA-NeXT's gold runs beside those of ``inputs.py``: byte-level tokenizers, a Qwen2, AnyRes, data.

Used by make_next.py, which runs the original on them, and by our tests, which run ours; nothing here imports either.
Weights are ``inputs.values``, a formula of the tensor's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.gold.training import inputs, mask_samples
from tests.gold.training.inputs import HERE, LLAMA, TOWER, Shapes, draw, tensors

# Tokenizers

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3_TEMPLATE = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# tokenizer_config.json of each family, as Qwen2-Instruct, Llama-3-Instruct and Gemma publish theirs; "first" is not of
# that file: the token that starts every text.
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen": {
        "tokenizer_class": "Qwen2Tokenizer",
        "special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_prefix_space": False,
        "errors": "replace",
        "split_special_tokens": False,
        "chat_template": QWEN_TEMPLATE,
    },
    "llama3": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "special": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "chat_template": LLAMA3_TEMPLATE,
        "first": "<|begin_of_text|>",
    },
    "gemma": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "special": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "first": "<bos>",
    },
}


def byte_alphabet() -> list[str]:
    """GPT-2's characters for the bytes, in its order, in which the newline has the id 198."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def byte_vocabulary() -> list[str]:
    """The 900 pieces: the alphabet, then one piece for each merge."""
    merges: list[str] = json.loads((HERE / "byte_merges.json").read_text())
    return byte_alphabet() + [merge.replace(" ", "") for merge in merges]


def write_byte_tokenizer(folder: Path, family: str) -> None:
    """The files of a byte-level BPE tokenizer of one of ``FAMILIES``."""
    config = dict(FAMILIES[family])
    pieces, special, first = byte_vocabulary(), config.pop("special"), config.pop("first", None)
    ids = {piece: i for i, piece in enumerate([*pieces, *special])}
    added = [{"id": ids[text], "content": text, **_flags()} for text in special]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    model = {"type": "BPE", "vocab": {piece: ids[piece] for piece in pieces}}
    model |= {"merges": json.loads((HERE / "byte_merges.json").read_text()), "dropout": None, "unk_token": None}
    model |= {"continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False}
    content = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None}
    content |= {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]}}
    content |= {"post_processor": _starts_with(first, ids) if first else byte_level}
    content |= {"decoder": byte_level, "model": model}
    config |= {"added_tokens_decoder": {str(ids[text]): {"content": text, **_flags()} for text in special}}
    config |= {"clean_up_tokenization_spaces": False, "model_max_length": 32768}
    _write_json(folder / "tokenizer.json", content)
    _write_json(folder / "tokenizer_config.json", config)
    if family == "qwen":  # the slow class wants these
        _write_json(folder / "vocab.json", model["vocab"])
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(model["merges"]) + "\n")


def _flags() -> dict[str, bool]:
    return {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def _starts_with(first: str, ids: dict[str, int]) -> dict[str, Any]:
    token, text = {"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    pair = [token, text, {"SpecialToken": {"id": first, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    special = {first: {"id": first, "ids": [ids[first]], "tokens": [first]}}
    return {"type": "TemplateProcessing", "single": [token, text], "pair": pair, "special_tokens": special}


def _write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False))


# Checkpoints

QWEN: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 900,
    "eos_token_id": 902,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
    "max_window_layers": 2,
    "model_type": "qwen2",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 960,  # more than the tokenizer has, as Qwen2's
}
PINPOINTS = "[[42, 84], [84, 42], [84, 84], [126, 42], [42, 126]]"  # the released list, scaled to the tower
LARGE_TOWER = TOWER | {"image_size": 224, "patch_size": 56}
NEWLINE: Shapes = {"model.image_newline": (LLAMA["hidden_size"],)}


def qwen_shapes() -> Shapes:
    width, inner = QWEN["hidden_size"], QWEN["intermediate_size"]
    kv = width // QWEN["num_attention_heads"] * QWEN["num_key_value_heads"]
    shapes: Shapes = {"model.embed_tokens.weight": (QWEN["vocab_size"], width)}
    for i in range(QWEN["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for x, rows in (("q", width), ("k", kv), ("v", kv)):
            shapes |= {f"{layer}self_attn.{x}_proj.weight": (rows, width), f"{layer}self_attn.{x}_proj.bias": (rows,)}
        shapes |= {f"{layer}self_attn.o_proj.weight": (width, width)}
        shapes |= {f"{layer}mlp.{x}_proj.weight": (inner, width) for x in ("gate", "up")}
        shapes |= {f"{layer}mlp.down_proj.weight": (width, inner)}
        shapes |= {f"{layer}{x}_layernorm.weight": (width,) for x in ("input", "post_attention")}
    return shapes | {"model.norm.weight": (width,), "lm_head.weight": (QWEN["vocab_size"], width)}


def large_tower_shapes() -> Shapes:
    """A tower of 4 x 4 patches of 56 pixels; the original takes (1x1),...,(2x2) only from 224 pixels on."""
    start = "vision_model.embeddings."
    patches = (LARGE_TOWER["image_size"] // LARGE_TOWER["patch_size"]) ** 2
    return inputs.tower_shapes() | {
        start + "patch_embedding.weight": (
            TOWER["hidden_size"],
            3,
            LARGE_TOWER["patch_size"],
            LARGE_TOWER["patch_size"],
        ),
        start + "position_embedding.weight": (patches + 1, TOWER["hidden_size"]),
    }


def write_qwen(folder: Path) -> None:
    """A base Qwen2, its weights in bfloat16."""
    write_byte_tokenizer(folder, "qwen")
    _write_json(folder / "config.json", QWEN)
    _write_json(folder / "generation_config.json", {"bos_token_id": 900, "eos_token_id": 902, "pad_token_id": 900})
    save_file(tensors(qwen_shapes(), torch.bfloat16), folder / "model.safetensors", metadata={"format": "pt"})


def write_large_tower(folder: Path) -> None:
    side = LARGE_TOWER["image_size"]
    size = {"crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}}
    _write_json(folder / "config.json", LARGE_TOWER)
    _write_json(folder / "preprocessor_config.json", inputs.PROCESSOR | size)
    save_file(tensors(large_tower_shapes()), folder / "model.safetensors", metadata={"format": "pt"})


def write_llava_next(folder: Path, tower: Path) -> None:
    """A LLaVA-1.6 as published: projector, newline and the tower's own weights inside."""
    inputs.write_tokenizer(folder, legacy=False)
    config = LLAMA | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": json.loads(PINPOINTS),
        "mm_hidden_size": TOWER["hidden_size"],
        "mm_patch_merge_type": "spatial_unpad",
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
        "unfreeze_mm_vision_tower": True,
        "use_mm_proj": True,
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    weights = tensors(inputs.llama_shapes() | inputs.projector_shapes() | NEWLINE, torch.float16)
    inside = "model.vision_tower.vision_tower."
    # Not the tower's own file: a run that forgets the checkpoint's tower gets other losses.
    weights |= {inside + name: tensor.half() * 1.25 for name, tensor in tensors(inputs.tower_shapes()).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# Data

LARGE_SIZES = {"huge.png": (700, 500), "portrait.png": (300, 640), "panorama.png": (900, 230), "plain.png": (224, 224)}


def several_images(count: int) -> list[dict[str, Any]]:
    """Samples with two or three images, one image in a list, one image, and none, in turn."""
    samples = inputs.mix(count)
    names = list(inputs.SIZES)
    for i, sample in enumerate(samples):
        first = sample["conversations"][0]
        question = first["value"].removeprefix("<image>\n")
        if i % 5 == 0:
            sample["image"] = [names[i % 5], names[(i + 1) % 5]]
            first["value"] = f"<image>\n<image>\n{question}"
        elif i % 5 == 1:
            sample["image"] = [names[i % 5]]
        elif i % 5 == 2:
            sample["image"] = [names[(i + k) % 5] for k in range(3)]
            first["value"] = f"Compare <image> with <image>. {question}"
            sample["conversations"][-2]["value"] += "\n<image>"
        elif i % 5 == 4:
            del sample["image"]
            first["value"] = question
    return samples


def write_everything(work: Path) -> None:
    """All inputs of the command lines in ``next_command_lines.py`` under ``work``."""
    inputs.write_everything(work)
    write_qwen(work / "qwen")
    write_large_tower(work / "tower-224")
    _write_refused(work)
    write_llava_next(work / "llava-next-llama", work / "tower")
    for family in FAMILIES:
        write_byte_tokenizer(work / f"tokenizer-{family}", family)
    for seed, (name, size) in enumerate(LARGE_SIZES.items()):
        draw(size, seed).save(work / "images" / name)
    _write_json(work / "several.json", several_images(48))
    large = inputs.mix(24, text_only_every=6)
    for i, sample in enumerate(large):
        if "image" in sample:
            sample["image"] = list(LARGE_SIZES)[i % len(LARGE_SIZES)]
    _write_json(work / "large.json", large)
    parts = inputs.mix(30, text_only_every=5)
    _write_json(work / "part-a.json", parts[:12])
    _write_json(work / "part-b.json", parts[12:23])
    lines = "".join(json.dumps(sample) + "\n" for sample in parts[23:])
    (work / "part-c.jsonl").write_text(lines)
    (work / "parts.yaml").write_text("\n".join(_yaml_lines(work)) + "\n")


def _yaml_lines(work: Path) -> Iterator[str]:
    yield "datasets:"
    strategies = {"part-a.json": "first:5", "part-b.json": "end:40%", "part-c.jsonl": "all"}
    for name, strategy in strategies.items():
        yield f"  - json_path: {work / name}"
        yield f"    sampling_strategy: {strategy}"
    yield f"  - json_path: {work / 'part-a.json'}"
    yield "    sampling_strategy: random:4"
    yield f"  - json_path: {work / 'part-b.json'}"  # no strategy: all of it


def _write_refused(work: Path) -> None:
    """Checkpoints of families that the original cannot train."""
    for family, more in (("mistral", {"sliding_window": None}), ("gemma", {"head_dim": 8})):
        inputs.write_llama(work / family)
        _write_json(work / family / "config.json", LLAMA | {"model_type": family} | more)


# Tables of cases

MASKS: list[dict[str, Any]] = [
    {"version": "v1", "tokenizer": "new", "samples": "all", "limit": 128},
    {"version": "llava_llama_2", "tokenizer": "new", "samples": "odd", "limit": 192},
    {"version": "mistral_instruct", "tokenizer": "new", "samples": "even", "limit": 128},
    {"version": "mpt", "tokenizer": "new", "samples": "odd", "limit": 128},
    {"version": "llava_v0", "tokenizer": "new", "samples": "even", "limit": 128},
    {"version": "llava_v0_mmtag", "tokenizer": "new", "samples": "odd", "limit": 192},
    {"version": "plain", "tokenizer": "new", "samples": "most", "limit": 128},
    {"version": "v1", "tokenizer": "legacy", "samples": "even", "limit": 128},
    {"version": "mpt", "tokenizer": "legacy", "samples": "even", "limit": 128},
    {"version": "chatml_direct", "tokenizer": "marks", "samples": "odd", "limit": 128},
    {"version": "qwen_1_5", "tokenizer": "qwen", "samples": "all", "limit": 128},
    {"version": "mpt", "tokenizer": "qwen", "samples": "odd", "limit": 128},
    {"version": "llava_llama_3", "tokenizer": "llama3", "samples": "most", "limit": 128},
    {"version": "gemma_instruct", "tokenizer": "gemma", "samples": "even", "limit": 128},
]


def mask_set(name: str) -> dict[str, dict[str, Any]]:
    """The samples of a mask branch: "all", "most" (all but long ones), "even" or "odd" (a half of these, one long)."""
    samples = mask_samples.SAMPLES
    if name == "all":
        return samples
    most = {key: sample for key, sample in samples.items() if key not in mask_samples.LONG_ONES}
    if name == "most":
        return most
    long = ("long answer", "long text question")[name == "odd"]
    return dict(list(most.items())[name == "odd" :: 2]) | {long: samples[long]}


def mask_rows(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Every row of masks_next.json as (branch, sample's name, row), with whole ``ids`` and ``labels``, or ``error``."""
    for branch in content["branches"]:
        for name, row in branch["rows"].items():
            if "error" in row:
                yield branch, name, row
                continue
            ids = (branch["start"] if row.get("start", True) else []) + row["ids"]
            labels = [-100] * len(ids)
            for first, end in row["trained"]:
                labels[first:end] = ids[first:end]
            for at, label in row.get("labels", {}).items():
                labels[int(at)] = label
            yield branch, name, {"ids": ids, "labels": labels, "said": row.get("said")}


def flags_of(content: dict[str, Any], entry: dict[str, Any]) -> dict[str, str]:
    """All flags of a run of runs_next.json or a command line of groups_next.json."""
    whole = content["base"] | entry["flags"]
    return {name: flag for name, flag in whole.items() if flag is not None}


def groups_of(content: dict[str, Any], title: str) -> list[dict[str, Any]]:
    """The optimizer's groups of a command line of groups_next.json, with the parameters' names."""
    entry = content["command_lines"][title]
    names = content["models"][entry["model"]]
    return [
        group | {"parameters": [name for first, end in group["parameters"] for name in names[first:end]]}
        for group in entry["groups"]
    ]


def file_content(content: dict[str, Any], run: str, file: str) -> dict[str, Any] | None:
    """What files_next.json knows of a file: {tensor: [shape, dtype]}, a config, or None for one that is only named."""
    at = content["runs"][run][file]
    if at is None:
        return None
    table = content["tables"][at]
    if "as" not in table:
        return table
    whole = content["tables"][table["as"]] | table["but"]
    return {key: value for key, value in whole.items() if key not in table["lacks"]}


def order_cases() -> Iterator[dict[str, Any]]:
    """Whole runs of the trainer over a data set of lengths; ``settings`` are TrainingArguments."""
    groups = (None, "group_by_length", "group_by_modality_length", "group_by_modality_length_auto", "group_by_varlen")
    for group_by in groups:
        for accumulation, seed, drop_last in ((1, 42, False), (2, 7, True), (4, 42, True), (4, 7, False)):
            settings = {"group_by": group_by, "gradient_accumulation_steps": accumulation, "seed": seed}
            settings |= {"dataloader_drop_last": drop_last, "num_train_epochs": 2, "per_device_train_batch_size": 2}
            for kind in ("mix", "images") if group_by and "modality" in group_by else ("mix",):
                yield {"kind": kind, "count": 27, "settings": settings}


def sampler_cases() -> Iterator[dict[str, Any]]:
    """Calls of the sampler's functions; torch.manual_seed(seed) comes first, ``generator`` is one seeded seed + 1."""
    functions = {
        "get_length_grouped_indices": ("images",),
        "get_length_grouped_indices_auto_single": ("images",),
        "get_variable_length_grouped_indices": ("images",),
        "get_modality_length_grouped_indices": ("mix", "images", "texts"),
        "get_modality_length_grouped_indices_auto": ("mix", "mix", "images", "texts"),
    }
    options: tuple[dict[str, bool], ...] = (
        {},
        {"variable_length": True},
        {"group_by_modality": True},
        {"group_by_modality_auto": True},
        {"variable_length": True, "group_by_modality": True},
    )
    grid = [(n, b, w) for n in (1, 7, 16, 40) for b in (1, 2, 4) for w in (1, 2, 8)]
    for at, (count, batch_size, world_size) in enumerate(grid):
        shared = {"count": count, "batch_size": batch_size, "world_size": world_size, "seed": (0, 42, 1234)[at % 3]}
        for function, kinds in functions.items():
            case = shared | {"function": function, "kind": kinds[at % len(kinds)]}
            yield case | {"generator": at % 2 == 0}
        if count in (7, 16):
            chosen = options[at % len(options)]
            kind = "mix" if any("modality" in name for name in chosen) else "images"
            case = shared | {"function": "LengthGroupedSampler", "options": chosen, "kind": kind}
            yield case | {"generator": False}


def batch_cases() -> dict[str, dict[str, Any]]:
    """Lists of instances as the dataset returns them, for the collator; the other keys are the tokenizer's."""

    def instance(seed: int, count: int, *images: tuple[tuple[int, ...], tuple[int, int], str]) -> dict[str, Any]:
        ids = [1] + [3 + (seed * 31 + 7 * i) % 200 for i in range(count - 1)]
        labels = [-100] * (count // 2) + ids[count // 2 :]
        made: dict[str, Any] = {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), "id": f"s{seed}"}
        if images:
            made["image"] = [(torch.zeros(shape), size, modality) for shape, size, modality in images]
        return made

    def case(*instances: dict[str, Any], pad: int | None = 0, most: int = 16, side: str = "right") -> dict[str, Any]:
        return {"pad_token_id": pad, "model_max_length": most, "padding_side": side, "instances": list(instances)}

    tiles, square = ((5, 3, 4, 4), (90, 40), "image"), ((3, 4, 4), (20, 24), "image")
    text = ((1, 3, 4, 4), (4, 4), "text")
    with_pad = instance(5, 7, tiles)
    with_pad["input_ids"][[2, 5]] = 0
    with_pad["labels"][5] = 0
    short_labels = instance(1, 6, tiles)
    short_labels["labels"] = short_labels["labels"].int()
    return {
        "one": case(instance(1, 6, tiles)),
        "padded": case(instance(1, 6, tiles), instance(2, 9, text), instance(3, 1, tiles)),
        "padded left": case(instance(1, 6, tiles), instance(2, 9, text), instance(3, 1, tiles), side="left"),
        "cut": case(instance(1, 6, tiles), instance(2, 21, tiles), instance(3, 17, text)),
        "cut left": case(instance(1, 6, tiles), instance(2, 21, tiles), instance(3, 17, text), side="left"),
        "pad inside": case(with_pad, instance(1, 9, tiles)),
        "pad inside left": case(with_pad, instance(1, 9, tiles), side="left"),
        "no pad": case(with_pad, instance(1, 9, tiles), pad=None),
        "no pad left": case(with_pad, instance(1, 9, tiles), pad=None, side="left"),
        "pad is another": case(with_pad, instance(1, 9, tiles), pad=900),
        "several images": case(instance(1, 6, square, square), instance(2, 5, tiles), instance(3, 7, text)),
        "short labels": case(short_labels),
        "no image": case(instance(1, 4), instance(2, 6)),
        "first without image": case(instance(1, 4), instance(2, 6, tiles)),
        "last without image": case(instance(1, 4, tiles), instance(2, 6)),
        "empty": case(),
    }


def image_cases() -> dict[str, dict[str, Any]]:
    """Samples, and how their images are processed."""
    talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
    cases: dict[str, dict[str, Any]] = {}
    images = {name: name for name in inputs.SIZES} | {"a list of one": ["wide.png"], "two": ["wide.png", "tall.png"]}
    for aspect in ("anyres", "pad", "square"):
        for title, image in images.items():
            sample = {"image": image, "conversations": talk}
            case = {"sample": sample, "aspect": aspect, "pinpoints": json.loads(PINPOINTS), "tower": "tower"}
            cases[f"{title}, {aspect}"] = case
    for name in LARGE_SIZES:
        sample = {"image": name, "conversations": talk}
        for aspect, pinpoints in (("anyres", "(1x1),...,(3x3)"), ("anyres_max_9", "(1x1),...,(6x6)")):
            case = {"sample": sample, "aspect": aspect, "pinpoints": pinpoints, "tower": "tower-224"}
            cases[f"{name}, {aspect}, {pinpoints}"] = case
    words = [{"from": "human", "value": "What is a cat?"}, {"from": "gpt", "value": "An animal."}]
    cases["text only"] = {"sample": {"conversations": words}, "aspect": "anyres", "pinpoints": None, "tower": "tower"}
    return cases
