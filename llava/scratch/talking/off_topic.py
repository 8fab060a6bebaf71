"""Questions that no image of the training answers: about people, animals and things that are not in it."""

from __future__ import annotations

import random

from llava.synth.scene import article

_PEOPLE = "man woman boy girl child baby player driver teacher doctor singer king soldier nurse cook dancer".split()
_ANIMALS = "dog cat horse bird cow rabbit lion elephant fish monkey sheep duck".split()
_THINGS = (
    "car bus train bicycle house bridge phone watch shoe shirt hat jacket bottle lamp chair table guitar boat camera "
    "laptop clock book ball bag flower tree door window"
).split()
_OF_PEOPLE = (
    "What is the {} wearing?;What is the {} holding?;How old is the {}?;What is the name of the {}?;Is the {} happy?;"
    "What is the {} saying?;Who is the {}?;Why is the {} laughing?;What color is the hair of the {}?;"
    "How many people stand behind the {}?"
).split(";")
_OF_ANIMALS = (
    "What is the {} doing?;What breed is the {}?;What color is the {}?;How old is the {}?;Where is the {} going?;"
    "What is the name of the {}?;What does the {} eat?"
).split(";")
_OF_THINGS = (
    "What brand is the {}?;What color is the {}?;Who does the {} belong to?;What is next to the {}?;"
    "How many {}s are there?;Where is the {}?;What is on the {}?;What is the {} made of?;How much did the {} cost?"
).split(";")
_OF_NOTHING = (
    "Who took this photo?;Where was this taken?;When was this photo taken?;Who painted this?;What is the weather like?;"
    "What city is this?;Which country is this?;How many people are there?;What is behind the camera?;"
    "What happened before this?;What will happen next?;Who won the game?;Is it raining?;What is the mood of the crowd?;"
    "Who is the president?;What season is it?;How far away is the mountain?;What sport is being played?;"
    "Is anybody smiling?;What is the license plate?;Which team is winning?;What language do they speak?;"
    "How many floors does the building have?;What is the width of the road?;Is the water deep?;Who is on the phone?"
).split(";")
UNKNOWN = ("I cannot tell from this image.", "The image does not show that.", "I cannot tell that from the image.")


def ask_off_topic(rng: random.Random, known: str) -> tuple[str, str] | None:
    """A question about what is not in the image, and the answer that says so.

    None where ``known``, what is known of the image, has the thing that was drawn.
    """
    way = rng.random()
    if way < 0.35:
        return rng.choice(_OF_NOTHING), rng.choice(UNKNOWN)
    kinds, questions = rng.choice(((_PEOPLE, _OF_PEOPLE), (_ANIMALS, _OF_ANIMALS), (_THINGS, _OF_THINGS)))
    noun = rng.choice(kinds)
    if noun in known.lower():
        return None
    question = rng.choice(questions).format(noun)
    answers = (f"I see no {noun} in the image.", f"There is no {noun} in the image.", *UNKNOWN[:2])
    return question, rng.choice(answers)


def ask_for_presence(rng: random.Random, known: str) -> tuple[str, str] | None:
    """A question whether something is in the image that is not; None as for ``ask_off_topic``."""
    noun = rng.choice((*_PEOPLE, *_ANIMALS, *_THINGS))
    if noun in known.lower():
        return None
    question = rng.choice(("Is there {}?", "Do you see {}?", "Is this {}?", "Is there {} in the image?"))
    return question.format(f"{article(noun)} {noun}"), f"No, I see no {noun}."
