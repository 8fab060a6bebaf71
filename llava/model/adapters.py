"""Reads a LoRA adapter, and merges it into its base model or attaches it as PEFT layers.

Three kinds of folder are recognized by their files: the original's (``adapter_config.json``, an adapter file, and
``non_lora_trainables.bin`` with the projector), PEFT's (without the latter; the base is a whole LLaVA), and either
kind saved in the middle of a training. PEFT does the arithmetic. The layers that get an adapter are those for which the
adapter file has weights, by their full names: ``target_modules`` lists only suffixes, which would also match the
``q_proj`` layers of the vision tower.

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

from llava.config import as_checkpoint_error
from llava.errors import CheckpointError, UsageError
from llava.model import layouts
from llava.model.folder import Folder
from llava.model.weights import check_not_empty, names_in, stream_tensors

CONFIG = "adapter_config.json"
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_TRAINABLES = "non_lora_trainables.bin"
# The peft_type of adapters that do not change weights.
_PROMPT_KINDS = frozenset(
    "PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING ADAPTION_PROMPT CPT CARTRIDGE".split()
)
_MERGE_WITH_PEFT = (
    "Merge it into its base with PEFT, if PEFT can: "
    "PeftModel.from_pretrained(BASE, FOLDER).merge_and_unload().save_pretrained(MERGED)."
)
# Initialisations of LoRA that subtract the adapter's initial value from the base's weights.
# Source: peft 0.21 tuners/lora/layer.py update_layer.
_BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Settings that change what LoRA's two matrices mean, or the model. Source: peft 0.21 tuners/lora/config.py.
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
# "...q_proj.lora_A.default.weight" -> layer, part of the adapter, leaf. PEFT leaves out the adapter's name, "default".
_PART = re.compile(
    r"^(?P<layer>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.default)?(?P<leaf>\.weight|\.bias)?$"
)

# Single rows of the embeddings that were trained (PEFT's trainable_token_indices).
_TOKENS = re.compile(r"^(?P<layer>.+?)(?:\.token_adapter)?\.trainable_tokens_delta(?:\.default)?$")


@dataclass(frozen=True)
class Adapter:
    """An adapter that was read but not applied yet.

    ``parts`` maps PEFT's tensor names, whose layers have this package's names, to the names in ``file``. ``whole`` maps
    the tensors that replace the base's, by their names in their files, to these files. ``tokens`` maps each layer whose
    rows were trained one by one to the name of its rows in ``file``.
    """

    folder: Path
    file: Path
    settings: dict[str, Any]
    parts: dict[str, str]
    whole: dict[str, Path]
    tokens: dict[str, str]

    @property
    def layers(self) -> list[str]:
        """The full names of the layers that get an adapter, sorted."""
        found = {match["layer"] for name in self.parts if (match := _PART.match(name.removeprefix(_PEFT)))}
        return sorted(found)


_PEFT = "base_model.model."


def find_adapter(source: Folder | Path) -> Adapter | None:
    """The adapter in a folder; None if it has no adapter_config.json.

    Raises:
        CheckpointError: its tensors are missing, or it is another kind of adapter than LoRA.
    """
    described = Folder.of(source)
    folder = described.path
    if not described.has(CONFIG):
        return None
    settings = dict(described.read_json(CONFIG))
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
            whole[name] = file  # a module that was trained in full (PEFT's modules_to_save)
            continue
        layer = rename_layer(match["layer"])
        parts[f"{_PEFT}{layer}.{match['part']}{match['leaf'] or ''}"] = name
    if not parts and not tokens:
        raise CheckpointError(f"{file} contains no LoRA layers, although {CONFIG} beside it announces some.")
    trainables = folder / _TRAINABLES
    if os.path.isfile(trainables):
        whole.update(dict.fromkeys(names_in(trainables), trainables))
    elif os.path.isfile(folder / "mm_projector.bin"):
        projector = folder / "mm_projector.bin"
        whole.update(dict.fromkeys(names_in(projector), projector))
    return Adapter(folder, file, settings, parts, whole, tokens)


def _check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Raises CheckpointError unless adapter_config.json describes an adapter that is supported."""
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
    """A tensor's name without the prefixes that DeepSpeed and PEFT put before the model's own names."""
    name = name.removeprefix("module.").removeprefix("base_model.")
    # PEFT's wrapper adds "model."; a LLaVA's own names begin with "model." as well, or with one of the others.
    if name.startswith("model.") and re.match(r"(model|lm_head|language_model|vision_tower|multi_modal)\b", name[6:]):
        name = name.removeprefix("model.")
    return name.replace(".modules_to_save.default.", ".").replace(".base_layer.", ".")


