"""Packed weights of the tower made trainable again: each convolution gets back the batch norm merged into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

_CROPS = "crops."


def read_crops(path: Path) -> dict[str, Tensor]:
    """The tensors of the reader of crops in a ``LineReader``'s safetensors file."""
    return {name.removeprefix(_CROPS): value for name, value in load_file(path).items() if name.startswith(_CROPS)}


def load_fused(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads weights without batch norms; the norms add the convolutions' summands and do nothing else in evaluation."""
    state = {name: value.float() for name, value in tensors.items()}
    for name, norm in _norms(network).items():
        conv = name.removesuffix("_norm") if name.endswith("_norm") else f"{name.removesuffix('norm')}conv"
        state[f"{name}.bias"] = state.pop(f"{conv}.bias")
        state[f"{name}.weight"] = torch.full_like(norm.weight, (1 + norm.eps) ** 0.5)
        state[f"{name}.running_mean"] = torch.zeros_like(norm.bias)
        state[f"{name}.running_var"] = torch.ones_like(norm.bias)
        state[f"{name}.num_batches_tracked"] = torch.tensor(0)
    network.load_state_dict(state)


def learn_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Gives norms as ``load_fused`` leaves them the statistics of their inputs; in evaluation it says the same.

    Trained with a batch's own statistics, it then starts from about what it said before.
    """
    norms = _norms(network)
    sums: dict[str, list[Tensor]] = {name: [] for name in norms}
    hooks = [
        norm.register_forward_pre_hook(lambda _, inputs, name=name: sums[name].append(_moments(inputs[0])))
        for name, norm in norms.items()
    ]
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for batch in batches:
            network(batch)
        for name, norm in norms.items():
            mean, square = torch.stack(sums[name]).mean(0)
            norm.running_mean, norm.running_var = mean, (square - mean.square()).clamp(min=0)
            norm.weight.copy_((norm.running_var + norm.eps).sqrt())
            norm.bias.add_(mean)
    for hook in hooks:
        hook.remove()
    network.train(was_training)


def _norms(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}


def _moments(x_NCHW: Tensor) -> Tensor:
    return torch.stack((x_NCHW.mean((0, 2, 3)), x_NCHW.square().mean((0, 2, 3))))
