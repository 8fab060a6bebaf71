"""Samples are ordered by length and modality: as the originals do, and better."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from llava.data.records import Record
from llava.errors import UsageError
from llava.train.dataset import order
from llava.train.dataset.order import (
    GroupedSampler,
    LengthGroupedSampler,
    count_words,
    count_words_by_modality,
    get_length_grouped_indices,
    get_length_grouped_indices_auto_single,
    get_modality_length_grouped_indices,
    get_modality_length_grouped_indices_auto,
    get_variable_length_grouped_indices,
    split_to_even_chunks,
)
from tests.gold.training import inputs

CALLED_IN_1_5 = ("get_length_grouped_indices", "get_modality_length_grouped_indices", "LengthGroupedSampler")


def draw_lengths(seed: int, count: int, *, mixed: bool = True) -> list[int]:
    rng = random.Random(seed)
    return [rng.randint(1, 60) * (rng.choice((1, 1, -1)) if mixed else 1) for _ in range(count)]


def test_a_samples_words_are_counted_as_in_the_originals() -> None:
    text, image = Record("a", (), (("human", "a b"), ("gpt", "c"))), Record("a", ("x",), (("human", "a b"),))
    assert [count_words(text), count_words(image)] == [3, 130]
    assert [count_words_by_modality(text), count_words_by_modality(image)] == [-3, 2]


@pytest.mark.parametrize(
    ("lengths", "num_chunks", "chunks"),
    [([9, 5, 4, 1], 2, [[0, 3], [1, 2]]), ([9, 5, 4], 2, [[0, 2], [1]]), ([3], 3, [[0], [], []]), ([], 2, [[], []])],
)
def test_chunks_are_of_about_equal_length(lengths: list[int], num_chunks: int, chunks: list[list[int]]) -> None:
    assert split_to_even_chunks(list(range(len(lengths))), lengths, num_chunks) == chunks


@pytest.mark.parametrize("seed", range(6))
def test_each_megabatch_but_the_last_is_of_one_modality(seed: int) -> None:
    lengths = draw_lengths(seed, 43)
    indices = get_modality_length_grouped_indices(lengths, 2, 3)
    assert sorted(indices) == list(range(43))
    num_rest = sum((count - 1) % 6 + 1 for count in (sum(x > 0 for x in lengths), sum(x < 0 for x in lengths)))
    assert indices[-num_rest:] == sorted(indices[-num_rest:])
    for start in range(0, 43 - num_rest, 6):
        assert len({lengths[i] > 0 for i in indices[start : start + 6]}) == 1
    kept = get_modality_length_grouped_indices_auto(lengths, 2, 3)
    assert len(kept) == len(set(kept)) == 43 - num_rest


@pytest.mark.parametrize(
    "group",
    [get_length_grouped_indices, get_length_grouped_indices_auto_single, get_variable_length_grouped_indices],
)
def test_orders_within_a_modality_are_drawn_from_the_generator_or_the_global_state(group: object) -> None:
    lengths = draw_lengths(1, 40, mixed=False)
    torch.manual_seed(3)
    first = group(lengths, 2, 2)  # type: ignore[operator]
    torch.manual_seed(3)
    assert group(lengths, 2, 2) == first  # type: ignore[operator]
    assert group(lengths, 2, 2, generator=torch.Generator().manual_seed(3)) == first  # type: ignore[operator]
    assert sorted(first) == list(range(40))


def test_a_length_of_0_has_no_modality() -> None:
    with pytest.raises(UsageError, match="Sample 1 has the length 0"):
        get_modality_length_grouped_indices([3, 0, -2], 1, 1)


def test_the_originals_sampler_draws_a_new_order_for_each_epoch() -> None:
    sampler = LengthGroupedSampler(2, 2, draw_lengths(0, 30), group_by_modality=True)
    assert len(sampler) == 30
    torch.manual_seed(0)
    first, second = list(sampler), list(sampler)
    assert first != second
    torch.manual_seed(0)
    assert list(sampler) == first == get_back(0)
    with pytest.raises(ValueError, match="Lengths must be provided"):
        LengthGroupedSampler(2, 2)


def get_back(seed: int) -> list[int]:
    torch.manual_seed(seed)
    return get_modality_length_grouped_indices(draw_lengths(0, 30), 2, 2)


# --- the originals' own orders -----------------------------------------------------------------------------------

GOLD = {"1.5": inputs.gold("orders_15"), "next": inputs.gold("orders_next")}
CALLS = {
    "1.5": [case for function in CALLED_IN_1_5 for case in GOLD["1.5"][function]],
    "next": GOLD["next"]["calls"],
}


def call(case: dict[str, Any], original: str) -> Any:
    """What our function of that name gives for a case of the gold."""
    torch.manual_seed(case["seed"])
    generator = torch.Generator().manual_seed(case["seed"] + 1) if case["generator"] else None
    lengths = inputs.lengths(case["kind"], case["count"])
    if case["function"] != "LengthGroupedSampler":
        return getattr(order, case["function"])(lengths, case["batch_size"], case["world_size"], generator=generator)
    options = case.get("options", {"group_by_modality": case["kind"] != "images"})
    if original == "next":
        options = options | {"plain": get_length_grouped_indices_auto_single}
    sampler = LengthGroupedSampler(case["batch_size"], case["world_size"], lengths, generator, **options)
    return [list(sampler), list(sampler), *([len(sampler)] if original == "next" else [])]


@pytest.mark.parametrize("original", CALLS)
def test_orders_are_the_originals_for_every_size_seed_and_generator(original: str) -> None:
    assert len(CALLS[original]) > 100
    for case in CALLS[original]:
        if isinstance(case["result"], str):  # an exception
            with pytest.raises((UsageError, AssertionError)):
                call(case, original)
        else:
            assert call(case, original) == case["result"], case


def test_chunks_are_the_originals() -> None:
    for case in GOLD["1.5"]["split_to_even_chunks"]:
        chunks = split_to_even_chunks(case["indices"], case["lengths"], case["num_chunks"])
        assert chunks == case["result"], case


# --- our own -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 61])
@pytest.mark.parametrize("seed", range(3))
def test_our_sampler_keeps_every_sample_in_megabatches_of_one_modality(count: int, seed: int) -> None:
    signed = draw_lengths(seed, count)
    lengths, modalities = [abs(x) for x in signed], [x > 0 for x in signed]
    indices = list(GroupedSampler(2, 3, lengths, modalities, seed))
    assert sorted(indices) == list(range(count))
    num_whole = sum(modalities) // 6 + (count - sum(modalities)) // 6
    for start in range(0, num_whole * 6, 6):
        assert len({modalities[i] for i in indices[start : start + 6]}) == 1
    if num_whole:
        whole = indices[: num_whole * 6]
        assert max(lengths[i] for i in whole) in [lengths[i] for i in indices[:6]]


def test_our_order_follows_from_seed_and_epoch_and_leaves_the_global_state_alone() -> None:
    lengths = draw_lengths(0, 50, mixed=False)
    state = torch.get_rng_state()
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        sampler = GroupedSampler(2, 2, lengths, seed=seed)
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert list(sampler) == orders[-1]
    assert len(set(map(tuple, orders))) == 3
    assert torch.equal(state, torch.get_rng_state())


def test_our_sampler_goes_on_in_the_middle_of_an_epoch() -> None:
    lengths = draw_lengths(0, 50, mixed=False)
    sampler = GroupedSampler(2, 2, lengths)
    sampler.set_epoch(3)
    whole, state = list(sampler), sampler.state_dict(num_seen=17)
    resumed = GroupedSampler(2, 2, lengths)
    resumed.load_state_dict(state)
    resumed.set_epoch(3)  # as data loaders do before each epoch
    assert list(resumed) == whole[17:]
    assert list(resumed) == whole
    resumed.load_state_dict(state)
    resumed.set_epoch(4)
    assert len(list(resumed)) == 50


def test_our_batches_hold_less_padding_than_a_random_order() -> None:
    lengths = draw_lengths(5, 400, mixed=False)

    def count_padding(indices: list[int]) -> int:
        batches = [indices[i : i + 4] for i in range(0, 400, 4)]
        return sum(max(lengths[i] for i in batch) * len(batch) for batch in batches) - sum(lengths)

    shuffled = torch.randperm(400, generator=torch.Generator().manual_seed(0)).tolist()
    assert count_padding(list(GroupedSampler(4, 1, lengths))) < count_padding(shuffled) / 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1, [1]), "batch_size is 0"), ((1, 0, [1]), "world_size 0"), ((1, 1, [1], [True, False]), "2 modalities")],
)
def test_our_sampler_refuses_what_it_cannot_order(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GroupedSampler(*arguments)  # type: ignore[arg-type]
