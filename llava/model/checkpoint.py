"""Reads a checkpoint into a model, and writes one.

The model is built without memory, then filled tensor by tensor, so loading takes little more than the model itself.
Every tensor is accounted for before the first is read: used, left out by a rule of ``layouts``, or a CheckpointError
that lists what is missing and what is left over. A model that is returned is whole: no weight of it is random, none
is NaN. Nothing in a checkpoint is ever run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llava.config import KNOWN_TOWERS, ModelSpec, find_tower_folder, read_config_dict, read_spec
from llava.conversation import template_name
from llava.errors import CheckpointError, LlavaError, UsageError
from llava.image.pixels import ImageProcessor
from llava.model import adapters, layouts
from llava.model.companions import (
    clean_generation_config,
    describe_model,
    fit_tokenizer,
    load_generation_config,
    load_processor,
    load_tokenizer,
    write_json,
)
from llava.model.folders import new_folder
from llava.model.llava import (
    LlavaConfig,
    LlavaLlamaForCausalLM,
    LlavaMistralConfig,
    LlavaMistralForCausalLM,
    LlavaQwenConfig,
    LlavaQwenForCausalLM,
)
from llava.model.packed import bits_for, pack_layer, pack_model
from llava.model.placement import choose_device, choose_dtype, read_dtype
from llava.model.quantize import check_quantization, quantize_layer
from llava.model.sources import DEFAULT_MODEL, find_checkpoint, find_tower
from llava.model.weights import find_tensors, has_weights, names_in, stream_tensors, write_tensors

_CLASSES: dict[str, tuple[Any, Any]] = {
    "llama": (LlavaConfig, LlavaLlamaForCausalLM),
    "mistral": (LlavaMistralConfig, LlavaMistralForCausalLM),
    "qwen2": (LlavaQwenConfig, LlavaQwenForCausalLM),
}
# A folder with one of these and no weights of a whole model was trained on another, its base.
FINE_TUNES = ("mm_projector.bin", adapters.CONFIG)
_ATTENTIONS = ("sdpa", "eager", "flash_attention_2")


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to be asked, with all that belongs to it."""

    tokenizer: Any
    model: Any  # LlavaLlamaForCausalLM, LlavaMistralForCausalLM or LlavaQwenForCausalLM; in eval mode
    image_processor: ImageProcessor
    spec: ModelSpec
    context_tokens: int
    template: str  # a name of llava.conversation.conv_templates
    backend: Any = field(default=None, init=False, compare=False, repr=False)  # kept here by whoever answers with it


@dataclass(frozen=True)
class _Source:
    """Tensors of one origin: their files by the names used there, and how these names become ours."""

    places: dict[str, Path]
    rename: Callable[[str], str | None]

    def names(self) -> dict[str, Path]:
        """Our name of each tensor, with its file; without those that a rule leaves out."""
        return {ours: path for name, path in self.places.items() if (ours := self.rename(name)) is not None}


