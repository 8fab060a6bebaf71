"""The arms of ``next_claims.py`` on the talking model: a short training of its adapter, and the model that comes of it.

The training is ``llava.scratch.talking.adapter_training``, from an adapter that changes nothing and the projector of
the checkpoint; its samples are about text, shapes and charts alone, since nothing else is asked.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from llava.errors import UsageError
from llava.model.checkpoint import LoadedModel, load_model, save_checkpoint
from llava.model.image_adapter import ADAPTED, KEY, read_adapter
from llava.model.lexical.lexical_projector import LexicalProjector
from llava.model.llava import LlavaConfig, LlavaLlamaForCausalLM
from llava.scratch.talking.adapter_samples import SampleSource, write_prefix
from llava.scratch.talking.adapter_training import (
    CHECKPOINT,
    LOG,
    AdapterTraining,
    Schedule,
    stopping_by_signals,
)
from llava.scratch.talking.pack import pack_checkpoint
from llava.scratch.talking.small_llama import Adapter, Sizes, SmallLlama
from llava.scratch.talking.thing_samples import ThingSamples

BATCH_SIZE, RATE = 4, 1.2e-3
_TOLD_STEPS = 10
_IMAGES_KEPT = 1000
# A text takes the small vocabulary about three times as many tokens.
_MOST_TOKENS, _MOST_SMALL_TOKENS = 480, 1440
_PROJECTOR = "model.mm_projector."
_VISION = ("mm_", "image_")  # what keys of config.json about images begin with
# Parts of the names of parameters that are not the decoder's.
_OTHERS = ("image_lora_", "vision_tower", "mm_projector", "image_newline")


class PlainTokenizer:
    """A tokenizer whose ``encode`` adds no special token to the parts that samples are put together from."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> Any:
        return self._tokenizer.encode(text, add_special_tokens=False)


class Talker:
    """A language model behind the lexical tower, which is trained and then answers.

    Args:
        loaded: a talking model. Its adapter and projector are replaced by every ``take``.
        max_tokens: of a sample.
    """

    def __init__(self, loaded: LoadedModel, *, max_tokens: int = _MOST_TOKENS) -> None:
        self.loaded, self._max_tokens = loaded, max_tokens
        described = read_adapter(loaded.model.config)
        if described is None or getattr(loaded.model.get_vision_tower(), "seen", None) is None:
            raise UsageError("The checkpoint is no talking model: it has no image adapter or no lexical tower.")
        self.rank, self._alpha = described
        self._start = {name: value.float().clone() for name, value in self._projector.state_dict().items()}
        loaded.model.get_vision_tower().seen.num_kept = _IMAGES_KEPT

    @property
    def _projector(self) -> Any:
        return self.loaded.model.get_model().mm_projector

    @property
    def scaling(self) -> float:
        """The factor of the adapter's products."""
        return self._alpha / self.rank

    @property
    def num_trained(self) -> int:
        """How many parameters the adapter has."""
        return sum(value.numel() for name, value in self.loaded.model.named_parameters() if ".image_lora_" in name)

    def train(self, things: ThingSamples, kinds: Sequence[str], seed: int, steps: int, folder: Path) -> Path:
        """Trains on records of those kinds, or continues; returns the checkpoint. Ctrl-C saves, and ends the program.

        ``things``: only its looks of drawn images are used.
        """
        llama = self.make_llama()
        torch.manual_seed(seed)
        adapter = Adapter(llama.weights, llama.sizes, self.rank, self._alpha)
        projector = LexicalProjector(self.loaded.model.config)
        projector.load_state_dict(self._start)
        tokenizer = self.loaded.tokenizer.backend_tokenizer
        llama.set_prefix(torch.tensor(tokenizer.encode(write_prefix()).ids))
        source = SampleSource(PlainTokenizer(tokenizer), things, 0.0, self._max_tokens, kinds=kinds)
        schedule = Schedule(steps, BATCH_SIZE, RATE, seed)
        training = AdapterTraining(llama, adapter, projector, source.draw, schedule, folder)
        with stopping_by_signals(training):
            while training.step < steps:
                until = min(training.step - training.step % _TOLD_STEPS + _TOLD_STEPS, steps)
                training.run(until)
                loss = json.loads((folder / LOG).read_text("utf-8").splitlines()[-1])["loss"]
                print(f"{folder.name}: step {training.step} of {steps}, loss {loss:.3f}", flush=True)
                if training.step < until:
                    raise SystemExit("Stopped. The same command continues.")
        return folder / CHECKPOINT

    def take(self, checkpoint: Path, *, is_tiled: bool = True) -> LoadedModel:
        """The model with the adapter and the projector of a training; without ``is_tiled`` an image is a single tile.

        It is valid until the next call. What the tower saw in an image is kept.
        """
        files = pack_checkpoint(torch.load(checkpoint, weights_only=True))
        projector = {_PROJECTOR + name: value for name, value in files["projector"].items()}
        found = self.loaded.model.load_state_dict({**files["adapter"], **projector}, strict=False)
        assert not found.unexpected_keys, found.unexpected_keys
        spec = self.loaded.spec
        if not is_tiled:
            spec = replace(spec, tiling=replace(spec.tiling, aspect="pad", pinpoints=()))
        return replace(self.loaded, spec=spec)

    def make_llama(self) -> SmallLlama:
        """The language model in float32, without the adapter."""
        config = self.loaded.model.config
        sizes = Sizes(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            inner=config.intermediate_size,
            rope_base=float(config.rope_parameters["rope_theta"]),
            norm_eps=config.rms_norm_eps,
        )
        weights = {
            name.removeprefix("model."): value.detach().float()
            for name, value in self.loaded.model.named_parameters()
            if _is_decoder(name)
        }
        return SmallLlama(weights, sizes)


