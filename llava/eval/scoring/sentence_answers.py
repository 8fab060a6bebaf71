"""Scores answers in sentences: "The sign says STOP." is right where STOP is, and so is "STOP". No torch.

One rule for models that answer in a word and for models that talk:

1. Sentences are looked at in their order. The first that holds an accepted answer, or one of the ``others`` (the rival
   answers that the truth names), decides; what a model adds after it does not count.
2. An accepted answer has to stand in it as whole words, not negated, and no rival may stand beside it.
3. Numbers are compared by value, "three" is 3, and the deciding sentence may hold no second number, those of the
   question aside. Yes or no is the answer's first word.
4. A text that was read has to stand alone: in quotes, between punctuation, or beside words that talk about it ("the
   sign says STOP"), so that "STOP NOW" is wrong where the sign says STOP. Between figures and letters a space may be
   or not: "9am" is "9 am".
5. A name without rivals has to be the last word of its phrase: "a cat" names a cat and "a cat food tin" does not. A
   list of guesses is wrong: the first guess counts, and beside it at most one that is not accepted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from typing import NamedTuple

from llava.eval.everyday_kinds import is_everyday
from llava.synth.truth import Truth

_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')]))\s+(?=[\"'(]?[A-Za-z])|\n+(?=\W*[A-Za-z])")
_TOKEN = re.compile(r"[^\s\"()\[\]{}*`<>|;]+")
_EDGES = ".,;:!?'\"()[]{}*`_<>|…"
_NUMBER = re.compile(r"[-+]?[$€£]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?%?")
# A number to which its unit is written, as in "200g": the unit is no part of it. "5C" is a flat and "3D" is no number.
_UNIT = re.compile(r"(?<=\d)(?:[mk]?g|[mc]?l|[kmc]?m|km/h|min|k?wh?|°[cf]?)$")
_COMMA_DECIMAL = re.compile(r"([-+]?[$€£]?\d+),(\d{1,2}[€£]?%?)")
_QUOTED = re.compile(r"\"([^\"]+)\"|(?<![A-Za-z0-9])'([^']+)'(?![A-Za-z0-9])")
_GUESSES = re.compile(r",|;|/|\bor\b|\n")
_WORDS_OF_NUMBERS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
}
_WORDS_OF_NUMBERS["single"] = 1
_ARTICLE = re.compile(r"\b(?:an?|the|some)\b", re.IGNORECASE)
# What follows a thing in a sentence about it, and not in its name.
_VERBS = frozenset(
    "sits stands lies sleeps walks runs flies looks eats plays holds wears hangs rests grows swims jumps faces".split()
)
_NEGATIONS = frozenset("not no never without neither nor isn't aren't wasn't doesn't don't cannot can't".split())


def _read_words(kind: str) -> frozenset[str]:
    """The words of the lines of ``answer_frame.txt`` that begin with that kind."""
    text = resources.files("llava.eval").joinpath("answer_frame.txt").read_text(encoding="utf-8")
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset(word for name, _, words in lines if name == kind for word in words.split())


_IMAGE = "|".join(sorted(_read_words("image"), reverse=True))
# Words that a sentence puts around what it says: a name or a text ends where one of them follows.
_FRAME = _read_words("image") | _read_words("frame")
_NO_GUESS = frozenset(
    "in on at with by near under over behind beside next inside from for which that who where while as to its".split()
)
_LEAD = re.compile(
    rf"^(?:(?:this|that|it|there|these|they|here|the (?:{_IMAGE}|main thing|answer|object)|i|we|you|in|of|{_IMAGE})\b"
    r"\s*(?:in|of)?\s*)*"
    r"(?:(?:is|are|was|shows?|sees?|contains?|depicts?|can see|looks? like|appears? to be|seems? to be|has|'s)\b\s*)*"
    r"(?:(?:likely|probably|maybe|perhaps|also|clearly|just)\b\s*)*(?:(?:an?|the|some|one|two|three|several|many)\b\s*)*",
    re.IGNORECASE,
)
_CANNOT = "tell see say know determine identify read answer find recognize recognise provide give be".split()
_GIVEN = """shown visible given mentioned stated written printed specified provided included indicated present listed
    named available displayed there readable legible""".split()
_TELLS = "show say give mention contain have include state tell list display name provide specify indicate".split()
# Both are searched in a sentence without contractions: "cannot" and "can't" are "can not".
_UNSURE = re.compile(
    rf"\b(?:can|could) not (?:\w+ ){{0,2}}?(?:{'|'.join(_CANNOT)}|make out)\b|\bunable to\b|\bnot able to\b"
    r"|\bdo(?:es)? not (?:know|see|recogni[sz]e)\b|\bnot (?:sure|certain|clear|possible to)\b|\bunclear\b"
    r"|\bimpossible to\b"
    r"|\bno (?:way to|information|idea)\b|\bhard to (?:tell|say)\b|\bnothing (?:that )?i (?:know|recogni[sz]e)\b",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    rf"\b(?:there (?:is|are)|it has|i see|(?:{_IMAGE}|sign|chart|receipt|form) (?:has|shows|contains)) "
    r"(?:no|not|nothing|nobody|none)\b"
    rf"|\bnot (?:\w+ )?(?:{'|'.join(_GIVEN)}|in the (?:{_IMAGE}))\b"
    rf"|\b(?:does|do|is|are|has|have) not (?:\w+ )?(?:{'|'.join(_TELLS)}|an?|any)\b"
    rf"|\bno (?:[\w']+ ){{1,4}}(?:is|are) (?:\w+ )?(?:{'|'.join(_GIVEN)}|in the)\b",
    re.IGNORECASE,
)


class Reading(NamedTuple):
    """How an answer was judged: by an accepted answer, or only by a kind of it; ``why`` is empty where it is right."""

    is_right: bool
    is_kind: bool = False
    why: str = ""


class _Token(NamedTuple):
    text: str
    before: str  # what stands between it and the token before
    after: str


def clean(text: str) -> str:
    """The text with plain quotes and apostrophes, no emphasis, and compatibility characters replaced."""
    text = unicodedata.normalize("NFKC", text)
    for odd, plain in (("’", "'"), ("‘", "'"), ("“", '"'), ("”", '"'), ("«", '"'), ("»", '"'), ("–", "-"), ("−", "-")):
        text = text.replace(odd, plain)
    return re.sub(r"\*\*|__|`", "", text).strip()


def split_sentences(text: str) -> list[str]:
    """The sentences of a cleaned text; a point inside a number, and one that no letter follows, ends none."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part and part.strip()]


