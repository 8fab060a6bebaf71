"""Samples for the image adapter: token ids and targets of descriptions and turns, in SmolLM2's chat template.

What is before the first image is the same in all samples (``write_prefix``) and is no part of them. The invariant:
prefix, images, descriptions and turns are the prompt that ``llava.prompt`` renders for the same images.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

import torch

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import find_template
from llava.model.lexical.lexical_projector import NUM_CELLS, NUM_WHOLE
from llava.model.lexical.photo_line import guess_main, write_photo
from llava.model.lexical.thing_guesses import guess_things
from llava.scratch.talking.document_records import MAKERS, draw_record
from llava.scratch.talking.long_questions import lengthen
from llava.scratch.talking.other_languages import ask_in_other_language
from llava.scratch.talking.photo_turns import draw_photo
from llava.scratch.talking.seen_records import ASKS_FOR_DESCRIPTION, Record, Turns, pick
from llava.scratch.talking.small_talk import make_small_talk
from llava.scratch.talking.thing_samples import Seen, ThingSamples, get_logits
from llava.scratch.talking.thing_turns import find_wrongly, misread, read_wrongly

COMMON = 0  # the branch of what all turns see
THING = -1
"""Stands for an id where an image's things are, whose embeddings the projector makes."""

NUM_THINGS = NUM_WHOLE + NUM_CELLS
TWO_IMAGES = "two images"
_THINGS: dict[str, Callable[[ThingSamples, random.Random], Seen]] = {
    "nothing": ThingSamples.draw_doubt,
    "prototypes": ThingSamples.draw_prototype,
    "views": ThingSamples.draw_view,
    "unseen things": ThingSamples.draw_unseen,
}
KINDS = (*_THINGS, *MAKERS, TWO_IMAGES)
"""What a sample may be about: things in views or as prototypes of classes, records of each kind, and two images."""

_TEMPLATE = "smollm2"
# From a question to its answer, the end of an answer, and from there to the next question.
_TO_ANSWER, _END, _TO_QUESTION = "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", "\n<|im_start|>user\n"
# In this share of the images of things, the reader sees text where there is none, and the answers are the same.
_MISREAD_SHARE = 0.2
# Of drawn images, the towers find a shape in a sign's plate, and read a letter in a shape.
_STRAY_SHARE = 0.2
# Signs hang beside things, and shapes and text are before textures, so that an image's looks do not tell whether there
# is text in it. The share beside things is a part of the others.
_BESIDE_SHARE, _BEHIND_SHARES = 0.1, {"signs": 0.4, "text": 0.2, "shapes": 0.15}
# This share of the samples is one chat of a few turns. In the others each question is asked as if it were the first.
_CHAT_SHARE = 0.25
_MOST_BRANCHES = 9
# Samples with a turn that has nothing to do with the image, with one in another language, and with a long question;
# and with one of small talk.
_TALK_SHARE, _OTHER_LANGUAGE_SHARE, _LONG_SHARE = 0.12, 0.14, 0.04
_SMALL_TALK_SHARE = 0.2
# In this share of the samples a second image comes, with a later question or, in some of them, with the first one.
_SECOND_SHARE, _AT_ONCE_SHARE = 0.1, 0.25


