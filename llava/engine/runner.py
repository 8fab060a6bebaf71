"""Runs one step of the model: tiles become features, positions become keys and values, last positions become logits.

The decoder layers are Transformers' own, so whatever was put into them (adapters, 8-bit matrices, research code) runs;
only their attention is replaced, by paged attention. All positions of a step go through the layers as one row.

Shape suffixes: N positions, C hidden size, L positions that a token is sampled from, V vocabulary, T tiles, P patches,
D feature size.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from llava.engine import paged
from llava.engine.fallback import find_decoder_fallback_reason, find_tower_fallback_reason
from llava.engine.feature_cache import ImageFeatureCache
from llava.engine.gpu.choice import choose_kernels
from llava.engine.gpu.device_choice import choose_now, fetch, launch_choice
from llava.engine.gpu.gpu_decoder import GpuDecoder
from llava.engine.gpu.gpu_fallback import find_device_obstacle
from llava.engine.gpu.kv_blocks import BlockKVCache
from llava.engine.launched_step import LaunchedStep
from llava.engine.native_layers import DecoderLayers, NativeLinear, TowerLayers
from llava.engine.pixel_store import PixelStore
from llava.engine.request import ImageSpan, Request
from llava.engine.sampler import Sampler, sample_all
from llava.engine.scheduler import Chunk, Step, TileChunk
from llava.engine.step_layout import find_after_image, insert_images, list_ids, place_rows
from llava.errors import UsageError
from llava.image.pixels import make_pixels
from llava.model.image_adapter import find_image_adapter
from llava.model.quantized_linear import QuantizedLinear
from llava.model.replacements import find_replacement, has_hook
from llava.native import calls

_log = logging.getLogger(__name__)

# How many tiles the vision tower encodes at once: more would take more memory and be no faster.
TILE_BATCH = 16


@dataclass
class _PartialImage:
    """An image of which some tiles are encoded: its pixels, and the features so far."""

    pixels: torch.Tensor
    parts: list[torch.Tensor]


class Runner:
    """Runs the steps of one model over one KV cache. Not thread-safe, but for ``has_new_weights``.

    Args:
        loaded: from ``load_model``.
        features: the image-feature cache, which the runner fills.
        num_blocks, block_tokens: the size of the KV cache.
        is_rounded: whether prompts' products with packed matrices are computed in 8-bit integers.
        max_running: how many requests run together at most.
        record_s: seconds that recording CUDA graphs may take.

    Raises UsageError for a model that it cannot run (``find_fallback_reason``).
    """

    def __init__(
        self,
        loaded: Any,
        features: ImageFeatureCache,
        num_blocks: int,
        block_tokens: int,
        is_rounded: bool = False,
        max_running: int = 64,
        record_s: float = 0.0,
    ) -> None:
        self.loaded, self.model = loaded, loaded.model
        self.features = features
        config = self.model.config
        if (reason := find_fallback_reason(self.model)) is not None:
            raise UsageError(f"The engine cannot run this model: {reason}.")
        self._decoder = self.model.get_model()
        self._num_blocks, self._block_tokens = num_blocks, block_tokens
        self._max_running, self._record_s = max_running, record_s
        self._layers: DecoderLayers | None = None
        self._tower: TowerLayers | None = None
        self._is_rounded, self._scratch = is_rounded, calls.ScratchBuffers()
        self._rotary: tuple[torch.Tensor, ...] | None = None
        self._pixels = PixelStore()
        self._windows = [find_window(config, layer) for layer in range(len(self._decoder.layers))]
        self._make_cache()
        self.reload()
        paged.register()

    def _make_cache(self) -> None:
        """Allocates the KV cache on the model's device and in its dtype."""
        config, first = self.model.config, self._decoder.layers[0].self_attn
        dtype, device = self._cached_in = (self.model.dtype, self.model.device)
        num_layers, num_kv_heads = len(self._decoder.layers), config.num_key_value_heads
        group, shape = config.num_attention_heads // num_kv_heads, (num_kv_heads, self._block_tokens, first.head_dim)
        self._gpu: GpuDecoder | None = None
        self._device_obstacle = find_device_obstacle(device, dtype)
        self._cache_fallback_reason = calls.find_fallback_reason(
            dtype, device, first.head_dim, group, self._block_tokens
        )
        if self._cache_fallback_reason is None:
            self.cache: paged.KVCache = paged.NativeKVCache(num_layers, self._num_blocks, *shape, dtype)
            return
        if self._device_obstacle is None:
            blocks = BlockKVCache(num_layers, self._num_blocks, *shape, dtype, device, choose_kernels(device))
            self.cache = blocks
            self._device_obstacle = self._make_gpu_decoder(blocks)
        if self._device_obstacle is not None:
            self.cache = paged.KVCache(num_layers, self._num_blocks, *shape, dtype, device)

    def _make_gpu_decoder(self, cache: BlockKVCache) -> str | None:
        """Makes the decoder of a GPU; why its kernels do not run here, or None if they do."""
        max_positions = min(self.loaded.context_tokens, self._num_blocks * self._block_tokens)
        gpu = GpuDecoder(self.model, cache, self._windows, self._max_running, max_positions, self._record_s)
        try:
            with self._on_device():
                gpu.try_kernels()
        except Exception as error:  # of the driver, or of Triton, which needs a C compiler, too
            _log.warning("The GPU kernels do not run here.", exc_info=error)
            return f"the GPU kernels do not run here: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        self._gpu = gpu
        return None

    def reload(self) -> None:
        """Adopts the model's current weights. The KV cache and image features computed before are invalid then."""
        self._weights, self._rotary = self._find_weights(), None
        if self._cached_in != (self.model.dtype, self.model.device):
            self._make_cache()
        if self._gpu is not None:
            with self._on_device():
                self._gpu.reload()
            # It moved weights, but what others do to them meanwhile must not go unnoticed.
            moved = zip(self._find_weights(), self._weights, strict=True)
            self._weights = [(place, version) for (place, _), (_, version) in moved]
        # Why the decoder falls back from the compiled library to torch; None if it does not.
        self.fallback_reason = self._cache_fallback_reason or find_decoder_fallback_reason(
            self._decoder, self.model.dtype
        )
        if self.fallback_reason is None and len(set(self._windows)) > 1:
            self.fallback_reason = "its layers have sliding windows of different lengths"
        self._has_adapter = find_image_adapter(self.model) is not None
        self._layers = None
        if self.fallback_reason is None:
            assert isinstance(self.cache, paged.NativeKVCache)
            self._layers = DecoderLayers(
                self._decoder, self.model.config, self.cache, self._windows[0], self._scratch, self._is_rounded
            )
        head = self.model.lm_head
        is_plain = type(head) in (torch.nn.Linear, QuantizedLinear) and head.bias is None and not has_hook([head])
        self._head = NativeLinear(head) if self._layers is not None and is_plain else None
        tower = self.model.get_vision_tower()
        self.tower_fallback_reason = self._cache_fallback_reason or find_tower_fallback_reason(tower)
        is_native = self.tower_fallback_reason is None
        self._tower = TowerLayers(tower, self._scratch) if is_native else None
        # A copy without weights: functional_call would swap them in the model itself, where ``has_new_weights`` looks.
        self._projector = copy.deepcopy(self._decoder.mm_projector).to("meta") if is_native else None

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Which parts run through PyTorch on a CPU instead of the native library, and why, as sentences.

        One more where 8-bit arithmetic is asked for and not used.
        """
        is_quantized = any(isinstance(module, QuantizedLinear) for module in self._decoder.layers.modules())
        exact: tuple[str, ...] = ()
        if self._is_rounded and not (is_quantized and self._layers is not None):
            needs = "the native library, which needs a CPU" if is_quantized else "a model with quantized weights (bits)"
            exact = (f"Prompts are computed exactly, since arithmetic 'int8' needs {needs}.",)
        if self._gpu is not None:
            return (*self._gpu.fallbacks, *exact)
        if self.model.device.type == "cuda":
            return (f"Attention runs through PyTorch, which is slower: {self._device_obstacle}.", *exact)
        if self.model.device.type != "cpu":  # elsewhere PyTorch is what is fast
            return exact
        reasons = {"decoder": self.fallback_reason, "vision tower": self.tower_fallback_reason}
        if getattr(self.model.get_vision_tower(), "position_range", None) is not None:
            del reasons["vision tower"]  # it is done with an image before the engine gets it
        slow = {part: reason for part, reason in reasons.items() if reason is not None}
        if len(slow) == 2 and len(set(slow.values())) == 1:
            slow = {"model": next(iter(slow.values()))}
        slower = (f"The {part} runs through PyTorch, which is slower: {reason}." for part, reason in slow.items())
        return (*slower, *exact)

    def cut_images(self, images: Sequence[ImageSpan]) -> None:
        """Makes the pixels of images that are to be encoded on a GPU, so that no answer waits for it. Thread-safe.

        An image that cannot be cut is left to the step that encodes it, which fails its requests alone.
        """
        for image in images if self._gpu is not None else ():
            if not image.num_tiles or image in self.features or image.fingerprint in self._pixels:
                continue
            try:
                self._pixels.put(image.fingerprint, self._make_pixels(image))
            except Exception as error:  # whatever Pillow raises; the step that encodes the image raises it again
                _log.debug("An image could not be cut ahead: %r.", error)

    def _make_pixels(self, image: ImageSpan) -> torch.Tensor:
        """Pixels [T, C, H, W] on the CPU; for a GPU in the model's dtype, where a copy to it does not block."""
        pixels = make_pixels(image.source.image, image.plan, self.loaded.image_processor)
        return pixels.to(self.model.dtype).pin_memory() if self.model.device.type == "cuda" else pixels

    def has_new_weights(self) -> bool:
        """Whether weights were changed or replaced, or hooks added, since ``reload``. Safe from any thread."""
        return self._find_weights() != self._weights

    def _find_weights(self) -> list[tuple[int, int]]:
        tensors = itertools.chain(self.model.parameters(), self.model.buffers())
        states = [(tensor.data_ptr(), _find_version(tensor)) for tensor in tensors]
        return [*states, *((id(module), 0) for module in self.model.modules() if has_hook([module]))]

    @torch.inference_mode()
    def launch(self, step: Step, sampler_of: Callable[[Request], Sampler]) -> LaunchedStep:
        """Launches a step, and the choice of a token for each chunk that samples one. On a CPU it is then done."""
        if self._gpu is not None:
            with self._on_device():
                return self._launch_on_gpu(self._gpu, step, sampler_of)
        requests = [chunk.request for chunk in step.chunks if chunk.samples_token]
        logits_LV = self.run(step)
        sampled = sample_all(logits_LV, [sampler_of(request) for request in requests]) if requests else []
        return LaunchedStep(requests, lambda launched: sampled)

    def _on_device(self) -> AbstractContextManager[Any]:
        """Makes the model's GPU the current one, where Triton launches its kernels."""
        device = self.model.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def _launch_on_gpu(self, gpu: GpuDecoder, step: Step, sampler_of: Callable[[Request], Sampler]) -> LaunchedStep:
        try:
            self._encode(step.tile_chunks)
            if not step.chunks:  # only its time is of interest
                done = fetch(torch.empty(0, device=self.model.device))
                return LaunchedStep([], lambda launched: done().tolist())
            self._copy_blocks(step)
            if gpu.can_decode(step.chunks):
                logits_RV, requests = gpu.decode(step.chunks)
                return launch_choice(requests, sampler_of, logits_RV, gpu.choose, gpu.can_go_on(requests))
            requests = [chunk.request for chunk in step.chunks if chunk.samples_token]
            logits_LV = gpu.extend(step.chunks, self._features_of)
            return launch_choice(requests, sampler_of, logits_LV, partial(choose_now, logits_LV), is_kept=False)
        except BaseException:
            gpu.clear_rows()
            raise

    def _copy_blocks(self, step: Step) -> None:
        self.cache.copy([chunk.request.copy for chunk in step.chunks if chunk.request.copy is not None])

    @torch.inference_mode()
    def run(self, step: Step) -> torch.Tensor:
        """Encodes the tiles and runs the chunks; float32 logits [L, V], one row per chunk that samples a token."""
        self._encode(step.tile_chunks)
        chunks = step.chunks
        if not chunks:
            return torch.empty(0)
        self._copy_blocks(step)
        rows, positions_N = place_rows(chunks, self.cache.block_tokens)
        embeds_NC = self._embed(chunks)
        sampled = [i for i, chunk in enumerate(chunks) if chunk.samples_token]
        is_adapted_N = find_after_image(chunks) if self._has_adapter else None
        hidden_LC = self._decode(embeds_NC, positions_N, rows, sampled, is_adapted_N)
        return self._compute_logits(hidden_LC) if sampled else torch.empty(0)

    def _decode(
        self,
        embeds_NC: torch.Tensor,
        positions_N: torch.Tensor,
        rows: paged.Rows,
        sampled: list[int],
        is_adapted_N: torch.Tensor | None,
    ) -> torch.Tensor:
        """Hidden states [L, C] before the final norm, of the last positions of the chunks ``sampled``."""
        if self._layers is not None:
            cos, sin = self._rotate(positions_N)
            return self._layers.run(embeds_NC, cos, sin, positions_N, rows, sampled, is_adapted_N)
        step = paged.PagedStep(self.cache, rows)
        hidden_NC = paged.run_layers(self._decoder, embeds_NC, positions_N, step, is_adapted_N)
        return hidden_NC[(rows.starts[1:][sampled] - 1).to(hidden_NC.device)]

    def _rotate(self, positions_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """RoPE's float32 cos and sin [N, head_dim], from a table that grows as needed."""
        most = int(positions_N.max()) + 1
        if self._rotary is None or most > len(self._rotary[0]):
            positions = torch.arange(-(-most // 1024) * 1024)
            table = self._decoder.rotary_emb(torch.empty(0), positions[None])
            self._rotary = tuple(part[0].float().contiguous() for part in table)
        return tuple(part[positions_N] for part in self._rotary)

    def _compute_logits(self, hidden_NC: torch.Tensor) -> torch.Tensor:
        """Float32 logits [N, V]: final norm and head."""
        if self._head is not None and self._layers is not None:
            return self._head.gemv(self._layers.normalize(hidden_NC))
        return self.model.lm_head(self._decoder.norm(hidden_NC.to(self.model.dtype))).float()

    def _embed(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """The decoder's inputs [N, C]: token embeddings, and image features in their places."""
        embeds_NC = self._decoder.embed_tokens(torch.tensor(list_ids(chunks), device=self.model.device))
        insert_images(embeds_NC, chunks, self._features_of)
        return embeds_NC

    def _features_of(self, image: ImageSpan) -> torch.Tensor:
        entry = self.features.entry(image)
        if entry.payload is None:  # it has no tiles to encode
            entry.payload = self._project(image)
        features_PC: torch.Tensor = entry.payload
        return features_PC

    def _project(self, image: ImageSpan) -> torch.Tensor:
        """The positions [P, C] of an image whose features came with the question."""
        positions_PC: torch.Tensor = self.model.project_features(image.source.features)
        assert len(positions_PC) == image.num_positions, "an image has another number of positions than its plan"
        return positions_PC

    def _encode(self, tile_chunks: list[TileChunk]) -> None:
        """Encodes the planned tiles of all images together, and merges each image that is complete."""
        planned: list[tuple[ImageSpan, torch.Tensor]] = []
        for _, image, start, stop in tile_chunks:
            entry = self.features.entry(image)
            if entry.tiles_done > start:
                continue  # done before the step failed; this is its rerun, request by request
            if entry.payload is None:
                pixels = self._pixels.take(image.fingerprint)
                entry.payload = _PartialImage(self._make_pixels(image) if pixels is None else pixels, [])
            planned.append((image, entry.payload.pixels[start:stop]))
        if not planned:
            return
        parts = [pixels.to(self.model.device, self.model.dtype, non_blocking=True) for _, pixels in planned]
        tiles = torch.cat(parts)
        features = torch.cat([self._encode_tiles(part) for part in tiles.split(TILE_BATCH)])
        split = features.split([len(pixels) for _, pixels in planned])
        for (image, pixels), part in zip(planned, split, strict=True):
            entry = self.features.entry(image)
            entry.payload.parts.append(part)
            entry.tiles_done += len(pixels)
            if entry.is_ready:
                entry.payload = self._merge(image, torch.cat(entry.payload.parts))

    def _encode_tiles(self, tiles_TCHW: torch.Tensor) -> torch.Tensor:
        """What the model's ``encode_images`` returns: projected features [T, P, C]."""
        if self._tower is None:
            return self.model.encode_images(tiles_TCHW)
        features_TPD = self._tower.run(tiles_TCHW)
        projector = self.model.get_model().mm_projector
        if features_TPD.dtype == self._tower.compute_dtype:
            return projector(features_TPD)
        # bfloat16 on a CPU without instructions for it: the projector, too, computes in float32.
        widened = {name: tensor.float() for name, tensor in projector.state_dict().items()}
        assert self._projector is not None
        return torch.func.functional_call(self._projector, widened, features_TPD.float()).to(features_TPD.dtype)

    def _merge(self, image: ImageSpan, features_TNC: torch.Tensor) -> torch.Tensor:
        merged_PC, (num_positions,) = self.model.merge_features(features_TNC, [image.plan])
        assert num_positions == image.num_positions, "an image has another number of positions than its plan"
        return merged_PC


def _find_version(tensor: torch.Tensor) -> int:
    """A tensor's version counter; 0 for a tensor made in inference mode, which has none."""
    try:
        return tensor._version
    except RuntimeError:
        return 0


def find_fallback_reason(model: Any) -> str | None:
    """Why this model, as it is now, has to fall back from the engine to ``generate``; None if the engine runs it."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind in ("dynamic", "longrope"):
        return f"its rope_type is {kind!r}, whose frequencies depend on the longest prompt of a batch"
    if (reason := find_replacement(model)) is not None:
        return reason
    if len(set((getattr(model, "hf_device_map", None) or {"": 0}).values())) > 1:
        return "its layers are on several devices"
    return None


def find_window(config: Any, layer: int) -> int | None:
    """The sliding window of a layer: how many positions, its own included, a position attends to; None is all.

    Source: transformers 5.23 models/mistral and models/qwen2, which apply the window under different conditions.
    """
    if config.model_type == "llava_mistral":
        return getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[layer] == "sliding_attention":
        return config.sliding_window
    return None
