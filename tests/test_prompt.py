"""Prompts become the ids that sentencepiece and the original give, and training learns exactly the answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import Conversation, conv_templates
from llava.errors import ContextTooLong, UsageError
from llava.prompt import ESCAPE, TextStream, escape_image_tokens, render, split_at_images, tokenizer_image_token
from tests import tiny_tokenizers


@dataclass(frozen=True)
class Tokenizers:
    """All kinds that checkpoints come with; ``raw`` is the sentencepiece model that the Llama ones are made from."""

    raw: sentencepiece.SentencePieceProcessor
    llama: Any
    llama_legacy: Any
    llama_without_bos: Any
    qwen: Any
    llama_3: Any
    own: Any

    def kinds(self) -> dict[str, Any]:
        return {name: each for name, each in vars(self).items() if name != "raw"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    folder = tmp_path_factory.mktemp("tokenizers")
    model = tiny_tokenizers.train_sentencepiece()
    return Tokenizers(
        raw=sentencepiece.SentencePieceProcessor(model_proto=model),
        llama=tiny_tokenizers.llama_like(folder / "new", model, legacy=False),
        llama_legacy=tiny_tokenizers.llama_like(folder / "legacy", model, legacy=True),
        llama_without_bos=tiny_tokenizers.llama_like(folder / "bare", model, legacy=False, add_bos=False),
        qwen=tiny_tokenizers.byte_level(tiny_tokenizers.MARKS),
        llama_3=tiny_tokenizers.byte_level(tiny_tokenizers.LLAMA_3_MARKS, bos="<|begin_of_text|>", trim_offsets=True),
        own=tiny_tokenizers.words_and_letters("A chat USER ASSISTANT What is the cat image"),
    )


def talk(template: str, *messages: str | None) -> Conversation:
    conversation = conv_templates[template].copy()
    for i, message in enumerate(messages):
        conversation.append_message(conversation.roles[i % 2], message)
    return conversation


def targets(conversation: Conversation, tokenizer: Any, num_images: int = 1) -> list[str]:
    """The tokens that the loss looks at, by name."""
    prompt = render(conversation, tokenizer, [9] * num_images, limit_tokens=None, supervise=True)
    assert prompt.labels is not None
    assert all(label in (IGNORE_INDEX, token) for label, token in zip(prompt.labels, prompt.input_ids, strict=True))
    return tokenizer.convert_ids_to_tokens([label for label in prompt.labels if label != IGNORE_INDEX])


def names(tokenizer: Any, ids: Sequence[int]) -> list[str | None]:
    """The ids' tokens, None for an image."""
    return [None if token == IMAGE_TOKEN_INDEX else tokenizer.convert_ids_to_tokens(token) for token in ids]


# --- tokenizer_image_token ---------------------------------------------------------------------------------------

PLAIN_TEXT = st.text(alphabet="aAt. :\n▁é猫<>/s", max_size=12).filter(
    lambda text: "<s>" not in text and "</s>" not in text
)


@pytest.mark.parametrize("kind", ["llama", "llama_legacy"])
@given(st.lists(PLAIN_TEXT, min_size=1, max_size=4))
@settings(max_examples=50)
def test_each_stretch_has_the_ids_of_raw_sentencepiece(made: Tokenizers, kind: str, stretches: list[str]) -> None:
    expected = [1, *made.raw.encode(stretches[0])]
    for stretch in stretches[1:]:
        expected += [IMAGE_TOKEN_INDEX, *made.raw.encode(stretch)]
    assert tokenizer_image_token("<image>".join(stretches), made.kinds()[kind]) == expected


def test_a_blank_right_after_an_image_is_kept(made: Tokenizers) -> None:
    ids = tokenizer_image_token("USER:  <image> cat", made.llama)
    assert names(made.llama, ids[-3:]) == [None, "▁", "▁cat"]
    assert made.llama.convert_ids_to_tokens(made.llama(" cat").input_ids) == ["<s>", "▁cat"]  # what it is kept against


