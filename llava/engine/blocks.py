"""Paged KV cache bookkeeping: reference-counted blocks and the prefix tree over them. Integers only, no torch.

A block stores the keys and values of ``block_tokens`` consecutive positions. What a position stores depends on every
position before it, so blocks with known content form a tree: a block's path from the root spells the positions that
it stores. A *position key* is an integer: a token id, or a number made of an image's fingerprint and the position's
index in the image, so that two different images never share a block.

    root ── [BOS A chat] ── [#0 #1 #2] ── [#3 #4 \\n]      #i: position i of an image
                                       └─ [#3 #4 "]        another question about it: shares two blocks, and
                                                           copies two positions of the third

Each block is in exactly one of three states:

    free      no content, reference count 0         allocated first
    in use    in the tables of one or more requests never evicted
    cached    content, reference count 0            evicted when no block is free, least recently used first, and
                                                    never before its children
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llava.errors import LlavaError


class OutOfBlocks(LlavaError):
    """More blocks were requested than are free or cached."""


@dataclass(eq=False)
class _Node:
    """A block's node in the prefix tree; the root has index -1. ``keys`` is empty until the content is inserted."""

    index: int
    keys: tuple[int, ...] = ()
    parent: _Node | None = None
    # Grouped by first key, so that a lookup does not scan every continuation of a common prefix.
    children: dict[int, list[_Node]] = field(default_factory=dict)
    ref_count: int = 0
    last_used: int = 0


class PrefixMatch(NamedTuple):
    """The longest cached prefix of a sequence: whole blocks, then ``copy_tokens`` positions to copy from one more."""

    blocks: list[int]
    copy_from: int | None
    copy_tokens: int


