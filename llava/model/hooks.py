"""Who watches or changes a module: what every shortcut around a module's own call has to ask first.

Transformers' own hooks, which record hidden states and attentions, are told apart from everybody else's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_modules

_KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Transformers leaves its own hooks on the layers after the first call with output_hidden_states; they do nothing in
# any other call. The model that they were put on has the flag.
_IDLE = "transformers.utils.output_capturing"
_HAS_RECORDERS = "_output_capturing_hooks_installed"


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


def has_recorders(model: nn.Module) -> bool:
    """Whether Transformers has put its recorders on this model."""
    return bool(vars(model).get(_HAS_RECORDERS))


def remove_recorders(model: nn.Module) -> None:
    """Takes Transformers' recorders off the model and its parts; the next call that needs them puts them back."""
    for module in model.modules():
        values = vars(module)
        hooks = values["_forward_hooks"]
        for key in [key for key, hook in hooks.items() if getattr(hook, "__module__", None) == _IDLE]:
            del hooks[key]
        values.pop(_HAS_RECORDERS, None)


class Picklable:
    """Mixed into a module, lets it be pickled after a call with ``output_hidden_states``.

    The recorders that such a call leaves behind are functions inside functions, which no pickle holds.
    """

    def __getstate__(self) -> dict[str, Any]:
        remove_recorders(self)  # type: ignore[arg-type]
        return dict(vars(self))