@pytest.mark.parametrize("blank", [" ", "  ", "▁"])
def test_a_blank_after_a_special_token_is_kept_by_a_tokenizer_that_starts_anew_there(
    made: Tokenizers, blank: str
) -> None:
    text = f"A</s>{blank}cat<s>{blank}"
    expected = [1, *made.raw.encode("A"), 2, *made.raw.encode(f"{blank}cat"), 1, *made.raw.encode(blank)]
    assert tokenizer_image_token(text, made.llama_legacy) == expected
    assert len(tokenizer_image_token(text, made.llama)) < len(expected)  # which goes on where it was


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("<image>", ["<s>", None]), ("<image><image>", ["<s>", None, None]), ("A<image>", ["<s>", "▁A", None]),
     ("<image>\n<image>\nA", ["<s>", None, "▁", "<0x0A>", None, "▁", "<0x0A>", "A"]), ("", ["<s>"]),
     ("A <image> A", ["<s>", "▁A", "▁", None, "▁", "▁A"])],
)  # fmt: skip
def test_bos_comes_once_and_each_image_is_one_id(made: Tokenizers, text: str, tokens: list[str | None]) -> None:
    ids = tokenizer_image_token(text, made.llama)
    assert names(made.llama, ids) == tokens
    bare = tokenizer_image_token(text, made.llama_without_bos)
    assert bare == ids[1:]


def test_another_image_index_and_a_tensor_can_be_asked_for(made: Tokenizers) -> None:
    ids = tokenizer_image_token("A<image>", made.llama, -7)
    assert ids[-1] == -7
    tensor = tokenizer_image_token("A<image>", made.llama, -7, return_tensors="pt")
    assert tensor.dtype == torch.long
    assert tensor.tolist() == ids
    with pytest.raises(ValueError, match="Unsupported tensor type: np"):
        tokenizer_image_token("A", made.llama, return_tensors="np")


def test_a_tokenizer_without_bos_loses_no_token(made: Tokenizers) -> None:
    ids = tokenizer_image_token("A<image>\ncat<image>", made.qwen)
    assert made.qwen.decode([i for i in ids if i >= 0]) == "A\ncat"


def test_a_bos_written_in_the_first_stretch_costs_the_others_nothing(made: Tokenizers) -> None:
    tokenizer = tiny_tokenizers.byte_level(tiny_tokenizers.LLAMA_3_MARKS)
    tokenizer.bos_token = "<|begin_of_text|>"  # known, but not added by itself
    ids = tokenizer_image_token("<|begin_of_text|>A<image>cat", tokenizer)
    assert tokenizer.decode([i for i in ids if i >= 0]) == "<|begin_of_text|>Acat"


def test_any_callable_with_input_ids_will_do() -> None:
    class Letters:
        bos_token_id = 0

        def __call__(self, text: str) -> Any:
            return SimpleNamespace(input_ids=[0, *map(ord, text)])

    assert tokenizer_image_token("a <image> b", Letters()) == [0, 97, 32, -200, 32, 98]


# --- escaping ----------------------------------------------------------------------------------------------------

SPECIALS = ["<image>", "<s>", "</s>", "<unk>", "<|im_end|>", "<|eot_id|>", "<|end|>", "[INST]"]


@given(st.lists(st.sampled_from([*SPECIALS, "a", " ", "<", ">", "\n", "[", "<<", ESCAPE]), max_size=8))
@settings(max_examples=50)
def test_no_text_of_a_user_is_a_slot_or_a_special_token(made: Tokenizers, parts: list[str]) -> None:
    typed = "".join(parts)
    safe = escape_image_tokens(typed)
    assert split_at_images(safe) == [safe]
    assert escape_image_tokens(safe) == safe
    for tokenizer in made.kinds().values():
        ids = tokenizer_image_token(safe, tokenizer)
        added = {0, *tokenizer.get_added_vocab().values()} - ({tokenizer.bos_token_id} if ids[:1] == [1] else set())
        spoken = ids[1:] if ids and ids[0] == tokenizer.bos_token_id else ids
        assert not added & {*spoken}
        assert tokenizer.decode(spoken).removeprefix(" ") == typed.replace(ESCAPE, "").removeprefix(" ")


