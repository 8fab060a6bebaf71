"""Pages and crops that the reader of text learns from, and the prior that is counted from their texts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import get_data_path
from safetensors.torch import load_file, save_file

from llava.model.lexical.characters import ALPHABET, NUM_CLASSES, encode
from llava.model.lexical.crop_reader import CROP_HEIGHT, CropReader, normalize
from llava.model.lexical.line_reader import LineReader
from llava.model.lexical.text_prior import TextPrior
from llava.scratch.reading.crop_distortions import distort
from llava.scratch.reading.fit_prior import count_characters
from llava.scratch.reading.join import join
from llava.scratch.reading.line_images import draw_line
from llava.scratch.reading.line_texts import LineTexts
from llava.scratch.reading.page import Page, Sources
from llava.scratch.reading.page_crops import draw_page_lines
from llava.scratch.reading.page_kinds import KINDS
from llava.scratch.reading.reading_fonts import FaceBox
from llava.scratch.reading.train_reader import stack
from llava.scratch.reading.unfuse import learn_statistics, load_fused, read_crops
from llava.scratch.talking.pack import pack_tower


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    words = tmp_path_factory.mktemp("words") / "list"
    words.write_text("\n".join(a + b + c for a in "bdg" for b in ("an", "or", "ill") for c in ("", "ed", "s")))
    return Sources(FaceBox((str(Path(get_data_path()) / "fonts" / "ttf"),), False), LineTexts(words, False))


@pytest.mark.parametrize("kind", ["menu", "card", "long line", "notice", "receipt", "table"])
def test_a_page_says_where_its_lines_stand_and_in_which_colours(kind: str, sources: Sources) -> None:
    marks = [mark for seed in range(3) for mark in KINDS[kind][0](random.Random(seed), sources)[1] if mark.text]
    assert marks
    assert all(mark.left < mark.right and mark.ink and mark.ground for mark in marks)
    assert sum(mark.ink != mark.ground for mark in marks) > 0.8 * len(marks)


def test_letterspaced_text_is_as_long_as_its_mark(sources: Sources) -> None:
    page = Page(random.Random(1), np.full((60, 500, 3), 255, dtype=np.float32))
    plain = sources.style(page.rng, 20)
    wide = plain._replace(tracking=7)
    assert wide.length("HOH") == plain.length("HOH") + 14
    page.write(20, 40, "HOH", wide, (0, 0, 0))
    inked = np.flatnonzero((np.asarray(page.image)[..., 0] < 128).any(0))
    (mark,) = page.marks
    assert mark.left <= inked[0] <= mark.left + 4
    assert mark.right - 4 <= inked[-1] <= mark.right


def test_crops_of_pages_hold_what_they_say(sources: Sources) -> None:
    lines = [line for seed in range(4) for line in draw_page_lines(random.Random(seed), sources)]
    assert lines
    assert all(line.pixels.shape[0] == 24 and line.pixels.dtype == np.uint8 for line in lines)
    assert all(line.text and set(line.text) <= set(ALPHABET) for line in lines)


def test_a_character_stands_where_its_span_is(sources: Sources) -> None:
    for seed in range(20):
        line = draw_line(random.Random(seed), sources.faces, sources.texts)
        assert line.spans.shape == (len(line.text), 2)
        assert (line.spans[:-1, 1] == line.spans[1:, 0]).all()
        assert line.spans[:, 1].max() <= line.pixels.shape[1] + 2


def test_a_batch_is_normalized_as_each_crop_alone() -> None:
    noise = np.random.default_rng(2)
    crops = [noise.integers(0, 256, (CROP_HEIGHT, width, 3), dtype=np.uint8) for width in (31, 48, 90)]
    pixels, steps, _ = stack(crops)
    assert steps.tolist() == [16, 24, 46]
    for one, crop in zip(pixels, crops, strict=True):
        width = crop.shape[1]
        torch.testing.assert_close(one[..., :width], normalize(torch.tensor(crop).permute(2, 0, 1)))
        assert not one[..., width:].any()


def test_distorted_crops_stay_near_what_they_were() -> None:
    torch.manual_seed(3)
    crops = torch.zeros(40, 3, CROP_HEIGHT, 64)
    crops[..., 8:16, 24:40] = 200
    distorted = distort(crops)
    assert distorted.shape == crops.shape
    assert distorted.min() >= 0
    assert distorted.max() <= 255
    assert ((distorted - crops).abs().mean((1, 2, 3)) > 0.5).float().mean() > 0.5
    assert distorted[..., 10:14, 30:34].mean() > 150
    assert distorted[..., :3, :10].mean() < 10


def test_packed_weights_are_trained_on_from_what_they_say(tmp_path: Path) -> None:
    torch.manual_seed(4)
    reader = LineReader()
    batches = [torch.randn(6, 3, CROP_HEIGHT, 64) for _ in range(3)]
    reader.crops.train()
    for batch in batches:
        reader.crops(batch)
    packed = tmp_path / "packed.safetensors"
    save_file(pack_tower(LineReader(), reader.state_dict()), packed)
    network = CropReader()
    load_fused(network, read_crops(packed))
    learn_statistics(network, batches)
    with torch.no_grad():
        said = reader.crops.eval()(batches[0])
        torch.testing.assert_close(network.eval()(batches[0]), said, atol=0.03, rtol=0.03)
        network.train()
        network.drop.eval()
        assert (network(batches[0]).argmax(-1) == said.argmax(-1)).float().mean() > 0.9
    torch.save({"average": network.state_dict()}, tmp_path / "crop_reader.pt")
    join(tmp_path, tmp_path / "joined.safetensors", packed)
    again = pack_tower(LineReader(), load_file(tmp_path / "joined.safetensors"))
    for name, value in load_file(packed).items():
        torch.testing.assert_close(again[name].float(), value.float(), atol=5e-3, rtol=5e-3)


def steps_of(*shares: dict[str, float]) -> np.ndarray:
    chances = np.full((2 * len(shares), NUM_CLASSES), 1e-6, dtype=np.float32)
    chances[:, 0] = 1
    for step, given in enumerate(shares):
        chances[2 * step, 0] = 1e-3
        for character, share in given.items():
            chances[2 * step, encode(character)[0]] = share
    return np.log(chances)


def test_a_prior_settles_what_is_left_open() -> None:
    dollars = steps_of({"S": 0.6, "$": 0.35}, {"2": 0.9}, {"5": 0.9})
    word = steps_of({"m": 0.9}, {"i": 0.9}, {"1": 0.5, "l": 0.4}, {"k": 0.9})
    assert TextPrior().read([dollars, word]) == ["S25", "mi1k"]
    prior = count_characters(["$12", "$7", "$256", "milk", "silk", "Sand", "pill"] * 30)
    assert prior.read([dollars, word, steps_of({})]) == ["$25", "milk", ""]


def test_a_prior_leaves_what_is_clear() -> None:
    prior = count_characters(["$12", "milk"] * 30)
    assert prior.read([steps_of({"S": 0.99}, {"2": 0.99}, {"q": 0.99})]) == ["S2q"]
