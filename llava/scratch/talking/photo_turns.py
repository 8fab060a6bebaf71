"""Questions and answers about photographs, whose line (``llava.model.lexical.photo_line``) has what the answers say."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from llava.model.lexical.colour_names import COLOURS
from llava.model.lexical.description import PLACES, say_place
from llava.model.lexical.nouns import is_plural, with_article
from llava.model.lexical.photo_line import (
    PERSON,
    Guess,
    Light,
    Photo,
    count_people,
    name_guess,
    say_around,
    say_ground,
    say_looks,
    say_people,
    say_placed,
    write_photo,
)
from llava.scratch.talking.seen_records import ASKS_FOR_DESCRIPTION, Record, Turns, pick
from llava.scratch.talking.thing_groups import ANIMALS, CLOTHES, INDOORS, OUTDOORS
from llava.scratch.talking.thing_turns import UNSURE, ask_about_kind, ask_beyond, make_plural
from llava.text import list_all

_ASKS_TO_DESCRIBE = (
    "Describe the image.;Say what you see.;Describe this photo.;Describe this image in one sentence.;Tell me what "
    "you see.;What can you see in this photo?;Describe what you see.;Can you describe this photo?;Describe it.;"
    "Describe the picture."
).split(";")
_ASKS_WHAT = [ask for ask in ASKS_FOR_DESCRIPTION if ask not in _ASKS_TO_DESCRIBE]
_ASKS_FOR_DETAILS = (
    "Describe the image in detail.;Describe this photo in detail.;Give a detailed description of the image.;Tell me "
    "everything that you see.;What can you tell me about this photo?;Describe the photo in a few sentences.;Describe "
    "everything in the photo.;What do you see in the photo? Be detailed.;Explain what the image shows.;Write a "
    "detailed description.;Please describe this image as well as you can.;Tell me about this photo.;Describe the "
    "scene.;Describe this place.;Describe this view.;Describe the room.;Describe the street.;Describe the landscape.;"
    "Describe the surroundings.;Describe the photo for somebody who cannot see it.;Give me many details."
).split(";")
_ASKS_WHAT_HAPPENS = (
    "What is happening in this photo?;What is going on here?;Describe what is happening.;What's going on in this "
    "image?;What is happening?;Describe the event."
).split(";")
_PARTS = (
    "legs;eyes;ears;windows;doors;wheels;hands;feet;flowers;trees;chairs;boats;lamps;"
    "wings;stripes;spots;buttons;fingers;paws;leaves;houses;books;bottles;pillars;clouds;stones"
).split(";")
_WORN = "hat;shirt;shoes;dress;glasses;trousers;jacket;bag;collar".split(";")
_LIGHTS: tuple[Light, ...] = ("bright", "bright", "bright", "bright", "dark", "black and white")
_GREYS = ("black", "gray", "white")
# In this share of photographs the background's top has one color, most often the sky's, and its bottom another one.
_SPLIT_SHARE, _SKIES = 0.3, ("blue", "blue", "blue", "white", "white", "gray", "orange", "black", *COLOURS)
# What is unsure or a piece of clothing is taken for a person in this share, whose face was found, and beside something
# else a face is found in that share. So many people there are.
_PERSON_SHARE, _BESIDE_SHARE, _NUM_PEOPLE = 0.3, 0.12, (1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8)
# Where things are: most are in the middle of a photograph.
_CELL_WEIGHTS = (1, 2, 1, 3, 12, 3, 1, 2, 1)


def draw_photo(rng: random.Random, guess: Guess, thing: Mapping[str, Any] | None = None) -> Photo:
    """A photograph of which only the guess is known, or also the place and the ``colours`` of its main thing."""
    light = rng.choice(_LIGHTS)
    names = _GREYS if light == "black and white" else COLOURS
    colours = tuple(rng.sample(names, rng.choice((1, 1, 2))))
    is_split = rng.random() < _SPLIT_SHARE
    cell = rng.choices(range(9), _CELL_WEIGHTS)[0]
    people: tuple[int, ...] = ()
    if thing is None:
        can_be_person = not guess.is_sure or guess.kinds[0] in CLOTHES | {PERSON}
        if rng.random() < (_PERSON_SHARE if can_be_person else _BESIDE_SHARE):
            people = tuple(rng.choices(range(9), _CELL_WEIGHTS, k=rng.choice(_NUM_PEOPLE)))
            guess = Guess((PERSON,), is_sure=True) if can_be_person and rng.random() < 0.8 else guess
    else:
        known = [colour for colour in (thing.get("colours") or ()) if colour in COLOURS][:2]
        colours, cell = tuple(known) or colours, thing["cell"]
        light = light if known and light != "black and white" else "bright"
    ground: tuple[str, ...] = ()
    if is_split:
        ground = (rng.choice(_SKIES if light == "bright" else names), rng.choice(names))
        is_split = ground[0] != ground[1] and ground[0] in names
    if not is_split:
        ground = tuple(rng.sample(names, rng.choice((1, 2, 2)))) if rng.random() < 0.92 else ()
    return Photo(guess, cell, colours, ground, light, is_split, people)


def talk_about_photo(rng: random.Random, photo: Photo, others: Sequence[str], facts: Mapping[str, str]) -> Turns:
    """Turns about a photograph, a description first.

    Args:
        others: names of other things, to ask for what is not there.
        facts: a sentence about a thing by its name, which the language model itself wrote.
    """
    record = Record("photo", write_photo(photo))
    guess = photo.guess
    first = (rng.choice(_ASKS_WHAT), _name(rng, guess))
    _ask_for_details(rng, record, photo)
    if photo.shows_clothes:
        _ask_for_clothes(rng, record, photo)
    else:
        _ask_for_looks(rng, record, photo)
    _ask_for_people(rng, record, photo)
    record.turns += _ask_for_hidden(rng, photo)
    if photo.shows_clothes:
        record.turns += ask_beyond(rng, PERSON)
        return _finish(rng, record, first)
    if guess.is_sure:
        thing = {"name": guess.name or guess.kinds[0], "kind": guess.kinds[0]}
        record.turns += ask_about_kind(rng, thing, others, facts)
        record.turns += _ask_how_sure(rng, guess) + _ask_beside(rng, photo, thing)
    else:
        record.turns += _ask_whether_unsure(rng, guess, others) + ask_beyond(rng, " ".join(guess.kinds))
    return _finish(rng, record, first)


def _finish(rng: random.Random, record: Record, first: tuple[str, str]) -> Turns:
    record.ask_shortly(rng, 0.15).shorten(rng, 16)
    return [first, *record.turns]


def _name(rng: random.Random, guess: Guess) -> str:
    if not guess.kinds:
        return rng.choice(UNSURE)
    said = name_guess(guess)
    if not guess.is_sure:
        return pick(rng, f"This may be {said}.", f"It may be {said}.", f"The image may show {said}.")
    these = "These are" if is_plural(guess.name or guess.kinds[0]) else "This is"
    return pick(rng, f"{these} {said.removeprefix('some ')}.", f"The image shows {said}.", f"I see {said}.")


def _ask_for_details(rng: random.Random, record: Record, photo: Photo) -> None:
    guess, colours = photo.guess, " and ".join(photo.colours)
    if not guess.kinds:
        start = pick(rng, "I am not sure what this is.", "I cannot tell what this is.")
        looks = f"It is {colours}, {say_place(PLACES[photo.cell])}."
        looks = " ".join(filter(None, (looks, say_people(photo))))
    else:
        show = "shows" if guess.is_sure else "may show"
        start = f"{pick(rng, 'The image', 'The photo')} {show} {say_placed(photo)}."
        looks = say_looks(photo, "They are" if _is_many(guess) else "It is")
    asks = _ASKS_FOR_DETAILS
    if guess.is_sure:
        asks = [*asks, *(f"Describe the {noun}." for noun in {guess.kinds[0], guess.name} - {""})]
    for question in rng.sample(asks, 2):
        record.ask(question, f"{start} {looks} {say_around(photo)}")
    record.ask(rng.choice(_ASKS_TO_DESCRIBE), f"{start} {looks}")
    record.ask(rng.choice(_ASKS_WHAT_HAPPENS), f"I cannot tell what is happening. {start} {looks} {say_around(photo)}")


def _ask_for_looks(rng: random.Random, record: Record, photo: Photo) -> None:
    """Adds questions for the colors and the place of a photo's main thing, its background and its light."""
    guess = photo.guess
    noun = f"the {rng.choice([guess.name or guess.kinds[0], guess.kinds[0]])}" if guess.is_sure else "it"
    be = "are" if _is_many(guess) else "is"
    asked = rng.choice((noun, "they" if be == "are" else "it"))
    colours = " and ".join(photo.colours)
    question = pick(rng, f"What color {be} {asked}?", f"What colour {be} {asked}?", f"Which color {be} {asked}?",
                    f"What is the color of {'it' if asked == 'it' else noun}?")  # fmt: skip
    record.ask(question, f"{_begin(noun)} {be} {colours}.", photo.colours[0])
    colour = rng.choice(photo.colours if rng.random() < 0.5 else [each for each in COLOURS if each not in colours])
    word = "Yes" if colour in photo.colours else "No"
    record.ask(f"{be.capitalize()} {asked} {colour}?", f"{word}, {noun} {be} {colours}.", word)
    _ask_around(rng, record, photo, noun, asked)


