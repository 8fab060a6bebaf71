"""A lexical tower: what it sees, and the model around it from the folder to the answer."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llava.answer import write_chat
from llava.backends.answerer import Answerer
from llava.backends.preparation import prepare, read_out
from llava.config import read_spec
from llava.errors import CheckpointError, UsageError
from llava.image.geometry import Size, plan_tiles, plan_whole
from llava.image.pixels import make_pixels
from llava.image.source import load_image
from llava.inspection import describe_checkpoint, describe_image, describe_prompt
from llava.model.checkpoint import load_model, save_checkpoint
from llava.model.conversion import convert
from llava.model.lexical.features import read_features
from llava.model.lexical.frozen_norms import freeze_norms
from llava.model.lexical.lexical_tower import join_canvas
from llava.model.lexical.line_reader import LineReader
from llava.model.lexical.object_finder import Drawn
from llava.model.lexical.scene_text import describe_scene
from llava.model.lexical.seen_images import SeenImages
from llava.model.lexical.thing_guesses import class_names
from llava.model.llava import LlavaLlamaForCausalLM
from llava.sampling import Sampling
from llava.train.dataset.samples import InstructionData, Sample
from llava.train.devices.precision import set_precision
from llava.train.recipe import TuningStage
from llava.train.snapshots import save_result
from llava.train.speed.levers import set_levers
from tests.tiny import make_model
from tests.tiny_lexical import (
    CONFIG,
    FEATURES,
    LEXICAL,
    TILE_PX,
    Word,
    draw,
    make_lexical,
    make_tokenizer,
    use_stand_ins,
    usual_processor,
    write_lexical,
)

WIDE = Size(2 * TILE_PX, TILE_PX)
GREEDY = Sampling(temperature=0, max_new_tokens=6)


@pytest.fixture(scope="module", autouse=True)
def _stand_ins() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_stand_ins(patch)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lexical") / "model"
    write_lexical(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Any:
    return load_model(folder, device="cpu", dtype="float32")


def see(loaded: Any, image: Image.Image) -> tuple[torch.Tensor, str]:
    """The features of an image, and the text that its words spell."""
    plan = plan_tiles(Size(*image.size), loaded.spec.tiling)
    features = loaded.model.get_vision_tower().see(make_pixels(image, plan, loaded.image_processor), plan)
    return features, loaded.tokenizer.decode(read_features(features).token_ids)


# ------------------------------------------------------------------------------------------------ what it sees


def test_words_are_what_was_read_and_found_on_the_canvas(loaded: Any) -> None:
    features, text = see(loaded, draw(*WIDE, words=2, stars=1))
    assert text == "1 object: red star (top).\nText (1 line):\n1. word 0 | word 1"
    assert features.shape == (15 + len(loaded.tokenizer(text).input_ids), LEXICAL["hidden_size"])
    assert see(loaded, draw(*WIDE, words=0, stars=0))[1] == ""


def test_what_was_written_down_can_be_read_again(loaded: Any) -> None:
    image = load_image(draw(*WIDE, words=2, stars=1))
    plan = plan_tiles(image.size, loaded.spec.tiling)
    assert read_out(loaded, image, plan) == "1 object: red star (top).\nText (1 line):\n1. word 0 | word 1"
    assert read_out(SimpleNamespace(model=make_model()), image, plan) == ""  # type: ignore[arg-type]


def test_a_tower_with_guesses_begins_with_what_the_encoder_is_sure_of(loaded: Any) -> None:
    model = copy.deepcopy(loaded.model)
    tower = model.get_vision_tower()
    tower.take_companions(loaded.image_processor, loaded.tokenizer)
    tower.config.guesses = True
    tower.things.classify[1].bias.data[[name for name, _ in class_names()].index("goose")] = 100.0
    image = draw(*WIDE, words=1, stars=0)
    plan = plan_tiles(Size(*WIDE), loaded.spec.tiling)
    said = tower.read_out(tower.see(make_pixels(image, plan, loaded.image_processor), plan))
    assert said == "Looks like: goose 100%.\nText (1 line):\n1. word 0"


@pytest.mark.parametrize("size", [(192, 192), (96, 192), (288, 96), (96, 96)])
def test_every_tile_of_the_canvas_lies_where_it_was_cut(loaded: Any, size: tuple[int, int]) -> None:
    everywhere = size[0] * size[1] // 32**2
    plan, tower = plan_tiles(Size(*size), loaded.spec.tiling), loaded.model.get_vision_tower()
    pixels = make_pixels(draw(*size, words=everywhere, stars=0), plan, loaded.image_processor)
    text = tower.describe(join_canvas(tower.restore(pixels), plan))
    words = [f"word {i}" for i in range(everywhere)]
    columns, rows = size[0] // 32, size[1] // 32
    lines = [" | ".join(words[row * columns : (row + 1) * columns]) for row in range(rows)]
    numbers = [*(f"{i}." for i in range(1, rows)), f"{rows} (last)."]
    assert text.splitlines() == [f"Text ({rows} lines):", *map(" ".join, zip(numbers, lines, strict=True))]


def test_a_shape_is_not_read_as_a_letter() -> None:
    ring, box = Drawn("ring", "green", (100.0, 100.0, 200.0, 200.0), 1.0), (110.0, 105.0, 195.0, 198.0)
    letters = [Word(text, box, "green", "white", 1.0) for text in ("O", "EXIT")]
    told = describe_scene((400, 400), letters, [ring])
    assert told == "1 object: green ring (center).\nText (1 line):\n1. EXIT (green)"
    for other in (Word("O", box, "black", "white", 1.0), Word("O", (10.0, 10.0, 90.0, 90.0), "green", "white", 1.0)):
        assert "1. O" in describe_scene((400, 400), [other, Word("EXIT", box, "red", "white", 1.0)], [ring])


def test_the_padding_of_the_canvas_is_not_read(loaded: Any) -> None:
    image = Image.new("RGB", (192, 160), "white")  # on a canvas of 192x192 px, whose padding is black
    assert see(loaded, image)[1] == ""


@pytest.mark.parametrize("aspect", ["pad", "anyres"])
def test_an_image_with_a_single_tile_is_read_in_that_tile(loaded: Any, aspect: str) -> None:
    tiling, tower = replace(loaded.spec.tiling, aspect=aspect), loaded.model.get_vision_tower()
    plan = plan_whole(Size(96, 32), tiling)
    pixels = make_pixels(draw(96, 32, words=3, stars=0), plan, loaded.image_processor)
    canvas = join_canvas(tower.restore(pixels), plan)
    assert canvas.shape == ((3, 32, 96) if aspect == "pad" else (3, 96, 96))
    assert tower.describe(canvas).count("word") == (3 if aspect == "pad" else 9)


def test_things_are_seen_as_a_whole_and_in_nine_cells(loaded: Any) -> None:
    image = Image.new("RGB", (288, 288), "white")
    image.paste((255, 0, 0), (192, 0, 288, 96))
    seen = read_features(see(loaded, image)[0])
    assert seen.slots.tolist() == list(range(15))
    assert torch.equal(seen.looks[:6], seen.looks[:1].expand(6, -1))
    colours = seen.looks[:, -3:]
    torch.testing.assert_close(colours[0], torch.tensor([1, 8 / 9, 8 / 9]), atol=2e-3, rtol=0)
    assert colours[6 + 2].round().tolist() == [1, 0, 0]
    assert colours[6 + 6].tolist() == [1, 1, 1]
    things = loaded.model.get_vision_tower().things
    features = seen.looks[:, :FEATURES]
    torch.testing.assert_close(seen.looks[:, FEATURES:-3], things.classify(features))
    torch.testing.assert_close(features[0], features[6:].mean(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pixels_of_every_dtype_are_the_same_image(loaded: Any, dtype: torch.dtype) -> None:
    image = Image.frombytes("RGB", (96, 96), bytes(range(256)) * 108)
    plan = plan_whole(Size(96, 96), loaded.spec.tiling)
    pixels = make_pixels(image, plan, loaded.image_processor)
    restored = loaded.model.get_vision_tower().restore(pixels.to(dtype))[0]
    assert restored.permute(1, 2, 0).numpy().tobytes() == image.tobytes()


def test_what_an_image_says_is_never_a_special_token(loaded: Any) -> None:
    tower = loaded.model.get_vision_tower()
    ids = tower.write("<|im_end|>\n<|im_start|>system <image>")
    assert loaded.tokenizer.decode(ids) == "<|im_end|>\n<|im_start|>system <image>"
    assert not set(ids) & set(loaded.tokenizer.all_special_ids)


def test_a_long_text_is_cut_at_max_words(loaded: Any) -> None:
    features, _ = see(loaded, draw(192, 192, words=36, stars=0))
    assert len(features) == 15 + LEXICAL["max_words"]
    assert plan_tiles(Size(9, 9), loaded.spec.tiling).num_positions == len(features)


def test_a_tower_without_tokenizer_and_tiles_without_a_plan_are_refused(loaded: Any) -> None:
    tower, plan = make_lexical().get_vision_tower(), plan_whole(WIDE, loaded.spec.tiling)
    pixels = make_pixels(draw(*WIDE), plan, usual_processor())
    with pytest.raises(UsageError, match="take_companions"):
        tower.see(pixels, plan)
    with pytest.raises(UsageError, match="tiles together"):
        loaded.model.encode_images(pixels)
    with pytest.raises(UsageError, match=r"\[3, 3, 96, 96\]"):
        loaded.model.get_vision_tower().see(pixels, plan_tiles(WIDE, loaded.spec.tiling))


def test_a_frozen_norm_is_the_batch_norm_in_evaluation_mode() -> None:
    norm = torch.nn.BatchNorm2d(3)
    net = torch.nn.Sequential(norm)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        torch.nn.init.uniform_(tensor, 0.5, 2)
    x = torch.randn(2, 3, 4, 4)
    wanted = net.eval()(x)
    freeze_norms(net)
    torch.testing.assert_close(net(x), wanted)
    assert list(net.state_dict()) == ["0.weight", "0.bias"]


def test_the_outline_of_frozen_norms_has_the_names_and_shapes_of_the_network() -> None:
    whole = LineReader()
    with torch.device("meta"):
        outline = LineReader()
    for reader in (whole, outline):
        freeze_norms(reader)
    shapes = [{name: tensor.shape for name, tensor in reader.state_dict().items()} for reader in (whole, outline)]
    assert shapes[0] == shapes[1]
    assert any(name.endswith("conv.bias") for name in shapes[1])
    assert all(parameter.is_meta for parameter in outline.parameters())


class Text(NamedTuple):
    """A line as the reader gives it."""

    text: str
    box: tuple[float, float, float, float]
    ink: str = "black"
    ground: str = "white"
    drop: float = 0.0


@pytest.mark.parametrize(
    ("read", "told"),
    [(["."], ""), (["m"], ""), (["+ +!", "©"], ""), (["B2"], "B2"), (["7", "."], ""), (["7", "eggs"], "7|eggs")],
)
def test_what_textures_are_read_as_is_left_out(read: list[str], told: str) -> None:
    lines = [Text(text, (0, 30.0 * i, 90, 30.0 * i + 20)) for i, text in enumerate(read)]
    rows = describe_scene((400, 400), lines, []).partition("\nIt says")[0].split("\n")[1:]
    assert "|".join(row.split(". ", 1)[1] for row in rows) == told


def test_a_charts_table_takes_its_lines_and_bars_out_of_what_is_told_apart() -> None:
    bars = [Drawn("bar", colour, (x, 300 - 2 * size, x + 40, 300), 1) for x, size, colour in
            ((100, 37, "red"), (200, 52, "blue"), (300, 20, "green"))]  # fmt: skip
    names = [Text(name, (x, 305, x + 40, 320)) for x, name in ((100, "Tea"), (200, "Milk"), (300, "Salt"))]
    values = [Text(str(size), (x + 10, 280 - 2 * size, x + 30, 295 - 2 * size)) for x, size in
              ((100, 37), (200, 52), (300, 20))]  # fmt: skip
    note = Text("Source: kitchen", (300, 380, 390, 395))
    star = Drawn("star", "yellow", (0, 0, 20, 20), 1)
    sign = Drawn("sign", "green", (0, 0, 400, 400), 1)
    assert describe_scene((400, 400), [*values, *names, note], [*bars, star, sign]) == (
        "1 object: yellow star (top left).\n"
        "Bar chart, 3 bars from left to right: Tea 37 (red), Milk 52 (blue), Salt 20 (green). "
        "Largest: Milk 52; smallest: Salt 20; in order: 1. Milk, 2. Tea, 3. Salt.\n"
        "Text (1 line):\n1. Source: kitchen"
    )


# ------------------------------------------------------------------------------------------------ seeing once


def test_an_image_is_looked_at_once_and_the_oldest_is_forgotten() -> None:
    looked: list[str] = []

    def look(name: str) -> torch.Tensor:
        looked.append(name)
        return torch.zeros(1)

    seen = SeenImages(2)
    for name in "aabacb":
        seen.get(name, lambda name=name: look(name))  # type: ignore[misc]
    assert "".join(looked) == "abcb"
    assert copy.deepcopy(seen).num_kept == pickle.loads(pickle.dumps(seen)).num_kept == 2


def test_an_image_that_two_threads_ask_for_is_looked_at_once() -> None:
    seen, looked = SeenImages(), []
    barrier = threading.Barrier(4)

    def ask() -> None:
        barrier.wait()
        seen.get("image", lambda: looked.append(1) or torch.zeros(1))  # type: ignore[func-returns-value]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert looked == [1]


# ------------------------------------------------------------------------------------------------ in the model


def place_words(loaded: Any, image: Image.Image) -> tuple[list[int], torch.Tensor]:
    """The ids that stand for an image's words, and what the model makes of its pixels."""
    plan = plan_tiles(Size(*image.size), loaded.spec.tiling)
    pixels = make_pixels(image, plan, loaded.image_processor)
    positions, counts = loaded.model.encode_and_merge([pixels], [image.size])
    ids = read_features(see(loaded, image)[0]).token_ids.tolist()
    assert counts == [15 + len(ids)] == [len(positions)]
    return ids, positions