def rename_layer(layer: str) -> str:
    """A layer's name in this package, from its name in a LLaVA, a language model or a llava-hf model."""
    renamed = layouts.name_from_any(f"{layer}.weight")
    assert renamed is not None
    return renamed.removesuffix(".weight")


def name_from_adapter(name: str) -> str | None:
    """Our name of a tensor that a fine-tune replaces; None for LoRA layers. Compare the functions of ``layouts``.

    The original writes its projector with and without the leading ``model.``.
    """
    name = strip_wrapper(name)
    if _PART.match(name) or _TOKENS.match(name):
        return None
    if name.startswith(("mm_projector.", "image_newline")):
        name = f"model.{name}"
    return layouts.name_from_any(name)


def untie(model: Any, adapter: Adapter, names: Collection[str]) -> None:
    """Unties the embeddings and the head if one of them was trained in full (PEFT's modules_to_save).

    Embeddings in non_lora_trainables.bin were trained, or given new rows, together with the head that is tied to them.

    ``names``: our names of all tensors of base and adapter. Raises CheckpointError if the base stores one matrix for
    both.
    """
    pair = {layouts.EMBEDDINGS, layouts.HEAD}
    own = pair & {name_from_adapter(name) for name, file in adapter.whole.items() if file == adapter.file}
    if not model.config.tie_word_embeddings or len(own) != 1:
        return
    if not pair.issubset(names):
        raise CheckpointError(
            f"{adapter.folder} has {own.pop()} trained separately (modules_to_save), but its base ties the head to the "
            f"embeddings and stores one matrix for both. {_MERGE_WITH_PEFT}"
        )
    model.config.tie_word_embeddings = False


def apply_adapter(model: Any, adapter: Adapter, merge: bool) -> None:
    """Applies the adapter to the model, in place: merged into its weights, or as PEFT layers around the model's own.

    Adapters that are not merged are switched by the model's ``disable_adapters`` and ``enable_adapters``.

    Raises:
        CheckpointError: the adapter was trained on another model: a layer is missing or has another width.
        UsageError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, set_peft_model_state_dict
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise UsageError(f"{adapter.folder} contains LoRA layers, which need PEFT: pip install peft.") from error

    with as_checkpoint_error(f"{adapter.file} cannot be applied to the base model", torch.OutOfMemoryError):
        if adapter.tokens:
            _set_tokens(model, adapter, _read_parts(adapter, {name: name for name in adapter.tokens.values()}))
        if not adapter.parts:
            return
        settings, state = read_lora(model, adapter)
        if merge and adapter.settings.get("lora_bias"):
            _check_biases(model, adapter)
        with (
            as_checkpoint_error(f"{adapter.folder / CONFIG} cannot be used", torch.OutOfMemoryError),
            warnings.catch_warnings(),
        ):
            # The warning says that the bias cannot be merged.
            warnings.filterwarnings("ignore", message="`lora_bias=True` was passed")
            model.add_adapter(LoraConfig(**settings, inference_mode=True, lora_dropout=0.0))
        result = set_peft_model_state_dict(model, state, adapter_name="default")
        if result is not None and result.unexpected_keys:
            raise CheckpointError(f"{adapter.file} contains {result.unexpected_keys[0]}, which PEFT does not expect.")
        if not merge:
            return
        finite: dict[str, torch.Tensor] = {}
        for name, module in list(model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                # PEFT's safe merge looks at each result at once, and a GPU's would have to be waited for.
                is_cpu = model.device.type == "cpu"
                module.merge(safe_merge=is_cpu)
                base = module.get_base_layer()
                if not is_cpu:
                    finite[name] = base.weight.sum(dtype=torch.float32).isfinite()
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, base)
        _check_merged(finite, adapter)
        del model.peft_config
        model._hf_peft_config_loaded = False


def _check_merged(finite: Mapping[str, torch.Tensor], adapter: Adapter) -> None:
    """Raises CheckpointError for the first layer that the adapter made NaN or infinite."""
    found = torch.stack(list(finite.values())).tolist() if finite else []
    for name, is_finite in zip(finite, found, strict=True):
        if not is_finite:
            raise CheckpointError(f"{adapter.file} makes the weights of {name} NaN or infinite: a failed training.")


def read_lora(model: Any, adapter: Adapter) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """LoraConfig's arguments for the adapter's layers in ``model``, and the layers' tensors by PEFT's names.

    Unties the model's head if the adapter changes only one of head and embeddings.

    Raises:
        CheckpointError: the adapter was trained on another model, or its files are damaged.
    """
    from peft import LoraConfig

    tensors = _read_parts(adapter, {name: peft_name for peft_name, name in adapter.parts.items()})
    if model.config.tie_word_embeddings and {"lm_head", "model.embed_tokens"} & set(adapter.layers):
        _untie_head(model, adapter)
    ranks = _check_fit(model, adapter, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    _check_ranks(adapter, ranks)
    state = {name.removeprefix(_PEFT): _convert(name, tensor, model, adapter) for name, tensor in tensors.items()}
    return _settings_for(adapter, ranks, LoraConfig), state


def _read_parts(adapter: Adapter, names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """The tensors of the adapter's file, renamed by ``names``."""
    tensors = {}
    for name, tensor, path in stream_tensors(dict.fromkeys(names, adapter.file)):
        if name not in names:
            continue
        check_not_empty(name, tensor, path)
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{name} in {path} has the dtype {tensor.dtype}; only floating-point weights can be read."
            )
        tensors[names[name]] = tensor
    return tensors


