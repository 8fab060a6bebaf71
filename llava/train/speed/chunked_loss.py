"""The loss of a language model's head in chunks, so that the logits of all targets never exist at once.

With a vocabulary of 128,000, the logits of 4,000 targets take 2 GB in float32, and softmax and gradients twice as much
again. Here the logits of one chunk are computed, and from them the chunk's loss and its gradients; then they are freed.
Nothing is computed twice: the gradients are only scaled in the backward pass.

Shape letters: N targets, R targets of one chunk, C width of the language model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from llava.train.loss import weigh_answers

# A head, hidden states [N, C] and targets [N] -> the loss; ``num_items_in_batch`` is a keyword, others are ignored.
TargetLoss: TypeAlias = Callable[..., torch.Tensor]
OnLosses: TypeAlias = Callable[[torch.Tensor], None]

# Logits of a chunk: 128 MB in float32, 256 targets of a vocabulary of 128K.
CHUNK_LOGITS = 2**25

# Hooks of these modules gather a sharded head's weights around its call; other hooks want to see logits.
_SHARDING = ("torch.distributed.", "accelerate.", "deepspeed.")


def build_target_loss(
    eos_token_id: int | None = None, power: float = 0.0, chunk_logits: int = CHUNK_LOGITS
) -> TargetLoss:
    """A ``target_loss`` for ``LlavaMetaForCausalLM.forward``: the cross-entropy, computed in chunks.

    It is the mean over the targets, or their sum divided by ``num_items_in_batch``, as Transformers' own loss.

    Args:
        eos_token_id, power: per-answer loss weighting, see ``weigh_answers``; with a power of 0 there is none.
        chunk_logits: logits of a chunk at most; a chunk has at least one target.
    """

    def target_loss(
        head: nn.Module,
        hidden_NC: torch.Tensor,
        targets_N: torch.Tensor,
        num_items_in_batch: Any = None,
        on_losses: OnLosses | None = None,
        **_: Any,
    ) -> torch.Tensor:
        if power:
            assert eos_token_id is not None, "answers are told apart by their end-of-sequence token"
            weights_N = weigh_answers(targets_N, eos_token_id, power)
        else:
            weights_N = torch.ones_like(targets_N, dtype=torch.float32)
        count = len(targets_N) if num_items_in_batch is None else num_items_in_batch
        if torch.is_tensor(count):
            count = count.to(hidden_NC.device)
        return sum_cross_entropy(head, hidden_NC, targets_N, weights_N, chunk_logits, on_losses) / count

    return target_loss


def sum_cross_entropy(
    head: nn.Module,
    hidden_NC: torch.Tensor,
    targets_N: torch.Tensor,
    weights_N: torch.Tensor,
    chunk_logits: int = CHUNK_LOGITS,
    on_losses: OnLosses | None = None,
) -> torch.Tensor:
    """The weighted sum of the targets' cross-entropies, in float32, from a head and its inputs.

    A head that is not a plain linear layer (a quantized one, or one with adapters or hooks) computes all logits at
    once. The gradients can be computed once only.

    Args:
        on_losses: gets each target's cross-entropy, float32 [N], before it is weighted. The head is called once: FSDP2,
            which shards it together with the norm before it, frees its weights too early otherwise.
    """
    if not is_plain(head):
        each_N = functional.cross_entropy(head(hidden_NC).float(), targets_N, reduction="none")
        if on_losses is not None:
            on_losses(each_N.detach())
        return (each_N * weights_N).sum()
    assert isinstance(head, nn.Linear)
    num_rows = max(1, chunk_logits // head.out_features)

    def compute_loss(hidden_NC: torch.Tensor) -> torch.Tensor:
        return _ChunkedCrossEntropy.apply(hidden_NC, head.weight, head.bias, targets_N, weights_N, num_rows, on_losses)

    # The head itself is called, because hooks of FSDP and DeepSpeed gather its weights then.
    head.forward = compute_loss  # type: ignore[method-assign, assignment]
    try:
        return head(hidden_NC)
    finally:
        del head.forward


def is_plain(head: nn.Module) -> bool:
    """Whether a head is a linear layer whose logits nothing else changes or watches."""
    if type(head).forward is not nn.Linear.forward or "forward" in vars(head):
        return False
    hooks = [*head._forward_hooks.values(), *head._backward_hooks.values(), *head._backward_pre_hooks.values()]
    return all(str(getattr(hook, "__module__", "")).startswith(_SHARDING) for hook in hooks)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The sum of weighted cross-entropies, whose gradients the forward pass computes where they are needed."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NC: torch.Tensor,
        weight_VC: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_N: torch.Tensor,
        weights_N: torch.Tensor,
        num_rows: int,
        on_losses: OnLosses | None,
    ) -> torch.Tensor:
        device = hidden_NC.device.type
        # In autocast the head multiplies in 16 bits, as it would through its own forward.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VC.dtype
        learns = ctx.needs_input_grad
        gradients = [
            torch.empty_like(hidden_NC) if learns[0] else None,
            torch.zeros_like(weight_VC, dtype=torch.float32) if learns[1] else None,
            torch.zeros_like(bias_V, dtype=torch.float32) if bias_V is not None and learns[2] else None,
        ]
        with torch.autocast(device, enabled=False):
            losses = []
            total = torch.zeros((), dtype=torch.float32, device=hidden_NC.device)
            cast_VC, cast_V = weight_VC.to(dtype), None if bias_V is None else bias_V.to(dtype)
            for start in range(0, len(targets_N), num_rows):
                rows = slice(start, start + num_rows)
                hidden_RC = hidden_NC[rows].to(dtype)
                logits_RV = functional.linear(hidden_RC, cast_VC, cast_V).float()
                losses_R, slope_RV = _cross_entropy_and_slope(logits_RV, targets_N[rows], weights_N[rows], any(learns))
                total += (losses_R * weights_N[rows]).sum()
                losses.append(losses_R)
                if slope_RV is not None:
                    _add_gradients(gradients, rows, slope_RV, hidden_RC, cast_VC)
        if on_losses is not None:
            on_losses(torch.cat(losses) if losses else weights_N)
        ctx.gradients, ctx.dtypes = gradients, (hidden_NC.dtype, weight_VC.dtype, bias_V is not None and bias_V.dtype)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        assert ctx.gradients is not None, "the gradients of a chunked loss were asked for twice"
        scaled = [
            None if each is None else each.mul_(gradient).to(dtype)
            for each, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        ]
        ctx.gradients = None
        return (*scaled, None, None, None, None)


def _cross_entropy_and_slope(
    logits_RV: torch.Tensor, targets_R: torch.Tensor, weights_R: torch.Tensor, learns: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A chunk's cross-entropies [R], and the derivative of their weighted sum by the logits, in the memory of these."""
    picked_R1 = targets_R[:, None]
    log_sums_R1 = logits_RV.logsumexp(1, keepdim=True)
    losses_R = (log_sums_R1 - logits_RV.gather(1, picked_R1))[:, 0]
    if not learns:
        return losses_R, None
    slope_RV = logits_RV.sub_(log_sums_R1).exp_()
    slope_RV.scatter_add_(1, picked_R1, torch.full_like(log_sums_R1, -1.0))
    return losses_R, slope_RV.mul_(weights_R[:, None])


def _add_gradients(
    gradients: list[torch.Tensor | None],
    rows: slice,
    slope_RV: torch.Tensor,
    hidden_RC: torch.Tensor,
    weight_VC: torch.Tensor,
) -> None:
    by_hidden, by_weight, by_bias = gradients
    if by_bias is not None:
        by_bias += slope_RV.sum(0)
    slope_RV = slope_RV.to(weight_VC.dtype)
    if by_hidden is not None:
        by_hidden[rows] = slope_RV @ weight_VC
    if by_weight is not None and weight_VC.dtype == by_weight.dtype:
        by_weight.addmm_(slope_RV.T, hidden_RC)
    elif by_weight is not None:
        by_weight += slope_RV.T @ hidden_RC
