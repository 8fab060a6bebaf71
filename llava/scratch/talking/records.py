"""Images as they are written down, with questions and answers: what the image adapter learns from. Nothing is drawn.

A record holds what the towers would have seen of an image (lines of text, drawn objects, a chart) and turns about it.
Answers are sentences, and hold a value exactly as the image has it. What the image does not hold is asked for, too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llava.model.lexical.description import Bar, ChartTable, describe, join_rows, name_place
from llava.synth import words
from llava.synth.drawing import SHAPES
from llava.synth.scene import SCENE_COLORS, article

Turns = list[tuple[str, str]]


class Line(NamedTuple):
    """A line of text that was read."""

    text: str
    box: tuple[float, float, float, float]
    ink: str = "black"
    ground: str = "white"


class Drawn(NamedTuple):
    """An object that was found."""

    kind: str
    colour: str
    box: tuple[float, float, float, float]


@dataclass
class Record:
    """What was seen of an image, and what is said about it. ``look``: the kind of image, for its things."""

    look: str
    description: str
    turns: Turns = field(default_factory=list)


ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLATES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black", "white")
SIGNS = (
    "STOP;EXIT;OPEN;CLOSED;PUSH;PULL;NO PARKING;FOR SALE;WET FLOOR;SALE;DANGER;KEEP OUT;NO SMOKING;ONE WAY;YIELD;"
    "WAY OUT;TOILETS;BUS STOP;TAXI;CAFE;BAKERY;PHARMACY;MUSEUM;LIBRARY;HOTEL;BOOKS;FRESH FRUIT;COFFEE;PIZZA;ICE CREAM;"
    "Welcome;Thank you;Mind the gap;Do not enter;Please wait here;Staff only;Beware of the dog;Ring the bell;"
    "Reserved;Private property;Happy birthday;Good luck;Caution;Speed limit 50;Gate 12;Platform 4;Room 101;Exit 23;"
    "Emergency exit;Fire exit;Free Wi-Fi;No entry;Slow down;School zone;Lost dog;Garage sale;Open 24 hours;Back soon;"
    "Tickets;Information;Main Street;Park Avenue;Market Square;Station Road;North Bridge;Lake View;Elm Street"
).split(";")
FIRST_NAMES = (
    "Anna Ben Carla David Elena Frank Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paula Robert Sara Thomas Uma "
    "Victor Wendy James Emma Lucas Olivia Peter Laura Daniel Sophie"
).split()
LAST_NAMES = (
    "Smith Jones Brown Miller Davis Wilson Moore Taylor Clark Lewis Walker Hall Young King Wright Hill Green Baker "
    "Carter Mitchell Turner Parker Evans Collins Stewart Morris Rogers Reed Cook Bell Murphy Bailey Cooper Ward"
).split()
CITIES = (
    "London Paris Berlin Madrid Rome Vienna Oslo Boston Chicago Denver Austin Seattle Dublin Lisbon Prague Athens "
    "Toronto Sydney Tokyo Delhi Cairo Lima Geneva Milan Bristol Leeds Utrecht Porto Krakow Bergen"
).split()
_SHOPS = ("Market", "Cafe", "Bakery", "Grocery", "Deli", "Store", "Kitchen", "Books", "Bistro", "Supermarket", "Shop")
ITEMS = (
    "Bread Milk Tea Coffee Cake Soup Rice Fish Eggs Salt Juice Apple Apples Pear Plums Lemon Pasta Pizza Salad Honey "
    "Cheese Butter Beans Corn Nuts Pie Jam Water Soda Sugar Flour Ham Beef Pork Lamb Curry Toast Bagel Muffin Cookies "
    "Tuna Espresso Latte Sandwich Burger Fries Yogurt Tomatoes Potatoes Onions Bananas Oranges Grapes Chicken Cereal "
    "Shampoo Soap Napkins Batteries Candles Notebook Pens Umbrella"
).split() + [
    "Orange juice",
    "Green tea",
    "Olive oil",
    "Ice cream",
    "Hot dog",
    "Red wine",
    "Tomato soup",
    "Peanut butter",
]
_KEYS: dict[str, Callable[[random.Random], str]] = {
    "Name": lambda r: f"{r.choice(FIRST_NAMES)} {r.choice(LAST_NAMES)}",
    "Full name": lambda r: f"{r.choice(FIRST_NAMES)} {r.choice(LAST_NAMES)}",
    "City": lambda r: r.choice(CITIES),
    "Country": lambda r: r.choice(("France", "Spain", "Italy", "Canada", "Japan", "India", "Norway", "Brazil", "Peru")),
    "Date": words.draw_date,
    "Date of birth": words.draw_date,
    "Phone": lambda r: draw_phone(r),
    "Telephone": lambda r: draw_phone(r),
    "Age": lambda r: str(r.randint(18, 90)),
    "Code": words.draw_code,
    "Room": lambda r: r.choice((str(r.randint(1, 499)), words.draw_code(r))),
    "Street": lambda r: f"{r.choice(LAST_NAMES)} {r.choice(('Street', 'Road', 'Lane'))} {r.randint(1, 99)}",
    "Address": lambda r: f"{r.randint(1, 199)} {r.choice(LAST_NAMES)} {r.choice(('Street', 'Avenue', 'Road'))}",
    "Email": lambda r: draw_mail(r),
    "Item": lambda r: r.choice(ITEMS),
    "Number": words.draw_number,
    "Price": words.draw_price,
    "Order": words.draw_code,
    "Order number": words.draw_number,
    "Invoice": words.draw_code,
    "Status": lambda r: r.choice(("paid", "open", "shipped", "closed", "pending", "active", "ready")),
    "Owner": lambda r: f"{r.choice(FIRST_NAMES)} {r.choice(LAST_NAMES)}",
    "Team": lambda r: r.choice(("Red", "Blue", "North", "South", "Eagles", "Lions", "Alpha")),
    "Year": lambda r: str(r.randint(1950, 2040)),
    "Floor": lambda r: str(r.randint(0, 30)),
    "Seat": lambda r: f"{r.randint(1, 40)}{r.choice('ABCDEF')}",
    "Gate": lambda r: f"{r.choice('ABCDE')}{r.randint(1, 40)}",
    "Flight": lambda r: f"{r.choice(('LH', 'BA', 'AF', 'KL', 'UA'))}{r.randint(100, 9999)}",
    "Train": lambda r: f"{r.choice(('IC', 'RE', 'EC'))} {r.randint(10, 999)}",
    "Time": lambda r: draw_time(r),
    "Weight": lambda r: f"{r.randint(1, 99)} {r.choice(('kg', 'g', 'lb'))}",
    "Height": lambda r: f"{r.randint(100, 210)} cm",
    "Size": lambda r: r.choice(("S", "M", "L", "XL", "38", "42")),
    "Speed": lambda r: f"{r.randint(5, 200)} km/h",
    "Score": words.draw_number,
    "Class": lambda r: f"{r.randint(1, 12)}{r.choice('ABC')}",
    "Amount": words.draw_price,
    "Balance": words.draw_price,
    "Total": words.draw_price,
    "Due date": words.draw_date,
    "Model": words.draw_code,
    "Department": lambda r: r.choice(("Sales", "Finance", "Support", "Research", "Design")),
    "Job title": lambda r: r.choice(("Engineer", "Manager", "Teacher", "Nurse", "Designer", "Analyst")),
    "Website": lambda r: f"www.{words.draw_word(r, False).lower()}.com",
}
_UNKNOWN = ("I cannot tell from this image.", "The image does not show that.", "I cannot tell that from the image.")


def draw_phone(rng: random.Random) -> str:
    """A telephone number in one of several forms."""
    digits = "".join(str(rng.randrange(10)) for _ in range(7))
    return rng.choice(
        (f"555-{digits[:4]}", f"+44 20 {digits}", f"({digits[:3]}) {digits[3:]}", f"0{digits[:3]} {digits[3:]}")
    )


def draw_mail(rng: random.Random) -> str:
    """An e-mail address."""
    place = rng.choice(("example.com", "mail.com", "post.org", f"{words.draw_word(rng, False).lower()}.net"))
    return f"{rng.choice(('info', rng.choice(FIRST_NAMES).lower(), 'office', 'sales'))}@{place}"


def draw_time(rng: random.Random) -> str:
    """A time of day."""
    hour, minute = rng.randrange(24), rng.choice((0, 15, 30, 45, rng.randrange(60)))
    return rng.choice(
        (f"{hour}:{minute:02d}", f"{hour:02d}:{minute:02d}", f"{hour % 12 or 12} {rng.choice(('am', 'pm'))}")
    )


def pick(rng: random.Random, *ways: str) -> str:
    """One of several ways to say something."""
    return rng.choice(ways)


def say(rng: random.Random, text: str) -> str:
    """A text as it is quoted in an answer."""
    return rng.choice((f'"{text}"', text, text))


# --- shapes ---------------------------------------------------------------------------------------------------------


def draw_shapes_record(rng: random.Random) -> Record:
    """One to eight drawn objects, and questions about what, where, how many and in which order."""
    size = (rng.randint(100, 1500), rng.randint(100, 1200))
    count = rng.choice((1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8))
    few = [(rng.choice(SCENE_COLORS), rng.choice(SHAPES)) for _ in range(rng.choice((2, 3, 8, 8)))]
    seen = []
    for _ in range(count):
        colour, kind = rng.choice(few)
        x, y, r = rng.uniform(0.1, 0.9) * size[0], rng.uniform(0.1, 0.9) * size[1], rng.uniform(5, 80)
        seen.append(Drawn(kind, colour, (x - r, y - r, x + r, y + r)))
    record = Record("shapes", describe(size, [], seen))
    makers = [_ask_what, _ask_where, _ask_existence, _ask_how_many, _ask_how_many, _ask_relation, _ask_order, _describe]
    makers += [_ask_relation, _ask_option, _ask_where]
    for make in rng.sample(makers, 5):
        make(rng, record.turns, seen, size)
    if rng.random() < 0.3:
        question = pick(rng, "What does it say?", "Is there any text?", "Read the text.")
        record.turns.append((question, "I see no text in the image."))
    ask_unknown(rng, record.turns, record.description, rate=0.15)
    return shorten(rng, record)


def _named(seen: Drawn) -> str:
    return f"{seen.colour} {seen.kind}"


def _a(name: str) -> str:
    return f"{article(name)} {name}"


def _plural(kind: str) -> str:
    return "crosses" if kind == "cross" else kind + "s"


def _ask_what(rng: random.Random, turns: Turns, seen: Sequence[Drawn], size: tuple[int, int]) -> None:
    kinds, colours = [s.kind for s in seen], [s.colour for s in seen]
    one = rng.choice(list(seen))
    if kinds.count(one.kind) == 1 and rng.random() < 0.5:
        question = pick(rng, "What color is the {}?", "What is the color of the {}?", "Which color does the {} have?")
        turns.append((question.format(one.kind), f"The {one.kind} is {one.colour}."))
    elif colours.count(one.colour) == 1:
        question = pick(rng, "What shape is the {} object?", "What is the {} object?", "Which shape is {}?")
        turns.append((question.format(one.colour), f"The {one.colour} object is {_a(one.kind)}."))


def _ask_where(rng: random.Random, turns: Turns, seen: Sequence[Drawn], size: tuple[int, int]) -> None:
    names = [_named(s) for s in seen]
    one = rng.choice(list(seen))
    place = name_place(one.box, size)
    where = "in the center" if place == "center" else f"in the {place}"
    ways = [(_named(one), names.count(_named(one)))]
    ways += [(one.kind, [s.kind for s in seen].count(one.kind))]
    ways += [(f"{one.colour} object", [s.colour for s in seen].count(one.colour))]
    unique = [name for name, count in ways if count == 1]
    if unique and rng.random() < 0.75:
        name = rng.choice(unique)
        question = pick(
            rng, "Where is the {}?", "Where in the image is the {}?", "In which part of the image is the {}?"
        )
        turns.append((question.format(name), f"The {name} is {where}."))
        return
    there = [_a(_named(s)) for s in seen if name_place(s.box, size) == place]
    turns.append((f"What is in the {place}?", f"In the {place} there is {list_all(there)}."))


def list_all(items: Sequence[str]) -> str:
    """Items as a list in a sentence."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _ask_existence(rng: random.Random, turns: Turns, seen: Sequence[Drawn], size: tuple[int, int]) -> None:
    names, kinds, colours = {_named(s) for s in seen}, {s.kind for s in seen}, {s.colour for s in seen}
    way = rng.randrange(3)
    if way == 0:
        name = rng.choice(sorted(names))
        if rng.random() < 0.5:
            name = f"{rng.choice(sorted(colours))} {rng.choice(SHAPES)}"
        if rng.random() < 0.25:
            name = f"{rng.choice(SCENE_COLORS)} {rng.choice(sorted(kinds))}"
        held = name in names
    elif way == 1:
        name = rng.choice(sorted(kinds)) if rng.random() < 0.5 else rng.choice(SHAPES)
        held = name in kinds
    else:
        name = f"{rng.choice(sorted(colours)) if rng.random() < 0.5 else rng.choice(SCENE_COLORS)} object"
        held = name.split()[0] in colours
    question = pick(rng, "Is there {}?", "Is there {} in the image?", "Do you see {}?", "Can you see {}?").format(
        _a(name)
    )
    turns.append((question, f"Yes, there is {_a(name)}." if held else f"No, there is no {name}."))


