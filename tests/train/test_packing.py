"""Packed samples learn exactly what they learn in rows of their own."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.constants import IGNORE_INDEX
from llava.errors import UsageError
from llava.model import packed_attention
from llava.train.dataset.batches import InstructionCollator
from llava.train.dataset.packing import PackedCollator, PackedData, pack
from llava.train.speed.chunked_loss import build_target_loss
from tests.tiny import FAMILIES, ROWS, SIZES, SLOT, SQUARE, TILE_PX, TILES, make_model, make_pixels

EOS = 2


def make_sample(ids: list[int], tiles: tuple[int, ...] = (), sizes: Any = (), targets: int = 3) -> dict[str, Any]:
    labels = torch.tensor([IGNORE_INDEX] * (len(ids) - targets) + ids[-targets:])
    return {
        "input_ids": torch.tensor(ids),
        "labels": labels.masked_fill(labels == SLOT, IGNORE_INDEX),
        "images": make_pixels(*tiles, seed=len(ids)),
        "image_sizes": list(sizes),
    }


def make_anyres() -> list[dict[str, Any]]:
    """Two images in one sample, one that begins and ends with targets, one that begins with its image, and text."""
    return [
        make_sample([*ROWS[0], EOS], TILES[:2], SIZES[:2]),
        make_sample([5, 6, 7, EOS], targets=4),
        make_sample([SLOT, 6, EOS], TILES[2:], SIZES[2:], targets=2),
        make_sample([*ROWS[2], EOS], targets=2),
    ]


def make_square() -> list[dict[str, Any]]:
    return [make_sample([1, 5, SLOT, 7, 8], (1,), [(20, 20)]), make_sample([1, SLOT, 6, 9], (1,), [(8, 9)])]


def make_text() -> list[dict[str, Any]]:
    return [make_sample([1, *range(3, end)], targets=2) for end in (20, 6, 30)]


def learn(model: Any, batch: dict[str, Any], **arguments: Any) -> dict[str, torch.Tensor]:
    """The loss, and the gradient of every parameter that got one."""
    model.zero_grad()
    loss = model(**batch, **arguments).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    torch.testing.assert_close(one["loss"], other["loss"], rtol=1e-6, atol=0)
    whole = torch.cat([other[name].flatten() for name in other if name != "loss"]).norm()
    for name, value in one.items():
        # Relative to the whole gradient: that of a key's bias is zero but for rounding.
        assert float((value - other[name]).norm()) <= 1e-6 * float(whole), name


def assert_packing_changes_nothing(model: Any, samples: list[dict[str, Any]], **arguments: Any) -> None:
    unpacked = learn(model, InstructionCollator(pad_id=0)(samples), **arguments)
    assert_equal(learn(model, PackedCollator()(samples), **arguments), unpacked)


@pytest.fixture(params=["sdpa", "eager", "sdpa_packed"])
def attention(request: pytest.FixtureRequest) -> str:
    packed_attention.register()
    name: str = request.param
    return name


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_unpacked_samples(family: str, attention: str) -> None:
    for make, changes in ((make_anyres, {}), (make_square, SQUARE), (make_text, {})):
        model = make_model(family, **changes).train()
        model.config._attn_implementation = attention
        model.get_vision_tower().requires_grad_(True)
        assert_packing_changes_nothing(model, make())


def test_a_sliding_window_slides_within_each_sample(attention: str) -> None:
    model = make_model("mistral", sliding_window=7).train()
    model.config._attn_implementation = attention
    assert_packing_changes_nothing(model, make_anyres())
    assert_packing_changes_nothing(model, make_text())
    wide = learn(make_model("mistral", sliding_window=None), PackedCollator()(make_text()))
    assert not torch.isclose(learn(model, PackedCollator()(make_text()))["loss"], wide["loss"], rtol=1e-5)


def test_answer_weights_items_counted_elsewhere_and_checkpointing_are_those_of_unpacked_samples() -> None:
    model = make_model().train()
    model.config._attn_implementation = packed_attention.register()
    items = torch.tensor(50)
    assert_packing_changes_nothing(model, make_anyres(), num_items_in_batch=items, logits_at_targets_only=True)
    samples = [make_sample([*sample["input_ids"][:-1].tolist(), 9, EOS], targets=2) for sample in make_text()]
    assert_packing_changes_nothing(model, samples, target_loss=build_target_loss(EOS, 0.5, chunk_logits=300))
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert_packing_changes_nothing(model, make_anyres())


def test_samples_that_see_each_other_would_be_noticed() -> None:
    model, samples = make_model(), make_text()
    apart = PackedCollator()(samples)
    together = {**apart, "position_ids": torch.arange(apart["input_ids"].shape[1])[None]}
    assert not torch.isclose(model(**apart).loss, model(**together).loss, rtol=1e-4)


def test_the_first_token_of_a_sample_is_no_target_but_keeps_its_own_label() -> None:
    samples = make_anyres()
    before = samples[1]["labels"].clone()
    batch = PackedCollator()(samples)
    starts = batch["position_ids"][0] == 0
    assert int(starts.sum()) == 4
    assert bool((batch["labels"][0][starts] == IGNORE_INDEX).all())
    assert torch.equal(samples[1]["labels"], before)
    num_targets = sum(int((sample["labels"][1:] != IGNORE_INDEX).sum()) for sample in samples)
    assert int((batch["labels"] != IGNORE_INDEX).sum()) == num_targets, "the number that the Trainer divides by"


def test_samples_are_cut_one_by_one_where_the_configuration_cuts_rows() -> None:
    model = make_model()
    model.config.truncate_to_model_max_length, model.config.tokenizer_model_max_length = True, 40
    assert_packing_changes_nothing(model, make_anyres())


def test_a_row_without_images_gets_a_blank_one_where_every_rank_has_to_call_the_tower() -> None:
    model = make_model()
    plain, blank = PackedCollator()(make_text()), PackedCollator(blank_px=TILE_PX)(make_text())
    assert "images" not in plain
    assert len(blank["images"]) == 1
    ours, theirs = learn(model, blank), learn(model, plain)
    assert not ours["model.mm_projector.0.weight"].any()
    assert_equal({name: ours[name] for name in theirs}, theirs)


def test_a_row_that_would_be_read_as_one_sample_is_refused() -> None:
    model, batch = make_model(), PackedCollator()(make_anyres())
    mask = torch.ones_like(batch["input_ids"])
    with pytest.raises(UsageError, match="leave attention_mask out"):
        model(**batch, attention_mask=mask)
    text = PackedCollator()(make_text())
    with pytest.raises(UsageError, match="but there are 2 rows"):
        model(input_ids=text["input_ids"].repeat(2, 1), position_ids=text["position_ids"].repeat(2, 1))


def test_a_left_padded_rows_position_ids_are_no_packing() -> None:
    model = make_model()
    ids, mask = torch.tensor([[0, 0, 1, 5, 6]]), torch.tensor([[0, 0, 1, 1, 1]])
    positions = torch.tensor([[0, 0, 0, 1, 2]])
    padded = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, 2:]
    torch.testing.assert_close(padded, model(input_ids=ids[:, 2:]).logits)


def test_packed_attention_is_sdpa_for_padded_rows_generation_and_the_tower() -> None:
    model = make_model("mistral", sliding_window=7)
    batch = InstructionCollator(pad_id=0)(make_anyres())
    images = {"images": make_pixels(5), "image_sizes": SIZES[:1]}
    question = torch.tensor([ROWS[1]])
    loss = model(**batch).loss
    answer = model.generate(question, max_new_tokens=12, do_sample=False, **images)
    packed_attention.register()
    model.set_attn_implementation(packed_attention.NAME)
    torch.testing.assert_close(model(**batch).loss, loss)
    assert torch.equal(model.generate(question, max_new_tokens=12, do_sample=False, **images), answer)


@given(st.lists(st.integers(1, 50), max_size=200), st.integers(0, 3))
def test_every_sample_is_in_one_row_that_it_fits(lengths: list[int], seed: int) -> None:
    rows = pack(lengths, 50, seed)
    assert sorted(sample for row in rows for sample in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[sample] for sample in row) <= 50 for row in rows)
    assert rows == pack(lengths, 50, seed)


def test_rows_of_a_realistic_mixture_are_full_and_their_order_is_the_seeds() -> None:
    draw = random.Random(0)
    lengths = [draw.choice((600, 0)) + draw.randint(20, 400) for _ in range(10_000)]
    rows = pack(lengths, 2048)
    assert sum(lengths) / (len(rows) * 2048) > 0.98
    assert rows != pack(lengths, 2048, seed=1)
    assert len({len(row) for row in rows[:20]}) > 1, "rows of few long samples are among rows of many short ones"


def test_a_sample_longer_than_a_row_is_named() -> None:
    with pytest.raises(UsageError, match="Sample 1 has 60 positions, but a packed row has 50"):
        pack([10, 60, 20], 50)


def test_a_packed_dataset_gives_the_samples_of_a_row() -> None:
    samples = make_text()
    data = PackedData(samples, [18, 4, 28], limit_positions=32)  # type: ignore[arg-type]
    assert len(data) == 2
    assert sorted(data.lengths) == [18, 32]
    whole = PackedCollator()([data[0], data[1]])
    assert whole["input_ids"].shape == (1, 50)
    assert sorted(whole["input_ids"][0].tolist()) == sorted(i for s in samples for i in s["input_ids"].tolist())
