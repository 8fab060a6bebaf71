"""Gradient checkpointing by part, compiled layers and unused blocks: the same loss and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llava.errors import UsageError
from llava.model import packed_attention
from llava.train.dataset.packing import PackedCollator
from llava.train.speed.layers import checkpoint_layers, compile_layers
from llava.train.speed.tower_cache import can_cache
from tests.model.test_learning import assert_same, learn
from tests.tiny import SLOT, make_lesson, make_model


def make_training_model() -> Any:
    model = make_model(use_cache=False).train()
    model.get_vision_tower().requires_grad_(True)
    return model


def count_runs(model: Any) -> dict[str, int]:
    """How often each block of the tower and each decoder layer ran in one step, by its name."""
    runs: dict[str, int] = {}

    def count(name: str) -> Any:
        def hook(module: Any, inputs: Any) -> None:
            runs[name] = runs.get(name, 0) + 1

        return hook

    layers = {f"decoder {i}": layer.mlp for i, layer in enumerate(model.model.layers)}
    blocks = model.get_vision_tower().vision_tower.vision_model.encoder.layers
    layers |= {f"tower {i}": block.mlp for i, block in enumerate(blocks[:2])}
    hooks = [layer.register_forward_pre_hook(count(name)) for name, layer in layers.items()]
    learn(model)
    for hook in hooks:
        hook.remove()
    return runs


@pytest.mark.parametrize("parts", [("language_model",), ("vision_tower",), ("language_model", "vision_tower"), ()])
def test_the_named_parts_alone_are_recomputed_and_learn_the_same(parts: tuple[str, ...]) -> None:
    model = make_training_model()
    plain = learn(model)
    checkpoint_layers(model, parts)
    assert_same(plain, learn(model))
    runs = count_runs(model)
    assert {runs[f"decoder {i}"] for i in range(2)} == {1 + ("language_model" in parts)}
    assert {runs[f"tower {i}"] for i in range(2)} == {1 + ("vision_tower" in parts)}


def test_a_frozen_decoders_embeddings_and_a_frozen_tower_stay_out_of_the_graph() -> None:
    model = make_model(use_cache=False).train().requires_grad_(False)
    model.model.mm_projector.requires_grad_(True)
    checkpoint_layers(model, ["language_model"])
    assert not model.get_input_embeddings()(torch.tensor([[1, 5]])).requires_grad
    assert can_cache(model.get_vision_tower())
    assert learn(model)[1].keys() == {f"model.mm_projector.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}


def test_a_part_without_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="names 'projector'; the parts with layers are language_model and vision"):
        checkpoint_layers(make_model(), ["projector"])


def test_the_block_after_the_layer_that_is_read_never_runs() -> None:
    model = make_training_model()
    tower = model.get_vision_tower()
    last = tower.vision_tower.vision_model.encoder.layers[2]
    last.requires_grad_(False)
    with torch.no_grad():
        for weight in last.parameters():
            weight.fill_(torch.nan)
    assert torch.isfinite(learn(model)[0])
    assert tower.num_blocks_run == 2


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # of dynamo's own
def test_compiled_layers_learn_the_same_from_a_packed_row() -> None:
    model = make_model(use_cache=False, num_hidden_layers=1).train()
    model.config._attn_implementation = packed_attention.register()
    lesson = make_lesson()
    tiles = iter(zip(lesson["images"], lesson["image_sizes"], strict=True))
    samples = []
    for ids, labels in zip(lesson["input_ids"], lesson["labels"], strict=True):
        shown = [next(tiles) for _ in range(int((ids == SLOT).sum()))]
        images, sizes = [image for image, _ in shown], [size for _, size in shown]
        samples.append({"input_ids": ids, "labels": labels, "images": images, "image_sizes": sizes})
    batch = {"attention_mask": None, **PackedCollator()(samples)}
    plain, names = learn(model, **batch), [name for name, _ in model.named_parameters()]
    compile_layers(model, backend="eager")
    assert_same(plain, learn(model, **batch))
    assert [name for name, _ in model.named_parameters()] == names