def _ask_how_many(rng: random.Random, turns: Turns, seen: Sequence[Drawn], size: tuple[int, int]) -> None:
    way = rng.randrange(3)
    if way == 0:
        what, count = rng.choice(("objects", "shapes", "objects")), len(seen)
        ways = ("How many {} are there?", "How many {} are in the picture?", "Count the {}.")
    elif way == 1:
        colour = rng.choice([s.colour for s in seen]) if rng.random() < 0.8 else rng.choice(SCENE_COLORS)
        what, count = f"{colour} objects", [s.colour for s in seen].count(colour)
        ways = ("How many {} are there?", "How many {} do you see?", "Count the {}.")
    else:
        kind = rng.choice([s.kind for s in seen]) if rng.random() < 0.8 else rng.choice(SHAPES)
        what, count = _plural(kind), [s.kind for s in seen].count(kind)
        ways = ("How many {} are there?", "How many {} do you see?", "How many {} are in the image?")
    verb, noun = ("is", what[:-2] if what == "crosses" else what[:-1]) if count == 1 else ("are", what)
    turns.append((pick(rng, *ways).format(what), f"There {verb} {count or 'no'} {noun}."))


def _ask_relation(rng: random.Random, turns: Turns, seen: Sequence[Drawn], size: tuple[int, int]) -> None:
    names = [_named(s) for s in seen]
    single = [s for s in seen if names.count(_named(s)) == 1]
    if len(single) < 2:
        return
    a, b = rng.sample(single, 2)
    across, down = a.box[0] + a.box[2] - b.box[0] - b.box[2], a.box[1] + a.box[3] - b.box[1] - b.box[3]
    if max(abs(across), abs(down)) < 0.1 * min(size):
        return
    if abs(across) > abs(down):
        holds = "left of" if across < 0 else "right of"
    else:
        holds = "above" if down < 0 else "below"
    other = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[holds]
    asked = holds if rng.random() < 0.5 else other
    stated = {"left of": "to the left of", "right of": "to the right of"}.get(asked, asked)
    way = stated if rng.random() < 0.3 else asked
    answer = f"Yes, the {_named(a)} is {asked} the {_named(b)}."
    if asked != holds:
        answer = f"No, the {_named(a)} is {holds} the {_named(b)}."
    turns.append((f"Is the {_named(a)} {way} the {_named(b)}?", answer))


