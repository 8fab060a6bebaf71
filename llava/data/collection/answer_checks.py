"""Checks a teacher's answer: whether somebody may learn from it, and if not, why.

An answer is refused that is empty, cut off, a refusal, in another language than asked, a loop of the same words, a
repetition of the question, markup of a template, or that holds personal data or harm of its own.
"""

from __future__ import annotations

import re
import zlib

from llava.data.collection.chat_logs import SLOT
from llava.data.collection.language_guess import guess_language, wanted_languages
from llava.data.harm import HarmRule, find_harm
from llava.data.privacy import find_private
from llava.text import find_flaw

_CUT = ("length", "max_tokens")
_FILTERED = ("content_filter", "safety", "refusal")
_COMPLETE = (None, "stop", "eos", "eos_token", "end_turn", "stop_sequence")

# What is refused, in the words that assistants refuse with. "I cannot see a dog" is no refusal: it answers.
_HELP = (
    "help|assist|comply|fulfil|fulfill|do that|provide|answer|discuss|identify|engage|support|process|participate|"
    "create|generate|continue|share|respond|view images|see images|analy[sz]e images|access images|look at images"
)
_CANNOT = (
    "can ?not|can't|won't|will not|am unable to|'m unable to|am not able to|'m not able to|unable to|not able to|"
    "must decline to|have to decline to|do not feel comfortable|don't feel comfortable"
)
_REFUSAL = re.compile(
    rf"(?i)\bi(?: am|'m)? ?(?:{_CANNOT})\b.{{0,40}}?\b(?:{_HELP})\b"
    r"|\bas an? (?:ai|artificial intelligence|large language model|language model)\b|\bas a language model\b"
    r"|\bagainst (?:my|our|openai's|the) (?:guidelines|policy|policies|programming|principles)\b"
    r"|\bi don't have the (?:ability|capability) to\b|\bi'm just an ai\b"
    r"|(?:抱歉|对不起|對不起|很遗憾).{0,12}(?:无法|不能|不便|無法)|作为(?:一个|一名)?(?:AI|人工智能|语言模型)"
    r"|申し訳(?:ありません|ございません).{0,30}(?:できません|お手伝い)|죄송.{0,30}(?:수 없|도와)"
    r"|\b(?:lo siento|lo lamento).{0,20}(?:no puedo|no me es posible)"
    r"|\bcomo (?:una )?(?:ia|inteligencia artificial|modelo de lenguaje)\b"
    r"|\b(?:je suis désolée?|désolée?).{0,20}(?:je ne peux|impossible)|\ben tant qu[e'] ?(?:ia|intelligence|modèle)"
    r"|\b(?:es tut mir leid|tut mir leid|leider).{0,30}(?:kann ich|nicht helfen|nicht möglich)"
    r"|\bals (?:ki|sprachmodell|künstliche)\b"
    r"|\bmi dispiace.{0,20}non posso|\bdesculpe?.{0,20}não posso"
    r"|\bк сожалению.{0,30}не могу|\bя не могу (?:помочь|выполнить|ответить)"
)
# Questions whose answer quotes the image, in its language.
_READING = re.compile(
    r"(?i)\b(?:say|says|said|read|reads|written|writing|text|transcribe|transcription|ocr|caption|spell|words?|letters?|"
    r"title|label|name|sign|quote|lyrics|steht|geschrieben|écrit|lis|dice|escrito|scritto)\b|文字|写着|写的|读|書いて|내용|написано"
)
_LEAST_WORDS = 8  # a shorter answer may be a name
_REFUSED_WITHIN = 240  # characters from the start: later ones are quotations and caveats
_MARKUP = re.compile(r"<\|[a-z_]+\|>|</?s>|\[/?INST\]|(?:^|\s)ASSISTANT:|^(?:USER|Human|###)\s*:|<image>")
_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)
_LOOP_FROM, _LOOP_RATIO = 200, 0.12  # characters, compressed size by size: fluent text compresses to a third


def strip_thoughts(answer: str) -> str:
    """The answer without the reasoning that some models write before it, and without outer blanks."""
    return _THOUGHT.sub("", answer, count=1).strip() if answer.lstrip().startswith("<think>") else answer.strip()


def find_fault(
    question: str,
    answer: str,
    finish_reason: str | None,
    rules: tuple[HarmRule, ...] = (),
    *,
    languages: frozenset[str] = frozenset(),
    least_characters: int = 1,
    most_characters: int = 20_000,
) -> str:
    """Why the answer cannot be used, "" for a good one.

    Args:
        finish_reason: why the teacher stopped.
        rules: harm that the answer must not hold.
        languages: in which every answer has to be; by default that of its question, or one that the question names.
    """
    if finish_reason in _FILTERED:
        return "a refusal (the teacher's own filter)"
    if len(answer) < least_characters or not any(letter.isalnum() for letter in answer):
        return "empty" if not answer else "too short"
    if finish_reason in _CUT:
        return "cut off (finish_reason length)"
    if finish_reason not in _COMPLETE:
        return f"ended by {str(finish_reason)[:40]!r}"
    if len(answer) > most_characters:
        return "too long"
    if find_flaw(answer) is not None or SLOT in answer or _MARKUP.search(answer):
        return "markup or control characters"
    if _REFUSAL.search(answer[:_REFUSED_WITHIN]):
        return "a refusal"
    if is_loop(answer):
        return "a loop of the same words"
    if _bare(answer) == _bare(question):
        return "a repetition of the question"
    if _is_foreign(question, answer, languages):
        return "in another language than asked"
    if kinds := find_private(answer):
        return f"personal data: {kinds[0]}"
    if names := find_harm(answer, rules):
        return f"harm: {names[0]}"
    return ""


def _is_foreign(question: str, answer: str, languages: frozenset[str]) -> bool:
    """Whether the answer is in another language than it should be; False where that is unclear."""
    language = guess_language(answer)
    if languages:
        return language is not None and language not in languages
    wanted = wanted_languages(question)
    is_quotation = _READING.search(question) is not None or (answer.isascii() and len(answer.split()) < _LEAST_WORDS)
    return bool(wanted) and language is not None and language not in wanted and not is_quotation


def is_loop(answer: str) -> bool:
    """Whether the answer says the same again and again, as models do that fail to end."""
    words = answer.split()
    if len(words) >= 6 and len(set(words)) <= 2:
        return True
    if len(answer) < _LOOP_FROM:
        return False
    data = answer[:20_000].encode()
    return len(zlib.compress(data)) / len(data) < _LOOP_RATIO


def _bare(text: str) -> str:
    return re.sub(r"\W+", "", text.casefold())
