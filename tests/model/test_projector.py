from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from llava.errors import UsageError
from llava.model.multimodal_projector.builder import IdentityMap, SimpleResBlock, build_vision_projector


@pytest.mark.parametrize(("hidden_size", "parameters"), [(4096, 20_979_712), (5120, 31_467_520), (7168, 58_734_592)])
def test_the_two_layer_projector_has_the_released_names_and_size(hidden_size: int, parameters: int) -> None:
    config = SimpleNamespace(mm_projector_type="mlp2x_gelu", mm_hidden_size=1024, hidden_size=hidden_size)
    with torch.device("meta"):
        projector = build_vision_projector(config)
    assert list(projector.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert sum(parameter.numel() for parameter in projector.parameters()) == parameters


def test_an_mlp_of_any_depth_has_an_exact_gelu_between_its_layers() -> None:
    config = SimpleNamespace(mm_projector_type="mlp3x_gelu", mm_hidden_size=4, hidden_size=6)
    projector = build_vision_projector(config)
    x = torch.randn(5, 4)
    expected = x
    for layer in (0, 2, 4):
        expected = torch.nn.functional.linear(expected, projector[layer].weight, projector[layer].bias)
        if layer < 4:
            expected = expected * 0.5 * (1 + torch.erf(expected / 2**0.5))
    torch.testing.assert_close(projector(x), expected)


def test_the_projector_is_one_linear_layer_unless_the_configuration_says_otherwise() -> None:
    projector = build_vision_projector(SimpleNamespace(mm_hidden_size=4, hidden_size=6), delay_load=True)
    assert isinstance(projector, torch.nn.Linear)
    assert projector.weight.shape == (6, 4)


def test_the_identity_hands_features_on_and_has_no_parameters() -> None:
    projector = build_vision_projector(SimpleNamespace(mm_projector_type="identity"))
    x = torch.randn(2, 3)
    assert isinstance(projector, IdentityMap)
    assert projector(x, "further", arguments=True) is x
    assert projector.config == {"mm_projector_type": "identity"}
    assert not list(projector.parameters())


def test_the_identity_of_another_width_is_refused_with_both_numbers() -> None:
    config = SimpleNamespace(mm_projector_type="identity", mm_hidden_size=24, hidden_size=32)
    with pytest.raises(UsageError, match=r"as wide as the tower's, 24, but the language model needs 32"):
        build_vision_projector(config)


def test_residual_blocks_stand_behind_the_layers() -> None:
    config = SimpleNamespace(mm_projector_type="mlp2x_res2x_gelu", mm_hidden_size=4, hidden_size=6)
    torch.manual_seed(0)
    projector = build_vision_projector(config)
    assert [type(layer).__name__ for layer in projector] == ["Linear", "GELU", "Linear", *["SimpleResBlock"] * 2]
    names = ["pre_norm.weight", "pre_norm.bias", *(f"proj.{i}.{leaf}" for i in (0, 2) for leaf in ("weight", "bias"))]
    assert [name for name in projector.state_dict() if name.startswith("4.")] == [f"4.{name}" for name in names]
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 4)
    expected = projector[2](projector[1](projector[0](x)))
    for block in (projector[3], projector[4]):
        assert isinstance(block, SimpleResBlock)
        centred = expected - expected.mean(1, keepdim=True)
        normalized = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        normalized = normalized * block.pre_norm.weight + block.pre_norm.bias
        expected = normalized + block.proj[2](torch.nn.functional.gelu(block.proj[0](normalized)))
    torch.testing.assert_close(projector(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mlp0x_gelu", "mlpx_gelu", "mlp2x_gelu2", "mlp2x_resx_gelu", "qformer"])
def test_an_unknown_projector_is_refused_by_name(kind: str) -> None:
    config = SimpleNamespace(mm_projector_type=kind, mm_hidden_size=4, hidden_size=6)
    with pytest.raises(UsageError, match=kind):
        build_vision_projector(config)
