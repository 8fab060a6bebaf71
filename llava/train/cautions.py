"""What looks wrong with a stage before it starts, though it can be run: sentences for stderr and for the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llava.conversation import find_template
from llava.train.dataset.sample_sizes import MeasuredSizes
from llava.train.parts import PartParameter
from llava.train.recipe import TuningStage

_MANY_EPOCHS = 10
# Below this number of parameters, usual rates are higher and differ from model to model.
_LARGE_MODEL = 300_000_000
# Kinds of training with the rates of both originals' published scripts, and the range that is usual around them.
# Source: haotian-liu/LLaVA@c121f04 scripts/v1_5; LLaVA-VL/LLaVA-NeXT@df17966 scripts/train.
_USUAL = {
    "projector": ("the projector alone", 1e-3, 1e-4, 1e-2),
    "adapters": ("LoRA", 2e-4, 1e-5, 2e-3),
    "language_model": ("the language model", 2e-5, 1e-6, 2e-4),
    "vision_tower": ("the vision tower", 2e-6, 1e-7, 1e-4),
}


def list_cautions(
    stage: TuningStage,
    model: Any,
    trainable: Sequence[PartParameter],
    sizes: MeasuredSizes,
    samples_per_update: float,
) -> Iterator[str]:
    """Sentences about the stage, each with its remedy.

    Args:
        model: a LLaVA model, without PEFT's wrapper; one on the meta device will do.
        samples_per_update: on all devices; of packed rows, about as many as they hold.
    """
    epochs = stage.epochs or stage.steps * samples_per_update / max(1, sizes.num_samples)
    if epochs > _MANY_EPOCHS:
        is_evaluated = stage.held_out or stage.eval_data is not None
        remedy = "." if is_evaluated else ", for which some can be held out (held_out: 0.1)."
        yield (
            f"{epochs:.3g} epochs over {sizes.num_samples:,} samples: after a few epochs a model learns its samples by "
            "heart and gets worse at everything else. One to three are usual. Watch the loss on samples that are not "
            f"trained on{remedy}"
        )
    yield from _list_unusual_rates(stage, model, trainable)
    num_cut = sum(size.is_cut for size in sizes.typical)
    if num_cut:
        num_lost = sum(size.is_cut and not size.num_targets for size in sizes.typical)
        lost = f", {num_lost:,} of them before their first answer: these are left out" if num_lost else ""
        yield (
            f"{num_cut:,} of {len(sizes.typical):,} measured samples are longer than {_find_limit(sizes):,} positions "
            f"and are cut there{lost}. Raise max_length if memory allows."
        )


def list_template_cautions(stage: TuningStage, own_template: str) -> Iterator[str]:
    """Sentences about a stage that trains a LLaVA with another template than its own, stage 1's captions aside."""
    for name in stage.data.templates if stage.data is not None else ():
        if name != "plain" and not _is_same(name, own_template):
            yield (
                f"Stage '{stage.name}' trains with the template {name}, but the checkpoint was trained with "
                f"{own_template}: it forgets part of what it knows, and has to be asked in the new template from then "
                "on. Leave data.templates out to train with its own."
            )


def _list_unusual_rates(stage: TuningStage, model: Any, trainable: Sequence[PartParameter]) -> Iterator[str]:
    if sum(parameter.numel() for parameter in model.parameters()) < _LARGE_MODEL:
        return
    parts = {each.part for each in trainable}
    for part in ("projector", "language_model", "vision_tower"):
        rates = [stage.lr * each.scale for each in trainable if each.part == part and not each.is_norm_or_bias]
        if not rates or (part == "projector" and parts != {"projector"}):
            continue
        name, usual, low, high = _USUAL["adapters" if part == "language_model" and stage.lora else part]
        rate = max(rates)
        if not low <= rate <= high:
            word = "low: the model learns little" if rate < low else "high: training diverges, or the model forgets"
            yield f"{rate:.3g} is unusually {word}. For {name}, both originals use {usual:g}."


def _is_same(name: str, other: str) -> bool:
    """Whether two templates write the turns of a conversation in the same way."""
    one, two = find_template(name), find_template(other)
    return (one.sep_style, one.roles, one.sep, one.sep2) == (two.sep_style, two.roles, two.sep, two.sep2)


def _find_limit(sizes: MeasuredSizes) -> int:
    return max(size.num_positions for size in sizes.typical if size.is_cut)
