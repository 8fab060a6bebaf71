"""A prompt as the model is given it: its text, and each token with its position, id and vocabulary entry.

The prompt comes from ``prepare``, the function that every answer uses. Reads config.json, the tokenizer and the names
of tensors, but no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llava.answer import write_chat
from llava.backends.preparation import prepare
from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import Conversation
from llava.errors import UsageError
from llava.image.source import LoadedImage
from llava.model.checkpoint import LoadedModel, fill_tower
from llava.model.checkpoint_reader import open_checkpoint
from llava.model.default_choice import DEFAULT_MODEL
from llava.prompt import ESCAPE, Prompt
from llava.sampling import Sampling
from llava.text import find_flaw


@dataclass(frozen=True)
class Entry:
    """A token of the prompt, or all positions of one image, whose ``token`` is None."""

    position: int  # the first, in the merged prompt
    num_positions: int
    token: int | None
    piece: str
    is_target: bool  # whether it counts in the loss


@dataclass(frozen=True)
class Listing:
    """The prompt of a conversation, as text and as tokens."""

    template: str
    text: str  # with ``<image>`` for each image
    entries: tuple[Entry, ...]
    num_positions: int
    context_tokens: int
    kept_positions: int  # fewer than num_positions only if the checkpoint truncates long prompts
    is_supervised: bool  # whether it was rendered as a training sample

    @property
    def num_image_positions(self) -> int:
        """Positions of all images together."""
        return sum(entry.num_positions for entry in self.entries if entry.token is None)

    @property
    def num_targets(self) -> int:
        """Tokens that count in the loss."""
        return sum(entry.is_target for entry in self.entries)

    def as_dict(self) -> dict[str, Any]:
        """The listing as ``llava info --json`` prints it."""
        tokens: list[dict[str, Any]] = []
        for entry in self.entries:
            row: dict[str, Any] = {"position": entry.position}
            if entry.token is None:
                row |= {"image_positions": entry.num_positions}
            else:
                row |= {"id": entry.token, "piece": entry.piece}
            tokens.append(row | ({"trained": entry.is_target} if self.is_supervised else {}))
        return {
            "template": self.template,
            "text": self.text,
            "positions": self.num_positions,
            "image_positions": self.num_image_positions,
            "context": self.context_tokens,
            "tokens": tokens,
        }


def list_prompt(
    model: str | None,
    questions: Sequence[str],
    answers: Sequence[str] = (),
    images: Sequence[LoadedImage] = (),
    *,
    image_questions: Sequence[int] | None = None,
    template: str | None = None,
    vision_tower: str | None = None,
) -> Listing:
    """The prompt of a chat: its questions, with the answers so far and the images.

    With an answer to every question it is a training sample, whose targets are marked, and in whose texts ``</s>`` is
    the token; otherwise a text is a user's, and everything in it is plain characters. ``image_questions`` has the
    index of each image's question, in ascending order; by default all belong to the first. ``model``: None is the
    embedded model. Raises CheckpointError, UsageError, and ContextTooLong for a prompt that does not fit.
    """
    if isinstance(questions, str) or not questions:
        raise UsageError(f"questions is {questions!r}; it has to be a list with at least one question.")
    if not len(questions) - 1 <= len(answers) <= len(questions):
        raise UsageError(
            f"There are {len(questions)} questions and {len(answers)} answers. Each question needs its answer; only "
            "the last one may be left for the model."
        )
    owners = [0] * len(images) if image_questions is None else list(image_questions)
    if len(owners) != len(images) or owners != sorted(owners) or not set(owners) <= set(range(len(questions))):
        raise UsageError(
            f"image_questions is {owners} for {len(images)} images and {len(questions)} questions. It needs the index "
            "of a question for each image, in ascending order."
        )
    is_supervised = len(answers) == len(questions)
    for text in (*questions, *answers):
        _check_text(text, is_supervised)
    opened = open_checkpoint(DEFAULT_MODEL if model is None else model, vision_tower=vision_tower)
    spec, tokenizer = opened.spec, opened.load_tokenizer()
    # The model is on the meta device: names and shapes without weights, except a tower that has to look at the images.
    if images and spec.tiling.position_range is not None:
        fill_tower(opened, tokenizer)
    loaded = LoadedModel(
        tokenizer, opened.model, opened.load_processor(), spec, spec.context_tokens, template or opened.template
    )
    replies: list[str | None] = [*answers, *[None] * (len(questions) - len(answers))]
    num_images = [owners.count(question) for question in range(len(questions))]
    turns = zip(questions, num_images, replies, strict=True)
    conversation = write_chat(loaded, turns, template, is_sample=is_supervised)
    prepared = prepare(loaded, conversation, images, Sampling(), supervise=is_supervised)
    return Listing(
        template=loaded.template,
        text=_write_text(conversation, is_supervised).replace(ESCAPE, ""),
        entries=tuple(_list_entries(prepared.prompt, prepared.positions, tokenizer)),
        num_positions=prepared.prompt.num_positions,
        context_tokens=spec.context_tokens,
        kept_positions=prepared.prompt_tokens,
        is_supervised=is_supervised,
    )


def _write_text(conversation: Conversation, is_supervised: bool) -> str:
    if is_supervised:
        return "".join(piece.text for piece in conversation.training_pieces())
    return conversation.get_prompt()


def _check_text(text: str, is_sample: bool) -> None:
    """Raises UsageError for a text that cannot be a question or an answer."""
    if not text.strip():
        raise UsageError("A question or an answer is empty.")
    if (flaw := find_flaw(text)) is not None:
        raise UsageError(f"The text {text[:40]!r} {flaw}.")
    if is_sample and DEFAULT_IMAGE_TOKEN in text:
        raise UsageError(
            f"The text {text[:40]!r} contains {DEFAULT_IMAGE_TOKEN}, which in a training sample is the place of an "
            "image. Each image gets its place by itself, before its question: leave it out."
        )


def _list_entries(prompt: Prompt, num_positions_per_image: Sequence[int], tokenizer: Any) -> Iterator[Entry]:
    sizes = iter(num_positions_per_image)
    labels = prompt.labels or [IGNORE_INDEX] * len(prompt.input_ids)
    position = 0
    for token, label in zip(prompt.input_ids, labels, strict=True):
        if token == IMAGE_TOKEN_INDEX:
            size = next(sizes)
            yield Entry(position, size, None, "<image>", False)
        else:
            size = 1
            yield Entry(position, size, token, tokenizer.convert_ids_to_tokens(token), label != IGNORE_INDEX)
        position += size
