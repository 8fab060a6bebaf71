"""CUDA graphs for decoding: steps padded to fixed shapes, which a GPU replays instead of launching kernel by kernel.

A step in which every request runs one position is padded to the next of a few sizes, in requests and in blocks. Each
size is captured when it is first needed and replayed from then on. On other devices the same padded step runs eagerly,
which is how its results are tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from llava.engine import paged

# Requests and blocks are padded to the next power of two, at least these.
MIN_REQUESTS, MIN_BLOCKS = 1, 16
# A step of more requests runs eagerly.
MAX_REQUESTS = 64


def is_wanted(device: torch.device) -> bool:
    """Whether decoding steps are padded to fixed shapes on this device."""
    return device.type == "cuda"


def can_capture(model: torch.nn.Module) -> bool:
    """Whether a CUDA graph can hold the model: no module synchronizes with the device, as bitsandbytes' int8 does."""
    return not any(type(module).__name__ == "Linear8bitLt" for module in model.modules())


@dataclass
class _CapturedStep:
    """The static inputs and outputs of a step of one shape, and on a GPU its graph."""

    embeds_RC: torch.Tensor
    positions_R: torch.Tensor
    rows: paged.FixedRows
    logits_RV: torch.Tensor | None = None
    graph: Any = None


class GraphDecoder:
    """Runs a model's decoding steps as CUDA graphs, over a KV cache with a block that only padding uses.

    ``padding_block``: the index of that block, which the pool never allocates.
    """

    def __init__(self, model: Any, cache: paged.KVCache, padding_block: int) -> None:
        self._model, self._cache, self._padding_block = model, cache, padding_block
        self._captured: dict[tuple[int, int], _CapturedStep] = {}
        self._pool: Any = None

    def clear(self) -> None:
        """Drops all graphs, which read the weights at the addresses they had when captured."""
        self._captured.clear()

    @torch.inference_mode()
    def run(self, embeds_RC: torch.Tensor, positions_R: torch.Tensor, rows: paged.Rows) -> torch.Tensor:
        """Float32 logits [R, V] of the next tokens of R requests, each with one new position."""
        num = len(embeds_RC)
        shape = (_round_up(num, MIN_REQUESTS), _round_up(rows.tables.shape[1], MIN_BLOCKS))
        step = self._captured.get(shape)
        is_new = step is None
        if step is None:
            step = self._captured[shape] = self._prepare(*shape, embeds_RC)
        # A padding row attends to itself alone, in a block that no request reads.
        step.rows.tables.fill_(self._padding_block)
        step.rows.lengths.fill_(1)
        step.rows.slots.fill_(self._padding_block * self._cache.block_tokens)
        step.positions_R.zero_()
        step.embeds_RC[:num] = embeds_RC
        step.positions_R[:num] = positions_R
        step.rows.tables[:num, : rows.tables.shape[1]] = rows.tables
        step.rows.lengths[:num] = rows.lengths
        step.rows.slots[:num] = rows.slots
        if step.graph is not None:
            step.graph.replay()
        elif is_new and embeds_RC.device.type == "cuda":
            with torch.cuda.device(embeds_RC.device):  # streams and graphs belong to the current device
                self._capture(step)
        else:
            step.logits_RV = self._compute(step)
        assert step.logits_RV is not None
        return step.logits_RV[:num].clone()

    def _prepare(self, num_requests: int, num_blocks: int, like: torch.Tensor) -> _CapturedStep:
        device = like.device

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        rows = paged.FixedRows(zeros(num_requests, num_blocks), zeros(num_requests), zeros(num_requests))
        embeds = torch.zeros(num_requests, like.shape[1], dtype=like.dtype, device=device)
        return _CapturedStep(embeds, zeros(num_requests), rows)

    def _compute(self, step: _CapturedStep) -> torch.Tensor:
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

    def _capture(self, step: _CapturedStep) -> None:
        # A warm-up on a side stream: libraries allocate workspaces then, which is not allowed during capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._compute(step)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            step.logits_RV = self._compute(step)
        self._pool = self._pool or graph.pool()
        step.graph = graph
        graph.replay()  # capturing computes nothing


def _round_up(number: int, least: int) -> int:
    size = least
    while size < number:
        size *= 2
    return size