def _ask_for_clothes(rng: random.Random, record: Record, photo: Photo) -> None:
    """The same for a person."""
    colours = " and ".join(photo.colours)
    worn = rng.choice(("clothes", "clothes", "clothing", "outfit", *_WORN[1:5]))
    question = pick(rng, "What color {} the {}?", "What color {} the person's {}?", "What color {} her {}?",
                    "What colour {} his {}?").format("are" if worn.endswith("s") else "is", worn)  # fmt: skip
    record.ask(question, f"The clothes are {colours}.", photo.colours[0])
    question = pick(rng, "What is the person wearing?", "What does she wear?", "What is he wearing?",
                    "What are they wearing?", "Describe the clothes.")  # fmt: skip
    record.ask(question, f"The clothes are {colours}, but I cannot tell more.")
    _ask_around(rng, record, photo, "the person", rng.choice(("the person", "the person", "the woman", "the man")))


def _ask_around(rng: random.Random, record: Record, photo: Photo, noun: str, asked: str) -> None:
    """Adds questions for all colors, for the place of the main thing, its background and the light."""
    place, be = say_place(PLACES[photo.cell]), "are" if _is_many(photo.guess) else "is"
    record.ask(pick(rng, "What colors do you see?", "Which colors are in the image?", "What colors are there?"),
               f"I see {list_all(list(dict.fromkeys((*photo.colours, *photo.ground))))}.")  # fmt: skip
    question = pick(rng, f"Where {be} {asked}?", f"Where in the image {be} {asked}?",
                    f"Where {be} {asked} in the photo?", f"In which part of the photo {be} {asked}?")  # fmt: skip
    record.ask(question, f"{_begin(noun)} {be} {place} of the image.")
    other = rng.choice([photo.cell, rng.choice((1, 3, 4, 5, 7))])
    word = "Yes" if other == photo.cell else "No"
    record.ask(f"{be.capitalize()} {asked} {say_place(PLACES[other])}?", f"{word}, {noun} {be} {place}.", word)
    _ask_for_side(rng, record, photo.cell, asked, f"{noun} {be}")
    _ask_for_background(rng, record, photo, noun)
    _ask_for_light(rng, record, photo.light)