class BlockPool:
    """All blocks of one KV cache, with the prefix tree over those whose content is known.

    A block table is a request's sequence of block indices, in the order of its positions. Its owner changes it only
    through ``extend``, ``insert`` and ``release``.
    """

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks, self.block_tokens = num_blocks, block_tokens
        self._root = _Node(-1)
        self._nodes = [_Node(i) for i in range(num_blocks)]
        self._free = list(range(num_blocks - 1, -1, -1))
        self._num_cached = 0
        # An LRU heap of (last used, index) over cached blocks without children; stale entries are skipped when popped.
        self._leaves: list[tuple[int, int]] = []
        self._clock = 0

    @property
    def num_available(self) -> int:
        """How many blocks can be allocated: free and cached ones."""
        return len(self._free) + self._num_cached

    def count_blocks(self, num_tokens: int) -> int:
        """How many blocks ``num_tokens`` positions take, rounded up."""
        return -(-num_tokens // self.block_tokens)

    def lookup(self, keys: Sequence[int]) -> PrefixMatch:
        """The longest prefix of ``keys`` in the tree. Takes no references: call ``acquire`` before anything else."""
        node, size = self._root, self.block_tokens
        blocks: list[int] = []
        for start in range(0, len(keys), size):
            wanted = tuple(keys[start : start + size])
            siblings = node.children.get(wanted[0], ())
            whole = next((child for child in siblings if len(wanted) == size and child.keys == wanted), None)
            if whole is None:
                lengths = {child.index: common_prefix_length(child.keys, wanted) for child in siblings}
                best = max(lengths, key=lambda index: lengths[index], default=None)
                return PrefixMatch(blocks, best, 0 if best is None else lengths[best])
            blocks.append(whole.index)
            node = whole
        return PrefixMatch(blocks, None, 0)

    def acquire(self, blocks: Iterable[int]) -> None:
        """Adds one reference to each block, all of which must be in use or cached."""
        for index in blocks:
            node = self._nodes[index]
            assert node.ref_count or node.keys, f"block {index} is free"
            if not node.ref_count:
                self._num_cached -= 1
            node.ref_count += 1

    def extend(self, table: MutableSequence[int], num_tokens: int) -> None:
        """Allocates blocks until the table has room for ``num_tokens``, evicting cached blocks if it must.

        Raises OutOfBlocks, and then allocates nothing.
        """
        num_new = self.count_blocks(num_tokens) - len(table)
        if num_new > self.num_available:
            raise OutOfBlocks(f"{num_new} blocks are needed, but only {self.num_available} are available.")
        for _ in range(num_new):
            index = self._free.pop() if self._free else self._evict()
            self._nodes[index].ref_count = 1
            table.append(index)

    def insert(
        self, table: MutableSequence[int], keys: Sequence[int], num_stored: int, num_inserted: int, last: bool = False
    ) -> int:
        """Inserts a table's blocks, which store ``keys[:num_stored]``, into the tree; returns how many are in it now.

        ``num_inserted``: what this returned last time for the same table (at first, the number of blocks that
        ``lookup`` found). ``last``: also insert a block that is only partly full, which must never be written to again.
        Where another block already has the same content, the table takes that block and drops its own.
        """
        size = self.block_tokens
        num_known = self.count_blocks(num_stored) if last else num_stored // size
        if num_known <= num_inserted:
            return num_inserted
        parent = self._nodes[table[num_inserted - 1]] if num_inserted else self._root
        for place in range(num_inserted, num_known):
            content = tuple(keys[place * size : min((place + 1) * size, num_stored)])
            node = self._nodes[table[place]]
            siblings = parent.children.setdefault(content[0], [])
            twin = next((child for child in siblings if child.keys == content), None)
            if twin is not None:
                self.acquire([twin.index])
                self._drop_reference(node)
                table[place] = twin.index
                parent = twin
                continue
            is_covered = any(common_prefix_length(child.keys, content) == len(content) for child in siblings)
            if len(content) < size and is_covered:
                return place  # the tree has a longer block that starts with this content
            node.keys, node.parent = content, parent
            siblings.append(node)
            parent = node
        return num_known

    def release(self, table: MutableSequence[int]) -> None:
        """Empties a table and drops its references: an unreferenced block becomes cached, or free if not inserted."""
        # Last block first: it becomes the least recently used, so children are evicted before their parents.
        while table:
            self._drop_reference(self._nodes[table.pop()])

    def release_one(self, index: int) -> None:
        """Drops one reference to a block that was acquired outside any table."""
        self._drop_reference(self._nodes[index])

    def evict_all(self) -> None:
        """Evicts every cached block, because its content is no longer valid."""
        while self._num_cached:
            self._free.append(self._evict())

    def audit(self, tables: Iterable[Sequence[int]], acquired: Iterable[int] = ()) -> None:
        """Asserts every invariant of this class, given all tables and all singly acquired blocks. For tests."""
        ref_counts = [0] * self.num_blocks
        for table in tables:
            assert len(set(table)) == len(table), "a table names a block twice"
            for index in table:
                ref_counts[index] += 1
        for index in acquired:
            ref_counts[index] += 1
        assert ref_counts == [node.ref_count for node in self._nodes], "a reference count is wrong"
        free = set(self._free)
        assert len(free) == len(self._free), "a block is in the free list twice"
        evictable = {index for last_used, index in self._leaves if last_used == self._nodes[index].last_used}
        num_cached = 0
        for node in self._nodes:
            if node.index in free:
                assert not node.ref_count
                assert not node.keys
                assert not node.children
                assert node.parent is None
                continue
            assert node.ref_count or node.keys, f"block {node.index} leaked"
            assert len(node.keys) <= self.block_tokens
            if not node.ref_count:
                num_cached += 1
                assert node.children or node.index in evictable, f"cached block {node.index} can never be evicted"
            if node.keys:
                assert node.parent is not None
                assert node in node.parent.children[node.keys[0]], "a parent lacks its child"
                assert node.parent.index < 0 or node.parent.ref_count >= node.ref_count, "a table skips a block"
                is_full = node.parent.index < 0 or len(node.parent.keys) == self.block_tokens
                assert is_full, "a partial block has children"
            for siblings in node.children.values():
                for child in siblings:
                    assert child.parent is node
        assert num_cached == self._num_cached

    def _drop_reference(self, node: _Node) -> None:
        assert node.ref_count > 0, f"block {node.index} has no references"
        node.ref_count -= 1
        if node.ref_count:
            return
        if not node.keys:
            self._free.append(node.index)
            return
        self._num_cached += 1
        self._clock += 1
        node.last_used = self._clock
        if not node.children:
            heapq.heappush(self._leaves, (node.last_used, node.index))
        if len(self._leaves) > 4 * self.num_blocks:  # mostly stale entries of blocks that are reused again and again
            leaves = (node for node in self._nodes if node.keys and not node.ref_count and not node.children)
            self._leaves = sorted((node.last_used, node.index) for node in leaves)

    def _evict(self) -> int:
        """Removes the least recently used leaf of the cached blocks from the tree and returns its index."""
        while True:
            last_used, index = heapq.heappop(self._leaves)
            node = self._nodes[index]
            if last_used == node.last_used and node.keys and not node.ref_count and not node.children:
                break
        parent = node.parent
        assert parent is not None
        siblings = parent.children[node.keys[0]]
        siblings.remove(node)
        if not siblings:
            del parent.children[node.keys[0]]
        node.keys, node.parent = (), None
        self._num_cached -= 1
        if parent.index >= 0 and not parent.ref_count and not parent.children:
            heapq.heappush(self._leaves, (parent.last_used, parent.index))
        return index


def common_prefix_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading keys two sequences have in common."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