@given(PLAIN_TEXT.filter(lambda text: "<image>" not in text))
@settings(max_examples=50)
def test_escaping_ordinary_text_changes_no_id(made: Tokenizers, text: str) -> None:
    for tokenizer in made.kinds().values():
        assert tokenizer_image_token(escape_image_tokens(text), tokenizer) == tokenizer_image_token(text, tokenizer)


def test_an_escaped_question_keeps_its_image_and_its_labels_apart(made: Tokenizers) -> None:
    question = "<image>\n" + escape_image_tokens("what does <image> or </s> mean")
    conversation = talk("v1", question, escape_image_tokens("</s> ends"))
    tokens = targets(conversation, made.llama)
    assert "".join(tokens).startswith("▁</s>▁en")
    assert tokens.count("</s>") == 1
    prompt = render(conversation, made.llama, [9], limit_tokens=None)
    assert prompt.num_images == 1
    assert list(prompt.input_ids) == tokenizer_image_token(conversation.get_prompt(), made.llama)


def test_a_slow_tokenizer_reads_escaped_text_as_no_special_token() -> None:
    class Slow:
        bos_token_id = None
        all_special_tokens = ("</s>",)

        def __call__(self, text: str) -> Any:
            parts = re.findall("</s>|.", text)
            return SimpleNamespace(input_ids=[2 if part == "</s>" else ord(part) for part in parts])

    assert tokenizer_image_token("a</s>", Slow()) == [97, 2]
    assert 2 not in tokenizer_image_token(escape_image_tokens("a</s>"), Slow())
    assert tokenizer_image_token(escape_image_tokens("<b>"), Slow()) == [*map(ord, "<b>")]


# --- render: ids and lengths -------------------------------------------------------------------------------------

WORDS = st.text(alphabet="aAct. \n猫é<image>:#", max_size=10).map(escape_image_tokens)
ANSWER = WORDS.filter(lambda text: text.strip() != "")


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Conversation, int]:
    """A finished conversation in any template, with images in its questions, and how many."""
    name = draw(st.sampled_from(sorted(conv_templates)))
    num_images = draw(st.integers(1, 2))
    messages = ["<image>\n" * num_images + draw(WORDS), draw(ANSWER)]
    if name not in ("plain", "v0_plain"):
        for _ in range(draw(st.integers(0, 2))):
            images = draw(st.integers(0, 1))
            num_images += images
            messages += [draw(ANSWER) + " <image> " * images, draw(ANSWER)]
    return talk(name, *messages), num_images


@given(conversations())
@settings(max_examples=40)
def test_training_and_inference_see_the_ids_of_the_prompt(made: Tokenizers, sample: tuple[Conversation, int]) -> None:
    conversation, num_images = sample
    sizes = list(range(5, 5 + num_images))
    for tokenizer in made.kinds().values():
        ids = tokenizer_image_token(conversation.get_prompt(), tokenizer)
        asked = render(conversation, tokenizer, sizes, limit_tokens=None)
        taught = render(conversation, tokenizer, sizes, limit_tokens=None, supervise=True)
        assert list(asked.input_ids) == list(taught.input_ids) == ids
        assert asked.num_positions == taught.num_positions == len(ids) - num_images + sum(sizes)
        assert asked.labels is None
        assert taught.labels is not None
        assert len(taught.labels) == len(ids)
        assert all(label in (IGNORE_INDEX, token) for label, token in zip(taught.labels, ids, strict=True))
        assert any(label != IGNORE_INDEX for label in taught.labels)


@given(conversations())
@settings(max_examples=40)
def test_what_is_learned_reads_as_what_the_model_says(made: Tokenizers, sample: tuple[Conversation, int]) -> None:
    conversation, num_images = sample
    said = "".join(piece.text for piece in conversation.pieces() if piece.is_target).replace(ESCAPE, "")
    if conversation.always_targets:
        return  # these templates teach marks of other turns too; they have tests of their own
    prompt = render(conversation, made.own, [1] * num_images, limit_tokens=None, supervise=True)
    assert prompt.labels is not None
    assert made.own.decode([label for label in prompt.labels if label != IGNORE_INDEX]) == said


