"""Which modules are trained, and at which learning rate: every parameter of a model belongs to exactly one part.

A stage names the parts to train (``train``) and factors on the learning rate by module (``lr_scales``). Both are
checked against the model: an unknown name, a rate that nothing uses and a parameter without a part are errors. The
parts are those of LLaVA-NeXT's ``mm_tunable_parts``, except that the newline vector, which belongs to
``mm_language_model`` there, is a part of its own, and so is an image adapter.

Source: LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py (mm_tunable_parts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import nn

from llava.errors import UsageError
from llava.model.image_adapter import LowRank
from llava.model.lexical.lexical_projector import LexicalProjector
from llava.yaml_files import name_nearest

# A part's name -> the modules and single parameters that it consists of, each by its own name.
Parts: TypeAlias = Mapping[str, Mapping[str, nn.Module | nn.Parameter]]

# The key of ``lr_scales`` for every parameter of a LayerNorm or RMSNorm, and every bias.
NORMS_AND_BIASES = "norms_and_biases"


@dataclass(frozen=True, eq=False)
class PartParameter:
    """A parameter, the part that it belongs to, and its path below that part, such as ``layers.0.mlp.up_proj.weight``.

    Attributes:
        scale: the factor on the stage's learning rate, above 0.
        key: the key of ``lr_scales`` that set it; "" where none did.
    """

    part: str
    path: str
    parameter: nn.Parameter = field(repr=False)
    is_norm_or_bias: bool
    scale: float = 1.0
    key: str = ""


def find_llava(model: Any) -> Any:
    """The model inside PEFT's wrapper, if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def list_parts(model: Any) -> Parts:
    """The parts of a LLaVA model: vision_tower, projector, image_newline, image_adapter, language_model.

    A part is empty where the model has no such module: the first two in a language model without a tower. The image
    adapter's matrices are inside of the language model's layers, but no part of it.
    """
    inner = model.get_model()
    tower, newline = model.get_vision_tower(), getattr(inner, "image_newline", None)
    return {
        "vision_tower": {} if tower is None else {"vision_tower": tower},
        "projector": {} if tower is None else {"mm_projector": inner.mm_projector},
        "image_newline": {} if newline is None else {"image_newline": newline},
        "image_adapter": {
            f"layers.{name}": module for name, module in inner.layers.named_modules() if isinstance(module, LowRank)
        },
        "language_model": {
            "embed_tokens": inner.embed_tokens,
            "layers": inner.layers,
            "norm": inner.norm,
            "lm_head": model.lm_head,
        },
    }


def choose_trainable(root: nn.Module, parts: Parts, train: Sequence[str], where: str) -> list[PartParameter]:
    """The trainable parameters of ``root``, in the model's order: those that ``train`` names. Freezes all others.

    The blocks of a vision tower after the layer that is read, and its last norm, get no gradient; they stay frozen, as
    do a projector's constants. In
    a model with LoRA layers, the language model stands for what PEFT trains of it: the adapters.

    Args:
        root: the module that is trained; it may have fewer parameters than the parts.
        train: names of parts, or of single members of them, such as "lm_head".
        where: what messages begin with, such as "Stage 'next'".

    Raises:
        UsageError: ``train`` names an unknown part, or nothing would be trained.
    """
    members = {member: part for part, inside in parts.items() for member in inside if member}
    for name in train:
        if name not in parts and name not in members:
            raise UsageError(f"{where} trains the unknown part '{name}'.{name_nearest(name, [*parts, *members])}")
    owners = _find_owners(parts)
    unused = {id(parameter) for parameter in _list_unused(parts)}
    has_adapters = getattr(root, "peft_config", None) is not None
    trainable = []
    for name, parameter in root.named_parameters():
        assert id(parameter) in owners, f"The parameter {name} belongs to no part."
        each = owners[id(parameter)]
        is_named = any(
            each.path == member or each.path.startswith(f"{member}.") for member in members if member in train
        )
        is_chosen = each.part in train
        if has_adapters and each.part == "language_model":
            is_chosen = is_chosen and parameter.requires_grad
        is_trained = (is_chosen or is_named) and id(parameter) not in unused
        if parameter.requires_grad != is_trained:  # a quantized weight takes no call of requires_grad_
            parameter.requires_grad_(is_trained)
        if is_trained:
            trainable.append(each)
    if not trainable:
        raise UsageError(f"{where} trains nothing: the model has no parameter in {', '.join(train)}.")
    return trainable