def says_it_cannot_tell(answer: str) -> bool:
    """Whether the first sentence says that the model does not know or see what is asked for."""
    return _UNSURE.search(_spell_out(answer)) is not None


def says_it_is_absent(answer: str) -> bool:
    """Whether the first sentence says that the image has no such thing, or does not show it."""
    return _ABSENT.search(_spell_out(answer)) is not None


def _spell_out(answer: str) -> str:
    """The first sentence without contractions, and without what it quotes."""
    sentence = next(iter(split_sentences(clean(answer))), "")
    sentence = re.sub(r"\bcan(?:not|'t)\b", "can not", re.sub(r'"[^"]*"', "", sentence), flags=re.IGNORECASE)
    sentence = re.sub(r"n't\b", " not", sentence, flags=re.IGNORECASE)
    return re.sub(r"'(?:s|m|re)\b", lambda found: {"'m": " am", "'re": " are"}.get(found[0].lower(), " is"), sentence)


def judge(answer: str, truth: Truth, question: str = "") -> Reading:
    """Whether an answer is right, by the rule at the file's top. ``question``: numbers in it are not claims."""
    text = clean(answer)
    if not text:
        return Reading(False, why="empty")
    if truth.form == "cannot tell":
        good = says_it_cannot_tell(text) or says_it_is_absent(text)
        return Reading(good, why="" if good else "it claims an answer")
    if says_it_cannot_tell(text):
        return Reading(False, why="it says that it cannot tell")
    if truth.form == "yes/no":
        return _judge_yes_no(text, truth)
    if truth.form == "number":
        return _judge_number(text, truth, question)
    return _judge_words(text, truth, question)


def _judge_yes_no(text: str, truth: Truth) -> Reading:
    words = [word.strip(_EDGES).lower() for word in text.split()]
    words = [word for word in words if word]
    if not words or words[0] not in ("yes", "no"):
        return Reading(False, why="it begins with neither yes nor no")
    if len(words) > 1 and {"yes", "no"} <= set(words[:3]) and words[1] in ("yes", "no", "or", "and"):
        return Reading(False, why="it says both")
    good = words[0] == truth.answers[0].lower()
    return Reading(good, why="" if good else f"it says {words[0]}")


def parse_number(token: str) -> float | None:
    """A token's value: digits with thousands separators, a sign of currency or per cent, or a word up to twenty.

    A comma before one or two last digits is a decimal one: 7,80 is 7.8. A unit that is written to it is left out: 200g
    is 200. None for other tokens, and for codes with a leading zero.
    """
    word = _UNIT.sub("", token.strip(_EDGES).lower())
    if match := _COMMA_DECIMAL.fullmatch(word):
        word = f"{match[1]}.{match[2]}"
    if word in _WORDS_OF_NUMBERS:
        return float(_WORDS_OF_NUMBERS[word])
    if not _NUMBER.fullmatch(word):
        return None
    digits = re.sub(r"[$€£,%+]", "", word)
    return None if re.match(r"-?0\d", digits) else float(digits)


