"""Samples for the image adapter: token ids and targets of descriptions and turns, in SmolLM2's chat template.

What is before the image is the same in all samples (``write_prefix``) and is no part of them. The invariant: prefix,
image, description and turns are the prompt that ``llava.prompt`` renders for the same image.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import find_template
from llava.model.lexical.efficientnet_lite import NUM_CLASSES, NUM_FEATURES
from llava.model.lexical.thing_guesses import guess_things
from llava.scratch.talking.document_records import MAKERS, draw_record
from llava.scratch.talking.seen_records import Record, Turns
from llava.scratch.talking.thing_samples import ThingSamples
from llava.scratch.talking.thing_turns import find_wrongly, misread, read_wrongly

COMMON = 0  # the branch of what all turns see
_THINGS: dict[str, Callable[[ThingSamples, random.Random], tuple[torch.Tensor, Turns]]] = {
    "nothing": ThingSamples.draw_doubt,
    "prototypes": ThingSamples.draw_prototype,
    "views": ThingSamples.draw_view,
    "unseen things": ThingSamples.draw_unseen,
}
KINDS = (*_THINGS, *MAKERS)
"""What a sample may be about: things in views or as prototypes of classes, and records of each kind."""

_TEMPLATE = "smollm2"
# From a question to its answer, the end of an answer, and from there to the next question.
_TO_ANSWER, _END, _TO_QUESTION = "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", "\n<|im_start|>user\n"
# In this share of the images of things, the reader sees text where there is none, and the answers are the same.
_MISREAD_SHARE = 0.2
# Of drawn images, the towers find a shape in a sign's plate, and read a letter in a shape.
_STRAY_SHARE = 0.2
# This share of the samples is one chat of a few turns. In the others each question is asked as if it were the first.
_CHAT_SHARE = 0.35
_MOST_BRANCHES = 9
# Samples with a turn that has nothing to do with the image.
_TALK_SHARE = 0.12

Seen = tuple[str, Turns, torch.Tensor]  # description, turns and looks of an image


@dataclass(frozen=True)
class Encoded:
    """One sample: ids of all positions after the image's things, and which of them are targets.

    Attributes:
        branch: of each position, ``COMMON`` or the number of the turn that it belongs to. A position sees those before
            it that are common or of its own branch, and is counted as if the others were not there.
        looks: what the projector turns into the things' embeddings, [10, D]: the whole image's and its nine cells'.
    """

    ids: list[int]
    is_target: list[bool]
    branch: list[int]
    looks: torch.Tensor


def write_prefix() -> str:
    """The prompt's text before the image."""
    conversation = find_template(_TEMPLATE)
    conversation.append_message(conversation.roles[0], DEFAULT_IMAGE_TOKEN)
    return conversation.get_prompt().split(DEFAULT_IMAGE_TOKEN)[0]


def encode(
    description: str,
    turns: Sequence[tuple[str, str]],
    tokenizer: Any,
    looks: torch.Tensor,
    *,
    branches: bool = False,
    max_tokens: int | None = None,
) -> Encoded:
    """A sample as the model is given it: the description, then the turns. An answer's end is a target, too.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``.
        branches: each turn is the first after the description, and sees no other.
        max_tokens: turns that do not fit any more are left out; the sample may have none.
    """
    ids = list(tokenizer.encode(description).ids) if description else []
    is_target, branch = [False] * len(ids), [COMMON] * len(ids)
    for i, (question, answer) in enumerate(turns):
        asked = tokenizer.encode(("\n" if i == 0 or branches else _TO_QUESTION) + question + _TO_ANSWER).ids
        answered = tokenizer.encode(answer + _END).ids
        if max_tokens is not None and len(ids) + len(asked) + len(answered) > max_tokens:
            break
        ids += asked + answered
        is_target += [False] * len(asked) + [True] * len(answered)
        branch += [i + 1 if branches else COMMON] * (len(asked) + len(answered))
    return Encoded(ids, is_target, branch, looks)


@dataclass(frozen=True)
class SampleSource:
    """Where samples come from.

    Attributes:
        thing_share: the share of samples about things; the others are about text, shapes and charts.
        talk: turns that have nothing to do with an image, of which some samples get one.
        max_tokens: turns beyond it are left out.
        kinds: those of ``MAKERS`` that records have.
    """

    tokenizer: Any
    things: ThingSamples
    thing_share: float
    max_tokens: int = 480
    talk: Turns = field(default_factory=list)
    kinds: Sequence[str] = tuple(MAKERS)

    def draw(self, rng: random.Random) -> Iterator[Encoded]:
        """Samples without end, which follow from ``rng`` alone."""
        return self._encode(rng, lambda: self._draw_text(rng))

    def draw_kind(self, rng: random.Random, kind: str) -> Iterator[Encoded] | None:
        """Samples of one of ``KINDS``, without end; None if no view shows unseen things."""
        if kind in MAKERS:
            return self._encode(rng, lambda: self._look_at(rng, MAKERS[kind][1](rng)))
        if kind == "unseen things" and not self.things.has_unseen:
            return None
        return self._encode(rng, lambda: self._misread(rng, *_THINGS[kind](self.things, rng)))

    def _encode(self, rng: random.Random, draw: Callable[[], Seen]) -> Iterator[Encoded]:
        while True:
            description, turns, looks = draw()
            guess = guess_things(looks[0, NUM_FEATURES : NUM_FEATURES + NUM_CLASSES])
            description = "\n".join(filter(None, (guess, description)))
            branches = rng.random() >= _CHAT_SHARE
            if self.talk and rng.random() < _TALK_SHARE:
                turns = [*turns[:1], rng.choice(self.talk), *turns[1:]]
            turns = turns[:_MOST_BRANCHES] if branches else make_chat(rng, turns)
            sample = encode(description, turns, self.tokenizer, looks, branches=branches, max_tokens=self.max_tokens)
            if any(sample.is_target):
                yield sample

    def _draw_text(self, rng: random.Random) -> Seen:
        if rng.random() < self.thing_share:
            return self._misread(rng, *self.things.draw(rng))
        return self._look_at(rng, draw_record(rng, self.kinds))

    def _misread(self, rng: random.Random, looks: torch.Tensor, turns: Turns) -> Seen:
        return misread(rng) if rng.random() < _MISREAD_SHARE else "", turns, looks

    def _look_at(self, rng: random.Random, record: Record) -> Seen:
        said = record.description
        if rng.random() < _STRAY_SHARE and record.look == "shapes":
            said = f"{said}\n{read_wrongly(rng)}"
        elif rng.random() < _STRAY_SHARE and record.look in ("signs", "text"):
            said = f"{find_wrongly(rng)}\n{said}"
        return said, record.turns, self.things.draw_looks(rng, record.look)


def make_chat(rng: random.Random, turns: Turns) -> Turns:
    """Two to four of the turns, most often beginning with the first."""
    first, later = turns[:1], rng.sample(turns[1:], min(len(turns) - 1, rng.randint(1, 3)))
    chat = first + later
    if rng.random() < 0.25:
        rng.shuffle(chat)
    return chat
