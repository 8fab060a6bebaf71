"""The sentence by which each dataset asks for its form of answer, once for converters and for evaluation.

A model is asked in evaluation as it was asked in training, so both take the sentence from here. A prompt's parts are
lines: the question, its options or OCR tokens, then the sentence. Apostrophes are ASCII, as in the published data,
whatever the papers print. No torch.

Source: LLaVA-1.5 (arXiv:2310.03744v2) tables 7 and 8; rows of llava_v1_5_mix665k.json; haotian-liu/LLaVA@c121f04
llava/eval and scripts/v1_5/eval; EvolvingLMMs-Lab/lmms-eval@75571cf for the benchmarks of LLaVA-NeXT.
"""

from __future__ import annotations

from collections.abc import Sequence

from llava.errors import UsageError

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
LETTER_CN = "请直接回答选项字母。"
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
CAPTION = "Provide a one-sentence caption for the provided image."
OCR_TOKENS = "Reference OCR token: "
SINGLE_WORD = "Answer the question with a single word."
YES_OR_NO = "Please answer yes or no."

# The paper's table 7 leaves out the first word; the data have it, the region after a colon, and a period at the end.
DESCRIBE_REGION = "Please provide a short description for this region: {}."
FIND_REGION = "Please provide the bounding box coordinate of the region this sentence describes: {}."

CHOOSE_BETWEEN = "Choose between one of the options as follows:"
INTEGER = "Answer the question using a single integer number."
ONE_DECIMAL = "Answer the question using a single floating-point number with one decimal place."
TWO_DECIMALS = "Answer the question using a single floating-point number with two decimal places."
PYTHON_LIST = "Answer the question using a Python list."

TRANSCRIBE = (
    "OCR this image section by section, from top to bottom, and left to right. Do not insert line breaks in the output "
    "text. If a word is split due to a line break in the image, use a space instead."
)
"""SynDog-EN, as in lmms-lab/LLaVA-NeXT-Data."""

DATA_TABLE = "Generate underlying data table of the figure below:"
"""A chart's table, as google/deplot is asked (transformers, docs/source/en/model_doc/deplot.md)."""

DESCRIBE = (
    "Describe the following image in detail",
    "Provide a detailed description of the given image",
    "Give an elaborate explanation of the image you see",
    "Share a comprehensive rundown of the presented image",
    "Offer a thorough analysis of the image",
    "Explain the various aspects of the image before you",
    "Clarify the contents of the displayed image with great detail",
    "Characterize the image using a well-detailed description",
    "Break down the elements of the image in a detailed manner",
    "Walk through the important details of the image",
    "Portray the image with a rich, descriptive narrative",
    "Narrate the contents of the image with precision",
    "Analyze the image in a comprehensive and detailed manner",
    "Illustrate the image through a descriptive explanation",
    "Examine the image closely and share its details",
    "Write an exhaustive depiction of the given image",
)
"""Detailed descriptions; one is drawn for each row. LLaVA (arXiv:2304.08485), table 12."""

ANSWER_FORMATS: dict[str, str] = {
    # Trained on by LLaVA-1.5, and its benchmarks.
    "vqav2": SHORT_ANSWER,
    "gqa": SHORT_ANSWER,
    "okvqa": SHORT_ANSWER,
    "ocr_vqa": SHORT_ANSWER,
    "aokvqa": LETTER,
    "textcaps": CAPTION,
    "textvqa": SHORT_ANSWER,
    "vizwiz": f"{UNANSWERABLE}\n{SHORT_ANSWER}",
    "scienceqa": LETTER,
    "pope": SHORT_ANSWER,
    "mme": SHORT_ANSWER,  # the benchmark's own YES_OR_NO is taken off its questions
    "mmbench": LETTER,
    "mmbench_cn": LETTER_CN,
    "seed": LETTER,
    # Asked without a sentence: the question alone.
    "llava_bench": "",
    "mmvet": "",
    # Later ones.
    "coco_captions": CAPTION,
    "st_vqa": SHORT_ANSWER,
    "qbench": CHOOSE_BETWEEN,  # before the options, and nothing after them
    "mmmu": LETTER,  # SHORT_ANSWER for its open questions
    "docvqa": SHORT_ANSWER,
    "infovqa": SHORT_ANSWER,
    "chartqa": SINGLE_WORD,  # as lmms-eval asks it
    "ai2d": LETTER,
    "ocrbench": SHORT_ANSWER,
    # Documents, charts, science.
    "dvqa": SHORT_ANSWER,
    "synthdog-en": TRANSCRIBE,
}
"""The answer-format sentence of each dataset, "" for one that has none."""


def join_lines(*parts: str) -> str:
    """The parts of a prompt on lines of their own; empty ones are left out."""
    return "\n".join(part for part in parts if part)


def write_options(options: Sequence[str]) -> str:
    """Options as lines: "A. red", "B. blue" and so on. Raises UsageError for more than 26."""
    if len(options) > 26:
        raise UsageError(f"A question has {len(options)} options, and there are 26 letters. Leave the question out.")
    return "\n".join(f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options))


def ask_choice(question: str, options: Sequence[str], sentence: str = LETTER, hint: str = "") -> str:
    """A multiple-choice question: hint, question, options and sentence, each on its lines.

    Source: haotian-liu/LLaVA@c121f04 llava/eval/model_vqa_mmbench.py.
    """
    return join_lines(hint, question, write_options(options), sentence)


def write_ocr_tokens(tokens: Sequence[str]) -> str:
    """The line with words that an OCR system read on the image; with none of them it ends after the colon's blank.

    Source: rows of llava_v1_5_mix665k.json from TextCaps, and llava_textvqa_val_v051_ocr.jsonl.
    """
    return OCR_TOKENS + ", ".join(tokens)