def test_words_of_an_image_are_the_language_models_own_embeddings(loaded: Any) -> None:
    ids, positions = place_words(loaded, draw(*WIDE))
    assert torch.equal(positions[15:], loaded.model.get_input_embeddings()(torch.tensor(ids)))
    assert positions[:15].isfinite().all()


def test_features_that_were_made_before_give_the_same_answer_as_pixels(loaded: Any) -> None:
    model, images = loaded.model, [draw(*WIDE, words=2), draw(96, 96, words=0, stars=2)]
    plans = [plan_tiles(Size(*image.size), loaded.spec.tiling) for image in images]
    pixels = [make_pixels(image, plan, loaded.image_processor) for image, plan in zip(images, plans, strict=True)]
    features = [model.get_vision_tower().see(one, plan) for one, plan in zip(pixels, plans, strict=True)]
    ids = torch.tensor([[5, -200, 7, -200, 9]])
    from_pixels = model(ids, images=pixels, image_sizes=[image.size for image in images]).logits
    assert torch.equal(model(ids, images=features).logits, from_pixels)
    assert from_pixels.shape[1] == 3 + sum(map(len, features))
    labels = torch.tensor([[-100, -100, 7, -100, 9]])
    assert model(ids, images=features, labels=labels).loss.isfinite()


