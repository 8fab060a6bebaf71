"""``load_model`` loads a checkpoint into a model; ``save_checkpoint`` writes one.

The model is built on the meta device and every tensor accounted for (``checkpoint_reader``); then it is filled tensor
by tensor, so loading takes little more memory than the model itself. In the model that is returned no weight is random
or NaN. No code in a checkpoint is ever run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llava.config import ModelSpec, as_checkpoint_error
from llava.errors import CheckpointError, LlavaError, UsageError
from llava.image.pixels import ImageProcessor
from llava.model import adapters, layouts
from llava.model.bnb_quantization import check_quantization, is_quantized, quantize_layer
from llava.model.checkpoint_reader import OpenCheckpoint, open_checkpoint
from llava.model.companions import (
    describe_model,
    load_generation_config,
    save_generation_config,
    save_tokenizer,
    write_json,
)
from llava.model.default_choice import DEFAULT_MODEL
from llava.model.device_map import find_device_map, spread
from llava.model.folder import CONFIG
from llava.model.output_folder import new_folder
from llava.model.placement import check_flash_attention, choose_device, choose_dtype, read_dtype
from llava.model.quantized_linear import QuantizedLinear, bits_for, quantize_linear, quantize_linears
from llava.model.tensor_accounting import check_tied
from llava.model.weights import forget_pages, is_mapped, write_tensors

_ATTENTIONS = ("sdpa", "eager", "flash_attention_2")


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode with its tokenizer, image processor, spec and template."""

    tokenizer: Any
    model: Any  # LlavaLlamaForCausalLM, LlavaMistralForCausalLM or LlavaQwenForCausalLM; in eval mode
    image_processor: ImageProcessor
    spec: ModelSpec
    context_tokens: int
    template: str  # a name of llava.conversation.conv_templates


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
    vision_tower: str | Path | None = None,
    device_map: Any = None,
    offload_folder: str | Path | None = None,
) -> LoadedModel:
    """The checkpoint of that name as a model in eval mode, with all its weights.

    Args:
        path_or_id: a folder, a short name (``llava-v1.5-7b``), a hub id, or the name of one of this package's own
            models ("embedded", "talking"; see ``default_choice``).
        base: the model that a projector alone or LoRA layers were trained on; by default the one that their own files
            name.
        merge: merge LoRA layers into the weights; otherwise they stay PEFT layers that ``model.disable_adapters()``
            switches off.
        device: cuda, cuda:1, mps, cpu; by default the best available one.
        dtype: float32, bfloat16, float16; by default the best for the device, see ``choose_dtype``.
        attention: sdpa (default), eager or flash_attention_2.
        bits: 16, or 8 or 4 to quantize the decoder's matrices while loading: by this package, but under an adapter
            that is not merged by bitsandbytes, on CUDA.
        for_engine: the engine will run the model, not ``generate``, which may change the dtype; see ``choose_dtype``.
        config: used instead of the folder's config.json.
        overrides: values that replace some of config.json's.
        vision_tower: the tower's folder or hub id, instead of config.json's ``mm_vision_tower``. If the tower's weights
            are inside the checkpoint, these are used.
        device_map: the device of each part of the model, as in Transformers; see ``find_device_map``. By default
            "auto" where neither ``device`` nor a launcher chose the GPU.
        offload_folder: where weights are kept that ``device_map`` sends to "disk".

    Raises:
        CheckpointError: the checkpoint is missing, incomplete, damaged, unsafe or unsupported.
        UsageError: the device, dtype, attention or number of bits is unknown or not available.
        LlavaError: the device has not enough memory.
    """
    chosen_device, chosen_dtype = choose_device(device), read_dtype(dtype)
    if attention not in (None, *_ATTENTIONS):
        raise UsageError(f"There is no attention '{attention}'; use {', '.join(_ATTENTIONS)}, or leave it out.")
    check_quantization(bits, chosen_device, is_apart=not merge)
    opened = open_checkpoint(
        path_or_id, base=base, config=config, overrides=overrides, attention=attention, vision_tower=vision_tower
    )
    if chosen_dtype is None:
        num_parameters = sum(parameter.numel() for parameter in opened.model.parameters())
        chosen_dtype = choose_dtype(chosen_device, opened.spec.dtype, num_parameters, for_engine)
    if device_map is None and device in (None, "auto") and bits == 16 and "LOCAL_RANK" not in os.environ:
        device_map = "auto"
    if attention == "flash_attention_2":
        check_flash_attention(chosen_device, chosen_dtype)
    options = {"name": str(path_or_id), "device_map": device_map, "offload_folder": offload_folder}
    return load_opened(opened, chosen_device, chosen_dtype, merge=merge, bits=bits, **options)


