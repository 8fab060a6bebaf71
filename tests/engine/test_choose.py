"""Choosing the tokens of all requests at once, compared with choosing for one request after the other."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llava.engine.choose import Choice, Parameters, choose, mask, penalize, rank
from llava.engine.sampler import BadLogits, SampledToken, Sampler, filter_logits, sample_all
from llava.errors import UsageError
from llava.native import library
from llava.sampling import Sampling

WAYS = ["native", "torch"]
# How far probabilities may be from those of the slow way, which adds float32 numbers.
TOLERANCE = 3e-6
UNIFORMS = [0.0, 1e-9, *(i / 17 for i in range(1, 17)), 1 - 1e-9, 1 - 2.0**-53]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tokens are chosen by the native library, or by torch as on a GPU."""
    use_way(request.param, monkeypatch)
    return str(request.param)


def use_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "torch":
        monkeypatch.setattr(library, "load", lambda: None)
    elif library.load() is None:
        pytest.skip(library.status())


class Fixed(Sampler):
    """A sampler whose uniform number is given."""

    uniform = 0.0

    def draw_uniform(self) -> float:
        return self.uniform


def fixed(sampling: Sampling, uniform: float) -> Fixed:
    sampler = Fixed(sampling)
    sampler.uniform = uniform
    return sampler


def pack(samplings: list[Sampling]) -> Parameters:
    rows = [
        (*Sampler(one).parameters, one.repetition_penalty or 1, one.presence_penalty, one.frequency_penalty)
        for one in samplings
    ]
    return Parameters(*torch.tensor(rows, dtype=torch.float64).T)


def choose_fixed(logits_V: torch.Tensor, sampling: Sampling, uniforms: list[float]) -> list[int]:
    """The token for each uniform number."""
    rows = logits_V.expand(len(uniforms), -1).contiguous()
    return [token_of(one) for one in sample_all(rows, [fixed(sampling, uniform) for uniform in uniforms])]


def token_of(sampled: SampledToken | Exception) -> int:
    assert isinstance(sampled, SampledToken), sampled
    return sampled.token


def find_tokens(logits_V: torch.Tensor, sampling: Sampling, uniforms: list[float]) -> list[set[int]]:
    """The tokens that the slow way finds for each uniform number, or for numbers within the tolerance."""
    found: list[set[int]] = [set() for _ in uniforms]
    top_p, min_p = sampling.top_p or 1.0, sampling.min_p
    nearby = itertools.product(
        {top_p, max(top_p - TOLERANCE, top_p / 2), min(top_p + TOLERANCE, (1 + top_p) / 2)},
        {min_p, min_p * (1 - TOLERANCE), min(1.0, min_p * (1 + TOLERANCE))},
    )
    for near_top_p, near_min_p in nearby:
        sampler = Sampler(replace(sampling, top_p=near_top_p, min_p=near_min_p))
        processed_V = sampler.process(logits_V)
        cdf_V = processed_V.double().softmax(-1).cumsum(-1)
        cdf_V /= cdf_V[-1].clone()
        kept = (processed_V > -torch.inf).nonzero()[:, 0]
        for tokens, uniform in zip(found, uniforms, strict=True):
            near = torch.tensor([max(0.0, uniform - TOLERANCE), uniform, min(uniform + TOLERANCE, 1 - 2.0**-53)])
            first, _, last = torch.searchsorted(cdf_V, near.double(), right=True).tolist()
            tokens.update(kept[(kept >= first) & (kept <= last)].tolist())
    return found


LOGITS = st.one_of(
    st.floats(-30, 30, width=32),
    st.integers(-6, 6).map(float),
    st.sampled_from([-torch.inf, 0.0, -0.0, 3e38, -3e38, 1e-40, 700.0, 1e4]),
)
SETTINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([5e-324, 1e-30, 1e-6, 0.01, 0.7, 1.0, 1.3, 40.0, 1e9, 1e300]),
    top_k=st.sampled_from([None, 1, 2, 5, 40, 10**12]),
    top_p=st.sampled_from([None, 1e-9, 0.1, 0.5, 0.9, 0.95, 0.999, 1 - 1e-9, 1.0]),
    min_p=st.sampled_from([0.0, 1e-9, 0.05, 0.5, 1.0]),
    seed=st.just(1),
)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None)
@given(logits=st.lists(LOGITS, min_size=1, max_size=300).filter(lambda row: max(row) > -torch.inf), sampling=SETTINGS)
@example(logits=[0.0] * 200, sampling=Sampling(temperature=1.0, top_p=0.5, seed=1))
@example(logits=[1.0, 2.0, 2.0, 2.0, 0.0], sampling=Sampling(temperature=1.0, top_p=0.6, seed=1))
@example(logits=[1e4, 1e-3, 1.1e-3, 0.0], sampling=Sampling(temperature=1e4, top_k=2, seed=1))
def test_any_logits_and_settings_choose_what_one_request_alone_would(
    way: str, logits: list[float], sampling: Sampling
) -> None:
    logits_V = torch.tensor(logits)
    with pytest.MonkeyPatch.context() as patch:
        use_way(way, patch)
        patch.setattr("llava.engine.choose.choose", lambda *inputs: choose(*inputs, num_candidates=16))
        chosen = choose_fixed(logits_V, sampling, UNIFORMS)
    for token, allowed in zip(chosen, find_tokens(logits_V, sampling, UNIFORMS), strict=True):
        assert token in allowed