def _ask_for_people(rng: random.Random, record: Record, photo: Photo) -> None:
    """Adds questions whether and where people are, how many, and who they are."""
    count, said = len(photo.people), count_people(photo)
    named = rng.choice(("people", "people", "persons", "faces", "men", "women", "children", "heads"))
    question = pick(rng, "How many {} are there?", "How many {} do you see?", "How many {} are in the photo?",
                    "How many {} can you see?", "Count the {}.", "Number of {}?").format(named)  # fmt: skip
    if count or rng.random() < 0.5:
        record.ask(question, f"I see {said}.", said.partition(" ")[0] if 0 < count < 6 else said)
    question = pick(rng, "Is there a person?", "Are there people in the photo?", "Do you see anybody?",
                    "Are there any people?", "Is there a face?", "Do you see a human?", "Is anyone here?")  # fmt: skip
    one = (
        f"a person {say_place(PLACES[photo.cell if photo.shows_clothes else photo.people[0]])}" if count == 1 else said
    )
    word = "Yes" if count else "No"
    if count or photo.guess.kinds[:1] != (PERSON,):
        record.ask(question, f"{word}, I see {one}.", word)
    if not count:
        return
    if count == 1 and not photo.shows_clothes:
        question = pick(rng, "Where is the person?", "Where is the face?", "Where is the man?", "Where is the woman?")
        record.ask(question, f"The person is {say_place(PLACES[photo.people[0]])} of the image.")
    question = pick(rng, "Who is this?", "Who is the person?", "Is it a man or a woman?", "How old is the person?",
                    "Is she smiling?", "Is he happy?", "What is the person doing?", "What is she looking at?",
                    "What is her name?", "Who are they?", "Do you know him?")  # fmt: skip
    record.ask(question, "I cannot tell that from the image.")


def _begin(noun: str) -> str:
    return f"{noun[0].upper()}{noun[1:]}"


