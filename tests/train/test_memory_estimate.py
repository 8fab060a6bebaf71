"""The estimate of a training step's memory, beside what autograd keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from llava.train.devices.memory_estimate import LongestBatch, estimate_memory, propose_remedies
from llava.train.parts import choose_trainable, list_parts
from llava.train.recipe import Lora, TuningStage
from tests.tiny import ANYRES, make_labels, make_model, make_pixels, pad

ALL = ("vision_tower", "projector", "image_newline", "language_model")
STAGE = TuningStage(name="tune", steps=1, batch_size=1, lr=1e-3, precision="float32", train=ALL)


def measure_kept_bytes(model: Any, **inputs: Any) -> int:
    """Bytes of all tensors that autograd keeps for the backward pass of one forward pass, but for the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor  # held, so that no other tensor gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("train", [ALL, ("projector",), ("projector", "language_model")])
def test_the_estimated_activations_are_those_that_autograd_keeps(train: tuple[str, ...]) -> None:
    model = make_model(**ANYRES, hidden_size=128, intermediate_size=320, num_hidden_layers=3).train()
    trainable = choose_trainable(model, list_parts(model), train, "Here")
    batch = pad([[1, -200, *range(3, 90)]])
    pixels = make_pixels(5)
    labels = make_labels(batch)
    sizes = [(48, 32)]
    merged = model.prepare_inputs_labels_for_multimodal(batch["input_ids"], None, None, None, labels, pixels, sizes)
    positions, targets = merged[4].shape[1], int((merged[5][:, 1:] != -100).sum())
    need = estimate_memory(model, trainable, replace(STAGE, train=train), LongestBatch(positions, targets, 5))
    inputs = {**batch, "labels": labels, "images": pixels, "image_sizes": sizes, "logits_at_targets_only": True}
    measured = measure_kept_bytes(model, **inputs)
    assert need.activations + need.logits == pytest.approx(measured, rel=0.25)


def test_weights_gradients_and_optimizer_state_are_counted() -> None:
    model = make_model(**ANYRES)
    trainable = choose_trainable(model, list_parts(model), ("projector",), "Here")
    num_trained = sum(each.parameter.numel() for each in trainable)
    num_all = sum(each.numel() for each in model.parameters())
    need = estimate_memory(model, trainable, replace(STAGE, train=("projector",)), LongestBatch(10, 2, 1))
    assert (need.weights, need.gradients, need.optimizer) == (4 * num_all, 4 * num_trained, 8 * num_trained)
    half = replace(STAGE, train=("projector",), precision="bfloat16", sharding="fsdp")
    need = estimate_memory(model, trainable, half, LongestBatch(10, 2, 1), num_devices=4)
    assert need.weights == (4 * num_trained + 2 * (num_all - num_trained)) // 4
    assert need.total == need.weights + need.gradients + need.optimizer + need.activations + need.logits


def test_recomputing_activations_keeps_the_layers_inputs_and_one_layer() -> None:
    model = make_model(**ANYRES)
    trainable = choose_trainable(model, list_parts(model), ("language_model",), "Here")
    stage, batch = replace(STAGE, train=("language_model",)), LongestBatch(100, 10, 1)
    whole = estimate_memory(model, trainable, stage, batch).activations
    recomputed = estimate_memory(
        model, trainable, replace(stage, gradient_checkpointing=("language_model",)), batch
    ).activations
    num_layers, hidden = model.config.num_hidden_layers, model.config.hidden_size
    assert recomputed == 4 * 100 * num_layers * hidden + whole // num_layers


def test_each_remedy_saves_memory_and_keeps_the_samples_of_an_update() -> None:
    model = make_model(**ANYRES)
    stage = replace(STAGE, batch_size=5, accumulation=2)
    proposed = list(propose_remedies(stage))
    assert [text for text, _ in proposed] == [
        "gradient_checkpointing=[language_model,vision_tower]",
        "batch_size=2 accumulation=5",
        "batch_size=1 accumulation=10",
        "precision=bfloat16",
        "lora={rank: 128}",
    ]
    before = stage
    for _, changed in proposed[:-1]:
        assert changed.batch_size * changed.accumulation == 10
        trainable = choose_trainable(model, list_parts(model), ALL, "Here")
        needs = [
            estimate_memory(model, trainable, each, LongestBatch(100 * each.batch_size, 50 * each.batch_size, 4))
            for each in (before, changed)
        ]
        assert needs[1].total < needs[0].total
        before = changed
    assert proposed[-1][1].lora == Lora()
