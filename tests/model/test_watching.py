"""What research hangs on a model: hooks, replaced parts, attention weights. The fast walk steps aside and agrees."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CLIPVisionModel, SiglipVisionModel

from llava.engine import fallback
from llava.errors import UsageError
from llava.model.attention_switch import use_attention
from llava.model.vision import CLIPVisionTower, SigLipVisionTower, VisionTower
from tests.tiny import ANYRES, FAMILIES, SIDE, SIZES, SLOT, SQUARE, TILE_PX, TOWER, make_model, make_pixels

SIGLIP = {**TOWER, "model_type": "siglip_vision_model"}
KINDS = ["clip", "siglip"]
PARTS = [
    "vision_tower",
    "vision_tower.vision_model",
    "vision_tower.vision_model.embeddings",
    "vision_tower.vision_model.embeddings.patch_embedding",
    "vision_tower.vision_model.embeddings.position_embedding",
    "vision_tower.vision_model.encoder",
    "vision_tower.vision_model.encoder.layers.0",
    "vision_tower.vision_model.encoder.layers.1.self_attn.k_proj",
    "vision_tower.vision_model.post_layernorm",
]
BEHIND = ["vision_tower.vision_model.encoder.layers.2", "vision_tower.vision_model.encoder.layers.2.self_attn.q_proj"]
IDS = torch.tensor([[1, 5, SLOT, 7, SLOT, 9]])
GREEDY: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}


def make_tower(kind: str) -> VisionTower:
    torch.manual_seed(0)
    args = SimpleNamespace(mm_vision_select_layer=-2)
    tower = (
        SigLipVisionTower.from_config(SIGLIP, args) if kind == "siglip" else CLIPVisionTower.from_config(TOWER, args)
    )
    return tower.eval()


def parts_of(kind: str) -> list[str]:
    return PARTS + (BEHIND if kind == "clip" else [])


# torch itself calls no backward hook of a module that takes no tensors with a gradient or gives no plain tensors.
WITHOUT_GRADIENTS = ("vision_tower", "vision_model", "encoder", "position_embedding")
WAYS = [
    (way, kind, part)
    for kind in KINDS
    for part in parts_of(kind)
    for way in ("forward", "forward_pre", "full_backward")
    if way != "full_backward" or not part.endswith(WITHOUT_GRADIENTS)
]


@pytest.mark.parametrize(("way", "kind", "part"), WAYS)
def test_a_hook_on_any_part_of_a_tower_fires_and_changes_nothing(way: str, kind: str, part: str) -> None:
    tower = make_tower(kind)
    (pixels,) = make_pixels(2)
    expected = tower(pixels)
    assert not tower.is_watched()
    tower.requires_grad_(True)
    calls: list[Any] = []
    register: Callable[..., Any] = getattr(tower.get_submodule(part), f"register_{way}_hook")
    handle = register(lambda *given: calls.append(given))
    seen = tower(pixels.requires_grad_())
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)
    if way == "full_backward":
        # What lies behind the features has no gradient to give.
        outputs = tower.vision_tower(pixels)
        (seen.sum() + outputs[1 if kind == "clip" else 0].sum()).backward()
    assert calls
    handle.remove()
    assert not tower.is_watched()


def test_a_hook_on_every_module_there_is_sees_all_of_a_tower() -> None:
    tower = make_tower("clip")
    names: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: names.append(type(module).__name__))
    tower(make_pixels(1)[0])
    handle.remove()
    assert {"CLIPVisionModel", "CLIPVisionTransformer", "CLIPEncoder", "CLIPEncoderLayer", "LayerNorm"} <= set(names)


@pytest.mark.parametrize("kind", KINDS)
def test_asking_for_hidden_states_once_leaves_the_fast_way_open(kind: str) -> None:
    tower = make_tower(kind)
    (pixels,) = make_pixels(1)
    expected = tower(pixels)
    tower.vision_tower(pixels, output_hidden_states=True, output_attentions=True)
    assert not tower.is_watched()
    assert fallback.find_tower_fallback_reason(tower) is None
    torch.testing.assert_close(tower(pixels), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_gives_each_state_once_whoever_was_asked_first(kind: str) -> None:
    model = make_model(**{**SQUARE, "mm_vision_config": SIGLIP if kind == "siglip" else TOWER})
    tower = model.get_vision_tower()
    (pixels,) = make_pixels(1)
    seen = {"output_hidden_states": True, "output_attentions": True}
    first = tower.vision_tower(pixels, **seen)
    for _ in range(2):
        outputs = model(input_ids=torch.tensor([[1, SLOT]]), images=pixels, **seen)
        assert (len(outputs.hidden_states), len(outputs.attentions)) == (3, 2)
        again = tower.vision_tower(pixels, **seen)
        torch.testing.assert_close((again.hidden_states, again.attentions), (first.hidden_states, first.attentions))


def test_a_model_is_pickled_after_a_call_with_hidden_states_and_shows_them_still() -> None:
    model = make_model(**SQUARE)
    tower = model.get_vision_tower()
    given = {"input_ids": torch.tensor([[1, 5, SLOT]]), "images": make_pixels(1), "output_hidden_states": True}
    expected = model(**given).hidden_states
    tower.vision_tower(make_pixels(1)[0], output_hidden_states=True)
    fired: list[Any] = []
    model.model.layers[0].register_forward_hook(functools.partial(_note, fired))
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model):
        torch.testing.assert_close(copied(**given).hidden_states, expected)
    assert len(fired) == 1, "a hook of somebody else goes along: the copies have a list of their own"
    tower.vision_tower(make_pixels(1)[0], output_hidden_states=True)
    assert len(pickle.loads(pickle.dumps(tower)).state_dict()) == len(tower.state_dict())


def _note(fired: list[Any], *_: Any) -> None:
    fired.append(1)


def test_asking_a_model_for_hidden_states_once_keeps_the_native_layers() -> None:
    model = make_model(**SQUARE)
    ids = torch.tensor([[1, 5, 6]])
    usual = model(input_ids=ids).logits
    model(input_ids=ids, output_hidden_states=True)
    decoder = model.get_model()
    assert fallback.find_decoder_fallback_reason(decoder, torch.float32) is None
    decoder.layers[0].register_forward_hook(lambda *_: None)
    assert fallback.find_decoder_fallback_reason(decoder, torch.float32) == "a module has a hook"
    torch.testing.assert_close(model(input_ids=ids).logits, usual)


@pytest.mark.parametrize("part", ["model", "body", "encoder", "norm", "block", "patches"])
def test_a_part_that_is_replaced_is_the_one_that_runs(part: str) -> None:
    tower = make_tower("clip")
    (pixels,) = make_pixels(1)
    body = tower.vision_tower.vision_model
    ran: list[str] = []

    class Around(nn.Module):
        """Stands where a module was and calls it."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("inner"), name)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            ran.append(part)
            return self.inner(*args, **kwargs)

    expected = tower(pixels)
    if part == "model":
        tower.vision_tower = Around(tower.vision_tower)
    elif part == "body":
        tower.vision_tower.vision_model = Around(body)
    elif part == "encoder":
        body.encoder = Around(body.encoder)
    elif part == "norm":
        body.post_layernorm = Around(body.post_layernorm)
    elif part == "block":
        body.encoder.layers[0] = Around(body.encoder.layers[0])
    else:
        body.embeddings.patch_embedding = Around(body.embeddings.patch_embedding)
    torch.testing.assert_close(tower(pixels), expected, atol=1e-5, rtol=1e-5)
    assert ran