def make_small(talker: Talker) -> Talker:
    """The embedded model's decoder behind the tower of a talking model, in float32.

    As many parameters of it are trained as of the larger one: the adapter's rank follows from that, and is nearly full.
    It is scaled by the root of its rank, so that a step changes weights as much as it would through the other's rank
    (rank-stabilized LoRA). The projector begins untrained, and the tower may write three times as many tokens.

    Source: Kalajdzievski, arXiv:2312.03732, section 3.
    """
    small, large = load_model("embedded", dtype="float32"), talker.loaded
    layers = small.model.get_model().layers
    num_per_rank = sum(sum(layer.get_submodule(name).weight.shape) for layer in layers for name in ADAPTED)
    rank = max(talker.num_trained // num_per_rank, 1)
    seeing = {name: value for name, value in large.model.config.to_dict().items() if name.startswith(_VISION)}
    own = {name: value for name, value in small.model.config.to_dict().items() if not name.startswith(_VISION)}
    seeing["mm_vision_config"] = {**seeing["mm_vision_config"], "max_words": _MOST_SMALL_TOKENS}
    seeing[KEY] = {"rank": rank, "alpha": round(talker.scaling * math.sqrt(talker.rank * rank), 3)}
    torch.manual_seed(0)
    model = LlavaLlamaForCausalLM(LlavaConfig(**{**own, **seeing, "conversation_template": large.template})).eval()
    projector, trained = LexicalProjector(model.config), large.model.get_model().mm_projector
    for ours, theirs in zip(projector.list_constants()[1:], trained.list_constants()[1:], strict=True):
        ours.data.copy_(theirs)  # the moments of features; the names are tokens of the other vocabulary
    model.get_model().mm_projector.load_state_dict(projector.state_dict())
    model.get_vision_tower().load_state_dict(large.model.get_vision_tower().state_dict())
    decoder = {name: value for name, value in small.model.state_dict().items() if _is_decoder(name)}
    model.load_state_dict(decoder, strict=False)
    model.generation_config = small.model.generation_config
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(model, small.tokenizer, large.image_processor, folder)
        return Talker(load_model(folder, dtype="float32"), max_tokens=_MOST_SMALL_TOKENS)


def _is_decoder(name: str) -> bool:
    return not any(part in name for part in _OTHERS)
