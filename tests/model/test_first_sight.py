"""A language model is given eyes: modules, configuration, tokens, and a projector learnt before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llava.errors import CheckpointError
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from tests.tiny import TOWER, make_config, make_lesson, make_model, make_pixels


def make_text_model() -> Any:
    torch.manual_seed(0)
    plain = {key: value for key, value in make_config().to_dict().items() if not key.startswith(("mm_", "image_"))}
    return LlavaLlamaForCausalLM(LlavaConfig(**plain))


def make_arguments(**changes: Any) -> SimpleNamespace:
    defaults = {
        "vision_tower": "a tower of its own",
        "mm_vision_config": TOWER,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "pretrain_mm_mlp_adapter": None,
        "tune_mm_mlp_adapter": False,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
    }
    return SimpleNamespace(**{**defaults, **changes})


def test_a_language_model_is_given_eyes_and_its_configuration_says_so(tmp_path: Path) -> None:
    model = make_text_model()
    assert model.get_vision_tower() is None
    model.get_model().initialize_vision_modules(make_arguments())
    config = model.config
    assert (config.mm_vision_tower, config.mm_projector_type) == ("a tower of its own", "mlp2x_gelu")
    assert (config.mm_hidden_size, config.mm_vision_select_layer, config.use_mm_proj) == (32, -2, True)
    assert config.mm_patch_merge_type == "spatial_unpad"
    assert model.model.image_newline.requires_grad
    config.image_aspect_ratio, config.image_grid_pinpoints = "anyres", [[28, 56], [56, 28], [56, 56], [84, 28]]
    assert model(**make_lesson()).loss.isfinite()
    model.save_pretrained(tmp_path)
    assert LlavaLlamaForCausalLM.from_pretrained(tmp_path)(**make_lesson()).loss.isfinite()


def test_eyes_that_are_there_are_kept_and_the_projector_is_set_free() -> None:
    model = make_model()
    model.requires_grad_(False)
    tower, projector = model.get_vision_tower(), model.model.mm_projector
    model.get_model().initialize_vision_modules(make_arguments())
    assert model.get_vision_tower() is tower
    assert model.model.mm_projector is projector
    assert all(parameter.requires_grad for parameter in projector.parameters())


def test_under_fsdp_the_tower_stays_out_of_the_module_tree() -> None:
    model = make_text_model()
    model.get_model().initialize_vision_modules(make_arguments(), fsdp=["full_shard"])
    assert not any("vision_tower" in name for name, _ in model.named_parameters())
    assert model.get_vision_tower().is_loaded
    assert model.encode_images(make_pixels(1)[0]).shape == (1, 16, 48)
    model.get_model().initialize_vision_modules(make_arguments(), fsdp=["full_shard"])
    there = make_model()
    there.get_model().initialize_vision_modules(make_arguments(), fsdp=["full_shard"])
    assert there.get_vision_tower().is_loaded, "what is in the tree already stays there"


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_a_projector_learnt_before_is_taken_over(kind: str, tmp_path: Path) -> None:
    weights = {
        f"model.mm_projector.{name}": value
        for name, value in make_model(seed=7).model.mm_projector.state_dict().items()
    }
    file = str(tmp_path / f"mm_projector.{kind}")
    torch.save(weights, file) if kind == "bin" else save_file(weights, file)
    model = make_text_model()
    model.get_model().initialize_vision_modules(make_arguments(pretrain_mm_mlp_adapter=file))
    for name, value in model.model.mm_projector.state_dict().items():
        assert torch.equal(value, weights[f"model.mm_projector.{name}"])
    torch.save({"model.embed_tokens.weight": torch.zeros(2, 2)}, tmp_path / "other.bin")
    with pytest.raises(CheckpointError, match="holds no projector"):
        model.get_model().initialize_vision_modules(make_arguments(pretrain_mm_mlp_adapter=str(tmp_path / "other.bin")))


class Tokenizer:
    """As much of a tokenizer as new tokens need."""

    def __init__(self, num_tokens: int) -> None:
        self.tokens = [str(index) for index in range(num_tokens)]

    def __len__(self) -> int:
        return len(self.tokens)

    def add_tokens(self, tokens: list[str], special_tokens: bool) -> int:
        new = [token for token in tokens if token not in self.tokens]
        self.tokens += new
        return len(new) if special_tokens else 0


def test_new_image_tokens_begin_as_the_mean_of_all_others() -> None:
    model = make_model()
    old = [table.weight.detach().clone() for table in (model.get_input_embeddings(), model.get_output_embeddings())]
    tokenizer = Tokenizer(120)
    model.initialize_vision_tokenizer(make_arguments(mm_use_im_start_end=True, tune_mm_mlp_adapter=True), tokenizer)
    assert tokenizer.tokens[120:] == ["<im_start>", "<im_end>"]
    for table, before in zip((model.get_input_embeddings(), model.get_output_embeddings()), old, strict=True):
        assert torch.equal(table.weight[:120], before)
        torch.testing.assert_close(table.weight[120:], before.mean(0).expand(2, -1))
    assert model.get_input_embeddings().weight.requires_grad
    assert not model.get_output_embeddings().weight.requires_grad


def test_a_patch_token_alone_is_added_and_never_learns_with_the_projector() -> None:
    model = make_model()
    tokenizer = Tokenizer(120)
    model.initialize_vision_tokenizer(make_arguments(mm_use_im_patch_token=True, tune_mm_mlp_adapter=True), tokenizer)
    assert tokenizer.tokens[120:] == ["<im_patch>"]
    assert model.config.vocab_size == 121
    assert not model.get_input_embeddings().weight.requires_grad
    assert not model.get_output_embeddings().weight.requires_grad


@pytest.mark.parametrize("num_rows", [2, 122, 5])
def test_new_tokens_may_come_with_a_projector(num_rows: int, tmp_path: Path) -> None:
    model = make_model()
    rows = torch.randn(num_rows, 48)
    file = str(tmp_path / "mm_projector.bin")
    torch.save({"model.embed_tokens.weight": rows}, file)
    arguments = make_arguments(mm_use_im_start_end=True, pretrain_mm_mlp_adapter=file)
    if num_rows == 5:
        with pytest.raises(CheckpointError, match="5 embedding rows, but 2 new rows or all 122"):
            model.initialize_vision_tokenizer(arguments, Tokenizer(120))
    else:
        model.initialize_vision_tokenizer(arguments, Tokenizer(120))
        assert torch.equal(model.get_input_embeddings().weight[-2:], rows[-2:])
