"""The names that code written against the original imports, and where it imports them from."""

from __future__ import annotations

import importlib
import inspect
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import llava
from llava.errors import UsageError

MODEL_CLASSES = """LlavaLlamaForCausalLM LlavaConfig LlavaMistralForCausalLM LlavaMistralConfig LlavaQwenForCausalLM
    LlavaQwenConfig LlavaMptForCausalLM LlavaMptConfig LlavaMixtralForCausalLM LlavaMixtralConfig
    LlavaGemmaForCausalLM LlavaGemmaConfig"""
NAMES = {
    "llava": "LlavaLlamaForCausalLM __path__",
    "llava.constants": """CONTROLLER_HEART_BEAT_EXPIRATION WORKER_HEART_BEAT_INTERVAL LOGDIR IGNORE_INDEX
        IMAGE_TOKEN_INDEX DEFAULT_IMAGE_TOKEN DEFAULT_IMAGE_PATCH_TOKEN DEFAULT_IM_START_TOKEN DEFAULT_IM_END_TOKEN
        IMAGE_PLACEHOLDER""",
    "llava.conversation": """conv_templates SeparatorStyle default_conversation Conversation conv_vicuna_v0
        conv_vicuna_v1 conv_llava_v0 conv_llava_v1 conv_llava_plain conv_llama_2 conv_llava_llama_2
        conv_mistral_instruct conv_chatml_direct conv_mpt conv_qwen conv_llava_llama_3 conv_gemma_instruct""",
    "llava.mm_utils": """get_model_name_from_path process_images tokenizer_image_token KeywordsStoppingCriteria
        expand2square load_image_from_base64 process_anyres_image select_best_resolution resize_and_pad_image
        divide_to_patches get_anyres_image_grid_shape resize_and_center_crop auto_pad_images extract_patches
        process_highres_image process_highres_image_crop_split""",
    "llava.model": MODEL_CLASSES,
    "llava.model.builder": "load_pretrained_model",
    "llava.model.language_model.llava_llama": "LlavaConfig LlavaLlamaModel LlavaLlamaForCausalLM",
    "llava.model.language_model.llava_mistral": "LlavaMistralConfig LlavaMistralModel LlavaMistralForCausalLM",
    "llava.model.language_model.llava_qwen": "LlavaQwenConfig LlavaQwenModel LlavaQwenForCausalLM",
    "llava.model.apply_delta": "apply_delta",
    "llava.model.consolidate": "consolidate_ckpt",
    "llava.model.make_delta": "make_delta",
    "llava.model.utils": "auto_upgrade KeywordsStoppingCriteria",
    "llava.model.language_model.llava_gemma": "LlavaGemmaConfig LlavaGemmaModel LlavaGemmaForCausalLM",
    "llava.model.language_model.llava_mixtral": "LlavaMixtralConfig LlavaMixtralModel LlavaMixtralForCausalLM",
    "llava.model.language_model.llava_mpt": "LlavaMptConfig LlavaMptModel LlavaMptForCausalLM",
    "llava.model.language_model.llava_qwen_moe": "LlavaQwenMoeConfig LlavaQwenMoeModel LlavaQwenMoeForCausalLM",
    "llava.model.llava_arch": """LlavaMetaModel LlavaMetaForCausalLM unpad_image build_vision_tower
        build_vision_projector build_vision_resampler get_anyres_image_grid_shape IGNORE_INDEX IMAGE_TOKEN_INDEX
        DEFAULT_IMAGE_PATCH_TOKEN DEFAULT_IM_START_TOKEN DEFAULT_IM_END_TOKEN""",
    "llava.model.multimodal_resampler.builder": "IdentityMap build_vision_resampler",
    "llava.serve.cli": "load_image main",
    "llava.model.multimodal_encoder.builder": "build_vision_tower",
    "llava.model.multimodal_encoder.clip_encoder": "CLIPVisionTower CLIPVisionTowerS2",
    "llava.model.multimodal_encoder.siglip_encoder": "SigLipVisionTower",
    "llava.model.multimodal_projector.builder": "build_vision_projector IdentityMap SimpleResBlock",
    "llava.utils": """disable_torch_init build_logger server_error_msg moderation_msg violates_moderation
        pretty_print_semaphore StreamToLogger rank0_print rank_print""",
    "llava.eval.run_llava": "eval_model load_image load_images image_parser",
    "llava.eval.eval_textvqa": "eval_single get_args prompt_processor",
    "llava.eval.m4c_evaluator": """EvalAIAnswerProcessor TextVQAAccuracyEvaluator STVQAAccuracyEvaluator
        STVQAANLSEvaluator TextCapsBleu4Evaluator""",
}
# In the originals' order, as far as callers pass them by position or by name.
PARAMETERS = {
    "llava.mm_utils.tokenizer_image_token": "prompt tokenizer image_token_index return_tensors",
    "llava.mm_utils.process_images": "images image_processor model_cfg",
    "llava.mm_utils.KeywordsStoppingCriteria": "keywords tokenizer input_ids",
    "llava.mm_utils.expand2square": "pil_img background_color",
    "llava.mm_utils.process_anyres_image": "image processor grid_pinpoints",
    "llava.mm_utils.select_best_resolution": "original_size possible_resolutions",
    "llava.mm_utils.resize_and_pad_image": "image target_resolution",
    "llava.mm_utils.divide_to_patches": "image patch_size",
    "llava.mm_utils.get_anyres_image_grid_shape": "image_size grid_pinpoints patch_size",
    "llava.mm_utils.get_model_name_from_path": "model_path",
    "llava.mm_utils.resize_and_center_crop": "image shortest_edge_length",
    "llava.mm_utils.auto_pad_images": "image grid_params",
    "llava.mm_utils.extract_patches": "image patch_size overlap_ratio",
    "llava.mm_utils.process_highres_image": "image processor grid_pinpoints",
    "llava.mm_utils.process_highres_image_crop_split": "image data_args processor",
    "llava.model.apply_delta.apply_delta": "base_model_path target_model_path delta_path",
    "llava.model.make_delta.make_delta": "base_model_path target_model_path delta_path hub_repo_id",
    "llava.model.consolidate.consolidate_ckpt": "src_path dst_path",
    "llava.model.utils.auto_upgrade": "config",
    "llava.model.multimodal_resampler.builder.build_vision_resampler": "model_args delay_load",
    "llava.serve.cli.load_image": "image_file",
    "llava.serve.cli.main": "args",
    "llava.model.builder.load_pretrained_model": """model_path model_base model_name load_8bit load_4bit device_map
        device use_flash_attn customized_config overwrite_config""",
    "llava.model.llava_arch.unpad_image": "tensor original_size",
    "llava.model.multimodal_encoder.clip_encoder.CLIPVisionTower": "vision_tower args delay_load",
    "llava.model.multimodal_encoder.clip_encoder.CLIPVisionTowerS2": "vision_tower args delay_load",
    "llava.model.multimodal_encoder.builder.build_vision_tower": "vision_tower_cfg",
    "llava.model.multimodal_projector.builder.build_vision_projector": "config delay_load",
    "llava.model.LlavaLlamaForCausalLM.prepare_inputs_labels_for_multimodal": """self input_ids position_ids
        attention_mask past_key_values labels images image_sizes""",
    "llava.model.LlavaLlamaForCausalLM.generate": "self inputs images image_sizes",
    "llava.model.LlavaLlamaForCausalLM.encode_images": "self images",
    "llava.utils.build_logger": "logger_name logger_filename",
    "llava.eval.run_llava.eval_model": "args",
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in NAMES for name in NAMES[module].split()])
def test_a_name_of_the_original_is_where_the_original_has_it(module: str, name: str) -> None:
    assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.parametrize("path", PARAMETERS)