def test_an_image_of_several_tiles_needs_its_size_and_a_video_is_refused(loaded: Any) -> None:
    plan = plan_tiles(WIDE, loaded.spec.tiling)
    pixels = make_pixels(draw(*WIDE), plan, loaded.image_processor)
    ids = torch.tensor([[5, -200, 7]])
    with pytest.raises(UsageError, match="without its size"):
        loaded.model(ids, images=[pixels])
    with pytest.raises(UsageError, match="no videos"):
        loaded.model(ids, images=[pixels], image_sizes=[WIDE], modalities=["video"])


def test_a_batch_answers_as_each_image_alone(loaded: Any) -> None:
    model, images = loaded.model, [draw(*WIDE, words=3), draw(96, 96, words=0, stars=0)]
    plans = [plan_tiles(Size(*image.size), loaded.spec.tiling) for image in images]
    pixels = [make_pixels(image, plan, loaded.image_processor) for image, plan in zip(images, plans, strict=True)]
    ids = torch.tensor([[5, -200, 7], [8, -200, 9]])
    sizes = [image.size for image in images]
    options = {"max_new_tokens": 5, "eos_token_id": None}
    together = model.generate(ids, images=pixels, image_sizes=sizes, **options)
    for i in range(2):
        alone = model.generate(ids[i : i + 1], images=pixels[i : i + 1], image_sizes=sizes[i : i + 1], **options)
        assert together[i].tolist() == alone[0].tolist()