@dataclass(frozen=True)
class Encoded:
    """One sample: ids of all positions from the first image on, and which of them are targets.

    Attributes:
        ids: ``THING`` where an image's things are.
        branch: of each position, ``COMMON`` or the number of the turn that it belongs to. A position sees those before
            it that are common or of its own branch, and is counted as if the others were not there.
        looks: what the projector turns into the things' embeddings, ten of each image [10 x images, D]: the whole
            image's and its nine cells'.
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
    ids = [THING] * NUM_THINGS + (list(tokenizer.encode(description).ids) if description else [])
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


def join(first: Encoded, second: Encoded, tokenizer: Any) -> Encoded:
    """The chat of the first sample, in whose next question the second's image comes; without turns, they are together.

    ``first`` has no branches.
    """
    assert not any(first.branch)
    between = tokenizer.encode(_TO_QUESTION if any(first.is_target) else "\n").ids
    return Encoded(
        first.ids + between + second.ids,
        first.is_target + [False] * len(between) + second.is_target,
        first.branch + [COMMON] * len(between) + second.branch,
        torch.cat([first.looks, second.looks]),
    )


@dataclass(frozen=True)
class SampleSource:
    """Where samples come from.

    Attributes:
        thing_share: the share of samples about things; the others are about text, shapes and charts.
        talk: turns that have nothing to do with an image, of which some samples get one.
        max_tokens: turns beyond it are left out; things count, too.
        kinds: those of ``MAKERS`` that records have.
    """

    tokenizer: Any
    things: ThingSamples
    thing_share: float
    max_tokens: int = 495
    talk: Turns = field(default_factory=list)
    kinds: Sequence[str] = tuple(MAKERS)

    def draw(self, rng: random.Random) -> Iterator[Encoded]:
        """Samples without end, which follow from ``rng`` alone."""
        while True:
            encode_next = self._encode_two if rng.random() < _SECOND_SHARE else self._encode
            yield from encode_next(rng, lambda: self._draw_text(rng))

    def draw_kind(self, rng: random.Random, kind: str) -> Iterator[Encoded] | None:
        """Samples of one of ``KINDS``, without end; None if no view shows unseen things."""
        if kind == "unseen things" and not self.things.has_unseen:
            return None

        def draw() -> Seen:
            if kind in MAKERS:
                return self._look_at(rng, MAKERS[kind][1](rng))
            return self._misread(rng, *_THINGS[kind](self.things, rng)) if kind in _THINGS else self._draw_text(rng)

        encode_next = self._encode_two if kind == TWO_IMAGES else self._encode
        return chain.from_iterable(encode_next(rng, draw) for _ in repeat(None))

    def _encode(self, rng: random.Random, draw: Callable[[], Seen]) -> Iterator[Encoded]:
        """A sample about one image; none if no turn fits."""
        description, turns, looks = draw()
        branches = rng.random() >= _CHAT_SHARE
        turns = self._add_turns(rng, turns)
        turns = turns[:_MOST_BRANCHES] if branches else make_chat(rng, turns)
        sample = self._write(description, turns, looks, self.max_tokens, branches=branches)
        if any(sample.is_target):
            yield sample

    def _encode_two(self, rng: random.Random, draw: Callable[[], Seen]) -> Iterator[Encoded]:
        """A chat about an image in which a second one follows; none if they do not fit."""
        (description, turns, looks), (later_description, later_turns, later_looks) = draw(), draw()
        are_together = rng.random() < _AT_ONCE_SHARE
        before = [] if are_together else make_chat(rng, turns)[:2]
        first = self._write(description, before, looks, self.max_tokens // 2)
        asked = ask_for_either(rng, turns, later_turns)
        # Together, only what names the image is clear.
        later_turns = asked if are_together else [*self._add_turns(rng, later_turns)[:5], *asked]
        left = self.max_tokens - len(first.ids) - len(_TO_QUESTION)
        second = self._write(later_description, later_turns, later_looks, left, branches=True)
        if len(second.ids) <= left and any(second.is_target) and any(first.is_target) != are_together:
            yield join(first, second, self.tokenizer)

    def _add_turns(self, rng: random.Random, turns: Turns) -> Turns:
        """The turns, with some that any image may get after the first."""
        added = [rng.choice(self.talk)] if self.talk and rng.random() < _TALK_SHARE else []
        added += [make_small_talk(rng)] if rng.random() < _SMALL_TALK_SHARE else []
        added += [ask_in_other_language(rng)] if rng.random() < _OTHER_LANGUAGE_SHARE else []
        turns = [*turns[:1], *added, *turns[1:]]
        if rng.random() < _LONG_SHARE:
            at = rng.randrange(min(2, len(turns)))
            turns[at] = (lengthen(rng, turns[at][0]), turns[at][1])
        return turns

    def _write(
        self, description: str, turns: Turns, looks: torch.Tensor, max_tokens: int, *, branches: bool = False
    ) -> Encoded:
        return encode(description, turns, self.tokenizer, looks, branches=branches, max_tokens=max_tokens)

    def _draw_text(self, rng: random.Random) -> Seen:
        if rng.random() < self.thing_share:
            return self._misread(rng, *self.things.draw(rng))
        return self._look_at(rng, draw_record(rng, self.kinds))

    def _misread(self, rng: random.Random, said: str, turns: Turns, looks: torch.Tensor) -> Seen:
        return f"{said}\n{misread(rng)}".strip() if rng.random() < _MISREAD_SHARE else said, turns, looks

    def _look_at(self, rng: random.Random, record: Record) -> Seen:
        said = record.description
        if rng.random() < _STRAY_SHARE and record.look == "shapes":
            said = f"{said}\n{read_wrongly(rng)}"
        elif rng.random() < _STRAY_SHARE and record.look in ("signs", "text"):
            said = f"{find_wrongly(rng)}\n{said}"
        way = rng.random()
        if way < _BESIDE_SHARE and record.look in ("signs", "text"):
            guess, of_thing, looks = self.things.draw_view(rng)
            turns = [turn for turn in record.turns if turn[0] not in ASKS_FOR_DESCRIPTION]
            turns = [tell_both(rng, of_thing[0], record.description), *turns]
        else:
            is_before = way < _BEHIND_SHARES.get(record.look, 0.0)
            looks, turns = self.things.draw_looks(rng, "nothing" if is_before else record.look), record.turns
            logits = get_logits(looks)
            is_photo = is_before and said.count("\n") < 4 and rng.random() < 0.5
            guess = write_photo(draw_photo(rng, guess_main(logits))) if is_photo else guess_things(logits)
        return "\n".join(filter(None, (guess, said))), turns, looks


def tell_both(rng: random.Random, of_thing: tuple[str, str], description: str) -> tuple[str, str]:
    """A thing's first turn, a description of it, with the first line of the text that is beside it."""
    question, answer = of_thing
    first = re.search(r"(?m)^1\. (.+?)(?: \([a-z ]+\))?$", description)
    if first is None:
        return of_thing
    text = re.sub(r" \([a-z ]+\)", "", first[1]).replace(" | ", " ")
    beside = pick(rng, f"There is text that says {text}.", f"It says {text}.", f"The text says {text}.")
    return question, f"{answer} {beside}"


def ask_for_either(rng: random.Random, first: Turns, second: Turns) -> Turns:
    """Requests to describe the first or the second of two images, answered as each image's own turns do."""
    asked = []
    for turns, names in ((first, ("first",)), (second, ("second", "last"))):
        for answer in [answer for question, answer in turns if question in ASKS_FOR_DESCRIPTION][:1]:
            question = pick(rng, "What is in the {} image?", "Describe the {} image.", "What does the {} image show?",
                            "What is the {} image?", "What was in the {} picture?")  # fmt: skip
            asked.append((question.format(rng.choice(names)), answer))
    rng.shuffle(asked)
    return asked


def make_chat(rng: random.Random, turns: Turns) -> Turns:
    """Two to four of the turns, most often beginning with the first."""
    first, later = turns[:1], rng.sample(turns[1:], min(len(turns) - 1, rng.randint(1, 3)))
    chat = first + later
    if rng.random() < 0.25:
        rng.shuffle(chat)
    return chat
