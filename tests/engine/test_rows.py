"""Where the positions of a step lie: tables, slots and lengths, computed for all requests at once."""

from __future__ import annotations

import random
from array import array

import torch

from llava.engine.request import Request
from llava.engine.runner import place_rows
from llava.engine.scheduler import Chunk


def make_chunk(rng: random.Random, block_tokens: int, is_decoding: bool) -> Chunk:
    """A chunk of a request with blocks in any order, and more of them than the chunk needs."""
    length = rng.randint(1, 70)
    request = Request(0, [5] * length, (), 4)
    start = length - 1 if is_decoding else rng.randrange(length)
    stop = length if is_decoding else rng.randint(start + 1, length)
    request.table = array("i", rng.sample(range(200), -(-length // block_tokens) + rng.randrange(3)))
    return Chunk(request, start, stop)


def test_each_position_gets_the_slot_that_its_block_table_says() -> None:
    rng = random.Random(5)
    for _ in range(200):
        block_tokens = rng.choice([1, 3, 16])
        chunks = [make_chunk(rng, block_tokens, rng.random() < 0.5) for _ in range(rng.randint(1, 8))]
        rows, positions = place_rows(chunks, block_tokens)
        expected = [(chunk, position) for chunk in chunks for position in range(chunk.start, chunk.stop)]
        assert positions.tolist() == [position for _, position in expected]
        assert rows.slots.tolist() == [
            chunk.request.table[position // block_tokens] * block_tokens + position % block_tokens
            for chunk, position in expected
        ]
        assert rows.lengths.tolist() == [chunk.stop for chunk in chunks]
        sizes = [chunk.stop - chunk.start for chunk in chunks]
        assert rows.starts.tolist() == [sum(sizes[:i]) for i in range(len(chunks) + 1)]
        for table, chunk in zip(rows.tables.tolist(), chunks, strict=True):
            needed = chunk.request.table[: -(-chunk.stop // block_tokens)].tolist()
            assert table == needed + [0] * (rows.tables.shape[1] - len(needed))
        assert {rows.starts.dtype, rows.lengths.dtype, rows.tables.dtype} == {torch.int32}
        assert {rows.slots.dtype, positions.dtype} == {torch.int64}
        assert all(part.is_contiguous() for part in (rows.starts, rows.lengths, rows.tables, rows.slots))