def shape_logits(kind: str, num_tokens: int) -> torch.Tensor:
    noise = torch.randn(num_tokens, generator=torch.Generator().manual_seed(len(kind)))
    logits = {
        "flat": 0.3 * noise,
        "equal": torch.zeros(num_tokens),
        "spread": 3 * noise,
        "rounded": (2 * noise + 20).bfloat16().float(),
        "sorted": noise.sort().values,
        "one": torch.where(torch.arange(num_tokens) == 777, 50.0, 0.0),
        "cluster": torch.where(torch.arange(num_tokens) < 5, 2.0, 1e-6 * noise - 4),
        "masked": torch.where(torch.arange(num_tokens) % 1000 == 7, noise, -torch.inf),
    }[kind]
    return logits.contiguous()


@pytest.mark.parametrize("kind", ["flat", "equal", "spread", "rounded", "sorted", "one", "cluster", "masked"])
def test_large_vocabularies_choose_what_one_request_alone_would(kind: str, way: str) -> None:
    logits_V = shape_logits(kind, 128_256 if way == "native" else 20_001)
    uniforms = UNIFORMS[::4]
    for numbers in ({}, {"top_k": 50}, {"top_k": 3000, "top_p": 0.8}, {"top_p": 0.95}, {"top_p": 0.3, "min_p": 0.2}):
        sampling = Sampling(temperature=0.8, seed=1, **numbers)  # type: ignore[arg-type]
        chosen = choose_fixed(logits_V, sampling, uniforms)
        for token, allowed in zip(chosen, find_tokens(logits_V, sampling, uniforms), strict=True):
            assert token in allowed, numbers


def test_a_grid_of_uniform_numbers_gives_every_token_its_probability(way: str) -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, -2.0, 2.5, -torch.inf, 2.0])
    sampling = Sampling(temperature=1.5, top_k=5, top_p=0.97, min_p=0.01, seed=1)
    num = 2000
    drawn = Counter(choose_fixed(logits, sampling, [(i + 0.5) / num for i in range(num)]))
    for token, probability in enumerate(Sampler(sampling).process(logits).softmax(-1).tolist()):
        assert abs(drawn[token] - num * probability) <= 1
        assert (drawn[token] == 0) == (probability == 0)


def test_a_tiny_nucleus_is_greedy_where_tokens_tie(way: str) -> None:
    logits = torch.tensor([1.0, 4.0, 4.0, 4.0])
    assert set(choose_fixed(logits, Sampling(temperature=1.0, top_p=1e-9, seed=1), UNIFORMS)) == {1}
    assert set(choose_fixed(logits, Sampling(), UNIFORMS)) == {1}
    kept = filter_logits(logits, Sampling(temperature=1.0, top_p=0.6)) > -torch.inf
    assert kept.tolist() == [False, True, True, False]


def make_mixed(num_tokens: int) -> tuple[torch.Tensor, Callable[[], list[Sampler]]]:
    """Logits of ten requests with different settings, and their samplers."""
    logits = 2 * torch.randn(10, num_tokens, generator=torch.Generator().manual_seed(3))
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.9, "logprobs": 3},
        {"temperature": 2.0, "top_p": 0.999},
        {"temperature": 1.0, "top_k": 7, "presence_penalty": 1.5},
        {"repetition_penalty": 1.8},
        {"temperature": 1.0, "min_p": 0.1, "frequency_penalty": 0.3, "logprobs": 0},
        {"temperature": 1.0, "top_k": 2000, "top_p": 0.5},
        {"logprobs": 20},
        {"temperature": 1e-6},
    ]

    def start() -> list[Sampler]:
        return [Sampler(Sampling(seed=i, **kind), Counter({i: 2, 3: 1})) for i, kind in enumerate(kinds)]

    return logits, start


def test_the_other_requests_of_a_step_change_nothing(way: str) -> None:
    logits, start = make_mixed(5003)
    together, apart = start(), start()
    order = [7, 2, 9, 0, 4, 1, 8, 3, 6, 5]
    for _ in range(6):
        all_at_once = sample_all(logits[order], [together[i] for i in order])
        one_by_one = {i: sample_all(logits[i : i + 1], [apart[i]])[0] for i in range(10)}
        assert all_at_once == [one_by_one[i] for i in order]


def test_the_slow_way_and_both_fast_ways_draw_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, start = make_mixed(5003)
    slow, native, by_torch = start(), start(), start()
    for _ in range(6):
        expected = [sampler.sample(row).token for sampler, row in zip(slow, logits, strict=True)]
        assert [token_of(one) for one in sample_all(logits, native)] == expected
        with monkeypatch.context() as patch:
            use_way("torch", patch)
            assert [token_of(one) for one in sample_all(logits, by_torch)] == expected


