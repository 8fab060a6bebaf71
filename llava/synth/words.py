"""The text in drawn images: words, names, numbers, codes, prices and dates.

A tenth of the words, chosen by their CRC, is never drawn for training: the held-out suite uses those. The word list is
a sample of SCOWL (see words-licence.txt).
"""

from __future__ import annotations

import random
import zlib
from functools import lru_cache
from importlib import resources

_ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr pl pr sh sl sp st th tr".split()
_VOWELS = "a e i o u a e i o ai ea ee oo ou".split()
_CODAS = ["", "", "", "n", "r", "s", "t", "l", "m", "nd", "rk", "st", "x", "ck"]

# Words that questions and answers are phrased with. They are never drawn, so that the text of an image is always
# spelled letter by letter.
RESERVED = frozenset(
    """red orange yellow green blue purple pink brown gray black white circle square triangle star diamond cross
    hexagon ring yes no top bottom left right center bar bars line lines button sign what how many which text says
    written object objects image chart form receipt window color shape largest smallest larger than above below
    first second third fourth fifth sixth value price name total there""".split()
)


def is_held_out(word: str) -> bool:
    """Whether a word is held out from training: one in ten, by the CRC of its lower-case form."""
    return zlib.crc32(word.lower().encode()) % 10 == 0


@lru_cache(maxsize=2)
def _word_list(held_out: bool) -> tuple[str, ...]:
    text = resources.files("llava.synth").joinpath("words.txt").read_text(encoding="utf-8")
    words = [word for word in text.split() if word not in RESERVED]
    return tuple(word for word in words if is_held_out(word) == held_out)


def draw_word(rng: random.Random, held_out: bool, max_letters: int = 8) -> str:
    """A real word (three in five) or an invented one of 3 to ``max_letters`` letters, in lower, title or upper case."""
    while True:
        if rng.random() < 0.6:
            word = rng.choice(_word_list(held_out))
        else:
            syllables = rng.choice((1, 2, 2, 3))
            word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)) + rng.choice(_CODAS)
        if 3 <= len(word) <= max_letters and is_held_out(word) == held_out and word not in RESERVED:
            break
    style = rng.random()
    return word.title() if style < 0.45 else word.upper() if style < 0.7 else word


def draw_number(rng: random.Random) -> str:
    """A whole number of one to six digits."""
    digits = rng.choice((1, 2, 2, 3, 3, 4, 5, 6))
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


def draw_price(rng: random.Random) -> str:
    """A price from 1.00 to 99.99, with a dollar sign in two of three cases."""
    return rng.choice(("$", "$", "")) + f"{rng.randrange(1, 100)}.{rng.randrange(100):02d}"


def draw_date(rng: random.Random) -> str:
    """A date as DD/MM, DD.MM.YYYY or YYYY-MM-DD, from 1990 to 2039."""
    day, month, year = rng.randrange(1, 29), rng.randrange(1, 13), rng.randrange(1990, 2040)
    return rng.choice((f"{day:02d}/{month:02d}", f"{day:02d}.{month:02d}.{year}", f"{year}-{month:02d}-{day:02d}"))


def draw_code(rng: random.Random) -> str:
    """A code of two to five capital letters, digits and hyphens, such as "B52" or "QX-07"."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    pattern = rng.choice(("A0", "AA00", "A00", "000A", "AA-00", "A0A0", "00-AA", "A-000"))
    return "".join(rng.choice(letters) if c == "A" else str(rng.randrange(10)) if c == "0" else c for c in pattern)


def draw_content(rng: random.Random, held_out: bool, max_letters: int = 8) -> str:
    """The text of a sign or a line: a word, a number, a code or a price, of at most ``max_letters`` characters."""
    kind = rng.random()
    if kind < 0.62:
        return draw_word(rng, held_out, max_letters)
    content = draw_number(rng) if kind < 0.82 else draw_code(rng) if kind < 0.94 else draw_price(rng)
    return content[:max_letters]