def _ask_for_background(rng: random.Random, record: Record, photo: Photo, noun: str) -> None:
    colour = pick(rng, "What color is the background?", "Which color does the background have?",
                  "What is the color of the background?")  # fmt: skip
    what = pick(rng, "What is in the background?", f"What is behind {noun}?", "Describe the background.",
                f"What is around {noun}?", "What is the background?", f"What is next to {noun}?",
                "What does the background look like?", "What kind of background is it?")  # fmt: skip
    bands = "sky;clouds;ceiling;top of the photo", "ground;grass;floor;sand;street;water;bottom of the photo"
    at_top = rng.random() < 0.5
    part = rng.choice(bands[0 if at_top else 1].split(";"))
    verb, of_part = ("are" if part == "clouds" else "is"), photo.ground[:1] if at_top else photo.ground[1:]
    if photo.is_split:
        place = "at the top" if at_top else "at the bottom"
        record.ask(f"What color {verb} the {part}?", f"The background is {of_part[0]} {place}.", of_part[0])
    elif photo.ground:
        record.ask(f"What color {verb} the {part}?", f"The background is {' and '.join(photo.ground)}.")
    if photo.ground:
        said = f"The background is {say_ground(photo)}"
        record.ask(colour, f"{said}.", photo.ground[0])
        record.ask(what, f"{said}, but I cannot tell what it is.")
    else:
        record.ask(rng.choice((colour, what)), "I see hardly any background in the image.")
    if photo.guess.kinds:
        else_ = pick(rng, "What else do you see?", "Is there anything else in the image?", "What else is in the photo?",
                     "Do you see anything else?")  # fmt: skip
        around = f" The background is {say_ground(photo)}." if photo.ground else ""
        seen = "nothing else that I know"
        if photo.people and not photo.shows_clothes:
            seen = f"{count_people(photo)}, too"
        record.ask(else_, f"I see {seen}.{around}")


def _ask_for_side(rng: random.Random, record: Record, cell: int, asked: str, lower: str) -> None:
    """Adds a question for the side or the height of the main thing, which names the possible answers."""
    row, column = divmod(cell, 3)
    across, down = ("on the left", "in the middle", "on the right"), ("at the top", "in the middle", "at the bottom")
    be = lower.split()[-1]
    question, answer = rng.choice((
        (f"{be.capitalize()} {asked} on the left, in the middle or on the right?", across[column]),
        (f"{be.capitalize()} {asked} on the left or on the right?", across[column]),
        (f"On which side of the image {be} {asked}?", across[column]),
        (f"{be.capitalize()} {asked} at the top or at the bottom?", down[row]),
        (f"{be.capitalize()} {asked} in the upper or the lower half?", down[row]),
    ))  # fmt: skip
    record.ask(question, f"{lower[0].upper()}{lower[1:]} {answer} of the image.", answer)


def _ask_for_light(rng: random.Random, record: Record, light: Light) -> None:
    time = pick(rng, "Is it day or night?", "Was this taken during the day or at night?", "What time of day is it?",
                "Is it day?", "Is it night?")  # fmt: skip
    is_grey, is_bright = light == "black and white", light == "bright"
    said = {"Is it day?": "Yes, it" if is_bright else "No, it", "Is it night?": "No, it" if is_bright else "Yes, it"}
    start, shown = said.get(time, "It"), "is probably day" if is_bright else "may be night"
    why = "I cannot tell, because it is a black and white photo."
    record.ask(time, why if is_grey else f"{start} {shown}, because the photo is {light}.")
    if is_grey or rng.random() < 0.5:
        question = pick(rng, "Is this a color photo?", "Is the photo in color?", "Is this a black and white photo?",
                        "Is it black and white?", "Is this photo in color or black and white?")  # fmt: skip
        word = "Yes" if ("black and white" in question) == is_grey else "No"
        kind = f"a {'black and white' if is_grey else 'color'} photo"
    else:
        question = pick(rng, "Is the photo bright or dark?", "Is the image dark?", "Is it a bright photo?",
                        "How bright is the image?")  # fmt: skip
        word = "Yes" if light in question else "No"
        kind = light
    what = "it" if " photo" in kind else "the photo"
    is_open = " or " in question or question.startswith("How")
    record.ask(question, f"{what.capitalize()} is {kind}." if is_open else f"{word}, {what} is {kind}.")


