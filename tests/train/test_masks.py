"""Ids and labels of a training sample are the originals', for every template of both, wherever these are right.

``tests/gold/training`` holds what both originals' own code made of 85 samples, clean and hard ones. Where we differ on
purpose, the sample is listed here with the reason; and whatever the reason, what is learned must read as the answers.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import Conversation, SeparatorStyle, find_template
from llava.data.records import parse_turns
from llava.errors import LlavaError
from llava.prompt import render_sample, tokenizer_image_token
from llava.train.dataset.batches import OriginalCollator
from llava.train.dataset.image_slots import place_image, write_sample
from tests import tiny_tokenizers
from tests.gold.training import inputs, mask_samples, next_inputs

GOLD = {"1.5": inputs.gold("masks_15"), "next": inputs.gold("masks_next")}
ROWS = {"1.5": inputs.mask_rows, "next": next_inputs.mask_rows}
SAMPLES = mask_samples.SAMPLES
Row = dict[str, Any]
Turns = tuple[tuple[str, str], ...]
Branch = tuple[str, str, str]  # rule, version, tokenizer


def collect() -> dict[Branch, dict[str, Row]]:
    found: dict[Branch, dict[str, Row]] = defaultdict(dict)
    for rule, content in GOLD.items():
        for branch, name, row in ROWS[rule](content):
            key = (rule, branch["version"], branch["tokenizer"])
            found[key][name] = row | {"limit": branch["model_max_length"]}
    return dict(found)


BRANCHES = collect()

# --- where we differ on purpose ----------------------------------------------------------------------------------

# What we refuse, though the original trains on it or masks all of it.
REFUSED = {
    "empty answer": "no answer",
    "empty answer, text": "no answer",
    "both empty": "no answer",
    "question only": "no answer",
    "question only, text": "no answer",
    "gpt only": "no answer but the leading one",
    "no turn": "no answer",
    "upper-case role": "the roles are human, gpt, user, assistant and system, in lower case",
    "two questions": "the speakers do not take turns",
    "two answers": "the speakers do not take turns",
    "image in each turn": "two <image> and one image: the original takes the next sample's image for the second",
    "image in the answer": "two <image> and one image",
    "two images": "two <image> and one image (LLaVA-1.5 makes them one)",
    "two images in a sentence": "two <image> and one image (LLaVA-1.5 makes them one)",
    "tag without image": "one <image> and no image: the original spells it out as text",
    "image without tag": "no <image> and one image: the original drops the image",
}
# What the original refuses and we train on.
ACCEPTED = {
    "system role": "a system turn replaces the template's own system text",
    "user role": "user and assistant are other names of human and gpt",
    "leading gpt, image": "in stage 1 a leading answer is dropped, as it is with every other template",
    "leading gpt holds the image": "the same, and its image goes to the question after it",
}
# Samples whose ids differ.
MOVED = {
    "leading gpt holds the image": "the image of a dropped answer goes to the question after it; the original loses it",
    "system role": "### template: the original writes this role as 'unknown'",
    "user role": "### template: the original writes this role as 'unknown'",
    "combining": "Transformers 5 adds Qwen2's normalization (NFC), which the tokenizer.json of the gold lacks",
}
# Samples that the original masks completely, with a warning. We train on their answers.
MASKED = {
    "empty first answer": "an answer is empty",
    "empty second answer": "an answer is empty",
    "empty question": "the role's name is followed by that of the other role",
    "empty second question": "the role's name is followed by that of the other role",
    "question last": "the last turn is a question",
    "role name in question": "'ASSISTANT: ' in a text",
    "role name in answer": "'ASSISTANT: ' in a text",
    "role name ends answer": "'ASSISTANT: ' in a text",
    "inst in answer": "'[/INST] ' in a text",
    "eos in answer": "'</s>' in a text",
    "eos in question": "'</s>' in a text",
    "eos ends answer": "'</s>' in a text",
    "unk in answer": "'<unk>' in a text, which is also the padding",
    "unk in question": "'<unk>' in a text, which is also the padding",
}
# Branches in which the original's count of tokens is wrong for (nearly) every sample: it masks them all, or it masks
# and trains the wrong tokens where the count comes out right by chance or where the row is cut.
MISCOUNTED = {
    "mpt": "the last separator is not counted (LLaVA-NeXT: one token too many)",
    "chatml_direct": "as mpt",
    "mistral_instruct new": "without 'legacy', a question after </s> has one token less than counted",
    "llava_v0": "the gold's tokenizer spells '#' in bytes, so a turn alone has more tokens than in the text",
    "default": "as llava_v0",
    "v0_mmtag": "as llava_v0",
    "llava_v0_mmtag": "as llava_v0",
}


@functools.cache
def load_tokenizer(folder: Path, name: str) -> Any:
    if name in inputs.TOKENIZERS:
        inputs.write_tokenizer(folder / name, **inputs.TOKENIZERS[name])
    else:
        next_inputs.write_byte_tokenizer(folder / name, name)
    return AutoTokenizer.from_pretrained(folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


def encode(branch: Branch, name: str, tokenizer: Any) -> tuple[list[int], list[int], Conversation]:
    """Our ids and labels of a sample, and its conversation. Raises LlavaError."""
    rule, version, _ = branch
    sample = SAMPLES[name]
    num_images = int("image" in sample)
    template = find_template("v1" if version == "v0" else version)  # "v0" leaves the original's default
    conversation = write_sample(parse_turns(sample["conversations"], "Sample"), num_images, template, rule)
    prompt = render_sample(conversation, tokenizer, [9] * num_images, limit_tokens=None)
    assert prompt.labels is not None
    return list(prompt.input_ids), list(prompt.labels), conversation


def write_targets(conversation: Conversation) -> str:
    """What the labels must read, without white space, by the originals' own description of their masks."""
    style, second = conversation.sep_style, conversation.roles[1]
    text = ""
    for i, (role, message) in enumerate(conversation.messages):
        is_answer = i % 2 == 1 if second == conversation.roles[0] else role == second
        if style is SeparatorStyle.SINGLE:
            text += f"### {role}: {message}" if is_answer else "###"
        elif is_answer and message:
            ends_with_second = style in (SeparatorStyle.TWO, SeparatorStyle.LLAMA_2)
            text += message + ((conversation.sep2 or "") if ends_with_second else conversation.sep)
    text += "###" if style is SeparatorStyle.SINGLE else ""
    return squeeze(text.replace("<image>", ""))