def _numbers(text: str) -> list[float]:
    return [value for token in _TOKEN.findall(text) if (value := parse_number(token)) is not None]


def _judge_number(text: str, truth: Truth, question: str) -> Reading:
    wanted = [parse_number(answer) for answer in truth.answers]
    asked = set(_numbers(clean(question))) - set(wanted)
    for sentence in split_sentences(text):
        head, colon, _ = sentence.partition(":")
        found = [value for value in _numbers(sentence) if value not in asked]
        if colon and (early := [value for value in _numbers(head) if value not in asked]):
            found = early  # "There are 3 stars: 1 red and 2 blue."
        if not found:
            continue
        if len(set(found)) > 1:
            return Reading(False, why="it gives several numbers")
        good = any(want is not None and abs(found[0] - want) <= truth.tolerance + 1e-9 for want in wanted)
        if good and _is_negated(sentence):
            return Reading(False, why="it is negated")
        return Reading(good, why="" if good else f"it says {found[0]:g}")
    if "no" in text.lower().split()[:4] and 0.0 in wanted:
        return Reading(True)
    return Reading(False, why="it gives no number")


def _is_negated(sentence: str) -> bool:
    return re.search(r"\b(?:not|isn't|aren't|never)\b", sentence, re.IGNORECASE) is not None


def _tokenize(text: str) -> list[_Token]:
    """The words of a text without the punctuation around them, each with that punctuation."""
    found: list[tuple[str, int, int]] = []
    for match in _TOKEN.finditer(text):
        raw = match[0]
        word = raw.strip(_EDGES)
        if word.lower().endswith("'s") and len(word) > 3:
            word = word[:-2]
        if word:
            start = match.start() + raw.index(word)
            found.append((word, start, start + len(word)))
    tokens = []
    for i, (word, start, end) in enumerate(found):
        before = text[found[i - 1][2] if i else 0 : start]
        after = text[end : found[i + 1][1] if i + 1 < len(found) else len(text)]
        tokens.append(_Token(word, before, after))
    return tokens


def _same(a: str, b: str, truth: Truth) -> bool:
    if truth.form == "text":
        if truth.keeps_case:
            return a == b
        if a.lower() == b.lower():
            return True
        first, second = parse_number(a), parse_number(b)
        return first is not None and first == second and a.lower() not in _WORDS_OF_NUMBERS
    if len(b) == 1:  # a bar that is called A is not the article
        return a == b
    return _singular(a.lower()) == _singular(b.lower())


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return {"mice": "mouse", "geese": "goose", "leaves": "leaf", "knives": "knife", "gray": "grey"}.get(word, word)


def _find(tokens: Sequence[_Token], phrase: str, truth: Truth) -> Iterator[tuple[int, int]]:
    """Where a phrase stands in the tokens: first token and the one after its last."""
    wanted = [token.text for token in _tokenize(clean(phrase))] or [phrase]
    if truth.form == "name":  # "ice-cream", "ice cream"
        wanted = [part for word in wanted for part in word.replace("-", " ").split()]
    for start in range(len(tokens) - len(wanted) + 1):
        if all(_same(tokens[start + i].text, wanted[i], truth) for i in range(len(wanted))):
            yield start, start + len(wanted)


def _is_denied(tokens: Sequence[_Token], start: int) -> bool:
    for i in range(start - 1, max(-1, start - 4), -1):
        if re.search(r"[.,;:]", tokens[i].after):
            return False
        if tokens[i].text.lower() in _NEGATIONS or tokens[i].text.lower().endswith("n't"):
            return True
    return False


def _stands_alone(tokens: Sequence[_Token], start: int, end: int, asked: frozenset[str]) -> bool:
    """Whether punctuation or words that talk about a text surround it, so that it is all that was read.

    Beside a number any word may stand, such as a currency, but no other number.
    """

    def is_free(edge: _Token, neighbour: _Token) -> bool:
        if any(letter.isdigit() for letter in edge.text):
            return not any(letter.isdigit() for letter in neighbour.text)
        return _ends(neighbour, asked)

    before = start == 0 or re.search(r"[\"',:;([]", tokens[start].before) or is_free(tokens[start], tokens[start - 1])
    after = end == len(tokens) or re.search(r"[\"',:;.!?)\]\n]", tokens[end - 1].after)
    return bool(before) and bool(after or is_free(tokens[end - 1], tokens[end]))


def _ends(token: _Token, asked: frozenset[str]) -> bool:
    return token.text.lower() in _FRAME or token.text.lower() in asked