def _ask_order(rng: random.Random, turns: Turns, seen: Sequence[Drawn], size: tuple[int, int]) -> None:
    axis = rng.randrange(2)
    ordered = sorted(seen, key=lambda s: s.box[axis] + s.box[axis + 2])
    order = ("left to right", "top to bottom")[axis]
    if rng.random() < 0.5:
        turns.append((f"List the objects from {order}.", f"{list_all([_named(s) for s in ordered])}.".capitalize()))
        return
    end = rng.randrange(2)
    word = (("leftmost", "rightmost"), ("topmost", "bottommost"))[axis][end]
    far = (("farthest left", "farthest right"), ("at the very top", "at the very bottom"))[axis][end]
    question = pick(rng, f"What is the {word} object?", f"Which object is {far}?")
    turns.append((question, f"The {word} object is the {_named(ordered[-end])}."))


def _ask_option(rng: random.Random, turns: Turns, seen: Sequence[Drawn], size: tuple[int, int]) -> None:
    kinds = [s.kind for s in seen]
    unique = [s for s in seen if kinds.count(s.kind) == 1]
    if not unique:
        return
    one = rng.choice(unique)
    options = rng.sample([c for c in SCENE_COLORS if c != one.colour], 3) + [one.colour]
    rng.shuffle(options)
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    turns.append(
        (
            f"What color is the {one.kind}?\n{listed}\n"
            "Answer with the option's letter from the given choices directly.",
            "ABCD"[options.index(one.colour)],
        )
    )


