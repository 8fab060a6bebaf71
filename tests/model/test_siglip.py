"""SigLIP towers: alone, in LLaVA-NeXT's own layout and in llava-hf's, beside the same weights in Transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
)
from transformers import SiglipVisionModel as TheirVisionModel
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from llava import config as llava_config
from llava.answer import place_images, start_conversation
from llava.backends.answerer import Answerer
from llava.config import read_spec
from llava.errors import CheckpointError, UsageError
from llava.image.geometry import Size, plan_images, plan_tiles, plan_whole
from llava.image.pixels import ImageProcessor, make_pixels
from llava.image.source import load_image
from llava.inspection import describe_checkpoint, describe_image
from llava.model.checkpoint import LoadedModel, load_model, save_checkpoint
from llava.model.conversion import convert
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.siglip_encoder import SigLipVisionTower
from llava.sampling import Sampling
from llava.towers import KNOWN_TOWERS
from tests.tiny_checkpoints import Tensors, decoder_shapes, random_tensors
from tests.tiny_configs import CONFIG, GENERATION, write_json
from tests.tiny_tokenizers import words_and_letters

NAME = "google/siglip-tiny-patch7-30"
PX = 30  # 4 patches of 7 px and 2 px that fill none, as 384 px and patches of 14
SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": PX,
    "patch_size": 7,
}
CUT = {**SIGLIP, "num_hidden_layers": 2, "vision_use_head": False}  # as llava-hf stores it
GRIDS = [[PX * columns, PX * rows] for columns in range(1, 4) for rows in range(1, 4)]
IMAGE = 390
SIZES = [(30, 30), (50, 40), (90, 31), (33, 90), (300, 200), (70, 90)]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN_TOWERS, NAME, SIGLIP)


def make_theirs(**changes: Any) -> Any:
    torch.manual_seed(0)
    model = TheirVisionModel(SiglipVisionConfig(**{**SIGLIP, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def args(**changes: Any) -> Any:
    return type("Args", (), {"mm_vision_select_layer": -2, "mm_vision_tower": NAME, **changes})()


def save_whole_siglip(folder: Path, theirs: Any) -> None:
    """A folder as google's, with the text half."""
    text = {"hidden_size": 48, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = SiglipModel(SiglipConfig(vision_config=SIGLIP, text_config={**text, "vocab_size": 9}))
    whole.vision_model.load_state_dict(theirs.state_dict())
    whole.save_pretrained(folder)
    square = {"height": PX, "width": PX}
    write_json(folder / "preprocessor_config.json", {"image_processor_type": "SiglipImageProcessor", "size": square})


def test_a_tower_gives_transformers_hidden_state_behind_the_last_block_but_one(tmp_path: Path) -> None:
    theirs = make_theirs()
    save_whole_siglip(tmp_path / "siglip", theirs)
    tower = build_vision_tower(args(mm_vision_tower=str(tmp_path / "siglip"), mm_vision_select_feature="cls_patch"))
    assert isinstance(tower, SigLipVisionTower)
    pixels = torch.randn(3, 3, PX, PX)
    states = theirs(pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(tower(pixels), states[-2], **CLOSE)
    # What LLaVA-NeXT's own tower has: no last block and no head, so that its last state is the one that is read.
    own = tower.vision_tower(pixels, output_hidden_states=True).hidden_states
    assert len(own) == 3
    for ours, expected in zip(own, states, strict=False):
        torch.testing.assert_close(ours, expected, **CLOSE)
    torch.testing.assert_close(tower.feature_select(tower.vision_tower(pixels, output_hidden_states=True)), own[-1])
    assert isinstance(tower.vision_tower, TheirVisionModel)
    assert not any("head" in name or "layers.2" in name for name, _ in tower.named_parameters())
    assert (tower.hidden_size, tower.num_patches, tower.tile_px, tower.patch_px) == (48, 16, PX, 7)
    assert tower.image_processor.image_mean == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("layer", [0, 1, -1, -2, -3])
def test_a_tower_that_is_described_is_read_where_the_file_says(layer: int) -> None:
    theirs = make_theirs()
    tower = SigLipVisionTower.from_config(SIGLIP, args(mm_vision_select_layer=layer))
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("head.")}
    tower.vision_tower.vision_model.load_state_dict(state, strict=False)
    pixels = torch.randn(1, 3, PX, PX)
    expected = theirs(pixels, output_hidden_states=True).hidden_states[layer]
    torch.testing.assert_close(tower(pixels), expected, **CLOSE)


def test_released_towers_are_known_by_name_without_a_network() -> None:
    with torch.device("meta"):
        known = args(mm_vision_tower="google/siglip-so400m-patch14-384", unfreeze_mm_vision_tower=True)
        tower = build_vision_tower(known, delay_load=True)
    assert (tower.hidden_size, tower.num_patches, tower.tile_px, tower.patch_px) == (1152, 729, 384, 14)
    assert len(tower.vision_tower.vision_model.encoder.layers) == tower.num_blocks_run == 26
    for name, sizes in (
        ("siglip-base-patch16-224", (768, 196)),
        ("siglip-base-patch16-512", (768, 1024)),
        ("siglip-large-patch16-384", (1024, 576)),
        ("siglip2-so400m-patch14-384", (1152, 729)),
    ):
        tower = build_vision_tower(args(mm_vision_tower=f"google/{name}"), delay_load=True)
        assert (tower.hidden_size, tower.num_patches) == sizes
    usual = tower.image_processor
    assert (usual.size, usual.do_center_crop) == ({"height": 384, "width": 384}, False)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("OpenGVLab/InternViT-300M-448px", "an InternViT"),
        ("facebook/dinov2-large", "a DINO"),
        ("BAAI/EVA-CLIP-8B", "an EVA-CLIP"),
        ("open_clip_hub:ViT-L-14", "an OpenCLIP or timm tower"),
        ("laion/CLIP-convnext_large_d_320", "an OpenCLIP or timm tower"),
        ("timm/ViT-SO400M-14-SigLIP-384", "an OpenCLIP or timm tower"),
        ("google/siglip2-so400m-patch16-naflex", "a SigLIP2 of variable resolution"),
        ("imagebind_huge", "ImageBind"),
        ("nvidia/RADIO-L", "a RADIO"),
    ],
)
def test_a_tower_of_another_kind_is_named_in_its_refusal(tmp_path: Path, name: str, what: str) -> None:
    write_original(tmp_path, mm_vision_tower=name)
    with pytest.raises(CheckpointError, match=f"'{name}', which is {what}.* Supported are CLIP's and SigLIP's"):
        load_model(tmp_path, device="cpu")
    if not name.startswith("laion"):
        with pytest.raises(UsageError, match=f"'{name}', which is {what}"):
            build_vision_tower(args(mm_vision_tower=name))