def test_log_probabilities_are_the_models_own(way: str) -> None:
    logits, start = make_mixed(5003)
    for row, sampler, sampled in zip(logits, samplers := start(), sample_all(logits, samplers), strict=True):
        assert isinstance(sampled, SampledToken)
        if (num := sampler.sampling.logprobs) is None:
            assert sampled[1:] == (None, ())
            continue
        expected = row.log_softmax(-1)
        assert sampled.logprob == pytest.approx(float(expected[sampled.token]), abs=1e-5)
        assert [token for token, _ in sampled.top] == expected.topk(num).indices.tolist()
        torch.testing.assert_close(torch.tensor([x for _, x in sampled.top]), expected.topk(num).values)


def test_more_log_probabilities_than_tokens_are_all_of_them(way: str) -> None:
    sampled = sample_all(torch.tensor([[1.0, -torch.inf, 1.0]]), [Sampler(Sampling(logprobs=20))])[0]
    assert isinstance(sampled, SampledToken)
    assert {token: round(logprob, 4) for token, logprob in sampled.top} == {0: -0.6931, 2: -0.6931, 1: -torch.inf}


def test_a_request_that_cannot_go_on_fails_alone(way: str) -> None:
    logits = torch.randn(6, 200, generator=torch.Generator().manual_seed(5))
    logits[1, 199], logits[2, 64], logits[3] = torch.nan, torch.inf, -torch.inf
    logits[4] = -1.0
    barred = Sampler(Sampling(temperature=1.0, seed=1, repetition_penalty=1e300), Counter(dict.fromkeys(range(200), 1)))
    samplers = [*(Sampler(Sampling(temperature=1.0, seed=1)) for _ in range(4)), barred, Sampler(Sampling())]
    sampled = sample_all(logits, samplers)
    assert [type(one) for one in sampled] == [SampledToken, *[BadLogits] * 3, UsageError, SampledToken]
    assert token_of(sampled[0]) == sample_all(logits[:1], [Sampler(Sampling(temperature=1.0, seed=1))])[0][0]  # type: ignore[index]


def test_where_the_memory_ends_the_requests_of_the_step_fail(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*inputs: Any) -> Any:
        raise MemoryError("full")

    monkeypatch.setattr("llava.engine.choose.choose", refuse)
    monkeypatch.setattr("llava.native.calls.choose", refuse)
    failed = sample_all(torch.zeros(2, 9), [Sampler(Sampling()), Sampler(Sampling(temperature=1.0, seed=1))])
    assert [type(one) for one in failed] == [MemoryError] * 2


def test_a_fallback_is_needed_exactly_where_the_candidates_are_too_few() -> None:
    logits = torch.arange(100).float().neg().mul(0.05).repeat(7, 1)
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0, "top_p": 0.99},
        {"temperature": 1.0},
        {"temperature": 1.0, "top_k": 20},
        {"temperature": 1.0, "top_k": 21},
        {"temperature": 1.0, "top_k": 100},
        {"temperature": 1.0, "top_p": 0.6},
        {"temperature": 1.0, "top_p": 0.66},
    ]
    inside = 1 - torch.tensor(-0.05 * 20).exp()  # the share of 20 of infinitely many
    assert 0.6 < inside < 0.66
    choice = choose(logits, pack([Sampling(**kind) for kind in kinds]), torch.full((7,), 0.5, dtype=torch.float64), 20)
    assert choice.needs_fallback.tolist() == [False, False, False, True, False, False, True]


def test_choosing_never_looks_at_numbers_on_the_host() -> None:
    """Tensors without numbers pass through, so a CUDA graph can capture it."""
    with torch.device("meta"):
        logits, numbers = torch.empty(3, 1000), torch.empty(7, 3, dtype=torch.float64)
        bits, ids = torch.empty(3, 32, dtype=torch.int32), torch.empty(3, dtype=torch.int64)
        counts = torch.empty(3, 1000, dtype=torch.int32)
        masked = penalize(mask(logits, bits, ids, ids), Parameters(*numbers), counts)
        choice = choose(masked, Parameters(*numbers), numbers[0])
        assert isinstance(choice, Choice)
        assert [each.shape for each in (*choice, *rank(logits, 5))] == [*[(3,)] * 4, (3, 5)]


def test_penalties_of_all_requests_are_those_of_each() -> None:
    logits, start = make_mixed(50)
    samplers = start()
    counts = torch.tensor([[sampler.counts[token] for token in range(50)] for sampler in samplers])
    penalized = penalize(logits, pack([sampler.sampling for sampler in samplers]), counts)
    assert torch.equal(penalized, torch.stack([s.prepare(row) for s, row in zip(samplers, logits, strict=True)]))
    assert (penalized != logits).sum() == 3 * 2
