"""What a stage starts from: ``build_start`` gives a LLaVA, from a checkpoint or from a language model alone.

A checkpoint in either layout is loaded with the tower that it was trained with; a fine-tune is merged into its base. A
Llama, Mistral or Qwen2 becomes a LLaVA by ``stage.vision``: its tower, a projector and, for merges with newlines, a
newline vector. Weights that no file has are drawn from ``stage.seed``, whatever was drawn in this process before.
config.json's keys are those that both originals write.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py and llava/model/llava_arch.py.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llava.config import find_tower_folder
from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.conversation import SeparatorStyle, conv_templates
from llava.errors import CheckpointError, UsageError
from llava.image.geometry import parse_pinpoints
from llava.model import layouts
from llava.model.bnb_quantization import check_quantization, quantize_model
from llava.model.checkpoint import LoadedModel, load_opened
from llava.model.checkpoint_reader import Additions, OpenCheckpoint, open_checkpoint
from llava.model.fine_tunes import PROJECTOR_FILE, FineTune, find_config, find_fine_tune
from llava.model.folder import Folder
from llava.model.placement import read_dtype
from llava.model.projector import build_vision_projector
from llava.model.projector_file import read_token_rows
from llava.model.sources import SHORT_NAMES, find_checkpoint
from llava.model.vocabulary import add_tokens
from llava.train.lora import add_lora, check_lora, continue_lora, prepare_quantized
from llava.train.recipe import TuningStage, Vision

_CLASSES = {"llama": "LlavaLlamaForCausalLM", "mistral": "LlavaMistralForCausalLM", "qwen2": "LlavaQwenForCausalLM"}
_TYPES = {"llama": "llava_llama", "mistral": "llava_mistral", "qwen2": "llava_qwen"}
# What a language model that becomes a LLaVA has where the recipe says nothing.
_NEW_VISION = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_patch_merge_type": "flat",
    "image_aspect_ratio": "square",
}
_VISION_KEYS = (*_NEW_VISION, "image_grid_pinpoints")
# What LLaVA-NeXT's training writes beside: its options for video and for other tilings, at their defaults.
_NEXT_KEYS: dict[str, Any] = {
    "add_faster_video": False,
    "add_time_instruction": False,
    "faster_token_stride": 10,
    "force_sample": False,
    "image_crop_resolution": None,
    "image_grid_pinpoints": None,
    "image_split_resolution": None,
    "mm_newline_position": "grid",
    "mm_resampler_type": None,
    "mm_spatial_pool_stride": None,
    "mm_vision_tower_lr": None,
}
_NEXT_PARTS = {"vision_tower": "mm_vision_tower", "projector": "mm_mlp_adapter", "language_model": "mm_language_model"}
# Words in a language model's own chat template, and ours with the same turns; the first that occurs decides.
_CHAT_WORDS = {
    "<|start_header_id|>": "llava_llama_3",
    "<start_of_turn>": "gemma_instruct",
    "<|im_start|>": "chatml_direct",
    "<<SYS>>": "llava_llama_2",
    "[INST]": "mistral_instruct",
}


@dataclass(frozen=True)
class StartingPoint:
    """Which files a model's untrained weights are in; ``build_start`` sets it as the model's ``starting_point``.

    Attributes:
        base: the name of the model that an adapter or a projector that is saved alone belongs to.
        revision: of the base on the hub, if one was named.
        beside: our names of the tensors that are not in the base's files as they are here: a projector from another
            file, new weights, embeddings with new rows.
        dtype: of the base's weights, by its config.json: "float16", "bfloat16", "float32".
    """

    base: str
    revision: str | None
    beside: frozenset[str]
    dtype: str | None


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Inside the block, torch draws on the CPU from this seed; afterwards it goes on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def open_outline(start: str, stage: TuningStage) -> tuple[Any, OpenCheckpoint]:
    """The stage's model on the meta device, with its LoRA layers, and the start that it comes from."""
    opened = open_start(start, stage)
    if stage.lora is None:
        return opened.model, opened
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
        if stage.lora.start is not None and opened.fine_tune is not None and opened.fine_tune.adapter is not None:
            return continue_lora(opened.model, opened.fine_tune.adapter, stage.lora, start), opened
        return add_lora(opened.model, stage.lora, f"Stage '{stage.name}'", start), opened


