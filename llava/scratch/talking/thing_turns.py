"""Questions and answers about views of things, for the features that ``llava.scratch.things`` computes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from llava.scratch.talking.records import NUMBERS, Turns, ask_description, ask_for_missing, pick

ANIMALS = frozenset(
    """animal dog puppy cat wolf fox bear monkey ape rabbit hare squirrel mouse rat hamster horse zebra donkey
    cow bull sheep goat pig deer antelope camel llama elephant rhinoceros hippopotamus whale dolphin seal
    kangaroo bat rodent bird chicken duck goose swan owl parrot penguin eagle pigeon turkey fish shark frog
    lizard snake turtle crocodile dinosaur reptile amphibian insect butterfly moth beetle bee ant fly dragonfly
    grasshopper spider scorpion crab crustacean snail worm jellyfish starfish coral""".split()
) | {"big cat"}
FOODS = frozenset(
    """fruit apple nut vegetable bread cake cookie pastry pizza sandwich soup meat sausage cheese candy
    chocolate dessert pasta egg food dish sauce drink wine mushroom""".split()
) | {"ice cream"}
VEHICLES = frozenset(
    """vehicle car truck bus van motorcycle bicycle train cart boat ship sailboat airplane helicopter airship aircraft
    rocket spacecraft tractor sled""".split()
) | {"race car", "railway car"}
PLANTS = frozenset("plant flower tree leaf cactus grass mushroom".split())
BUILDINGS = frozenset("building house church castle palace temple shop tower".split())
_GROUPS = {"animal": ANIMALS, "vehicle": VEHICLES, "plant": PLANTS, "building": BUILDINGS}
_PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black", "white")
_NO_TEXT = (
    "What does the sign say?",
    "What is written here?",
    "Read the text.",
    "What text is in the image?",
    "Is there any text?",
    "What does it say?",
)
_HIDDEN = (
    "Who took this photo?;What is its name?;How much does it cost?;Where was this taken?;When was this taken?;"
    "How old is it?;Who made it?;What is the phone number?;What time is it?;Who is the owner?;What city is this?;"
    "What brand is it?;How much does it weigh?;What is the name of the person?;Is it raining?;What happened before?"
).split(";")
_UNKNOWN = ("I cannot tell from this image.", "The image does not show that.", "I cannot tell that from the image.")
_UNSURE = (
    "I am not sure what this is.",
    "I cannot tell what this is.",
    "I am not sure what the image shows.",
)


def with_article(name: str) -> str:
    """The name as an object of a sentence; see ``llava.scratch.things.names.with_article``."""
    from llava.scratch.things.names import with_article as add

    return add(name)


def is_plural(name: str) -> bool:
    """Whether the name is a plural; see ``llava.scratch.things.names.is_plural``."""
    from llava.scratch.things.names import is_plural as find

    return find(name)


def talk_about_thing(
    rng: random.Random,
    thing: Mapping[str, Any],
    others: Sequence[str],
    facts: Mapping[str, str],
    *,
    has_place: bool,
) -> Turns:
    """Two to four turns about an image of one thing.

    Args:
        thing: ``name``, ``kind``, and for a view ``colours`` and ``cell``.
        others: names of other things, to ask for what is not there.
        facts: a sentence about a thing by its name, which the language model itself wrote.
    """
    name, kind = thing["name"], thing["kind"]
    noun, many = with_article(name), is_plural(name)
    this, be, it = ("These are", "are", "they") if many else ("This is", "is", "it")
    named = kind and kind != name and kind not in name and not many
    colours = thing.get("colours") or []
    turns: Turns = []
    which = pick(rng, f"{this} {noun}.", f"The image shows {noun}.", f"I see {noun}.")
    if named and rng.random() < 0.6:  # the kind comes first, because it is surer
        which = pick(rng, f"This is {with_article(kind)}, {noun}.", f"The image shows {with_article(kind)}, {noun}.")
    if colours and rng.random() < 0.25 and not many:
        coloured = with_article(f"{colours[0]} {name}") if colours[0] not in name else noun
        which = pick(rng, f"This is {coloured}.", f"The image shows {coloured}.")
    turns.append((ask_description(rng), which))
    later: Turns = []
    if named:
        question = pick(rng, "What kind of thing is this?", f"What kind of {kind} is this?", "What is it?")
        later.append((question, f"It is {with_article(kind)}, {noun}." if "thing" in question else f"It is {noun}."))
    own = [group for group, kinds in _GROUPS.items() if kind in kinds]
    group = rng.choice(own if own and rng.random() < 0.6 else list(_GROUPS))
    inside = kind in _GROUPS[group]
    if inside or rng.random() < 0.4:
        question = pick(rng, "Is this {}?", "Is it {}?", "Do you see {}?").format(with_article(group))
        later.append(
            (question, f"Yes, it is {noun}." if inside else f"No, it is not {with_article(group)}. It is {noun}.")
        )
    if kind in FOODS or rng.random() < 0.1:
        later.append(
            (
                pick(rng, "Can I eat this?", "Is this food?"),
                f"Yes, {noun} {be} food." if kind in FOODS else f"No, {noun} {be} not food.",
            )
        )
    asked = name if rng.random() < 0.45 else rng.choice(list(others))
    held = asked in (name, kind)
    question = pick(rng, "Is there {}?", "Is this {}?", "Do you see {}?", "Is there {} in the image?").format(
        with_article(asked)
    )
    later.append((question, f"Yes, there {be} {noun}." if held else f"No, I see {noun}."))
    if colours:
        subject = "they" if many else f"the {name}" if rng.random() < 0.5 else "it"
        shown = " and ".join(colours[: 2 if rng.random() < 0.4 else 1])
        answer = f"{'They are' if many else f'The {name} is'} {shown}."
        later.append((f"What color {'are' if many else 'is'} {subject}?", answer))
        later.append((f"What is the main color of the {name}?", f"The main color is {colours[0]}."))
    if has_place:
        place = _PLACES[thing["cell"]]
        where = "in the center" if place == "center" else f"in the {place}"
        subject = f"the {name}" if rng.random() < 0.6 else it
        later.append((f"Where {be} {subject}?", f"{'They are' if many else f'The {name} is'} {where} of the image."))
    if rng.random() < 0.35:
        later.append((rng.choice(_NO_TEXT), pick(rng, "I see no text in the image.", "There is no text in the image.")))
    if rng.random() < 0.3:
        later.append((rng.choice(_HIDDEN), rng.choice(_UNKNOWN)))
    missing = ask_for_missing(rng, "")
    if missing and rng.random() < 0.25:
        later.append(missing)
    if name in facts:
        question = pick(
            rng,
            "Tell me more about it.",
            "What can you tell me about it?",
            f"What is {noun}?",
            "What is it used for?" if kind not in ANIMALS else "Tell me about this animal.",
            "Tell me something about it.",
        )
        later.append((question, facts[name]))
        later.append((question, facts[name]))
    rng.shuffle(later)
    turns += later[: rng.randint(1, 3)]
    if rng.random() < 0.25:
        rng.shuffle(turns)
    return turns


def talk_about_view(
    rng: random.Random, view: Mapping[str, Any], others: Sequence[str], facts: Mapping[str, str]
) -> Turns:
    """Turns about a view of ``llava.scratch.things``: one thing, several of the same, or different things."""
    things = view["objects"]
    if len(things) == 1:
        return talk_about_thing(
            rng, things[0], others, facts, has_place=view.get("layout") == "single" or rng.random() < 0.6
        )
    names = [thing["name"] for thing in things]
    turns: Turns = []
    if len(set(names)) == 1:
        count, name = len(things), names[0]
        word = NUMBERS[count] if rng.random() < 0.5 else str(count)
        plural = name if is_plural(name) else make_plural(name)
        turns.append(
            (ask_description(rng), pick(rng, f"There are {word} {plural}.", f"The image shows {word} {plural}."))
        )
        question = pick(
            rng,
            f"How many {plural} are there?",
            "How many things are there?",
            f"How many {plural} do you see?",
            f"Count the {plural}.",
        )
        turns.append((question, f"There are {count} {plural}."))
        if things[0].get("colours"):
            turns.append((f"What color are the {plural}?", f"The {plural} are {things[0]['colours'][0]}."))
        other = rng.choice(list(others))
        turns.append((f"Is there {with_article(other)}?", f"No, I see {word} {plural}."))
        rng.shuffle(turns)
        return turns[:3]
    listed = [with_article(name) for name in dict.fromkeys(names)]
    every = f"{', '.join(listed[:-1])} and {listed[-1]}" if len(listed) > 1 else listed[0]
    turns.append(
        (
            ask_description(rng),
            pick(rng, f"The image shows {every}.", f"I see {every}.", f"There are {len(things)} things: {every}."),
        )
    )
    turns.append(
        (
            pick(rng, "How many things are there?", "How many objects do you see?"),
            f"There are {len(things)} things: {every}.",
        )
    )
    thing = rng.choice(list(things))
    if names.count(thing["name"]) == 1:
        place = _PLACES[thing["cell"]]
        where = "in the center" if place == "center" else f"in the {place}"
        turns.append((f"Where is the {thing['name']}?", f"The {thing['name']} is {where}."))
        turns.append(
            (
                f"What is {where}?" if place != "center" else "What is in the center?",
                f"There is {with_article(thing['name'])} {where}.",
            )
        )
        if thing.get("colours"):
            turns.append((f"What color is the {thing['name']}?", f"The {thing['name']} is {thing['colours'][0]}."))
    a, b = rng.sample(list(things), 2)
    if a["name"] != b["name"]:
        turns += _relate(rng, a, b)
    other = rng.choice(list(others)) if rng.random() < 0.5 else rng.choice(names)
    turns.append(
        (
            pick(rng, "Is there {}?", "Do you see {}?").format(with_article(other)),
            f"Yes, there is {with_article(other)}." if other in names else f"No, I see {every}.",
        )
    )
    first, *rest = turns
    rng.shuffle(rest)
    return [first, *rest[:3]]


def _relate(rng: random.Random, a: Mapping[str, Any], b: Mapping[str, Any]) -> Turns:
    across = sum(a["box"][::2]) - sum(b["box"][::2])
    down = sum(a["box"][1::2]) - sum(b["box"][1::2])
    if max(abs(across), abs(down)) < 0.3:
        return []
    if abs(across) > abs(down):
        holds, other = ("left of", "right of") if across < 0 else ("right of", "left of")
    else:
        holds, other = ("above", "below") if down < 0 else ("below", "above")
    asked = holds if rng.random() < 0.5 else other
    word = "Yes" if asked == holds else "No"
    turns = [(f"Is the {a['name']} {asked} the {b['name']}?", f"{word}, the {a['name']} is {holds} the {b['name']}.")]
    side = {"left of": "on the left", "right of": "on the right", "above": "on top", "below": "below"}[holds]
    turns.append((f"What is {side}?", f"The {a['name']} is {side}."))
    return turns


def make_plural(name: str) -> str:
    """The plural of a singular name: "fox" -> "foxes"."""
    head, _, rest = name.partition(" of ")
    known = {
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
    before, _, last = head.rpartition(" ")
    if last in known:
        last = known[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join(filter(None, (before, last))) + (f" of {rest}" if rest else "")


def admit_doubt(rng: random.Random) -> Turns:
    """Turns about an image in which nothing is recognized, such as noise or an unknown thing."""
    turns = [(ask_description(rng), rng.choice(_UNSURE))]
    turns.append((rng.choice(_HIDDEN), rng.choice(_UNKNOWN)))
    turns.append((rng.choice(_NO_TEXT), "I see no text in the image."))
    return turns[: rng.randint(1, 3)]


def misread(rng: random.Random) -> str:
    """A description of text where there is none, as the reader makes one of textures: short and senseless."""
    letters, lines = "aeoimtO0lI4.,*+-'@()#1SrnG8Q ", []
    for number in range(1, rng.choice((1, 1, 1, 2, 3)) + 1):
        text = "".join(rng.choice(letters) for _ in range(rng.choice((1, 1, 2, 3, 4, 6)))).strip() or "."
        colours = rng.choice(("", " (white on black)", " (white)", " (green)", " (white on brown)"))
        lines.append(f"{number}. {text}{colours}")
    return f"Text ({len(lines)} {'line' if len(lines) == 1 else 'lines'}):\n" + "\n".join(lines)