@pytest.mark.parametrize("num_images", [0, 2])
def test_slots_and_images_have_to_agree(made: Tokenizers, num_images: int) -> None:
    with pytest.raises(UsageError, match=f"has 1 <image>, but there are {num_images} images"):
        render(talk("v1", "<image>\nQ", None), made.llama, [576] * num_images, limit_tokens=None)


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(made: Tokenizers) -> None:
    conversation = talk("v1", "<image>\nQ", None)
    fits = render(conversation, made.llama, [576], limit_tokens=None).num_positions
    assert render(conversation, made.llama, [576], limit_tokens=fits).num_positions == fits
    with pytest.raises(ContextTooLong, match=f"takes {fits} tokens.* holds {fits - 1}") as caught:
        render(conversation, made.llama, [576], limit_tokens=fits - 1)
    assert (caught.value.num_tokens, caught.value.limit_tokens) == (fits, fits - 1)


@pytest.mark.parametrize(
    ("positions", "room", "says"),
    [
        ([576] * 40, 4000, "The first 6 of the 40 images would fit."),
        ([576, 10, 10], 590, "The first 2 of the 3 images would fit."),
        ([576, 10], 575, "None of the 2 images would fit."),
        ([576], 500, "The image takes 576 of them."),
        ([576] * 2, -1, "The text alone takes"),
        ([], -1, "Shorten the text."),
    ],
)
def test_a_prompt_that_does_not_fit_says_how_many_of_its_images_would(
    made: Tokenizers, positions: list[int], room: int, says: str
) -> None:
    """``room``: positions beside the text and the first token of an answer."""
    conversation = talk("v1", "<image>\n" * len(positions) + "Q", None)
    num_text = render(conversation, made.llama, [0] * len(positions), limit_tokens=None).num_positions
    limit = min(num_text + room + 1, num_text + sum(positions) - 1)
    with pytest.raises(ContextTooLong) as caught:
        render(conversation, made.llama, positions, limit_tokens=limit)
    assert says in str(caught.value)


def test_rendering_changes_nothing_in_the_conversation(made: Tokenizers) -> None:
    conversation = talk("v1", "<image>\nQ", "A")
    before = conversation.copy()
    render(conversation, made.llama, [3], limit_tokens=None, supervise=True)
    assert conversation == before


# --- render: what is learned -------------------------------------------------------------------------------------

TWO_TURNS = ("<image>\nWhat is in the image?", "A cat.", "What colour?", "Black, I think.")


@pytest.mark.parametrize("kind", ["llama", "llama_legacy"])
def test_vicuna_learns_answers_and_their_ends(made: Tokenizers, kind: str) -> None:
    found = targets(talk("v1", *TWO_TURNS), made.kinds()[kind])
    black = made.raw.encode("Black, I think.", out_type=str)
    assert found == ["▁A", "▁cat", ".", "</s>", *black, "</s>"]


def counted_targets(text: str, tokenizer: Any) -> list[int]:
    """Labels by the original's counting: each round is tokenized alone, and its BOS stands for the ``</s>`` before it.

    A tokenizer that is not ``legacy`` spells USER otherwise behind ``</s>`` than at a beginning; the original takes off
    the difference, which is one token for Llama's vocabulary, and counted here for the small one.
    Source: haotian-liu/LLaVA@c121f04 llava/train/train.py, preprocess_v1.
    """
    difference = len(tokenizer("USER:").input_ids) + 1 - len(tokenizer("</s>USER:").input_ids)
    ids = tokenizer_image_token(text, tokenizer)
    labels = [IGNORE_INDEX] * len(ids)
    position = 1
    for i, turns in enumerate(text.split("</s>")):
        if not turns:
            break
        question, _ = turns.split(" ASSISTANT: ")
        less = difference if i > 0 else 0
        begin = position + len(tokenizer_image_token(question + " ASSISTANT: ", tokenizer)) - 2 - less
        position += len(tokenizer_image_token(turns, tokenizer)) - less
        labels[begin:position] = ids[begin:position]
    assert position == len(ids), "the original would drop this sample"
    return labels


