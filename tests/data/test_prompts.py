"""The prompts that converters and evaluation share."""

from __future__ import annotations

import pytest

from llava.data.prompts import ANSWER_FORMATS, LETTER, SHORT_ANSWER, ask_choice, join_lines, write_ocr_tokens


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("vqav2", "Answer the question using a single word or phrase."),
        ("gqa", "Answer the question using a single word or phrase."),
        ("aokvqa", "Answer with the option's letter from the given choices directly."),
        ("textcaps", "Provide a one-sentence caption for the provided image."),
        (
            "vizwiz",
            "When the provided information is insufficient, respond with 'Unanswerable'.\n"
            "Answer the question using a single word or phrase.",
        ),
        ("mmbench_cn", "请直接回答选项字母。"),
        ("llava_bench", ""),
    ],
)
def test_each_dataset_has_the_published_sentence(dataset: str, sentence: str) -> None:
    assert ANSWER_FORMATS[dataset] == sentence


def test_apostrophes_are_ascii_as_in_the_published_data() -> None:
    assert all("’" not in sentence and "‘" not in sentence for sentence in ANSWER_FORMATS.values())


def test_a_question_of_mmbench_has_its_hint_its_options_and_the_sentence_on_lines() -> None:
    assert ask_choice("Which is true?", ["red", "blue"], hint="Look closely.") == (
        f"Look closely.\nWhich is true?\nA. red\nB. blue\n{LETTER}"
    )
    assert ask_choice("Which?", ["None", "nan"], sentence="") == "Which?\nA. None\nB. nan"
    with pytest.raises(ValueError, match="27 options"):
        ask_choice("Which?", ["x"] * 27)


def test_a_question_of_textvqa_has_its_ocr_tokens_before_the_sentence() -> None:
    asked = join_lines("what is it?", write_ocr_tokens(["MIA", "10:45"]), SHORT_ANSWER)
    assert asked == f"what is it?\nReference OCR token: MIA, 10:45\n{SHORT_ANSWER}"
    assert write_ocr_tokens([]) == "Reference OCR token: "
