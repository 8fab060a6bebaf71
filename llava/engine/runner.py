"""One step of the model: tiles become features, positions become keys and values, last positions become scores.

The decoder's layers are Transformers' own, so whatever is laid into them (adapters, 8-bit matrices, research) runs;
only their attention looks into blocks. All positions of a step go through the layers together as one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from llava.engine import paged
from llava.engine.features import FeatureStore
from llava.engine.request import PictureSpan, Request
from llava.engine.scheduler import Encode, Step
from llava.errors import UsageError
from llava.image.pixels import make_pixels
from llava.model import merge

# Tiles encoded together: more would take more memory for activations and gain nothing.
TILES_TOGETHER = 16


@dataclass
class _Begun:
    """A picture of which some tiles are encoded: its pixels, and the features so far."""

    pixels: torch.Tensor
    parts: list[torch.Tensor]


class Runner:
    """Computes the steps of one model with one KV cache. Not to be called from two threads at once."""

    def __init__(self, loaded: Any, features: FeatureStore, num_blocks: int, block_tokens: int) -> None:
        self.loaded, self.model = loaded, loaded.model
        self.features = features
        config = self.model.config
        obstacle = find_obstacle(self.model)
        if obstacle is not None:
            raise UsageError(f"The engine cannot run this model: {obstacle}.")
        self._decoder = self.model.get_model()
        first = self._decoder.layers[0].self_attn
        self.cache = paged.KVCache(
            len(self._decoder.layers),
            num_blocks,
            config.num_key_value_heads,
            block_tokens,
            first.head_dim,
            self.model.dtype,
            self.model.device,
        )
        paged.register()

    @torch.inference_mode()
    def run(self, step: Step) -> torch.Tensor:
        """The scores [chunks that give a token, V], float32, of the step's chunks, after encoding its tiles."""
        self._encode(step.encodes)
        chunks = step.chunks
        if not chunks:
            return torch.empty(0)
        self.cache.copy([chunk.request.copy for chunk in chunks if chunk.request.copy is not None])
        device = self.model.device
        rows, slots, positions, embeds = [], [], [], []
        num_before = 0
        for chunk in chunks:
            request, start, stop = chunk.request, chunk.start, chunk.stop
            table = torch.tensor(request.table[: -(-stop // self.cache.block_tokens)])
            position = torch.arange(start, stop)
            places = position % self.cache.block_tokens
            slots.append(table[position // self.cache.block_tokens] * self.cache.block_tokens + places)
            positions.append(position)
            embeds.append(self._embed(request, start, stop))
            rows.append(paged.Row(num_before, num_before + stop - start, table.to(device), stop))
            num_before += stop - start
        step_rows = paged.PagedStep(self.cache, torch.cat(slots).to(device), rows)
        hidden_NC = self._decode(torch.cat(embeds), torch.cat(positions).to(device), step_rows)
        last = [row.stop - 1 for row, chunk in zip(rows, chunks, strict=True) if chunk.gives_token]
        if not last:
            return torch.empty(0)
        return self.model.lm_head(self._decoder.norm(hidden_NC[last])).float()

    def _decode(self, embeds_NC: torch.Tensor, positions_N: torch.Tensor, step: paged.PagedStep) -> torch.Tensor:
        """All layers over the positions of a step, [N, C] -> [N, C], before the last norm."""
        hidden = embeds_NC[None]
        rotary = self._decoder.rotary_emb(hidden, positions_N[None])
        with _attention_in_blocks(self._decoder.config):
            for layer in self._decoder.layers:
                hidden = layer(
                    hidden,
                    attention_mask=None,
                    position_ids=positions_N[None],
                    position_embeddings=rotary,
                    use_cache=False,
                    paged=step,
                )
        return hidden[0]

    def _embed(self, request: Request, start: int, stop: int) -> torch.Tensor:
        """What stands at the request's positions, [stop - start, C]: words, and features of its pictures."""
        ids = torch.tensor([max(key, 0) for key in request.keys[start:stop]], device=self.model.device)
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
        parts = torch.cat([self.model.encode_images(part) for part in tiles.split(TILES_TOGETHER)])
        for (picture, pixels), part in zip(waiting, parts.split([len(pixels) for _, pixels in waiting]), strict=True):
            entry = self.features.entry(picture)
            entry.payload.parts.append(part)
            entry.tiles_done += len(pixels)
            if entry.is_ready:
                entry.payload = self._merge(picture, torch.cat(entry.payload.parts))

    def _make_pixels(self, picture: PictureSpan) -> torch.Tensor:
        return make_pixels(picture.source.image, self.loaded.spec.tiling, self.loaded.image_processor)

    def _merge(self, picture: PictureSpan, features_TNC: torch.Tensor) -> torch.Tensor:
        merged, (num_positions,) = self.model._merge_pictures(
            features_TNC, [len(features_TNC)], [tuple(picture.source.size)]
        )
        assert num_positions == picture.num_positions, "a picture takes other positions than planned"
        return merged


# What the engine does in its own way, with the module that must still define it.
_OWN_WAYS = {
    "forward": "llava.model.llava",
    "generate": "llava.model.llava",
    "prepare_inputs_labels_for_multimodal": "llava.model.llava",
    "encode_images": "llava.model.llava",
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
    if merge.unpad_image.__module__ != merge.__name__:
        return "unpad_image was replaced"
    if len(set((getattr(model, "hf_device_map", None) or {"": 0}).values())) > 1:
        return "its layers lie on several devices"
    return None


@contextmanager
def _attention_in_blocks(config: Any) -> Iterator[None]:
    """Lets the layers attend over blocks, and sets everything back for whoever else runs the model."""
    usual = config._attn_implementation
    config._attn_implementation = paged.ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = usual
