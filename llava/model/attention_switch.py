"""Switches a model's attention implementation during a call: to the engine's paged attention, or to eager.

The implementation is a value of the model's configuration, which all threads share. Calls that need the same
implementation may run at once; a call that needs another one waits for them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from llava.model.recorders import Picklable, has_recorders, remove_recorders

_changed = threading.Condition()


@dataclass
class _Switch:
    implementation: str
    usual: Any
    threads: list[int] = field(default_factory=list)  # one entry for each call in progress


_switches: dict[int, _Switch] = {}


@contextmanager
def use_attention(config: Any, implementation: str) -> Iterator[None]:
    """A context in which the layers of this configuration call ``implementation``; afterwards it is restored.

    Entering waits while other threads use another implementation; a nested call does not wait for its own thread.
    """
    me, key = threading.get_ident(), id(config)
    with _changed:
        _changed.wait_for(
            lambda: (
                key not in _switches or _switches[key].implementation == implementation or me in _switches[key].threads
            )
        )
        outer = _switches.get(key)
        if outer is None or outer.implementation != implementation:
            _switches[key] = _Switch(implementation, config._attn_implementation)
        switch = _switches[key]
        switch.threads.append(me)
        config._attn_implementation = implementation
    try:
        yield
    finally:
        with _changed:
            switch.threads.remove(me)
            if not switch.threads:
                config._attn_implementation = switch.usual
                if outer is None or outer is switch:
                    _switches.pop(key, None)
                else:
                    _switches[key] = outer
            _changed.notify_all()


def showing_attention(config: Any, asked: bool | None) -> Any:
    """A context in which a call that needs attention weights gets them, by running eager attention.

    SDPA and flash attention do not compute the weights, and Transformers would return an empty tuple. ``asked``: the
    call's ``output_attentions``; None is the configuration's value.
    """
    wanted = getattr(config, "output_attentions", False) if asked is None else asked
    is_eager_for_good = config._attn_implementation == "eager" and id(config) not in _switches
    if not wanted or is_eager_for_good:
        return nullcontext()
    return use_attention(config, "eager")


class ShowsAttention(Picklable):
    """A mixin for models: every call with ``output_attentions`` returns the weights.

    It wraps ``__call__`` and not ``forward``, so a replaced ``forward`` is still recognized as replaced.
    """

    config: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        asked = (kwargs.get(name) for name in ("output_hidden_states", "output_attentions"))
        if any(asked) and not has_recorders(self):  # type: ignore[arg-type]
            # Otherwise Transformers adds recorders to a tower inside that has some already, and each hidden state is
            # returned twice.
            remove_recorders(self)  # type: ignore[arg-type]
        with showing_attention(self.config, kwargs.get("output_attentions")):
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
