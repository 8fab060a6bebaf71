"""Choosing the next tokens of all requests at once: pure functions over logits [N, V] and parameters [N] on any device.

No function synchronizes with the host or has a shape that depends on data, so a CUDA graph can capture all of them. A
row's token depends on its own logits, parameters and uniform number alone, never on the other rows: weights are whole
numbers, whose sums are exact in any order.

The order is that of Transformers' ``generate``: ``mask``, ``penalize``, then ``choose`` with temperature, top-k, top-p
and min-p. Top-k keeps all tokens that tie with its last one, as there. Of tokens that tie at the end of top-p's nucleus
those with the lowest ids are kept, as many as there; which ones is arbitrary there.

    N  requests    V  vocabulary    K  candidates    B  int32 words of a bit mask    E  tokens that end an answer
"""

from __future__ import annotations

from typing import NamedTuple

import torch

# Enough for the nucleus of almost every distribution of a trained model.
NUM_CANDIDATES = 1024

# The likeliest token's weight. Below 2**45, so that 2**18 tokens that tie do not overflow their sum.
_UNIT = 2.0**44
# How far below min-p a probability may be: half of a float32's precision, so that equal float32 numbers are equal.
_MIN_P_SLACK = 2.0**-25


class Parameters(NamedTuple):
    """The sampling parameters of N requests, each float64 [N] on the logits' device.

    ``Parameters(*packed_PN)`` makes them of one tensor [7, N], which one copy brings to a device.

    temperature: 0 is greedy.
    top_k: a whole number; 0 is off, and so is anything from the size of the vocabulary on.
    top_p: in (0, 1]; 1 is off.
    min_p: in [0, 1]; 0 is off.
    repetition_penalty: 1 is off; ``presence_penalty``, ``frequency_penalty``: 0 is off.
    """

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    repetition_penalty: torch.Tensor
    presence_penalty: torch.Tensor
    frequency_penalty: torch.Tensor


# The lines of packed sampling parameters: those of ``Parameters``, and the uniform number.
NUM_LINES = len(Parameters._fields) + 1


class Choice(NamedTuple):
    """The chosen token ids, int64 [N], and per row what the host has to look at before it takes them.

    highest: float32 [N], the highest logit. Where it is not finite, the token means nothing: NaN or infinity in the
        logits, or no token left.
    needs_fallback: bool [N], where the candidates were too few, so that the token means nothing; a slower path has to
        choose with the same uniform number.
    """

    tokens: torch.Tensor
    highest: torch.Tensor
    needs_fallback: torch.Tensor


def choose(
    logits_NV: torch.Tensor, parameters: Parameters, uniforms_N: torch.Tensor, num_candidates: int = NUM_CANDIDATES
) -> Choice:
    """The next token of each row, drawn with one uniform number in [0, 1), float64 [N], by the inverse of its CDF.

    The CDF runs over the kept tokens in the order of their ids. ``logits_NV``: float32, after ``mask`` and
    ``penalize``. ``num_candidates``: within how many of the likeliest tokens top-k and top-p are decided. Fallbacks are
    needed where top-k is above it, and where top-p's nucleus is larger.
    """
    highest_N1 = logits_NV.amax(-1, keepdim=True)
    temperature_N1 = parameters.temperature[:, None]
    is_greedy_N1 = temperature_N1 == 0
    # The smallest temperatures overflow float32; in float64 the likeliest token is then the only one left.
    scaled_NV = (logits_NV.double() - highest_N1) / torch.where(is_greedy_N1, 1.0, temperature_N1)
    scaled_NV = scaled_NV.float()
    candidates_NK = scaled_NV.topk(min(num_candidates, scaled_NV.shape[1])).values
    least_N1, needs_more_N1 = _find_top_k(candidates_NK, scaled_NV.shape[1], parameters)
    weights_NV = _weigh(scaled_NV, least_N1)
    last_N1, num_ties_N1, is_larger_N1 = _find_nucleus(candidates_NK, least_N1, weights_NV, parameters)
    is_tie_NV = scaled_NV == last_N1
    is_kept_NV = (scaled_NV > last_N1) | (is_tie_NV & (is_tie_NV.cumsum(-1) <= num_ties_N1))
    is_kept_NV &= scaled_NV >= (parameters.min_p.log() - _MIN_P_SLACK).float()[:, None]
    tokens_N1 = _invert_cdf(torch.where(is_kept_NV, weights_NV, 0), uniforms_N[:, None])
    tokens_N1 = torch.where(is_greedy_N1, logits_NV.argmax(-1, keepdim=True), tokens_N1)
    return Choice(tokens_N1[:, 0], highest_N1[:, 0], ((needs_more_N1 | is_larger_N1) & ~is_greedy_N1)[:, 0])


def pack_choice(logits_NV: torch.Tensor, lines_PN: torch.Tensor | None) -> torch.Tensor:
    """``choose`` as one tensor in and one out, each of which one copy brings to or from a device.

    Args:
        lines_PN: float64 [NUM_LINES, N], the parameters and the uniform numbers; None where all rows are greedy.

    Returns the tokens, the highest logits, and where a fallback is needed, float64 [3, N].
    """
    if lines_PN is None:
        highest_N, tokens_N = logits_NV.max(-1)
        chosen = Choice(tokens_N, highest_N, torch.zeros_like(tokens_N))
    else:
        *parameters, uniforms_N = lines_PN
        chosen = choose(logits_NV, Parameters(*parameters), uniforms_N)
    return torch.stack([part.double() for part in chosen])


def _weigh(scaled: torch.Tensor, least_N1: torch.Tensor) -> torch.Tensor:
    """Weights of scaled logits as whole numbers, 0 where they are below ``least_N1``."""
    return torch.where(scaled >= least_N1, scaled.exp() * _UNIT, 0).long()


