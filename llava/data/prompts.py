"""The sentence by which each dataset asks for its form of answer: one place for converters and for evaluation.

Source: LLaVA-1.5 (arXiv:2310.03744v2), tables 7 and 8, and llava_v1_5_mix665k.json; haotian-liu/LLaVA@c121f04
llava/eval. The apostrophe is ASCII in the data and in the evaluation, whatever the paper prints.
"""

from __future__ import annotations

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."

# Documents, charts, science.

SINGLE_WORD = "Answer the question with a single word."
"""ChartQA, as the authors' lmms-eval asks it: EvolvingLMMs-Lab/lmms-eval@75571cf lmms_eval/tasks/chartqa."""

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
