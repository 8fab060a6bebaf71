"""The image adapter: low-rank updates of the decoder's linear layers that are active only from an image on.

``mm_image_adapter: {"rank": r, "alpha": a}`` in config.json adds to q, k, v, o, gate, up and down of every decoder
layer

    y = W x + a/r * B A x        at the positions of a row's first image and after it
    y = W x                      before it, and in rows without an image

with the parameters ``...q_proj.image_lora_A.weight`` [r, in] and ``...q_proj.image_lora_B.weight`` [out, r]. So a
prompt without an image is answered by the language model as it was, bit for bit, and the keys and values of a position
depend only on what is before it, as without an adapter: a KV cache may be shared up to any position.

Which positions these are is told by ``after_image``, bool [B, L]: the merge computes it (``find_after_image``), it
travels with the embeddings (``mark``), with Transformers' arguments of a step, and with the KV cache
(``note_after_image``), and ``at_positions`` activates it for the layers that run inside of its block.

Shape letters: B rows of the batch, L positions of the longest row, N of these that are adapted, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from llava.errors import CheckpointError, UsageError
from llava.model.quantized_linear import QuantizedLinear
from llava.native import quantization

# The mixin uses a method of the classes that it is combined with; at run time it has no base class.
if TYPE_CHECKING:
    from transformers import PreTrainedModel as _MixedInto
else:
    _MixedInto = object

# The linear layers of a decoder layer that are adapted, by their names within it.
ADAPTED = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
KEY = "mm_image_adapter"

# Where the adapter is active in the forward pass that runs in this thread, bool [B, L]; None: nowhere.
_ACTIVE: ContextVar[torch.Tensor | None] = ContextVar("_ACTIVE", default=None)
_MARK = "_llava_after_image"


class LowRank(nn.Module):
    """One matrix of an update. It is no ``nn.Linear``, so that nothing quantizes it or adds a LoRA to it."""

    def __init__(self, rows: int, columns: int, like: torch.Tensor) -> None:
        super().__init__()
        dtype = like.dtype if like.is_floating_point() else torch.float32
        self.weight = nn.Parameter(torch.zeros(rows, columns, device=like.device, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` [..., columns] -> [..., rows]."""
        return nn.functional.linear(x, self.weight)


class _Adapted(nn.Module):
    """A linear layer whose output is updated where ``at_positions`` says so; combined with the layer's own class."""

    image_lora_A: LowRank
    image_lora_B: LowRank
    image_lora_scaling: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = super().forward(x)
        active_BL = _ACTIVE.get()
        if active_BL is None:
            return y
        assert x.shape[:-1] == active_BL.shape, f"{list(x.shape)} is adapted at positions {list(active_BL.shape)}"
        active_BL = active_BL.to(x.device)
        update_NC = self.image_lora_B(self.image_lora_A(x[active_BL])) * self.image_lora_scaling
        return y.index_put((active_BL,), update_NC.to(y.dtype), accumulate=True)

    def give_adapter_to(self, layer: nn.Module) -> None:
        """Adapts another layer, which takes this one's place, by the same matrices."""
        _join(layer, self.image_lora_A, self.image_lora_B, self.image_lora_scaling)


class AdaptedLinear(_Adapted, nn.Linear):
    """``nn.Linear`` with an image adapter."""


class AdaptedQuantizedLinear(_Adapted, QuantizedLinear):
    """``QuantizedLinear`` with an image adapter, which itself is not quantized."""


@dataclass(frozen=True)
class ImageAdapter:
    """A model's image adapter: the adapted layers of each decoder layer, by their names within it (``ADAPTED``)."""

    rank: int
    alpha: float
    layers: tuple[Mapping[str, Any], ...]  # AdaptedLinear or AdaptedQuantizedLinear

    @property
    def scaling(self) -> float:
        """The factor of ``B @ A``."""
        return self.alpha / self.rank


def read_adapter(config: Any) -> tuple[int, float] | None:
    """Rank and alpha of the adapter that a configuration, an object or a mapping, describes; None without one.

    Raises:
        CheckpointError: the description is no rank and alpha.
    """
    said = config.get(KEY) if isinstance(config, Mapping) else getattr(config, KEY, None)
    if said is None:
        return None
    values = said if isinstance(said, Mapping) else {}
    rank, alpha = values.get("rank"), values.get("alpha")
    is_right = type(rank) is int and 1 <= rank <= 4096 and type(alpha) in (int, float) and 0 < alpha < 1e6
    if not is_right or values.keys() != {"rank", "alpha"}:
        raise CheckpointError(
            f'config.json says {KEY}: {said!r:.80}; it has to be {{"rank": a number of at least 1, "alpha": a number '
            "above 0}."
        )
    assert rank is not None
    assert alpha is not None
    return rank, float(alpha)


