"""Images whose answers are known: the answers follow from the drawing, and held-out things stay out of training."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from llava.image.geometry import Size, Tiling, plan_tiles
from llava.synth import words
from llava.synth.conversations import OFF_TOPIC, as_conversations, choose_turns, off_topic_questions
from llava.synth.drawing import CHARACTERS, COLORS, Drawing, load_font
from llava.synth.labels import LABEL_SIZES, label_tiles
from llava.synth.scene import is_held_out_pair
from llava.synth.scenes import KINDS
from llava.synth.shapes import name_place
from llava.synth.suite import TASKS, Item, draw_item, is_right
from llava.synth.texts import ORDINALS

SIZES = [(112, 112), (224, 200), (300, 100), (100, 300)]
PINPOINTS = (Size(112, 224), Size(224, 112), Size(224, 224), Size(336, 112), Size(112, 336))
ANYRES = Tiling(aspect="anyres", merge="spatial_unpad", tile_px=112, patch_px=14, pinpoints=PINPOINTS)


def scenes(kind: str, count: int = 30, held_out: bool = False):
    for i in range(count):
        width, height = SIZES[i % len(SIZES)]
        yield KINDS[kind](random.Random(f"{kind}{i}"), width, height, held_out)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_image_and_questions(kind):
    first, second = next(scenes(kind)), next(scenes(kind))
    assert np.array_equal(np.asarray(first.drawing.image), np.asarray(second.drawing.image))
    assert first.turns == second.turns
    assert first.caption == second.caption


@pytest.mark.parametrize("kind", KINDS)
def test_every_scene_has_questions_and_every_character_lies_on_the_image(kind):
    for scene in scenes(kind):
        assert scene.turns
        assert all(turn.answer for turn in scene.turns)
        for character in scene.drawing.characters:
            assert character.text in CHARACTERS
            assert -2 <= character.x <= scene.drawing.width + 2
            assert -2 <= character.y <= scene.drawing.height + 2


def test_answers_about_shapes_follow_from_the_objects_drawn():
    asked = set()
    for scene in scenes("shapes", 120):
        found = [(thing.color, thing.shape) for thing in scene.drawing.objects]
        for question, answer, task in scene.turns:
            words_asked = question.replace("?", "").split()
            asked.add(task)
            if task == "counting" and "objects" in question and not any(color in words_asked for color in COLORS):
                assert int(answer) == len(found)
            if task == "existence":
                named = list(itertools.pairwise(words_asked))
                assert (answer == "yes") == any(pair in found for pair in named)
            if task == "color":
                shape = next(word for word in words_asked if any(word == s for _, s in found))
                assert (answer, shape) in found
    assert {"color", "shape", "existence", "counting", "position", "relation", "option letter"} <= asked


def test_a_line_is_named_by_its_place_from_the_top():
    for scene in scenes("lines"):
        for question, answer, task in scene.turns:
            if task == "n-th line" and "line?" in question and "say" in question:
                place = next(i for i, ordinal in enumerate(ORDINALS) if ordinal in question)
                assert scene.drawing.texts[place] == answer


def test_the_largest_bar_is_the_highest_one_drawn():
    for scene in scenes("chart"):
        bars = [thing for thing in scene.drawing.objects if thing.shape == "bar"]
        count = next(turn for turn in scene.turns if turn.task == "chart count")
        assert int(count.answer) == len(bars)
        names = [pair.split(" ")[0] for pair in scene.caption.split(": ")[1].rstrip(".").split(", ")]
        largest = next(turn for turn in scene.turns if turn.task == "chart largest")
        assert names[int(np.argmin([bar.top for bar in bars]))] == largest.answer


def test_places_are_ninths_of_the_image():
    assert name_place(10, 10, 90, 90) == "top left"
    assert name_place(45, 10, 90, 90) == "top"
    assert name_place(45, 45, 90, 90) == "center"
    assert name_place(89, 45, 90, 90) == "right"
    assert name_place(45, 90, 90, 90) == "bottom"


def test_training_never_draws_a_held_out_word_or_pair_and_the_suite_draws_nothing_else():
    trained = [word for i in range(400) if (word := words.draw_word(random.Random(i), False))]
    held = [word for i in range(400) if (word := words.draw_word(random.Random(i), True))]
    assert not any(words.is_held_out(word) for word in trained)
    assert all(words.is_held_out(word) for word in held)
    for held_out in (False, True):
        for scene in scenes("shapes", 40, held_out):
            assert all(is_held_out_pair(thing.color, thing.shape) == held_out for thing in scene.drawing.objects)


def test_off_topic_questions_are_split_between_training_and_suite():
    assert not set(off_topic_questions(True)) & set(off_topic_questions(False))
    assert set(off_topic_questions(True)) | set(off_topic_questions(False)) == set(OFF_TOPIC)


def test_a_character_is_labelled_in_the_patch_of_every_tile_that_shows_it_large_enough():
    drawing = Drawing(random.Random(0), 224, 224)
    font = load_font(0, 34)
    drawing.write(120, 20, "A", font, "red")
    plan = plan_tiles(Size(224, 224), ANYRES)
    labels = label_tiles(drawing, plan, 112, 14)
    assert labels.shape == (5, 64, len(LABEL_SIZES))
    (mark,) = drawing.characters
    index = CHARACTERS.index("A") + 1
    tiles, patches = np.nonzero(labels[:, :, 0] == index)
    base = int(mark.y / 2 // 14) * 8 + int(mark.x / 2 // 14)
    top_right = int(mark.y // 14) * 8 + int((mark.x - 112) // 14)
    assert sorted(zip(tiles.tolist(), patches.tolist(), strict=True)) == [(0, base), (2, top_right)]
    assert labels[0, base, 5] == list(COLORS).index("red") + 1


def test_an_object_is_anchored_in_one_patch_and_covers_the_patches_whose_middles_it_hides():
    drawing = Drawing(random.Random(0), 112, 112)
    drawing.box("bar", "blue", 28, 42, 56, 112)
    tiling = Tiling(aspect="pad", merge="flat", tile_px=112, patch_px=14)
    grid = label_tiles(drawing, plan_tiles(Size(112, 112), tiling), 112, 14)[0].reshape(8, 8, -1)
    assert np.argwhere(grid[:, :, 6]).tolist() == [[3, 3]]
    assert sorted({tuple(cell) for cell in np.argwhere(grid[:, :, 3])}) == [(r, c) for r in range(3, 8) for c in (2, 3)]


def test_conversations_open_with_the_image_and_alternate():
    scene = next(scenes("form"))
    turns = choose_turns(random.Random(3), scene, 4)
    conversations = as_conversations(turns)
    assert conversations[0]["value"].startswith("<image>\n")
    assert [turn["from"] for turn in conversations] == ["human", "gpt"] * len(turns)
    assert sum(turn["value"].count("<image>") for turn in conversations) == 1


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_suite_question_is_always_the_same_and_its_own_answer_is_right(task):
    first, second = draw_item(task, 3), draw_item(task, 3)
    assert (first.question, first.answer) == (second.question, second.answer)
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
    assert is_right(first, f" {first.answer} ")
    assert not is_right(first, "something else")


def test_a_value_read_off_an_axis_may_be_one_tick_off():
    item = Item(None, "", "30", 10.0)  # type: ignore[arg-type]
    assert is_right(item, "40")
    assert is_right(item, "20.0")
    assert not is_right(item, "41")
    assert not is_right(item, "forty")
