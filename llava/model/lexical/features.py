"""How a lexical tower's features are laid out: one row for each position of an image.

    column   0      1                2      3 ...                                  last 3
    thing    1      its slot         0      EfficientNet's features, class logits  mean RGB, 0 to 1
    word     0      id // 256        id % 256    0 ...

The slots 0 to 5 are the whole image, six times the same look; 6 to 14 are the cells of a 3x3 grid, row by row. Words
come after all things. Token ids are two digits because every 16-bit float holds these exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from llava.errors import CheckpointError

NUM_LABELS = 3  # the columns before a look
BASE = 256


class Seen(NamedTuple):
    """Features that were taken apart. Things are in the order of their rows, and so are words."""

    is_word: torch.Tensor  # bool, of each row
    slots: torch.Tensor  # of each thing
    looks: torch.Tensor  # of each thing [things, D - 3]
    token_ids: torch.Tensor  # of each word


def lay_out(looks: torch.Tensor, token_ids: Sequence[int]) -> torch.Tensor:
    """Features [things + words, D], float32 on the CPU. ``looks``: one for each slot, [things, D - 3]."""
    num_things = len(looks)
    rows = torch.zeros(num_things + len(token_ids), NUM_LABELS + looks.shape[1])
    rows[:num_things, 0] = 1
    rows[:num_things, 1] = torch.arange(num_things, dtype=torch.float32)
    rows[:num_things, NUM_LABELS:] = looks
    ids = torch.tensor(token_ids, dtype=torch.long)
    rows[num_things:, 1], rows[num_things:, 2] = ids // BASE, ids % BASE
    return rows


def read_features(features_ND: torch.Tensor) -> Seen:
    """What ``lay_out`` put together."""
    is_word = features_ND[:, 0] < 0.5
    labels = features_ND[:, :NUM_LABELS].round().long()
    things, words = labels[~is_word], labels[is_word]
    return Seen(is_word, things[:, 1], features_ND[~is_word, NUM_LABELS:], words[:, 1] * BASE + words[:, 2])


def check_tokenizer(num_tokens: int) -> None:
    """Raises CheckpointError for more tokens than two digits can count."""
    if num_tokens > BASE**2:
        raise CheckpointError(f"The tokenizer has {num_tokens} tokens, but a lexical tower can name only {BASE**2}.")
