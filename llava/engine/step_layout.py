"""How the positions of a step's chunks are laid out as one row, and where they lie in the KV cache.

Shape suffixes: N positions of all chunks, C hidden size, P positions of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from llava.engine.paged import Rows
from llava.engine.request import ImageSpan, token_of
from llava.engine.scheduler import Chunk


def list_ids(chunks: Sequence[Chunk]) -> list[int]:
    """The token ids [N] of the chunks' positions; that of an image's position means nothing."""
    return [token_of(key) for chunk in chunks for key in chunk.request.keys[chunk.start : chunk.stop]]


def place_rows(chunks: Sequence[Chunk], block_tokens: int) -> tuple[Rows, torch.Tensor]:
    """Where the chunks' positions lie in the KV cache, and the int64 index [N] of each position in its request."""
    firsts = np.array([chunk.start for chunk in chunks])
    lengths = np.array([chunk.stop for chunk in chunks], dtype=np.int32)
    num_blocks = -(-lengths // block_tokens)
    tables = np.zeros((len(chunks), num_blocks.max()), dtype=np.int32)
    for table, count, chunk in zip(tables, num_blocks.tolist(), chunks, strict=True):
        table[:count] = chunk.request.table[:count]
    counts = lengths - firsts
    starts = np.concatenate([[0], counts.cumsum()])
    owners = np.repeat(np.arange(len(chunks)), counts)
    positions = np.arange(starts[-1]) + np.repeat(firsts - starts[:-1], counts)
    slots = tables[owners, positions // block_tokens].astype(np.int64) * block_tokens + positions % block_tokens
    arrays = (starts.astype(np.int32), lengths, tables, slots, positions)
    *parts, positions_N = map(torch.from_numpy, arrays)
    return Rows(*parts), positions_N


def find_after_image(chunks: Sequence[Chunk]) -> torch.Tensor | None:
    """Which of the chunks' positions are at or after the first image of their request, bool [N]; None: none are."""
    if all(chunk.stop <= chunk.request.first_image for chunk in chunks):
        return None
    after_N = np.ones(sum(chunk.stop - chunk.start for chunk in chunks), dtype=bool)
    offset = 0
    for chunk in chunks:
        after_N[offset : offset + max(0, min(chunk.stop, chunk.request.first_image) - chunk.start)] = False
        offset += chunk.stop - chunk.start
    return torch.from_numpy(after_N)


def insert_images(
    embeds_NC: torch.Tensor, chunks: Sequence[Chunk], features_of: Callable[[ImageSpan], torch.Tensor]
) -> None:
    """Puts image features into their places among the embeddings; ``features_of``: an image's positions [P, C]."""
    offset = 0
    for chunk in chunks:
        for image in chunk.request.images_between(chunk.start, chunk.stop):
            begin, end = max(chunk.start, image.start), min(chunk.stop, image.stop)
            part_PC = features_of(image)[begin - image.start : end - image.start]
            embeds_NC[offset + begin - chunk.start : offset + end - chunk.start] = part_PC.to(embeds_NC)
        offset += chunk.stop - chunk.start
