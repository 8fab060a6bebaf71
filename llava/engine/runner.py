"""One step of the model: tiles become features, positions become keys and values, last positions become scores.

The decoder's layers are Transformers' own, so whatever is laid into them (adapters, 8-bit matrices, research) runs;
only their attention looks into blocks. All positions of a step go through the layers together as one row.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import torch

from llava.engine import compiled, graphs, paged
from llava.engine.features import FeatureStore
from llava.engine.request import PictureSpan, Request, token_of
from llava.engine.scheduler import Encode, Step
from llava.errors import UsageError
from llava.image.pixels import make_pixels
from llava.model import merge
from llava.model.hooks import has_hook
from llava.model.packed import PackedLinear
from llava.native import calls

# Tiles encoded together: more would take more memory for activations and gain nothing.
TILES_TOGETHER = 16


@dataclass
class _Begun:
    """A picture of which some tiles are encoded: its pixels, and the features so far."""

    pixels: torch.Tensor
    parts: list[torch.Tensor]


class Runner:
    """Computes the steps of one model with one KV cache. Not to be called from two threads at once."""

    def __init__(
        self, loaded: Any, features: FeatureStore, num_blocks: int, block_tokens: int, is_rounded: bool = False
    ) -> None:
        self.loaded, self.model = loaded, loaded.model
        self.features = features
        config = self.model.config
        obstacle = find_obstacle(self.model)
        if obstacle is not None:
            raise UsageError(f"The engine cannot run this model: {obstacle}.")
        self._decoder = self.model.get_model()
        self._num_blocks, self._block_tokens = num_blocks, block_tokens
        self._layers: compiled.DecoderLayers | None = None
        self._tower: compiled.TowerLayers | None = None
        self._is_rounded, self._scratch = is_rounded, calls.Scratch()
        self._rotary: tuple[torch.Tensor, ...] | None = None
        self._windows = {find_window(config, layer) for layer in range(len(self._decoder.layers))}
        self._make_cache()
        self.reload()
        paged.register()

    def _make_cache(self) -> None:
        """Room for keys and values, where the model is and in its dtype."""
        config, first = self.model.config, self._decoder.layers[0].self_attn
        dtype, device = self._cached_in = (self.model.dtype, self.model.device)
        num_layers, num_kv_heads = len(self._decoder.layers), config.num_key_value_heads
        group, shape = config.num_attention_heads // num_kv_heads, (num_kv_heads, self._block_tokens, first.head_dim)
        self._graphs: graphs.GraphDecoder | None = None
        self._cache_obstacle = calls.find_obstacle(dtype, device, first.head_dim, group, self._block_tokens)
        if self._cache_obstacle is None:
            self.cache: paged.KVCache = paged.NativeKVCache(num_layers, self._num_blocks, *shape, dtype)
            return
        # One block more than the pool gives out, for what pads steps of fixed shapes.
        self.cache = paged.KVCache(num_layers, self._num_blocks + 1, *shape, dtype, device)
        if graphs.is_wanted(device) and graphs.can_be_recorded(self.model):
            self._graphs = graphs.GraphDecoder(self.model, self.cache, self._num_blocks)

    def reload(self) -> None:
        """Takes over the model as it is now. Its keys and values have to be forgotten with it."""
        self._weights, self._rotary = self._find_weights(), None
        if self._cached_in != (self.model.dtype, self.model.device):
            self._make_cache()
        if self._graphs is not None:
            self._graphs.forget()
        self.slowness = self._cache_obstacle or compiled.find_layer_obstacle(self._decoder, self.model.dtype)
        if self.slowness is None and len(self._windows) > 1:
            self.slowness = "its layers see windows of different lengths"
        self._layers = None
        if self.slowness is None:
            assert isinstance(self.cache, paged.NativeKVCache)
            (window,) = self._windows
            self._layers = compiled.DecoderLayers(
                self._decoder, self.model.config, self.cache, window, self._scratch, self._is_rounded
            )
        head = self.model.lm_head
        is_plain = type(head) in (torch.nn.Linear, PackedLinear) and head.bias is None and not has_hook([head])
        self._head = compiled.Product(head) if self._layers is not None and is_plain else None
        tower = self.model.get_vision_tower()
        self.tower_slowness = self._cache_obstacle or compiled.find_tower_obstacle(tower)
        is_usual = self.tower_slowness is None
        self._tower = compiled.TowerLayers(tower, self._scratch) if is_usual else None
        # Its shape without weights: other threads look at the model's own (``has_new_weights``) while this computes.
        self._projector = copy.deepcopy(self._decoder.mm_projector).to("meta") if is_usual else None

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What runs through PyTorch on a CPU although it could be faster, and why, as sentences."""
        if self.model.device.type != "cpu":  # elsewhere PyTorch is what is fast
            return ()
        reasons = {"decoder": self.slowness, "vision tower": self.tower_slowness}
        slow = {part: reason for part, reason in reasons.items() if reason is not None}
        if len(slow) == 2 and len(set(slow.values())) == 1:
            slow = {"model": next(iter(slow.values()))}
        return tuple(f"The {part} runs through PyTorch, which is slower: {reason}." for part, reason in slow.items())

    def has_new_weights(self) -> bool:
        """Whether weights were changed or replaced, or hooks laid, since the model was taken over."""
        return self._find_weights() != self._weights

    def _find_weights(self) -> list[tuple[int, int]]:
        tensors = itertools.chain(self.model.parameters(), self.model.buffers())
        states = [(tensor.data_ptr(), _find_version(tensor)) for tensor in tensors]
        return [*states, *((id(module), 0) for module in self.model.modules() if has_hook([module]))]

    @torch.inference_mode()
    def run(self, step: Step) -> torch.Tensor:
        """The scores [chunks that give a token, V], float32, of the step's chunks, after encoding its tiles."""
        self._encode(step.encodes)
        chunks = step.chunks
        if not chunks:
            return torch.empty(0)
        self.cache.copy([chunk.request.copy for chunk in chunks if chunk.request.copy is not None])
        size = self.cache.block_tokens
        counts = [chunk.stop - chunk.start for chunk in chunks]
        tables = torch.zeros(len(chunks), max(-(-chunk.stop // size) for chunk in chunks), dtype=torch.int32)
        slots, positions = [], []
        for table, chunk in zip(tables, chunks, strict=True):
            blocks = torch.tensor(chunk.request.table[: -(-chunk.stop // size)], dtype=torch.int32)
            table[: len(blocks)] = blocks
            position = torch.arange(chunk.start, chunk.stop)
            slots.append(blocks[position // size].long() * size + position % size)
            positions.append(position)
        starts = torch.tensor([0, *counts]).cumsum(0).to(torch.int32)
        lengths = torch.tensor([chunk.stop for chunk in chunks], dtype=torch.int32)
        rows = paged.Rows(starts, lengths, tables, torch.cat(slots))
        embeds_NC = torch.cat([self._embed(chunk.request, chunk.start, chunk.stop) for chunk in chunks])
        giving = [i for i, chunk in enumerate(chunks) if chunk.gives_token]
        if self._graphs is not None and len(embeds_NC) == len(chunks) <= graphs.MOST_REQUESTS:
            scores_NV = self._graphs.run(embeds_NC, torch.cat(positions), rows)
            return scores_NV[giving]
        hidden_LC = self._decode(embeds_NC, torch.cat(positions), rows, giving)
        return self._score(hidden_LC) if giving else torch.empty(0)

    def _decode(
        self, embeds_NC: torch.Tensor, positions_N: torch.Tensor, rows: paged.Rows, giving: list[int]
    ) -> torch.Tensor:
        """All layers over a step's positions [N, C]; of the last ones of ``giving`` [L, C] before the last norm."""
        device = embeds_NC.device
        if self._layers is not None:
            cos, sin = self._rotate(positions_N)
            return self._layers.run(embeds_NC, cos, sin, positions_N, rows, giving)
        hidden, positions_1N = embeds_NC[None], positions_N[None].to(device)
        rotary = self._decoder.rotary_emb(hidden, positions_1N)
        step = paged.PagedStep(self.cache, rows)
        with paged.attention_in_blocks(self._decoder.config):
            for layer in self._decoder.layers:
                hidden = layer(
                    hidden,
                    attention_mask=None,
                    position_ids=positions_1N,
                    position_embeddings=rotary,
                    use_cache=False,
                    paged=step,
                )
        return hidden[0][(rows.starts[1:][giving] - 1).to(device)]

    def _rotate(self, positions_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The rotary embedding's float32 cos and sin [N, head_dim], out of a table."""
        most = int(positions_N.max()) + 1
        if self._rotary is None or most > len(self._rotary[0]):
            positions = torch.arange(-(-most // 1024) * 1024)
            table = self._decoder.rotary_emb(torch.empty(0), positions[None])
            self._rotary = tuple(part[0].float().contiguous() for part in table)
        return tuple(part[positions_N] for part in self._rotary)

    def _score(self, hidden_NC: torch.Tensor) -> torch.Tensor:
        """The scores [N, V] of the next token, float32."""
        if self._head is not None and self._layers is not None and len(hidden_NC) <= compiled.MAX_POSITIONS:
            return self._head.few(self._layers.normalize(hidden_NC))
        return self.model.lm_head(self._decoder.norm(hidden_NC.to(self.model.dtype))).float()

    def _embed(self, request: Request, start: int, stop: int) -> torch.Tensor:
        """What stands at the request's positions, [stop - start, C]: words, and features of its pictures."""
        ids = torch.tensor([token_of(key) for key in request.keys[start:stop]], device=self.model.device)
        embeds_NC = self._decoder.embed_tokens(ids)
        for picture in request.pictures_between(start, stop):
            features_PC = self.features.entry(picture).payload
            begin, end = max(start, picture.start), min(stop, picture.stop)
            part = features_PC[begin - picture.start : end - picture.start]
            embeds_NC[begin - start : end - start] = part.to(embeds_NC)
        return embeds_NC

    def _encode(self, encodes: list[Encode]) -> None:
        """Encodes the tiles that are planned, of all pictures together, and merges each picture that is complete."""
        waiting: list[tuple[PictureSpan, torch.Tensor]] = []
        for _, picture, start, stop in encodes:
            entry = self.features.entry(picture)
            if entry.tiles_done > start:
                continue  # a step that failed after this is run again in parts
            if entry.payload is None:
                entry.payload = _Begun(self._make_pixels(picture), [])
            waiting.append((picture, entry.payload.pixels[start:stop]))
        if not waiting:
            return
        tiles = torch.cat([pixels for _, pixels in waiting]).to(self.model.device, self.model.dtype)
        parts = torch.cat([self._see(part) for part in tiles.split(TILES_TOGETHER)])
        for (picture, pixels), part in zip(waiting, parts.split([len(pixels) for _, pixels in waiting]), strict=True):
            entry = self.features.entry(picture)
            entry.payload.parts.append(part)
            entry.tiles_done += len(pixels)
            if entry.is_ready:
                entry.payload = self._merge(picture, torch.cat(entry.payload.parts))

    def _see(self, tiles_TCHW: torch.Tensor) -> torch.Tensor:
        """What ``encode_images`` gives for these tiles."""
        if self._tower is None:
            return self.model.encode_images(tiles_TCHW)
        features_TPD = self._tower.run(tiles_TCHW)
        projector = self.model.get_model().mm_projector
        if features_TPD.dtype == self._tower.working_dtype:
            return projector(features_TPD)
        # bfloat16 without instructions for it: the projector too computes in float32.
        widened = {name: tensor.float() for name, tensor in projector.state_dict().items()}
        assert self._projector is not None
        return torch.func.functional_call(self._projector, widened, features_TPD.float()).to(features_TPD.dtype)

    def _make_pixels(self, picture: PictureSpan) -> torch.Tensor:
        # AnyRes cuts every picture into several tiles, so one tile means that no more was planned.
        whole = picture.num_tiles == 1
        return make_pixels(picture.source.image, self.loaded.spec.tiling, self.loaded.image_processor, whole=whole)

    def _merge(self, picture: PictureSpan, features_TNC: torch.Tensor) -> torch.Tensor:
        merged, (num_positions,) = self.model._merge_pictures(
            features_TNC, [len(features_TNC)], [tuple(picture.source.size)]
        )
        assert num_positions == picture.num_positions, "a picture takes other positions than planned"
        return merged


def _find_version(tensor: torch.Tensor) -> int:
    """How often a tensor was changed; 0 for one from inference mode, which does not count that."""
    try:
        return tensor._version
    except RuntimeError:
        return 0


# What the engine does in its own way, with the module that must still define it.
_OWN_WAYS = {
    "forward": "llava.model.llava",
    "generate": "llava.model.llava",
    "prepare_inputs_labels_for_multimodal": "llava.model.llava",
    "encode_images": "llava.model.pictures",
}


def find_obstacle(model: Any) -> str | None:
    """Why the engine cannot run this model as it is now; None if it can. ``generate`` can always."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind in ("dynamic", "longrope"):
        return f"its rope_type is {kind!r}, whose frequencies depend on the longest prompt of a batch"
    for name, home in _OWN_WAYS.items():
        # Research replaces these, on the class or on the model.
        if getattr(model, name).__module__ != home:
            return f"its {name} was replaced"
    decoder = model.get_model()
    if has_hook([model, decoder]):
        return "a hook hangs on what the engine does not call"
    for module in itertools.chain([decoder], *((layer, layer.self_attn) for layer in decoder.layers)):
        if compiled.is_replaced(module):
            return f"the forward of its {type(module).__name__} was replaced"
    if merge.unpad_image.__module__ != merge.__name__:
        return "unpad_image was replaced"
    if len(set((getattr(model, "hf_device_map", None) or {"": 0}).values())) > 1:
        return "its layers lie on several devices"
    return None


def find_window(config: Any, layer: int) -> int | None:
    """How many positions up to its own a position of this layer sees; None is all.

    Source: transformers 5.23 models/mistral and models/qwen2, whose windows differ in when they are in force.
    """
    if config.model_type == "llava_mistral":
        return getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[layer] == "sliding_attention":
        return config.sliding_window
    return None