def test_a_folder_of_another_kind_of_tower_says_what_it_is(tmp_path: Path) -> None:
    write_original(tmp_path / "llava", mm_vision_tower=str(tmp_path / "eva/clip"))
    write_json(tmp_path / "eva/clip/config.json", {"model_type": "dinov2", "hidden_size": 48})
    with pytest.raises(CheckpointError, match=r"kind 'dinov2' \(a DINO\) is not supported; supported are CLIP's and"):
        load_model(tmp_path / "llava", device="cpu")


def siglip_shapes(num_blocks: int, prefix: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.patch_embedding.weight": (48, 3, 7, 7),
        "embeddings.patch_embedding.bias": (48,),
        "embeddings.position_embedding.weight": (16, 48),
        "post_layernorm.weight": (48,),
        "post_layernorm.bias": (48,),
    }
    for i in range(num_blocks):
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes[f"encoder.layers.{i}.self_attn.{name}.weight"] = (48, 48)
            shapes[f"encoder.layers.{i}.self_attn.{name}.bias"] = (48,)
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"encoder.layers.{i}.{name}.weight": (48,), f"encoder.layers.{i}.{name}.bias": (48,)}
        shapes |= {f"encoder.layers.{i}.mlp.fc1.weight": (40, 48), f"encoder.layers.{i}.mlp.fc1.bias": (40,)}
        shapes |= {f"encoder.layers.{i}.mlp.fc2.weight": (48, 40), f"encoder.layers.{i}.mlp.fc2.bias": (48,)}
    return {prefix + name: shape for name, shape in shapes.items()}


