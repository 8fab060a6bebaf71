"""Scores short answers against human answers, by the rules of the VQA challenges.

An answer is normalized first: lower case, no punctuation and no articles, digits for small numbers, contractions with
their apostrophes. The rules are those of the challenges' own evaluation, including its oddities, because published
scores depend on them.

Source: the VQA evaluation (visualqa.org/evaluation.html) in the form of facebookresearch/mmf@c46b3b3
pythia/tasks/processors.py, EvalAIAnswerProcessor; ANLS from "Scene Text Visual Question Answering", ICCV 2019.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from llava.errors import UsageError

NUM_PEOPLE = 10
"""Human answers per question in VQAv2, TextVQA and VizWiz."""

_DIGITS = {
    word: str(value) for value, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
# A form with a missing apostrophe is repaired.
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
# The challenges' code passes a regex flag, which is 32, as the number of replacements.
_MAX_PERIODS = 32


def normalize_answer(answer: str) -> str:
    """The normalized answer, by which two answers are compared."""
    words = lower_and_trim(answer).replace("\n", " ").replace("\t", " ").strip()
    return replace_words(remove_punctuation(words))


def lower_and_trim(text: str) -> str:
    """The text in lower case, without commas and question marks, with a blank before ``'s`` and none at the ends."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def remove_punctuation(text: str) -> str:
    """The text with each mark replaced by a blank, or by nothing if the same mark is next to a blank somewhere.

    Periods are removed except in decimals. In a text that contains a number with a comma, all marks are removed.
    """
    has_long_number = _COMMA_IN_NUMBER.search(text) is not None
    table = {
        ord(mark): "" if has_long_number or f"{mark} " in text or f" {mark}" in text else " " for mark in _PUNCTUATION
    }
    return _PERIOD.sub("", text.translate(table), count=_MAX_PERIODS)


def replace_words(text: str) -> str:
    """The text with small numbers as digits, without articles, with repaired contractions and single blanks."""
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_REPAIRS.get(word, word) for word in words if word not in _ARTICLES)


def score_answers(people: Sequence[str]) -> dict[str, float]:
    """The score of each human answer, 0 to 1, by its normalized form; every other answer scores 0.

    Against nine people, an answer scores a third for each who gave it, at most 1; the result is the mean over the ten
    ways to leave one person out. Raises UsageError unless there are ten answers.
    """
    if len(people) != NUM_PEOPLE:
        raise UsageError(f"{len(people)} people answered a question, but the score is defined for {NUM_PEOPLE}.")
    counts = Counter(map(normalize_answer, people))
    return {
        answer: (num * min(1, (num - 1) / 3) + (NUM_PEOPLE - num) * min(1, num / 3)) / NUM_PEOPLE
        for answer, num in counts.items()
    }


def similarity(answer: str, truth: str) -> float:
    """ANLS of one pair: 1 minus the edit distance per letter of the longer text; 0 if that is below 0.5."""
    one, other = answer.lower().strip(), truth.lower().strip()
    longest = max(len(one), len(other))
    likeness = 1 - count_edits(one, other) / longest if longest else 1.0
    return likeness if likeness >= 0.5 else 0.0


def count_edits(one: str, other: str) -> int:
    """The Levenshtein distance: the fewest insertions, deletions and substitutions between the texts."""
    edits = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        diagonal, edits[0] = edits[0], i
        for j, target in enumerate(other, 1):
            diagonal, edits[j] = edits[j], min(edits[j] + 1, edits[j - 1] + 1, diagonal + (letter != target))
    return edits[-1]
