"""EfficientNet-lite: its layout, TensorFlow's padding, and batch norms folded into convolutions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from llava.model.lexical.cell_colours import average_colours, contrast_colours
from llava.model.lexical.efficientnet_lite import (
    BATCH_NORM_EPSILON,
    BATCH_NORMS,
    PIXEL_MEAN,
    PIXEL_SCALE,
    SIZES,
    EfficientNetLite,
    InvertedBottleneck,
    SameConv,
    average_cells,
    find_size,
    fold_batch_norms,
    pad_same,
)


@pytest.fixture(scope="module")
def net() -> EfficientNetLite:
    torch.manual_seed(0)
    return EfficientNetLite().eval()


def _release(net: EfficientNetLite) -> dict[str, torch.Tensor]:
    """A state dict as the released file has it: convolutions without bias, and batch norms of random statistics."""
    released = {name: value.clone() for name, value in net._fc.state_dict(prefix="_fc.").items()}
    for name, weight in net.state_dict().items():
        path, _, kind = name.rpartition(".")
        if kind != "weight" or path == "_fc":
            continue
        block, _, conv = path.rpartition(".")
        norm = f"{block}.{BATCH_NORMS[conv]}" if block else BATCH_NORMS[conv]
        released[name] = weight
        for moment in ("weight", "bias", "running_mean", "running_var"):
            released[f"{norm}.{moment}"] = torch.rand(len(weight)) + 0.5
        released[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    return released


def test_an_image_becomes_pooled_features_logits_and_a_map_of_one_position_for_32_px(net: EfficientNetLite) -> None:
    seen = net(torch.rand(2, 3, 96, 64))
    assert seen.map_TCHW.shape == (2, 1280, 3, 2)
    assert seen.features_TC.shape == (2, 1280)
    assert seen.logits_TC.shape == (2, 1000)
    torch.testing.assert_close(seen.features_TC, seen.map_TCHW.mean((2, 3)))
    torch.testing.assert_close(seen.logits_TC, net.classify(seen.features_TC))
    assert float(seen.map_TCHW.min()) >= 0
    assert float(seen.map_TCHW.max()) <= 6


def test_the_blocks_have_the_names_and_sizes_of_the_released_weights(net: EfficientNetLite) -> None:
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items() if name.endswith("weight")}
    assert sum(name.startswith("_blocks.") for name in shapes) == 3 * 16 - 1
    assert "_blocks.0._expand_conv.weight" not in shapes
    assert shapes["_blocks.3._depthwise_conv.weight"] == (144, 1, 5, 5)
    assert shapes["_blocks.11._project_conv.weight"] == (192, 672, 1, 1)
    assert shapes["_conv_stem.weight"] == (32, 3, 3, 3)
    assert shapes["_conv_head.weight"] == (1280, 320, 1, 1)
    assert sum(value.numel() for value in net.state_dict().values()) == 4_652_008 - 21_008


def test_the_larger_size_has_the_blocks_and_sizes_of_the_released_weights() -> None:
    net = EfficientNetLite("lite2")
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items() if name.endswith("weight")}
    assert sum(name.startswith("_blocks.") for name in shapes) == 3 * 21 - 1
    assert shapes["_blocks.1._expand_conv.weight"] == (96, 16, 1, 1)  # 16 * 1.1 rounds to 16
    assert shapes["_blocks.20._project_conv.weight"] == (352, 1248, 1, 1)
    assert shapes["_conv_stem.weight"] == (32, 3, 3, 3)
    assert shapes["_conv_head.weight"] == (1280, 352, 1, 1)
    assert sum(value.numel() for value in net.state_dict().values()) == 6_092_072 - 29_048


@pytest.mark.parametrize("size", SIZES)
def test_released_weights_tell_their_size(size: str, tmp_path: Path) -> None:
    net = EfficientNetLite(size)
    torch.save(_release(net), tmp_path / "released.pth")
    read = EfficientNetLite.from_released(tmp_path / "released.pth")
    assert {name: v.shape for name, v in read.state_dict().items()} == {n: v.shape for n, v in net.state_dict().items()}
    assert find_size(read.state_dict()) == size


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="of no EfficientNet-lite: its sizes are lite0, lite1"):
        find_size({"_fc.weight": torch.zeros(3)})


def test_padding_at_stride_two_goes_right_and_below() -> None:
    conv = SameConv(1, 1, 3, stride=2)
    with torch.no_grad():
        conv.weight.fill_(1)
        conv.bias.zero_()
    assert conv(torch.ones(1, 1, 4, 4)).squeeze().tolist() == [[9, 6], [6, 4]]
    assert pad_same(torch.ones(1, 1, 8, 8), 5, 2).shape == (1, 1, 11, 11)
    assert pad_same(torch.ones(1, 1, 8, 8), 5, 2)[0, 0, 0, 0] == 0  # one of the three before, two after


def test_a_block_computed_by_hand() -> None:
    block = InvertedBottleneck(kernel=3, stride=1, expansion=2, inputs=1, outputs=1)
    with torch.no_grad():
        block._expand_conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        block._expand_conv.bias.copy_(torch.tensor([0.0, 10.0]))  # 10 - x is cut to 6
        block._depthwise_conv.weight.zero_()
        block._depthwise_conv.weight[:, 0, 1, 2] = 1  # each position takes its right neighbour
        block._depthwise_conv.bias.zero_()
        block._project_conv.weight.copy_(torch.tensor([2.0, 0.5]).view(1, 2, 1, 1))
        block._project_conv.bias.fill_(1)
        row = block(torch.tensor([[[[1.0, 2.0, 3.0]]]]))
    # 2 x right + .5 x 6 + 1, and at the end, where the right neighbour is padding, 1; plus the skip connection.
    assert row.flatten().tolist() == [1 + 8, 2 + 10, 3 + 1]


def test_folded_batch_norms_give_what_batch_norms_give(net: EfficientNetLite) -> None:
    released = _release(net)
    folded = fold_batch_norms(released)
    assert folded.keys() == net.state_dict().keys()
    pixels = torch.rand(1, 3, 32, 32)
    conv = SameConv(3, 32, 3, stride=2)
    conv.load_state_dict({kind: folded[f"_conv_stem.{kind}"] for kind in ("weight", "bias")})
    plain = F.conv2d(pad_same(pixels, 3, 2), released["_conv_stem.weight"], stride=2)
    moments = (released[f"_bn0.{moment}"] for moment in ("running_mean", "running_var", "weight", "bias"))
    expected = F.batch_norm(plain, *moments, eps=BATCH_NORM_EPSILON)
    torch.testing.assert_close(conv(pixels), expected, atol=1e-5, rtol=1e-5)


def test_pixels_are_scaled_as_in_training() -> None:
    eight_bit = torch.tensor([0.0, 127.0, 255.0])
    torch.testing.assert_close((eight_bit / 255 - PIXEL_MEAN) * PIXEL_SCALE, (eight_bit - 127) / 128)


def test_cells_are_averages_row_by_row() -> None:
    rows, columns = torch.arange(9.0)[:, None].expand(9, 9), torch.arange(9.0)[None].expand(9, 9)
    cells = average_cells(torch.stack([rows, columns])[None])
    assert cells.shape == (1, 9, 2)
    assert cells[0, :, 0].tolist() == [1, 1, 1, 4, 4, 4, 7, 7, 7]
    assert cells[0, :, 1].tolist() == [1, 4, 7] * 3


def test_contrast_colours_show_the_thing_and_not_its_ground() -> None:
    image = torch.ones(1, 3, 90, 90)
    image[:, :, 30:60, 65:80] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    mean, contrast = average_colours(image), contrast_colours(image)
    assert mean.shape == contrast.shape == (1, 10, 3)
    torch.testing.assert_close(mean[0, 6], torch.tensor([1.0, 0.5, 0.5]))  # the cell right of the middle
    assert float(contrast[0, 6, 1]) < 0.01
    assert float(contrast[0, 0, 1]) < 0.05
    torch.testing.assert_close(contrast[0, 1], torch.ones(3))  # only ground