def write_original(folder: Path, num_blocks: int = 2, **changes: Any) -> Tensors:
    """As lmms-lab/llava-onevision-qwen2-*: the tower's weights inside without the last block, its sizes nowhere."""
    config = {
        **CONFIG,
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "image_aspect_ratio": "anyres_max_4",
        "image_grid_pinpoints": GRIDS,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_hidden_size": 48,
        "mm_vision_tower": NAME,
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_newline_position": "one_token",
        "mm_spatial_pool_mode": "bilinear",
        "unfreeze_mm_vision_tower": True,
        **changes,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", GENERATION)
    words_and_letters("What is in the image").save_pretrained(folder)
    shapes = decoder_shapes({**config, "model_type": "llava_qwen"})
    shapes |= {"model.mm_projector.0.weight": (32, 48), "model.mm_projector.0.bias": (32,)}
    shapes |= {
        "model.mm_projector.2.weight": (32, 32),
        "model.mm_projector.2.bias": (32,),
        "model.image_newline": (32,),
    }
    shapes |= siglip_shapes(num_blocks, "model.vision_tower.vision_tower.vision_model.")
    tensors = random_tensors(shapes, dtype=torch.float32)
    save_file({name: 4 * tensor for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return tensors


def load(folder: Path) -> LoadedModel:
    return load_model(folder, device="cpu", dtype="float32")


def draw(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def theirs_from_original(loaded: LoadedModel) -> Any:
    """Transformers' OneVision with the weights of a model of ours."""
    ours = loaded.model
    sizes = {name: getattr(ours.config, name) for name in TEXT}
    text = Qwen2Config(**sizes, vocab_size=ours.config.vocab_size, max_position_embeddings=1024)
    model = LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**CUT),
            text_config=text,
            image_token_index=IMAGE,
            image_grid_pinpoints=[[height, width] for width, height in GRIDS],
            vision_aspect_ratio="anyres_max_4",
        )
    )
    names = {"model.vision_tower.vision_tower.vision_model.": "model.vision_tower.", "lm_head.": "lm_head."}
    names |= {"model.mm_projector.0.": "model.multi_modal_projector.linear_1."}
    names |= {"model.mm_projector.2.": "model.multi_modal_projector.linear_2."}
    names |= {"model.image_newline": "model.image_newline", "model.": "model.language_model."}
    state = {}
    for name, value in ours.state_dict().items():
        old = next(prefix for prefix in names if name.startswith(prefix))
        state[names[old] + name.removeprefix(old)] = value
    model.load_state_dict(state)
    return model.eval()


TEXT = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
TEXT += ("rms_norm_eps",)


@torch.no_grad()
def assert_same_answers(loaded: LoadedModel, theirs: Any, size: tuple[int, int], is_single: bool = False) -> None:
    """Logits, greedy ids by generate and by the engine, of one image of this size."""
    plan = plan_tiles(Size(*size), loaded.spec.tiling)
    pixels = make_pixels(draw(*size), plan_tiles(Size(*size), loaded.spec.tiling), loaded.image_processor)
    assert len(pixels) == plan.num_tiles
    ids = torch.tensor([[1, 9, *[IMAGE] * plan.num_positions, 11, 12]])
    given: dict[str, Any] = {"pixel_values": pixels}
    if not is_single:
        given = {"pixel_values": pixels[None], "image_sizes": torch.tensor([size[::-1]])}
    prompt = torch.tensor([[1, 9, -200, 11, 12]])
    found = loaded.model(input_ids=prompt, images=[pixels], image_sizes=[size]).logits
    torch.testing.assert_close(found, theirs(input_ids=ids, **given).logits, **CLOSE)
    expected = theirs.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **given, **GREEDY)[:, ids.shape[1] :]
    assert torch.equal(loaded.model.generate(prompt, images=[pixels], image_sizes=[size], **GREEDY), expected)


