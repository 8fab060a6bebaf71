"""Who watches or changes a module: what every shortcut around a module's own call has to ask first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_modules

_KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Transformers leaves its own hooks on the layers after the first call with output_hidden_states; they do nothing in
# any other call.
_IDLE = "transformers.utils.output_capturing"


def has_hook(modules: Iterable[nn.Module]) -> bool:
    """Whether somebody watches one of these modules, or changes what goes in or comes out."""
    return any(_is_watched(vars(module)) for module in modules)


def has_global_hook() -> bool:
    """Whether somebody watches every module there is."""
    return any(getattr(torch_modules, f"_global{kind}", None) for kind in _KINDS)


def _is_watched(values: dict[str, Any]) -> bool:
    if "forward" in values:
        return True
    found = [hook for kind in _KINDS if values.get(kind) for hook in values[kind].values()]
    return any(getattr(hook, "__module__", None) != _IDLE for hook in found)
