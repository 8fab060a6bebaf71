"""Questions after much other text, so that the end of a long question is still answered, and answered only once."""

from __future__ import annotations

import random

from llava.synth import words

_SENTENCES = (
    "I found this on my phone.;My sister sent it to me last week.;We were on a long trip through the country.;"
    "The weather was warm, and everybody was in a good mood.;I am writing a report for my class.;"
    "My teacher asked me to look at it closely.;Please be patient with me.;I have never used such a program before.;"
    "My eyes are not what they used to be.;There were many others, but I lost them.;It took me an hour to get here.;"
    "I think that it is important.;A friend of mine says that it is nothing special.;I do not agree with him.;"
    "He has always been like that.;You are a helpful assistant.;Do not make anything up.;Answer in one sentence.;"
    "Yesterday I wanted to ask you something else.;I will come back to that later.;Let me tell you a short story first."
    ";When I was a child, we lived near the sea.;My grandmother had a small shop there.;"
    "She sold bread, milk and newspapers.;In winter there were few customers.;So she had a lot of time to read.;"
    "That is where I learned it.;Now back to my question.;I hope that you can help me.;Thank you very much in advance."
).split(";")
_FEWEST, _MOST = 3, 12


def lengthen(rng: random.Random, question: str) -> str:
    """The question after three to twelve sentences that do not matter, or after as many words without a sense."""
    num_sentences = rng.randint(_FEWEST, _MOST)
    if rng.random() < 0.3:
        before = " ".join(words.draw_word(rng, False).lower() for _ in range(4 * num_sentences))
        return f"{before}{rng.choice(('. ', ' ', chr(10)))}{question}"
    return rng.choice((" ", " ", "\n")).join([*rng.sample(_SENTENCES, num_sentences), question])
