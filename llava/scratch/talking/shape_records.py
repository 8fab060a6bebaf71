"""Records of drawn objects: which there are, their colours, how many, where, and in which order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llava.model.lexical.description import (
    MOST_RELATED,
    PLACES,
    describe,
    find_relations,
    find_sizes,
    name_place,
    name_several,
    say_place,
)
from llava.model.lexical.nouns import add_article
from llava.scratch.talking.seen_records import (
    Drawn,
    Record,
    ask_description,
    ask_for_option,
    ask_unknown,
    ask_where_no_text_is,
    pick,
)
from llava.synth.drawing import SHAPES
from llava.synth.scene import SCENE_COLORS
from llava.text import list_all

# In this share of the comparisons a word is asked for, so that what is looked up is the first thing that is said.
_SHORT_SHARE = 0.5
# Words for the largest and for the smallest object; of two, also those that compare them.
_LARGE, _SMALL = ("largest", "biggest"), ("smallest", "tiniest")
_COMPARED = {_LARGE: ("larger", "bigger", "big", "large"), _SMALL: ("smaller", "small", "little")}

_OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True)
class _Scene:
    """The objects that were found on an image of ``size`` (width, height) px."""

    seen: Sequence[Drawn]
    size: tuple[int, int]

    @property
    def names(self) -> list[str]:
        return [_name(one) for one in self.seen]

    @property
    def kinds(self) -> list[str]:
        return [one.kind for one in self.seen]

    @property
    def colours(self) -> list[str]:
        return [one.colour for one in self.seen]

    def sort(self, axis: int) -> list[Drawn]:
        """The objects by their middles, from left to right (axis 0) or from top to bottom (1)."""
        return sorted(self.seen, key=lambda one: one.box[axis] + one.box[axis + 2])


def draw_shapes_record(rng: random.Random) -> Record:
    """One to eight drawn objects, and questions about what, where, how many and in which order."""
    size = (rng.randint(100, 1500), rng.randint(100, 1200))
    count = rng.choice((1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8))
    few = [(rng.choice(SCENE_COLORS), rng.choice(SHAPES)) for _ in range(rng.choice((2, 3, 8, 8)))]
    scene = _place(rng, size, [rng.choice(few) for _ in range(count)])
    record = Record("shapes", describe(size, [], scene.seen))
    for ask in _QUESTIONS:
        ask(rng, record, scene)
    if rng.random() < 0.3:
        record.ask(*ask_where_no_text_is(rng))
    ask_unknown(rng, record, rate=0.15)
    return record.shorten(rng, 12)


def draw_comparison_record(rng: random.Random) -> Record:
    """Two to five different objects, and questions whose answer is one word: how two lie to each other, or which of
    several options is right. A word is little to learn from, so there are as many of them as fit.
    """
    size = (rng.randint(100, 1500), rng.randint(100, 1200))
    count = rng.choice((2, 2, 2, 3, 3, 4))
    scene = _place(rng, size, list(zip(rng.sample(SCENE_COLORS, count), rng.sample(SHAPES, count), strict=True)))
    record = Record("shapes", describe(size, [], scene.seen))
    for _ in range(14):
        ask = rng.choices((_ask_relation, _ask_how_two_lie, _ask_which_of_two, _ask_option), (0.45, 0.3, 0.1, 0.15))[0]
        ask(rng, record, scene)
    return record.shorten(rng).ask_shortly(rng, _SHORT_SHARE)


def _place(rng: random.Random, size: tuple[int, int], named: Sequence[tuple[str, str]]) -> _Scene:
    """Objects with these colours and kinds, anywhere on an image of ``size`` px."""
    seen = []
    for colour, kind in named:
        x, y, r = rng.uniform(0.1, 0.9) * size[0], rng.uniform(0.1, 0.9) * size[1], rng.uniform(5, 80)
        seen.append(Drawn(kind, colour, (x - r, y - r, x + r, y + r)))
    return _Scene(seen, size)


def _name(seen: Drawn) -> str:
    return f"{seen.colour} {seen.kind}"


def _ask_what(rng: random.Random, record: Record, scene: _Scene) -> None:
    one = rng.choice(scene.seen)
    if scene.kinds.count(one.kind) == 1 and rng.random() < 0.5:
        question = pick(rng, "What color is the {}?", "What is the color of the {}?", "Which color does the {} have?")
        record.ask(question.format(one.kind), f"The {one.kind} is {one.colour}.", one.colour.capitalize())
    elif scene.colours.count(one.colour) == 1:
        question = pick(rng, "What shape is the {} object?", "What is the {} object?", "Which shape is {}?")
        record.ask(
            question.format(one.colour), f"The {one.colour} object is {add_article(one.kind)}.", one.kind.capitalize()
        )


def _ask_where(rng: random.Random, record: Record, scene: _Scene) -> None:
    one = rng.choice(scene.seen)
    place = name_place(one.box, scene.size)
    ways = [(_name(one), scene.names.count(_name(one))), (one.kind, scene.kinds.count(one.kind))]
    ways += [(f"{one.colour} object", scene.colours.count(one.colour))]
    unique = [name for name, count in ways if count == 1]
    if unique and rng.random() < 0.75:
        name = rng.choice(unique)
        question = pick(
            rng, "Where is the {}?", "Where in the image is the {}?", "In which part of the image is the {}?"
        )
        record.ask(question.format(name), f"The {name} is {say_place(place)}.", place.capitalize())
    else:
        _ask_what_is_there(rng, record, scene, place)


def _ask_what_is_there(rng: random.Random, record: Record, scene: _Scene, place: str) -> None:
    where = say_place(place)
    there = [other for other in scene.seen if name_place(other.box, scene.size) == place]
    question = pick(rng, "What is {}?", "What do you see {}?", "Which object is {}?", "What's {}?").format(where)
    record.ask(question, f"{where.capitalize()} there is {list_all([add_article(_name(one)) for one in there])}.")
    if len(there) > 1:
        return
    [one] = there
    same = rng.choice((one.kind, "shape", "object"))
    question = pick(rng, "What color is the {} {}?", "Which color does the {} {} have?").format(same, where)
    record.ask(question, f"The {same} {where} is {one.colour}.")
    question = pick(rng, "What shape is {}?", "What kind of shape is {}?", "Which shape is {}?").format(where)
    record.ask(question, f"The shape {where} is {add_article(one.kind)}.")


def _ask_sizes(rng: random.Random, record: Record, scene: _Scene) -> None:
    """Which object is clearly larger or smaller than all others."""
    for i, words in zip(find_sizes([one.box for one in scene.seen]), (_LARGE, _SMALL), strict=True):
        if i is None:
            continue
        one, most = scene.seen[i], rng.choice(words)
        word = most if len(scene.seen) > 2 or rng.random() < 0.3 else rng.choice(_COMPARED[words])
        what = pick(rng, "shape", "object")
        question = pick(
            rng, "Which {} is the {}?", "What is the {1} {0}?", "Which one is the {1}?", "What's the {1} one?"
        )
        record.ask(question.format(what, most), f"The {most} {what} is the {_name(one)}.")
        question = pick(rng, "What color is the {} {}?", "Which color does the {} {} have?").format(word, what)
        record.ask(question, f"The {word} {what} is {one.colour}.")
        record.ask(f"What shape is the {word} one?", f"The {word} one is {add_article(one.kind)}.")


def _ask_around(rng: random.Random, record: Record, scene: _Scene) -> None:
    """What is left of, right of, above or below one of up to three objects."""
    alone = [one for one in scene.seen if scene.names.count(_name(one)) == 1]
    if not alone or not 1 < len(scene.seen) <= MOST_RELATED:
        return
    one = rng.choice(alone)
    name = one.kind if scene.kinds.count(one.kind) == 1 and rng.random() < 0.5 else _name(one)
    way = rng.choice(tuple(_OPPOSITES))
    there = [
        other for other in scene.seen if other is not one and way in find_relations(other.box, one.box, scene.size)
    ]
    where = f"to the {way} the {name}" if way.endswith("of") and rng.random() < 0.4 else f"{way} the {name}"
    question = pick(rng, "What is {}?", "What is {}?", "Which shape is {}?", "Which object is {}?", "What's {}?")
    listed = list_all([f"the {_name(other)}" for other in there]) if there else "nothing"
    record.ask(
        question.format(where),
        f"{where.capitalize()} is {listed}.",
        _name(there[0]).capitalize() if len(there) == 1 else "",
    )
    if len(there) == 1:
        record.ask(f"What color is the shape {where}?", f"The shape {where} is {there[0].colour}.")


def _ask_existence(rng: random.Random, record: Record, scene: _Scene) -> None:
    names, kinds, colours = sorted(set(scene.names)), sorted(set(scene.kinds)), sorted(set(scene.colours))
    way = rng.randrange(3)
    if way == 0:
        name = rng.choice(names)
        if rng.random() < 0.5:
            name = f"{rng.choice(colours)} {rng.choice(SHAPES)}"
        if rng.random() < 0.25:
            name = f"{rng.choice(SCENE_COLORS)} {rng.choice(kinds)}"
        holds = name in names
    elif way == 1:
        name = rng.choice(kinds if rng.random() < 0.5 else SHAPES)
        holds = name in kinds
    else:
        colour = rng.choice(colours if rng.random() < 0.5 else SCENE_COLORS)
        name, holds = f"{colour} object", colour in colours
    question = pick(rng, "Is there {}?", "Is there {} in the image?", "Do you see {}?", "Can you see {}?")
    answer = f"Yes, there is {add_article(name)}." if holds else f"No, there is no {name}."
    record.ask(question.format(add_article(name)), answer, "Yes" if holds else "No")


def _ask_how_many(rng: random.Random, record: Record, scene: _Scene) -> None:
    way = rng.randrange(3)
    ways = ("How many {} are there?", "How many {} do you see?", "Count the {}.")
    if way == 0:
        what, count = rng.choice(("object", "shape", "object")), len(scene.seen)
        ways = ("How many {} are there?", "How many {} are in the picture?", "Count the {}.")
    elif way == 1:
        colour = rng.choice(scene.colours if rng.random() < 0.8 else SCENE_COLORS)
        what, count = f"{colour} object", scene.colours.count(colour)
    else:
        what = rng.choice(scene.kinds if rng.random() < 0.8 else SHAPES)
        count = scene.kinds.count(what)
        ways = ("How many {} are there?", "How many {} do you see?", "How many {} are in the image?")
    plural = name_several(what)
    answer = f"There is 1 {what}." if count == 1 else f"There are {count or 'no'} {plural}."
    record.ask(pick(rng, *ways).format(plural), answer, str(count))


def _ask_relation(rng: random.Random, record: Record, scene: _Scene) -> None:
    a, b, relations = _draw_two(rng, scene)
    if not relations:
        return
    holds = rng.choice(relations)
    asked = holds if rng.random() < 0.5 else _OPPOSITES[holds]
    way = f"to the {asked}" if rng.random() < 0.3 and asked.endswith("of") else asked
    word = "Yes" if asked == holds else "No"
    first, second = _name_both(rng, scene, a, b)
    record.ask(f"Is the {first} {way} the {second}?", f"{word}, the {first} is {holds} the {second}.", word)


def _draw_two(rng: random.Random, scene: _Scene) -> tuple[Drawn, Drawn, list[str]]:
    """Two objects whose names no other has, and how the first lies to the second; the same one twice without two."""
    single = [one for one in scene.seen if scene.names.count(_name(one)) == 1]
    a, b = rng.sample(single, 2) if len(single) > 1 else (scene.seen[0], scene.seen[0])
    return a, b, find_relations(a.box, b.box, scene.size)


def _name_both(rng: random.Random, scene: _Scene, a: Drawn, b: Drawn) -> tuple[str, str]:
    """Two objects' names, sometimes without the colours where each is the only one of its kind."""
    are_alone = scene.kinds.count(a.kind) == 1 and scene.kinds.count(b.kind) == 1
    return (a.kind, b.kind) if are_alone and rng.random() < 0.4 else (_name(a), _name(b))