def _ask_for_hidden(rng: random.Random, photo: Photo) -> Turns:
    """Asks for what a line about a photo never tells: numbers of parts, clothes, what touches it, and in or outdoors.

    In which a kind of thing is seen almost always is told.
    """
    guess = photo.guess
    known = {make_plural(kind) for kind in guess.kinds}
    part, wear = rng.choice([part for part in _PARTS if part not in known]), rng.choice(_WORN)
    count = pick(rng, "How many {} are there?", "How many {} do you see?", "How many {} are in the photo?",
                 "How many {} can you see?", "Count the {}.").format(part)  # fmt: skip
    noun = f"the {guess.kinds[0]}" if guess.is_sure and rng.random() < 0.7 else "it"
    be = "are" if guess.is_sure and noun != "it" and is_plural(guess.kinds[0]) else "is"
    beyond = pick(
        rng,
        f"What {be} {noun} lying on?",
        f"What {be} {noun} standing on?",
        f"What {be} {noun} made of?",
        f"What {be} {noun} sitting on?",
        f"What {be} on the left of {noun}?",
        f"Who {be} holding {noun}?",
        "Where was this photo taken?",
        f"Which way {be} {noun} facing?",
        "Is it sunny or raining?",
        *() if photo.people else (f"What color is the {wear}?", f"Is the person wearing a {wear}?"),
    )
    turns = [(count, f"I cannot tell how many {part} there are."), (beyond, "I cannot tell that from the image.")]
    place = pick(rng, "Is this indoors or outdoors?", "Was this taken indoors or outdoors?", "Is it outdoors?",
                 "Is it inside or outside?", "Is this photo from inside a room?", "Is this outside?")  # fmt: skip
    kind = guess.kinds[0] if guess.kinds else ""
    if kind not in OUTDOORS | INDOORS:
        return [*turns, (place, "I cannot tell whether it is indoors or outdoors.")]
    is_out = kind in OUTDOORS
    word = "" if " or " in place else "Yes, it" if ("outside" in place or "outdoors" in place) == is_out else "No, it"
    where = "outdoors" if is_out else "indoors"
    answer = f"{word or 'It'} is probably {where}, because I see {with_article(kind)}."
    if not guess.is_sure:
        answer = f"It may be {where}, but I am not sure."
    return [*turns, (place, answer)]


def _ask_how_sure(rng: random.Random, guess: Guess) -> Turns:
    question = pick(rng, "Are you sure?", "How sure are you?", "Is that right?", "Really?")
    return [(question, f"I think so: it looks like {name_guess(guess)}.")] if rng.random() < 0.3 else []


def _ask_beside(rng: random.Random, photo: Photo, thing: Mapping[str, str]) -> Turns:
    """Asks for the number of things, what they do, a caption and an opinion."""
    name, turns = thing["name"], []
    if not is_plural(name):
        question = pick(rng, "How many {} are there?", "How many {} do you see?", "How many {} are in the photo?",
                        "How many are there?", "How many of them do you see?", "Is there more than one?")  # fmt: skip
        turns.append((question.format(make_plural(rng.choice((name, thing["kind"])))), f"I see at least one {name}."))
        caption = with_article(f"{photo.colours[0]} {name}")
        question = pick(rng, "Write a caption for this photo.", "Give the photo a title.", "Suggest a caption.")
        turns.append((question, f"{caption[0].upper()}{caption[1:]} {say_place(PLACES[photo.cell])}."))
    if thing["kind"] in ANIMALS or thing["kind"] == "person":
        question = pick(rng, "What is the {} doing?", "What is the {} looking at?", "Is the {} happy?",
                        "What is it doing?", "Is it moving?")  # fmt: skip
        turns.append((question.format(thing["kind"]), "I cannot tell that from the image."))
    question = pick(rng, "What do you think of this photo?", "Do you like this picture?", "Is it a nice photo?")
    turns.append((question, f"It is a nice photo of {name_guess(photo.guess)}."))
    return turns


def _ask_whether_unsure(rng: random.Random, guess: Guess, others: Sequence[str]) -> Turns:
    said = f"It may be {name_guess(guess)}, but I am not sure." if guess.kinds else rng.choice(UNSURE)
    turns = [(pick(rng, "What kind of thing is this?", "What is it?", "What is the main thing?", "Are you sure?",
                   "What is the main subject of the photo?"), said)]  # fmt: skip
    asked = rng.choice((*guess.kinds, rng.choice(others), rng.choice(others)))
    question = pick(rng, "Is there {}?", "Is this {}?", "Do you see {}?").format(with_article(asked))
    if asked in guess.kinds:
        answer = f"It may be {with_article(asked)}, but I am not sure."
    else:
        answer = (
            f"I do not see {with_article(asked)}. It may be {name_guess(guess)}."
            if guess.kinds
            else f"I do not see {with_article(asked)}."
        )
    turns.append((question, answer))
    question = pick(rng, "Tell me more about it.", "What is it used for?", "What do you know about it?")
    turns.append((question, "I cannot tell more, because I am not sure what it is."))
    return turns


def _is_many(guess: Guess) -> bool:
    return guess.is_sure and is_plural(guess.name or guess.kinds[0])
