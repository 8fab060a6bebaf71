"""Converts a checkpoint between the original's layout, llava-hf's and GGUF: ``llava convert``.

Tensors are renamed one by one and keep their bits; no model is filled. The two layouts differ in more than names:

    the original                                    llava-hf
    a flat config.json                              text_config, vision_config; see ``describe_for_transformers``
    an image is id -200, which no tokenizer has     <image> is a token, and so is <pad>: see ``vocabulary``
    vocab_size rows of embeddings                   more rows for these tokens, up to a multiple of 64
    the tower inside or named                       the tower inside
    a conversation template by name                 chat_template.jinja; see ``chat_template``

Values that llava-hf's layout cannot express are kept in its config.json as ``llava_original``, so converting back gives
the original's config.json and every tensor bit by bit. ``conversation_template`` beside it names the template. For some
image sizes Transformers chooses other tiles than the original; ``image.geometry`` implements both.

Source: transformers 5.23 models/llava and models/llava_next (convert_llava_weights_to_hf.py and
convert_llava_next_weights_to_hf.py of 4.51 for the tokens and rows).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from llava.config import ORIGINAL_KEY, read_json
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import find_template
from llava.errors import UsageError
from llava.image.pixels import ImageProcessor
from llava.model import layouts
from llava.model.chat_template import write_chat_template
from llava.model.checkpoint import load_opened, save_checkpoint
from llava.model.checkpoint_reader import OpenCheckpoint, open_checkpoint
from llava.model.companions import (
    describe_model,
    load_generation_config,
    save_generation_config,
    save_tokenizer,
    write_json,
)
from llava.model.gguf.gguf_export import Source, check_expressible, write_gguf
from llava.model.image_adapter import read_adapter
from llava.model.output_folder import new_folder, refuse_target
from llava.model.placement import read_dtype
from llava.model.vocabulary import (
    add_image_tokens,
    count_original_rows,
    count_rows,
    count_tokens,
    drop_image_tokens,
    resize_rows,
)
from llava.model.weights import write_tensors
from llava.prompt import find_closings, write_image_slot
from llava.towers import is_siglip

LAYOUTS = ("original", "hf", "gguf")

_TEXT_CONFIGS: dict[str, Any] = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}
# Keys of the original's config.json for which llava-hf's has its own.
_TRANSLATED = frozenset(
    "architectures model_type torch_dtype use_mm_proj unfreeze_mm_vision_tower mm_hidden_size mm_projector_type "
    "mm_patch_merge_type mm_vision_config mm_vision_select_layer mm_vision_select_feature image_grid_pinpoints "
    "conversation_template".split()
)
_POST_NORM = f"{layouts.TOWER}post_layernorm."


@dataclass(frozen=True)
class Conversion:
    """The checkpoint that was written. ``notes`` are sentences about differences beyond names."""

    folder: Path
    layout: str
    num_tensors: int
    num_bytes: int
    notes: tuple[str, ...]


@dataclass
class _Parts:
    """A checkpoint without its tensors, in the original's form: without llava-hf's added tokens and rows."""

    opened: OpenCheckpoint
    config: dict[str, Any]  # in the original's names; vocab_size is the number of rows to keep
    tower: dict[str, Any]  # the values of CLIPVisionConfig or SiglipVisionConfig
    tokenizer: Any
    processor: ImageProcessor
    generation: dict[str, Any]
    is_norm_made_up: bool  # an earlier conversion added the tower's last norm
    notes: list[str] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """How many rows of embeddings the original has."""
        return int(self.config["vocab_size"])

    @property
    def needs_norm(self) -> bool:
        """Whether the tower lacks the last norm, which LLaVA never runs and Transformers requires."""
        body = self.opened.model.get_vision_tower().vision_tower.vision_model
        return self.is_norm_made_up or isinstance(body.post_layernorm, nn.Identity)


def convert(
    source: str | Path,
    folder: str | Path,
    layout: str,
    *,
    base: str | Path | None = None,
    max_shard_bytes: int = 5_000_000_000,
    vision_tower: str | Path | None = None,
    gguf_type: str | None = None,
) -> Conversion:
    """Writes the checkpoint ``source`` to ``folder`` in the layout "original", "hf" or "gguf".

    The folder appears whole or not at all; an older checkpoint in it is replaced, and its other files are kept. Memory
    holds one file of ``max_shard_bytes`` at most, and the embeddings if they grow. LoRA layers or a projector alone are
    loaded and merged into the whole model first, in the dtype that it is stored in.

    Args:
        source, base, vision_tower: as in ``load_model``.
        layout: one of ``LAYOUTS``.
        gguf_type: of the language model's matrices in GGUF, one of ``gguf_export.TYPES``; by default f16.

    Raises:
        CheckpointError: the source is missing, incomplete, damaged or unsupported.
        UsageError: the layout is unknown, ``folder`` is or contains the source, or the layout has no such model.
    """
    if layout not in LAYOUTS:
        raise UsageError(
            f"There is no layout '{layout}' to convert to; use {', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}."
        )
    if gguf_type is not None and layout != "gguf":
        raise UsageError(f"--type {gguf_type} is for --to gguf; the other layouts keep the dtype of every tensor.")
    refuse_target(folder)
    opened = open_checkpoint(source, base=base, vision_tower=vision_tower)
    refuse_target(folder, opened.everything_read)
    if layout == "hf":
        check_representable(opened)
    elif layout == "gguf":
        check_expressible(opened, gguf_type or "f16")
    if opened.fine_tune is not None:
        return _convert_merged(opened, folder, layout, max_shard_bytes, gguf_type)
    parts = _read_parts(opened)
    with new_folder(folder, opened.everything_read) as partial:
        written = _Tally()
        if layout == "hf":
            _write_hf(parts, partial, written, max_shard_bytes)
        elif layout == "gguf":
            _write_gguf(parts, partial, written, gguf_type or "f16", Path(folder).expanduser().resolve().name)
        else:
            _write_original(parts, partial, written, max_shard_bytes)
    parts.notes += [f"{name} was left out: this model does not use it." for name in opened.skipped]
    return Conversion(Path(folder), layout, written.num_tensors, written.num_bytes, tuple(parts.notes))


def _convert_merged(
    opened: OpenCheckpoint, folder: str | Path, layout: str, max_shard_bytes: int, gguf_type: str | None
) -> Conversion:
    """Merges a fine-tune into its base and converts the result."""
    loaded = load_opened(opened, torch.device("cpu"), read_dtype(opened.spec.dtype) or torch.float16)
    folder = Path(folder).expanduser().resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        whole = Path(temporary) / opened.folder.name
        save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, whole, max_shard_bytes=max_shard_bytes)
        del loaded
        return convert(whole, folder, layout, max_shard_bytes=max_shard_bytes, gguf_type=gguf_type)


def check_representable(opened: OpenCheckpoint) -> None:
    """Raises UsageError if Transformers' LLaVA classes cannot run this checkpoint."""
    spec, tiling = opened.spec, opened.spec.tiling
    if spec.projector_type != "mlp2x_gelu":
        raise UsageError(
            f"{opened.folder} has mm_projector_type {spec.projector_type}, but Transformers' LLaVA classes have only "
            "mlp2x_gelu: it cannot be converted to hf."
        )
    if read_adapter(spec.config) is not None:
        raise UsageError(
            f"{opened.folder} has an image adapter (mm_image_adapter), which Transformers' LLaVA classes have not: it "
            "cannot be converted to hf."
        )
    if len(spec.scales) > 1:
        raise UsageError(
            f"{opened.folder} has s2: true, but Transformers' LLaVA classes encode an image at one scale only: "
            "it cannot be converted to hf."
        )
    is_next = tiling.aspect == "anyres" and tiling.merge == "spatial_unpad"
    if not is_next and (tiling.is_anyres or tiling.merge != "flat"):
        raise UsageError(
            f"{opened.folder} has image_aspect_ratio {tiling.aspect} with mm_patch_merge_type {tiling.merge}, but "
            "Transformers' LLaVA classes have only anyres with spatial_unpad, and one tile (pad, square) with flat: "
            "it cannot be converted to hf."
        )


