"""Records become token ids, labels and tiles, and one that cannot is named, or counted and left out."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import find_template
from llava.errors import BadImage, BadSample, ContextTooLong, UsageError
from llava.image.geometry import Size, Tiling, plan_tiles
from llava.image.pixels import ImageProcessor, expand2square
from llava.prompt import tokenizer_image_token
from llava.train.dataset.image_slots import place_image, write_sample
from llava.train.dataset.samples import Fault, InstructionData, JsonSamples, Sample, count_fitting
from tests.tiny_tokenizers import words_and_letters

PAD = Tiling(aspect="pad", tile_px=28, patch_px=7)
ANYRES = Tiling("anyres", "spatial_unpad", 28, 7, (Size(28, 56), Size(56, 28), Size(56, 56)))
TOKENIZER = words_and_letters("A chat USER ASSISTANT What is the cat image")
Turns = tuple[tuple[str, str], ...]


def turns(*texts: str) -> Turns:
    return tuple((("human", "gpt")[i % 2], text) for i, text in enumerate(texts))


def write_data(folder: Path, *samples: tuple[Any, Turns]) -> JsonSamples:
    """A JSON file of (image names, turns), and images of 40x20 px called a.png and b.png; c.png is damaged."""
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 20), color).save(folder / name)
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:60])
    rows = []
    for i, (image, said) in enumerate(samples):
        conversations = [{"from": speaker, "value": text} for speaker, text in said]
        rows.append({"id": f"s{i}", "conversations": conversations} | ({"image": image} if image else {}))
    (folder / "data.json").write_text(json.dumps(rows))
    return JsonSamples(folder / "data.json", folder)


def make_data(source: Any, tiling: Tiling = PAD, template: str = "v1", **options: Any) -> InstructionData:
    return InstructionData(source, TOKENIZER, tiling, ImageProcessor(size=28), (template,), 4096, **options)


# --- where <image> stands ----------------------------------------------------------------------------------------

PLACED = [
    ("What?", "What?", "What?"),
    ("<image>\nWhat?", "<image>\nWhat?", "<image>\nWhat?"),
    ("<image>What?", "<image>\nWhat?", "<image>What?"),
    ("What?\n<image>", "<image>\nWhat?", "<image>\nWhat?"),
    (" Is <image> old? ", "<image>\nIs  old?", "<image>\nIs  old?"),
    ("<image>", "<image>", "<image>"),
    ("<image> ", "<image>", "<image> "),
    ("<image>\n<image>\nWhich?", "<image>\nWhich?", "<image>\n<image>\nWhich?"),
    ("Is <image> or <image> older?", "<image>\nIs  or  older?", "Is <image> or <image> older?"),
]


@pytest.mark.parametrize(("text", "in_1_5", "in_next"), PLACED)
def test_an_image_is_placed_in_a_turn_as_each_original_places_it(text: str, in_1_5: str, in_next: str) -> None:
    assert place_image(text, "1.5") == in_1_5
    assert place_image(text, "next") == in_next


def test_tags_and_start_and_end_tokens_wrap_an_image() -> None:
    assert place_image("What?\n<image>", "1.5", is_tagged=True) == "<Image><image></Image>\nWhat?"
    assert place_image("<image>\nQ", "next", is_tagged=True) == "<image>\nQ"  # LLaVA-NeXT wraps only what it moves
    assert place_image("Q <image>", "1.5", has_start_end=True) == "<im_start><image><im_end>\nQ"
    assert place_image("<image><image>", "next", has_start_end=True) == "<im_start><image><im_end>" * 2


def test_the_images_of_a_leading_answer_go_to_the_question_after_it() -> None:
    said = (("gpt", "Look: <image>"), *turns("What?", "A cat."))
    assert write_sample(said, 1, find_template("v1")).messages == [["USER", "<image>\nWhat?"], ["ASSISTANT", "A cat."]]
    kept = write_sample(said, 1, find_template("llava_v0")).messages  # whose text names the speaker of each turn
    assert kept[0] == ["Assistant", "<image>\nLook:"]


@pytest.mark.parametrize(
    ("template", "system"),
    [("v1", "Be brief."), ("llava_llama_2", "Be brief."), ("qwen_1_5", "<|im_start|>system\nBe brief."),
     ("llava_llama_3", "Be brief.")],
)  # fmt: skip
def test_a_system_turn_replaces_the_text_of_the_template(template: str, system: str) -> None:
    said = (("system", "Be brief."), *turns("Q", "A"))
    assert write_sample(said, 0, find_template(template)).system == system


@pytest.mark.parametrize("template", ["mistral_instruct", "gemma_instruct", "plain"])
def test_a_template_without_a_system_text_refuses_a_system_turn(template: str) -> None:
    with pytest.raises(BadSample, match="system prompt, for which this template has no place"):
        write_sample((("system", "S"), *turns("<image>", "A")), 1, find_template(template))


@pytest.mark.parametrize(
    ("said", "num_images", "message"),
    [
        (turns("What?", "A"), 1, "it has 0 <image> and 1 images"),
        (turns("<image>", "A"), 0, "it has 1 <image> and 0 images"),
        (turns("<image>", "A", "<image>", "B"), 1, "it has 2 <image> and 1 images"),
        (turns("<image>", "A"), 2, "it has 1 <image> and 2 images"),
    ],
)
@pytest.mark.parametrize("rule", ["1.5", "next"])
def test_more_or_fewer_slots_than_images_are_an_error(said: Turns, num_images: int, message: str, rule: str) -> None:
    with pytest.raises(BadSample, match=message):
        write_sample(said, num_images, find_template("v1"), rule)


@pytest.mark.parametrize("rule", ["1.5", "next"])
def test_several_images_keep_their_places(rule: str) -> None:
    said = turns("Is <image> or <image> older?", "The first.", "And\n<image>?", "Old.")
    messages = write_sample(said, 3, find_template("v1"), rule).messages
    assert [text for _, text in messages[::2]] == ["Is <image> or <image> older?", "<image>\nAnd\n?"]


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no rule '1\.6'.*there are: 1\.5, next"):
        write_sample(turns("Q", "A"), 0, find_template("v1"), "1.6")


@pytest.mark.parametrize("said", [turns("<image>\nQ", "A", "Q", "B"), turns("Q", "A")])
def test_stage_1_takes_an_image_and_its_caption_and_nothing_else(said: Turns) -> None:
    num_images = int("<image>" in said[0][1])
    with pytest.raises(BadSample, match=rf"{len(said)} turns and {num_images} images"):
        write_sample(said, num_images, find_template("plain"))


# --- ids, labels and tiles ---------------------------------------------------------------------------------------


def test_a_sample_has_the_ids_of_its_prompt_and_learns_its_answers(tmp_path: Path) -> None:
    source = write_data(tmp_path, ("a.png", turns("What?\n<image>", "A cat", "Is it?", "")), (None, turns("Q", "A")))
    data = make_data(source)
    item = data[0]
    text = write_sample(source.record(0).turns, 1, find_template("v1")).get_prompt()
    assert item["input_ids"].tolist() == tokenizer_image_token(text, TOKENIZER)
    assert TOKENIZER.decode(item["labels"][item["labels"] != IGNORE_INDEX]) == " A cat</s>"
    assert (item["id"], item["source"]) == ("s0", str(tmp_path / "data.json"))
    assert item["image_sizes"] == [(40, 20)]
    with Image.open(tmp_path / "a.png") as image:
        padded = expand2square(image, tuple(int(x * 255) for x in data.processor.image_mean))
    expected = data.processor.preprocess(padded, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(item["images"][0].numpy(), expected)
    assert (data[1]["images"], data[1]["image_sizes"]) == ([], [])


def test_stage_1_learns_the_caption_alone(tmp_path: Path) -> None:
    data = make_data(write_data(tmp_path, ("a.png", turns("Describe it.\n<image>", "cat"))), template="plain")
    assert data[0]["input_ids"].tolist()[:2] == [TOKENIZER.bos_token_id, IMAGE_TOKEN_INDEX]
    assert data[0]["labels"].tolist() == [IGNORE_INDEX] * 2 + data[0]["input_ids"].tolist()[2:]


def test_start_and_end_tokens_surround_the_image_where_the_model_has_them(tmp_path: Path) -> None:
    source = write_data(tmp_path, ("a.png", turns("<image>\nQ", "A")))
    ids = make_data(source, has_start_end=True)[0]["input_ids"]
    marks = tokenizer_image_token("<im_start><image><im_end>", TOKENIZER)
    slot, at = marks.index(IMAGE_TOKEN_INDEX), ids.tolist().index(IMAGE_TOKEN_INDEX)
    assert ids[at - slot + 2 : at].tolist() == marks[2:slot]


def test_one_image_of_next_is_tiled_and_each_of_several_is_padded(tmp_path: Path) -> None:
    source = write_data(
        tmp_path, (["a.png"], turns("<image>\nQ", "A")), (["a.png", "b.png"], turns("<image><image>\nQ", "A"))
    )
    one, two = (make_data(source, ANYRES, rule="next")[i] for i in range(2))
    assert [len(image) for image in one["images"]] == [plan_tiles(Size(40, 20), ANYRES).num_tiles] == [3]
    assert [tuple(image.shape) for image in two["images"]] == [(1, 3, 28, 28)] * 2
    padded = make_data(source, PAD)[1]
    assert all(torch.equal(x, y) for x, y in zip(two["images"], padded["images"], strict=True))
    assert [len(image) for image in make_data(source, ANYRES)[1]["images"]] == [3, 3]  # as a question of both would be


def test_positions_are_counted_from_the_headers_of_the_images(tmp_path: Path) -> None:
    said = turns("<image><image>\nQ", "A")
    source = write_data(tmp_path, (["a.png", "turned.jpg"], said), (None, turns("Q", "A")))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (50, 20)).save(tmp_path / "turned.jpg", exif=turned)
    assert source.measure(0) == [Size(40, 20), Size(20, 50)] == [Size(*image.size) for image in source.sample(0).images]
    data = make_data(source, ANYRES)
    num_images = sum(plan_tiles(size, ANYRES).num_positions for size in source.measure(0))
    assert data.count_positions(0) == len(data[0]["input_ids"]) - 2 + num_images
    assert data.count_positions(1) == len(data[1]["input_ids"])


def test_a_template_is_drawn_for_each_sample_and_stays_the_same() -> None:
    data = InstructionData([None] * 50, None, PAD, ImageProcessor(size=28), ("v1", "llava_v1"), None)  # type: ignore[arg-type]
    chosen = [data.choose_template(i) for i in range(50)]
    assert chosen == [data.choose_template(i) for i in range(50)]
    assert set(chosen) == {"v1", "llava_v1"}


# --- the length --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_length", "expected"), [(100, 5), (12, 5), (11, 4), (10, 3), (9, 2), (2, 2), (1, 1), (0, 0)]
)
def test_ids_are_cut_where_their_positions_end_and_no_image_is_cut_in_two(max_length: int, expected: int) -> None:
    assert count_fitting((1, 5, IMAGE_TOKEN_INDEX, 6, 7), (8,), max_length) == expected


def test_a_long_sample_is_cut_and_the_image_beyond_the_end_is_not_encoded(tmp_path: Path) -> None:
    source = write_data(tmp_path, (["a.png", "b.png"], turns("<image>\nQ", "A", "<image>\nQ", "B")))
    whole = make_data(source)[0]
    second = [i for i, token in enumerate(whole["input_ids"].tolist()) if token == IMAGE_TOKEN_INDEX][1]
    cut = make_data(source, max_length=second + 15 + 15)[0]  # the first image takes 16 positions, the second would, too
    assert cut["input_ids"].tolist() == whole["input_ids"].tolist()[:second]
    assert cut["labels"].tolist() == whole["labels"].tolist()[:second]
    assert (len(cut["images"]), cut["image_sizes"]) == (1, [(40, 20)])


def test_a_sample_longer_than_the_context_cannot_be_trained_on(tmp_path: Path) -> None:
    data = make_data(write_data(tmp_path, (None, turns("Q" * 5000, "A"))))
    with pytest.raises(BadSample, match=r"Sample s0 .* cannot be trained on: The prompt takes .* holds 4096"):
        data[0]
    with pytest.raises(ContextTooLong, match="Lower max_length"):
        make_data(data.source, max_length=4500).encode_text(turns("Q" * 5000, "A"), [], "v1")


def test_a_sample_whose_targets_are_all_cut_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long, short = (None, turns("Q" * 300, "A")), (None, turns("Q", "A"))
    source = write_data(tmp_path, long, short)
    data = make_data(source, max_length=250)
    assert [data[i]["id"] for i in (0, 1, 0)] == ["s1", "s1", "s1"]
    assert data.list_left_out(Fault.CUT) == ["s0"]
    assert capsys.readouterr().err == (
        f"llava: Sample s0 (row 0 of '{tmp_path}/data.json') is left out: all its answers lie beyond max_length, 250 "
        "positions.\n"
    )
    kept = make_data(source, max_length=250, keeps_cut=True)
    assert [kept[0]["id"], len(kept[0]["labels"]), int((kept[0]["labels"] != IGNORE_INDEX).sum())] == ["s0", 250, 0]
    assert kept.list_left_out(Fault.CUT) == ["s0"]
    with pytest.raises(BadSample, match="No sample is left"):
        make_data(write_data(tmp_path, long), max_length=250)[0]


# --- faults ------------------------------------------------------------------------------------------------------

GOOD, BROKEN = ("a.png", turns("<image>\nQ", "A")), ("c.png", turns("<image>\nQ", "A"))
MISSING, EXTRA = ("none.png", turns("<image>\nQ", "A")), ("a.png", turns("Q", "A"))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (BROKEN, r"Sample s0 \(row 0 of '.*data.json'\) cannot be trained on: c.png is a PNG .*damaged"),
        (MISSING, "Sample s0 .* cannot be trained on: There is no image '.*none.png'"),
        (EXTRA, "Sample s0 .* cannot be trained on: it has 0 <image> and 1 images"),
        (("../a.png", GOOD[1]), "lies outside the image folder"),
    ],
)
def test_a_sample_that_cannot_be_trained_on_is_an_error_that_names_it(
    tmp_path: Path, sample: Any, message: str
) -> None:
    with pytest.raises(BadSample, match=message):
        make_data(write_data(tmp_path, sample, GOOD))[0]


def test_up_to_a_limit_such_samples_are_left_out_and_the_next_one_takes_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(write_data(tmp_path, BROKEN, MISSING, GOOD, EXTRA), skip_limit=2)
    assert [data[i]["id"] for i in (0, 1, 2, 0)] == ["s2"] * 4
    assert data.list_left_out(Fault.UNUSABLE) == ["s0", "s1"]
    assert len(capsys.readouterr().err.splitlines()) == 2
    with pytest.raises(BadSample, match=r"Sample s3 .* 2 others were left out already"):
        data[3]


def test_what_worker_processes_leave_out_is_known_in_this_one(tmp_path: Path) -> None:
    data = make_data(write_data(tmp_path, BROKEN, GOOD), skip_limit=1)
    loader = torch.utils.data.DataLoader(
        data, batch_size=1, num_workers=1, collate_fn=list, multiprocessing_context=multiprocessing.get_context("fork")
    )
    assert [batch[0]["id"] for batch in loader] == ["s1", "s1"]
    assert data.list_left_out(Fault.UNUSABLE) == ["s0"]


def test_faults_are_found_before_training_without_opening_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(write_data(tmp_path, GOOD, MISSING, EXTRA, BROKEN))
    monkeypatch.setattr(Image, "open", None)
    assert [(index, reason[:20]) for index, reason in data.find_faults()] == [
        (1, "There is no image '" + str(tmp_path)[:1]),
        (2, "it has 0 <image> and"),
    ]


def test_image_names_lead_out_of_the_folder_only_where_that_is_allowed(tmp_path: Path) -> None:
    write_data(tmp_path, GOOD)
    (tmp_path / "inside").mkdir()
    path = str(tmp_path / "a.png")
    (tmp_path / "data.json").write_text((tmp_path / "data.json").read_text().replace('"a.png"', json.dumps(path)))
    with pytest.raises(BadImage, match="outside"):
        JsonSamples(tmp_path / "data.json", tmp_path / "inside").sample(0)
    for source in (
        JsonSamples(tmp_path / "data.json", tmp_path / "inside", allows_outside=True),
        JsonSamples(tmp_path / "data.json"),
    ):
        assert source.sample(0).images[0].size == (40, 20)


def test_samples_can_be_iterated_over_and_counted_from_the_end(tmp_path: Path) -> None:
    data = make_data(write_data(tmp_path, GOOD, GOOD))
    assert [each["id"] for each in data] == ["s0", "s1"]  # type: ignore[attr-defined]
    assert data[-1]["id"] == "s1"
    with pytest.raises(IndexError, match="no sample 2; there are 2"):
        data[2]


def test_a_source_needs_no_records() -> None:
    class Drawn:
        def __len__(self) -> int:
            return 1

        def sample(self, index: int) -> Sample:
            return Sample((), turns("Q", "A" * 5000))

    with pytest.raises(BadSample, match="Sample 0 cannot be trained on"):
        make_data(Drawn())[0]