def _describe(rng: random.Random, turns: Turns, seen: Sequence[Drawn], size: tuple[int, int]) -> None:
    listed = [f"{_a(_named(s))} in the {name_place(s.box, size)}" for s in sorted(seen, key=lambda s: s.box[0])][:6]
    start = pick(rng, "The image shows", "I see", "There is" if len(listed) == 1 else "There are")
    turns.append((ask_description(rng), f"{start} {list_all(listed)}."))


def ask_description(rng: random.Random) -> str:
    """A request for a description."""
    return pick(
        rng,
        "Describe the image.",
        "Describe the picture.",
        "What is in the picture?",
        "What do you see?",
        "What is in this image?",
        "What does the image show?",
        "What is this?",
        "Describe this image in one sentence.",
        "What is shown here?",
    )


# --- text -----------------------------------------------------------------------------------------------------------


def draw_text(rng: random.Random) -> str:
    """The text of a line: a sign's words, a word, a name, a number, a code, a price."""
    way = rng.random()
    if way < 0.25:
        text = rng.choice(SIGNS)
        return text.upper() if rng.random() < 0.3 else text
    if way < 0.4:
        return " ".join(words.draw_word(rng, False).lower() for _ in range(rng.randint(2, 5))).capitalize()
    if way < 0.5:
        return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
    return words.draw_content(rng, False, 12)


def draw_sign_record(rng: random.Random) -> Record:
    """One to four signs, buttons or labels, each with its colours."""
    count = rng.choice((1, 1, 1, 2, 2, 3, 4))
    noun = (
        rng.choice(("sign", "sign", "button", "label"))
        if count > 1
        else rng.choice(("sign", "sign", "label", "poster"))
    )
    lines, y = [], 10.0
    grounds = rng.sample(PLATES, count)
    for ground in grounds:
        ink = (
            rng.choice(("black", "black", "blue", "red"))
            if ground in ("white", "yellow", "orange", "pink")
            else "white"
        )
        for text in [draw_text(rng) for _ in range(rng.choice((1, 1, 1, 2)) if count == 1 else 1)]:
            lines.append(Line(text, (10, y, 90, y + 20), ink if ink != ground else "black", ground))
            y += 40
    record = Record("signs", describe((400, 300), lines, []))
    text = " ".join(line.text for line in lines if line.ground == grounds[0])
    if count == 1:
        questions = (f"What does the {noun} say?", f"What is written on the {noun}?", "What does it say?",
                     "What is written?", "Read the text.", "What is written in the picture?",
                     "What text is in the image?", "What does the text say?",
                     f"Can you read the {noun}?", "What can you read?", f"What's on the {noun}?")  # fmt: skip
        record.turns.append(
            (pick(rng, *questions), pick(rng, f"The {noun} says {say(rng, text)}.", f"It says {say(rng, text)}."))
        )
        record.turns.append((f"What color is the {noun}?", f"The {noun} is {grounds[0]}."))
        ink = lines[0].ink
        record.turns.append(
            (pick(rng, "What color is the text?", "What color are the letters?"), f"The text is {ink}.")
        )
        shows = f"The image shows {_a(grounds[0])} {noun} that says {say(rng, text)}"
        record.turns.append(
            (ask_description(rng), f"{shows}, in {ink} letters." if rng.random() < 0.5 else f"{shows}.")
        )
    else:
        for line in rng.sample(lines, 2):
            question = pick(rng, "What does the {} {} say?", "What is written on the {} {}?", "Read the {} {}.")
            record.turns.append(
                (question.format(line.ground, noun), f"The {line.ground} {noun} says {say(rng, line.text)}.")
            )
        line = rng.choice(lines)
        record.turns.append(
            (f"What color is the {noun} {line.text}?", f"The {noun} {say(rng, line.text)} is {line.ground}.")
        )
        record.turns.append((f"How many {noun}s are there?", f"There are {count} {noun}s."))
        listed = list_all([f"{_a(x.ground)} {noun} that says {x.text}" for x in lines])
        record.turns.append((ask_description(rng), f"There are {count} {noun}s: {listed}."))
    _ask_for_word(rng, record.turns, [line.text for line in lines])
    ask_unknown(rng, record.turns, record.description, rate=0.5)
    return shorten(rng, record)


