"""How much memory a training step takes on one device, estimated before the first one, and what would make it fit.

Weights, gradients and optimizer state are counted; activations are estimated from the tensors that autograd keeps in
one layer of each kind (``tests/train/test_memory_estimate.py`` measures them). Fragmentation and the libraries' own
buffers are not included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from llava.train.parts import PartParameter
from llava.train.recipe import Lora, Quantization, TuningStage

# Elements that autograd keeps in a layer, per position, as multiples of (hidden, key-value, intermediate) size; the
# attention's are those of a fused kernel, which keeps no scores.
_DECODER_LAYER = (8, 2, 4)
_FROZEN_DECODER_LAYER = (6, 2, 3)  # a linear layer keeps its input for the gradient of its weight alone
_TOWER_LAYER = (12, 0, 2)
# Logits at the targets, their float32 copy and its gradient.
_LOGITS_COPIES = 3


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on one device, by what they hold."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of them together."""
        return sum(getattr(self, each.name) for each in fields(self))


@dataclass(frozen=True)
class LongestBatch:
    """The largest batch of a run: positions of all rows together, padding included, targets, and tiles."""

    num_positions: int
    num_targets: int
    num_tiles: int


def estimate_memory(
    model: Any, trainable: Sequence[PartParameter], stage: TuningStage, batch: LongestBatch, num_devices: int = 1
) -> MemoryNeed:
    """The memory of one training step on each of ``num_devices``.

    Args:
        model: a LLaVA model; one on the meta device will do.
        trainable: its trainable parameters, see ``llava.train.parts``.
        batch: of one device.
    """
    is_half = stage.precision in ("bfloat16", "float16")
    num_trained = sum(each.parameter.numel() for each in trainable)
    num_frozen = sum(each.numel() for each in model.parameters()) - num_trained
    frozen_bytes = {4: 0.5, 8: 1.0}[stage.quantization.bits] if stage.quantization else 2 if is_half else 4
    shards = num_devices if stage.sharding == "fsdp" or stage.deepspeed else 1
    # Autocast keeps a cast copy of the weights of each layer while it runs; activations are partly in float32.
    activation_bytes = 3 if is_half else 4
    return MemoryNeed(
        weights=int((4 * num_trained + frozen_bytes * num_frozen) / shards),
        gradients=4 * num_trained // shards,
        optimizer=8 * num_trained // shards,
        activations=activation_bytes * sum(_count_activations(model, trainable, stage, batch)),
        logits=4 * _LOGITS_COPIES * batch.num_targets * model.config.vocab_size,
    )


def _count_activations(
    model: Any, trainable: Sequence[PartParameter], stage: TuningStage, batch: LongestBatch
) -> Iterator[int]:
    """The elements kept for the backward pass in the decoder and in the tower."""
    config = model.config
    kv_size = config.hidden_size * config.num_key_value_heads // config.num_attention_heads
    sizes = (config.hidden_size, kv_size, config.intermediate_size)
    # A gradient passes through all decoder layers, trained or not, on its way to the projector.
    is_trained = any(each.part == "language_model" for each in trainable)
    factors = _DECODER_LAYER if is_trained else _FROZEN_DECODER_LAYER
    yield _count_kept(factors, sizes, config.num_hidden_layers, batch.num_positions, stage, "language_model")
    tower = model.get_vision_tower()
    if tower is not None and any(each.part == "vision_tower" for each in trainable):
        shape = tower.config
        num_patches = (shape.image_size // shape.patch_size) ** 2 * batch.num_tiles
        sizes = (shape.hidden_size, 0, shape.intermediate_size)
        names = [name for name in tower.names_of_used_weights() if "layers." in name]
        num_layers = len({name.split("layers.")[1].split(".")[0] for name in names})
        yield _count_kept(_TOWER_LAYER, sizes, num_layers, num_patches, stage, "vision_tower")


def _count_kept(
    factors: Sequence[int], sizes: Sequence[int], num_layers: int, num_positions: int, stage: TuningStage, part: str
) -> int:
    layer = sum(factor * size for factor, size in zip(factors, sizes, strict=True))
    if part in stage.gradient_checkpointing:  # each layer's input, and one layer that is computed again
        return num_positions * (num_layers * sizes[0] + layer)
    return num_positions * num_layers * layer


def propose_remedies(stage: TuningStage) -> Iterator[tuple[str, TuningStage]]:
    """Changes of the stage that save memory, each on top of those before, as ``key=value`` and the changed stage."""
    parts = ("language_model", "vision_tower")
    if missing := [part for part in parts if part in stage.train and part not in stage.gradient_checkpointing]:
        known = tuple(part for part in parts if part in (*stage.gradient_checkpointing, *missing))
        stage = replace(stage, gradient_checkpointing=known)
        yield f"gradient_checkpointing=[{','.join(known)}]", stage
    while stage.batch_size > 1:
        half = stage.batch_size // 2
        stage = replace(stage, batch_size=half, accumulation=stage.accumulation * stage.batch_size // half)
        yield f"batch_size={half} accumulation={stage.accumulation}", stage
    if stage.precision == "float32":
        stage = replace(stage, precision="bfloat16")
        yield "precision=bfloat16", stage
    if stage.lora is None and "language_model" in stage.train:
        stage = replace(stage, lora=Lora())
        yield "lora={rank: 128}", stage
    if stage.lora is not None and stage.quantization is None and torch.cuda.is_available():
        stage = replace(stage, quantization=Quantization())
        yield "quantization={bits: 4}", stage