def _find_top_k(
    candidates_NK: torch.Tensor, num_tokens: int, parameters: Parameters
) -> tuple[torch.Tensor, torch.Tensor]:
    """The least scaled logit that top-k keeps [N, 1], and where top-k is more than the candidates."""
    top_k_N1, num_candidates = parameters.top_k.long()[:, None], candidates_NK.shape[1]
    is_on_N1 = (top_k_N1 > 0) & (top_k_N1 < num_tokens)
    least_N1 = candidates_NK.gather(1, top_k_N1.clamp(1, num_candidates) - 1)
    return torch.where(is_on_N1, least_N1, -torch.inf), is_on_N1 & (top_k_N1 > num_candidates)


def _find_nucleus(
    candidates_NK: torch.Tensor, least_N1: torch.Tensor, weights_NV: torch.Tensor, parameters: Parameters
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The least scaled logit of top-p's nucleus [N, 1], how many tokens with it belong to it, where it is larger."""
    top_p_N1 = parameters.top_p[:, None]
    is_on_N1 = top_p_N1 < 1
    weights_NK = _weigh(candidates_NK, least_N1)
    until_NK = weights_NK.cumsum(-1)
    enough_N1 = weights_NV.sum(-1, keepdim=True) * top_p_N1
    # A token belongs to it if all likelier ones together are not enough; the likeliest always does.
    is_inside_NK = (until_NK - weights_NK) < enough_N1
    last_N1 = candidates_NK.gather(1, is_inside_NK.sum(-1, keepdim=True).clamp(min=1) - 1)
    num_ties_N1 = (is_inside_NK & (candidates_NK == last_N1)).sum(-1, keepdim=True).clamp(min=1)
    has_more = candidates_NK.shape[1] < weights_NV.shape[1]
    is_larger_N1 = is_on_N1 & (until_NK[:, -1:] < enough_N1) & has_more
    return torch.where(is_on_N1, last_N1, -torch.inf), num_ties_N1, is_larger_N1


def _invert_cdf(weights_NV: torch.Tensor, uniforms_N1: torch.Tensor) -> torch.Tensor:
    """The token [N, 1] at which the sum of the weights first exceeds each uniform number's share of all of them."""
    cdf_NV = weights_NV.cumsum(-1)
    total_N1 = cdf_NV[:, -1:]
    share_N1 = (uniforms_N1 * total_N1).long().minimum(total_N1 - 1)
    return torch.searchsorted(cdf_NV, share_N1, right=True).clamp(max=weights_NV.shape[1] - 1)


def penalize(logits_NV: torch.Tensor, parameters: Parameters, counts_NV: torch.Tensor) -> torch.Tensor:
    """The logits after the penalties; ``counts_NV``: int, how many times each token is in the row's answer so far."""
    penalized_NV = penalize_seen(logits_NV, counts_NV, *(part[:, None] for part in parameters[4:]))
    return torch.where(counts_NV > 0, penalized_NV, logits_NV)


def penalize_seen(
    logits: torch.Tensor,
    counts: torch.Tensor,
    repetition_penalty: torch.Tensor,
    presence_penalty: torch.Tensor,
    frequency_penalty: torch.Tensor,
) -> torch.Tensor:
    """The logits of tokens that an answer has ``counts`` times, after its penalties; all float64 but the logits."""
    old = logits.double()
    new = torch.where(old < 0, old * repetition_penalty, old / repetition_penalty)
    new = new - (presence_penalty + frequency_penalty * counts)
    # A tiny penalty divides a logit beyond float32: keep it finite.
    return new.clamp(max=torch.finfo(logits.dtype).max).to(logits.dtype)


def mask(logits_NV: torch.Tensor, bits_NB: torch.Tensor, closing_N: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
    """The logits, minus infinity where a row's bit is 0; int32 bits, token v is bit v % 32 of word v // 32.

    Where the likeliest of all tokens is one of ``ends_E`` and not allowed, its logit goes to ``closing_N`` (int64; -1
    for none): the token that closes the open string, array or object. Otherwise the model would continue with its next
    best token, mostly the same syllable again and again. It is ``GrammarMatcher.mask_logits`` for all rows at once, of
    ``compute_bits`` and ``find_closing_token``.
    """
    num_tokens, device = logits_NV.shape[1], logits_NV.device
    places_32 = torch.arange(32, device=device, dtype=torch.int32)
    is_allowed_NV = (bits_NB[:, :, None] >> places_32 & 1).flatten(1)[:, :num_tokens].bool()
    missing = num_tokens - is_allowed_NV.shape[1]
    is_allowed_NV = torch.nn.functional.pad(is_allowed_NV, (0, max(missing, 0)))
    masked_NV = torch.where(is_allowed_NV, logits_NV, -torch.inf)
    highest_N = logits_NV.amax(-1)
    wants_end_N = (logits_NV[:, ends_E].amax(-1) == highest_N) & ~is_allowed_NV[:, ends_E].any(-1)
    closing_N1 = closing_N.clamp(min=0)[:, None]
    old_N1 = masked_NV.gather(1, closing_N1)
    closes_N1 = (wants_end_N & (closing_N >= 0))[:, None]
    return masked_NV.scatter(1, closing_N1, torch.where(closes_N1, highest_N[:, None], old_N1))


def rank(logits_NV: torch.Tensor, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What log-probabilities need: float64 [N], the logarithm of the sum of e**logit, and the ``num`` likeliest tokens.

    A token's log-probability is its logit minus that logarithm.
    """
    return logits_NV.double().logsumexp(-1), logits_NV.topk(min(num, logits_NV.shape[1])).indices
