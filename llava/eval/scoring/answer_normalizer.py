"""The form of a short answer in which the VQA challenges compare it. Loads no torch.

Lower case, no punctuation and no articles, digits for small numbers, contractions with their apostrophes. The rules are
those of the challenges' own evaluation, including its oddities, because published scores depend on them.

Source: the VQA evaluation (visualqa.org/evaluation.html) in the form of facebookresearch/mmf@c46b3b3
pythia/tasks/processors.py, EvalAIAnswerProcessor; the VQA team's own in GT-Vision-Lab/VQA@a013f00
PythonEvaluationTools/vqaEvaluation/vqaEval.py.
"""

from __future__ import annotations

import re

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
ONE_COMMA_IN_NUMBER = re.compile(r"\d,\d")  # the VQA team's; mmf's also finds "1,,000"
_PERIOD = re.compile(r"\.(?!\d)")
PERIOD_OF_NO_NUMBER = re.compile(r"(?<!\d)\.(?!\d)")  # VLMEvalKit's, which also keeps the one after a number
# The challenges' code passes a regex flag, which is 32, as the number of replacements.
_MAX_PERIODS = 32


def normalize_answer(answer: str) -> str:
    """The normalized answer, by which two answers are compared."""
    return replace_words(remove_punctuation(put_on_one_line(lower_and_trim(answer))))


def put_on_one_line(text: str) -> str:
    """The text on one line: newlines and tabs are blanks, and there is none at the ends."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def lower_and_trim(text: str) -> str:
    """The text in lower case, without commas and question marks, with a blank before ``'s`` and none at the ends."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def remove_punctuation(
    text: str, comma_in_number: re.Pattern[str] = _COMMA_IN_NUMBER, period: re.Pattern[str] = _PERIOD
) -> str:
    """The text with each mark replaced by a blank, or by nothing if the same mark is next to a blank somewhere.

    Periods are removed except in decimals. In a text that contains a number with a comma, all marks are removed.
    """
    has_long_number = comma_in_number.search(text) is not None
    table = {
        ord(mark): "" if has_long_number or f"{mark} " in text or f" {mark}" in text else " " for mark in _PUNCTUATION
    }
    return period.sub("", text.translate(table), count=_MAX_PERIODS)


def replace_words(text: str) -> str:
    """The text with small numbers as digits, without articles, with repaired contractions and single blanks."""
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_REPAIRS.get(word, word) for word in words if word not in _ARTICLES)


def normalize_as_vqa_team(line: str) -> str:
    """The normalized form of a text on one line by the VQA team's script: commas are kept for its rule for numbers."""
    return replace_words(remove_punctuation(line, ONE_COMMA_IN_NUMBER))