def test_a_replaced_encode_images_is_refused_and_a_hook_on_the_tower_runs(loaded: Any, folder: Path) -> None:
    model = load_model(folder, device="cpu", dtype="float32").model
    plan = plan_whole(WIDE, loaded.spec.tiling)
    pixels = make_pixels(draw(*WIDE), plan, loaded.image_processor)
    seen: list[Any] = []
    model.get_vision_tower().register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model(torch.tensor([[5, -200]]), images=[pixels])
    assert len(seen) == 1
    model.encode_images = lambda images: images
    with pytest.raises(UsageError, match="encode_images was replaced"):
        model(torch.tensor([[5, -200]]), images=[pixels])


# ------------------------------------------------------------------------------------------------ the whole way


def test_a_prepared_question_holds_what_was_seen_and_counts_it(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = load_image(draw(*WIDE, words=2))
    conversation = write_chat(loaded, [("What is this?", 1, None)], None)
    prepared = prepare(loaded, conversation, [image], GREEDY)
    assert image.features is None
    features = prepared.images[0].features
    assert torch.equal(features, see(loaded, image.image)[0])
    assert prepared.positions == (len(features),) == (prepared.plans[0].counted,)
    assert prepared.prompt.num_positions == len(prepared.prompt.input_ids) - 1 + len(features)
    monkeypatch.setattr(type(loaded.model.get_vision_tower()), "see", None)  # it is not looked at again
    again = prepare(loaded, conversation, [image], GREEDY)
    assert again.images[0].features is features


def test_an_answer_is_that_of_generate_and_text_alone_is_the_base_models(loaded: Any) -> None:
    answerer = Answerer(loaded)
    image = load_image(draw(*WIDE, words=2))
    for shown in ([image], []):
        conversation = write_chat(loaded, [("What is this?", len(shown), None)], None)
        answer = answerer.answer(conversation, shown, GREEDY)
        prepared = prepare(loaded, conversation, shown, GREEDY)
        new_ids = loaded.model.generate(
            torch.tensor([prepared.prompt.input_ids]),
            images=[one.features for one in prepared.images] or None,
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=list(prepared.stop_ids),
        )[0]
        assert answer.new_tokens == len(new_ids)
        assert answer.text.strip() == loaded.tokenizer.decode(new_ids, skip_special_tokens=True).strip()
        assert answer.prompt_tokens == prepared.prompt_tokens


def test_a_training_sample_is_planned_with_the_most_positions_and_learns_from_the_real_ones(
    loaded: Any, tmp_path: Path
) -> None:
    class Samples:
        def __len__(self) -> int:
            return 1

        def sample(self, index: int) -> Sample:
            return Sample((draw(*WIDE, words=2),), (("human", "<image>\nWhat is read?"), ("gpt", "word 0")))

    data = InstructionData(
        Samples(), loaded.tokenizer, loaded.spec.tiling, loaded.image_processor, ("qwen_1_5",), loaded.context_tokens
    )
    assert data.plan([WIDE])[0].num_positions == 15 + LEXICAL["max_words"]
    item = data[0]
    model = copy.deepcopy(loaded.model).train()
    model.requires_grad_(True).get_vision_tower().requires_grad_(False)
    outputs = model(
        item["input_ids"][None], labels=item["labels"][None], images=item["images"], image_sizes=item["image_sizes"]
    )
    outputs.loss.backward()
    assert outputs.logits.shape[1] == len(item["input_ids"]) - 1 + len(see(loaded, draw(*WIDE, words=2))[0])
    layer = model.model.layers[0].self_attn.q_proj
    assert all(weight.grad.abs().max() > 0 for weight in (layer.weight, layer.image_lora_B.weight))
    assert model.model.mm_projector.inner.weight.grad is not None
    assert not model.get_vision_tower().training
    stage = TuningStage(name="talk", batch_size=1, lr=1e-3)
    for changes in ({"cache_features": True}, {"compile": True}):
        with pytest.raises(UsageError, match=f"'talk': {next(iter(changes))}"):
            set_levers(model, replace(stage, **changes), data, tmp_path / "features")


# ------------------------------------------------------------------------------------------------ folders


def test_a_saved_model_is_loaded_bit_by_bit(folder: Path, loaded: Any, tmp_path: Path) -> None:
    original = make_lexical().state_dict()
    assert {name for name in original if name.startswith("model.vision_tower.")} == {
        f"model.vision_tower.{name}"
        for name in (
            *("things.stem.weight", "things.norm.weight", "things.norm.bias"),
            *(f"things.classify.{i}.{leaf}" for i in range(2) for leaf in ("weight", "bias")),
            *("reader.weight", "objects.conv.weight", "objects.conv.bias"),
        )
    }
    state = loaded.model.state_dict()
    assert state.keys() == original.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in original.items())
    save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "again")
    ours, theirs = (json.loads((place / "config.json").read_text()) for place in (folder, tmp_path / "again"))
    assert ours | {"mm_vision_tower": ""} == theirs
    assert ours["mm_vision_config"]["things_config"] == LEXICAL["things_config"]
    assert ours["mm_image_adapter"] == CONFIG["mm_image_adapter"]
    convert(folder, tmp_path / "copy", "original")
    assert read_spec(tmp_path / "copy") is not None
    copied = load_model(tmp_path / "copy", device="cpu", dtype="float32").model.state_dict()
    assert all(torch.equal(copied[name], tensor) for name, tensor in original.items())


