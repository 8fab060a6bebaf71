"""A question on its way through the engine: what it is, what of it is computed, and what came out. No torch.

    position   0            start of a picture      num_computed          len(keys)
               |--------------[##########]----------------|------------------|
               keys and values lie in the blocks of table |  still to be run |

``keys`` begin with the prompt and grow by each new token. A request whose only missing position is the newest token is
*decoding*; before that it is *prefilling*. A preempted request loses its table and begins again, and finds most of its
content still known in the pool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from llava.constants import IMAGE_TOKEN_INDEX

# A picture's place in a position key; no picture takes more positions.
_PLACE_BITS = 32
# More than any token id has.
_TOKEN_BITS = 32


class State(Enum):
    """Where a request is."""

    WAITING = "waiting"  # not begun, or preempted
    RUNNING = "running"  # has a table
    FINISHED = "finished"  # answered, cancelled or failed


@dataclass(frozen=True)
class PictureSpan:
    """A picture's positions in a prompt: ``start`` to ``stop``. Equal fingerprints mean equal features.

    ``source`` is handed through to the runner, which makes pixels of it.
    """

    start: int
    stop: int
    num_tiles: int
    fingerprint: bytes
    source: Any = field(default=None, compare=False, repr=False)

    @property
    def num_positions(self) -> int:
        return self.stop - self.start


class Copy(NamedTuple):
    """The first ``num_tokens`` positions of a block, to be copied before a request's first chunk is computed."""

    source: int
    target: int
    num_tokens: int


@dataclass(eq=False)
class Request:
    """One question and its answer so far. ``arrival`` orders requests: smaller came earlier."""

    arrival: int
    keys: list[int] = field(repr=False)
    pictures: tuple[PictureSpan, ...] = field(repr=False)
    max_new_tokens: int
    payload: Any = None  # the engine's: sampling, stream
    state: State = State.WAITING
    num_prompt: int = 0
    num_computed: int = 0
    num_published: int = 0
    table: list[int] = field(default_factory=list)
    copy: Copy | None = None  # still to be done before the first chunk; its positions count as computed
    pinned: list[PictureSpan] = field(default_factory=list)  # their features are still needed
    num_preemptions: int = 0

    def __post_init__(self) -> None:
        self.num_prompt = len(self.keys)

    @property
    def is_decoding(self) -> bool:
        """Only the newest token is missing."""
        return len(self.keys) > self.num_prompt and self.num_computed == len(self.keys) - 1

    @property
    def new_tokens(self) -> list[int]:
        return self.keys[self.num_prompt :]

    @property
    def most_tokens(self) -> int:
        """What the request can grow to."""
        return self.num_prompt + self.max_new_tokens

    def pictures_between(self, start: int, stop: int) -> list[PictureSpan]:
        """Pictures with a position from ``start`` up to ``stop``."""
        return [picture for picture in self.pictures if picture.start < stop and start < picture.stop]


def token_of(key: int) -> int:
    """The token id of a position's key; 0 for a picture's."""
    return max(key, 0) & ((1 << _TOKEN_BITS) - 1)


def fingerprint(digest: str, processing: str) -> bytes:
    """Names a picture as the model sees it: its bytes' digest and everything that decides how it is cut and scaled."""
    return hashlib.sha256(f"{digest}\n{processing}".encode()).digest()


def position_keys(
    input_ids: Sequence[int], pictures: Sequence[tuple[int, int, bytes, Any]], salt: str = ""
) -> tuple[list[int], tuple[PictureSpan, ...]]:
    """Position keys of token ids with a slot for each picture, and where the pictures lie.

    ``pictures``: (positions, tiles, fingerprint, source) of each, in the order of the slots. ``salt``: makes the first
    key, and so the whole path from the root, one that no other salt has; ``token_of`` takes it out again. A picture's
    fingerprint has to hold it too.
    """
    keys: list[int] = []
    spans: list[PictureSpan] = []
    waiting = iter(pictures)
    for token in input_ids:
        if token != IMAGE_TOKEN_INDEX:
            keys.append(token)
            continue
        num_positions, num_tiles, name, source = next(waiting)
        base = int.from_bytes(name, "big") << _PLACE_BITS
        spans.append(PictureSpan(len(keys), len(keys) + num_positions, num_tiles, name, source))
        # Below zero, where no token id is.
        keys += [-1 - (base | place) for place in range(num_positions)]
    if salt and keys and keys[0] >= 0:
        keys[0] |= int.from_bytes(hashlib.sha256(salt.encode()).digest(), "big") << _TOKEN_BITS
    return keys, tuple(spans)