def build_start(
    start: str | Path,
    stage: TuningStage,
    dtype: str | torch.dtype | None = "float32",
    device: torch.device | None = None,
    *,
    is_outline: bool = False,
) -> LoadedModel:
    """The model that the stage trains, in eval mode on the CPU, with its LoRA layers if it has ``lora``.

    Nothing is frozen that the checkpoint's own loading does not freeze, except by PEFT. The model with LoRA layers is a
    ``PeftModel``.

    Args:
        start: a checkpoint or a language model: a folder, a short name or a hub id.
        dtype: of all weights; adapters are float32. None keeps that of each tensor in its file, where nothing is
            computed with it here; ``set_precision`` then casts each one to what it is trained or used in.
        is_outline: weights have no values and take no memory, see ``load_opened``.
        device: the GPU that a quantized model goes to; by default this process's own.

    Raises:
        CheckpointError: a file is missing, damaged or belongs to another model.
        UsageError: the stage asks for something that this start cannot be.
    """
    opened = open_start(start, stage)
    adapter = None
    if stage.lora is not None and stage.lora.start is not None:
        assert opened.fine_tune is not None
        adapter = opened.fine_tune.adapter
        opened = dataclasses.replace(opened, fine_tune=None)
    chosen = read_dtype(dtype)
    if (opened.fine_tune is not None and opened.fine_tune.adapter is not None) or (stage.lora and stage.lora.dora):
        chosen = chosen or torch.float32  # merging, and DoRA's magnitudes, are computed
    loaded = load_opened(opened, torch.device("cpu"), chosen, name=str(start), is_outline=is_outline)
    model, tokenizer = loaded.model, loaded.tokenizer
    _set_padding(model, tokenizer, stage)
    grown = _add_image_tokens(model, tokenizer, stage.vision)
    template = _choose_template(opened, stage, tokenizer)
    _write_config(model.config, stage, opened, tokenizer, template)
    base, revision = _name_base(start, opened)
    model.starting_point = StartingPoint(base, revision, frozenset(opened.beside_base | grown), opened.spec.dtype)
    if stage.quantization is not None:
        place = device or torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        quantize_model(model, stage.quantization.bits, place, stage.quantization.kind, stage.quantization.double)
        model.is_loaded_in_8bit, model.is_loaded_in_4bit = (stage.quantization.bits == bits for bits in (8, 4))
        prepare_quantized(model)
    if stage.lora is not None:
        where = f"Stage '{stage.name}'"
        with drawing_from(stage.seed):
            if adapter is not None:
                model = continue_lora(model, adapter, stage.lora, base, revision)
            else:
                model = add_lora(model, stage.lora, where, base, revision)
    spec = dataclasses.replace(loaded.spec, vocab_size=model.config.vocab_size)
    return dataclasses.replace(loaded, model=model, spec=spec, template=template)


