"""A request on its way through the engine: its position keys, its block table, and how far it is computed. No torch.

    position   0            start of an image       num_computed          len(keys)
               |--------------[##########]----------------|------------------|
               the KV cache holds these, in table's blocks|  still to be run |

``keys`` starts as the prompt and grows by each new token. A request is *decoding* when only its newest token is still
to be run, and *prefilling* before that. A preempted request loses its block table and starts over; most of its prefix
is then still cached.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from llava.constants import IMAGE_TOKEN_INDEX
from llava.image.geometry import TilePlan

# Bits for a position's index within its image in a position key; no image takes more positions.
_INDEX_BITS = 32
# More bits than any token id has.
_TOKEN_BITS = 32


class State(Enum):
    """Where a request is in its life."""

    WAITING = "waiting"  # not admitted yet, or preempted
    RUNNING = "running"  # has a block table
    FINISHED = "finished"  # answered, cancelled or failed


@dataclass(frozen=True)
class ImageSpan:
    """An image's positions in a prompt, from ``start`` up to ``stop``. Equal fingerprints mean equal features.

    The runner makes pixels of ``source`` and merges their features, both by ``plan``.
    """

    start: int
    plan: TilePlan
    fingerprint: bytes
    source: Any = field(default=None, compare=False, repr=False)

    @property
    def num_positions(self) -> int:
        """How many positions of the prompt the image takes."""
        return self.plan.num_positions

    @property
    def stop(self) -> int:
        """The first position after the image."""
        return self.start + self.num_positions

    @property
    def num_tiles(self) -> int:
        """How many tiles of the image the vision tower encodes: none where its features came with the question."""
        return 0 if self.plan.counted is not None else self.plan.num_tiles


class Copy(NamedTuple):
    """A block copy, due before a request's first chunk: the first ``num_tokens`` positions of block ``source``."""

    source: int
    target: int
    num_tokens: int


@dataclass(eq=False)
class Request:
    """One question and its answer so far. ``arrival`` orders requests: a smaller number arrived earlier."""

    arrival: int
    keys: list[int] = field(repr=False)
    images: tuple[ImageSpan, ...] = field(repr=False)
    max_new_tokens: int
    payload: Any = None  # the engine's: sampler, stream
    state: State = State.WAITING
    num_prompt: int = 0
    num_computed: int = 0
    num_inserted: int = 0  # blocks of the table that are in the prefix tree
    table: array[int] = field(default_factory=lambda: array("i"))  # whose bytes the runner copies
    copy: Copy | None = None  # pending until the first chunk; its positions already count as computed
    pinned: list[ImageSpan] = field(default_factory=list)  # images whose features are still needed
    num_preemptions: int = 0
    is_pending: bool = False  # the newest key is a placeholder for a sampled token that has not been read yet

    def __post_init__(self) -> None:
        self.num_prompt = len(self.keys)

    @property
    def is_decoding(self) -> bool:
        """Whether only the newest token is still to be run."""
        return len(self.keys) > self.num_prompt and self.num_computed == len(self.keys) - 1

    @property
    def new_tokens(self) -> list[int]:
        """The ids of the answer so far."""
        return self.keys[self.num_prompt :]

    @property
    def max_tokens(self) -> int:
        """How many tokens the request can grow to, prompt and answer together."""
        return self.num_prompt + self.max_new_tokens

    @property
    def first_image(self) -> int:
        """The position where its first image starts, from which an image adapter is active; past its end if none."""
        return self.images[0].start if self.images else self.max_tokens

    def images_between(self, start: int, stop: int) -> list[ImageSpan]:
        """The images with at least one position in ``start`` up to ``stop``."""
        return [image for image in self.images if image.start < stop and start < image.stop]


def token_of(key: int) -> int:
    """The token id of a position key; 0 for a position of an image."""
    return max(key, 0) & ((1 << _TOKEN_BITS) - 1)


def fingerprint(digest: str, processing: str) -> bytes:
    """Identifies an image as the model sees it: a hash of its bytes' digest and of how it is cut and scaled."""
    return hashlib.sha256(f"{digest}\n{processing}".encode()).digest()


def position_keys(
    input_ids: Sequence[int], images: Sequence[tuple[TilePlan, bytes, Any]], salt: str = ""
) -> tuple[list[int], tuple[ImageSpan, ...]]:
    """The position keys of token ids that have one slot per image, and the span of each image.

    ``images``: (plan, fingerprint, source) of each, in the order of the slots. ``salt``: limits prefix sharing to
    requests with the same salt, because it changes the first key and so the whole path from the root; ``token_of``
    removes it. The images' fingerprints have to include it too.
    """
    keys: list[int] = []
    spans: list[ImageSpan] = []
    remaining = iter(images)
    for token in input_ids:
        if token != IMAGE_TOKEN_INDEX:
            keys.append(token)
            continue
        plan, name, source = next(remaining)
        base = int.from_bytes(name, "big") << _INDEX_BITS
        spans.append(ImageSpan(len(keys), plan, name, source))
        # Negative, so that it never equals a token id.
        keys += [-1 - (base | index) for index in range(plan.num_positions)]
    if salt and keys and keys[0] >= 0:
        keys[0] |= int.from_bytes(hashlib.sha256(salt.encode()).digest(), "big") << _TOKEN_BITS
    return keys, tuple(spans)