def squeeze(text: str) -> str:
    return unicodedata.normalize("NFC", "".join(text.split()))


def judge(branch: Branch, name: str, row: Row, tokenizer: Any) -> str:
    """How our sample relates to the original's; asserts that what we learn reads as the answers."""
    try:
        ids, labels, conversation = encode(branch, name, tokenizer)
    except LlavaError:
        return "both refuse" if "error" in row else "refused"
    targets = [label for label in labels if label != IGNORE_INDEX]
    if not conversation.always_targets:
        assert squeeze(tokenizer.decode(targets, skip_special_tokens=False)) == write_targets(conversation), name
    if "error" in row:
        return "accepted"
    # The label of an image's slot is dropped where the image is merged.
    theirs = [
        IGNORE_INDEX if token == IMAGE_TOKEN_INDEX else label
        for token, label in zip(row["ids"], row["labels"], strict=True)
    ]
    if "image" not in SAMPLES[name] and len(row["ids"]) == row["limit"]:  # the original cuts text-only samples here
        ids, labels = ids[: row["limit"]], labels[: row["limit"]]
    if ids != row["ids"]:
        return "moved"
    if labels == theirs:
        return "equal"
    if set(theirs) == {IGNORE_INDEX}:
        assert row.get("mismatch") or row.get("said"), name
        return "masked"
    return "recounted"


@functools.cache
def judge_all(branch: Branch, folder: Path) -> dict[str, str]:
    """The verdict on each sample of a branch."""
    tokenizer = load_tokenizer(folder, branch[2])
    return {name: judge(branch, name, row, tokenizer) for name, row in BRANCHES[branch].items()}


@pytest.mark.parametrize("branch", BRANCHES, ids=" ".join)
def test_ids_and_labels_are_the_originals_wherever_these_are_right(branch: Branch, folder: Path) -> None:
    _, version, kind = branch
    verdicts = judge_all(branch, folder)

    def those(verdict: str) -> set[str]:
        return {name for name, found in verdicts.items() if found == verdict}

    assert those("refused") <= set(REFUSED)
    assert those("accepted") <= set(ACCEPTED)
    assert those("moved") <= set(MOVED)
    if version not in MISCOUNTED and f"{version} {kind}" not in MISCOUNTED:
        assert those("masked") <= set(MASKED)
        assert those("recounted") == set()
        if version != "plain":  # which takes a single turn about an image
            assert those("equal") >= {name for name in verdicts if name in mask_samples.CLEAN | mask_samples.BLANKS} - {
                "combining" if kind == "qwen" else ""
            }
    assert those("equal") or version not in ("v1", "plain", "qwen_1_5", "llava_llama_3", "gemma_instruct")


def test_every_difference_on_purpose_occurs(folder: Path) -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for branch in BRANCHES:
        for name, verdict in judge_all(branch, folder).items():
            found[verdict].add(name)
    assert found["refused"] == set(REFUSED)
    assert found["accepted"] == set(ACCEPTED)
    assert found["moved"] == set(MOVED)
    assert found["masked"] >= set(MASKED)


# --- the ### template, with a tokenizer for which the original counts right --------------------------------------


@pytest.fixture(scope="module")
def with_hashes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer that spells ### as Llama's does: one piece with a blank before it, ## and # without."""
    text = ["## a"] * 60 + ["### Human: What? ### Assistant: A cat."] * 20
    model = tiny_tokenizers.train_sentencepiece(text)
    return tiny_tokenizers.llama_like(tmp_path_factory.mktemp("hashes"), model, legacy=False)


