"""The decoding requests on the device: a row for each, with its block table and its newest token.

What a step needs of them goes there in one copy, the packet. A token that the device sampled itself need not be known
here yet: the packet then says in which row it is.

    packet, int32    row 0   row 1   ...  padding rows
    token            17      -1           0             -1: the newest token of row `source`, on the device
    source           0       1            0             rows move when others end
    length           1024    31           0             with the new position
    slot             8123    96           -1            where its key and value are written
    change           row, column, block                 of each table entry that changed

Rows past the last request are padding: they read and write nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llava.engine.request import Request, token_of

# The lines of the packet that have one number for each row.
_FIELDS = 4
TOKEN, SOURCE, LENGTH, SLOT = range(_FIELDS)


class DecodeRows:
    """Rows for up to ``max_rows`` decoding requests, with tables of up to ``max_blocks`` blocks."""

    def __init__(self, max_rows: int, max_blocks: int, block_tokens: int, device: torch.device) -> None:
        self.max_rows, self.max_blocks, self._block_tokens = max_rows, max_blocks, block_tokens
        self._max_changes = 2 * max_rows
        # One row more, which takes the changes that are none.
        self._tables = torch.zeros(max_rows + 1, max_blocks, dtype=torch.int32, device=device)
        self._stride = round_up(max_rows)
        self._packet = torch.zeros(_FIELDS * self._stride + 3 * self._max_changes, dtype=torch.int32, device=device)
        self.tokens = torch.zeros(max_rows, dtype=torch.long, device=device)
        self._requests: list[Request] = []
        self._known: list[Sequence[int]] = [[] for _ in range(max_rows)]  # the tables that the device has

    def clear(self) -> None:
        """Forgets what the device has of every request, after a step that may not have run as a whole."""
        self._requests = []
        self._known = [[] for _ in range(self.max_rows)]

    def has_room(self, requests: Sequence[Request]) -> bool:
        """Whether these requests fit into the rows, and their tables too."""
        return len(requests) <= self.max_rows and all(len(one.table) <= self.max_blocks for one in requests)

    def place(self, requests: Sequence[Request]) -> list[Request]:
        """The requests in the order of their rows, which are the first ones. Sends what the next step needs of them."""
        assert self.has_room(requests)
        before = {request: row for row, request in enumerate(self._requests)}
        rows = self._arrange(requests, before)
        fields = [[0] * self._stride for _ in range(_FIELDS)]
        fields[SLOT] = [-1] * self._stride
        changes: list[tuple[int, int, int]] = []
        for row, request in enumerate(rows):
            position = request.num_computed
            fields[TOKEN][row] = -1 if request.is_pending else token_of(request.keys[position])
            fields[SOURCE][row] = before.get(request, 0)
            fields[LENGTH][row] = position + 1
            block, offset = divmod(position, self._block_tokens)
            fields[SLOT][row] = request.table[block] * self._block_tokens + offset
            self._send_table(row, request.table, changes)
        self._requests = rows
        changes += [(self.max_rows, 0, 0)] * (self._max_changes - len(changes))
        lines = [*fields, *zip(*changes, strict=True)]
        packet = torch.tensor([number for line in lines for number in line], dtype=torch.int32)
        self._packet.copy_(send(packet, self._packet.device))
        return rows

    def _arrange(self, requests: Sequence[Request], before: dict[Request, int]) -> list[Request]:
        """The requests by row: each where it was, if that row is still one of the first."""
        rows: list[Request | None] = [None] * len(requests)
        new = []
        for request in requests:
            row = before.get(request, len(rows))
            if row < len(rows):
                rows[row] = request
            else:
                new.append(request)
        rest = iter(new)
        return [next(rest) if request is None else request for request in rows]

    def _send_table(self, row: int, table: Sequence[int], changes: list[tuple[int, int, int]]) -> None:
        """Adds what changed in a row's table to ``changes``, or sends the whole table if that is too much."""
        known = self._known[row]
        if known == table:
            return
        num_same = min(len(known), len(table))
        columns = [column for column in range(num_same) if known[column] != table[column]]
        columns += range(num_same, len(table))
        if len(columns) <= 2 and len(changes) + len(columns) <= self._max_changes:
            changes += [(row, column, table[column]) for column in columns]
        else:
            self._tables[row, : len(table)] = send(torch.tensor(table, dtype=torch.int32), self._tables.device)
        self._known[row] = table[:]

    # What follows runs on the device alone, inside a CUDA graph.

    def update_tables(self) -> None:
        """Makes the table changes of the packet."""
        changes = self._packet[_FIELDS * self._stride :].view(3, self._max_changes)
        rows, columns = changes[0].long(), changes[1].long()
        self._tables[rows, columns] = changes[2]

    def tables(self, num_rows: int) -> torch.Tensor:
        """The block tables of the first rows, int32 [R, max_blocks], of which only the needed ones are valid."""
        return self._tables[:num_rows]

    def read(self, field: int, num_rows: int) -> torch.Tensor:
        """A line of the packet, int32 [R]."""
        start = field * self._stride
        return self._packet[start : start + num_rows]

    def read_tokens(self, num_rows: int) -> torch.Tensor:
        """The newest token of each of the first rows, int64 [R], which the step runs."""
        given = self.read(TOKEN, num_rows).long()
        own = self.tokens[self.read(SOURCE, num_rows).long()]
        return torch.where(given >= 0, given, own)


def send(numbers: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The numbers on the device, by a copy that the host does not wait for."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers


def send_together(parts: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Tensors of integers as int32 on the device, by one copy."""
    flat = [part.flatten().to(torch.int32) for part in parts]
    padded = [torch.nn.functional.pad(part, (0, round_up(len(part)) - len(part))) for part in flat]
    sent = send(torch.cat(padded), device).split([len(part) for part in padded])
    return [there[: part.numel()].view(part.shape) for there, part in zip(sent, parts, strict=True)]


def round_up(num: int) -> int:
    """The next multiple of 16 bytes of int32: Triton compiles a kernel once more for pointers to other addresses."""
    return -(-num // 4) * 4
