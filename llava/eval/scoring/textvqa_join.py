"""Joins TextVQA's answers with its annotations, as LLaVA-1.5 evaluates it. Loads no torch.

LLaVA's question ids are image ids, and an image has several questions, so an answer belongs to the annotation with its
image id and its question, which is cut out of the prompt.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_textvqa.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llava.errors import UsageError
from llava.eval.scoring.vqa_accuracy import NUM_PEOPLE

_OLD_PROMPT = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)


def read_question(prompt: str) -> str:
    """The question in a prompt, in lower case. Raises UsageError for a prompt of another form.

    Its forms: ``OCR tokens: ... Question: ... Short answer:``; three lines, one of them with the reference OCR tokens,
    before or after the question; two lines, the question first.
    """
    lines = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        match = _OLD_PROMPT.search(prompt)
        question = match[1] if match else None
    elif "Reference OCR token: " in prompt and len(lines) == 3:
        question = lines[1] if prompt.startswith("Reference OCR token:") else lines[0]
    else:
        question = lines[0] if len(lines) == 2 else None
    if question is None:
        raise UsageError(
            f"No question can be read out of the prompt {prompt!r}: it has {len(lines)} lines, but TextVQA's prompts "
            "have two, or three with a line 'Reference OCR token: ...'."
        )
    return question.lower()


def join_textvqa(
    answers: Iterable[Mapping[str, Any]], annotations: Iterable[Mapping[str, Any]]
) -> list[tuple[str, Sequence[str]]]:
    """Each answer's text with the human answers to its question.

    Raises UsageError for a question that the annotations do not have, and for rows without the keys they need.
    """
    try:
        by_question = {(row["image_id"], row["question"].lower()): row["answers"] for row in annotations}
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "The annotations are not TextVQA's: each needs image_id, question and answers, as in "
            "TextVQA_0.5.1_val.json (the test set has no answers)."
        ) from error
    joined = []
    for row in answers:
        for key in ("prompt", "text"):
            if not isinstance(row.get(key), str):
                raise UsageError(f"The answer {_shorten(row)} has no text under '{key}'.")
        question = read_question(row["prompt"])
        image = row.get("question_id")
        people = by_question.get((image, question)) if isinstance(image, str | int) else None
        if people is None:
            raise UsageError(
                f"The annotations have no question {question!r} about image {image!r}: are they of "
                "the split that was answered? LLaVA-1.5's is val, in TextVQA_0.5.1_val.json."
            )
        if not isinstance(people, Sequence) or len(people) != NUM_PEOPLE:
            raise UsageError(
                f"The question {question!r} about image {image!r} needs a list of {NUM_PEOPLE} human answers, but its "
                f"annotation has {_shorten(people)}."
            )
        joined.append((row["text"], people))
    return joined


def _shorten(row: object, limit: int = 120) -> str:
    text = repr(row)
    return text if len(text) <= limit else f"{text[:limit]}..."