def shorten(rng: random.Random, record: Record, limit: int = 5) -> Record:
    """The record with ``limit`` of its turns, in random order."""
    rng.shuffle(record.turns)
    del record.turns[limit:]
    return record


def _ask_for_word(rng: random.Random, turns: Turns, texts: Sequence[str]) -> None:
    every = " ".join(texts).split()
    word = rng.choice(every).strip(".,:") if rng.random() < 0.5 else words.draw_word(rng, False)
    held = word.lower() in [w.strip(".,:").lower() for w in every]
    question = pick(rng, 'Does it say "{}"?', "Is the word {} in the image?", "Does the text contain {}?").format(word)
    yes, no = f"Yes, the text contains {word}.", f"No, the text does not contain {word}."
    turns.append((question, yes if held else no))


def draw_lines_record(rng: random.Random) -> Record:
    """One to eight lines of text, of which one may have a colour of its own."""
    count = rng.randint(1, 8)
    usual = rng.choice(("black", "black", "black", "blue", "brown"))
    odd = rng.randrange(count) if rng.random() < 0.6 else -1
    odd_ink = rng.choice([c for c in ("red", "green", "blue", "purple", "orange", "pink") if c != usual])
    lines = [
        Line(draw_text(rng), (10, 30.0 * i, 200, 30.0 * i + 20), odd_ink if i == odd else usual) for i in range(count)
    ]
    record = Record("text", describe((400, 300), lines, []))
    turns = record.turns
    for i in rng.sample(range(count), min(2, count)):
        nth = ORDINALS[i]
        question = pick(rng, f"What does the {nth} line say?", f"What is written on the {nth} line?",
                        f"Read line {i + 1}.",
                        f"What is on line {i + 1}?")  # fmt: skip
        name = f"The {nth} line" if "line " + str(i + 1) not in question else f"Line {i + 1}"
        turns.append((question, f"{name} says {say(rng, lines[i].text)}."))
    turns.append(
        (
            pick(rng, "What does the last line say?", "What is written at the bottom?"),
            f"The last line says {say(rng, lines[-1].text)}.",
        )
    )
    if odd >= 0:
        question = pick(rng, f"What does the {odd_ink} line say?", f"What is written in {odd_ink}?")
        turns.append((question, f"The {odd_ink} line says {say(rng, lines[odd].text)}."))
        turns.append(
            (
                pick(rng, "Which line has another color?", "Which text is in color?"),
                f"The line {say(rng, lines[odd].text)} is {odd_ink}.",
            )
        )
    line = rng.choice(lines)
    turns.append((f"What color is the text {line.text}?", f"The text {say(rng, line.text)} is {line.ink}."))
    question = pick(rng, "How many lines are there?", "How many lines of text are there?", "Count the lines.")
    turns.append((question, f"There {'is 1 line' if count == 1 else f'are {count} lines'} of text."))
    texts = [line.text for line in lines]
    question = pick(rng, "Read all the text.", "What text is in the picture?", "What is written in the picture?",
                    "What does the text say?", "Transcribe the text.")  # fmt: skip
    turns.append((question, f"The text says: {' / '.join(texts)}"))
    number = "1 line" if count == 1 else f"{count} lines"
    about = f"It is a page with {number} of text. The first says {say(rng, texts[0])}."
    turns.append((ask_description(rng), f"The image shows text: {' / '.join(texts)}" if count < 3 else about))
    _ask_for_word(rng, turns, texts)
    ask_unknown(rng, turns, record.description, rate=0.5)
    return shorten(rng, record)


