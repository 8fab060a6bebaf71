"""Sampling compared with Transformers' own, and its limits."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.generation.logits_process import (
    ExponentialDecayLengthPenalty,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llava.engine.sampler import BadLogits, Sampler, filter_logits, sample_all
from llava.errors import UsageError
from llava.model.generation import Processors
from llava.sampling import Sampling

NO_IDS = torch.zeros(1, 1, dtype=torch.long)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"), [(5, None, 0.0), (None, 0.7, 0.0), (None, None, 0.2), (20, 0.9, 0.05)]
)
def test_unlikely_tokens_are_filtered_as_in_transformers(
    seed: int, top_k: int | None, top_p: float | None, min_p: float
) -> None:
    logits = 3 * torch.randn(1, 50, generator=torch.Generator().manual_seed(seed))
    expected = logits
    if top_k:
        expected = TopKLogitsWarper(top_k)(NO_IDS, expected)
    if top_p:
        expected = TopPLogitsWarper(top_p)(NO_IDS, expected)
    if min_p:
        expected = MinPLogitsWarper(min_p)(NO_IDS, expected)
    kept = filter_logits(logits[0], Sampling(temperature=1, top_k=top_k, top_p=top_p, min_p=min_p))
    torch.testing.assert_close(kept, expected[0])


def test_penalties_are_those_of_transformers_and_openai() -> None:
    logits = torch.tensor([2.0, -1.0, 1.5, 1.9])
    sampler = Sampler(Sampling(repetition_penalty=1.5), Counter({0: 2, 1: 1}))
    said = torch.tensor([[0, 0, 1]])
    expected = RepetitionPenaltyLogitsProcessor(1.5)(said, logits[None])[0]
    torch.testing.assert_close(sampler._apply_penalties(logits), expected)
    sampler = Sampler(Sampling(presence_penalty=0.5, frequency_penalty=0.25), Counter({0: 2, 1: 1}))
    torch.testing.assert_close(sampler._apply_penalties(logits), torch.tensor([1.0, -1.75, 1.5, 1.9]))
    assert sampler.sample(logits).token == 3
    assert sampler.counts[3] == 1


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0])
    sampler = Sampler(Sampling(temperature=2.0, seed=4))
    drawn = Counter(sampler.sample(logits).token for _ in range(4000))
    for token, share in enumerate((logits / 2).softmax(-1).tolist()):
        assert drawn[token] / 4000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("temperature", [1e-30, 1e-45, 1e-300, 5e-324])
def test_the_least_temperatures_are_greedy(temperature: float) -> None:
    logits = torch.tensor([0.5, 7.25, -torch.inf, 7.0])
    sampler = Sampler(Sampling(temperature=temperature, seed=1, top_p=0.9, min_p=0.1))
    assert {sampler.sample(logits).token for _ in range(20)} == {1}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_extreme_penalties_favour_or_exclude_tokens_and_never_fail(temperature: float) -> None:
    logits = torch.tensor([1.0, -1.0, 0.0, 2.0])
    for penalty, likely in ((1e-300, {0}), (1e300, {0, 2, 3}), (5e-324, {0})):
        sampler = Sampler(Sampling(temperature=temperature, seed=1, repetition_penalty=penalty))
        for _ in range(50):
            sampler.counts = Counter({0: 1, 1: 1, 2: 3})
            assert sampler.sample(logits).token in likely
    # Masked tokens stay masked, and if no token is left there is an error.
    sampler = Sampler(Sampling(temperature=temperature, seed=1, repetition_penalty=1e300), Counter({0: 1, 1: 1}))
    with pytest.raises(UsageError, match="penalties"):
        sampler.sample(torch.tensor([-1.0, -torch.inf]))


def test_nan_and_infinite_logits_are_errors() -> None:
    logits = torch.tensor([[0.0, float("nan"), 1.0], [0.0, -float("inf"), 1.0], [0.0, float("inf"), 1.0]])
    sampled = sample_all(logits, [Sampler(Sampling()) for _ in range(3)])
    assert isinstance(sampled[0], BadLogits)
    assert sampled[1] == (2, None, ())
    assert isinstance(sampled[2], BadLogits)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", 0),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -3),
        ("logprobs", 21),
        ("stop", ("",)),
    ],
)
def test_a_setting_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(UsageError):
        Sampling(**{field: value})  # type: ignore[arg-type]


def test_beam_search_refuses_settings_that_it_would_ignore() -> None:
    with pytest.raises(UsageError, match="seed cannot be combined with 2 beams"):
        Sampling(num_beams=2, seed=3)


def process(allowed_V: torch.Tensor, processor: Any, logits_V: torch.Tensor, **sampling: Any) -> torch.Tensor:
    """Logits [V] masked by a grammar and changed by a logits processor."""
    grammar: Any = SimpleNamespace(mask_logits=lambda _: allowed_V)
    sampler = Sampler(Sampling(**sampling), grammar=grammar, processors=Processors(processor, LogitsProcessorList()))
    return sampler.process(logits_V)


def test_a_grammar_wins_where_the_settings_bar_every_token_that_it_allows() -> None:
    logits = torch.tensor([2.0, 1.0, 0.5])
    allowed = torch.tensor([-torch.inf, 1.0, 0.5])
    bars = [SuppressTokensLogitsProcessor([1, 2])]
    assert process(allowed, LogitsProcessorList(bars), logits).argmax() == 1
    some = [SuppressTokensLogitsProcessor([1])]
    assert process(allowed, LogitsProcessorList(some), logits).argmax() == 2


def test_a_processor_makes_no_token_likely_that_the_grammar_does_not_allow() -> None:
    logits = torch.tensor([2.0, 1.0, 0.5])
    allowed = torch.tensor([-torch.inf, 1.0, 0.5])
    forced = LogitsProcessorList([ForcedEOSTokenLogitsProcessor(1, 0)])
    assert process(allowed, forced, logits).argmax() == 1
    # It multiplies the end token's logit, which turns minus infinity into NaN.
    grows = LogitsProcessorList([ExponentialDecayLengthPenalty((0, 2.0), 0, -1)])
    grows[0].regulation_start = -1
    assert process(allowed, grows, logits).tolist() == allowed.tolist()