@dataclass(frozen=True)
class OpenCheckpoint:
    """A whole checkpoint whose files fit its config.json, and of which no tensor is read yet."""

    folder: Path
    tower_folder: Path | None  # where the tower is, if it is not inside
    spec: ModelSpec
    template: str  # a name of llava.conversation.conv_templates
    model: Any  # on the meta device: names and shapes without memory
    _sources: list[_Source]
    _passed_over: set[str]

    @property
    def passed_over(self) -> list[str]:
        """The tensors in its files that the model has no use for, by our names."""
        return sorted(self._passed_over & {name for source in self._sources for name in source.names()})

    def load_processor(self) -> ImageProcessor:
        """How it prepares pictures. CheckpointError if the tower takes others."""
        processor = load_processor(self.folder, self.tower_folder, self.spec.tiling.tile_px)
        _check_processor(self.folder, processor, self.spec)
        return processor

    def stream(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Each tensor of the model by our name, one at a time, as its file has it; a head tied to the embeddings not.

        Raises:
            CheckpointError: a tensor is there twice, has no place, or has another shape than config.json describes.
        """
        tied: dict[str, torch.Tensor] = {}
        for ours, tensor, _, _ in _stream_checked(_shapes(self.model), self._sources, self._passed_over):
            if self.model.config.tie_word_embeddings and ours in (layouts.EMBEDDINGS, layouts.HEAD):
                tied[ours] = tensor
                if len(tied) == 2:
                    _check_tied(*tied.values())
            if ours not in tied or ours == layouts.EMBEDDINGS:
                yield ours, tensor


def load_model(
    path_or_id: str | Path = DEFAULT_MODEL,
    *,
    base: str | Path | None = None,
    merge: bool = True,
    device: str | torch.device | int | None = None,
    dtype: str | torch.dtype | None = None,
    attention: str | None = None,
    bits: int = 16,
    for_engine: bool = False,
    config: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """The checkpoint of that name, whole and ready to be asked.

    Args:
        path_or_id: a folder, a short name (``llava-v1.5-7b``), a hub id, or the model that comes inside the package.
        base: what a folder with nothing but a projector or LoRA layers was trained on; by default what the LoRA
            layers' own files say.
        merge: put LoRA layers into the weights; if not, they stay apart and ``model.disable_adapters()`` works.
        device: cuda, cuda:1, mps, cpu; by default the best there is.
        dtype: float32, bfloat16, float16; by default what suits the device, see ``choose_dtype``.
        attention: sdpa (default), eager or flash_attention_2.
        bits: 16, or 8 or 4 to quantise the decoder's matrices while loading: by ourselves on a CPU, through
            bitsandbytes on CUDA.
        for_engine: the engine will run it, not ``generate``; it may choose another dtype, see ``choose_dtype``.
        config: read instead of the folder's config.json. ``overrides``: values that replace some of it.

    Raises:
        CheckpointError: the checkpoint is missing, incomplete, damaged, unsafe or of an unsupported kind.
        UsageError: the device, dtype, attention or number of bits is unknown or not there.
        LlavaError: the device has not enough memory.
    """
    chosen_device, chosen_dtype = choose_device(device), read_dtype(dtype)
    if attention is not None and attention not in _ATTENTIONS:
        raise UsageError(f"There is no attention '{attention}'; use {', '.join(_ATTENTIONS)}, or leave it out.")
    check_quantization(bits, chosen_device, is_apart=not merge)
    folder = find_checkpoint(path_or_id)
    adapter = None if has_weights(folder) else adapters.find_adapter(folder)
    if adapter is not None and base is None:
        base = adapter.base
    base_folder = None if base is None else find_checkpoint(base)
    if base_folder is not None and not has_weights(base_folder) and (base_folder / adapters.CONFIG).is_file():
        raise CheckpointError(
            f"The base {base_folder} holds LoRA layers itself, where a whole model is needed: "
            "merge it first (llava convert BASE MERGED --to original) and name that as the base."
        )
    if config is None:
        alone = adapter is not None and not (folder / "config.json").is_file()  # PEFT's adapters describe no model
        config = read_config_dict(base_folder if alone and base_folder is not None else folder)
    values = {**config, **(overrides or {})}
    sources, spec, tower_folder = _find_parts(folder, base_folder, adapter, values)
    template = _find_template(path_or_id, folder, spec)

    model = _build(spec, folder, template, attention)
    if chosen_dtype is None:
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        chosen_dtype = choose_dtype(chosen_device, spec.dtype, num_parameters, for_engine)
    try:
        # Layers of an adapter are merged first: a packed matrix takes none in.
        packs_later = adapter is not None and chosen_device.type == "cpu"
        _fill(model, sources, chosen_device, chosen_dtype, 16 if packs_later else bits)
    except torch.OutOfMemoryError as error:
        num_gb = sum(parameter.numel() for parameter in model.parameters()) * chosen_dtype.itemsize / 1e9
        raise LlavaError(
            f"{chosen_device} has no room for {path_or_id}, which takes {num_gb:.1f} GB in {chosen_dtype}. "
            "Use a smaller model, another device, or load_4bit."
        ) from error
    model.config.dtype = chosen_dtype
    if adapter is not None:
        adapters.apply_adapter(model, adapter, merge)
        if packs_later and bits < 16:
            pack_model(model, bits)
    tokenizer = load_tokenizer(base_folder or folder)
    fit_tokenizer(tokenizer, model, base_folder or folder)
    if spec.family in ("llama", "mistral") and tokenizer.bos_token_id is None:
        raise CheckpointError(
            f"The tokenizer in {base_folder or folder} has no BOS token, but every prompt of a {spec.family} begins "
            f"with one (config.json: bos_token_id {model.config.bos_token_id}). Copy the tokenizer's files from the "
            "language model that the checkpoint was made from."
        )
    model.generation_config = load_generation_config(folder, model, tokenizer)
    processor = load_processor(folder, tower_folder, spec.tiling.tile_px)
    _check_processor(folder, processor, spec)
    model.get_vision_tower().image_processor = processor
    return LoadedModel(tokenizer, model.eval(), processor, spec, spec.context_tokens, template)


def open_checkpoint(path_or_id: str | Path = DEFAULT_MODEL) -> OpenCheckpoint:
    """The whole checkpoint of that name, every tensor of it accounted for as by ``load_model``.

    Raises:
        CheckpointError: as ``load_model``, except for what only the tensors themselves can tell.
        UsageError: the folder holds only a projector or LoRA layers.
    """
    folder = find_checkpoint(path_or_id)
    if not has_weights(folder) and any((folder / name).is_file() for name in FINE_TUNES):
        raise UsageError(
            f"{folder} holds only a projector or LoRA layers, where a whole model is needed: "
            "load it with its base (load_model), or merge it (llava convert SRC DST --to original)."
        )
    values = read_config_dict(folder)
    sources, spec, tower_folder = _find_parts(folder, None, None, values)
    template = _find_template(path_or_id, folder, spec)
    model = _build(spec, folder, template, None)
    passed_over = _account(model, _shapes(model), sources)
    return OpenCheckpoint(folder, tower_folder, spec, template, model, sources, passed_over)


def _find_parts(
    folder: Path, base_folder: Path | None, adapter: adapters.Adapter | None, values: Mapping[str, Any]
) -> tuple[list[_Source], ModelSpec, Path | None]:
    """Where all tensors lie, the spec that ``values`` (config.json) give, and the tower's folder if it is needed."""
    sources = _find_sources(folder, base_folder, adapter, is_hf="text_config" in values)
    spec, tower_folder = _find_spec(folder, base_folder, values, sources)
    if tower_folder is not None:
        sources.insert(0, _Source(find_tensors(tower_folder), layouts.name_from_tower))
    return sources, spec, tower_folder


def _find_template(path_or_id: str | Path, folder: Path, spec: ModelSpec) -> str:
    name = os.path.abspath(folder) if Path(path_or_id).expanduser().is_dir() else str(path_or_id)
    return template_name(name, spec.raw)


def _find_sources(
    folder: Path, base_folder: Path | None, adapter: adapters.Adapter | None, is_hf: bool
) -> list[_Source]:
    """Where the tensors of the checkpoint lie: in its own files, or in its base's and what was trained on it.

    Later sources win: a LoRA fine-tune's projector over the one that its base may have.
    """
    projector = folder / "mm_projector.bin"
    if adapter is not None:
        assert base_folder is not None
        base_is_hf = (base_folder / "config.json").is_file() and "text_config" in read_config_dict(base_folder)
        rename = layouts.name_from_hf if base_is_hf else layouts.name_from_original
        return [_Source(find_tensors(base_folder), rename), _Source(adapter.whole, adapters.name_from_adapter)]
    if has_weights(folder) or not projector.is_file():
        places = find_tensors(folder)  # says what is missing if nothing is there
        if base_folder is not None:
            raise UsageError(f"{folder} holds a whole model, so it takes no base: leave {base_folder} out.")
        return [_Source(places, layouts.name_from_hf if is_hf else layouts.name_from_original)]
    if base_folder is None:
        raise CheckpointError(
            f"{folder} holds only a projector: name the language model it was trained on as the base (--model-base)."
        )
    own = _Source(dict.fromkeys(names_in(projector), projector), layouts.name_from_projector)
    return [_Source(find_tensors(base_folder), layouts.name_from_original), own]


def _find_spec(
    folder: Path, base_folder: Path | None, values: Mapping[str, Any], sources: Iterable[_Source]
) -> tuple[ModelSpec, Path | None]:
    """The spec, and the tower's folder if its weights have to come from there: those inside the checkpoint win."""
    name = str(values.get("mm_vision_tower") or values.get("vision_tower") or "")
    is_inside = any(ours.startswith(layouts.TOWER) for source in sources for ours in source.names())
    is_described = bool(values.get("mm_vision_config") or values.get("vision_config") or name in KNOWN_TOWERS)
    needs_folder = bool(name) and not (is_inside and is_described)
    beside = folder if base_folder is None or find_tower_folder(name, folder) else base_folder
    tower_folder = find_tower(name, beside) if needs_folder else None
    return read_spec(folder, tower_folder=tower_folder, config=values), None if is_inside else tower_folder


def _build(spec: ModelSpec, folder: Path, template: str, attention: str | None) -> Any:
    """The model as the spec describes it, on the meta device: shapes without memory."""
    config_class, model_class = _CLASSES[spec.family]
    left_out = ("model_type", "torch_dtype", "dtype", "transformers_version", "_name_or_path")
    values = {key: value for key, value in spec.config.items() if key not in left_out}
    values.update(
        architectures=[model_class.__name__],
        mm_vision_tower=spec.tower,
        mm_hidden_size=spec.tower_hidden_size,
        conversation_template=template,
        name_or_path=str(folder),
    )
    try:
        config = config_class(**values)
        config._attn_implementation = attention or "sdpa"
        with torch.device("meta"):
            return model_class(config)
    except ImportError as error:
        raise UsageError(f"The attention '{attention}' is not installed ({error}); leave it out.") from error
    except Exception as error:  # a config can be wrong in any way, and each raises something else
        raise CheckpointError(f"{folder / 'config.json'} describes no model that can be built: {error}") from error


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by its name; one that two modules share is there by both names."""
    return {name: tuple(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)}


def _stream_checked(
    wanted: Mapping[str, tuple[int, ...]], sources: list[_Source], passed_over: set[str]
) -> Iterator[tuple[str, torch.Tensor, str, Path]]:
    """Each tensor by our name, with its name in its file and that file; of several sources' the last one's.

    Raises:
        CheckpointError: a tensor is there twice, has no place, another shape than config.json describes, or no
            floating-point numbers.
    """
    owner = {name: i for i, source in enumerate(sources) for name in source.names()}
    for i, source in enumerate(sources):
        seen: dict[str, Path] = {}
        for name, tensor, path in stream_tensors(source.places):
            ours = source.rename(name)
            if ours is None or ours in passed_over or owner.get(ours, i) != i:
                continue
            if ours in seen:
                raise CheckpointError(f"{name} is there twice, in {seen[ours]} and in {path}.")
            seen[ours] = path
            if ours not in wanted:  # the index did not mention it
                raise CheckpointError(f"{path} holds {name}, which the model has no place for.")
            if tuple(tensor.shape) != wanted[ours]:
                raise CheckpointError(
                    f"{name} in {path} has the shape {list(tensor.shape)}, "
                    f"but config.json describes {list(wanted[ours])}."
                )
            if not tensor.is_floating_point():
                raise CheckpointError(
                    f"{name} in {path} is of {tensor.dtype}; only floating-point weights can be read."
                )
            yield ours, tensor, name, path


def _fill(model: Any, sources: list[_Source], device: torch.device, dtype: torch.dtype, bits: int) -> None:
    """Give every parameter its value; all of them, or CheckpointError."""
    is_tied = bool(model.config.tie_word_embeddings)
    wanted = _shapes(model)
    passed_over = _account(model, wanted, sources)
    head: torch.Tensor | None = None
    for ours, tensor, name, path in _stream_checked(wanted, sources, passed_over):
        value = _convert(tensor, name, path, device, dtype)
        if ours == layouts.HEAD and is_tied:
            head = value
        else:
            _assign(model, ours, value, bits)
    if is_tied:
        _tie_head(model, head)
    _compute_buffers(model, device)
    empty = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    assert not empty, f"never filled: {empty}"


def _account(model: Any, wanted: Mapping[str, tuple[int, ...]], sources: Iterable[_Source]) -> set[str]:
    """Hold what the files have against what the model needs, before any tensor is read.

    Returns the tensors that are passed over, and removes from the model the unused end of its tower where the files
    leave it out. Raises CheckpointError for everything else that does not match.
    """
    found = {ours: path for source in sources for ours, path in source.names().items()}
    passed_over = set() if layouts.NEWLINE in wanted else {layouts.NEWLINE}  # trained with another merge
    missing = {name for name in wanted if name not in found}
    if model.config.tie_word_embeddings:
        missing.discard(layouts.HEAD)
    missing -= _drop_absent_end(model.get_vision_tower(), missing)
    left_over = {name for name in found if name not in wanted} - passed_over
    if missing or left_over:
        folders = sorted({str(path.parent) for path in found.values()})
        faults = [
            f"{len(names)} tensors {what}: {_name_some(names)}"
            for names, what in ((missing, "are missing"), (left_over, "are left over"))
            if names
        ]
        remedy = _explain_projector(model.config, wanted, found)
        is_adapter = any(source.rename is adapters.name_from_adapter for source in sources)
        if is_adapter and missing and all(name.startswith((layouts.PROJECTOR, layouts.NEWLINE)) for name in missing):
            remedy = (
                " A LoRA fine-tune keeps its projector in non_lora_trainables.bin, which the original writes only when "
                "a training ends: copy that or an mm_projector.bin beside the adapter, or name a whole LLaVA as base."
            )
        raise CheckpointError(
            f"The files in {' and '.join(folders)} do not fit config.json: {'; '.join(faults)}.{remedy}"
        )
    return passed_over


def _explain_projector(config: Any, wanted: Iterable[str], found: Iterable[str]) -> str:
    """A sentence about a projector of another depth than config.json says; "" if that is not the fault."""

    def layers(names: Iterable[str]) -> list[str]:
        own = (name.removeprefix(layouts.PROJECTOR) for name in names if name.startswith(layouts.PROJECTOR))
        return sorted({name.rpartition(".")[0] or "linear" for name in own})

    has, needs = layers(found), layers(wanted)
    if not has or has == needs:
        return ""
    return (
        f" config.json says mm_projector_type: {getattr(config, 'mm_projector_type', 'linear')}, whose layers are "
        f"{', '.join(needs) or 'none'}, but the files' projector has {', '.join(has)}: correct the one that is wrong."
    )


def _drop_absent_end(tower: Any, missing: set[str]) -> set[str]:
    """Remove from the tower what LLaVA never runs, if the files have none of it; returns the names that are gone.

    That is the blocks behind the layer that is read, from the last one on, and the norm behind them all.
    """
    body = tower.vision_tower.vision_model
    gone = {f"{layouts.TOWER}post_layernorm.{leaf}" for leaf in ("weight", "bias")}
    if not gone <= missing:
        return set()
    body.post_layernorm = nn.Identity()
    while len(body.encoder.layers) > tower.num_blocks_run:
        prefix = f"{layouts.TOWER}encoder.layers.{len(body.encoder.layers) - 1}."
        block = {prefix + name for name, _ in body.encoder.layers[-1].named_parameters()}
        if not block <= missing:
            break
        gone |= block
        del body.encoder.layers[-1]
    return gone


def _check_processor(folder: Path, processor: ImageProcessor, spec: ModelSpec) -> None:
    """CheckpointError if preprocessor_config.json cuts tiles of another size than the tower takes."""
    tile_px = spec.tiling.tile_px
    if processor.tile_px != tile_px:
        raise CheckpointError(
            f"The preprocessor_config.json of {folder} makes pictures of {processor.tile_px} px, but the vision tower "
            f"takes {tile_px} px (image_size): one of the two files is of another model."
        )


def _name_some(names: set[str], limit: int = 8) -> str:
    shown = sorted(names)[:limit]
    return ", ".join(shown) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _convert(tensor: torch.Tensor, name: str, path: Path, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in the wanted place and precision. CheckpointError if it is not finite.

    On a CPU, in the precision of the file, it stays mapped from there: nothing is copied, processes share it, and what
    is written to it stays in this process.
    """
    value = tensor.to(device=device, dtype=dtype, memory_format=torch.contiguous_format)
    # A sum is finite only if all its terms are, and costs one pass and no memory; it may also overflow by itself.
    if not bool(value.sum().isfinite()) and not bool(value.isfinite().all()):
        if bool(tensor.isfinite().all()):
            largest = tensor.abs().max().item()
            raise CheckpointError(
                f"{name} in {path} reaches {largest:g}, too large for {dtype}. Load it with dtype bfloat16 or float32."
            )
        raise CheckpointError(f"{name} in {path} holds NaN or infinite weights: a damaged file or a failed training.")
    return value


def _assign(model: Any, name: str, value: torch.Tensor, bits: int) -> None:
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    if value.device.type == "cpu":
        own_bits = bits_for(name, bits, model.config.tie_word_embeddings)
        if own_bits < 16 and isinstance(owner, nn.Linear):
            pack_layer(model, owner_name, value, own_bits)
            return
    elif bits < 16 and isinstance(owner, nn.Linear) and name.startswith("model.layers."):
        quantize_layer(model, owner_name, leaf, value, bits)
        return
    old = owner.get_parameter(leaf)
    owner.register_parameter(leaf, nn.Parameter(value, requires_grad=old.requires_grad))


def _tie_head(model: Any, head: torch.Tensor | None) -> None:
    embeddings = model.get_input_embeddings().weight
    if head is not None:
        _check_tied(head, embeddings)
    model.lm_head.weight = embeddings


def _check_tied(one: torch.Tensor, other: torch.Tensor) -> None:
    if not torch.equal(one, other.to(one.dtype)):
        raise CheckpointError(
            "config.json says tie_word_embeddings: true, but lm_head.weight differs from model.embed_tokens.weight. "
            "Set it to false if the head was trained by itself."
        )


def _compute_buffers(model: Any, device: torch.device) -> None:
    """Buffers are in no file: they follow from the configuration. The rotary frequencies stay in float32."""
    decoder = model.get_model()
    decoder.rotary_emb = type(decoder.rotary_emb)(decoder.config).to(device)
    embeddings = model.get_vision_tower().vision_tower.vision_model.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=device).expand((1, -1))