def test_a_method_that_is_replaced_on_transformers_class_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = make_tower("clip")
    encoder = type(tower.vision_tower.vision_model.encoder)
    usual = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda self, *args, **kwargs: usual(self, *args, **kwargs))
    assert tower.is_watched()
    assert fallback.find_tower_fallback_reason(tower) is not None


def test_outsiders_recognise_the_class_of_the_tower() -> None:
    assert isinstance(make_tower("clip").vision_tower, CLIPVisionModel)
    assert isinstance(make_tower("siglip").vision_tower, SiglipVisionModel)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_shows_its_attention_whoever_is_asked(kind: str) -> None:
    tower = make_tower(kind)
    assert tower.vision_tower.config._attn_implementation == "sdpa"
    (pixels,) = make_pixels(2)
    num_places = SIDE**2 + (1 if kind == "clip" else 0)
    num_blocks = len(tower.vision_tower.vision_model.encoder.layers)
    for model in (tower.vision_tower, tower.vision_tower.vision_model):
        outputs = model(pixels, output_attentions=True, output_hidden_states=True)
        assert [tuple(each.shape) for each in outputs.attentions] == [(2, 2, num_places, num_places)] * num_blocks
        assert len(outputs.hidden_states) == num_blocks + 1
        torch.testing.assert_close(outputs.attentions[-1].sum(-1), torch.ones(2, 2, num_places))
        assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_shows_its_attention_and_its_hidden_states(family: str) -> None:
    model = make_model(family)
    given: dict[str, Any] = {"images": make_pixels(5, 3), "image_sizes": SIZES[:2]}
    plain = model(input_ids=IDS, **given)
    outputs = model(input_ids=IDS, **given, output_attentions=True, output_hidden_states=True)
    length = plain.logits.shape[1]
    assert [tuple(each.shape) for each in outputs.attentions] == [(1, 4, length, length)] * 2
    assert [tuple(each.shape) for each in outputs.hidden_states] == [(1, length, 48)] * 3
    torch.testing.assert_close(outputs.logits, plain.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outputs.attentions[0].sum(-1), torch.ones(1, 4, length), atol=1e-5, rtol=1e-5)
    assert outputs.attentions[0].triu(1).abs().max() == 0
    assert model.config._attn_implementation == "sdpa"
    assert len(model.model(input_ids=torch.tensor([[1, 2]]), output_attentions=True).attentions) == 2