def add_image_adapter(decoder: Any) -> None:
    """Adapts the layers of a decoder whose ``config`` asks for it; a new adapter changes nothing, for its B is zero."""
    described = read_adapter(decoder.config)
    if described is None:
        return
    rank, alpha = described
    for layer in decoder.layers:
        for name in ADAPTED:
            linear = layer.get_submodule(name)
            matrix_A = LowRank(rank, linear.in_features, linear.weight)
            nn.init.kaiming_uniform_(matrix_A.weight, a=5**0.5)
            _join(linear, matrix_A, LowRank(linear.out_features, rank, linear.weight), alpha / rank)


def _join(layer: Any, matrix_A: LowRank, matrix_B: LowRank, scaling: float) -> None:
    # The layer becomes an instance of the adapted class instead of being wrapped, so that its parameters keep their
    # names, and code that looks for linear layers finds it.
    layer.__class__ = AdaptedQuantizedLinear if isinstance(layer, QuantizedLinear) else AdaptedLinear
    layer.image_lora_A, layer.image_lora_B, layer.image_lora_scaling = matrix_A, matrix_B, scaling


def find_image_adapter(model: Any) -> ImageAdapter | None:
    """The image adapter of a LLaVA; None if it has none."""
    decoder = model.get_model()
    described = read_adapter(decoder.config)
    if described is None:
        return None
    layers = tuple({name: layer.get_submodule(name) for name in ADAPTED} for layer in decoder.layers)
    return ImageAdapter(*described, layers)


def merged_weights(linear: Any) -> torch.Tensor:
    """The matrix [out, in] of an adapted layer where the adapter is active, W + scaling * B @ A, in W's dtype.

    A quantized W is dequantized, to the dtype of A.
    """
    matrix_A, matrix_B = linear.image_lora_A.weight.detach(), linear.image_lora_B.weight.detach()
    if isinstance(linear, QuantizedLinear):
        weight = quantization.dequantize(linear.quantized, matrix_A.dtype)
    else:
        weight = linear.weight.detach()
    update = matrix_B.float() @ matrix_A.float() * linear.image_lora_scaling
    return (weight.float() + update).to(weight.dtype)


@contextmanager
def at_positions(after_image_BL: torch.Tensor | None) -> Iterator[None]:
    """Inside of the block, in this thread, adapted layers are active at these positions, bool [B, L]; None: nowhere."""
    is_anywhere = after_image_BL is not None and bool(after_image_BL.any())
    token = _ACTIVE.set(after_image_BL if is_anywhere else None)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