def draw_form_record(rng: random.Random) -> Record:
    """A form, a business card or a table of keys and values."""
    keys = rng.sample(sorted(_KEYS), rng.randint(2, 9))
    rows = [(key, _KEYS[key](rng)) for key in keys]
    if rng.random() < 0.3:
        rows[0] = (words.draw_word(rng, False).title(), words.draw_content(rng, False, 9))
    lines: list[Line] = []
    title = rng.choice(
        ("Registration form", "Order form", "Invoice", "Visitor pass", "Boarding pass", "Profile", "Details")
    )
    if has_title := rng.random() < 0.5:
        lines.append(Line(title, (10, 0, 90, 20)))
    style = rng.randrange(3)
    for i, (key, value) in enumerate(rows, 1):
        y = 30.0 * i
        if style == 0:
            lines.append(Line(f"{key}: {value}", (10, y, 200, y + 20)))
        else:
            lines += [Line(key + (":" if style == 1 else ""), (10, y, 90, y + 20)), Line(value, (120, y, 220, y + 20))]
    record = Record("text", describe((400, 300), lines, []))
    turns = record.turns
    for key, value in rng.sample(rows, min(3, len(rows))):
        lower = key if key.isupper() else key[0].lower() + key[1:]
        question = pick(
            rng, "What is the {}?", "What is the value of {}?", "What does it say for {}?", "Which {} is given?", "{}?"
        )
        name = key if rng.random() < 0.6 else lower
        turns.append(
            (question.format(name), pick(rng, f"The {lower} is {value}.", f"{key}: {value}.", f"It is {value}."))
        )
    missing = rng.choice([key for key in _KEYS if key.lower() not in " ".join(keys).lower()])
    question = pick(rng, "What is the {}?", "Which {} is given?", "Can you tell me the {}?").format(missing.lower())
    turns.append(
        (question, pick(rng, f"The image shows no {missing.lower()}.", f"I see no {missing.lower()} in the image."))
    )
    turns.append((f"Is there a {missing.lower()}?", f"No, I see no {missing.lower()}."))
    value_key = rng.choice(rows)
    turns.append(
        (f"Which field has the value {value_key[1]}?", f"The field {value_key[0]} has the value {value_key[1]}.")
    )
    what = f"a form with the title {title}" if has_title else "a form"
    turns.append(
        (
            ask_description(rng),
            f"The image shows {what}. It gives {list_all([f'the {k.lower()} {v}' for k, v in rows[:4]])}.",
        )
    )
    turns.append(ask_for_text(rng, join_rows(lines)))
    if has_title:
        turns.append(
            (
                pick(rng, "What is the title?", "What is the heading?", "What kind of document is this?"),
                f"The title is {title}.",
            )
        )
    return shorten(rng, record)


def draw_receipt_record(rng: random.Random) -> Record:
    """A receipt, a price list or a menu."""
    count = rng.randint(2, 9)
    items = rng.sample(ITEMS, count)
    sign = rng.choice(("", "", "$", "€", "£"))
    cents = [rng.randrange(50, 4000) for _ in items]
    prices = [f"{sign}{c // 100}.{c % 100:02d}" for c in cents]
    owner = rng.choice((rng.choice(LAST_NAMES), rng.choice(CITIES), words.draw_word(rng, False).title()))
    shop = f"{owner} {rng.choice(_SHOPS)}"
    rows: list[tuple[str, str]] = list(zip(items, prices, strict=True))
    kind = rng.choice(("receipt", "receipt", "menu", "price list"))
    head: list[str] = [shop if rng.random() < 0.5 else shop.upper()] if rng.random() < 0.8 else []
    date, phone = words.draw_date(rng), draw_phone(rng)
    has_date, has_phone = kind == "receipt" and rng.random() < 0.6, rng.random() < 0.3
    head += [f"Date: {date}" if rng.random() < 0.5 else date] if has_date else []
    head += [f"Tel. {phone}"] if has_phone else []
    total = f"{sign}{sum(cents) // 100}.{sum(cents) % 100:02d}"
    tail = []
    if kind == "receipt":
        tail = [(rng.choice(("Total", "TOTAL", "Total", "Amount due", "Sum")), total)]
        if rng.random() < 0.4:
            tail.insert(0, (rng.choice(("Tax", "VAT")), f"{sign}{sum(cents) // 1000}.{sum(cents) // 10 % 100:02d}"))
        if rng.random() < 0.4:
            tail.append((rng.choice(("Cash", "Card", "Visa")), total))
    lines = [Line(text, (10, 30.0 * i, 200, 30.0 * i + 20)) for i, text in enumerate(head)]
    joined = rng.random() < 0.3
    y = 30.0 * len(head)
    for key, value in [*rows, *tail]:
        amount = f"{rng.randint(1, 4)} x " if rng.random() < 0.1 else ""
        if joined:
            lines.append(Line(f"{amount}{key} {value}", (10, y, 200, y + 20)))
        else:
            lines += [Line(amount + key, (10, y, 90, y + 20)), Line(value, (150, y, 200, y + 20))]
        y += 30
    if rng.random() < 0.3:
        lines.append(
            Line(rng.choice(("Thank you!", "Thank you for your visit", "Have a nice day")), (10, y, 200, y + 20))
        )
    record = Record("text", describe((400, 600), lines, []))
    turns = record.turns
    for item, price in rng.sample(rows, min(3, count)):
        question = pick(rng, "How much is the {}?", "What is the price of {}?", "How much does the {} cost?",
                        "What does {} cost?",
                        "What is the {}?", "Price of {}?")  # fmt: skip
        name = item if rng.random() < 0.5 else item.lower()
        turns.append(
            (
                question.format(name),
                pick(rng, f"The {name} costs {price}.", f"The {name} is {price}.", f"It costs {price}."),
            )
        )
    if tail:
        question = pick(rng, "What is the total?", "How much is the total?", "What is the total amount?",
                        "How much was paid in all?",
                        "What is the sum?")  # fmt: skip
        turns += [(question, pick(rng, f"The total is {total}.", f"The total amount is {total}."))] * 2
    dearest = max(zip(cents, items, prices, strict=True))
    cheapest = min(zip(cents, items, prices, strict=True))
    turns.append(
        (
            pick(rng, "What is the most expensive item?", "Which item costs the most?"),
            f"The {dearest[1]} costs the most, {dearest[2]}.",
        )
    )
    turns.append(
        (
            pick(rng, "What is the cheapest item?", "Which item costs the least?"),
            f"The {cheapest[1]} costs the least, {cheapest[2]}.",
        )
    )
    if head and shop.lower() == head[0].lower():
        question = pick(
            rng,
            "What is the name of the shop?",
            "Which store is this from?",
            "Where is this receipt from?",
            "What is the shop called?",
        )
        turns.append((question, f"It is from {head[0]}."))
    if has_date:
        turns.append(
            (pick(rng, "What is the date?", "When was this?", "What date is on the receipt?"), f"The date is {date}.")
        )
    if has_phone:
        turns.append(
            (pick(rng, "What is the phone number?", "What is the telephone number?"), f"The phone number is {phone}.")
        )
    else:
        turns.append(
            (
                pick(rng, "What is the phone number?", "Is there a telephone number?"),
                "I see no telephone number in the image.",
            )
        )
    turns.append((pick(rng, "How many items are listed?", "How many items are there?"), f"There are {count} items."))
    other = rng.choice([item for item in ITEMS if item not in items])
    turns.append((f"How much is the {other.lower()}?", f"I see no {other.lower()} in the image."))
    turns.append((f"Is there {rng.choice([other, items[0]])} on the {kind}?", ""))
    asked = turns[-1][0].split("Is there ")[1].split(" on the")[0]
    turns[-1] = (
        turns[-1][0],
        f"Yes, {asked} is on the {kind}." if asked in items else f"No, there is no {asked} on the {kind}.",
    )
    turns.append(ask_for_text(rng, join_rows(lines)))
    name = f" from {head[0]}" if head and shop.lower() == head[0].lower() else ""
    end = f" The total is {total}." if tail else ""
    turns.append((ask_description(rng), f"The image shows a {kind}{name} with {count} items: {list_all(items)}.{end}"))
    return shorten(rng, record)