def save_checkpoint(
    model: Any,
    tokenizer: Any,
    processor: ImageProcessor,
    folder: str | Path,
    layout: str = "original",
    *,
    include_tower: bool = True,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a folder that ``load_model`` reads back bit by bit: config, weights as safetensors, tokenizer, processor.

    The folder appears whole or not at all; an older checkpoint in it is replaced, and other files in it stay.

    Args:
        include_tower: with the vision tower's weights, as LLaVA-1.6 does; without them ``mm_vision_tower`` of the
            model's config has to name where they are, as for LLaVA-1.5.
        max_shard_bytes: larger weights are split into files of this size, with an index.

    Raises:
        UsageError: the layout is unknown, or the model is quantised.
    """
    if layout != "original":
        raise UsageError(
            f"A checkpoint cannot be written in the layout '{layout}'; use 'original', and llava convert for others."
        )
    if not include_tower and not getattr(model.config, "mm_vision_tower", None):
        raise UsageError("Without its tower the checkpoint needs mm_vision_tower to say where one is.")
    tower_prefix = "model.vision_tower."
    # Under FSDP the tower hides from the model's own state.
    tensors = {name: value for name, value in model.state_dict().items() if not name.startswith(tower_prefix)}
    if include_tower:
        tensors.update({tower_prefix + name: value for name, value in model.get_vision_tower().state_dict().items()})
    if model.config.tie_word_embeddings:
        tensors.pop(layouts.HEAD, None)
    whole = [name for name, value in tensors.items() if not value.is_floating_point()]
    if whole:
        raise UsageError(f"A quantised model cannot be saved ({whole[0]} holds integers): load it in 16 bits.")

    with new_folder(folder) as partial:
        write_json(describe_model(model, include_tower), partial / "config.json")
        write_tensors(tensors.items(), partial, max_shard_bytes)
        tokenizer.save_pretrained(partial)
        processor.save_pretrained(partial)
        clean_generation_config(model.generation_config.to_dict()).save_pretrained(partial)