@pytest.mark.parametrize("size", SIZES)
def test_llava_nexts_own_onevision_layout_says_what_transformers_says(tmp_path: Path, size: tuple[int, int]) -> None:
    write_original(tmp_path)
    loaded = load(tmp_path)
    assert loaded.image_processor.image_std == [0.5, 0.5, 0.5]
    loaded.spec.tiling.__dict__["dialect"] = loaded.model.config.mm_tiling_dialect = "hf"  # rounds as Transformers
    assert_same_answers(loaded, theirs_from_original(loaded), size)


def test_some_of_these_sizes_are_scaled_down_and_some_are_not(tmp_path: Path) -> None:
    write_original(tmp_path)
    tiling = read_spec(tmp_path).tiling
    assert {plan_tiles(Size(*size), tiling).resampling for size in SIZES} == {"none", "bilinear"}


def test_the_last_block_may_be_inside_and_is_passed_over(tmp_path: Path) -> None:
    write_original(tmp_path / "a", num_blocks=2)
    tensors = write_original(tmp_path / "b", num_blocks=3)
    tower = "model.vision_tower.vision_tower.vision_model."
    extra = {f"{tower}head.probe": torch.ones(1, 1, 48), **{name: 4 * value for name, value in tensors.items()}}
    save_file(extra, tmp_path / "b/model.safetensors", {"format": "pt"})
    loaded = load(tmp_path / "b")
    assert len(loaded.model.get_vision_tower().vision_tower.vision_model.encoder.layers) == 2
    del extra[f"{tower}encoder.layers.1.mlp.fc2.bias"]
    save_file(extra, tmp_path / "b/model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing: .*encoder\.layers\.1\.mlp\.fc2\.bias"):
        load(tmp_path / "b")


def test_its_weights_may_lie_in_googles_folder(tmp_path: Path) -> None:
    theirs = make_theirs()
    save_whole_siglip(tmp_path / "siglip", theirs)
    tensors = write_original(tmp_path / "a", mm_vision_tower=str(tmp_path / "siglip"), unfreeze_mm_vision_tower=False)
    own = {name: value for name, value in tensors.items() if "vision_tower" not in name}
    save_file(own, tmp_path / "a/model.safetensors", {"format": "pt"})
    tower = load(tmp_path / "a").model.get_vision_tower()
    pixels = torch.randn(1, 3, PX, PX)
    torch.testing.assert_close(tower(pixels), theirs(pixels, output_hidden_states=True).hidden_states[-2], **CLOSE)