def _is_head(tokens: Sequence[_Token], end: int) -> bool:
    """Whether the phrase that ends there is not the first part of a longer name, as "cat" is of "cat food"."""
    if end == len(tokens) or re.search(r"[,:;.!?\"()\n/-]", tokens[end - 1].after):
        return True
    word = tokens[end].text.lower()
    return word in _FRAME or word in _VERBS or word.endswith(("ing", "ed", "ly"))


def _space_figures(text: str) -> str:
    return re.sub(r"(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])", " ", text)


def _judge_words(text: str, truth: Truth, question: str) -> Reading:
    if truth.form == "text":
        answers, others = (tuple(map(_space_figures, each)) for each in (truth.answers, truth.others))
        # "Red oval." is as right as "The red oval."; an "A" may be a platform's or a gate's.
        answers += tuple(a.partition(" ")[2] for a in answers if a.startswith(("the ", "The ", "a ", "an ")))
        text, truth = _space_figures(text), replace(truth, answers=answers, others=others)
    asked = frozenset(token.text.lower() for token in _tokenize(clean(question)))
    accepted = (*truth.answers, *truth.kinds)
    for sentence in split_sentences(text):
        spread = sentence.replace("-", " ") if truth.form == "name" else sentence
        tokens = _tokenize(spread)
        rivals = _find_rivals(tokens, truth, asked)
        hits = [
            (start, end, answer)
            for answer in accepted
            for start, end in _find(tokens, answer, truth)
            if truth.form == "text" or not _is_denied(tokens, start)
        ]
        if truth.form == "text":
            hits = [hit for hit in hits if _stands_alone(tokens, hit[0], hit[1], asked)]
            quotes = [a or b for a, b in _QUOTED.findall(sentence)]
            if quotes and (hits or rivals):  # what it quotes is what it read
                whole = [quote for quote in quotes if any(_is_whole(quote, answer, truth) for answer in accepted)]
                hits = hits if whole else []
        elif not truth.others:
            hits = [hit for hit in hits if _is_head(tokens, hit[1])]
        if not hits and not rivals:
            continue
        if rivals:
            return Reading(False, why=f"it says {rivals[0]}")
        if truth.form == "name" and not truth.others and (extra := _list_guesses(spread, truth)):
            return Reading(False, why=extra)
        exact = any(answer in truth.answers for _, _, answer in hits)
        return Reading(exact, is_kind=not exact, why="" if exact else "it names only the kind")
    return Reading(False, why="it names something else")


def _is_whole(quote: str, answer: str, truth: Truth) -> bool:
    said, wanted = ([token.text for token in _tokenize(clean(text))] for text in (quote, answer))
    return len(said) == len(wanted) and all(_same(a, b, truth) for a, b in zip(said, wanted, strict=True))


def _find_rivals(tokens: Sequence[_Token], truth: Truth, asked: frozenset[str]) -> list[str]:
    """The ``others`` that stand in the tokens, outside the accepted answers; those that the question names are none."""
    taken = {i for answer in truth.answers for start, end in _find(tokens, answer, truth) for i in range(start, end)}
    rivals = []
    for other in truth.others:
        words = {token.text.lower() for token in _tokenize(clean(other))}
        if words <= asked:
            continue
        for start, end in _find(tokens, other, truth):
            is_inside = set(range(start, end)) <= taken
            if not is_inside and (truth.form == "text" or not _is_denied(tokens, start)):
                rivals.append(other)
    return rivals


def _list_guesses(sentence: str, truth: Truth) -> str:
    """Why a sentence is a list of guesses and not an answer; "" where it is one. See rule 5.

    A guess is a short part that ends in an everyday thing, or has an article of its own: in "a small, brown dog" the
    first part is none.
    """
    parts = [part.strip(" .!?\"'()") for part in _GUESSES.split(sentence)]
    if sentence.count(" and ") > 2:
        parts = [each for part in parts for each in part.split(" and ")]
    parts = [part.removeprefix("and ").strip() for part in parts if part.strip()]
    guesses = []
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        tokens = _tokenize(_LEAD.sub("", part))
        first = part.split()[0].lower() if part else ""
        if not tokens or len(tokens) > 4 or first in _NO_GUESS or first.endswith("ing"):
            continue
        is_thing = is_everyday(_singular(tokens[-1].text.lower()))
        if not is_thing and (not _ARTICLE.search(part) or (following and not _ARTICLE.search(following))):
            continue
        fits = any(
            _is_head(tokens, end) for name in (*truth.answers, *truth.kinds) for _, end in _find(tokens, name, truth)
        )
        guesses.append((" ".join(token.text for token in tokens), fits))
    strangers = [bare for bare, fits in guesses if not fits]
    if guesses and not guesses[0][1] and any(fits for _, fits in guesses[1:]):
        return f"its first guess is {guesses[0][0]}"
    if len(strangers) > 1:
        return f"it lists guesses: {', '.join(strangers[:3])}"
    return ""