def _convert(name: str, tensor: torch.Tensor, model: Any, adapter: Adapter) -> torch.Tensor:
    """The tensor in the model's dtype. Raises CheckpointError if it is not finite there."""
    value = tensor.to(model.dtype)
    if not bool(value.isfinite().all()):
        raise CheckpointError(
            f"{name} in {adapter.file} holds NaN or infinite weights, or weights too large for {model.dtype}."
        )
    return value


def _set_tokens(model: Any, adapter: Adapter, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replaces the base's rows of the tokens that were trained one by one.

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
                f"and {layer} of the base model has rows of {weight.shape[-1]}: one of the files belongs to another "
                "model."
            )
        with torch.no_grad():
            weight[torch.tensor(indices, device=weight.device)] = _convert(name, rows, model, adapter).to(weight.device)


def _untie_head(model: Any, adapter: Adapter) -> None:
    """Gives the head its own copy of the embeddings' matrix, because the adapter changes only one of the two."""
    if adapter.settings.get("ensure_weight_tying"):
        raise CheckpointError(
            f"{adapter.folder / CONFIG} says ensure_weight_tying: true, which is not supported for a model whose head "
            "is tied to its embeddings: merge the adapter with PEFT."
        )
    head = model.lm_head.weight
    model.lm_head.weight = nn.Parameter(head.detach().clone(), requires_grad=head.requires_grad)
    model.config.tie_word_embeddings = False


def _settings_for(adapter: Adapter, ranks: Mapping[str, int], config_class: Any) -> dict[str, Any]:
    """LoraConfig's arguments: the file's settings without those for training, and with the layers' full names."""
    known = set(config_class.__dataclass_fields__)
    left_out = {"base_model_name_or_path", "modules_to_save", "layers_to_transform", "layers_pattern", "auto_mapping",
                "exclude_modules", "target_parameters", "init_lora_weights", "revision", "loftq_config", "eva_config",
                "corda_config", "runtime_config", "megatron_config", "megatron_core", "trainable_token_indices",
                "lora_ga_config", "inference_mode", "lora_dropout"}  # fmt: skip
    values = {key: value for key, value in adapter.settings.items() if key in known - left_out and value is not None}
    rank = int(values.get("r", 8))
    alphas = {rename_layer(name): alpha for name, alpha in (values.get("alpha_pattern") or {}).items()}
    values.update(
        target_modules=adapter.layers,
        rank_pattern={f"^{re.escape(layer)}$": r for layer, r in ranks.items() if r != rank},
        alpha_pattern=alphas,
        init_lora_weights=True,
    )
    return values


def _check_ranks(adapter: Adapter, ranks: Mapping[str, int]) -> None:
    """Raises CheckpointError if a layer's rank differs from adapter_config.json's, which determines the scale."""
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
                f"{said}: one of the two files belongs to another training."
            )


def _check_biases(model: nn.Module, adapter: Adapter) -> None:
    """Raises CheckpointError if a layer has a bias in the adapter but none in the base to add it to."""
    for layer in adapter.layers:
        if getattr(model.get_submodule(layer), "bias", None) is None:
            raise CheckpointError(
                f"{adapter.folder / CONFIG} says lora_bias: true, but {layer} of the base model has no bias that the "
                "adapter's could be merged into: do not merge it (--no-merge, in Python merge=False)."
            )


def _check_fit(model: nn.Module, adapter: Adapter, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The rank of each layer's adapter. ``shapes``: those of ``adapter.parts``, by PEFT's names.

    Raises:
        CheckpointError: an adapter does not fit its layer.
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
                    "or another kind of adapter."
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