def make_hf(folder: Path, is_onevision: bool) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = Qwen2Config(**sizes, num_key_value_heads=2, vocab_size=448, max_position_embeddings=1024)
    text.initializer_range = 0.1
    shared = {"vision_config": SiglipVisionConfig(**CUT), "text_config": text, "image_token_index": IMAGE}
    model: Any
    if is_onevision:
        pinpoints = [[height, width] for width, height in GRIDS]
        config = LlavaOnevisionConfig(**shared, image_grid_pinpoints=pinpoints, vision_aspect_ratio="anyres_max_4")
        config.video_token_index = IMAGE + 1
        model = LlavaOnevisionForConditionalGeneration(config)
    else:
        config = LlavaConfig(**shared, vision_feature_layer=-1, vision_feature_select_strategy="full")
        model = LlavaForConditionalGeneration(config)
    model.eval().save_pretrained(folder)
    words_and_letters("What is in the image").save_pretrained(folder)
    square = {"height": PX, "width": PX}
    kind = "LlavaOnevisionImageProcessor" if is_onevision else "SiglipImageProcessor"
    processor = {"image_processor_type": kind, "size": square, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    write_json(folder / "preprocessor_config.json", processor)
    return model


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_onevision", [True, False], ids=["onevision", "interleave"])
def test_llava_hfs_layout_says_what_transformers_says(
    tmp_path: Path, is_onevision: bool, size: tuple[int, int]
) -> None:
    theirs = make_hf(tmp_path, is_onevision)
    loaded = load(tmp_path)
    assert loaded.spec.tiling.aspect == ("anyres_max_4" if is_onevision else "square")
    assert_same_answers(loaded, theirs, size, is_single=not is_onevision)


def test_a_video_in_llava_hfs_onevision_is_what_transformers_makes_of_it(tmp_path: Path) -> None:
    theirs = make_hf(tmp_path, is_onevision=True)
    loaded = load(tmp_path)
    frames = torch.randn(3, 3, PX, PX)
    num_positions = 3 * 2 * 2 + 1
    ids = torch.tensor([[1, 9, *[theirs.config.video_token_index] * num_positions, 11]])
    with torch.no_grad():
        expected = theirs(input_ids=ids, pixel_values_videos=frames[None]).logits
        prompt = torch.tensor([[1, 9, -200, 11]])
        found = loaded.model(input_ids=prompt, images=[frames], modalities=["video"]).logits
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("is_hf", [True, False], ids=["hf", "original"])
def test_the_engine_and_generate_answer_alike(tmp_path: Path, is_hf: bool) -> None:
    if is_hf:
        make_hf(tmp_path, is_onevision=True)
    else:
        write_original(tmp_path)
    loaded = load(tmp_path)
    sampling = Sampling(temperature=0, max_new_tokens=8)
    local = Answerer.of(loaded)
    for images in ([draw(50, 40)], [draw(50, 40), draw(20, 90)]):
        drawn = [load_image(image) for image in images]
        conversation = start_conversation(loaded)
        conversation.append_message(conversation.roles[0], place_images(loaded, "What?", len(images)))
        conversation.append_message(conversation.roles[1], None)
        prepared = local.prepare(conversation, drawn, sampling)
        assert [plan.num_tiles for plan in prepared.plans] == ([5] if len(images) == 1 else [1, 1])
        assert local._suits_engine(prepared)
        said = local.answer(conversation, drawn, sampling)
        assert said.text == local._generate(prepared, 0.0, None).text


@pytest.mark.parametrize("is_onevision", [True, False], ids=["onevision", "interleave"])
def test_saved_in_the_originals_layout_it_is_the_same_model(tmp_path: Path, is_onevision: bool) -> None:
    make_hf(tmp_path / "hf", is_onevision)
    first = load(tmp_path / "hf")
    save_checkpoint(first.model, first.tokenizer, first.image_processor, tmp_path / "original")
    again = load(tmp_path / "original")
    assert again.spec.tiling == first.spec.tiling
    assert (again.spec.layout, again.spec.select_layer, again.spec.select_feature) == ("original", -1, "patch")
    assert vars(again.image_processor) == vars(first.image_processor)
    assert again.model.state_dict().keys() == first.model.state_dict().keys()
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in first.model.state_dict().items())


@pytest.mark.parametrize("aspect", ["pad", "square"])
def test_of_one_tile_it_is_converted_for_transformers_and_back(tmp_path: Path, aspect: str) -> None:
    flat = {"image_aspect_ratio": aspect, "mm_patch_merge_type": "flat"}
    tensors = write_original(tmp_path / "a", **flat)
    save_file({n: t for n, t in tensors.items() if "newline" not in n}, tmp_path / "a/model.safetensors")
    convert(tmp_path / "a", tmp_path / "hf", "hf")
    values = json.loads((tmp_path / "hf/config.json").read_text())
    assert values["vision_config"]["model_type"] == "siglip_vision_model"
    assert (values["vision_config"]["num_hidden_layers"], values["vision_feature_layer"]) == (2, -1)
    assert values["vision_feature_select_strategy"] == "full"
    theirs, info = LlavaForConditionalGeneration.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    loaded = load(tmp_path / "a")
    pixels = make_pixels(draw(50, 40), plan_tiles(Size(50, 40), loaded.spec.tiling), loaded.image_processor)
    image_id = values["image_token_index"]
    with torch.no_grad():
        found = loaded.model(input_ids=torch.tensor([[1, -200, 9]]), images=pixels).logits
        expected = theirs(input_ids=torch.tensor([[1, *[image_id] * 16, 9]]), pixel_values=pixels).logits
    torch.testing.assert_close(found, expected[..., : found.shape[-1]], **CLOSE)
    convert(tmp_path / "hf", tmp_path / "b", "original")
    again, first = (load_file(tmp_path / f"{name}/model.safetensors") for name in "ba")
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert read_spec(tmp_path / "b").tiling == read_spec(tmp_path / "a").tiling