def open_start(start: str | Path, stage: TuningStage) -> OpenCheckpoint:
    """The stage's start with every tensor accounted for, before any is read. Raises as ``build_start``.

    With ``lora.start`` it is that adapter's folder, with ``start`` as its base.
    """
    where, vision = f"Stage '{stage.name}'", stage.vision
    if stage.lora is not None:
        check_lora(stage.lora, where)
    continued = None if stage.lora is None else stage.lora.start
    base = None if continued is None else find_checkpoint(start)
    folder = Folder.of(find_checkpoint(start if continued is None else continued))
    _check_quantization(Folder.of(base) if base is not None else folder, stage, where)
    fine_tune = find_fine_tune(folder, base)
    _check_fine_tune(fine_tune, stage, str(start), where)
    described = find_config(folder, fine_tune).raw_config
    projector = None if vision.pretrain_mm_mlp_adapter is None else _find_projector(vision.pretrain_mm_mlp_adapter)
    wanted = {key: value for key in _VISION_KEYS if (value := getattr(vision, key)) is not None}
    if _is_language_model(described):
        family = str(described["model_type"])
        if vision.mm_vision_tower is None:
            raise UsageError(
                f"{where} starts from {start}, a language model alone ({family}): name the vision tower that makes it "
                "a LLaVA as vision.mm_vision_tower, or start from a LLaVA."
            )
        wanted = {"model_type": _TYPES[family], "architectures": [_CLASSES[family]], **_NEW_VISION, **wanted}
    elif projector is None and "mm_projector_type" in wanted:
        said = "mlp2x_gelu" if "text_config" in described else described.get("mm_projector_type", "linear")
        if wanted["mm_projector_type"] != said:
            raise UsageError(
                f"{where} says vision.mm_projector_type: {wanted['mm_projector_type']}, but {start} has a trained "
                f"projector of the type {said}: leave it out, or name another projector as "
                "vision.pretrain_mm_mlp_adapter."
            )
    _check_pinpoints(wanted, described, where)
    is_hf = "text_config" in described
    try:
        opened = open_checkpoint(
            folder,
            base=base,
            overrides={} if is_hf else wanted,
            vision_tower=_name_tower(vision, described),
            additions=Additions(projector, lambda model: _draw_vision(model, stage.seed)),
        )
    except CheckpointError as error:
        found = _BLAMED.match(str(error))
        if found is None or found["key"] not in wanted or is_hf:
            raise
        raise UsageError(f"{where}{found['says']} vision.{found['key']}{str(error)[found.end() :]}") from error
    if is_hf:
        _refuse_changes(opened, wanted, str(start), where)
    return opened


def starts_from_llava(opened: OpenCheckpoint) -> bool:
    """Whether a start was a LLaVA before, and no language model alone."""
    return not _is_language_model(Folder.of(opened.config_path.parent).raw_config)


def _is_language_model(described: Mapping[str, Any]) -> bool:
    """Whether config.json describes a language model alone, of a family that can become a LLaVA."""
    has_tower = described.get("mm_vision_tower") or described.get("mm_vision_config")
    return described.get("model_type") in _TYPES and not has_tower


def _check_fine_tune(fine_tune: FineTune | None, stage: TuningStage, start: str, where: str) -> None:
    """Raises UsageError where the start or ``lora.start`` is not the kind of folder that the stage needs."""
    if stage.lora is None or (stage.lora.start is None and (fine_tune is None or fine_tune.adapter is None)):
        return
    if stage.lora.start is None:
        raise UsageError(
            f"{where} adds LoRA layers to {start}, which consists of LoRA layers itself. To train these on, name it as "
            f"lora.start and its base as start; for new ones, merge it first: llava convert {start} MERGED --to "
            "original."
        )
    if fine_tune is None or fine_tune.adapter is None:
        raise UsageError(f"{where}: lora.start is {stage.lora.start}, which contains no LoRA layers to continue.")


def _check_quantization(folder: Folder, stage: TuningStage, where: str) -> None:
    """Raises UsageError for weights that are quantized already, and where quantizing is impossible."""
    said = folder.raw_config.get("quantization_config")
    if said is not None:
        method = said.get("quant_method", "an unknown method") if isinstance(said, dict) else said
        raise UsageError(
            f"{where} starts from {folder}, whose weights are quantized already ({method}) and cannot be trained: "
            "start from the 16-bit checkpoint that it was made from. With lora and quantization (QLoRA), its weights "
            "are quantized while they are loaded."
        )
    if stage.quantization is None:
        return
    if stage.lora is None:
        raise UsageError(f"{where} quantizes the weights (quantization), which cannot be trained then: add lora.")
    bits = stage.quantization.bits
    if not torch.cuda.is_available():
        raise UsageError(
            f"{where} trains LoRA on weights in {bits} bits (QLoRA), which needs an NVIDIA GPU and bitsandbytes: leave "
            "quantization out, or train on a machine with a GPU."
        )
    check_quantization(bits, torch.device("cuda"), is_apart=True)