def _ask_how_two_lie(rng: random.Random, record: Record, scene: _Scene) -> None:
    """How one object lies to another: openly, or as one of two ways. Learnt from yes and no alone, the words after the
    first follow from it, and nothing has to be looked up.
    """
    a, b, relations = _draw_two(rng, scene)
    if not relations:
        return
    holds = rng.choice(relations)
    ways = [holds, _OPPOSITES[holds]]
    rng.shuffle(ways)
    ways = [f"to the {way}" if way.endswith("of") and rng.random() < 0.3 else way for way in ways]
    first, second = _name_both(rng, scene, a, b)
    either = f"{ways[0].removesuffix(' of')} or {ways[1]}"
    question = f"Is the {first} {either} the {second}?"
    if len(relations) == 1 and rng.random() < 0.4:
        question = pick(
            rng,
            "Where is the {} relative to the {}?",
            "Where is the {}, seen from the {}?",
            "How does the {} lie to the {}?",
        ).format(first, second)
    record.ask(question, f"The {first} is {holds} the {second}.", holds.removesuffix(" of").capitalize())


_FARTHER = (
    ("left of", ("is farther left", "is more to the left", "is on the left", "comes first from the left")),
    ("right of", ("is farther right", "is more to the right", "is on the right")),
    ("above", ("is higher up", "is higher in the image", "is nearer to the top", "is above the other")),
    ("below", ("is lower down", "is lower in the image", "is nearer to the bottom", "is below the other")),
)


