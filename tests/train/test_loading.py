"""Weights are loaded in the dtype that they keep, so that training takes no more of the host's memory than it needs."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.model import checkpoint, weights
from llava.model.checkpoint import LoadedModel
from llava.train.devices import parallel
from llava.train.devices.precision import set_precision
from llava.train.parts import choose_trainable, list_parts
from llava.train.recipe import Lora
from llava.train.starting_model import build_start
from tests.tiny_starts import ANYRES, make_stage
from tests.train.test_starting_model import in_vision, starts

__all__ = ["starts"]  # the fixture

LORA = {"lora": Lora(rank=4, dropout=0.0)}
DORA = {"lora": Lora(rank=4, dropout=0.0, dora=True)}
STAGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llava": ("llava-1.6", {}, {}),
    "new vision": ("llama", ANYRES, {}),
    "tied": ("tied", ANYRES, {}),
    "new tokens": ("llama", {"mm_use_im_start_end": True, "mm_use_im_patch_token": True}, {}),
    "lora": ("llava-1.6", {}, LORA),
    "dora": ("llava-1.6", {}, DORA),
    "projector": ("llava-1.6", {}, {"train": ["projector"]}),
}


def load(starts: Path, name: str, dtype: str | None, mixed_precision: str, **options: Any) -> LoadedModel:
    """The stage's model as its trainer gets it."""
    start, vision, settings = STAGES[name]
    stage = make_stage(vision if start.startswith("llava") else in_vision(starts, **vision), **settings)
    loaded = build_start(starts / start, stage, dtype, **options)
    trainable = choose_trainable(loaded.model, list_parts(loaded.model), stage.train, "The test")
    is_outline = options.get("is_outline", False)
    set_precision(
        loaded.model, trainable, mixed_precision=mixed_precision, has_original_tower=False, is_outline=is_outline
    )
    return loaded


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
@pytest.mark.parametrize("name", STAGES)
def test_weights_loaded_in_their_own_dtype_are_trained_from_the_same_values(
    starts: Path, name: str, mixed_precision: str
) -> None:
    direct, whole = (load(starts, name, dtype, mixed_precision).model for dtype in (None, "float32"))
    wanted = dict(whole.named_parameters())
    for key, parameter in direct.named_parameters():
        assert parameter.dtype == wanted[key].dtype, key
        assert torch.equal(parameter, wanted[key]), key
        assert parameter.requires_grad == wanted[key].requires_grad, key
    assert direct.state_dict().keys() == whole.state_dict().keys()


def test_a_frozen_newline_vector_is_not_rounded(starts: Path) -> None:
    model = load(starts, "projector", None, "bf16").model
    [newline] = [each for name, each in model.named_parameters() if name.endswith("image_newline")]
    assert not newline.requires_grad
    assert newline.dtype == torch.float32
    assert not torch.equal(newline, newline.bfloat16().float())


def test_loaded_in_its_own_dtype_a_weight_stays_mapped_from_its_file(
    starts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: set[int] = set()
    stream = weights._tensors_in

    def watched(path: Path) -> Any:
        for name, tensor in stream(path):
            mapped.add(tensor.data_ptr())
            yield name, tensor

    monkeypatch.setattr(weights, "_tensors_in", watched)
    model = build_start(starts / "llava-1.6", make_stage(**LORA), None).model
    frozen = [weight for name, weight in model.named_parameters() if ".layers." in name and "lora" not in name]
    assert {weight.dtype for weight in frozen} == {torch.float16}
    assert {weight.data_ptr() for weight in frozen} <= mapped


@pytest.mark.parametrize("name", STAGES)
def test_an_outline_has_the_names_shapes_and_dtypes_of_the_model_and_reads_no_weights(
    starts: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(starts, name, None, "bf16").model
    monkeypatch.setattr(checkpoint, "_fill", lambda *_: pytest.fail("weights are read"))
    outline = load(starts, name, None, "bf16", is_outline=True).model

    def describe(model: Any) -> dict[str, Any]:
        parameters = model.named_parameters(remove_duplicate=False)
        return {key: (each.shape, each.dtype, each.requires_grad) for key, each in parameters}

    assert describe(outline) == describe(whole)
    buffers = dict(whole.named_buffers())
    for key, buffer in outline.named_buffers():
        assert torch.equal(buffer, buffers[key]), key


def test_under_fsdp_only_the_first_process_reads_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    said = parallel.translate_fsdp(None, None, "Stage")["fsdp_config"]
    settings = {"fsdp_version": said["version"], "cpu_ram_efficient_loading": said["cpu_ram_efficient_loading"]}
    for rank, plugin, expected in (
        ("1", settings, True),
        ("0", settings, False),
        ("1", {**settings, "cpu_ram_efficient_loading": False}, False),
        ("1", None, False),  # DDP
    ):
        monkeypatch.setenv("RANK", rank)
        assert parallel.receives_weights(types.SimpleNamespace(fsdp_plugin_args=plugin)) is expected