@pytest.mark.parametrize("cache", [None, "static"])
def test_generate_shows_the_attention_of_every_step(cache: str | None) -> None:
    model = make_model()
    given: dict[str, Any] = {"images": make_pixels(5, 3), "image_sizes": SIZES[:2]}
    settings = {**GREEDY, "return_dict_in_generate": True, "cache_implementation": cache, "disable_compile": True}
    outputs = model.generate(IDS, **given, **settings, output_attentions=True, output_hidden_states=True)
    assert torch.equal(outputs.sequences, model.generate(IDS, **given, **GREEDY))
    assert len(outputs.attentions) == len(outputs.hidden_states) == 3
    length = model(input_ids=IDS, **given).logits.shape[1]
    assert outputs.attentions[0][0].shape[:3] == (1, 4, length)
    assert [step[0].shape[2] for step in outputs.attentions[1:]] == [1, 1]
    assert all(len(step) == 2 for step in outputs.attentions)


def test_guidance_says_that_it_needs_a_negative_prompt_and_follows_one() -> None:
    model = make_model()
    given: dict[str, Any] = {"images": make_pixels(5, 3), "image_sizes": SIZES[:2], "guidance_scale": 3.0, **GREEDY}
    with pytest.raises(UsageError, match="negative_prompt_ids"):
        model.generate(IDS, **given)
    guided = model.generate(IDS, **given, negative_prompt_ids=torch.tensor([[1, 9]]))
    assert guided.shape == (1, 3)


