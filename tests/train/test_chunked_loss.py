"""The chunked cross-entropy: torch's own loss and gradients, from logits that never exist at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llava.train.loss import weigh_answers
from llava.train.speed.chunked_loss import build_target_loss, is_plain, sum_cross_entropy
from tests.model.test_learning import assert_same, learn
from tests.tiny import FAMILIES, make_lesson, make_model

WIDTH, VOCABULARY, TARGETS = 24, 50, 37


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(leaf.numel() for leaf in tree_leaves(result) if torch.is_tensor(leaf))])
        return result


def make_head(bias: bool = False) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    head = nn.Linear(WIDTH, VOCABULARY, bias=bias)
    return head, torch.randn(TARGETS, WIDTH, requires_grad=True), torch.randint(0, VOCABULARY, (TARGETS,))


def take_gradients(head: nn.Linear, hidden_NC: torch.Tensor, loss: torch.Tensor) -> list[torch.Tensor]:
    tensors = [hidden_NC, *head.parameters()]
    return list(torch.autograd.grad(3 * loss, [each for each in tensors if each.requires_grad]))


def assert_equal(ours: list[torch.Tensor], torchs: list[torch.Tensor]) -> None:
    for one, other in zip(ours, torchs, strict=True):
        assert one.dtype == other.dtype
        assert float((one - other).norm() / other.norm()) < 1e-6


@pytest.mark.parametrize("chunk_logits", [1, 7 * VOCABULARY, TARGETS * VOCABULARY, 10**9])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradients_are_those_of_torchs_cross_entropy(chunk_logits: int, bias: bool) -> None:
    head, hidden_NC, targets_N = make_head(bias)
    loss = build_target_loss(chunk_logits=chunk_logits)(head, hidden_NC, targets_N)
    expected = functional.cross_entropy(head(hidden_NC), targets_N)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert_equal(take_gradients(head, hidden_NC, loss), take_gradients(head, hidden_NC, expected))


def test_a_frozen_head_and_frozen_states_get_no_gradient_and_the_same_loss() -> None:
    head, hidden_NC, targets_N = make_head()
    target_loss = build_target_loss(chunk_logits=200)
    expected = functional.cross_entropy(head(hidden_NC), targets_N)
    whole = take_gradients(head, hidden_NC, expected)
    head.requires_grad_(False)
    assert_equal(take_gradients(head, hidden_NC, target_loss(head, hidden_NC, targets_N)), whole[:1])
    loss = target_loss(head.requires_grad_(True), hidden_NC.detach(), targets_N)
    loss.backward()
    assert head.weight.grad is not None
    assert float((3 * head.weight.grad - whole[1]).norm() / whole[1].norm()) < 1e-6
    with torch.no_grad():
        torch.testing.assert_close(target_loss(head, hidden_NC, targets_N), expected.detach(), rtol=1e-6, atol=0)


def test_items_counted_elsewhere_and_answer_weights_count_as_in_the_whole_loss() -> None:
    head, hidden_NC, targets_N = make_head()
    targets_N[[4, 5, 20, 36]] = 2
    each_N = functional.cross_entropy(head(hidden_NC), targets_N, reduction="none")
    for power in (0.0, 0.5):
        weights_N = weigh_answers(targets_N, 2, power)
        target_loss = build_target_loss(2, power, chunk_logits=500)
        torch.testing.assert_close(target_loss(head, hidden_NC, targets_N), (each_N * weights_N).mean())
        summed = target_loss(head, hidden_NC, targets_N, num_items_in_batch=torch.tensor(100))
        torch.testing.assert_close(summed, (each_N * weights_N).sum() / 100)


def test_no_more_than_a_chunk_of_logits_exists_at_once() -> None:
    torch.manual_seed(0)
    head, targets_N = nn.Linear(4, 1000, bias=False), torch.randint(0, 1000, (64,))
    hidden_NC = torch.randn(64, 4, requires_grad=True)
    with LargestTensor() as whole:
        functional.cross_entropy(head(hidden_NC), targets_N).backward()
    with LargestTensor() as chunked:
        build_target_loss(chunk_logits=8000)(head, hidden_NC, targets_N).backward()
    assert (whole.numel, chunked.numel) == (64 * 1000, 8 * 1000)


def test_in_bfloat16_autocast_the_head_multiplies_as_through_its_own_forward() -> None:
    head, hidden_NC, targets_N = make_head()
    with torch.autocast("cpu", torch.bfloat16):
        loss = build_target_loss(chunk_logits=500)(head, hidden_NC, targets_N)
        expected = functional.cross_entropy(head(hidden_NC).float(), targets_N)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    for one, other in zip(
        take_gradients(head, hidden_NC, loss), take_gradients(head, hidden_NC, expected), strict=True
    ):
        assert one.dtype == other.dtype
        assert float((one - other).norm() / other.norm()) < 0.01


def test_a_head_that_is_watched_or_changed_computes_all_logits_itself() -> None:
    head, hidden_NC, targets_N = make_head()
    weights_N = torch.ones(TARGETS)
    expected = functional.cross_entropy(head(hidden_NC), targets_N, reduction="sum")
    assert is_plain(head)
    seen: list[torch.Size] = []
    hook = head.register_forward_hook(lambda module, inputs, logits: seen.append(logits.shape))
    assert not is_plain(head)
    torch.testing.assert_close(sum_cross_entropy(head, hidden_NC, targets_N, weights_N), expected)
    assert seen == [(TARGETS, VOCABULARY)]
    hook.remove()

    class Doubling(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    doubling = Doubling(WIDTH, VOCABULARY, bias=False)
    doubling.load_state_dict(head.state_dict())
    doubled = functional.cross_entropy(2 * head(hidden_NC), targets_N, reduction="sum")
    torch.testing.assert_close(sum_cross_entropy(doubling, hidden_NC, targets_N, weights_N), doubled)


def test_the_heads_own_forward_is_back_after_an_error() -> None:
    head, hidden_NC, _ = make_head()
    with pytest.raises(RuntimeError):
        sum_cross_entropy(head, hidden_NC, torch.full((TARGETS,), VOCABULARY + 5), torch.ones(TARGETS))
    assert head(hidden_NC).shape == (TARGETS, VOCABULARY)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_learns_the_same_from_it(family: str) -> None:
    model = make_model(family).train()
    chunked = build_target_loss(chunk_logits=500)
    assert_same(learn(model), learn(model, target_loss=chunked))
    items = torch.tensor(100)
    assert_same(learn(model, num_items_in_batch=items), learn(model, target_loss=chunked, num_items_in_batch=items))
    assert model(**make_lesson(), target_loss=chunked).logits is None


@pytest.mark.parametrize("power", [0.0, 0.5])
@pytest.mark.parametrize("chunk_logits", [1, 22, 10_000])
def test_the_loss_of_each_target_is_told_before_it_is_weighted(chunk_logits: int, power: float) -> None:
    torch.manual_seed(0)
    head, hidden_NC, targets_N = nn.Linear(6, 11), torch.randn(7, 6, requires_grad=True), torch.arange(7)
    wanted = functional.cross_entropy(head(hidden_NC), targets_N, reduction="none")
    told: list[torch.Tensor] = []
    target_loss = build_target_loss(3, power, chunk_logits)
    target_loss(head, hidden_NC, targets_N, on_losses=told.append).backward()
    assert torch.allclose(told[0], wanted)
    assert not told[0].requires_grad
    target_loss(head, hidden_NC[:0], targets_N[:0], num_items_in_batch=5, on_losses=told.append)
    assert told[1].shape == (0,)
