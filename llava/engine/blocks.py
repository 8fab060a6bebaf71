"""Which block of the KV cache holds what, and who holds it: integers only, no torch.

A block stores the keys and values of ``block_tokens`` neighbouring positions. What a position stores depends on
everything before it, so blocks with known content form a tree: a block's path from the root spells the positions that
it stores. A *position key* is an integer: a token id, or a number made of a picture's fingerprint and the position's
place in it, so that two pictures never share.

    root ── [BOS A chat] ── [#0 #1 #2] ── [#3 #4 \\n]      #i: place i of one picture
                                       └─ [#3 #4 "]        another question about it: shares two blocks, and
                                                           two positions of the third by a copy

States of a block, each block being in exactly one:

    free      no content, no holder                     taken first
    held      in the tables of one or more requests     never taken
    idle      content and no holder                     taken when nothing is free, least recently used first,
                                                        and no block before those that continue it
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llava.errors import LlavaError


class OutOfBlocks(LlavaError):
    """More blocks were asked for than are free or idle."""


@dataclass(eq=False)
class _Node:
    """A block's place in the tree; the root has index -1. ``keys`` is empty while the content is not published."""

    index: int
    keys: tuple[int, ...] = ()
    parent: _Node | None = None
    # By the first key, so that a lookup does not pass over every continuation of a common beginning.
    children: dict[int, list[_Node]] = field(default_factory=dict)
    holders: int = 0
    last_used: int = 0


class Match(NamedTuple):
    """The longest known beginning of a sequence: whole blocks, and a beginning of one more that has to be copied."""

    blocks: list[int]
    copy_from: int | None
    copy_tokens: int


