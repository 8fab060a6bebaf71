"""The embedded model is complete and gives the answers in examples/README.md and of the demo."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from llava.inspection import describe_image

ROOT = Path(__file__).resolve().parents[2]


def examples() -> list[tuple[str, str, str]]:
    """Image, question and right answer of each row of the table."""
    text = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return [(image.strip("`"), question, right) for image, question, right in rows[1:]]


def demo() -> tuple[str, str]:
    """Image and question of ``make demo``."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(r"^DEMO_IMAGE \?= examples/(.*)\nDEMO_QUESTION \?= (.*)$", text, re.MULTILINE)
    assert found
    return found[1], found[2]


def test_the_demo_is_one_of_the_examples() -> None:
    assert demo() in [(image, question) for image, question, _ in examples()]


def test_the_readme_shows_the_demo_as_it_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    image, question = demo()
    (right,) = [answer for *asked, answer in examples() if tuple(asked) == (image, question)]
    (shown,) = re.findall(f'^\\$ llava ask examples/{image} "{re.escape(question)}"\n(.*[.])$', text, re.MULTILINE)
    assert right in re.findall(r"\w+", shown)  # the default model answers in a sentence
    assert "DEMO OUTPUT" not in text
    assert "TEST OUTPUT" not in text


@pytest.mark.parametrize("page", ["README.md", "docs/ask.md"])
def test_a_page_shows_the_demos_tiles_as_they_are_printed(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    image, _ = demo()
    describe_image(None, str(ROOT / "examples" / image))
    assert capsys.readouterr().out in (ROOT / page).read_text(encoding="utf-8")


def test_every_image_that_the_readme_names_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"examples/([\w.-]+\.(?:png|jpg))", text))
    assert named
    assert [name for name in named if not (ROOT / "examples" / name).is_file()] == []


def test_every_example_is_the_question_of_the_held_out_suite_that_it_says_it_is() -> None:
    import numpy as np
    from PIL import Image

    from llava.synth.suite import TASKS, draw_item

    text = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    sources = re.findall(r"^- `(.*?)`: (.*), (\d+)$", text, re.MULTILINE)
    assert [name for name, _, _ in sources] == [name for name, _, _ in examples()]
    for (name, task, index), (_, question, right) in zip(sources, examples(), strict=True):
        item = draw_item(next(each for each in TASKS if each.name == task), int(index))
        assert (item.question, item.answer) == (question, right)
        with Image.open(ROOT / "examples" / name) as image:
            assert np.array_equal(np.asarray(image), np.asarray(item.image)), name


def test_the_embedded_model_answers_every_example_correctly_and_quickly() -> None:
    import torch

    import llava

    rows = examples()
    assert rows
    loaded = llava.load_model("embedded", device="cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for image, question, right in rows:
            began = time.process_time()
            reply = llava.ask(loaded, question, [ROOT / "examples" / image])
            assert reply.text.rstrip(".").lower() == right.rstrip(".").lower(), question
            assert reply.finished
            # Processor time, so that a busy machine does not count; two cores are faster still.
            assert time.process_time() - began < 4
    finally:
        torch.set_num_threads(threads)


def test_the_embedded_model_is_small_enough_to_ship() -> None:
    folder = ROOT / "llava/default_model"
    assert (folder / "README.md").is_file()
    sizes = [file.stat().st_size for file in folder.iterdir()]
    assert 0 < sum(sizes) < 64 * 1024 * 1024


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_the_embedded_model_has_the_files_of_a_checkpoint(name: str) -> None:
    assert (ROOT / "llava/default_model" / name).is_file()