def test_the_strategy_that_would_lose_a_patch_is_refused(tmp_path: Path) -> None:
    make_hf(tmp_path, is_onevision=False)
    values = json.loads((tmp_path / "config.json").read_text())
    write_json(tmp_path / "config.json", {**values, "vision_feature_select_strategy": "default"})
    with pytest.raises(CheckpointError, match=r"'default'.* a patch would be lost: set it to 'full'"):
        load(tmp_path)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_transformers_processors(size: tuple[int, int]) -> None:
    image = draw(*size)
    square = {"height": PX, "width": PX}
    theirs = SiglipImageProcessorPil(size=square)(image, return_tensors="pt")["pixel_values"]
    ours = SigLipVisionTower.usual_processor(PX)
    torch.testing.assert_close(ours(image, return_tensors="pt")["pixel_values"], theirs, **CLOSE)
    pinpoints = [[height, width] for width, height in GRIDS]
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    onevision = LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=pinpoints, **half)
    tiling = llava_config.Tiling("anyres_max_4", "spatial_unpad", PX, 7, tuple(Size(*grid) for grid in GRIDS))
    alone = onevision(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(make_pixels(image, plan_tiles(Size(*image.size), tiling), ours), alone, **CLOSE)
    crowd = onevision([[image, image]], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(
        make_pixels(image, plan_whole(Size(*image.size), tiling), ours), crowd[:1], atol=0.02, rtol=0
    )


def test_several_images_of_onevision_get_a_padded_tile_each() -> None:
    tiling = llava_config.Tiling("anyres_max_9", "spatial_unpad", 384, 14, (Size(384, 384), Size(768, 768)))
    sizes = [Size(700, 300), Size(300, 700)]
    assert [plan.num_positions for plan in plan_images(sizes, tiling)] == [730, 730]
    assert plan_images(sizes, tiling)[0] == plan_whole(sizes[0], tiling)
    assert plan_images(sizes, tiling)[0].offset == (0, 110)
    assert plan_images(sizes[:1], tiling) == [plan_tiles(sizes[0], tiling)]
    assert plan_images(sizes[:1], tiling, ["low"]) == [plan_whole(sizes[0], tiling)]
    next_tiling = llava_config.Tiling("anyres", "spatial_unpad", 384, 14, (Size(384, 384), Size(768, 768)))
    assert plan_images(sizes, next_tiling) == [plan_tiles(size, next_tiling) for size in sizes]


def test_an_image_that_is_squashed_is_planned_as_squashed(tmp_path: Path) -> None:
    make_hf(tmp_path, is_onevision=False)
    tiling = read_spec(tmp_path).tiling
    plan = plan_tiles(Size(90, 30), tiling)
    assert (plan.content, plan.offset, plan.num_positions) == (Size(PX, PX), (0, 0), 16)


def test_info_shows_what_it_is_and_how_it_cuts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_original(tmp_path)
    describe_checkpoint(str(tmp_path))
    out = capsys.readouterr().out
    assert f"SigLIP, {NAME}, layer -2" in out
    assert "anyres_max_4, spatial_unpad, tiles of 30 px in 7-px patches" in out
    draw(90, 31).save(tmp_path / "a.png")
    describe_image(str(tmp_path), str(tmp_path / "a.png"), plot=str(tmp_path / "plot.png"))
    out = capsys.readouterr().out
    assert "4x4 features each" in out
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width > 100


def test_a_processor_without_means_is_siglips_own(tmp_path: Path) -> None:
    write_json(tmp_path / "preprocessor_config.json", {"image_processor_type": "SiglipImageProcessorFast"})
    read = ImageProcessor.from_pretrained(tmp_path)
    assert vars(read) == vars(SigLipVisionTower.usual_processor(224))
    read.save_pretrained(tmp_path)
    assert vars(ImageProcessor.from_pretrained(tmp_path)) == vars(read)
