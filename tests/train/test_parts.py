"""Every parameter belongs to one part and is trained or frozen with it, and every rate is used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from llava.errors import UsageError
from llava.train.part_table import build_table
from llava.train.parts import choose_trainable, describe_trainable, list_parts, scale_rates
from tests.tiny import ANYRES, FAMILIES, SQUARE, make_model
from tests.tiny_lexical import make_lexical, use_stand_ins

PARTS = ("vision_tower", "projector", "image_newline", "image_adapter", "language_model")


def choose(model: Any, *train: str, **lr_scales: float) -> dict[str, float]:
    """The trained parameters by their names in the model, with the factors on their rates."""
    parts = list_parts(model)
    trainable = scale_rates(choose_trainable(model, parts, train, "Here"), parts, lr_scales, "Here")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(each.parameter)]: each.scale for each in trainable}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_hold_every_parameter_once(family: str) -> None:
    model = make_model(family, **ANYRES)
    apart = [name for part in PARTS if list_parts(model)[part] for name in choose(model, part)]
    unused = {name for name, _ in model.named_parameters()} - {*apart}
    assert len(apart) == len(set(apart))
    # The tower's layers after the one that is read.
    assert unused
    assert all("post_layernorm" in name or "encoder.layers.2" in name for name in unused)


def test_parts_that_are_not_named_are_frozen() -> None:
    model = make_model(**ANYRES)
    for part, piece in (("projector", "mm_projector"), ("image_newline", "image_newline"), ("vision_tower", "tower")):
        learning = choose(model, part)
        assert learning
        assert all(piece in name for name in learning)
        assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [*learning]


def test_an_image_adapter_is_trained_apart_from_the_language_model() -> None:
    model = make_model(**ANYRES, mm_image_adapter={"rank": 2, "alpha": 2})
    adapter, rest = choose(model, "image_adapter"), choose(model, "language_model")
    assert adapter
    assert all("image_lora" in name for name in adapter)
    assert not any("image_lora" in name for name in rest)
    assert {*adapter, *rest} == {*choose(model, "image_adapter", "language_model")}
    assert len(rest) == len(choose(make_model(**ANYRES), "language_model"))
    with pytest.raises(UsageError, match="trains nothing: the model has no parameter in image_adapter"):
        choose(make_model(**ANYRES), "image_adapter")


def test_the_table_names_a_frozen_image_adapter_once(monkeypatch: pytest.MonkeyPatch) -> None:
    use_stand_ins(monkeypatch)
    part, modules, *_ = build_table(make_lexical(), [], 1.0, 0.0).columns
    assert dict(zip(part.cells, modules.cells, strict=True))["image_adapter"] == "layers (adapters)"


def test_the_constants_of_a_lexical_projector_are_never_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    use_stand_ins(monkeypatch)
    model = make_lexical()
    learning = choose(model, "projector")
    assert {name for name, _ in model.named_parameters() if "mm_projector" in name} - {*learning} == {
        f"model.mm_projector.{name}" for name in ("name_digits", "feature_mean", "feature_scale")
    }


def test_a_model_without_a_newline_vector_trains_the_rest() -> None:
    model = make_model(**SQUARE, mm_patch_merge_type="flat")
    assert not list_parts(model)["image_newline"]
    assert choose(model, "projector", "image_newline") == choose(model, "projector")
    with pytest.raises(UsageError, match="trains nothing: the model has no parameter in image_newline"):
        choose(model, "image_newline")
    with pytest.raises(UsageError, match="image_newline names no module"):
        choose(model, *PARTS, image_newline=0.5)


def test_the_most_specific_rate_decides_in_any_order() -> None:
    scales = {"norms_and_biases": 0.5, "vision_tower": 0.1, "patch_embedding": 0.01, "layers.0": 0.2, "q_proj": 0.3}
    for order in (scales, dict(reversed(scales.items()))):
        rates = choose(make_model(**ANYRES), *PARTS, **order)
        tower = "model.vision_tower.vision_tower.vision_model."
        assert rates[tower + "embeddings.patch_embedding.weight"] == 0.01
        assert rates[tower + "embeddings.position_embedding.weight"] == 0.1
        assert rates[tower + "encoder.layers.0.layer_norm1.weight"] == 0.5
        assert rates[tower + "encoder.layers.1.mlp.fc1.bias"] == 0.5
        assert rates[tower + "encoder.layers.0.mlp.fc1.weight"] == 0.2
        assert rates["model.layers.0.mlp.up_proj.weight"] == 0.2
        assert rates["model.layers.0.self_attn.q_proj.weight"] == 0.3
        assert rates["model.layers.1.mlp.up_proj.weight"] == 1.0
        assert rates["model.norm.weight"] == 0.5
        assert rates["model.image_newline"] == 1.0


@pytest.mark.parametrize(
    ("train", "scales", "message"),
    [
        (
            PARTS,
            {"vision_towr": 0.1},
            r"vision_towr names no module\. Did you mean 'vision_tower'\? There are: vision_",
        ),
        (PARTS, {"mm_projecter": 0.1}, "Did you mean 'mm_projector'"),
        (PARTS, {"layers.9": 0.1}, "names no module"),
        (PARTS, {"": 0.1}, "names no module"),
        (PARTS, {"proj": 0.1}, "names no module"),
        (("projector",), {"vision_tower": 0.1}, "what it names is frozen in this stage, which trains projector"),
        (("vision_tower",), {"post_layernorm": 0.1}, "what it names is frozen"),
        (
            ("projector",),
            {"projector": 0.1, "mm_projector": 0.2},
            "lr_scales.projector is used by nothing.* Leave it out",
        ),
        (("projector", "vision"), {}, "unknown part 'vision'. Did you mean 'vision_tower'"),
    ],
)
def test_a_name_that_nothing_uses_is_an_error(train: tuple[str, ...], scales: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(make_model(**ANYRES), *train, **scales)


def test_a_parameter_without_a_part_or_with_two_fails_an_assertion() -> None:
    root = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    with pytest.raises(AssertionError, match=r"b\.weight belongs to no part"):
        choose_trainable(root, {"first": {"a": root["a"]}}, ["first"], "Here")
    with pytest.raises(AssertionError, match="is in the parts first and second"):
        choose_trainable(root, {"first": {"a": root["a"]}, "second": {"": root}}, ["first"], "Here")


def test_tied_embeddings_are_trained_once() -> None:
    model = make_model(**ANYRES)
    model.lm_head.weight = model.get_model().embed_tokens.weight
    assert list(choose(model, "language_model")).count("model.embed_tokens.weight") == 1


def test_the_table_counts_the_trained_parameters_at_each_rate() -> None:
    parts = {"a": {"a": nn.Linear(3, 4)}, "bc": {"b": nn.LayerNorm(5), "c": nn.Parameter(torch.zeros(6))}}
    root = nn.Module()
    root.a, root.b, root.c = parts["a"]["a"], parts["bc"]["b"], parts["bc"]["c"]
    trainable = scale_rates(choose_trainable(root, parts, ("a", "bc"), "Here"), parts, {"b": 0.5}, "Here")
    rows = [row.split() for row in describe_trainable(trainable, 0.01).splitlines()]
    assert sorted((row[0], row[1], row[-1]) for row in rows) == [
        ("a", "16", "0.01"),
        ("bc", "10", "0.005"),
        ("bc", "6", "0.01"),
    ]