def name_trainable(root: nn.Module) -> list[PartParameter]:
    """The parameters that ``root`` has as trainable, in its order, with their parts by the originals' substrings.

    For models of other classes, whose modules ``list_parts`` does not know; paths are then whole names.
    """
    words = {"mm_projector": "projector", "vision_tower": "vision_tower", "image_newline": "image_newline"}
    found: dict[int, PartParameter] = {}
    for path, module in root.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            whole = f"{path}.{name}" if path else name
            part = next((part for word, part in words.items() if word in whole), "language_model")
            is_norm_or_bias = _is_norm_or_bias(module, name) or "bias" in whole
            found.setdefault(id(parameter), PartParameter(part, whole, parameter, is_norm_or_bias))
    return [found[id(parameter)] for parameter in root.parameters() if parameter.requires_grad]


def _find_owners(parts: Parts) -> dict[int, PartParameter]:
    """Every parameter's part and path, by its id. A parameter that one part has twice (tied weights) counts once."""
    owners: dict[int, PartParameter] = {}
    for part, members in parts.items():
        for prefix, member in members.items():
            if isinstance(member, nn.Parameter):
                found = [PartParameter(part, prefix, member, is_norm_or_bias=False)]
            else:
                found = [
                    PartParameter(
                        part, ".".join(filter(None, (prefix, path, name))), parameter, _is_norm_or_bias(module, name)
                    )
                    for path, module in member.named_modules()
                    for name, parameter in module.named_parameters(recurse=False)
                ]
            for each in found:
                before = owners.setdefault(id(each.parameter), each)
                is_inside = (before.part, part) == ("image_adapter", "language_model")
                assert before.part == part or is_inside, f"{each.path} is in the parts {before.part} and {part}."
    return owners


def _is_norm_or_bias(module: nn.Module, name: str) -> bool:
    return name == "bias" or "norm" in type(module).__name__.lower()


def _list_unused(parts: Parts) -> list[nn.Parameter]:
    tower: Any = parts.get("vision_tower", {}).get("vision_tower")
    if tower is None:
        return []
    used = tower.names_of_used_weights()
    unused = [parameter for name, parameter in tower.named_parameters() if name not in used]
    projector = parts["projector"]["mm_projector"]
    return unused + (projector.list_constants() if isinstance(projector, LexicalProjector) else [])


def scale_rates(
    trainable: Sequence[PartParameter], parts: Parts, lr_scales: Mapping[str, float], where: str
) -> list[PartParameter]:
    """The parameters with their factors on the learning rate; the most specific key decides.

    A key is a part, ``norms_and_biases``, or the name of a module or parameter, such as ``patch_embedding`` or
    ``layers.0``. A parameter that no key names has the factor 1.

    Args:
        parts: all parts of the model, so that the error distinguishes a key of frozen modules from an unknown one.

    Raises:
        UsageError: a key names nothing that is trained, or only parameters for which a more specific key decides.
    """
    used: set[str] = set()
    scaled = []
    for each in trainable:
        matches = [(depth, key) for key in lr_scales if (depth := _match(key, each)) is not None]
        if matches:
            key = max(matches)[1]
            used.add(key)
            scaled.append(replace(each, scale=lr_scales[key], key=key))
        else:
            scaled.append(each)
    for key in lr_scales:
        if key not in used:
            raise UsageError(f"{where}: lr_scales.{key} {_say_unused(key, trainable, parts)}")
    return scaled


def _match(key: str, each: PartParameter) -> tuple[int, int] | None:
    """How specifically the key names this parameter, (where it ends in the path, its length); None if it does not."""
    steps = each.path.split(".")
    if key == NORMS_AND_BIASES:
        return (len(steps) + 1, 0) if each.is_norm_or_bias else None
    if key == each.part:
        return (0, 0)
    wanted = key.split(".")
    for end in range(len(steps), len(wanted) - 1, -1):
        if steps[end - len(wanted) : end] == wanted:
            return (end, len(wanted))
    return None


def _say_unused(key: str, trainable: Sequence[PartParameter], parts: Parts) -> str:
    if any(_match(key, each) for each in trainable):
        return "is used by nothing: more specific keys decide about everything that it names. Leave it out."
    everything = _find_owners(parts).values()
    if any(_match(key, each) for each in everything):
        trained = ", ".join(dict.fromkeys(each.part for each in trainable))
        return f"is used by nothing: what it names is frozen in this stage, which trains {trained}."
    steps = (step for each in everything for step in each.path.split(".")[:-1] if not step.isdigit())
    return f"names no module.{name_nearest(key, [*parts, NORMS_AND_BIASES, *steps])}"


def describe_trainable(trainable: Sequence[PartParameter], lr: float) -> str:
    """A table as text: the number of trainable parameters of every part at each learning rate."""
    counts: dict[tuple[str, float], int] = {}
    for each in trainable:
        group = (each.part, lr * each.scale)
        counts[group] = counts.get(group, 0) + each.parameter.numel()
    width = max(len(part) for part, _ in counts)
    return "\n".join(
        f"  {part:<{width}}  {count:>13,} parameters at {rate:.3g}" for (part, rate), count in counts.items()
    )