# --- charts ---------------------------------------------------------------------------------------------------------

_TOPICS = (
    "Units sold;Sales;Visitors;Revenue;Rainfall;Votes;Population;Score;Temperature;Production;Students;Profit;"
    "Downloads;"
    "Sales by product;Votes by party;Visitors by month;Average speed;Hours of sleep;Books read;Energy use"
).split(";")
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_LABELS = (
    [*MONTHS],
    "Mon Tue Wed Thu Fri Sat Sun".split(),
    "Apples Pears Plums Grapes Lemons Kiwis Bananas".split(),
    "North South East West Center".split(),
    list("ABCDEFGH"),
    "2018 2019 2020 2021 2022 2023 2024".split(),
    "Q1 Q2 Q3 Q4".split(),
    CITIES,
    "Cats Dogs Birds Fish Horses".split(),
    "Tea Coffee Juice Water Milk Soda".split(),
    "Red Blue Green Gold".split(),
)


def draw_chart_record(rng: random.Random) -> Record:
    """A bar chart with two to eight bars."""
    labels = rng.choice(_LABELS)
    if rng.random() < 0.35:
        labels = list({words.draw_word(rng, False, 7).lower() for _ in range(8)})
        rng.shuffle(labels)
    count = rng.randint(2, min(8, len(labels)))
    start = rng.randrange(len(labels) - count + 1)
    labels = labels[start : start + count]
    scale = rng.choice((1, 1, 10, 100, 0.1))
    values = rng.sample(range(1, 100), count)
    written = [f"{v * scale:g}" for v in values]
    several = rng.random() < 0.5
    colours = (
        rng.sample([c for c in SCENE_COLORS if c != "black"], count) if several else [rng.choice(SCENE_COLORS)] * count
    )
    title = rng.choice(_TOPICS) if rng.random() < 0.7 else ""
    bars = [
        Bar(label, colour, value, v) for label, colour, value, v in zip(labels, colours, written, values, strict=True)
    ]
    chart = ChartTable(title, tuple(bars), rng.random() < 0.25)
    other = [title] if title else []
    axis = rng.choice(("", "", "Value", "Month", "Number", "Percent", "Year"))
    other += [axis] if axis else []
    ticks = [f"{i * max(values) * scale / 4:g}" for i in range(5)] if rng.random() < 0.7 else []
    lines = [
        Line(text, (10, 30.0 * i, 200, 30.0 * i + 20))
        for i, text in enumerate([*other, *reversed(ticks), " | ".join(labels)])
    ]
    record = Record("chart", describe((640, 480), lines, [], chart))
    turns = record.turns
    best, worst = bars[values.index(max(values))], bars[values.index(min(values))]
    question = pick(rng, "Which bar is the largest?", "Which is the largest?", "What is the largest bar?",
                    "Which bar is the highest?",
                    "Which has the highest value?", "What has the largest value?")  # fmt: skip
    turns.append(
        (question, pick(rng, f"The largest bar is {best.label}.", f"{best.label} is the largest, with {best.value}."))
    )
    question = pick(
        rng,
        "Which bar is the smallest?",
        "Which is the smallest?",
        "Which bar is the lowest?",
        "Which has the lowest value?",
    )
    turns.append(
        (
            question,
            pick(rng, f"The smallest bar is {worst.label}.", f"{worst.label} is the smallest, with {worst.value}."),
        )
    )
    for bar in rng.sample(bars, 2):
        question = pick(rng, "What is the value of {}?", "How much is {}?", "How high is the bar {}?",
                        "What value does {} have?",
                        "What is the value for {}?", "How many for {}?")  # fmt: skip
        turns.append(
            (
                question.format(bar.label),
                pick(rng, f"The value of {bar.label} is {bar.value}.", f"{bar.label} is {bar.value}."),
            )
        )
    a, b = rng.sample(bars, 2)
    word = rng.choice(("larger", "smaller", "higher", "lower", "greater"))
    holds = (a.size > b.size) == (word in ("larger", "higher", "greater"))
    turns.append(
        (
            f"Is {a.label} {word} than {b.label}?",
            f"{'Yes' if holds else 'No'}, {a.label} is {a.value} and {b.label} is {b.value}.",
        )
    )
    question = pick(
        rng,
        "How many bars are there?",
        "How many bars does the chart have?",
        "Count the bars.",
        "How many bars are shown?",
    )
    turns.append((question, f"There are {count} bars."))
    if several:
        turns.append(
            (
                pick(rng, f"What color is the bar {a.label}?", f"Which color is {a.label}?"),
                f"The bar {a.label} is {a.colour}.",
            )
        )
        turns.append((f"What does the {a.colour} bar show?", f"The {a.colour} bar shows {a.label}, {a.value}."))
    if title:
        turns.append(
            (
                pick(rng, "What is the title of the chart?", "What is the title?", "What is the chart about?"),
                f"The title is {title}.",
            )
        )
    else:
        turns.append(("What is the title of the chart?", "The chart has no title."))
    listed = ", ".join(f"{bar.label} {bar.value}" for bar in bars)
    turns.append((pick(rng, "List all values.", "What are the values?"), f"The values are: {listed}."))
    about = f' with the title "{title}"' if title else ""
    turns.append((ask_description(rng), f"It is a bar chart{about}. It has {count} bars: {listed}."))
    ask_unknown(rng, turns, record.description, rate=0.4)
    return shorten(rng, record)


