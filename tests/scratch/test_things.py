"""Names, kinds and colours of things, the views that show them, and what the projector learns from these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from llava.errors import UsageError
from llava.model.lexical.nouns import with_article
from llava.scratch.things import kinds as kinds_file
from llava.scratch.things.align import NUM_CELLS, Wording, cover
from llava.scratch.things.colours import COLOURS, classify_colours, name_colours
from llava.scratch.things.cutouts import CutOut, is_held_out, trim
from llava.scratch.things.kinds import Kinds
from llava.scratch.things.names import name_phrase, name_title, vocabulary
from llava.scratch.things.view_grounds import GROUNDS, draw_ground
from llava.scratch.things.views import plan_views, render
from llava.scratch.things.wordnet import WordNet

# offset, words, hypernym: an excerpt of WordNet in its own format.
SYNSETS = (
    (100, ["animal"], None),
    (200, ["bird"], 100),
    (300, ["toucan"], 200),
    (400, ["person"], None),
    (500, ["printer"], 400),
    (600, ["machine"], None),
    (700, ["printer"], 600),
    (800, ["fruit_bowl"], 600),
    (900, ["goose"], 200),
)


@pytest.fixture
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kinds:
    data, senses = [], {}
    for offset, words, parent in SYNSETS:
        pointers = f"001 @ {parent:08d} n 0000" if parent else "000"
        data.append(f"{offset:08d} 03 n {len(words):02x} {words[0]} 0 {pointers} | a gloss  ")
        for word in words:
            senses.setdefault(word, []).append(f"{offset:08d}")
    (tmp_path / "data.noun").write_text("  1 licence\n" + "\n".join(data) + "\n")
    index = [f"{word} n {len(ids)} 1 @ {len(ids)} 0 {' '.join(ids)}  " for word, ids in senses.items()]
    (tmp_path / "index.noun").write_text("  1 licence\n" + "\n".join(index) + "\n")
    monkeypatch.setattr(kinds_file, "KINDS", "animal, bird, person, machine")
    return Kinds(WordNet(tmp_path))


def test_a_kind_is_the_nearest_listed_hypernym(kinds: Kinds) -> None:
    assert kinds.of_synset(300) == "bird"
    assert kinds.of_noun("toucan") == "bird"
    assert kinds.of_noun("keel-billed toucan") == "bird"  # by its last word
    assert kinds.of_noun("unheard of") is None


def test_a_printer_is_a_machine_before_it_is_a_person(kinds: Kinds) -> None:
    assert kinds.of_noun("printer") == "machine"


def test_plurals_are_found(kinds: Kinds) -> None:
    assert kinds.wordnet.find("toucans") == [300]
    assert kinds.wordnet.find("geese") == []


def test_a_folder_without_wordnet_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="apt-get download wordnet-base"):
        WordNet(tmp_path / "nothing")


def test_titles_become_everyday_names(kinds: Kinds) -> None:
    assert name_phrase("Simple Toucan 02 on a branch (B and W)", kinds) == ("toucan", "bird")
    assert name_phrase("pinguino col piccolo", kinds) is None  # a penguin, but not in this WordNet
    assert name_phrase("flag of a toucan", kinds) is None
    assert name_phrase("tigre", kinds) == ("tiger", "big cat")
    assert name_title("Clipart by Nicu Buculei - x", "toucan_nicu_buculei_01", kinds) == ("toucan", "bird")


def test_articles_follow_the_sound_and_the_number() -> None:
    names = ["apple", "house", "hourglass", "unicorn", "grapes", "bus", "glass of water", "scissors", "pair of shoes"]
    assert [with_article(name).split()[0] for name in names] == ["an", "a", "an", "a", "some", "a", "a", "some", "a"]


def test_the_tables_of_names_are_text_only() -> None:
    tables = vocabulary()
    for key in ("junk", "dropped", "cuts", "banned"):
        assert all(isinstance(word, str) for word in tables[key])  # "on" without quotes is YAML for true
    assert all(0 <= index < 1000 for index in tables["classes"])


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((220, 20, 30), "red"), ((250, 150, 20), "orange"), ((250, 220, 40), "yellow"), ((40, 160, 60), "green"),
     ((30, 80, 200), "blue"), ((130, 50, 170), "purple"), ((250, 170, 190), "pink"), ((120, 70, 30), "brown"),
     ((10, 10, 12), "black"), ((130, 130, 128), "gray"), ((250, 250, 250), "white")],
)  # fmt: skip
def test_colours_have_their_everyday_names(rgb: tuple[int, int, int], name: str) -> None:
    assert COLOURS[int(classify_colours(np.array(rgb)))] == name


def test_the_main_colours_are_those_of_opaque_pixels() -> None:
    image = np.zeros((10, 10, 4), np.uint8)
    image[:, :6] = (220, 20, 30, 255)
    image[:, 6:9] = (30, 80, 200, 255)  # the last column is transparent black
    assert name_colours(image) == ["red", "blue"]


def test_a_cut_out_needs_an_outline() -> None:
    filled = Image.new("RGBA", (300, 300), "red")
    assert trim(filled) is None
    disc = Image.new("RGBA", (600, 600))
    ImageDraw.Draw(disc).ellipse((100, 100, 500, 500), fill="red")
    assert trim(disc).size == (256, 256)


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, list[CutOut]]:
    cutouts = []
    names = [name for name in (f"thing {i}" for i in range(60)) if not is_held_out(name)][:6]
    held = [name for name in (f"thing {i}" for i in range(99)) if is_held_out(name)][:5]
    for name in names + held:
        image = Image.new("RGBA", (60, 60))
        ImageDraw.Draw(image).ellipse((0, 0, 59, 59), fill="red")
        image.save(tmp_path / f"{name}.png")
        cutouts.append(CutOut(f"{name}.png", name, "thing", ["red"], "drawn", is_held_out(name)))
    return tmp_path, cutouts


def test_no_view_mixes_held_out_names_with_others(folder: tuple[Path, list[CutOut]]) -> None:
    views = plan_views(folder[1], 200, seed=3)
    for view in views:
        assert {folder[1][placed.cutout].held_out for placed in view.objects} == {view.held_out}
    assert {view.layout for view in views} == {"single", "count", "pair", "scatter"}


def test_views_show_each_thing_in_its_cell(folder: tuple[Path, list[CutOut]]) -> None:
    path, cutouts = folder
    views = plan_views(cutouts, 120, seed=4)
    view = next(view for view in views if view.layout == "scatter")
    shown = render(replace(view, ground="white"), cutouts, path)
    assert shown.shape == (288, 288, 3)
    red = (shown[..., 0] > 180) & (shown[..., 1] < 80)
    counts = red.reshape(3, 96, 3, 96).sum((1, 3)).flatten()
    cells = [placed.cell for placed in view.objects]
    assert len(set(cells)) == len(cells)
    assert set(np.flatnonzero(counts > 1000)) == set(cells)


def test_a_view_is_the_same_each_time(folder: tuple[Path, list[CutOut]]) -> None:
    path, cutouts = folder
    view = plan_views(cutouts, 1, seed=5)[0]
    assert np.array_equal(render(view, cutouts, path), render(view, cutouts, path))


@pytest.mark.parametrize("kind", GROUNDS)
def test_grounds_are_drawn(kind: str) -> None:
    ground = draw_ground(kind, 64, np.random.default_rng(0))
    assert ground.shape == (64, 64, 3)
    assert np.isfinite(ground).all()


def test_a_box_covers_the_cells_that_it_reaches() -> None:
    covers = [cover([0.0, 0.0, 0.5, 0.5], cell) for cell in range(NUM_CELLS)]
    assert covers[0] > 0.6
    assert 0.1 < covers[1] < 0.4
    assert covers[2] == covers[8] == 0


def test_names_are_put_into_words_of_fixed_places() -> None:
    ids = {"\n": [0], ",": [1], " bird": [2], " toucan": [3, 4], " clothing": [5], " shirt": [6], " red": [7]}
    tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: SimpleNamespace(ids=ids[text]))
    wording = Wording(tokenizer, torch.eye(8))
    assert wording.name_ids("toucan", "bird") == [2, 1, 3, 4, 0, 0]
    assert wording.name_ids("shirt", "piece of clothing") == [5, 1, 6, 0, 0, 0]
    both = wording.whole([{"name": "toucan", "kind": "bird"}, {"name": "shirt", "kind": "piece of clothing"}])
    assert both[0].tolist() == [0, 0, 0.5, 0, 0, 0.5, 0, 0]
    assert wording.cell("red", "toucan").tolist() == [0, 0, 0, 0.5, 0, 0, 0, 0.5]
