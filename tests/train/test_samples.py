"""LLaVA's JSON becomes samples, and its mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from llava.errors import BadImage, UsageError
from llava.train.samples import JsonSamples, as_conversation


def test_a_template_with_examples_is_trained_without_them_and_on_every_answer() -> None:
    turns = [{"from": speaker, "value": speaker} for speaker in ("human", "gpt") * 2]
    pieces = as_conversation(turns, "v0").pieces()
    assert "renewable" not in "".join(piece.text for piece in pieces)
    assert "".join(piece.text for piece in pieces if piece.is_target) == " gpt###" * 2


def test_llava_json_is_read_and_its_mistakes_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    turns = [{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "red"}]
    rows = [{"id": "a", "image": "red.png", "conversations": [{"from": "gpt", "value": "hello"}, *turns]}, {"id": "b"}]
    rows[1]["conversations"] = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    file = tmp_path / "data.json"
    file.write_text(json.dumps(rows))
    samples = JsonSamples(file, tmp_path)
    assert [len(samples.sample(i).images) for i in range(2)] == [1, 0]
    assert as_conversation(samples.sample(0).conversations, "vicuna_v1").messages[0][1] == "<image>\nWhat?"
    for broken, message in (
        ("{", "not valid JSON"),
        ("[]", "non-empty"),
        ('[{"id": "c"}]', "Sample c .* no list 'conversations'"),
        ('[{"id": "f", "conversations": [5]}]', "Sample f .* each turn needs .* but one is 5"),
        ('[{"id": "g", "conversations": [{"from": "human"}]}]', "Sample g .* but one is {'from': 'human'}"),
        (
            '[{"id": "h", "image": [5], "conversations": []}]',
            r"Sample h .* image is \[5\]; it must be a path or a list",
        ),
        (json.dumps([{"id": "i", "conversations": turns}]), "Sample i .* has 1 <image> in its text, but 0 images"),
        ('[{"id": "d", "conversations": [{"from": "human", "value": ""}]}]', "must alternate"),
    ):
        file.write_text(broken)
        with pytest.raises(UsageError, match=message):
            JsonSamples(file, tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        JsonSamples(tmp_path / "none.json", tmp_path)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        JsonSamples(tmp_path, tmp_path)
    file.write_text(json.dumps([{"id": "a", "image": "red.png", "conversations": turns}]))
    with pytest.raises(UsageError, match=r"The image folder .*none' of .* does not exist"):
        JsonSamples(file, tmp_path / "none")
    file.write_text(json.dumps([{"id": "e", "image": "../outside.png", "conversations": turns}]))
    with pytest.raises(BadImage, match="outside"):
        JsonSamples(file, tmp_path).sample(0)
