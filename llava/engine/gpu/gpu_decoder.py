"""Runs a model's decoder on a GPU: steps of decoding requests as CUDA graphs, and steps with prompts in one pass.

On any other device it computes the same, with torch in place of the kernels and calls in place of graphs: so its tests
need no GPU.

Shape suffixes: R requests with one position each, N positions, C hidden size, L positions that a token is sampled from,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch

from llava.engine import paged
from llava.engine.choose import NUM_LINES, pack_choice
from llava.engine.gpu import device_rows
from llava.engine.gpu.device_rows import DecodeRows, send, send_together
from llava.engine.gpu.fused_layers import FusedLayers
from llava.engine.gpu.gpu_fallback import find_gpu_fallback_reason
from llava.engine.gpu.joined_weights import JoinedLinear
from llava.engine.gpu.kv_blocks import BlockKVCache
from llava.engine.gpu.step_graphs import StepGraphs, choose_sizes
from llava.engine.gpu.workspace import DecodeWorkspace
from llava.engine.request import ImageSpan, Request
from llava.engine.scheduler import Chunk
from llava.engine.step_layout import find_after_image, insert_images, list_ids, place_rows
from llava.model.image_adapter import find_image_adapter
from llava.model.quantized_linear import QuantizedLinear

FeaturesOf = Callable[[ImageSpan], torch.Tensor]


class GpuDecoder:
    """Embeddings, layers, last norm and head of one model over one KV cache.

    Args:
        windows: the sliding window of each layer, in positions; None for none.
        max_running: how many requests may be decoding.
        max_positions: how many positions a request may have in a graph; longer ones run without.
        record_s: seconds that recording graphs may take.
    """

    def __init__(
        self,
        model: Any,
        cache: BlockKVCache,
        windows: Sequence[int | None],
        max_running: int,
        max_positions: int,
        record_s: float,
    ) -> None:
        self._model, self._decoder, self._cache, self._windows = model, model.get_model(), cache, windows
        self._kernels: ModuleType = cache.kernels
        self._record_s, self._max_positions = record_s, max_positions
        self.device: torch.device = model.device
        config, attention = model.config, self._decoder.layers[0].self_attn
        self._scaling: float = attention.scaling
        max_blocks = -(-max_positions // cache.block_tokens)
        self._rows = DecodeRows(max_running, max_blocks, cache.block_tokens, self.device)
        heads = (config.num_attention_heads, config.num_key_value_heads, attention.head_dim)
        self._workspace = DecodeWorkspace(max_running, *heads, self.device)
        self._logits = torch.empty(0)
        self._lines = torch.zeros(NUM_LINES, max_running, dtype=torch.float64, device=self.device)
        self._chosen = torch.zeros(3, max_running, dtype=torch.float64, device=self.device)
        self._num_rows = 0
        sizes = choose_sizes(max_running)
        self._graphs = StepGraphs(self._compute, sizes, self.device)
        self._choice_graphs = StepGraphs(self._choose, sizes, self.device)
        self._recorded_at: list[int] = []
        self._layers: FusedLayers | None = None
        self._rotary: tuple[torch.Tensor, torch.Tensor] | None = None

    @torch.inference_mode()
    def try_kernels(self) -> None:
        """Runs every kernel in the model's shapes, on nothing. Raises what Triton's compiler or the driver raises."""
        kernels, cache, config, layer = self._kernels, self._cache, self._model.config, self._decoder.layers[0]
        keys, values, head_dim = cache.keys[0], cache.values[0], cache.keys[0].shape[-1]
        num_heads, num_qkv = config.num_attention_heads, config.num_attention_heads + 2 * config.num_key_value_heads
        row, starts = (torch.zeros(num, dtype=torch.int32, device=self.device) for num in (1, 2))

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=keys.dtype, device=self.device)

        rotary = (zeros(1, head_dim), zeros(1, head_dim))
        queries = kernels.rotate_and_store(zeros(1, num_qkv * head_dim), *rotary, row, row - 1, keys, values)
        assert queries.shape == (1, num_heads, head_dim)
        for window in set(self._windows):
            places = (queries, keys, values, row[None])
            kernels.decode_attention(*places, row, self._scaling, window, self._workspace)
            for many in (queries, queries.expand(256, -1, -1).contiguous()):  # it has two shapes
                kernels.extend_attention(many, *places[1:], starts, row, self._scaling, window)
        hidden = zeros(1, config.hidden_size)
        kernels.add_rms_norm(hidden, hidden.clone(), layer.input_layernorm.weight, 1e-6)
        kernels.silu_multiply(zeros(1, 2 * config.intermediate_size))
        for module in [each for each in layer.modules() if isinstance(each, QuantizedLinear)]:
            for num_rows in (1, self._rows.max_rows):
                kernels.quantized_matmul(zeros(num_rows, module.in_features), module.quantized)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def reload(self) -> None:
        """Adopts the model's current weights, joins them, and records the graphs anew if weights are elsewhere now."""
        self.fallback_reason = find_gpu_fallback_reason(self._model)
        self._rows.clear()
        if self.fallback_reason is not None:
            self._layers = None
            self._clear_graphs()
            return
        self._layers = FusedLayers(self._decoder, self._cache, self._windows, self._kernels)
        rotary = self._make_rotary(self._max_positions)
        for table, new in zip(self._rotary or rotary, rotary, strict=True):
            table.copy_(new)  # graphs read them where they are
        self._rotary = self._rotary or rotary
        self._head = JoinedLinear.of([self._model.lm_head])
        shape = (self._rows.max_rows, self._model.lm_head.out_features)
        if self._logits.shape != shape:
            self._logits = torch.empty(shape, dtype=torch.float32, device=self.device)
        places = [tensor.data_ptr() for tensor in (*self._model.parameters(), *self._model.buffers())]
        if places != self._recorded_at:
            with torch.inference_mode():
                self._rows.place([])
                for graphs in (self._graphs, self._choice_graphs):
                    graphs.record(self._record_s / 2)
            self._recorded_at = places

    @torch.inference_mode(False)
    def _make_rotary(self, num_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """RoPE's cos and sin [P, D] of the first positions, in the model's dtype."""
        positions = torch.arange(num_positions, device=self.device)
        cos, sin = self._decoder.rotary_emb(self._decoder.norm.weight.detach(), positions[None])
        return cos[0], sin[0]

    def _clear_graphs(self) -> None:
        self._graphs.clear()
        self._choice_graphs.clear()
        self._recorded_at = []

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What runs slower than it could, and why, as sentences."""
        if self.fallback_reason is not None:
            return (f"The decoder runs through Transformers' layers, which is slower: {self.fallback_reason}.",)
        failures = {"Decoding": self._graphs.failure, "Sampling": self._choice_graphs.failure}
        slower = {part: reason for part, reason in failures.items() if reason is not None}
        return tuple(f"{part} runs without CUDA graphs, which is slower: {why}." for part, why in slower.items())

    def clear_rows(self) -> None:
        """Forgets what the device has of the requests, after a step that failed."""
        self._rows.clear()

    def can_decode(self, chunks: Sequence[Chunk]) -> bool:
        """Whether these chunks are a decoding step: one position each, of requests that fit into the rows."""
        is_short = all(chunk.stop - chunk.start == 1 and chunk.samples_token for chunk in chunks)
        return self._layers is not None and is_short and self._rows.has_room([chunk.request for chunk in chunks])

    def can_go_on(self, requests: Sequence[Request]) -> bool:
        """Whether the next step of these requests will be a decoding step, too, however many blocks they get."""
        return all(len(request.table) < self._rows.max_blocks for request in requests)

    def decode(self, chunks: Sequence[Chunk]) -> tuple[torch.Tensor, list[Request]]:
        """Float32 logits [R, V] of the chunks' requests, and these in the order of the rows.

        The logits are overwritten by the next call.
        """
        requests = self._rows.place([chunk.request for chunk in chunks])
        self._num_rows = len(requests)
        self._graphs.run(self._num_rows)
        return self._logits[: len(requests)], requests

    def choose(self, lines_PR: torch.Tensor | None) -> torch.Tensor:
        """``pack_choice`` for the requests of the last ``decode``, whose newest tokens these then are on the device.

        ``lines_PR``: on the CPU; None where all are greedy. The result is overwritten by the next step.
        """
        if lines_PR is not None:
            self._lines[:, : self._num_rows] = send(lines_PR, self.device)
            self._choice_graphs.run(self._num_rows)
        return self._chosen[:, : self._num_rows]

    def _choose(self, num_rows: int) -> None:
        """Replaces the greedy choice of the first rows by that of their sampling parameters, at fixed addresses."""
        self._keep(pack_choice(self._logits[:num_rows], self._lines[:, :num_rows]))

    def _keep(self, chosen: torch.Tensor) -> None:
        num_rows = chosen.shape[1]
        self._chosen[:, :num_rows] = chosen
        self._rows.tokens[:num_rows] = chosen[0].long()

    def _compute(self, num_rows: int) -> None:
        """A decoding step at fixed addresses: from the packet to the logits and the likeliest tokens."""
        assert self._layers is not None
        rows = self._rows
        rows.update_tables()
        embeds_RC = self._decoder.embed_tokens(rows.read_tokens(num_rows))
        lengths, slots = rows.read(device_rows.LENGTH, num_rows), rows.read(device_rows.SLOT, num_rows)
        tables = rows.tables(num_rows)

        def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int | None) -> torch.Tensor:
            return self._kernels.decode_attention(
                queries, keys, values, tables, lengths, self._scaling, window, self._workspace
            )

        positions = (lengths - 1).clamp(min=0)
        assert self._rotary is not None
        normed_RC = self._layers.run(embeds_RC, self._rotary, positions, slots, attend)
        self._logits[:num_rows].copy_(self._layers.multiply(normed_RC, self._head))
        self._keep(pack_choice(self._logits[:num_rows], None))

    def extend(self, chunks: Sequence[Chunk], features_of: FeaturesOf) -> torch.Tensor:
        """Float32 logits [L, V] of the chunks that sample a token, of any numbers of positions, in one pass.

        ``features_of``: the positions [P, C] of an image.
        """
        ids_N, positions_N, last_L, rows = self._send(chunks)
        embeds_NC = self._decoder.embed_tokens(ids_N)
        insert_images(embeds_NC, chunks, features_of)
        if self._layers is None:
            step = paged.PagedStep(self._cache, rows)
            is_adapted_N = find_after_image(chunks) if find_image_adapter(self._model) else None
            hidden_NC = paged.run_layers(self._decoder, embeds_NC, positions_N, step, is_adapted_N)
            return self._model.lm_head(self._decoder.norm(hidden_NC[last_L])).float()

        def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int | None) -> torch.Tensor:
            places = (rows.tables, rows.starts, rows.lengths)
            return self._kernels.extend_attention(queries, keys, values, *places, self._scaling, window)

        most = max(chunk.stop for chunk in chunks)
        rotary = self._rotary if most <= self._max_positions else self._make_rotary(most)
        assert rotary is not None
        normed_LC = self._layers.run(embeds_NC, rotary, positions_N, rows.slots, attend, last_L)
        return self._layers.multiply(normed_LC, self._head).float()

    def _send(self, chunks: Sequence[Chunk]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, paged.Rows]:
        """Ids [N], positions [N], the indices of those that a token is sampled from [L], and the rows: in one copy."""
        assert not any(chunk.request.is_pending for chunk in chunks), "only the device has a token of it"
        rows, positions_N = place_rows(chunks, self._cache.block_tokens)
        last = [i for i, chunk in zip((rows.starts[1:] - 1).tolist(), chunks, strict=True) if chunk.samples_token]
        parts = [
            *map(torch.tensor, (list_ids(chunks), last)),
            positions_N,
            rows.starts,
            rows.lengths,
            rows.tables,
            rows.slots,
        ]
        on_device = send_together(parts, self.device)
        return on_device[0], on_device[2], on_device[1].long(), paged.Rows(*on_device[3:])