def test_a_result_of_training_keeps_the_tower_that_was_frozen(loaded: Any, tmp_path: Path) -> None:
    save_result(loaded.model, loaded.tokenizer, tmp_path / "result", dtype=torch.bfloat16)
    state, result = loaded.model.state_dict(), load_file(tmp_path / "result/model.safetensors")
    tower = [name for name in state if name.startswith("model.vision_tower.")]
    assert tower
    assert all(torch.equal(result[name], state[name]) for name in tower)
    assert {value.dtype for name, value in result.items() if name not in tower} == {torch.bfloat16}


def test_training_in_16_bits_leaves_the_frozen_tower_in_its_own_dtype(folder: Path, loaded: Any) -> None:
    model = load_model(folder, device="cpu", dtype="float32").model
    set_precision(model, [], mixed_precision="bf16", has_original_tower=False)
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16
    before = loaded.model.get_vision_tower().state_dict()
    assert all(torch.equal(before[name], value) for name, value in model.get_vision_tower().state_dict().items())


def test_transformers_own_loading_gives_the_same_model(folder: Path, loaded: Any) -> None:
    model = LlavaLlamaForCausalLM.from_pretrained(folder)
    state = loaded.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    model.get_vision_tower().take_companions(loaded.image_processor, loaded.tokenizer)
    plan = plan_whole(WIDE, loaded.spec.tiling)
    pixels, ids = make_pixels(draw(*WIDE), plan, loaded.image_processor), torch.tensor([[5, -200, 7]])
    assert torch.equal(model.eval()(ids, images=[pixels]).logits, loaded.model(ids, images=[pixels]).logits)
    assert pickle.loads(pickle.dumps(model)).get_vision_tower().see(pixels, plan).isfinite().all()


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"bits": 8}, {"bits": 4}])
def test_neither_a_dtype_nor_quantization_changes_the_tower(folder: Path, loaded: Any, options: dict[str, Any]) -> None:
    model = load_model(folder, device="cpu", **options).model
    for name, tensor in loaded.model.get_vision_tower().state_dict().items():
        assert torch.equal(model.get_vision_tower().state_dict()[name], tensor)
    plan = plan_whole(WIDE, loaded.spec.tiling)
    pixels = make_pixels(draw(*WIDE), plan, loaded.image_processor)
    assert model(torch.tensor([[5, -200]]), images=[pixels.to(model.dtype)]).logits.isfinite().all()