def load_opened(
    opened: OpenCheckpoint,
    device: torch.device,
    dtype: torch.dtype | None,
    *,
    merge: bool = True,
    bits: int = 16,
    name: str = "",
    device_map: Any = None,
    offload_folder: str | Path | None = None,
    is_outline: bool = False,
) -> LoadedModel:
    """The checkpoint that was opened as a model in eval mode, with all its weights; it becomes ``opened.model``.

    For the other arguments and errors see ``load_model``.

    Args:
        dtype: None keeps each tensor's own, so that on a CPU all of them stay mapped from their files.
        name: what errors call the checkpoint.
        is_outline: no file of weights is read. Parameters have shapes and addresses but no values, and take no memory
            until they are written to: for a process that gets its share of the weights from another one.
    """
    model = opened.model
    # Faults outside of the weights are found before these are read.
    tokenizer, processor = opened.load_tokenizer(), opened.load_processor()
    generation_config = load_generation_config(opened.folders, model, tokenizer)
    try:
        if is_outline:
            _reserve(model, dtype or torch.float32)
            return _complete(opened, tokenizer, processor, generation_config)
        spreads = find_device_map(model, device_map, dtype or torch.float32, device)
        if spreads is not None and bits < 16:
            raise UsageError(f"A model in {bits} bits goes to one device, but device_map names several.")
        _place(opened, device, dtype, bits, merge=merge, is_spread=spreads is not None)
        if spreads is not None:
            spread(model, spreads, offload_folder)
    except torch.OutOfMemoryError as error:
        num_gb = sum(parameter.numel() for parameter in model.parameters()) * (dtype or torch.float32).itemsize / 1e9
        raise LlavaError(
            f"{device} has no room for {name or opened.folder}, which takes {num_gb:.1f} GB in {dtype}. "
            "Use a smaller model, another device, or load_4bit."
        ) from error
    return _complete(opened, tokenizer, processor, generation_config)


def _complete(opened: OpenCheckpoint, tokenizer: Any, processor: ImageProcessor, generation_config: Any) -> LoadedModel:
    model, spec = opened.model, opened.spec
    model.generation_config = generation_config
    model.get_vision_tower().take_companions(processor, tokenizer)
    return LoadedModel(tokenizer, model.eval(), processor, spec, spec.context_tokens, opened.template)


def _reserve(model: Any, dtype: torch.dtype) -> None:
    """Gives every parameter memory that is not written to, which the system therefore does not provide yet."""
    device = torch.device("cpu")
    for name, parameter in list(model.named_parameters()):
        _assign(model, name, torch.empty(parameter.shape, dtype=dtype), 16, device)
    if model.config.tie_word_embeddings:
        _tie_head(model, None)
    _compute_buffers(model, device)
    model.config.dtype = dtype


def _place(
    opened: OpenCheckpoint, device: torch.device, dtype: torch.dtype | None, bits: int, *, merge: bool, is_spread: bool
) -> None:
    """Fills the model, applies its adapter and quantizes it, on ``device``; with ``is_spread``, on the CPU first."""
    model = opened.model
    adapter = None if opened.fine_tune is None else opened.fine_tune.adapter
    # An adapter is merged first, on the CPU: it cannot be merged into a quantized matrix.
    quantizes_later = adapter is not None and merge and bits < 16
    uses_bnb = bits < 16 and device.type == "cuda" and adapter is not None and not merge
    first = torch.device("cpu") if quantizes_later or is_spread else device
    _fill(opened, first, dtype, 16 if quantizes_later else bits, uses_bnb)
    model.config.dtype = dtype or torch.float32
    if uses_bnb:
        # PEFT, accelerate and the Trainer look for these.
        model.is_loaded_in_8bit, model.is_loaded_in_4bit = bits == 8, bits == 4
    if adapter is not None:
        adapters.apply_adapter(model, adapter, merge)
    if quantizes_later:
        quantize_linears(model, bits, device)