@pytest.mark.parametrize("kind", ["llama", "llama_legacy"])
@given(st.lists(st.tuples(ANSWER, ANSWER), min_size=1, max_size=3))
@settings(max_examples=50)
def test_vicuna_targets_are_those_the_original_counts(made: Tokenizers, kind: str, turns: list[Any]) -> None:
    tokenizer = made.kinds()[kind]
    conversation = talk("v1", *(text for turn in turns for text in turn))
    conversation.messages[0][1] = "<image>\n" + conversation.messages[0][1]
    prompt = render(conversation, tokenizer, [576], limit_tokens=None, supervise=True)
    assert list(prompt.labels or ()) == counted_targets(conversation.get_prompt(), tokenizer)


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [("\ncat", ["▁", "<0x0A>", "c", "at"]), ("猫", ["▁", "<0xE7>", "<0x8C>", "<0xAB>"]), (" cat", ["▁", "▁cat"]),
     ("cat ", ["▁cat", "▁"])],
)  # fmt: skip
def test_a_lone_blank_after_the_colon_is_learned_for_the_prompt_ends_before_it(
    made: Tokenizers, answer: str, tokens: list[str]
) -> None:
    assert targets(talk("v1", "<image>\nQ", answer), made.llama) == [*tokens, "</s>"]
    asked = render(talk("v1", "<image>\nQ", None), made.llama, [9], limit_tokens=None).input_ids
    taught = render(talk("v1", "<image>\nQ", answer), made.llama, [9], limit_tokens=None).input_ids
    assert taught[: len(asked)] == asked
    assert made.llama.convert_ids_to_tokens(taught[len(asked) :]) == [*tokens, "</s>"]


def test_an_answer_that_speaks_of_the_assistant_keeps_its_sample(made: Tokenizers) -> None:
    answer = "He wrote USER: A ASSISTANT: A cat."
    found = targets(talk("v1", "<image>\nQ", answer, "Q", "A cat."), made.llama)
    assert found == [*made.raw.encode(answer, out_type=str), "</s>", "▁A", "▁cat", ".", "</s>"]


def test_captions_are_learned_with_their_newline(made: Tokenizers) -> None:
    conversation = talk("plain", "Describe it.\n<image>", "a cat")
    assert targets(conversation, made.llama) == ["▁a", "▁cat", "<0x0A>"]
    prompt = render(conversation, made.llama, [576], limit_tokens=None, supervise=True)
    assert (prompt.labels or ())[:2] == (IGNORE_INDEX, IGNORE_INDEX)
    assert prompt.input_ids[:2] == (1, IMAGE_TOKEN_INDEX)


@pytest.mark.parametrize("template", ["llava_llama_2", "mistral_instruct"])
@pytest.mark.parametrize("kind", ["llama", "llama_legacy"])
def test_llama_2_learns_answers_with_their_blank_and_end(made: Tokenizers, kind: str, template: str) -> None:
    found = targets(talk(template, *TWO_TURNS), made.kinds()[kind])
    black = made.raw.encode("Black, I think.", out_type=str)
    assert found == ["▁A", "▁cat", ".", "▁", "</s>", *black, "▁", "</s>"]


def test_chatml_direct_learns_answers_and_their_ends(made: Tokenizers) -> None:
    found = targets(talk("chatml_direct", *TWO_TURNS), made.qwen)
    black = made.qwen.tokenize("Black, I think.")
    assert found == ["A", "Ġcat", ".", "<|im_end|>", *black, "<|im_end|>"]


def test_gemma_learns_answers_their_ends_and_the_newline(made: Tokenizers) -> None:
    found = targets(talk("gemma_instruct", "<image>\nA", "A cat."), made.qwen)
    assert found == ["A", "Ġcat", ".", "<end_of_turn>", "Ċ"]