# --- what the image does not hold -------------------------------------------------------------------------------------

_OFF_TOPIC = (
    "Who took this photo?;What is the name of the person?;Where was this taken?;When was this photo taken?;"
    "Who painted this?;"
    "What is the weather like?;How old is the man?;What is the woman wearing?;Is the person happy?;What city is this?;"
    "What is the dog doing?;What breed is the dog?;What brand is the car?;What is behind the camera?;"
    "How much does it weigh?;"
    "What is the phone number?;What does the person say?;How many people live here?;What is the temperature?;"
    "What time is it?;"
    "Who is the owner?;What is the name of the cat?;How tall is the building?;What is the name of the street?;"
    "What is written on the back?;What happened before?;Who won the game?;Is it raining?;What animal is this?"
).split(";")


# What people ask documents for, by a word that the image holds if it has an answer.
_ASKED_OF_DOCUMENTS = (
    "total;price;telephone number;phone number;date;name;address;e-mail address;title;time;room number;invoice number;"
    "discount;tax;website;opening hours;price of the coffee;age;flight number;seat"
).split(";")


def ask_unknown(rng: random.Random, turns: Turns, known: str, rate: float) -> None:
    """Asks for what the image does not hold; ``known``: its description."""
    if rng.random() < rate:
        turns.append((rng.choice(_OFF_TOPIC), rng.choice(_UNKNOWN)))
    if rng.random() < rate:
        missing = ask_for_missing(rng, known)
        turns += [missing] if missing else []


def ask_for_missing(rng: random.Random, known: str) -> tuple[str, str] | None:
    """A question for something that is not in the description ``known``, and the answer that says so."""
    what = rng.choice(_ASKED_OF_DOCUMENTS)
    if any(word in known.lower() for word in what.split()):
        return None
    ways = ("What is the {}?", "What is the {}?", "Can you tell me the {}?", "Is there a {}?", "Which {} is given?")
    return pick(rng, *ways).format(what), pick(rng, f"I see no {what} in the image.", f"The image shows no {what}.")


def ask_for_text(rng: random.Random, rows: Sequence[str]) -> tuple[str, str]:
    """A request to read, and the first rows of the text."""
    question = pick(rng, "Read all the text.", "What text is in the picture?", "What does it say?",
                    "What is written here?", "What is written in the picture?", "What can you read?")  # fmt: skip
    shown = [row.replace(" | ", " ") for row in rows[:6]]
    return question, f"It says: {' / '.join(shown)}"