def _ask_which_of_two(rng: random.Random, record: Record, scene: _Scene) -> None:
    """Which of two objects is farther to a side, or the larger one where one of them is the largest or smallest."""
    a, b, relations = _draw_two(rng, scene)
    if a is b:
        return
    options = f"{_name(a)} or the {_name(b)}"
    if a.kind == b.kind and rng.random() < 0.7:
        options = f"{a.colour} {a.kind} or the {b.colour} one"
    largest, smallest = find_sizes([one.box for one in scene.seen])
    sized = [
        (scene.seen[i], words)
        for i, words in ((largest, ("larger", "bigger")), (smallest, ("smaller",)))
        if i is not None and any(scene.seen[i] is one for one in (a, b))
    ]
    if sized and rng.random() < 0.6:
        one, sizes = rng.choice(sized)
        word = rng.choice(sizes)
        question = pick(rng, "Which is {}, the {}?", "What is {}, the {}?", "Which one is {}: the {}?")
        record.ask(question.format(word, options), f"The {_name(one)} is {word}.", _name(one).capitalize())
        return
    ways = [each for each in _FARTHER if each[0] in relations]
    if ways:
        name, comparisons = rng.choice(ways)
        word = rng.choice(comparisons)
        record.ask(
            f"Which {word}, the {options}?", f"The {_name(a)}: it is {name} the {_name(b)}.", _name(a).capitalize()
        )


