"""Transformers' recorders: the forward hooks that it puts on a model for ``output_hidden_states`` and attentions.

They stay on the modules after the first such call and do nothing in other calls, so they do not count as hooks of the
user's (``replacements.has_hook``). They are local functions, which cannot be pickled.

Source: transformers 5.23 utils/output_capturing.py.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_HOME = "transformers.utils.output_capturing"
# Transformers sets this flag on the model that it put its recorders on.
_FLAG = "_output_capturing_hooks_installed"


def is_recorder(hook: Any) -> bool:
    """Whether a forward hook is one of Transformers' recorders."""
    return getattr(hook, "__module__", None) == _HOME


def has_recorders(model: nn.Module) -> bool:
    """Whether Transformers has put its recorders on this model."""
    return bool(vars(model).get(_FLAG))


def remove_recorders(model: nn.Module) -> None:
    """Removes Transformers' recorders from the model and its parts; the next call that needs them adds them again."""
    for module in model.modules():
        values = vars(module)
        hooks = values["_forward_hooks"]
        for key in [key for key, hook in hooks.items() if is_recorder(hook)]:
            del hooks[key]
        values.pop(_FLAG, None)


class Picklable:
    """A mixin for modules: they can be pickled after a call with ``output_hidden_states``."""

    def __getstate__(self) -> dict[str, Any]:
        remove_recorders(self)  # type: ignore[arg-type]
        return dict(vars(self))
