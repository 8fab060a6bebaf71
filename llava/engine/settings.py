"""The settings of an engine. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from llava.errors import UsageError

Arithmetic = Literal["exact", "int8"]


@dataclass(frozen=True)
class EngineSettings:
    """How an engine runs its model. Raises UsageError for a value out of range.

    Attributes:
        memory_bytes: the size of the KV cache; None is half of the free memory, at most 16 contexts.
        max_running: requests that run together, at least 1.
        max_waiting: requests that may wait in addition; one more is refused.
        stall_s: seconds that each waiting prompt may delay the next token of the requests that are decoding, eight
            prompts' worth at most. A single tile or 16 positions may take longer.
        block_tokens: positions in a block of the KV cache, at least 1.
        max_step_positions: positions in a step that delays nobody; bounds the memory of activations.
        arithmetic: "exact", or "int8": prompts' products with 8-bit or 4-bit matrices are computed in 8-bit integers,
            several times faster, where the compiled library runs.
        record_s: seconds at the start, and after weights were replaced, that recording CUDA graphs may take; the last
            one that is begun in time is finished. 0 is none.
    """

    memory_bytes: int | None = None
    max_running: int = 64
    max_waiting: int = 1024
    stall_s: float = 0.25
    block_tokens: int = 16
    max_step_positions: int = 4096
    arithmetic: Arithmetic = "exact"
    record_s: float = 3.0

    def __post_init__(self) -> None:
        for name, least in (("max_running", 1), ("max_waiting", 0), ("block_tokens", 1), ("max_step_positions", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; it has to be at least {least}.")
        for name in ("stall_s", "record_s"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it has to be at least 0.")
        if self.arithmetic not in ("exact", "int8"):
            raise UsageError(f"arithmetic is {self.arithmetic!r}; it has to be 'exact' or 'int8'.")

    def find_conflict(self, asked: EngineSettings, names: set[str]) -> str | None:
        """The first of the fields ``names`` in which ``asked`` contradicts these settings, as a sentence; or None.

        A value of None asks for nothing.
        """
        for one in fields(self):
            mine, wanted = getattr(self, one.name), getattr(asked, one.name)
            if one.name in names and wanted is not None and wanted != mine:
                shown = "its default" if mine is None else repr(mine)
                return f"{one.name} is {wanted!r}, but the model already runs with {shown}"
        return None
