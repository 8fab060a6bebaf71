"""Scenes as conversations in LLaVA's own data format.

A conversation starts with the image and asks questions of different tasks; half of them also ask for a caption or a
transcription. A few questions cannot be answered from the image, and their answer says so.
"""

from __future__ import annotations

import random

from llava.synth.scene import Scene

CAPTION_REQUESTS = (
    "Describe the picture.",
    "Describe the image.",
    "What is in the picture?",
    "What do you see?",
    "What is in this picture?",
    "What is in this image?",
)
READING_REQUESTS = ("Read all the text.", "What text is in the picture?", "What is written in the picture?")
# What people ask that these images cannot answer. One in five is kept for the held-out suite.
OFF_TOPIC = (
    "Who is the president?",
    "What is the capital of France?",
    "Tell me a joke.",
    "Who painted this?",
    "What is the weather like?",
    "What breed is the dog?",
    "How old is the man?",
    "What is the woman wearing?",
    "Where was this photo taken?",
    "Who took this photo?",
    "Is the person happy?",
    "What is the cat doing?",
    "What should I cook for dinner?",
    "Write a poem.",
    "Translate it into German.",
    "What car is this?",
    "Which city is this?",
    "What year was this taken?",
    "Who is in the photo?",
    "How do I get to the station?",
    "What is the meaning of life?",
    "Is it raining?",
    "What animal is this?",
    "What kind of food is this?",
    "Can you write code?",
    "Who won the game?",
    "How tall is the building?",
    "What is the name of the mountain?",
    "Is the child smiling?",
    "What sport is this?",
    "What are the things I should be cautious about when I visit here?",
    "What is unusual about this image?",
    "Who are you?",
    "What is two plus two?",
    "Do you like music?",
)
OFF_TOPIC_ANSWER = "I cannot tell from this picture."


def off_topic_questions(held_out: bool) -> tuple[str, ...]:
    """The off-topic questions of the held-out suite, one in five, or those of training."""
    return tuple(question for i, question in enumerate(OFF_TOPIC) if (i % 5 == 4) == held_out)


def choose_turns(rng: random.Random, scene: Scene, num_turns: int, caption_rate: float = 0.5) -> list[tuple[str, str]]:
    """Up to ``num_turns`` (question, answer) pairs about a scene, of as many different tasks as possible.

    ``caption_rate``: the probability that one of them asks for the caption. In 9 % of all conversations an off-topic
    question is added to the ``num_turns``.
    """
    caption: list[tuple[str, str]] = []
    if rng.random() < caption_rate:
        requests: tuple[str, ...] = CAPTION_REQUESTS
        if scene.caption.startswith("The text says") and rng.random() < 0.4:
            requests = READING_REQUESTS
        caption = [(rng.choice(requests), scene.caption)]
    turns = shuffle_turns(rng, scene)[: max(1, num_turns - len(caption))]
    # Mostly last: a question after a caption can be answered from its words, without looking at the image.
    turns = caption + turns if rng.random() < 0.3 else turns + caption
    if rng.random() < 0.09:
        turns.insert(rng.randint(0, len(turns)), (rng.choice(off_topic_questions(False)), OFF_TOPIC_ANSWER))
    return turns


def shuffle_turns(rng: random.Random, scene: Scene) -> list[tuple[str, str]]:
    """All (question, answer) pairs in random order, but no task comes twice before every task has come once."""
    questions = list(scene.turns)
    rng.shuffle(questions)
    ranks: dict[str, int] = {}
    ranked = []
    for turn in questions:
        ranks[turn.task] = ranks.get(turn.task, 0) + 1
        ranked.append((ranks[turn.task], turn))
    # The sort is stable, by each turn's number within its task.
    ranked.sort(key=lambda pair: pair[0])
    return [(turn.question, turn.answer) for _, turn in ranked]


def ask_as_dataset(rng: random.Random, scene: Scene, num_turns: int, sentence: str) -> list[tuple[str, str]]:
    """Up to ``num_turns`` pairs as a dataset's converter writes them: ``sentence``, its answer format, comes once.

    It follows the first question, or takes its place where that is empty.
    """
    turns = shuffle_turns(rng, scene)[: max(1, num_turns)]
    (question, answer), *rest = turns
    first = "\n".join(part for part in (question, sentence) if part) or READING_REQUESTS[0]
    return [(first, answer), *rest]


def as_conversations(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    """LLaVA's ``conversations`` list; the first human turn starts with ``<image>``."""
    conversations = []
    for i, (question, answer) in enumerate(turns):
        conversations.append({"from": "human", "value": f"<image>\n{question}" if i == 0 else question})
        conversations.append({"from": "gpt", "value": answer})
    return conversations
