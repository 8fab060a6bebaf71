"""Another attention for the length of a call: for the engine's blocks, and for whoever asks for attention weights.

Which function a layer calls is a value of the model's configuration, which all threads share. So two calls that want
the same one may run at once, and a call that wants another one waits for them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from llava.model.hooks import Picklable, has_recorders, remove_recorders

_changed = threading.Condition()


@dataclass
class _Switch:
    implementation: str
    usual: Any
    threads: list[int] = field(default_factory=list)  # one entry for each call that is inside


_switches: dict[int, _Switch] = {}


@contextmanager
def use_attention(config: Any, implementation: str) -> Iterator[None]:
    """Lets the layers of this configuration call ``implementation``, and sets back what they called before.

    Waits while other threads use another one; a call inside a call does not wait for its own thread.
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
    """A context in which ``output_attentions`` gives attention weights, where they are asked for.

    SDPA and flash attention never make the weights, and Transformers then returns an empty tuple: such a call runs
    eager. ``asked``: the call's ``output_attentions``; None is what the configuration says.
    """
    wanted = getattr(config, "output_attentions", False) if asked is None else asked
    is_eager_for_good = config._attn_implementation == "eager" and id(config) not in _switches
    if not wanted or is_eager_for_good:
        return nullcontext()
    return use_attention(config, "eager")


class ShowsAttention(Picklable):
    """Mixed into a model, lets every call of it with ``output_attentions`` give the weights.

    It is the call and not ``forward`` that is changed, so a ``forward`` that somebody replaced is found as it is.
    """

    config: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        asked = (kwargs.get(name) for name in ("output_hidden_states", "output_attentions"))
        if any(asked) and not has_recorders(self):  # type: ignore[arg-type]
            # Transformers would put recorders on a tower inside that has some already, which then gives each state
            # twice.
            remove_recorders(self)  # type: ignore[arg-type]
        with showing_attention(self.config, kwargs.get("output_attentions")):
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