def test_arguments_come_in_the_originals_order(path: str) -> None:
    parts = path.split(".")
    num_modules = max(i for i in range(len(parts)) if ".".join(parts[:i]) in NAMES)
    target = importlib.import_module(".".join(parts[:num_modules]))
    for part in parts[num_modules:]:
        target = getattr(target, part)
    expected = PARAMETERS[path].split()
    assert list(inspect.signature(target).parameters)[: len(expected)] == expected


def test_a_star_import_brings_the_model_classes() -> None:
    names: dict[str, object] = {}
    exec("from llava.model import *", names)
    assert set(MODEL_CLASSES.split()) <= names.keys()


def test_mpt_can_be_named_and_says_that_it_is_not_supported() -> None:
    from llava.model import LlavaMptConfig, LlavaMptForCausalLM

    for use in (LlavaMptConfig, LlavaMptForCausalLM.from_pretrained):
        with pytest.raises(UsageError, match="MPT is not supported"):
            use("mosaicml/mpt-7b")


@pytest.mark.parametrize(("name", "kind"), [("LlavaMixtralForCausalLM", "Mixtral"), ("LlavaGemmaForCausalLM", "Gemma")])
def test_other_language_models_can_be_named_and_say_that_they_are_not_supported(name: str, kind: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: {kind} is not supported"):
        getattr(importlib.import_module("llava.model"), name).from_pretrained("x")


def test_the_package_says_where_it_lies() -> None:
    (folder,) = llava.__path__
    assert (Path(folder) / "model/multimodal_encoder/builder.py").is_file()


def test_the_outsiders_are_the_pinned_ones() -> None:
    lines = Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    assert len(here) > 20
    assert [str(pin) for pin in here if not pin.specifier.contains(metadata.version(pin.name))] == []