def count_targets(turns: Turns, system: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids and labels by the original's counting: each turn is tokenized alone, and of a question all but two is masked.

    Source: haotian-liu/LLaVA@c121f04 llava/train/train.py, preprocess and _mask_targets.
    """
    roles = {"human": "Human", "gpt": "Assistant"}
    parts = [f"{system}\n\n", *(f"### {roles[speaker]}: {text}\n" for speaker, text in turns)]
    ids = tokenizer_image_token("".join(parts) + "### ", tokenizer)
    lengths = [len(tokenizer_image_token(part, tokenizer)) for part in parts]
    labels = [IGNORE_INDEX] * lengths[0] + ids[lengths[0] :]
    start = lengths[0]
    for (speaker, _), length in zip(turns, lengths[1:], strict=True):
        if speaker == "human":
            labels[start + 2 : start + length] = [IGNORE_INDEX] * (length - 2)
        start += length
    return ids, labels


@pytest.mark.parametrize(
    "texts",
    [
        ("What?", "A cat."),
        ("<image>\nWhat?", "A cat."),
        ("<image>", "", "And now?\n", " A dog. ", "", "Yes."),
        ("What?", "A cat.", "Sure?"),
    ],
)
@pytest.mark.parametrize("template", ["llava_v0", "v0_mmtag", "default"])
def test_the_hashes_of_a_question_are_learned_and_answers_with_their_headers(
    with_hashes: Any, template: str, texts: tuple[str, ...]
) -> None:
    spelled = with_hashes.convert_ids_to_tokens(with_hashes("### a\n###").input_ids)
    assert spelled == ["<s>", "▁###", "▁a", "<0x0A>", "##", "#"]
    turns = tuple((("human", "gpt")[i % 2], text) for i, text in enumerate(texts))
    num_images = sum("<image>" in text for text in texts)
    conversation = write_sample(turns, num_images, find_template(template))
    prompt = render_sample(conversation, with_hashes, [9] * num_images, limit_tokens=None)
    shown = tuple((speaker, message) for (speaker, _), (_, message) in zip(turns, conversation.messages, strict=True))
    expected = count_targets(shown, find_template(template).system, with_hashes)
    assert (list(prompt.input_ids), list(prompt.labels or ())) == expected


# --- where images stand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", GOLD)
def test_images_are_placed_in_every_turn_as_the_originals_place_them(rule: str) -> None:
    for case in GOLD[rule]["preprocess_multimodal"]:
        is_tagged = "mmtag" in find_template(case["version"]).version
        for name, sample in SAMPLES.items():
            expected = case["values"].get(name, {})
            if isinstance(expected, str):  # an exception: a value that is no text
                continue
            for i, turn in enumerate(sample["conversations"]):
                has_start_end = case["mm_use_im_start_end"]
                placed = place_image(turn["value"], rule, is_tagged=is_tagged, has_start_end=has_start_end)
                assert placed == expected.get(str(i), turn["value"]), (name, i)


# --- batches -----------------------------------------------------------------------------------------------------

BATCHES = {"1.5": inputs.gold("batches_15")["batches"], "next": inputs.gold("batches_next")["batches"]}
CASES = {"1.5": inputs.batch_cases(), "next": next_inputs.batch_cases()}


def cut_rows(case: dict[str, Any]) -> list[Any]:
    """The ids of each row, without padding."""
    return [each["input_ids"][: case["model_max_length"]] for each in case["instances"]]


@pytest.mark.parametrize(("layout", "name"), [(layout, name) for layout in BATCHES for name in BATCHES[layout]])
def test_batches_are_the_originals(layout: str, name: str) -> None:
    expected, case = BATCHES[layout][name], CASES[layout][name]

    class Tokenizer:
        pad_token_id, model_max_length = case["pad_token_id"], case["model_max_length"]
        padding_side = case.get("padding_side", "right")

    collate = OriginalCollator(Tokenizer(), layout)
    if "error" in expected:
        with pytest.raises(LlavaError):
            collate(case["instances"])
        return
    batch = collate(case["instances"])
    assert set(batch) == set(expected["keys"])
    for key in ("input_ids", "labels"):
        assert batch[key].tolist() == expected[key]
        assert str(batch[key].dtype) == expected["dtypes"][key]
    assert str(batch["attention_mask"].dtype) == expected["dtypes"]["attention_mask"]
    # Ours covers a row's length; the originals also mask out any id that equals the padding.
    is_padding = batch["input_ids"] == (case["pad_token_id"] or 0)
    assert (batch["attention_mask"] & ~is_padding).int().tolist() == expected["attention_mask"]
    assert batch["attention_mask"].sum(1).tolist() == [len(ids) for ids in cut_rows(case)]
    if expected.get("images") is None:
        return
    if isinstance(expected["images"], dict):
        assert list(batch["images"].shape) == expected["images"]["stacked"]
    else:
        assert isinstance(batch["images"], list)
        assert [None if image is None else list(image.shape) for image in batch["images"]] == expected["images"]
    for key in ("image_sizes", "modalities"):
        if key in expected:
            assert [list(x) if isinstance(x, tuple) else x for x in batch[key]] == expected[key]
