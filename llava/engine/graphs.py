"""Decoding steps of fixed shapes, which a GPU replays as one recorded graph instead of launching kernel by kernel.

A step in which every request has one position is padded to the next of a few sizes, in requests and in blocks; each
size is recorded when it is first needed and replayed from then on. On other devices the same step runs unrecorded,
which is how its results are tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from llava.engine import paged

# Requests and blocks are rounded up to powers of two, from these on.
FEWEST_REQUESTS, FEWEST_BLOCKS = 1, 16
MOST_REQUESTS = 64


def is_wanted(device: torch.device) -> bool:
    """Whether decoding steps are padded to fixed shapes on this device."""
    return device.type == "cuda"


def can_be_recorded(model: torch.nn.Module) -> bool:
    """Whether nothing in the model waits for the device, as bitsandbytes' layers of 8 bits do: no graph holds that."""
    return not any(type(module).__name__ == "Linear8bitLt" for module in model.modules())


@dataclass
class _Recorded:
    """Where a step of one shape reads and writes, and its graph on a GPU."""

    embeds_RC: torch.Tensor
    positions_R: torch.Tensor
    rows: paged.FixedRows
    scores_RV: torch.Tensor | None = None
    graph: Any = None


class GraphDecoder:
    """Runs decoding steps of a model over a cache that has one block more than the pool gives out, for padding."""

    def __init__(self, model: Any, cache: paged.KVCache, spare_block: int) -> None:
        self._model, self._cache, self._spare = model, cache, spare_block
        self._recorded: dict[tuple[int, int], _Recorded] = {}
        self._pool: Any = None

    def forget(self) -> None:
        """Forgets what was recorded: a graph reads the weights from where they were."""
        self._recorded.clear()

    @torch.inference_mode()
    def run(self, embeds_RC: torch.Tensor, positions_R: torch.Tensor, rows: paged.Rows) -> torch.Tensor:
        """Float32 scores [R, V] of the next tokens of R requests with one new position each."""
        num = len(embeds_RC)
        shape = (_round_up(num, FEWEST_REQUESTS), _round_up(rows.tables.shape[1], FEWEST_BLOCKS))
        step = self._recorded.get(shape)
        is_new = step is None
        if step is None:
            step = self._recorded[shape] = self._prepare(*shape, embeds_RC)
        # What pads sees only itself, in a block that nobody reads.
        step.rows.tables.fill_(self._spare)
        step.rows.lengths.fill_(1)
        step.rows.slots.fill_(self._spare * self._cache.block_tokens)
        step.positions_R.zero_()
        step.embeds_RC[:num] = embeds_RC
        step.positions_R[:num] = positions_R
        step.rows.tables[:num, : rows.tables.shape[1]] = rows.tables
        step.rows.lengths[:num] = rows.lengths
        step.rows.slots[:num] = rows.slots
        if step.graph is not None:
            step.graph.replay()
        elif is_new and embeds_RC.device.type == "cuda":
            with torch.cuda.device(embeds_RC.device):  # streams and graphs belong to the current one
                self._record(step)
        else:
            step.scores_RV = self._compute(step)
        assert step.scores_RV is not None
        return step.scores_RV[:num].clone()

    def _prepare(self, num_requests: int, num_blocks: int, like: torch.Tensor) -> _Recorded:
        device = like.device

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        rows = paged.FixedRows(zeros(num_requests, num_blocks), zeros(num_requests), zeros(num_requests))
        embeds = torch.zeros(num_requests, like.shape[1], dtype=like.dtype, device=device)
        return _Recorded(embeds, zeros(num_requests), rows)

    def _compute(self, step: _Recorded) -> torch.Tensor:
        decoder = self._model.get_model()
        hidden, positions = step.embeds_RC[None], step.positions_R[None]
        rotary = decoder.rotary_emb(hidden, positions)
        attention = paged.PagedStep(self._cache, step.rows)
        with paged.attention_in_blocks(decoder.config):
            for layer in decoder.layers:
                hidden = layer(
                    hidden,
                    attention_mask=None,
                    position_ids=positions,
                    position_embeddings=rotary,
                    use_cache=False,
                    paged=attention,
                )
        return self._model.lm_head(decoder.norm(hidden[0])).float()

    def _record(self, step: _Recorded) -> None:
        # A first run on a side stream lets the libraries take the memory that may not be taken while recording.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._compute(step)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            step.scores_RV = self._compute(step)
        self._pool = self._pool or graph.pool()
        step.graph = graph
        graph.replay()  # recording computes nothing


def _round_up(number: int, least: int) -> int:
    size = least
    while size < number:
        size *= 2
    return size