def describe_for_transformers(
    config: Mapping[str, Any],
    opened: OpenCheckpoint,
    *,
    tower: Mapping[str, Any],
    select_layer: int,
    is_norm_made_up: bool,
    num_rows: int,
    image_id: int,
    pad_id: int,
) -> dict[str, Any]:
    """The config.json of a LlavaForConditionalGeneration, or with anyres of a LlavaNextForConditionalGeneration.

    Args:
        config: the original's config.json. Values that llava-hf cannot express, or that had to be changed, are kept as
            ``llava_original``.
        tower: the vision tower's configuration, whose layer ``select_layer`` is read.
        is_norm_made_up: the tower's last norm has to be removed when converting back.
        num_rows: the number of rows of the embeddings that are written.
    """
    spec, tiling = opened.spec, opened.spec.tiling
    known = {*_TEXT_CONFIGS[spec.family]().to_dict(), "rope_theta", "rope_scaling"} - _TRANSLATED
    text = {key: value for key, value in config.items() if key in known}
    text.update(model_type=spec.family, vocab_size=num_rows, pad_token_id=pad_id)
    translated = _TRANSLATED if tiling.is_anyres else _TRANSLATED - {"image_grid_pinpoints"}  # it has no effect then
    kept = {key: value for key, value in config.items() if key not in translated and text.get(key, ...) != value}
    kept.update({key: config.get(key) for key in ("vocab_size", "pad_token_id")})
    if is_norm_made_up or tower != config["mm_vision_config"]:
        kept.update({key: config[key] for key in ("mm_vision_config", "mm_vision_select_layer")})
    is_full = spec.select_feature == "cls_patch" or is_siglip(tower)
    values: dict[str, Any] = {
        "architectures": ["LlavaNextForConditionalGeneration" if tiling.is_anyres else "LlavaForConditionalGeneration"],
        "model_type": "llava_next" if tiling.is_anyres else "llava",
        "torch_dtype": config["torch_dtype"],
        "text_config": text,
        "vision_config": {**tower, "model_type": "siglip_vision_model" if is_siglip(tower) else "clip_vision_model"},
        "image_token_index": image_id,
        "image_seq_length": (tiling.tile_px // tiling.patch_px) ** 2 + tiling.extra_positions,
        "vision_feature_layer": select_layer,
        "vision_feature_select_strategy": "full" if is_full else "default",
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "pad_token_id": pad_id,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
        "conversation_template": opened.template,
        ORIGINAL_KEY: kept,
    }
    if tiling.is_anyres:
        values["image_grid_pinpoints"] = [[height, width] for width, height in tiling.pinpoints]
    return values


def describe_processor(opened: OpenCheckpoint, processor: ImageProcessor) -> tuple[dict[str, Any], dict[str, Any]]:
    """preprocessor_config.json and processor_config.json for Transformers' LlavaProcessor or LlavaNextProcessor."""
    tiling = opened.spec.tiling
    kind = "LlavaNextProcessor" if tiling.is_anyres else "LlavaProcessor"
    has_no_class = is_siglip(opened.spec.tower_config)
    images = {**processor.to_dict(), "processor_class": kind}
    if tiling.is_anyres:
        pinpoints = [[height, width] for width, height in tiling.pinpoints]
        images.update(image_processor_type="LlavaNextImageProcessor", do_pad=True, image_grid_pinpoints=pinpoints)
    elif tiling.aspect == "pad":
        # CLIP's own class would crop the image. Transformers has this one from 4.48 on.
        images.update(image_processor_type="LlavaImageProcessor", do_pad=True)
    return images, {
        "processor_class": kind,
        "image_token": DEFAULT_IMAGE_TOKEN,
        "patch_size": tiling.patch_px,
        "vision_feature_select_strategy": "full" if tiling.extra_positions or has_no_class else "default",
        "num_additional_image_tokens": 0 if has_no_class else 1,  # the CLS position, which "default" drops again
    }


def _read_parts(opened: OpenCheckpoint) -> _Parts:
    spec, model = opened.spec, opened.model
    tokenizer, processor = opened.load_tokenizer(), opened.load_processor()
    generation = load_generation_config(opened.folders, model, tokenizer).to_dict()
    config = describe_model(model, include_tower=True)
    config.setdefault("mm_patch_merge_type", spec.tiling.merge)
    tower = config["mm_vision_config"]
    kept = spec.raw.get(ORIGINAL_KEY, {}) if spec.layout == "hf" else {}
    if spec.layout == "hf":
        tokenizer = drop_image_tokens(tokenizer)
        said = kept.get("vocab_size")
        rows = count_original_rows(tokenizer, model.config.vocab_size, said if isinstance(said, int) else None)
        if kept:  # converted from the original, whose rounding it had
            config.pop("mm_tiling_dialect", None)
        config = {**config, "pad_token_id": tokenizer.pad_token_id, **kept, "vocab_size": rows}
        generation["pad_token_id"] = tokenizer.pad_token_id
    config = dict(sorted(config.items()))
    is_norm_made_up = "mm_vision_config" in kept and not is_siglip(tower)
    return _Parts(opened, config, tower, tokenizer, processor, generation, is_norm_made_up)


@dataclass
class _Tally:
    """Counts the tensors on their way to the files."""

    num_tensors: int = 0
    num_bytes: int = 0
    dtype: torch.dtype = torch.float32  # of the embeddings, and so of the whole decoder

    def count(self, name: str, tensor: torch.Tensor) -> None:
        """Adds a tensor of that name."""
        self.num_tensors += 1
        self.num_bytes += tensor.nbytes
        if name == layouts.EMBEDDINGS:
            self.dtype = tensor.dtype


def _stream(parts: _Parts, num_rows: int, written: _Tally) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor by our name, embeddings and head with ``num_rows`` rows; shows progress on a terminal."""
    console = Console(stderr=True)
    total = sum(1 for _ in parts.opened.model.named_parameters())
    tensors = parts.opened.stream()
    shared: int | None = None
    for name, tensor in track(
        tensors, "Converting", total=total, console=console, transient=True, disable=not console.is_terminal
    ):
        if parts.is_norm_made_up and name.startswith(_POST_NORM):
            continue
        if name in (layouts.EMBEDDINGS, layouts.HEAD):
            # Some files share one matrix for both although the model is not tied; the new file has two.
            is_shared, shared = tensor.data_ptr() == shared, tensor.data_ptr()
            tensor = resize_rows(resize_rows(tensor, parts.num_rows), num_rows)
            tensor = tensor.clone() if is_shared else tensor
        written.count(name, tensor)
        yield name, tensor


def _write_original(parts: _Parts, folder: Path, written: _Tally, max_shard_bytes: int) -> None:
    old_rows = parts.opened.model.config.vocab_size
    if parts.num_rows < old_rows:
        parts.notes.append(f"The embeddings have {parts.num_rows} rows, not {old_rows}: llava-hf's were removed.")
    write_tensors(_stream(parts, parts.num_rows, written), folder, max_shard_bytes)
    write_json({**parts.config, "torch_dtype": _spell(written.dtype)}, folder / "config.json")
    parts.processor.save_pretrained(folder)
    save_generation_config(parts.generation, folder)
    _save_tokenizer(parts, parts.tokenizer, folder)


def _write_gguf(parts: _Parts, folder: Path, written: _Tally, kind: str, name: str) -> None:
    source = Source(
        parts.opened, parts.config, parts.tower, parts.tokenizer, parts.processor, parts.generation, parts.num_rows
    )
    tensors = _stream(parts, parts.num_rows, written)
    parts.notes += write_gguf(source, folder, kind, tensors, name)
    written.num_bytes = sum(path.stat().st_size for path in folder.glob("*.gguf"))


def _write_hf(parts: _Parts, folder: Path, written: _Tally, max_shard_bytes: int) -> None:
    opened = parts.opened
    tokenizer = add_image_tokens(parts.tokenizer)
    image_id, pad_id = tokenizer.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN), tokenizer.pad_token_id
    num_rows = count_rows(count_tokens(tokenizer), parts.num_rows)
    if num_rows != opened.model.config.vocab_size:
        parts.notes.append(
            f"The embeddings have {num_rows} rows, not {opened.model.config.vocab_size}: {DEFAULT_IMAGE_TOKEN} is "
            f"{image_id}, {tokenizer.pad_token} is {pad_id}, and each added row is the mean of the others."
        )
    conversation = find_template(opened.template)
    slot = write_image_slot(bool(parts.config.get("mm_use_im_start_end")))
    chat_template = write_chat_template(conversation, slot)
    if chat_template is None:
        parts.notes.append(f"No chat template was written: '{opened.template}' is a format for captions.")
    if opened.spec.tiling.is_anyres and opened.spec.tiling.dialect == "original":
        parts.notes.append(
            "Transformers chooses other tiles than the original for images smaller than a tile, and rounds a few "
            "other sizes differently: its answers may differ for these."
        )

    write_tensors(_stream_for_hf(parts, num_rows, written), folder, max_shard_bytes)
    config = {**parts.config, "torch_dtype": _spell(written.dtype)}
    tower, select_layer = parts.tower, opened.spec.select_layer
    if parts.needs_norm:
        module = opened.model.get_vision_tower()
        tower = {**tower, "num_hidden_layers": len(module.vision_tower.vision_model.encoder.layers)}
        select_layer = module.num_blocks_run
        parts.notes.append(
            "The tower has no last norm, but Transformers requires one: one with weight 1 and bias 0 was added."
        )
    elif is_siglip(tower) and select_layer != -1:
        # A SigLIP tower has only the blocks that are run.
        tower = {**tower, "num_hidden_layers": opened.model.get_vision_tower().num_blocks_run, "vision_use_head": False}
        select_layer = -1
    values = describe_for_transformers(
        config,
        opened,
        tower=tower,
        select_layer=select_layer,
        is_norm_made_up=parts.needs_norm,
        num_rows=num_rows,
        image_id=image_id,
        pad_id=pad_id,
    )
    write_json(values, folder / "config.json")
    images, processor = describe_processor(opened, parts.processor)
    write_json(images, folder / "preprocessor_config.json")
    write_json(processor, folder / "processor_config.json")
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    ends = _find_end_ids(parts.generation.get("eos_token_id"), find_closings(conversation, tokenizer)[1], num_rows)
    changes = {"pad_token_id": pad_id, "eos_token_id": ends[0] if len(ends) == 1 else ends or None}
    save_generation_config({**parts.generation, **changes}, folder)
    _save_tokenizer(parts, tokenizer, folder)


def _find_end_ids(said: Any, closings: Iterable[Any], num_rows: int) -> list[int]:
    """The ids of the tokens that end an answer: ``said`` in generation_config.json, and the template's ``closings``."""
    ends = [*([said] if isinstance(said, int) else said if isinstance(said, list) else ()), *closings]
    return list(dict.fromkeys(end for end in ends if isinstance(end, int) and end < num_rows))


def _stream_for_hf(parts: _Parts, num_rows: int, written: _Tally) -> Iterator[tuple[str, torch.Tensor]]:
    """``_stream`` with llava-hf's names, plus a last norm of the tower with weight 1 and bias 0 if it has none."""
    tower_dtype = torch.float32
    for name, tensor in _stream(parts, num_rows, written):
        if name.startswith(layouts.TOWER):
            tower_dtype = tensor.dtype
        yield layouts.name_to_hf(name), tensor
    if parts.needs_norm:
        width = parts.tower["hidden_size"]
        for leaf, tensor in (("weight", torch.ones(width)), ("bias", torch.zeros(width))):
            tensor = tensor.to(tower_dtype)
            written.count(_POST_NORM + leaf, tensor)
            yield layouts.name_to_hf(_POST_NORM + leaf), tensor


def _save_tokenizer(parts: _Parts, tokenizer: Any, folder: Path) -> None:
    """Writes the tokenizer's files, with a class name that Transformers 4 has too, and copies tokenizer.model."""
    save_tokenizer(tokenizer, folder)
    path = folder / "tokenizer_config.json"
    settings = read_json(path)
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(settings, path)
    sentencepiece = parts.opened.folder / "tokenizer.model"
    if sentencepiece.is_file() and not (folder / sentencepiece.name).exists():
        shutil.copyfile(sentencepiece, folder / sentencepiece.name)


def _spell(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