def test_pruning_by_attention_of_an_early_layer_works_as_fastv_does_it() -> None:
    model = make_model(**SQUARE)
    (pixels,) = make_pixels(1)
    ids = torch.tensor([[1, 5, SLOT, 6]])
    outputs = model(input_ids=ids, images=pixels, output_attentions=True)
    looked_at = outputs.attentions[0].mean(1)[0, -1, 2 : 2 + SIDE**2]
    assert looked_at.topk(4).indices.max() < SIDE**2


def test_keys_of_a_block_are_read_by_a_hook_as_prumerge_does_it() -> None:
    """Hooks on k_proj and q_proj of the last block, which the features never need, while the whole tower is run."""
    tower = make_tower("clip")
    (pixels,) = make_pixels(1)
    caught: dict[str, torch.Tensor] = {}
    attention = tower.vision_tower.vision_model.encoder.layers[-1].self_attn
    for name in ("k_proj", "q_proj"):
        getattr(attention, name).register_forward_hook(
            lambda module, given, out, name=name: caught.__setitem__(name, out)
        )
    features = tower(pixels)
    assert {name: tuple(value.shape) for name, value in caught.items()} == dict.fromkeys(caught, (1, 17, 32))
    assert len(caught) == 2
    assert features.shape == (1, SIDE**2, 32)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_that_is_asked_for_reaches_decoder_and_tower(attention: str, tmp_path: Any) -> None:
    model = make_model(attn_implementation=attention)
    assert model.config._attn_implementation == attention
    assert model.get_vision_tower().vision_tower.config._attn_implementation == attention
    model.set_attn_implementation("eager")
    assert model.get_vision_tower().vision_tower.config._attn_implementation == "eager"
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(tmp_path)
    read = type(model).from_pretrained(tmp_path, attn_implementation=attention)
    assert read.get_vision_tower().vision_tower.config._attn_implementation == attention


def test_the_attention_that_is_asked_for_reaches_a_loaded_checkpoint(tmp_path: Any) -> None:
    from llava.model.builder import load_pretrained_model
    from tests.tiny_checkpoints import write_llava_1_6

    write_llava_1_6(tmp_path)
    for keywords, expected in (({"attn_implementation": "eager"}, "eager"), ({}, "sdpa")):
        _, model, _, _ = load_pretrained_model(str(tmp_path), None, "llava", device="cpu", **keywords)
        assert model.config._attn_implementation == expected
        assert model.get_vision_tower().vision_tower.config._attn_implementation == expected


def test_two_who_want_the_same_attention_share_it_and_a_third_waits() -> None:
    import threading

    config = SimpleNamespace(_attn_implementation="sdpa")
    inside, leave, order = threading.Event(), threading.Event(), []

    def first() -> None:
        with use_attention(config, "blocks"):
            inside.set()
            leave.wait(60)
            order.append("first")

    def third() -> None:
        with use_attention(config, "eager"):
            order.append(config._attn_implementation)

    one = threading.Thread(target=first)
    one.start()
    inside.wait(60)
    with use_attention(config, "blocks"):
        assert config._attn_implementation == "blocks"
    assert config._attn_implementation == "blocks", "the first is still inside"
    other = threading.Thread(target=third)
    other.start()
    leave.set()
    one.join(60)
    other.join(60)
    assert order == ["first", "eager"]
    assert config._attn_implementation == "sdpa"
    with use_attention(config, "blocks"), use_attention(config, "eager"):
        assert config._attn_implementation == "eager"
    assert config._attn_implementation == "sdpa"


def test_a_replaced_encode_images_with_the_body_of_most_forks_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(**{**ANYRES, "image_aspect_ratio": "anyres"})
    pixels = torch.randn(2, 3, TILE_PX, TILE_PX)
    usual = model.encode_images(pixels)

    def encode(self: Any, images: torch.Tensor) -> torch.Tensor:
        features = self.get_model().get_vision_tower()(images.half())
        return self.get_model().mm_projector(features)

    monkeypatch.setattr(type(model), "encode_images", encode)
    features = model.encode_images(pixels)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, usual, atol=5e-2, rtol=5e-2)