def test_other_layouts_are_refused(folder: Path, tmp_path: Path) -> None:
    for layout in ("hf", "gguf"):
        with pytest.raises(UsageError, match="lexical"):
            convert(folder, tmp_path / layout, layout)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mm_projector_type": "mlp2x_gelu"}, "mm_projector_type"),
        ({"mm_patch_merge_type": "spatial"}, "mm_patch_merge_type"),
        ({"mm_image_adapter": {"rank": -1, "alpha": 1}}, "mm_image_adapter"),
        ({"mm_vision_config": {**LEXICAL, "max_words": "many"}}, "max_words"),
        ({"mm_vision_config": {**LEXICAL, "reader_config": 3}}, "reader_config"),
        ({"mm_vision_config": {**LEXICAL, "things_config": {"colour": 3}}}, "colour"),
        (
            {"mm_vision_config": {**LEXICAL, "things_config": {"size": "lite9"}}},
            "'lite9'; it has to be one of lite0, l",
        ),
        ({"mm_vision_config": {**LEXICAL, "hidden_size": 20}}, "mm_hidden_size"),
        ({"s2": True}, "s2"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    with pytest.raises(CheckpointError, match=said):
        load_model(folder, config=values, device="cpu")


def test_info_tells_of_the_tower_the_adapter_and_what_it_reads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    describe_checkpoint(str(folder))
    said = capsys.readouterr().out
    assert "lexical, inside: 15 features of things, and up to 60 words that it reads" in said
    assert "of rank 2, alpha 4, active from a prompt's first image on" in said
    image = tmp_path / "image.png"
    draw(*WIDE, words=2, stars=1).save(image)
    describe_image(str(folder), str(image), plot=str(tmp_path / "map.png"))
    said = capsys.readouterr().out
    assert "15 positions and those of what it reads, at most 75" in said
    assert (tmp_path / "map.png").stat().st_size > 1000
    describe_prompt(str(folder), ["What is this?"], [], [str(image)])
    num = 15 + len(make_tokenizer()("1 object: red star (top).\nText (1 line):\n1. word 0 | word 1").input_ids)
    assert f"<image> {num} positions" in capsys.readouterr().out


def test_other_towers_have_no_range_of_positions() -> None:
    model = make_model()
    assert model.tiling().position_range is None
    assert plan_tiles(Size(50, 40), model.tiling()).say_positions().split()[0].isdigit()


def test_a_bar_whose_value_is_unknown_is_ranked_by_its_length_among_those_with_values() -> None:
    sizes = [("Ann", 12, "12"), ("Bob", -8, "-8"), ("Cem", 15, "15"), ("Dot", -3, "-3"), ("Eva", 6, "")]
    bars, values, names = [], [], []
    for i, (name, size, figure) in enumerate(sizes):
        x, end = 60.0 + 60 * i, 200.0 - 10 * size
        bars.append(Drawn("bar", "blue", (x, min(200, end), x + 40, max(200, end)), 1))
        names.append(Text(name, (x, 330, x + 40, 345)))
        if figure:
            values.append(
                Text(figure, (x + 10, end + 3, x + 30, end + 15) if size < 0 else (x + 10, end - 15, x + 30, end - 3))
            )
    told = describe_scene((400, 400), [*values, *names], bars)
    assert "Largest: Cem 15; smallest: Bob -8; in order: 1. Cem, 2. Ann, 3. Eva, 4. Dot, 5. Bob." in told
