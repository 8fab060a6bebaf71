"""Short answers compared with what people said, as the VQA challenges compare them.

An answer is put into a plain form first: small letters, no punctuation and no articles, digits for small numbers,
contractions with their apostrophes. The rules are those of the challenges' own evaluation, oddities included, because
published scores were made with them.

Source: the VQA evaluation (visualqa.org/evaluation.html) in the form of facebookresearch/mmf@c46b3b3
pythia/tasks/processors.py, EvalAIAnswerProcessor; ANLS from "Scene Text Visual Question Answering", ICCV 2019.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from llava.errors import UsageError

NUM_PEOPLE = 10
"""How many people answered each question of VQAv2, TextVQA and VizWiz."""

_DIGITS = {
    word: str(value) for value, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
# What is written without one of its apostrophes gets it back.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
""".split()
_REPAIRS = {
    form[:i] + form[i + 1 :]: form for form in _CONTRACTIONS for i, letter in enumerate(form) if letter == "'"
} | {"somebody'd": "somebodyd"}

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")
# The challenges' code passes a flag where the number of removals goes, and that flag is 32.
_MAX_PERIODS = 32


def normalize_answer(answer: str) -> str:
    """The plain form in which two answers are equal."""
    words = lower_and_trim(answer).replace("\n", " ").replace("\t", " ").strip()
    return replace_words(remove_punctuation(words))


def lower_and_trim(text: str) -> str:
    """Small letters, without commas and question marks, a blank before ``'s``, none at the ends."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def remove_punctuation(text: str) -> str:
    """A mark becomes a blank, or nothing if one of its kind stands beside a blank; periods go, but for decimals.

    All marks become nothing where the text has a number with a comma in it.
    """
    has_long_number = _COMMA_IN_NUMBER.search(text) is not None
    table = {
        ord(mark): "" if has_long_number or f"{mark} " in text or f" {mark}" in text else " " for mark in _PUNCTUATION
    }
    return _PERIOD.sub("", text.translate(table), count=_MAX_PERIODS)


def replace_words(text: str) -> str:
    """Small numbers as digits, no articles, contractions with their apostrophes, one blank between words."""
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_REPAIRS.get(word, word) for word in words if word not in _ARTICLES)


def score_answers(people: Sequence[str]) -> dict[str, float]:
    """What each answer that somebody gave is worth, 0 to 1, by its plain form; every other answer is worth 0.

    Beside nine of the ten people an answer is worth a third for each who gave it, at most 1; this is the mean over
    the ten ways to leave one out. Raises UsageError unless there are ten.
    """
    if len(people) != NUM_PEOPLE:
        raise UsageError(f"{len(people)} people answered a question, but the score is defined for {NUM_PEOPLE}.")
    counts = Counter(map(normalize_answer, people))
    return {
        answer: (num * min(1, (num - 1) / 3) + (NUM_PEOPLE - num) * min(1, num / 3)) / NUM_PEOPLE
        for answer, num in counts.items()
    }


def similarity(answer: str, truth: str) -> float:
    """ANLS of one pair: 1 less the edits between the two per letter of the longer; 0 where that is below a half."""
    one, other = answer.lower().strip(), truth.lower().strip()
    longest = max(len(one), len(other))
    likeness = 1 - count_edits(one, other) / longest if longest else 1.0
    return likeness if likeness >= 0.5 else 0.0


def count_edits(one: str, other: str) -> int:
    """The fewest letters to insert, delete or replace to make one text the other (Levenshtein's distance)."""
    edits = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        diagonal, edits[0] = edits[0], i
        for j, target in enumerate(other, 1):
            diagonal, edits[j] = edits[j], min(edits[j] + 1, edits[j - 1] + 1, diagonal + (letter != target))
    return edits[-1]