def _fill(
    opened: OpenCheckpoint, device: torch.device, dtype: torch.dtype | None, bits: int, uses_bnb: bool = False
) -> None:
    """Gives every parameter its value from the files; without ``dtype`` in its own. Raises CheckpointError."""
    model = opened.model
    is_tied = bool(model.config.tie_word_embeddings)
    head: torch.Tensor | None = None
    finite: dict[str, torch.Tensor] = {}  # by our names, on the device
    for ours, tensor, name, path in opened.read():
        # bitsandbytes quantizes a matrix as it moves it to the GPU.
        goes_later = uses_bnb and is_quantized(ours, model.get_submodule(ours.rpartition(".")[0]), bits)
        place = torch.device("cpu") if goes_later else device
        with as_checkpoint_error(f"{name} in {path} cannot be converted from {tensor.dtype}", torch.OutOfMemoryError):
            own = model.get_vision_tower().own_dtype if ours.startswith(_TOWER) else None
            chosen = own or dtype or (tensor.dtype if tensor.is_floating_point() else torch.float32)
            # From a file's pages, CUDA returns as soon as it has read them; waiting for the copy would be for nothing.
            goes_on = place.type == "cuda"
            value = tensor.to(place, chosen, memory_format=torch.contiguous_format, non_blocking=goes_on)
        if place.type == "cpu":
            _check_finite(value, tensor, name, path)
        else:
            # Fetching the result now would make the CPU wait for every tensor.
            finite[ours] = value.sum(dtype=torch.float32).isfinite()
        if ours == layouts.HEAD and is_tied:
            head = value
        else:
            _assign(model, ours, value, bits, device, uses_bnb)
            if isinstance(model.get_submodule(ours.rpartition(".")[0]), QuantizedLinear) and is_mapped(path):
                forget_pages(tensor)
    _check_together(finite, opened, dtype)
    if is_tied:
        _tie_head(model, head)
    with as_checkpoint_error(f"{opened.config_path} cannot be used", torch.OutOfMemoryError):
        _compute_buffers(model, device)
    empty = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    assert not empty, f"never filled: {empty}"


def fill_tower(opened: OpenCheckpoint, tokenizer: Any) -> None:
    """Gives the tower of ``opened.model`` its weights, on the CPU; the rest stays without. Raises CheckpointError."""
    model, device = opened.model, torch.device("cpu")
    for ours, tensor, name, path in opened.read():
        if ours.startswith(_TOWER):
            value = tensor.to(model.get_vision_tower().own_dtype or tensor.dtype)
            _check_finite(value, tensor, name, path)
            _assign(model, ours, value, 16, device)
    model.get_vision_tower().compute_buffers(device)
    model.get_vision_tower().take_companions(opened.load_processor(), tokenizer)


def _check_finite(value: torch.Tensor, tensor: torch.Tensor, name: str, path: Path) -> None:
    """Raises CheckpointError unless ``value`` is finite, which is the ``tensor`` of a file in the model's dtype.

    On a CPU and in the file's dtype the value stays mapped from the file: nothing is copied, processes share it, and
    writes to it stay in this process.
    """
    # A sum is finite only if all its terms are, and takes one pass and no memory. It may also overflow itself.
    if bool(value.sum().isfinite()) or bool(value.isfinite().all()):
        return
    if bool(tensor.isfinite().all()):
        largest = tensor.abs().max().item()
        raise CheckpointError(
            f"{name} in {path} reaches {largest:g}, too large for {value.dtype}. Load it with dtype bfloat16 or "
            "float32."
        )
    raise CheckpointError(f"{name} in {path} holds NaN or infinite weights: a damaged file or a failed training.")


def _check_together(finite: dict[str, torch.Tensor], opened: OpenCheckpoint, dtype: torch.dtype | None) -> None:
    """As ``_check_finite`` for tensors on a device, whose sums are fetched at once; doubtful ones are read again."""
    if not finite:
        return
    found = torch.stack(list(finite.values())).tolist()
    doubtful = {ours for ours, is_finite in zip(finite, found, strict=True) if not is_finite}
    for ours, tensor, name, path in opened.read() if doubtful else ():
        if ours in doubtful:
            _check_finite(tensor.to(dtype or tensor.dtype), tensor, name, path)


