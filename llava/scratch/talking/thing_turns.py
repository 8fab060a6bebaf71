"""Questions and answers about views of things, for the features that ``llava.scratch.things`` computes."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping, Sequence
from typing import Any

from llava.model.lexical.description import PLACES, describe, say_place
from llava.model.lexical.nouns import is_plural, with_article
from llava.scratch.talking.kind_talk import talk_of_kind
from llava.scratch.talking.off_topic import UNKNOWN, ask_off_topic
from llava.scratch.talking.seen_records import (
    NUMBERS,
    Drawn,
    Turns,
    ask_description,
    ask_for_missing,
    ask_where_no_text_is,
    pick,
)
from llava.scratch.talking.thing_groups import ANIMALS, FOODS, GROUPS
from llava.synth.drawing import SHAPES
from llava.synth.scene import SCENE_COLORS
from llava.text import list_all

_ASKED_GROUPS = {group: GROUPS[group] for group in ("animal", "vehicle", "plant", "building")}
_HIDDEN = (
    "Who took this photo?;What is its name?;How much does it cost?;Where was this taken?;When was this taken?;"
    "How old is it?;Who made it?;What is the phone number?;What time is it?;Who is the owner?;What city is this?;"
    "What brand is it?;How much does it weigh?;What is the name of the person?;Is it raining?;What happened before?"
).split(";")
UNSURE = ("I am not sure what this is.", "I cannot tell what this is.", "I am not sure what the image shows.")
# Of two things whose middles are nearer than half of this, as a part of the image, no relation is asked for.
_LEAST_APART = 0.3
_PLURALS = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "mouse": "mice",
    "tooth": "teeth",
    "foot": "feet",
    "goose": "geese",
    "fish": "fish",
    "sheep": "sheep",
    "deer": "deer",
    "person": "people",
    "knife": "knives",
    "leaf": "leaves",
    "wolf": "wolves",
    "loaf": "loaves",
}


def talk_about_thing(
    rng: random.Random,
    thing: Mapping[str, Any],
    others: Sequence[str],
    facts: Mapping[str, str],
    *,
    has_place: bool,
) -> Turns:
    """Turns about an image of one thing, the description first.

    Args:
        thing: ``name``, ``kind``, and for a view ``colours`` and ``cell``.
        others: names of other things, to ask for what is not there.
        facts: a sentence about a thing by its name, which the language model itself wrote.
    """
    first = (ask_description(rng), _name_thing(rng, thing))
    later = [*_ask_for_looks(rng, thing, has_place), *ask_about_kind(rng, thing, others, facts)]
    rng.shuffle(later)
    return [first, *later]


def ask_about_kind(
    rng: random.Random, thing: Mapping[str, Any], others: Sequence[str], facts: Mapping[str, str]
) -> Turns:
    """Turns about what a thing is, what is known of its kind, and what is not there; see ``talk_about_thing``."""
    turns = [*_ask_for_kind(rng, thing), *_ask_whether(rng, thing, others)]
    turns += ask_beyond(rng, f"{thing['name']} {thing['kind']}")
    turns += _ask_for_facts(rng, thing, facts)
    asked = {question for question, _ in turns}
    return turns + [turn for turn in talk_of_kind(rng, thing) if turn[0] not in asked]


def _has_kind(thing: Mapping[str, Any]) -> bool:
    """Whether the kind says something that the name does not."""
    name, kind = thing["name"], thing["kind"]
    return bool(kind) and kind not in name and not is_plural(name)


def _name_thing(rng: random.Random, thing: Mapping[str, Any]) -> str:
    name, colours = thing["name"], thing.get("colours")
    noun, this = with_article(name), "These are" if is_plural(name) else "This is"
    if colours and rng.random() < 0.25 and not is_plural(name):
        coloured = with_article(f"{colours[0]} {name}") if colours[0] not in name else noun
        return pick(rng, f"This is {coloured}.", f"The image shows {coloured}.")
    if _has_kind(thing) and rng.random() < 0.9:  # the kind comes first: it is surer, and everybody knows it
        kind = with_article(thing["kind"])
        return pick(rng, f"This is {kind}, {noun}.", f"The image shows {kind}, {noun}.", f"I see {kind}, {noun}.")
    return pick(rng, f"{this} {noun}.", f"The image shows {noun}.", f"I see {noun}.")


def _ask_for_kind(rng: random.Random, thing: Mapping[str, Any]) -> Turns:
    kind, noun, be = thing["kind"], with_article(thing["name"]), "are" if is_plural(thing["name"]) else "is"
    turns: Turns = []
    if _has_kind(thing):
        question = pick(rng, "What kind of thing is this?", f"What kind of {kind} is this?", "What is it?",
                        f"Which {kind} is this?", f"What {kind} do you see?", "What is the main thing here?",
                        "What is the main subject of the photo?", "Name the main thing in the picture.")  # fmt: skip
        turns.append((question, f"It is {noun}." if kind in question else f"It is {with_article(kind)}, {noun}."))
    own = [group for group, kinds in _ASKED_GROUPS.items() if kind in kinds]
    other = rng.choice([group for group in _ASKED_GROUPS if group not in own])
    for group in own + [other] * (bool(own) or rng.random() < 0.6):  # yes and no are asked for equally often
        question = pick(rng, "Is this {}?", "Is it {}?", "Is that {}?").format(with_article(group))
        is_group = f"it is {with_article(group)}" if group in own else f"it is not {with_article(group)}"
        turns.append((question, f"{'Yes' if group in own else 'No'}, {is_group}. It is {noun}."))
    if kind in FOODS or rng.random() < 0.1:
        answer = f"Yes, {noun} {be} food." if kind in FOODS else f"No, {noun} {be} not food."
        turns.append((pick(rng, "Can I eat this?", "Is this food?"), answer))
    return turns


def _ask_whether(rng: random.Random, thing: Mapping[str, Any], others: Sequence[str]) -> Turns:
    name, kind = thing["name"], thing["kind"]
    noun, be, turns = with_article(name), "are" if is_plural(name) else "is", []
    for asked in (kind if _has_kind(thing) and rng.random() < 0.4 else name, rng.choice(others)):
        question = pick(rng, "Is there {}?", "Is this {}?", "Do you see {}?", "Is there {} in the image?")
        answer = f"Yes, there {be} {noun}." if asked in (name, kind) else f"No, I see {noun}."
        turns.append((question.format(with_article(asked)), answer))
    return turns


def _ask_for_looks(rng: random.Random, thing: Mapping[str, Any], has_place: bool) -> Turns:
    name, colours, are_many = thing["name"], thing.get("colours"), is_plural(thing["name"])
    be, it, they = ("are", "they", "They are") if are_many else ("is", "it", f"The {name} is")
    turns: Turns = []
    if colours:
        subject = it if are_many or rng.random() < 0.5 else f"the {name}"
        shown = " and ".join(colours[: 2 if rng.random() < 0.4 else 1])
        turns.append((f"What color {be} {subject}?", f"{they} {shown}."))
        turns.append((f"What is the main color of the {name}?", f"The main color is {colours[0]}."))
    if has_place:
        subject = f"the {name}" if rng.random() < 0.6 else it
        turns.append((f"Where {be} {subject}?", f"{they} {say_place(PLACES[thing['cell']])} of the image."))
    return turns


def ask_beyond(rng: random.Random, known: str) -> Turns:
    """Asks for text, of which there is none, and for what no image of a thing tells. ``known``: its name and kind."""
    turns: Turns = []
    if rng.random() < 0.5:
        turns.append(ask_where_no_text_is(rng))
    if rng.random() < 0.4:
        turns.append((rng.choice(_HIDDEN), rng.choice(UNKNOWN)))
    for ask, rate in ((ask_off_topic, 0.4), (ask_for_missing, 0.25)):
        turn = ask(rng, known) if rng.random() < rate else None
        if turn is not None:
            turns.append(turn)
    return turns


def _ask_for_facts(rng: random.Random, thing: Mapping[str, Any], facts: Mapping[str, str]) -> Turns:
    if thing["name"] not in facts:
        return []
    question = pick(
        rng,
        "Tell me more about it.",
        "What can you tell me about it?",
        f"What is {with_article(thing['name'])}?",
        "Tell me about this animal." if thing["kind"] in ANIMALS else "What is it used for?",
        "Tell me something about it.",
    )
    return [(question, facts[thing["name"]])]


def talk_about_view(
    rng: random.Random, view: Mapping[str, Any], others: Sequence[str], facts: Mapping[str, str]
) -> Turns:
    """Turns about a view of ``llava.scratch.things``: one thing, several of the same, or different things."""
    things = view["objects"]
    if len(things) == 1:
        has_place = view.get("layout") == "single" or rng.random() < 0.6
        return talk_about_thing(rng, things[0], others, facts, has_place=has_place)
    if len({thing["name"] for thing in things}) == 1:
        return _talk_about_alike(rng, things, others)
    return _talk_about_several(rng, things, others)


def _talk_about_alike(rng: random.Random, things: Sequence[Mapping[str, Any]], others: Sequence[str]) -> Turns:
    count, name = len(things), things[0]["name"]
    word = NUMBERS[count] if rng.random() < 0.5 else str(count)
    plural = name if is_plural(name) else make_plural(name)
    turns = [(ask_description(rng), pick(rng, f"There are {word} {plural}.", f"The image shows {word} {plural}."))]
    question = pick(rng, f"How many {plural} are there?", "How many things are there?",
                    f"How many {plural} do you see?", f"Count the {plural}.")  # fmt: skip
    turns.append((question, f"There are {count} {plural}."))
    if things[0].get("colours"):
        turns.append((f"What color are the {plural}?", f"The {plural} are {things[0]['colours'][0]}."))
    other = rng.choice([other for other in others if other != name])
    turns.append((f"Is there {with_article(other)}?", f"No, I see {word} {plural}."))
    turns.append(ask_where_no_text_is(rng))
    rng.shuffle(turns)
    return turns


def _talk_about_several(rng: random.Random, things: Sequence[Mapping[str, Any]], others: Sequence[str]) -> Turns:
    names = [thing["name"] for thing in things]
    every = list_all([with_article(name) for name in dict.fromkeys(names)])
    counted = f"There are {len(things)} things: {every}."
    first = (ask_description(rng), pick(rng, f"The image shows {every}.", f"I see {every}.", counted))
    turns = [(pick(rng, "How many things are there?", "How many objects do you see?"), counted)]
    thing = rng.choice(things)
    name = thing["name"]
    if names.count(name) == 1:
        where = say_place(PLACES[thing["cell"]])
        turns.append((f"Where is the {name}?", f"The {name} is {where}."))
        if [other["cell"] for other in things].count(thing["cell"]) == 1:
            turns.append((f"What is {where}?", f"There is {with_article(name)} {where}."))
        if thing.get("colours"):
            turns.append((f"What color is the {name}?", f"The {name} is {thing['colours'][0]}."))
    single = [each for each in things if names.count(each["name"]) == 1]
    if len(single) > 1:
        a, b = rng.sample(single, 2)
        turns += _relate(rng, a, b, are_all=len(things) == 2)
    other = rng.choice(others if rng.random() < 0.5 else names)
    question = pick(rng, "Is there {}?", "Do you see {}?").format(with_article(other))
    turns.append((question, f"Yes, there is {with_article(other)}." if other in names else f"No, I see {every}."))
    turns.append(ask_where_no_text_is(rng))
    rng.shuffle(turns)
    return [first, *turns]


def _relate(rng: random.Random, a: Mapping[str, Any], b: Mapping[str, Any], are_all: bool) -> Turns:
    across, down = (sum(a["box"][axis::2]) - sum(b["box"][axis::2]) for axis in (0, 1))
    if max(abs(across), abs(down)) < _LEAST_APART:
        return []
    if abs(across) > abs(down):
        holds, other = ("left of", "right of") if across < 0 else ("right of", "left of")
    else:
        holds, other = ("above", "below") if down < 0 else ("below", "above")
    asked = holds if rng.random() < 0.5 else other
    word = "Yes" if asked == holds else "No"
    turns = [(f"Is the {a['name']} {asked} the {b['name']}?", f"{word}, the {a['name']} is {holds} the {b['name']}.")]
    if are_all:
        side = {"left of": "on the left", "right of": "on the right", "above": "on top", "below": "below"}[holds]
        turns.append((f"What is {side}?", f"The {a['name']} is {side}."))
    return turns


def make_plural(name: str) -> str:
    """The plural of a singular name: "fox" -> "foxes"."""
    head, _, rest = name.partition(" of ")
    before, _, last = head.rpartition(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join(filter(None, (before, last))) + (f" of {rest}" if rest else "")


def admit_doubt(rng: random.Random) -> Turns:
    """Turns about an image in which nothing is recognized, such as noise or an unknown thing."""
    turns = [(ask_description(rng), rng.choice(UNSURE))]
    turns.append((rng.choice(_HIDDEN), rng.choice(UNKNOWN)))
    turns.append(ask_where_no_text_is(rng))
    return turns


def misread(rng: random.Random) -> str:
    """A description of text or of shapes where there are none, as the towers make one of textures and outlines."""
    way = rng.random()
    parts = (find_wrongly(rng) if way < 0.5 else "", read_wrongly(rng) if way > 0.35 else "")
    return "\n".join(filter(None, parts))


def find_wrongly(rng: random.Random) -> str:
    """A description of one to three shapes that are not there."""
    box = (rng.random(), rng.random(), 1.0, 1.0)
    colour, count = rng.choice(SCENE_COLORS), rng.choice((1, 1, 1, 2, 3))
    shapes = [Drawn(rng.choice(SHAPES), colour if rng.random() < 0.5 else rng.choice(SCENE_COLORS), box)
              for _ in range(count)]  # fmt: skip
    return describe((2, 2), [], shapes)


def read_wrongly(rng: random.Random) -> str:
    """A description of one to three short lines that are not there."""
    letters, lines = "aeoimtO0lI4.,*+-'@()#1SrnG8Q " + string.ascii_lowercase + string.digits, []
    for number in range(1, rng.choice((1, 1, 1, 2, 3)) + 1):
        text = "".join(rng.choice(letters) for _ in range(rng.choice((1, 1, 2, 3, 4, 6)))).strip() or "."
        colours = rng.choice(("", "", f" ({rng.choice(SCENE_COLORS)})", f" (white on {rng.choice(SCENE_COLORS)})"))
        lines.append(f"{number}. {text}{colours}")
    return f"Text ({len(lines)} {'line' if len(lines) == 1 else 'lines'}):\n" + "\n".join(lines)
