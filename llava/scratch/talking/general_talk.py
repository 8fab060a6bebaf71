"""Questions that have nothing to do with an image, with the language model's own answers, so that it keeps them.

    python -m llava.scratch.talking.general_talk talk.json

The adapter stays active in all turns after an image. Without such turns it would learn to answer everything by what is
seen. The default model answers the questions without an image: SmolLM2 as it is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from llava.scratch.talking.seen_records import Turns
from llava.scratch.talking.small_talk import SMALL_TALK

_MAX_NEW_TOKENS = 48
QUESTIONS = (
    "What is the capital of France?;What is the capital of Japan?;What is two plus two?;What is 12 times 3?;"
    "Why is the sky blue?;What is photosynthesis?;How do plants grow?;What is gravity?;What is the largest ocean?;"
    "How many days are in a week?;How many continents are there?;What is the boiling point of water?;"
    "Who wrote Romeo and Juliet?;What is a noun?;What does the word 'ancient' mean?;Give me a synonym for happy.;"
    "Tell me a joke.;Tell me a fun fact.;Write a short poem about the sea.;Write a haiku about winter.;"
    "Write a sentence about friendship.;Give me three tips for better sleep.;How can I learn English?;"
    "What should I cook for dinner?;How do I make tea?;How do I boil an egg?;What is a healthy breakfast?;"
    "Name three fruits.;Name three colors.;Name a famous painter.;What is the tallest mountain?;"
    "What is the fastest animal?;What do bees make?;What do cows eat?;Why do cats purr?;Why do birds sing?;"
    "What is a computer?;What is the internet?;What is a programming language?;"
    "Write a line of Python that prints hello.;"
    "What is the opposite of hot?;Translate 'good morning' into French.;How do you say 'thank you' in Spanish?;"
    "What is the meaning of life?;What is love?;What is music?;Why do people read books?;What is a museum?;"
    "What is money?;What is the sun?;How far away is the moon?;What is a year?;Why do leaves fall in autumn?;"
    "What is rain?;What is snow?;How does a car work?;What is a bicycle?;Why is exercise good?;What is a vitamin?;"
    "How do I write a letter?;How do I tie my shoes?;What is a good name for a dog?;"
    "Do you like music?;What is your favorite color?;Where do penguins live?;What is an elephant?;"
    "What is the currency of Japan?;Who invented the telephone?;What is a triangle?;How many sides has a hexagon?;"
    "What is the color of grass?;What is the color of snow?;Is the earth round?;Can fish fly?;Is water wet?;"
    "Do trees drink water?;Are tomatoes fruits?;Is ice cold?;Explain rain to a child.;Explain electricity simply."
).split(";")


def read_talk(file: Path) -> Turns:
    """The questions with their answers, from what ``main`` wrote, but for those of ``small_talk``."""
    written: dict[str, str] = json.loads(file.read_text("utf-8"))
    return [(question, answer) for question, answer in written.items() if question not in SMALL_TALK]


def main() -> None:
    """Answers all questions and writes them with their answers."""
    import llava

    model, sampling = llava.load_model("talking"), llava.Sampling(max_new_tokens=_MAX_NEW_TOKENS)
    answers = {question: llava.ask(model, question, [], sampling).text for question in QUESTIONS}
    # An answer that was cut would teach to stop in the middle: it is kept to its last whole sentence.
    whole = {question: _end_at_a_sentence(answer) for question, answer in answers.items()}
    kept = {question: answer for question, answer in whole.items() if answer}
    Path(sys.argv[1]).write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _end_at_a_sentence(text: str) -> str:
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1].strip()


if __name__ == "__main__":
    main()