def _ask_order(rng: random.Random, record: Record, scene: _Scene) -> None:
    axis = rng.randrange(2)
    ordered = scene.sort(axis)
    if rng.random() < 0.5:
        order = ("left to right", "top to bottom")[axis]
        listed = list_all([_name(one) for one in ordered])
        record.ask(f"List the objects from {order}.", f"{listed}.".capitalize())
        return
    is_last = rng.random() < 0.5
    word = (("leftmost", "rightmost"), ("topmost", "bottommost"))[axis][is_last]
    far = (("farthest left", "farthest right"), ("at the very top", "at the very bottom"))[axis][is_last]
    question = pick(rng, f"What is the {word} object?", f"Which object is {far}?")
    record.ask(question, f"The {word} object is the {_name(ordered[-1 if is_last else 0])}.")


def _ask_option(rng: random.Random, record: Record, scene: _Scene) -> None:
    unique = [one for one in scene.seen if scene.kinds.count(one.kind) == 1]
    if not unique:
        return
    one = rng.choice(unique)
    way = rng.randrange(4)
    if way == 0 and scene.colours.count(one.colour) == 1:
        ask_for_option(rng, record, f"What is the {one.colour} object?", one.kind, SHAPES)
    elif way == 1:
        place = name_place(one.box, scene.size)
        ask_for_option(rng, record, f"Where is the {one.kind}?", place, PLACES)
    else:
        ask_for_option(rng, record, f"What color is the {one.kind}?", one.colour, SCENE_COLORS)
    counted = [str(count) for count in range(1, 10)]
    ask_for_option(rng, record, "How many objects are there?", str(len(scene.seen)), counted)


def _describe(rng: random.Random, record: Record, scene: _Scene) -> None:
    listed = [f"{add_article(_name(s))} {say_place(name_place(s.box, scene.size))}" for s in scene.sort(0)][:6]
    start = pick(rng, "The image shows", "I see", "There is" if len(listed) == 1 else "There are")
    record.ask(ask_description(rng), f"{start} {list_all(listed)}.")


_QUESTIONS: tuple[Callable[[random.Random, Record, _Scene], None], ...] = (
    _ask_what,
    *[_ask_where] * 2,
    *[_ask_existence] * 2,
    *[_ask_how_many] * 3,
    *[_ask_relation] * 2,
    *[_ask_how_two_lie] * 2,
    _ask_which_of_two,
    *[_ask_around] * 2,
    _ask_sizes,
    _ask_order,
    *[_ask_option] * 2,
    _describe,
)