def _check_pinpoints(wanted: Mapping[str, Any], described: Mapping[str, Any], where: str) -> None:
    aspect = wanted.get("image_aspect_ratio", described.get("image_aspect_ratio"))
    has_some = wanted.get("image_grid_pinpoints") or described.get("image_grid_pinpoints") or "text_config" in described
    if str(aspect).startswith("anyres") and not has_some:
        raise UsageError(
            f"{where} says image_aspect_ratio: {aspect}, which needs vision.image_grid_pinpoints: canvases in pixels "
            "such as [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]], those of LLaVA-1.6."
        )


def _refuse_changes(opened: OpenCheckpoint, wanted: Mapping[str, Any], start: str, where: str) -> None:
    """Raises UsageError if a checkpoint in llava-hf's layout has another value than the stage wants."""
    tiling = opened.spec.tiling
    for key, value in wanted.items():
        said = opened.spec.config.get(key)
        if key == "image_grid_pinpoints":
            value, said = parse_pinpoints(value, tiling.tile_px), tiling.pinpoints
        if value != said:
            raise UsageError(
                f"{where} says vision.{key}: {value}, but {start} in llava-hf's layout says {said}, which cannot be "
                f"changed there: llava convert {start} CONVERTED --to original, and start from that."
            )


def _find_projector(name: str) -> Path:
    """The file of ``pretrain_mm_mlp_adapter``: itself, or mm_projector.bin in a folder or a hub repository."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix in (".bin", ".safetensors"):
        raise UsageError(f"The projector {name} (pretrain_mm_mlp_adapter) does not exist.")
    file = find_checkpoint(name) / PROJECTOR_FILE
    if not file.is_file():
        raise UsageError(f"{name} (pretrain_mm_mlp_adapter) has no {PROJECTOR_FILE}: name the projector's file.")
    return file


def _name_tower(vision: Vision, described: Mapping[str, Any]) -> str | None:
    """The tower to load instead of the one that config.json names; a folder's path is made absolute."""
    name = vision.mm_vision_tower
    if name is None or name == described.get("mm_vision_tower"):
        return None
    folder = find_tower_folder(name, "")
    return name if folder is None else str(folder.absolute())


def _draw_vision(model: Any, seed: int) -> dict[str, torch.Tensor]:
    """A new projector and a new newline vector, by our names, as torch and the originals initialize them."""
    with drawing_from(seed):
        projector = build_vision_projector(model.config)
    drawn = {layouts.PROJECTOR + name: tensor for name, tensor in projector.state_dict().items()}
    width = model.config.hidden_size
    drawn[layouts.NEWLINE] = torch.randn(width, generator=torch.Generator().manual_seed(seed)) / math.sqrt(width)
    return drawn


def _set_padding(model: Any, tokenizer: Any, stage: TuningStage) -> None:
    """Pads with the unknown token if there is one, as the originals do: on the right, LLaVA-NeXT for Mistral left.

    A model whose config.json names its tokenizer's padding keeps it where no original is followed. Both configurations
    then say what is padded with, so that Transformers has nothing to change, and no notice to write, once it trains.
    """
    is_named = model.config.pad_token_id == tokenizer.pad_token_id and not stage.compatible_with
    if tokenizer.unk_token is not None and not is_named:
        tokenizer.pad_token = tokenizer.unk_token
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    family = str(model.config.model_type)
    is_left = stage.compatible_with == "llava-next" and "mistral" in family
    tokenizer.padding_side = "left" if is_left else "right"
    if stage.max_length:
        tokenizer.model_max_length = stage.max_length


def _add_image_tokens(model: Any, tokenizer: Any, vision: Vision) -> set[str]:
    """Adds the tokens that the stage asks for; returns our names of the tensors that have new rows."""
    if vision.mm_use_im_patch_token or vision.mm_use_im_start_end:
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight.data = table.weight.data.float()  # new rows are the mean of the others
    new = add_tokens(model, tokenizer, [DEFAULT_IMAGE_PATCH_TOKEN]) if vision.mm_use_im_patch_token else []
    if vision.mm_use_im_start_end:
        marks = add_tokens(model, tokenizer, [DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN])
        new = [*new, *marks]
        if marks and vision.pretrain_mm_mlp_adapter is not None:
            table_VC = model.get_input_embeddings().weight.data
            rows_VC = read_token_rows(str(_find_projector(vision.pretrain_mm_mlp_adapter)), len(marks), table_VC.shape)
            if rows_VC is not None:
                table_VC[marks] = rows_VC.to(table_VC)
    if not new:
        return set()
    return {layouts.EMBEDDINGS} if model.config.tie_word_embeddings else {layouts.EMBEDDINGS, layouts.HEAD}


