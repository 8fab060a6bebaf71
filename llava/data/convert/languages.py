"""Which language a text is in: by its script, and, in the Latin script, by its most frequent words. No dependency.

Good for the filter that Vicuna's data went through (which kept or dropped whole conversations), not for single words.

Source: lm-sys/FastChat@02d4581 fastchat/data/optional_clean.py, which asks polyglot (cld2); the words below are the
most frequent function words of each language.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

UNKNOWN = "unknown"

# Words that are frequent in one language and rare in the others.
_WORDS = {
    "en": "the and is are was of to that this with for you it have not what how your they which will can be from",
    "es": "el los las una que por para con no se del está es como pero más qué sus este son muy también",
    "fr": "les des une est pour dans que vous pas avec sur ce qui sont nous plus être cette aux du",
    "de": "der die und das ist nicht ein eine mit für auf den sie von wie werden auch sich zu wird ich dem",
    "pt": "os não uma para com você que mais como são por seu sua dos das está ao também isso",
    "it": "il che di per non una sono con gli della come più del nel questo anche le è",
    "nl": "het een van en niet dat voor met zijn is op te aan ook worden naar je wordt",
    "pl": "się nie jest na do że w i to z jak oraz dla od które może",
    "tr": "bir ve için bu ile olarak da de daha gibi olan çok ne",
    "vi": "của và là có trong được không cho một các này với để",
    "id": "yang dan di untuk dengan ini dari pada tidak dalam adalah akan itu atau",
}
_LANGUAGES_OF: dict[str, set[str]] = {}
for _language, _words in _WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, set()).add(_language)

# The script of a letter, by how its Unicode name begins.
_SCRIPTS = {
    "HANGUL": "ko", "HIRAGANA": "ja", "KATAKANA": "ja", "CJK": "zh", "CYRILLIC": "ru", "ARABIC": "ar", "HEBREW": "he",
    "GREEK": "el", "THAI": "th", "DEVANAGARI": "hi", "BENGALI": "bn", "TAMIL": "ta", "LATIN": "latin",
}  # fmt: skip
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_MOST_CHARACTERS = 20_000


def guess_language(text: str) -> str:
    """The language as a code ("en", "ko", "zh"), or ``UNKNOWN``. Blocks of code are not counted."""
    text = _CODE.sub(" ", text[:_MOST_CHARACTERS]) or text[:_MOST_CHARACTERS]
    scripts = Counter(_name_script(letter) for letter in text if letter.isalpha())
    scripts.pop("", None)
    if not scripts:
        return UNKNOWN
    # A Chinese or Japanese character says as much as several letters.
    weights = {name: count * (1 if name == "latin" else 3) for name, count in scripts.items()}
    if weights.get("ja", 0) > 0.1 * weights.get("zh", 0):  # kana, however few: Japanese
        weights["ja"] += weights.pop("zh", 0)
    language = max(weights, key=lambda name: weights[name])
    return _guess_by_words(text) if language == "latin" else language


def _name_script(letter: str) -> str:
    if letter < "\u0250":
        return "latin"
    return _SCRIPTS.get(unicodedata.name(letter, "").split(" ")[0], "")


def _guess_by_words(text: str) -> str:
    votes: Counter[str] = Counter()
    for word in re.findall(r"[^\W\d_]+", text.lower()):
        languages = _LANGUAGES_OF.get(word, ())
        for language in languages:
            votes[language] += 12 // len(languages)
    if not votes:
        return UNKNOWN
    return max(votes, key=lambda language: votes[language])