def test_qwen_learns_whole_answered_turns_and_every_mark_and_newline(made: Tokenizers) -> None:
    mark, end, line = "<|im_start|>", "<|im_end|>", "Ċ"
    header = [mark, *made.qwen.tokenize("assistant"), line]
    found = targets(talk("qwen_1_5", "<image>\nA", "A cat."), made.qwen)
    system, question = [mark, line, end, line], [mark, line, line, end, line]
    assert found == [*system, *question, *header, "A", "Ġcat", ".", end, line]


def test_llama_3_learns_whole_answered_turns_and_every_mark(made: Tokenizers) -> None:
    conversation = talk("llava_llama_3", "<image>\nA", "A cat.")
    found = targets(conversation, made.llama_3)
    begin, start, stop, end = tiny_tokenizers.LLAMA_3_MARKS
    # Llama 3 has one token for a blank line; this small tokenizer parts it where a word follows.
    rest = [token for token in found if set(token) != {"Ċ"}]
    assistant = made.llama_3.tokenize("assistant")
    assert rest == [begin, start, stop, end, start, stop, end, start, *assistant, stop, "A", "Ġcat", ".", end]
    assert found[found.index("A") - 3 : found.index("A")] == [stop, "Ċ", "Ċ"]


def test_blanks_that_a_tokenizer_trims_from_its_spans_are_learned_too(made: Tokenizers) -> None:
    assert targets(talk("chatml_direct", "<image>\nA", "A  cat"), made.llama_3)[:3] == ["A", "Ġ", "Ġcat"]


def test_the_examples_of_a_template_are_not_learned(made: Tokenizers) -> None:
    assert targets(talk("v0", "<image>\nQ", "A cat."), made.llama) == ["▁A", "▁cat", ".", *["<0x23>"] * 3]


def test_words_and_letters_are_learned_letter_by_letter(made: Tokenizers) -> None:
    found = targets(talk("v1", "<image>\nWhat is K7?", "cat K7\n猫."), made.own)
    assert found == ["▁cat", "▁", "K", "7", "<0x0A>", "<0xE7>", "<0x8C>", "<0xAB>", ".", "</s>"]


def test_an_open_answer_is_nothing_to_learn(made: Tokenizers) -> None:
    assert "</s>" in targets(talk("v1", "<image>\nQ", "A", "Q", None), made.llama)
    with pytest.raises(UsageError, match="nothing to learn"):
        render(talk("v1", "Q", None), made.llama, [], limit_tokens=None, supervise=True)


def test_labels_need_a_tokenizer_that_knows_where_its_tokens_stand() -> None:
    slow = SimpleNamespace(bos_token_id=None, is_fast=False)
    with pytest.raises(UsageError, match="fast tokenizer"):
        render(talk("v1", "Q", "A"), slow, [], limit_tokens=None, supervise=True)


# --- TextStream --------------------------------------------------------------------------------------------------


def stream(tokenizer: Any, ids: Sequence[int], stop: Sequence[str] = ()) -> tuple[list[str], TextStream]:
    listener = TextStream(tokenizer, stop)
    return [*(listener.feed(token) for token in ids), listener.finish()], listener


@given(st.text(alphabet="aAt .\n猫é🦙e\u0301▁", max_size=20))
@settings(max_examples=50)
def test_streamed_text_is_the_whole_text_and_no_piece_holds_half_a_character(made: Tokenizers, text: str) -> None:
    for tokenizer in made.kinds().values():
        ids = tokenizer(text, add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        pieces, _ = stream(tokenizer, ids)
        assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)
        assert not any("\ufffd" in piece for piece in pieces)


def test_blanks_between_words_come_with_the_word_that_follows(made: Tokenizers) -> None:
    ids = made.llama("A cat. A cat", add_special_tokens=False).input_ids
    assert stream(made.llama, ids)[0] == ["A", " cat", ".", " A", " cat", ""]


def test_a_character_of_several_tokens_comes_whole(made: Tokenizers) -> None:
    ids = made.llama("猫🦙", add_special_tokens=False).input_ids
    assert [piece for piece in stream(made.llama, ids)[0] if piece] == ["猫", "🦙"]