class BlockPool:
    """All blocks of one KV cache.

    A table is a request's list of block indices, in the order of its positions; its owner changes it only through
    ``extend``, ``publish`` and ``release``.
    """

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks, self.block_tokens = num_blocks, block_tokens
        self._root = _Node(-1)
        self._nodes = [_Node(i) for i in range(num_blocks)]
        self._free = list(range(num_blocks - 1, -1, -1))
        self._num_idle = 0
        # (last used, index) of idle blocks that nothing continues; stale entries are passed over when they come up.
        self._leaves: list[tuple[int, int]] = []
        self._clock = 0

    @property
    def num_available(self) -> int:
        """Blocks that can be had: free and idle."""
        return len(self._free) + self._num_idle

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_tokens)

    def match(self, keys: Sequence[int]) -> Match:
        """The longest beginning of ``keys`` whose content is known. Nothing is held by this."""
        node, size = self._root, self.block_tokens
        blocks: list[int] = []
        for start in range(0, len(keys), size):
            wanted = tuple(keys[start : start + size])
            siblings = node.children.get(wanted[0], ())
            whole = next((child for child in siblings if len(wanted) == size and child.keys == wanted), None)
            if whole is None:
                lengths = {child.index: common_length(child.keys, wanted) for child in siblings}
                best = max(lengths, key=lambda index: lengths[index], default=None)
                return Match(blocks, best, 0 if best is None else lengths[best])
            blocks.append(whole.index)
            node = whole
        return Match(blocks, None, 0)

    def hold(self, blocks: Iterable[int]) -> None:
        """One more holder for each block, which has to be held or idle."""
        for index in blocks:
            node = self._nodes[index]
            assert node.holders or node.keys, f"block {index} holds nothing"
            if not node.holders:
                self._num_idle -= 1
            node.holders += 1

    def extend(self, table: list[int], num_tokens: int) -> None:
        """Adds blocks to a table until it has room for ``num_tokens``. Raises OutOfBlocks and adds none otherwise."""
        num_new = self.blocks_for(num_tokens) - len(table)
        if num_new > self.num_available:
            raise OutOfBlocks(f"{num_new} blocks are needed, but only {self.num_available} can be had.")
        for _ in range(num_new):
            index = self._free.pop() if self._free else self._evict()
            self._nodes[index].holders = 1
            table.append(index)

    def publish(
        self, table: list[int], keys: Sequence[int], num_stored: int, num_published: int, last: bool = False
    ) -> int:
        """Makes the content of a table's blocks known, where ``keys[:num_stored]`` lie; returns how many blocks are.

        ``num_published``: what this returned before for the same table (at first the number of matched blocks). With
        ``last`` a block that is full only in part becomes known too: nothing more may be written to it. Where another
        block has the same content, the table takes that one and gives its own back.
        """
        size = self.block_tokens
        num_known = self.blocks_for(num_stored) if last else num_stored // size
        if num_known <= num_published:
            return num_published
        parent = self._nodes[table[num_published - 1]] if num_published else self._root
        for place in range(num_published, num_known):
            content = tuple(keys[place * size : min((place + 1) * size, num_stored)])
            node = self._nodes[table[place]]
            siblings = parent.children.setdefault(content[0], [])
            twin = next((child for child in siblings if child.keys == content), None)
            if twin is not None:
                self.hold([twin.index])
                self._let_go(node)
                table[place] = twin.index
                parent = twin
                continue
            if len(content) < size and any(common_length(child.keys, content) == len(content) for child in siblings):
                return place  # a longer block begins with this content already
            node.keys, node.parent = content, parent
            siblings.append(node)
            parent = node
        return num_known

    def release(self, table: list[int]) -> None:
        """Ends a table: each of its blocks loses a holder; those without one become idle, or free if unpublished."""
        # The last block first: it is then the least recently used, and evicted before those it continues.
        while table:
            self._let_go(self._nodes[table.pop()])

    def release_one(self, index: int) -> None:
        """One holder less for a block that was held outside of any table."""
        self._let_go(self._nodes[index])

    def forget_all(self) -> None:
        """Makes all idle blocks free: what they hold is of no use any more."""
        while self._num_idle:
            self._free.append(self._evict())

    def audit(self, tables: Iterable[Sequence[int]], others: Iterable[int] = ()) -> None:
        """Checks every promise of this class against the tables and single blocks that are held. For tests."""
        holders = [0] * self.num_blocks
        for table in tables:
            assert len(set(table)) == len(table), "a table names a block twice"
            for index in table:
                holders[index] += 1
        for index in others:
            holders[index] += 1
        assert holders == [node.holders for node in self._nodes], "the number of holders is wrong"
        free = set(self._free)
        assert len(free) == len(self._free), "a block is free twice"
        evictable = {index for last_used, index in self._leaves if last_used == self._nodes[index].last_used}
        num_idle = 0
        for node in self._nodes:
            if node.index in free:
                assert not node.holders
                assert not node.keys
                assert not node.children
                assert node.parent is None
                continue
            assert node.holders or node.keys, f"block {node.index} is lost"
            assert len(node.keys) <= self.block_tokens
            if not node.holders:
                num_idle += 1
                assert node.children or node.index in evictable, f"idle block {node.index} can never be taken"
            if node.keys:
                assert node.parent is not None
                assert node in node.parent.children[node.keys[0]], "a parent does not know its child"
                assert node.parent.index < 0 or node.parent.holders >= node.holders, "a holder skips a block"
                assert node.parent.index < 0 or len(node.parent.keys) == self.block_tokens, "a part is continued"
            for siblings in node.children.values():
                for child in siblings:
                    assert child.parent is node
        assert num_idle == self._num_idle

    def _let_go(self, node: _Node) -> None:
        assert node.holders > 0, f"block {node.index} has no holder"
        node.holders -= 1
        if node.holders:
            return
        if not node.keys:
            self._free.append(node.index)
            return
        self._num_idle += 1
        self._clock += 1
        node.last_used = self._clock
        if not node.children:
            heapq.heappush(self._leaves, (node.last_used, node.index))
        if len(self._leaves) > 4 * self.num_blocks:  # most are stale: the same content was used again and again
            idle = (node for node in self._nodes if node.keys and not node.holders and not node.children)
            self._leaves = sorted((node.last_used, node.index) for node in idle)

    def _evict(self) -> int:
        """The least recently used idle block that nothing continues, now without content."""
        while True:
            last_used, index = heapq.heappop(self._leaves)
            node = self._nodes[index]
            if last_used == node.last_used and node.keys and not node.holders and not node.children:
                break
        parent = node.parent
        assert parent is not None
        siblings = parent.children[node.keys[0]]
        siblings.remove(node)
        if not siblings:
            del parent.children[node.keys[0]]
        node.keys, node.parent = (), None
        self._num_idle -= 1
        if parent.index >= 0 and not parent.holders and not parent.children:
            heapq.heappush(self._leaves, (parent.last_used, parent.index))
        return index


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many keys two sequences begin with together."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