def _assign(
    model: Any, name: str, value: torch.Tensor, bits: int, device: torch.device, uses_bnb: bool = False
) -> None:
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    if uses_bnb and is_quantized(name, owner, bits):
        quantize_layer(model, owner_name, leaf, value, bits, device)
        return
    own_bits = 16 if uses_bnb else bits_for(name, bits, model.config.tie_word_embeddings)
    if own_bits < 16 and isinstance(owner, nn.Linear):
        quantize_linear(model, owner_name, value, own_bits)
        return
    old = owner.get_parameter(leaf)
    owner.register_parameter(leaf, nn.Parameter(value, requires_grad=old.requires_grad))


def _tie_head(model: Any, head: torch.Tensor | None) -> None:
    embeddings = model.get_input_embeddings().weight
    if head is not None:
        check_tied(head, embeddings)
    model.lm_head.weight = embeddings


def _compute_buffers(model: Any, device: torch.device) -> None:
    """Computes the buffers, which no file contains, from the configuration. Rotary frequencies stay in float32."""
    decoder = model.get_model()
    decoder.rotary_emb = type(decoder.rotary_emb)(decoder.config).to(device)
    model.get_vision_tower().compute_buffers(device)


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
    """Writes a folder that ``load_model`` reads back bit by bit: config, weights as safetensors, tokenizer, processor.

    The folder appears whole or not at all; an older checkpoint in it is replaced, and its other files are kept.

    Args:
        layout: "original", the only one.
        include_tower: write the vision tower's weights as well, as in LLaVA-1.6; otherwise ``mm_vision_tower`` in the
            model's config has to name where they are, as in LLaVA-1.5.
        max_shard_bytes: larger weights are split into shards of this size, with an index.

    Raises:
        UsageError: the layout is unknown, or the model is quantized or has LoRA layers that are not merged.
    """
    if layout != "original":
        raise UsageError(
            f"A checkpoint cannot be written in the layout '{layout}'; use 'original', and llava convert for others."
        )
    if not include_tower and not getattr(model.config, "mm_vision_tower", None):
        raise UsageError("A checkpoint without its tower needs mm_vision_tower to name one.")
    if not include_tower and getattr(model.config, "unfreeze_mm_vision_tower", False):
        raise UsageError(
            "The tower was trained (unfreeze_mm_vision_tower: true), so the checkpoint needs its weights inside; "
            "set it to false in the model's config if the weights are those of mm_vision_tower."
        )
    with new_folder(folder) as partial:
        write_checkpoint(
            model, tokenizer, processor, partial, include_tower=include_tower, max_shard_bytes=max_shard_bytes
        )


def write_checkpoint(
    model: Any,
    tokenizer: Any,
    processor: ImageProcessor,
    folder: Path,
    *,
    include_tower: bool = True,
    max_shard_bytes: int = 5_000_000_000,
    dtype: torch.dtype | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes a checkpoint's files into an existing folder, one by one. For the rest see ``save_checkpoint``.

    Args:
        tokenizer: None if there is none to write.
        dtype: of the stored weights, by default the model's. A tower in 16 bits, or one that runs in a dtype of its
            own, keeps it.
        state: the model's state dict, where it had to be gathered from several devices.
    """
    # Under FSDP the model's own state dict lacks the tower.
    tensors = dict(model.state_dict() if state is None else state)
    tensors = {name: value for name, value in tensors.items() if include_tower or not name.startswith(_TOWER)}
    if include_tower and not any(name.startswith(_TOWER) for name in tensors):
        tensors.update({_TOWER + name: value for name, value in model.get_vision_tower().state_dict().items()})
    if model.config.tie_word_embeddings:
        tensors.pop(layouts.HEAD, None)
    apart = [name for name in tensors if ".lora_A." in name]
    if apart:
        raise UsageError(
            f"A model with LoRA layers that are not merged cannot be saved ({apart[0]}): load it with merge=True."
        )
    whole = [name for name, value in tensors.items() if not value.is_floating_point()]
    if whole:
        raise UsageError(f"A quantized model cannot be saved ({whole[0]} holds integers): load it in 16 bits.")
    write_json(describe_model(model, include_tower, dtype), folder / CONFIG)
    has_own = getattr(model.get_vision_tower(), "own_dtype", None) is not None
    kept = {name for name in tensors if name.startswith(_TOWER) and (has_own or tensors[name].itemsize == 2)}
    stored = ((name, value if dtype is None or name in kept else value.to(dtype)) for name, value in tensors.items())
    write_tensors(stored, folder, max_shard_bytes)
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder)
    processor.save_pretrained(folder)
    save_generation_config(model.generation_config.to_dict(), folder)


_TOWER = "model.vision_tower."