def test_an_unfinished_character_shows_at_the_end_only(made: Tokenizers) -> None:
    ids = made.llama("A猫", add_special_tokens=False).input_ids[:-1]
    pieces, _ = stream(made.llama, ids)
    assert "".join(pieces[:-1]) == "A"
    assert set(pieces[-1]) == {"\ufffd"}


def test_an_invalid_byte_spoils_no_character_around_it(made: Tokenizers) -> None:
    cat = made.own("猫", add_special_tokens=False).input_ids
    lone = made.own.convert_tokens_to_ids("<0xE4>")
    letter = made.own.convert_tokens_to_ids("A")
    assert "".join(stream(made.own, [*cat, lone, letter, *cat])[0]) == "猫\ufffdA猫"


def test_bytes_that_never_become_a_character_do_not_pile_up(made: Tokenizers) -> None:
    listener = TextStream(made.own)
    lone = made.own.convert_tokens_to_ids("<0xE4>")
    said = [listener.feed(lone) for _ in range(400)]
    assert max(map(len, said)) < 20
    assert len("".join(said)) > 350


def test_special_tokens_say_nothing_and_do_not_pile_up(made: Tokenizers) -> None:
    listener = TextStream(made.llama)
    assert "".join(listener.feed([2] * 100)) == ""
    assert len(listener._waiting) < 20
    assert listener.feed(made.llama("cat", add_special_tokens=False).input_ids) == "cat"


def test_the_thousandth_token_decodes_no_more_ids_than_the_tenth(made: Tokenizers) -> None:
    sizes = []

    class Watched:
        def decode(self, ids: Sequence[int], **options: Any) -> str:
            sizes.append(len(ids))
            return str(made.llama.decode(ids, **options))

    ids = made.llama("A cat sat. 猫 " * 80, add_special_tokens=False).input_ids
    assert "".join(stream(Watched(), ids)[0]) == "A cat sat. 猫 " * 80
    assert max(sizes[len(sizes) // 2 :]) <= max(sizes[:100]) <= 10


@given(st.text(alphabet="ab#\n", max_size=12), st.lists(st.sampled_from(["###", "#a", "b\nb", "猫"]), max_size=2))
@settings(max_examples=50)
def test_text_ends_exactly_before_the_first_stop_string(made: Tokenizers, text: str, stop: list[str]) -> None:
    whole = made.own.decode(made.own(text, add_special_tokens=False).input_ids)
    pieces, listener = stream(made.own, made.own(text, add_special_tokens=False).input_ids, stop)
    places = [whole.find(word) for word in stop if word in whole]
    assert listener.stopped == bool(places)
    if len(set(stop)) == 1 or not places:
        assert "".join(pieces) == whole[: min(places, default=len(whole))]


def test_nothing_is_said_after_a_stop_string(made: Tokenizers) -> None:
    ids = made.llama("A cat.\nUSER: A dog", add_special_tokens=False).input_ids
    listener = TextStream(made.llama, ["\nUSER:"])
    assert listener.feed(ids) == "A cat."
    assert listener.stopped
    assert (listener.feed(ids), listener.finish()) == ("", "")


def test_what_only_began_like_a_stop_string_is_said_at_the_end(made: Tokenizers) -> None:
    pieces, listener = stream(made.own, made.own("A ##", add_special_tokens=False).input_ids, ["###"])
    assert pieces[-1] == "##"
    assert not listener.stopped


def test_an_empty_stop_string_is_refused(made: Tokenizers) -> None:
    with pytest.raises(UsageError, match="empty"):
        TextStream(made.llama, ["###", ""])


def test_a_tokenizer_folder_needs_nothing_else(made: Tokenizers, tmp_path: Path) -> None:
    made.own.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(tmp_path)
    conversation = talk("v1", *TWO_TURNS)
    one, two = (render(conversation, t, [9], limit_tokens=None, supervise=True) for t in (made.own, again))
    assert one == two
