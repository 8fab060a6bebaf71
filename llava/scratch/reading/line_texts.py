"""What drawn lines say: words, names, numbers, prices, dates, codes, addresses, sentences and random characters.

Words come from Debian's word list (wamerican) and llava.synth's. The tenth of all words that ``llava.synth.words``
holds out by its hash is never drawn for training, and only that tenth for the held-out test.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from pathlib import Path

from llava.errors import UsageError
from llava.scratch.reading.reading_fonts import Face
from llava.synth import words
from llava.synth.texts import FORM_KEYS, RECEIPT_ITEMS

_EVERYDAY = """the of and to in is you that it he was for on are as with his they I at be this have from or one had by
word but not what all were we when your can said there use an each which she do how their if will up other about out
many then them these so some her would make like him into time has look two more write go see number no way could people
my than first water been call who oil its now find long down day did get come made may part open closed exit entrance
push pull sale free new hotel cafe restaurant bar shop store market street road avenue station bus train airport gate
parking police hospital school library museum park bank pharmacy bakery coffee tea pizza burger menu today daily only
special offer discount off price total subtotal tax cash card change receipt invoice date thank thanks please welcome
hello menu stop danger warning caution keep clear wet floor no entry smoking private staff only men women toilets help
file edit view insert format tools window save cancel ok apply close search settings profile login sign up password
username email address name phone city country zip code submit next back home page month year week monday tuesday
wednesday thursday friday saturday sunday january february march april june july august september october november
december jan feb mar apr jun jul aug sep oct nov dec mon tue wed thu fri sat sun north south east west left right level
score speed height weight size color sales revenue profit cost growth population temperature rainfall distance average
mean median percent share value count index quarter region product category group test train error accuracy loss epoch
model data figure table chart report summary title author chapter section appendix note example
question answer""".split()
_ACCENTED = "Café naïve Müller résumé Zürich crème fête España São señor über schön Größe façade Ålesund Malmö".split()
_FIRST_NAMES = """Anna Ben Clara David Emma Felix Grace Henry Ivy Jack Kate Liam Maria Noah Olivia Peter Quinn Rosa Sam
Tom Uma Victor Wendy Xavier Yara Zoe James Sarah Laura Paul Mark Nina Oscar Alice Bob Carol Daniel Eve""".split()
_CURRENCIES = ("$", "$", "$", "€", "€", "£", "£", "¥", "")
_UNITS = "kg g km cm mm m °C °F ° ml l h min s km/h GB MB px Hz V W m² pcs €".split()
_COMPANIES = "Ltd. Inc. GmbH Street Road St. Ave Hotel Bar Café Shop".split()
# A is a capital, a a small letter, 0 a digit.
_PATTERNS = [
    pattern.strip()
    for pattern in """+00 000 0000000|(000) 000-0000|000-0000|0000 000000|000 000 000|+0-000-000-0000|00000|AA-0000|A0|
    AA 000 AA|AAA-000|0000-0000-0000-0000|A00-A00|AA00AAA|000-00-0000|#A0A0A0|AA0000|**** 0000|A-00|0A|00A|AAA 0000|A|
    aa00-aaa|a0a0a0a0|a0.0.0|0.0.0.00|0000:0000|00000-000|ISBN 000-0-00-000000-0|00/00|(0)|[00]|0)|0.|A.0|No. 000|
    Nr. 00|(a)|a)|A:|0""".split("|")
]
_POOLS = (
    string.ascii_letters,
    string.ascii_letters + string.digits,
    string.digits,
    string.ascii_uppercase + string.digits,
    "".join(map(chr, range(33, 127))),
    "Il1|!iO0oQD5S8B2Z6G9gq",
    "-.,:;'\"_/\\()[]{}%&+*=<>~^`#@$|?!",
    "€£¥°·•×±©®½²³éèêàáâäöüßñçåøíóúÉÖÄÜ→✓—" + string.ascii_letters,
)
_CODE_LINES = (
    "def {a}({b}, {c}):",
    "    return {a}[{n}]",
    "for {a} in range({n}):",
    "if ({a} == {n}) {{",
    'print("{a} {b}")',
    "import {a}",
    "{a}.{b}({c})",
    "const {a} = {n};",
    "#include <{a}.h>",
    "{a} += {b} * {n}",
    "}} else {{",
    "let {a}: {b} = {{}}",
    "SELECT {a} FROM {b} WHERE {c} > {n};",
    "$ {a} --{b} {n}",
    "git {a} -m '{b}'",
    '<{a} class="{b}">',
    "{a}_{b} = [{n}, {n}]",
    "self.{a} = {b} or None",
    "# {a} {b} {c}",
    "// {a} {b}",
    "/usr/{a}/{b}.txt",
    "C:\\{a}\\{b}",
    "while {a} != {n} && !{b}:",
    "@{a}",
    "x = {n} % {n} ^ {n} | {n}",
    "~/{a}/{b}",
)


class LineTexts:
    """Draws lines' texts. ``word_list``: the path of a file with a word a line, such as Debian's american-english."""

    def __init__(self, word_list: Path, held_out: bool) -> None:
        if not word_list.is_file():
            raise UsageError(f"There is no word list at {word_list}: unpack Debian's package wamerican there.")
        rows = word_list.read_text(encoding="utf-8").split()
        usable = (w for w in rows if w.isascii() and w.isalpha() and 2 <= len(w) <= 12 and not w[1:].isupper())
        self.held_out = held_out
        self.rare = [w for w in usable if words.is_held_out(w) == held_out]
        self.everyday = [w for w in _EVERYDAY if words.is_held_out(w) == held_out]

    def word(self, rng: random.Random) -> str:
        """A word in lower, title or upper case, sometimes invented."""
        kind = rng.random()
        if kind < 0.35 and not self.held_out:
            word = rng.choice(self.everyday)
        elif kind < 0.55:
            word = words.draw_word(rng, self.held_out, 10)
        elif kind < 0.57 and not self.held_out:
            word = rng.choice(_ACCENTED)
        else:
            word = rng.choice(self.rare)
        style = rng.random()
        return (
            word.lower() if style < 0.42 else word.title() if style < 0.75 else word.upper() if style < 0.95 else word
        )

    def draw(self, rng: random.Random, max_characters: int = 60) -> str:
        """A line of text of at most that many characters."""
        (kind,) = rng.choices(list(_KINDS), [weight for _, weight in _KINDS.values()])
        text = _KINDS[kind][0](self, rng).strip()
        if len(text) > max_characters:
            text = text[:max_characters].rsplit(" ", 1)[0].strip() or text[:max_characters]
        return text or str(rng.randrange(100))


def fit_to_face(text: str, face: Face) -> str:
    """The text as that face can show it: in capitals where it has no small letters, without characters it lacks."""
    if face.is_capitals_only:
        text = text.upper()
    return "".join(c for c in text if c == " " or c in face.characters).strip()


def _phrase(texts: LineTexts, rng: random.Random) -> str:
    count = rng.choice((2, 2, 2, 3, 3, 4))
    style = rng.random()
    parts = [texts.word(rng) for _ in range(count)]
    text = " ".join(parts)
    if style < 0.3:
        text = text.upper()
    elif style < 0.55:
        text = text.title()
    elif style < 0.7:
        text = text.capitalize()
    return text + rng.choice(("", "", "", "", "!", "?", ":", ".", "..."))


def _sentence(texts: LineTexts, rng: random.Random) -> str:
    count = rng.randint(4, 11)
    parts = []
    for i in range(count):
        word = texts.word(rng)
        parts.append(word.lower() if rng.random() < 0.85 else word)
        if rng.random() < 0.08:
            parts[-1] = rng.choice(('"{}"', "({})", "'{}'", "{}'s", "“{}”", "[{}]")).format(parts[-1])
        if i < count - 1 and rng.random() < 0.12:
            parts[-1] += rng.choice((",", ",", ",", ";", ":", " -", " —", " –", "."))
        if rng.random() < 0.04:
            parts.append(words.draw_number(rng))
    text = " ".join(parts)
    if rng.random() < 0.7:
        text = text[0].upper() + text[1:]
    return text + rng.choice((".", ".", ".", "!", "?", "", "", ","))


def number(rng: random.Random) -> str:
    """A number as it stands on an axis, in a table or in a sentence."""
    kind = rng.random()
    if kind < 0.3:
        text = str(rng.randrange(10 ** rng.choice((1, 2, 2, 3, 3, 4, 5, 6, 7))))
    elif kind < 0.5:
        text = f"{rng.uniform(0, 10 ** rng.choice((0, 0, 1, 2, 3))):.{rng.choice((1, 1, 2, 2, 3, 4))}f}"
    elif kind < 0.6:
        text = f"{rng.randrange(1000, 10 ** rng.choice((5, 6, 7, 8))):,}"
    elif kind < 0.68:
        text = rng.choice(("{}%", "{} %", "{}.5%", "+{}%", "-{}%")).format(rng.randrange(101))
    elif kind < 0.74:
        text = rng.choice(("{}k", "{}K", "{}M", "${}M", "{}.5k", "1e{}", "10^{}", "x{}", "#{}", "No. {}")).format(
            rng.randrange(1, 100)
        )
    elif kind < 0.82:
        unit = rng.choice(_UNITS)
        text = f"{rng.randrange(1, 10 ** rng.choice((1, 2, 3)))}{rng.choice(('', ' '))}{unit}"
    elif kind < 0.9:
        text = str(rng.randrange(1900, 2050))
    else:
        text = str(rng.randrange(0, 200, rng.choice((5, 10, 20, 25)))) + rng.choice(("", "", ".0", ".5", "0", "00"))
    return rng.choice(("-", "−", "+")) + text if rng.random() < 0.1 and text[0].isdigit() else text


def price(rng: random.Random) -> str:
    """A price, with or without a currency."""
    amount = rng.uniform(0.1, 10 ** rng.choice((1, 1, 2, 2, 3, 4)))
    kind = rng.random()
    figures = f"{amount:,.2f}" if kind < 0.7 else f"{amount:.2f}".replace(".", ",") if kind < 0.82 else f"{amount:.0f}"
    currency = rng.choice(_CURRENCIES)
    return rng.choice(
        (currency + figures, currency + figures, f"{figures} {currency}".strip(), currency + " " + figures)
    )


def date_or_time(rng: random.Random) -> str:
    """A date, a time of day, or both."""
    day, month, year = rng.randrange(1, 32), rng.randrange(1, 13), rng.randrange(1950, 2045)
    hour, minute = rng.randrange(24), rng.randrange(60)
    name = rng.choice("January February March April May June July August September October November December".split())
    name = rng.choice((name, name[:3], name[:3].upper()))
    date = rng.choice(
        (
            f"{day:02d}/{month:02d}/{year}",
            f"{day}.{month}.{year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{day} {name} {year}",
            f"{name} {day}, {year}",
            f"{name} {year}",
            f"{day:02d}.{month:02d}.",
            f"{month}/{day}/{year % 100:02d}",
            f"{name} {day}",
            f"{name[:3]}-{year % 100:02d}",
            f"Q{rng.randrange(1, 5)} {year}",
            f"{day:02d}/{month:02d}",
        )
    )
    half = rng.choice(("AM", "PM", "am", "pm"))
    time = rng.choice(
        (
            f"{hour:02d}:{minute:02d}",
            f"{hour % 12 + 1}:{minute:02d} {half}",
            f"{hour:02d}:{minute:02d}:{rng.randrange(60):02d}",
            f"{hour % 12 + 1}{half}",
            f"{hour}h{minute:02d}",
        )
    )
    kind = rng.random()
    return date if kind < 0.5 else time if kind < 0.8 else f"{date} {time}"


def _phone_or_code(texts: LineTexts, rng: random.Random) -> str:
    pattern = rng.choice(_PATTERNS)
    capitals, small = string.ascii_uppercase, string.ascii_lowercase
    pick = {"A": capitals, "B": capitals, "a": small, "0": string.digits}
    return "".join(rng.choice(pick[c]) if c in pick else c for c in pattern)


def _web(texts: LineTexts, rng: random.Random) -> str:
    a, b = texts.word(rng).lower(), texts.word(rng).lower()
    end = rng.choice(("com", "org", "net", "de", "co.uk", "io", "fr", "info", "edu"))
    return rng.choice(
        (f"{a}@{b}.{end}", f"{a}.{b}@mail.{end}", f"www.{a}.{end}", f"https://{a}.{end}/{b}", f"{a}{b}.{end}",
         f"@{a}_{b}", f"#{a}{b}", f"{a}_{rng.randrange(100)}@{b}.{end}", f"http://www.{a}-{b}.{end}", f"{a}/{b}.html",
         f"{a}.{rng.choice(('pdf', 'jpg', 'txt', 'py', 'csv'))}")
    )  # fmt: skip


def _name(texts: LineTexts, rng: random.Random) -> str:
    first, last = rng.choice(_FIRST_NAMES), texts.word(rng).title()
    return rng.choice(
        (
            f"{first} {last}",
            f"{last}, {first}",
            f"{first[0]}. {last}",
            f"Dr. {first} {last}",
            f"Mr {last}",
            f"Ms. {last}",
            f"{first} & {last}",
            f"{first} {last[0]}.",
            f"{last} {rng.choice(_COMPANIES)}",
            f"{rng.randrange(1, 300)} {last} {rng.choice(('Street', 'Road', 'Lane', 'St', 'Ave.'))}",
            f"{rng.randrange(10000, 99999)} {last}",
        )
    )


_LETTERS = ("T", "M", "F", "Tel", "Tel.", "Phone", "Fax", "E", "Email", "E-mail", "Web", "W", "Mobile")
_DIGITS = (
    "555-0{:03d}",
    "({:03d}) 555-01{:02d}",
    "+1 {:03d} 555 0{:03d}",
    "{:03d}-555-01{:02d}",
    "+44 20 {:04d} {:04d}",
)


def draw_contact(rng: random.Random, texts: LineTexts) -> str:
    """A phone number, an e-mail address or a web site, with or without what it is."""
    if rng.random() < 0.5:
        text = rng.choice(_DIGITS).format(rng.randrange(100), rng.randrange(100))
        text = "".join(rng.choice(string.digits) if c.isdigit() and rng.random() < 0.6 else c for c in text)
    else:
        text = _web(texts, rng)
    mark = rng.choice(_LETTERS) + rng.choice((": ", " ", ". ", ": "))
    return mark + text if rng.random() < 0.3 else text


def draw_address(rng: random.Random, texts: LineTexts) -> str:
    """A street, a town or both."""
    street = f"{rng.randrange(1, 999)} {texts.word(rng).title()} {rng.choice(('Street', 'Road', 'St', 'Ave', 'Lane'))}"
    town = rng.choice(("{} {:05d}", "{}, CA {:05d}", "{}, {:05d}")).format(
        texts.word(rng).title(), rng.randrange(10**5)
    )
    return rng.choice((street, town, f"{street}, {town}"))


def draw_person(rng: random.Random, texts: LineTexts) -> str:
    """A first and a last name."""
    return f"{rng.choice(_FIRST_NAMES)} {texts.word(rng).title()}"


def draw_dish(rng: random.Random, texts: LineTexts) -> str:
    """What a menu or a shop sells, in one to four words."""
    parts = [
        rng.choice((rng.choice(RECEIPT_ITEMS), texts.word(rng).lower())) for _ in range(rng.choice((1, 2, 2, 3, 4)))
    ]
    if len(parts) > 2:
        parts[1] = rng.choice(("with", "and", "&", "of", "in", parts[1]))
    text = " ".join(parts)
    return rng.choice((text.title(), text.title(), text.capitalize(), text.upper()))


def _pair(texts: LineTexts, rng: random.Random) -> str:
    key = rng.choice((rng.choice(FORM_KEYS), rng.choice(RECEIPT_ITEMS), texts.word(rng), _phrase(texts, rng)))
    value = rng.choice((price, number, date_or_time, texts.word))(rng)
    unit, count = rng.choice(("%", "kg", "USD", "€", "m", "s", "n=10")), rng.randrange(1, 20)
    return rng.choice(
        (
            f"{key}: {value}",
            f"{key} {value}",
            f"{key} - {value}",
            f"{key} ({value})",
            f"{key} = {value}",
            f"{count} x {key}",
            f"{count}x {key} {value}",
            f"{key}:",
            f"• {key} {value}",
            f"{key} .... {value}",
            f"- {key}",
            f"{count}. {key}",
            f"→ {key}",
            f"© {value}",
            f"{key} ({unit})",
        )
    )


def _code_line(texts: LineTexts, rng: random.Random) -> str:
    names = [texts.word(rng).lower() for _ in range(3)]
    if rng.random() < 0.3:
        names[0] += "_" + names[1]
    if rng.random() < 0.2:
        names[1] += names[2].title()
    return rng.choice(_CODE_LINES).format(a=names[0], b=names[1], c=names[2], n=rng.randrange(1000))


def _random_characters(texts: LineTexts, rng: random.Random) -> str:
    pool = rng.choice(_POOLS)
    text = "".join(rng.choice(pool) for _ in range(rng.choice((1, 1, 2, 3, 4, 5, 6, 8, 10))))
    return text if len(text) < 4 or rng.random() < 0.7 else text[:3] + " " + text[3:]


_Draw = Callable[[LineTexts, random.Random], str]
_KINDS: dict[str, tuple[_Draw, float]] = {
    "word": (LineTexts.word, 0.25),
    "phrase": (_phrase, 0.17),
    "sentence": (_sentence, 0.12),
    "number": (lambda _, rng: number(rng), 0.12),
    "price": (lambda _, rng: price(rng), 0.06),
    "date": (lambda _, rng: date_or_time(rng), 0.05),
    "code": (_phone_or_code, 0.06),
    "web": (_web, 0.03),
    "name": (_name, 0.05),
    "pair": (_pair, 0.06),
    "program": (_code_line, 0.03),
    "random": (_random_characters, 0.04),
}
