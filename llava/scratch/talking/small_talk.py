"""Greetings, thanks and questions about the model itself, in a chat about an image.

The language model's own answers to these are about writing projects, and it is asked for what an image shows.
"""

from __future__ import annotations

import random

_GREETINGS = (
    "hi;Hi!;hello;Hello!;hey;Hey there;Good morning!;good evening;Hi, how are you?;Hello there;how are you?;What's up?"
).split(";")
_THANKS = (
    "thanks;Thanks!;Thank you!;thank you;thx;Thanks, that helped.;great, thanks;Thank you very much.;ok;Okay.;Great!"
).split(";")
_FAREWELLS = "bye;Goodbye!;See you!;that's all;Have a nice day!;Good night!".split(";")
_WHO = "Who are you?;What are you?;who am I talking to?;Are you a human?;Are you a robot?;What is your name?".split(";")
_WHAT = (
    "What can you do?;what can I ask you?;How can you help me?;What are you good at?;help;What should I ask?"
).split(";")
_WHETHER = "Can you help me?;Can you see the image?;Can you see the photo?;Do you see my photo?;Are you there?".split(
    ";"
)
_ASK_ME = "ask me about the image: what it shows, what is written on it, and what color things have."
_SAYS = {
    tuple(_GREETINGS): ("Hello! What would you like to know about the image?", "Hello! Ask me about the image."),
    tuple(_THANKS): ("You are welcome.", "You are welcome! Ask me more about the image, if you like."),
    tuple(_FAREWELLS): ("Goodbye!",),
    tuple(_WHO): ("I am a small language model that looks at images.",),
    tuple(_WHAT): (f"You can {_ASK_ME}",),
    tuple(_WHETHER): (f"Yes, {_ASK_ME}",),
}
SMALL_TALK = frozenset(question for questions in _SAYS for question in questions)
"""What is asked here, and is not answered by the language model itself."""


def make_small_talk(rng: random.Random) -> tuple[str, str]:
    """Something that people say in a chat, and the answer."""
    questions = rng.choice(list(_SAYS))
    return rng.choice(questions), rng.choice(_SAYS[questions])