def _choose_template(opened: OpenCheckpoint, stage: TuningStage, tokenizer: Any) -> str:
    """The template of questions to the trained model: the first of the stage's that has questions, else the start's.

    A language model alone says by its chat template which turns it knows.
    """
    for name in () if stage.data is None else stage.data.templates:
        if conv_templates[name].sep_style is not SeparatorStyle.PLAIN:
            return name
    own = str(getattr(tokenizer, "chat_template", None) or "")
    word = next((word for word in _CHAT_WORDS if word in own), None)
    if word is None or not _is_language_model(Folder.of(opened.config_path.parent).raw_config):
        return opened.template
    template = conv_templates[opened.template]
    return opened.template if word in template.system + "".join(template.roles) else _CHAT_WORDS[word]


def _write_config(config: Any, stage: TuningStage, opened: OpenCheckpoint, tokenizer: Any, template: str) -> None:
    """Sets the keys of config.json that the originals' training writes."""
    vision, tiling = stage.vision, opened.spec.tiling
    config.conversation_template = template
    config.use_mm_proj = True
    config.mm_patch_merge_type = tiling.merge
    config.image_aspect_ratio = tiling.aspect
    if tiling.pinpoints:
        config.image_grid_pinpoints = [list(canvas) for canvas in tiling.pinpoints]
    config.tokenizer_padding_side = tokenizer.padding_side
    config.tokenizer_model_max_length = stage.max_length or min(
        int(tokenizer.model_max_length), opened.spec.context_tokens
    )
    config.mm_use_im_start_end = vision.mm_use_im_start_end or bool(getattr(config, "mm_use_im_start_end", False))
    config.mm_use_im_patch_token = vision.mm_use_im_patch_token or bool(getattr(config, "mm_use_im_patch_token", False))
    config.tune_mm_mlp_adapter = "projector" in stage.train and not {"language_model", "vision_tower"} & {*stage.train}
    config.freeze_mm_mlp_adapter = "projector" not in stage.train
    scale = stage.lr_scales.get("projector")
    config.mm_projector_lr = None if scale is None else stage.lr * scale
    if "vision_tower" in stage.train:
        config.unfreeze_mm_vision_tower = True
        scale = stage.lr_scales.get("vision_tower")
        config.mm_vision_tower_lr = None if scale is None else stage.lr * scale
    if stage.compatible_with == "llava-next":
        for key, value in _NEXT_KEYS.items():
            if not hasattr(config, key):
                setattr(config, key, value)
        if stage.lora is None:
            config.mm_tunable_parts = ",".join(theirs for part, theirs in _NEXT_PARTS.items() if part in stage.train)


# How a message begins that blames config.json for a value, which may be the stage's own.
_BLAMED = re.compile(r".*config\.json(?P<says> says|:) (?P<key>\w+)")
_SNAPSHOT = re.compile(r"models--([^/\\]+)[/\\]snapshots[/\\]([^/\\]+)$")


def _name_base(start: str | Path, opened: OpenCheckpoint) -> tuple[str, str | None]:
    """The base's name and its revision on the hub. A folder's path is made absolute, and one of the cache a hub id."""
    name = str(start)
    is_folder = os.path.isdir(os.path.expanduser(name))
    if opened.fine_tune is not None or is_folder:
        path = str(opened.folders[-1].path.absolute())
        cached = _SNAPSHOT.search(path)
        return (path, None) if cached is None else (cached[1].replace("--", "/"), cached[2])
    repo_id, _, revision = name.partition("@")
    return SHORT_NAMES.get(repo_id, repo_id), revision or None
