"""Guesses the language of a text: by its script, and for the Latin script by its most frequent words.

Short or mixed texts have no guess; a check that uses it has to let them pass.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# Scripts that tell the language, by the first word of the characters' Unicode names.
_SCRIPTS = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "CYRILLIC": "ru",
    "ARABIC": "ar",
    "HEBREW": "he",
    "DEVANAGARI": "hi",
    "THAI": "th",
    "GREEK": "el",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "LATIN": "latin",
}
_FREQUENT = {
    "en": "the of and is in to a what this it that are on how with for does you can i be as there image was which has",
    "de": "der die das und ist nicht ein eine auf dem den was wie zu von mit im ich sie es für auch sind bild wird",
    "fr": "le la les des est et une un que dans ce qui sur pas il cette quelle quel pour avec sont du au vous nous",
    "es": "el la los las es y en un una que qué de del por para con se no cuál como cómo está este esta hay imagen",
    "it": "il lo la gli le è e di che un una in per con non del della cosa qual come questo questa sono nel immagine",
    "pt": "o a os as é e um uma que de do da em no na para com não qual como este esta são imagem você ao pelo",
    "nl": "de het een en is van in op te dat wat niet met voor zijn er aan die deze hoe ik je afbeelding naar",
    "pl": "i w na jest nie to się z do co jak że są czy ten ta po od dla obraz który",
    "tr": "bir ve bu ne mi mı için ile da de nedir var çok olan gibi resim nasıl hangi",
    "vi": "là và của có trong này gì một những được cho không với các ảnh người đây",
    "id": "yang dan di ini itu apa adalah dengan untuk dari pada gambar tidak ada dalam",
    "sv": "och är det en ett att som på i av vad inte den för med hur bild",
}
_WORDS = {language: frozenset(words.split()) for language, words in _FREQUENT.items()}

# How a text asks for an answer in a language, or names one, in that language or in English.
_NAMES = {
    "en": r"english|inglés|anglais|englisch|inglese|inglês|英语|英文|英語|영어|английск\w*",
    "zh": r"chinese|mandarin|cantonese|chinesisch|chinois|中文|汉语|漢語|中国語|普通话|粤语|китайск\w*",
    "ja": r"japanese|japanisch|japonais|日本語|日语|日文|японск\w*",
    "ko": r"korean|koreanisch|한국어|韩语|韓国語|корейск\w*",
    "de": r"german|deutsch\w*|alemán|allemand|tedesco|德语|ドイツ語|немецк\w*",
    "fr": r"french|français\w*|französisch|francés|francese|法语|フランス語|французск\w*",
    "es": r"spanish|español\w*|espagnol|spanisch|西班牙语|スペイン語|испанск\w*",
    "it": r"italian\w*|italienisch|意大利语|イタリア語",
    "pt": r"portuguese|português|portugiesisch|葡萄牙语",
    "ru": r"russian|русск\w*|russisch|russe|ruso|俄语|ロシア語",
    "ar": r"arabic|arabe|arabisch|العربية|阿拉伯语",
    "hi": r"hindi|हिन्दी|हिंदी|印地语",
    "nl": r"dutch|nederlands|niederländisch",
    "pl": r"polish|polski\w*|polnisch",
    "tr": r"turkish|türkçe|türkisch",
    "vi": r"vietnamese|tiếng việt|越南语",
    "th": r"thai|ภาษาไทย|泰语",
    "id": r"indonesian|bahasa",
    "sv": r"swedish|svenska",
}
_NAMED = {language: re.compile(rf"(?i)(?<![^\W_])(?:{names})") for language, names in _NAMES.items()}
_CHANGES = re.compile(r"(?i)\btranslat\w*|\bübersetz\w*|\btradu[icz]\w*|翻译|翻譯|訳し|번역|перевод|переведи")


def guess_language(text: str) -> str | None:
    """The ISO 639-1 code of the text's language; None for a text that is short or unclear."""
    scripts: Counter[str] = Counter()
    for letter in text[:4000]:
        if letter.isalpha():
            name = unicodedata.name(letter, "").partition(" ")[0]
            scripts[_SCRIPTS.get(name, "other")] += 1
    num = sum(scripts.values())
    if not num:
        return None
    if scripts["ja"] and scripts["ja"] + scripts["zh"] > num / 2:
        return "ja"  # Japanese is written with both
    script, most = scripts.most_common(1)[0]
    if script == "other" or most < 0.6 * num:
        return None
    if script != "latin":
        return script if most >= 2 else None
    return _guess_latin(text)


def _guess_latin(text: str) -> str | None:
    words = re.findall(r"[^\W\d_]+", text[:4000].lower())
    if len(words) < 3:
        return None
    scores = {language: sum(word in known for word in words) for language, known in _WORDS.items()}
    (best, most), (_, second) = Counter(scores).most_common(2)
    return best if most >= 2 and most >= 1.3 * second and most / len(words) > 0.12 else None


def wanted_languages(question: str) -> set[str]:
    """The languages in which the question may be answered; empty if any is right or the question's is unknown."""
    own = guess_language(question)
    if own is None or _CHANGES.search(question):
        return set()
    return {own, *(language for language, names in _NAMED.items() if names.search(question))}
