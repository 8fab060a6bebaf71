"""ShareGPT's conversations are cleaned and split as Vicuna's were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.data.convert.languages import guess_language
from llava.data.convert.sharegpt import make_measure, split_pairs
from llava.errors import UsageError
from tests.data.convert.converting import run, turns, write_json

FILE = "ShareGPT_V3_unfiltered_cleaned_split.json"


def talk(id: str, *turns: tuple[str, Any]) -> dict[str, Any]:
    return {"id": id, "conversations": [{"from": speaker, "value": text} for speaker, text in turns]}


def convert(folder: Path, *talks: dict[str, Any], **options: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    write_json(folder, FILE, list(talks))
    return run("sharegpt", folder, **options)


PAIR = (("human", "How does it work?"), ("gpt", "<p>It <strong>works</strong> well.</p>"))


def test_answers_become_markdown_and_questions_stay(tmp_path: Path) -> None:
    code = '<pre><code class="language-py">a = 1\n</code></pre>'
    html = f'<div class="markdown prose"><p>Use <code>x_y</code>:</p>{code}</div>'
    rows, left_out = convert(tmp_path, talk("QWJhYvA_0", ("human", "Fix <p>this</p> of mine"), ("gpt", html)))
    assert [row["id"] for row in rows] == ["sharegpt-QWJhYvA_0_0"]
    assert "image" not in rows[0]
    assert turns(rows[0]) == [("Fix <p>this</p> of mine", "Use `x_y`:\n\n```py\na = 1\n```")]
    assert left_out == {}


def test_turns_that_others_began_or_left_open_are_cut_off(tmp_path: Path) -> None:
    rows, _ = convert(tmp_path, talk("a", ("gpt", "Hi"), *PAIR, ("human", "And the rest of it?")))
    assert turns(rows[0]) == [("How does it work?", "It **works** well.")]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows, left_out = convert(
        tmp_path,
        talk("kept", *PAIR),
        talk("kept", ("human", "Another one of them"), ("gpt", "Same id")),
        talk("same answer", ("human", "Why is that so?"), PAIR[1]),
        talk("short", ("human", "Hello")),
        talk("order", ("human", "a"), ("human", "b"), ("gpt", "c")),
        talk("bing", ("human", "a"), ("bing", "b")),
        talk("blocked", ("human", "Are you the one?"), ("gpt", "As a model of OpenAI, no")),
        talk("empty", ("human", "What is it?"), ("gpt", "<p> </p>")),
        talk("null", ("human", "What is it?"), ("gpt", None)),
        {"id": "none", "conversations": None},
        talk("list", ("human", "List the parts of it"), ("gpt", "Yes:\n1. a\n1. b\n")),
        talk("slot", ("human", "What does <image> do in HTML?"), ("gpt", "It is not a tag.")),
    )
    assert [row["id"] for row in rows] == ["sharegpt-kept_0"]
    assert left_out == {
        "repeats another conversation": 2,
        "is too short": 1,
        "has speakers out of turn": 2,
        "mentions OpenAI or ChatGPT": 1,
        "has a turn without text": 2,
        "has no valid conversation": 1,
        "has a list that starts over": 1,
        "has <image> 1 time for 0 images": 1,
    }


@pytest.mark.parametrize(
    ("format", "expected"), [("vicuna", ["en", "es"]), ("english", ["en"]), ("all", ["en", "es", "ko"])]
)
def test_languages_are_filtered(tmp_path: Path, format: str, expected: list[str]) -> None:
    rows, _ = convert(
        tmp_path,
        talk("en", ("human", "What is the meaning of this?"), ("gpt", "It is the name of a town.")),
        talk("es", ("human", "¿Qué es esto y para qué se usa?"), ("gpt", "Es una red de las que se usan para todo.")),
        talk("ko", ("human", "이것은 무엇입니까?"), ("gpt", "이것은 책입니다. Python")),
        format=format,
    )
    assert [row["id"] for row in rows] == [f"sharegpt-{name}_0" for name in expected]


@pytest.mark.parametrize(("text", "language"), [
    ("How do I write the code?", "en"), ("これはペンです", "ja"), ("这是一个问题", "zh"), ("Привет, как дела", "ru"),
    ("Was ist das und wie geht es?", "de"), ("```for x in the list: is it```", "unknown"), ("12 + 5", "unknown"),
    ("请解释 ```for x in the list``` 的意思", "zh"), ("", "unknown"),
])  # fmt: skip
def test_languages_are_told_apart(text: str, language: str) -> None:
    assert guess_language(text) == language


def words(text: str) -> int:
    return len(text.split())


def test_long_conversations_are_split_between_pairs_and_lose_none() -> None:
    pairs = [(f"q{i} " + "x " * 490, "y " * 497) for i in range(5)]  # 1,000 tokens each, with the template's
    parts = list(split_pairs(pairs, words))
    assert [(start, len(part)) for start, part in parts] == [(0, 2), (4, 2), (8, 1)]
    assert [pair for _, part in parts for pair in part] == pairs


def test_a_pair_that_is_too_long_alone_stays_whole() -> None:
    pairs = [("a", "b"), ("x " * 3000, "y"), ("c", "d")]
    assert [(start, part) for start, part in split_pairs(pairs, words)] == [
        (0, pairs[:1]),
        (2, pairs[1:2]),
        (4, pairs[2:]),
    ]


def test_parts_are_named_by_the_turn_that_they_begin_with(tmp_path: Path) -> None:
    long = "word of the " * 600
    rows, _ = convert(tmp_path, talk("a", ("human", "one"), ("gpt", long), ("human", "two"), ("gpt", long)))
    assert [row["id"] for row in rows] == ["sharegpt-a_0", "sharegpt-a_2"]


def test_tokens_are_counted_by_the_tokenizer_in_the_folder(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert make_measure(tmp_path / "tokenizer.json")("three words here") == 3
    assert make_measure(None)("three words here") == 4  # 16 bytes
    said = [("human", "x" * 4000), ("gpt", "y" * 4000), ("human", "x"), ("gpt", "y")]
    assert len(convert(tmp_path, talk("a", *said))[0]) == 1  # 4 tokens; more than 2,000 by its bytes
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="is no tokenizer"):
        make_measure(tmp_path / "tokenizer.json")


def test_the_two_files_of_the_raw_dataset_are_read_in_order(tmp_path: Path) -> None:
    for part in (2, 1):
        entry = talk(f"p{part}", ("human", f"Is it part {part}?"), ("gpt", f"{part}"))
        write_json(tmp_path, f"HTML_cleaned_raw_dataset/sg_90k_part{part}.json", [entry])
    write_json(tmp_path, "HTML_cleaned_raw_dataset/sg_90k_part1_html_cleaned.json", [])
    rows, _ = run("sharegpt", tmp_path)
    assert [row["id"] for row in rows] == ["sharegpt-p1_0", "sharegpt-p2_0"]


def test_the_cleaned_file_is_read_alone(tmp_path: Path) -> None:
    write_json(tmp_path, "sg_90k_part2.json", [talk("b", ("human", "And this?"), ("gpt", "Yes."))])
    rows, _ = convert(tmp_path, talk("a", *PAIR))
    assert [row["id"] for row in rows] == ["sharegpt-a_0"]