class AdaptsFromImages(_MixedInto):
    """A mixin for models that may have an image adapter."""

    @contextmanager
    def adapting(self, after_image_BL: torch.Tensor | None, inputs: Mapping[str, Any]) -> Iterator[torch.Tensor | None]:
        """Inside of the block, the adapter is active where a step that reads ``inputs`` is after an image.

        These positions are given, bool [B, L]; None where there is no adapter, or no image. Arguments and errors are
        those of ``choose_positions``.
        """
        embeds_BLC = inputs["inputs_embeds"]
        read = inputs["input_ids"] if embeds_BLC is None else embeds_BLC
        positions_BL = None
        if read is not None and read_adapter(self.config) is not None:
            positions_BL = choose_positions(after_image_BL, embeds_BLC, inputs["past_key_values"], read.shape[:2])
        with at_positions(positions_BL):
            yield positions_BL

    def tell_positions(
        self,
        after_image_BL: torch.Tensor | None,
        embeds_BLC: torch.Tensor,
        mask_BL: torch.Tensor,
        moved_BL: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """The argument that tells each step of Transformers' ``generate`` where images are; none without an adapter.

        ``mask_BL``: of ``embeds_BLC``; ``moved_BL``: after padding was moved to the left. Errors as ``adapting``.
        """
        if read_adapter(self.config) is None:
            return {}
        found_BL = choose_positions(after_image_BL, embeds_BLC, None, embeds_BLC.shape[:2])
        assert found_BL is not None, "embeddings tell of their images"
        return {"after_image": found_BL if moved_BL is mask_BL else move_right(found_BL, mask_BL)}

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **kwargs: Any
    ) -> None:
        # The backward pass recomputes a layer after ``at_positions`` has ended, and on GPUs in another thread.
        def run(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
            active_BL = _ACTIVE.get()

            def recompute(*args: Any, **kwargs: Any) -> Any:
                with at_positions(active_BL):
                    return function(*args, **kwargs)

            return gradient_checkpointing_func(function if active_BL is None else recompute, *args, **options)

        super()._set_gradient_checkpointing(enable, run, **kwargs)


# Which positions are after an image.


def find_after_image(is_image_BL: torch.Tensor, origin_BL: torch.Tensor) -> torch.Tensor:
    """The positions at or after the first image of their sample, bool [B, L]; padding is as what comes before it.

    ``origin_BL``: the first position of the sample that each position belongs to.
    """
    seen_BL = is_image_BL.long().cumsum(1)
    return seen_BL > (seen_BL - is_image_BL.long()).gather(1, origin_BL)


def move_right(after_image_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """``after_image`` of rows whose padding was moved to the left; see ``splice.move_padding_left``."""
    num_after_B1 = (after_image_BL & mask_BL.bool()).sum(1, keepdim=True)
    width = mask_BL.shape[1]
    return torch.arange(width, device=mask_BL.device) >= width - num_after_B1


def cut_to_step(after_image_BL: torch.Tensor, num_held: int, num_new: int) -> torch.Tensor:
    """``after_image`` of the ``num_new`` positions after ``num_held`` that a KV cache holds.

    ``after_image_BL`` is the prompt's; what comes after the prompt is after its images.
    """
    columns = torch.arange(num_held, num_held + num_new, device=after_image_BL.device)
    return after_image_BL[:, columns.clamp(max=after_image_BL.shape[1] - 1)]


def mark(embeds_BLC: torch.Tensor, after_image_BL: torch.Tensor) -> None:
    """Remembers with merged embeddings, with this very tensor, which of their positions are after an image."""
    setattr(embeds_BLC, _MARK, after_image_BL)


def note_after_image(outputs: Any, after_image_BL: torch.Tensor | None) -> None:
    """Remembers with the KV cache of a step's outputs which of the positions that it took in are after an image."""
    cache = getattr(outputs, "past_key_values", None)
    if cache is None or after_image_BL is None:
        return
    num_before = max(_count_held(cache) - after_image_BL.shape[1], 0)
    noted_BL: torch.Tensor | None = getattr(cache, _MARK, None)
    if noted_BL is None or len(noted_BL) != len(after_image_BL):
        noted_BL = after_image_BL.new_zeros(len(after_image_BL), num_before)
    setattr(cache, _MARK, torch.cat([noted_BL[:, :num_before], after_image_BL], dim=1))


def choose_positions(
    given_BL: torch.Tensor | None, embeds_BLC: torch.Tensor | None, cache: Any, shape: Sequence[int]
) -> torch.Tensor | None:
    """``after_image`` [B, L] of the positions that a step reads in a model with an adapter; None: an image is nowhere.

    Args:
        given_BL: the caller's ``after_image``, of rows from their beginning.
        embeds_BLC: what is read, if it comes as embeddings.
        cache: the KV cache, which may have noted what came before.
        shape: rows and positions of what is read.

    Raises:
        UsageError: embeddings came without saying where their images are, or for other rows.
    """
    num_rows, num_new = shape
    num_held = _count_held(cache)
    if given_BL is not None:
        if given_BL.ndim != 2 or len(given_BL) != num_rows:
            raise UsageError(
                f"after_image has the shape {list(given_BL.shape)}, but {num_rows} rows of {num_new} positions are "
                "read: it needs a row for each of them."
            )
        return cut_to_step(given_BL, num_held, num_new)
    own_BL: torch.Tensor | None = getattr(embeds_BLC, _MARK, None)
    noted_BL: torch.Tensor | None = getattr(cache, _MARK, None) if num_held else None
    if embeds_BLC is not None and own_BL is None:
        raise UsageError(
            "inputs_embeds came alone, but the model's image adapter works only from an image on: pass after_image, "
            "bool [rows, positions], or the very tensor that prepare_inputs_labels_for_multimodal returned."
        )
    if noted_BL is None:
        return own_BL
    before_B1 = noted_BL[:, :num_held][:, -1:]
    return before_B1.expand(num_rows, num_new) if own_BL is None else own_BL | before_B1


def _count_held(cache: Any) -> int:
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
