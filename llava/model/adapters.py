"""Reads an adapter: what a LoRA fine-tune left beside its base model, to be merged into it or kept apart.

Three kinds of folder are known, told apart by their files alone: the original's (``adapter_config.json``, an adapter
file, ``non_lora_trainables.bin`` with the projector), PEFT's own (no such file, the base is a whole LLaVA), and either
kind saved in the middle of a training. PEFT does the arithmetic. The layers that get an adapter are those that the
file has weights for, by their full names: the names in ``target_modules`` are mere endings and would also match the
vision tower, which has a ``q_proj`` of its own.

Source: haotian-liu/LLaVA@c121f04 llava/model/builder.py and llava/train/train.py; PEFT 0.18.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llava.config import blaming, read_json
from llava.errors import CheckpointError, UsageError
from llava.model import layouts
from llava.model.weights import check_not_empty, names_in, stream_tensors

CONFIG = "adapter_config.json"
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_TRAINABLES = "non_lora_trainables.bin"
# What PEFT calls adapters that are no change of weights.
_PROMPT_KINDS = frozenset(
    "PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING ADAPTION_PROMPT CPT CARTRIDGE".split()
)
_MERGE_WITH_PEFT = (
    "Merge it into its base with PEFT, if PEFT can: "
    "PeftModel.from_pretrained(BASE, FOLDER).merge_and_unload().save_pretrained(MERGED)."
)
# Ways to begin a LoRA training that subtract from the base what the adapter then holds.
# Source: peft 0.21 tuners/lora/layer.py update_layer.
_BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Settings that make something else of LoRA's two matrices, or of the model. Source: peft 0.21 tuners/lora/config.py.
_VARIANTS = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)
# "...q_proj.lora_A.default.weight" -> the layer, and what of the adapter it is. PEFT saves without the adapter's name.
_PART = re.compile(
    r"^(?P<layer>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.default)?(?P<leaf>\.weight|\.bias)?$"
)

# Rows of the embeddings that were trained by themselves (PEFT's trainable_token_indices).
_TOKENS = re.compile(r"^(?P<layer>.+?)(?:\.token_adapter)?\.trainable_tokens_delta(?:\.default)?$")


@dataclass(frozen=True)
class Adapter:
    """An adapter folder, read but not yet applied.

    ``parts`` maps PEFT's names, with the layers in this package's names, to names in ``file``; ``whole`` has the
    tensors that replace those of the base, by their names in their files; ``tokens`` maps layers of which single rows
    were trained to names in ``file``.
    """

    folder: Path
    file: Path
    settings: dict[str, Any]
    parts: dict[str, str]
    whole: dict[str, Path]
    tokens: dict[str, str]

    @property
    def layers(self) -> list[str]:
        """The layers that get an adapter, by their full names."""
        found = {match["layer"] for name in self.parts if (match := _PART.match(name.removeprefix(_PEFT)))}
        return sorted(found)


_PEFT = "base_model.model."


def find_adapter(folder: Path) -> Adapter | None:
    """The adapter in a folder; None if it has no adapter_config.json.

    Raises:
        CheckpointError: its tensors are missing, or it is of a kind other than LoRA.
    """
    if not os.path.isfile(folder / CONFIG):
        return None
    settings = read_json(folder / CONFIG)
    _check_settings(settings, folder / CONFIG)
    file = next((folder / name for name in _ADAPTER_FILES if os.path.isfile(folder / name)), None)
    if file is None:
        raise CheckpointError(
            f"{folder} has {CONFIG} but none of {', '.join(_ADAPTER_FILES)}: copy or download it again."
        )
    parts: dict[str, str] = {}
    whole: dict[str, Path] = {}
    tokens: dict[str, str] = {}
    for name in names_in(file):
        if row := _TOKENS.match(strip_wrapper(name)):
            tokens[rename_layer(row["layer"])] = name
            continue
        match = _PART.match(strip_wrapper(name))
        if match is None:
            whole[name] = file  # a module that was trained whole (PEFT's modules_to_save)
            continue
        layer = rename_layer(match["layer"])
        parts[f"{_PEFT}{layer}.{match['part']}{match['leaf'] or ''}"] = name
    if not parts and not tokens:
        raise CheckpointError(f"{file} holds no LoRA layers, though {CONFIG} beside it announces some.")
    trainables = folder / _TRAINABLES
    if os.path.isfile(trainables):
        whole.update(dict.fromkeys(names_in(trainables), trainables))
    elif os.path.isfile(folder / "mm_projector.bin"):
        projector = folder / "mm_projector.bin"
        whole.update(dict.fromkeys(names_in(projector), projector))
    return Adapter(folder, file, settings, parts, whole, tokens)


def _check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """CheckpointError unless adapter_config.json describes an adapter that can be merged here as PEFT merges it."""
    kind = settings.get("peft_type", "LORA")
    if kind not in ("LORA", "TRAINABLE_TOKENS"):
        known = isinstance(kind, str) and kind in _PROMPT_KINDS
        raise CheckpointError(
            f"{path} describes an adapter of the kind {kind!r}; only LORA is supported. "
            + (
                "It adds virtual tokens to each prompt, so it cannot be merged into weights."
                if known
                else _MERGE_WITH_PEFT
            )
        )
    for name in ("r", "lora_alpha"):
        value = settings.get(name, 8)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 2**31:
            raise CheckpointError(f"{path} says {name}: {value!r}, where a number above 0 is needed.")
    for name in ("rank_pattern", "alpha_pattern"):
        values = settings.get(name) or {}
        if not isinstance(values, dict) or not all(
            isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 2**31
            for value in values.values()
        ):
            raise CheckpointError(f"{path} says {name}: {values!r}, where a number for each layer's name is needed.")
    init = settings.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_BASE_CHANGING):
        raise CheckpointError(
            f"{path} says init_lora_weights: {init!r}: training began by changing the base's own weights, so the "
            f"adapter does not fit the base as it is published. {_MERGE_WITH_PEFT}"
        )
    unknown = next((name for name in _VARIANTS if settings.get(name) not in (None, False, [], {})), None)
    if unknown is not None:
        raise CheckpointError(
            f"{path} says {unknown}: {settings[unknown]!r:.80}, a variant of LoRA that is not supported. "
            + _MERGE_WITH_PEFT
        )


def strip_wrapper(name: str) -> str:
    """A tensor's name without what DeepSpeed and PEFT put in front of the model's own names."""
    name = name.removeprefix("module.").removeprefix("base_model.")
    # PEFT's wrapper has the model as ``model``; a LLaVA begins with ``model`` itself, or has a head.
    if name.startswith("model.") and re.match(r"(model|lm_head|language_model|vision_tower|multi_modal)\b", name[6:]):
        name = name.removeprefix("model.")
    return name.replace(".modules_to_save.default.", ".").replace(".base_layer.", ".")


def rename_layer(layer: str) -> str:
    """A layer's name in this package, from a LLaVA's, a plain language model's or a llava-hf model's."""
    renamed = layouts.name_from_any(f"{layer}.weight")
    assert renamed is not None
    return renamed.removesuffix(".weight")


def name_from_adapter(name: str) -> str | None:
    """Ours of a tensor that a fine-tune has whole, None for LoRA layers: as the functions of ``layouts``.

    The original wrote its projector with and without the leading ``model.``.
    """
    name = strip_wrapper(name)
    if _PART.match(name) or _TOKENS.match(name):
        return None
    if name.startswith(("mm_projector.", "image_newline")):
        name = f"model.{name}"
    return layouts.name_from_any(name)


def untie(model: Any, adapter: Adapter, names: Collection[str]) -> None:
    """Make two matrices of tied embeddings and head, one of which was trained whole (PEFT's modules_to_save).

    ``names``: of all tensors of base and adapter, ours. CheckpointError if the base stores one matrix for both.
    """
    pair = {layouts.EMBEDDINGS, layouts.HEAD}
    own = pair & {name_from_adapter(name) for name in adapter.whole}
    if not model.config.tie_word_embeddings or len(own) != 1:
        return
    if not pair.issubset(names):
        raise CheckpointError(
            f"{adapter.folder} has {own.pop()} trained by itself (modules_to_save), but its base ties the head to the "
            f"embeddings and stores one matrix for both. {_MERGE_WITH_PEFT}"
        )
    model.config.tie_word_embeddings = False


def apply_adapter(model: Any, adapter: Adapter, merge: bool) -> None:
    """Put the adapter into the model, in place: its weights changed by it (``merge``), or its layers wrapped by PEFT's.

    Kept apart, the model's ``disable_adapters`` and ``enable_adapters`` switch it.

    Raises:
        CheckpointError: the adapter was made for another model: a layer is absent, or of another width.
        UsageError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, set_peft_model_state_dict
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise UsageError(f"{adapter.folder} holds LoRA layers, which needs PEFT: pip install peft.") from error

    with blaming(f"{adapter.file} cannot be put into the base model", torch.OutOfMemoryError):
        if adapter.tokens:
            _set_tokens(model, adapter, _read_parts(adapter, {name: name for name in adapter.tokens.values()}))
        if not adapter.parts:
            return
        tensors = _read_parts(adapter, {name: peft_name for peft_name, name in adapter.parts.items()})
        if model.config.tie_word_embeddings and {"lm_head", "model.embed_tokens"} & set(adapter.layers):
            _untie_head(model, adapter)
        ranks = _check_fit(model, adapter, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        _check_ranks(adapter, ranks)
        if merge and adapter.settings.get("lora_bias"):
            _check_biases(model, adapter)
        state = {name.removeprefix(_PEFT): _convert(name, tensor, model, adapter) for name, tensor in tensors.items()}
        with blaming(f"{adapter.folder / CONFIG} cannot be used", torch.OutOfMemoryError), warnings.catch_warnings():
            # Of a bias that could not be merged, where nothing is to be.
            warnings.filterwarnings("ignore", message="`lora_bias=True` was passed")
            config = LoraConfig(**_settings_for(adapter, ranks, LoraConfig))
            model.add_adapter(config)
        result = set_peft_model_state_dict(model, state, adapter_name="default")
        if result is not None and result.unexpected_keys:
            raise CheckpointError(f"{adapter.file} holds {result.unexpected_keys[0]}, which PEFT has no place for.")
        if not merge:
            return
        for name, module in list(model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                module.merge(safe_merge=True)
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, module.get_base_layer())
        del model.peft_config
        model._hf_peft_config_loaded = False


def _read_parts(adapter: Adapter, names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """The tensors of the adapter's file by the names that ``names`` gives to those in the file."""
    tensors = {}
    for name, tensor, path in stream_tensors(dict.fromkeys(names, adapter.file)):
        if name not in names:
            continue
        check_not_empty(name, tensor, path)
        if not tensor.is_floating_point():
            raise CheckpointError(f"{name} in {path} is of {tensor.dtype}; only floating-point weights can be read.")
        tensors[names[name]] = tensor
    return tensors


def _convert(name: str, tensor: torch.Tensor, model: Any, adapter: Adapter) -> torch.Tensor:
    """The tensor in the model's precision. CheckpointError if it is not finite there."""
    value = tensor.to(model.dtype)
    if not bool(value.isfinite().all()):
        raise CheckpointError(
            f"{name} in {adapter.file} holds NaN or infinite weights, or too large for {model.dtype}."
        )
    return value


def _set_tokens(model: Any, adapter: Adapter, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put the rows of single tokens that were trained by themselves in the place of the base's rows.

    Source: peft 0.21 tuners/trainable_tokens/layer.py.
    """
    said = adapter.settings.get("trainable_token_indices", adapter.settings.get("token_indices"))
    modules = dict(model.named_modules())
    for layer, name in adapter.tokens.items():
        own_name = layer.rpartition(".")[2]
        indices = said
        if isinstance(said, dict):
            indices = next((value for key, value in said.items() if layer.endswith(key.rpartition(".")[2])), None)
        rows, module = tensors[name], modules.get(layer)
        weight = getattr(module, "weight", None)
        if weight is None:
            raise CheckpointError(
                f"{adapter.file} has rows for {layer}, which the base model does not have: name the right base."
            )
        if not isinstance(indices, list) or not all(
            type(index) is int and 0 <= index < len(weight) for index in indices
        ):
            raise CheckpointError(
                f"{adapter.folder / CONFIG} says trainable_token_indices: {said!r:.80}, where ids of tokens below "
                f"{len(weight)} are needed for {own_name}."
            )
        if tuple(rows.shape) != (len(indices), *weight.shape[1:]):
            raise CheckpointError(
                f"{name} in {adapter.file} has the shape {list(rows.shape)}, but {CONFIG} lists {len(indices)} tokens "
                f"and {layer} of the base model has rows of {weight.shape[-1]}: one of the files is of another model."
            )
        with torch.no_grad():
            weight[torch.tensor(indices, device=weight.device)] = _convert(name, rows, model, adapter).to(weight.device)


def _untie_head(model: Any, adapter: Adapter) -> None:
    """Make two matrices of head and embeddings, of which the adapter changes one."""
    if adapter.settings.get("ensure_weight_tying"):
        raise CheckpointError(
            f"{adapter.folder / CONFIG} says ensure_weight_tying: true, which is not supported for a model whose head "
            "is tied to its embeddings: merge the adapter with PEFT."
        )
    head = model.lm_head.weight
    model.lm_head.weight = nn.Parameter(head.detach().clone(), requires_grad=head.requires_grad)
    model.config.tie_word_embeddings = False


def _settings_for(adapter: Adapter, ranks: Mapping[str, int], config_class: Any) -> dict[str, Any]:
    """LoraConfig's arguments: the file's, with the layers named in full and without what concerns training only."""
    known = set(config_class.__dataclass_fields__)
    left_out = {"base_model_name_or_path", "modules_to_save", "layers_to_transform", "layers_pattern", "auto_mapping",
                "exclude_modules", "target_parameters", "init_lora_weights", "revision", "loftq_config", "eva_config",
                "corda_config", "runtime_config", "megatron_config", "megatron_core", "trainable_token_indices",
                "lora_ga_config"}  # fmt: skip
    values = {key: value for key, value in adapter.settings.items() if key in known - left_out and value is not None}
    rank = int(values.get("r", 8))
    alphas = {rename_layer(name): alpha for name, alpha in (values.get("alpha_pattern") or {}).items()}
    values.update(
        target_modules=adapter.layers,
        rank_pattern={f"^{re.escape(layer)}$": r for layer, r in ranks.items() if r != rank},
        alpha_pattern=alphas,
        inference_mode=True,
        init_lora_weights=True,
        lora_dropout=0.0,
    )
    return values


def _check_ranks(adapter: Adapter, ranks: Mapping[str, int]) -> None:
    """CheckpointError if a layer's matrices are of another rank than adapter_config.json says: it sets the scale."""
    pattern = adapter.settings.get("rank_pattern") or {}
    for layer, rank in ranks.items():
        # Source: peft 0.21 utils/other.py get_pattern_key.
        found = (key for key in pattern for each in (key, rename_layer(key)) if re.match(rf"(.*\.)?({each})$", layer))
        key = next(found, None)
        said = int(adapter.settings.get("r", 8) if key is None else pattern[key])
        if rank != said:
            where = "r" if key is None else f"rank_pattern {key!r}"
            raise CheckpointError(
                f"{adapter.file} has matrices of rank {rank} for {layer}, but {adapter.folder / CONFIG} says {where}: "
                f"{said}: one of the two files is of another training."
            )


def _check_biases(model: nn.Module, adapter: Adapter) -> None:
    """CheckpointError if a layer has a bias in the adapter and none in the base, which it could be added to."""
    for layer in adapter.layers:
        if getattr(model.get_submodule(layer), "bias", None) is None:
            raise CheckpointError(
                f"{adapter.folder / CONFIG} says lora_bias: true, but {layer} of the base model has no bias that the "
                "adapter's could be merged into: keep the layers apart (--no-merge, in Python merge=False)."
            )


def _check_fit(model: nn.Module, adapter: Adapter, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The rank of each layer's adapter, from the shapes of ``adapter.parts`` by PEFT's names.

    Raises:
        CheckpointError: an adapter does not fit the layer it is for.
    """
    modules = dict(model.named_modules())
    ranks: dict[str, int] = {}
    for layer in adapter.layers:
        module = modules.get(layer)
        if module is None:
            raise CheckpointError(
                f"{adapter.file} has an adapter for {layer}, which the base model does not have: "
                "it was trained on another one. Name that as the base (--model-base)."
            )
        prefix = f"{_PEFT}{layer}."
        halves = {}
        for half, names in (("A", ("lora_A.weight", "lora_embedding_A")), ("B", ("lora_B.weight", "lora_embedding_B"))):
            found = [prefix + name for name in names if prefix + name in shapes]
            if not found:
                raise CheckpointError(f"{adapter.file} has no {names[0]} for {layer}: copy or download it again.")
            halves[half] = (adapter.parts[found[0]], shapes[found[0]])
        (name_a, shape_a), (name_b, shape_b) = halves["A"], halves["B"]
        for name, shape in halves.values():
            if len(shape) != (module.weight.ndim if isinstance(module, nn.Conv2d) else 2):
                raise CheckpointError(
                    f"{name} in {adapter.file} has the shape {list(shape)}, where a matrix is needed: a damaged file, "
                    "or one of another kind of adapter."
                )
        if not isinstance(module, nn.Linear):
            ranks[layer] = shape_a[0]
            continue
        for name, width, wanted, what in (
            (name_a, shape_a[1], module.in_features, "takes"),
            (name_b, shape_b[0], module.out_features, "gives"),
        ):
            if width != wanted:
                raise CheckpointError(
                    f"{name} in {adapter.file} is for a layer that {what} {width} values, but {layer} of the base "
                    f"model {what} {wanted}: the adapter was trained on another model. Name that as the base."
                )
        if shape_a[0] != shape_b[1]:
            raise CheckpointError(
                f"{adapter.file}: {name_a} has rank {shape_a[0]}, but {name_b} has rank {shape_b[1]}; a damaged file."
            )
        ranks[layer] = shape_a[0]
    return ranks
