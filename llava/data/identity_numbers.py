"""Numbers that identify a person or an account, found by their format and verified by their check digits.

A number that is only digits passes a check digit by chance once in ten times. Where neither a separator, a date in it
nor its length is unusual enough, a word that names the number has to be near it; ``Rule.words`` are these.
No torch, no network.

Source: ISO/IEC 7812-1 (Luhn), ISO 13616 and the SWIFT IBAN registry (lengths, modulo 97), GB 11643-1999 (China),
ICAO Doc 9303 part 3 (machine-readable zones); the national rules as python-stdnum (arthurdejong/python-stdnum)
documents them, one module a number.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_WORD_DISTANCE = 40  # characters before a number in which a word may name it


# What every number has: five digits with at most one separator between them, or the start of a codice fiscale, of an
# IBAN or of a PAN.
_CLUE = re.compile(r"\d(?:[ .-]?\d){4}|[A-Za-z]{6}\d\d|[A-Za-z]{2}\d\d ?[A-Za-z]|[A-Z]{5}\d{4}[A-Z]")


class Rule(NamedTuple):
    """How one kind of number is found.

    ``is_valid`` takes its letters and digits, in capitals. With ``words`` one of them has to be near the number.
    """

    name: str
    pattern: re.Pattern[str]
    is_valid: Callable[[str], bool]
    words: re.Pattern[str] | None = None


def find_numbers(text: str) -> Iterator[str]:
    """The name of the kind of each number in the text, whose digits have to be ASCII (``privacy.fold``)."""
    if not _CLUE.search(text):
        return
    for rule in RULES:
        for found in rule.pattern.finditer(text):
            if rule.words is not None and not _is_named(text, found, rule.words):
                continue
            if rule.is_valid(re.sub(r"[^0-9A-Za-z<]", "", found[0]).upper()):
                yield rule.name


def _is_named(text: str, found: re.Match[str], words: re.Pattern[str]) -> bool:
    around = text[max(0, found.start() - _WORD_DISTANCE) : found.end() + _WORD_DISTANCE // 2]
    return words.search(around) is not None


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others."""
    total = 0
    for i, digit in enumerate(map(int, reversed(digits))):
        total += digit if i % 2 == 0 else (2 * digit - 1) % 9 + 1 if digit else 0
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """Whether this is a payment card's number: a known issuer, its length, the Luhn check digit.

    The three or four digits of a security code may follow it.
    """
    return any(_is_card_alone(digits[:length]) for length in {len(digits), 15, 16})


def _is_card_alone(digits: str) -> bool:
    issuers = (
        (r"4", (13, 16, 19)),  # Visa
        (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),  # Mastercard
        (r"3[47]", (15,)),  # American Express
        (r"30[0-5]|3[689]", (14, 16, 19)),  # Diners Club
        (r"6011|64[4-9]|65|62", (16, 17, 18, 19)),  # Discover, UnionPay
        (r"35(2[89]|[3-8])", (16, 17, 18, 19)),  # JCB
        (r"50|5[6-9]|6", (12, 13, 14, 15, 16, 17, 18, 19)),  # Maestro
        (r"220[0-4]", (16,)),  # Mir
    )
    is_known = any(re.match(start, digits) and len(digits) in lengths for start, lengths in issuers)
    return is_known and len(set(digits)) > 1 and passes_luhn(digits)


_IBAN_LENGTHS = {
    pair[:2]: int(pair[2:])
    for pair in (
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 "
        "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
        "LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 "
        "SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
    ).split()
}


def is_iban(text: str) -> bool:
    """Whether this is an IBAN of its country's length whose checksum is right; text may follow it."""
    length = _IBAN_LENGTHS.get(text[:2])
    if length is None or len(text) < length:
        return False
    moved = text[4:length] + text[:4]
    return int("".join(str(int(letter, 36)) for letter in moved)) % 97 == 1


def _weigh(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def _is_date(year: str, month: str, day: str) -> bool:
    """Whether a date exists; a year of two digits is of either century."""
    years = [int(year)] if len(year) == 4 else [1900 + int(year), 2000 + int(year)]
    for one in years:
        try:
            if 1880 <= datetime.date(one, int(month), int(day)).year <= 2099:
                return True
        except ValueError:
            continue
    return False


def _is_china(text: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    is_dated = _is_date(text[6:10], text[10:12], text[12:14]) and "11" <= text[:2] <= "83"
    return is_dated and "10X98765432"[_weigh(text[:17], weights) % 11] == text[17]


def _is_ssn(digits: str) -> bool:
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_cpf(digits: str) -> bool:
    first = -_weigh(digits[:9], range(10, 1, -1)) % 11 % 10
    second = -_weigh(digits[:10], range(11, 1, -1)) % 11 % 10
    return len(set(digits)) > 1 and digits[9:] == f"{first}{second}"


def _is_rut(text: str) -> bool:
    total = sum(int(digit) * (2 + i % 6) for i, digit in enumerate(reversed(text[:-1])))
    return "0123456789K"[-total % 11] == text[-1]


def _is_cuit(digits: str) -> bool:
    return "0123456789x"[min(10, -_weigh(digits[:10], (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11)] == digits[10]


_VERHOEFF_D = (
    *("0123456789", "1234067895", "2340178956", "3401289567", "4012395678"),
    *("5987604321", "6598710432", "7659821043", "8765932104", "9876543210"),
)
_VERHOEFF_P = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)


def _passes_verhoeff(digits: str) -> bool:
    check = 0
    for i, digit in enumerate(reversed(digits)):
        check = int(_VERHOEFF_D[check][int(_VERHOEFF_P[i % 8][int(digit)])])
    return check == 0


def _is_korea(digits: str) -> bool:
    return _is_date(digits[:2], digits[2:4], digits[4:6])  # numbers given out since October 2020 have no check digit


def _is_taiwan(text: str) -> bool:
    letter = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(text[0]) + 10
    return (letter // 10 + letter % 10 * 9 + _weigh(text[1:], (8, 7, 6, 5, 4, 3, 2, 1, 1))) % 10 == 0


def _is_hong_kong(text: str) -> bool:
    letters = text[:-7].rjust(2, "$")
    values = [36 if letter == "$" else int(letter, 36) for letter in letters] + [int(digit) for digit in text[-7:-1]]
    check = -sum(value * weight for value, weight in zip(values, range(9, 1, -1), strict=True)) % 11
    return "0123456789A"[check] == text[-1]


def _is_singapore(text: str) -> bool:
    total = _weigh(text[1:8], (2, 7, 6, 5, 4, 3, 2)) + (4 if text[0] in "TG" else 0)
    return ("JZIHGFEDCBA" if text[0] in "ST" else "XWUTRQPNMLK")[total % 11] == text[8]


def _is_japan(digits: str) -> bool:
    total = _weigh(digits[:11], (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return int(digits[11]) == (0 if total <= 1 else 11 - total)


def _is_spain(text: str) -> bool:
    number = text[:-1].translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]


_ITALY_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _is_italy(text: str) -> bool:
    def place(letter: str) -> int:
        return int(letter) if letter.isdigit() else ord(letter) - ord("A")

    total = sum(_ITALY_ODD[place(letter)] if i % 2 == 0 else place(letter) for i, letter in enumerate(text[:15]))
    return chr(ord("A") + total % 26) == text[15]


def _is_france(text: str) -> bool:
    number = text[:13].replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number) % 97 == int(text[13:])


def _is_belgium(digits: str) -> bool:
    return any(97 - int(prefix + digits[:9]) % 97 == int(digits[9:]) for prefix in ("", "2"))


def _is_netherlands(digits: str) -> bool:
    return _weigh(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0 and len(set(digits)) > 1


def _is_germany(digits: str) -> bool:
    product = 10
    for digit in digits[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return digits[0] != "0" and (11 - product) % 10 == int(digits[10])


def _is_poland(digits: str) -> bool:
    return -_weigh(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10 == int(digits[10])


def _is_sweden(digits: str) -> bool:
    short = digits[-10:]
    return _is_date(short[:2], short[2:4], f"{int(short[4:6]) % 60:02}") and passes_luhn(short)


def _is_finland(text: str) -> bool:
    number = text[:6] + text[-4:-1]
    return _is_date(text[4:6], text[2:4], text[:2]) and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(number) % 31] == text[-1]


def _is_norway(digits: str) -> bool:
    first = -_weigh(digits, (3, 7, 6, 1, 8, 9, 4, 5, 2)) % 11
    second = -_weigh(digits, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return (first, second) == (int(digits[9]), int(digits[10]))


def _is_turkey(digits: str) -> bool:
    numbers = [int(digit) for digit in digits]
    tenth = (7 * sum(numbers[0:9:2]) - sum(numbers[1:8:2])) % 10
    return numbers[9] == tenth and sum(numbers[:10]) % 10 == numbers[10]


def _is_south_africa(digits: str) -> bool:
    return _is_date(digits[:2], digits[2:4], digits[4:6]) and digits[10] in "012" and passes_luhn(digits)


def _is_russia(digits: str) -> bool:
    return _weigh(digits[:9], range(9, 0, -1)) % 101 % 100 == int(digits[9:])


def _is_australia(digits: str) -> bool:
    return _weigh(digits, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0 and len(set(digits)) > 1


def _is_passport(text: str) -> bool:
    """The second line of a passport's machine-readable zone, verified by three of its check digits."""
    return all(
        sum(_value(letter) * (7, 3, 1)[i % 3] for i, letter in enumerate(text[begin:end])) % 10 == _value(text[end])
        for begin, end in ((0, 9), (13, 19), (21, 27))
    )


def _value(letter: str) -> int:
    return 0 if letter == "<" else int(letter, 36)


def _is_nhs(digits: str) -> bool:
    check = -_weigh(digits[:9], range(10, 1, -1)) % 11
    return check < 10 and check == int(digits[9])


def _always(_: str) -> bool:
    return True


def _rule(name: str, pattern: str, is_valid: Callable[[str], bool], words: str | None = None) -> Rule:
    near = re.compile(rf"(?i)(?:{words})") if words is not None else None
    # ASCII only: a Chinese sentence puts no space around a number.
    return Rule(name, re.compile(rf"(?<![A-Za-z0-9])(?<!\d\.)(?:{pattern})(?![A-Za-z0-9]|[.,]\d)"), is_valid, near)


RULES = (
    # At most one separator between digits, so that a table's numbers are not read as one.
    _rule("payment card", r"[2-6](?:[ -]?\d){11,18}", is_card),
    _rule("payment card", r"[2-6]\d{3}(?:\.\d{4}){3}", is_card),
    _rule("IBAN", r"[A-Za-z]{2}\d{2}(?:[ -]?[0-9A-Za-z]){11,30}", is_iban),
    _rule("passport (machine-readable zone)", r"[A-Z0-9<]{9}\d[A-Z<]{3}\d{7}[MFX<]\d{7}[A-Z0-9<]{14,16}", _is_passport),
    _rule(
        "passport number", r"[A-Z]{1,2}\d{6,8}|\d{9}", _always, r"passport|passeport|reisepass|pasaporte|护照|護照|旅券"
    ),
    _rule("social security number (US)", r"\d{3}-\d{2}-\d{4}", _is_ssn),
    _rule("social security number (US)", r"\d{3} ?\d{2} ?\d{4}", _is_ssn, r"\bssn\b|social security"),
    _rule("identity number (China)", r"[1-8]\d{5}(?:18|19|20)\d{9}[\dXx]", _is_china),
    _rule("CPF (Brazil)", r"\d{3}\.\d{3}\.\d{3}-\d{2}", _is_cpf),
    _rule("CPF (Brazil)", r"\d{11}", _is_cpf, r"\bcpf\b"),
    _rule("RUT (Chile)", r"\d{1,2}\.\d{3}\.\d{3}-[\dKk]", _is_rut),
    _rule("RUT (Chile)", r"\d{7,8}-?[\dKk]", _is_rut, r"\brut\b|\brun\b"),
    _rule("CUIT (Argentina)", r"(?:20|23|24|27|30|33|34)-\d{8}-\d", _is_cuit),
    _rule("DNI (Argentina, Peru)", r"\d{2}\.?\d{3}\.?\d{3}", _always, r"\bdni\b"),
    _rule(
        "CURP (Mexico)",
        r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d",
        lambda text: _is_date(text[4:6], text[6:8], text[8:10]),
    ),
    # Not of a row of a table, which holds more such numbers.
    _rule(
        "Aadhaar (India)",
        r"(?<!\d{4}[ -])(?!(?:(?:19|20)\d\d[ -]){2})[2-9]\d{3}[ -]\d{4}[ -]\d{4}(?![ -]\d{4})",
        _passes_verhoeff,
    ),
    _rule("Aadhaar (India)", r"[2-9]\d{3}[ -]?\d{4}[ -]?\d{4}", _passes_verhoeff, r"aadhaa?r|uidai|आधार"),
    _rule("PAN (India)", r"[A-Z]{3}[ABCFGHLJPT][A-Z]\d{4}[A-Z]", _always),
    _rule("resident number (Korea)", r"\d{6}-[1-9]\d{6}", _is_korea),
    _rule("identity number (Taiwan)", r"[A-Z][1289]\d{8}", _is_taiwan),
    _rule("identity number (Hong Kong)", r"[A-Z]{1,2}\d{6}\([0-9A]\)", _is_hong_kong),
    _rule("NRIC (Singapore)", r"[STFG]\d{7}[A-Z]", _is_singapore),
    _rule("My Number (Japan)", r"\d{4}[ -]?\d{4}[ -]?\d{4}", _is_japan, r"my ?number|マイナンバー|個人番号"),
    _rule("DNI or NIE (Spain)", r"(?:[XYZ]-?\d{7}|\d{8})-?[A-Z]", _is_spain),
    _rule(
        "codice fiscale (Italy)",
        r"(?i:[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z])",
        _is_italy,
    ),
    _rule(
        "social security number (France)",
        r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}",
        _is_france,
    ),
    _rule("national number (Belgium)", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", _is_belgium),
    _rule("BSN (Netherlands)", r"\d{9}", _is_netherlands, r"\bbsn\b|burgerservice|sofinummer"),
    _rule("tax id (Germany)", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", _is_germany, r"steuer|idnr|tax.?id|\btin\b"),
    _rule("PESEL (Poland)", r"\d{11}", _is_poland, r"pesel"),
    _rule("personnummer (Sweden)", r"(?:19|20)?\d{6}[-+]\d{4}", _is_sweden),
    _rule("identity code (Finland)", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", _is_finland),
    _rule("fødselsnummer (Norway)", r"\d{6} ?\d{5}", _is_norway, r"f[øo]dsels|personnummer|norw"),
    _rule("CPR (Denmark)", r"\d{6}-\d{4}", lambda text: _is_date(text[4:6], text[2:4], text[:2]), r"\bcpr\b"),
    _rule("identity number (Turkey)", r"[1-9]\d{10}", _is_turkey, r"t\.?c\.?|kimlik"),
    _rule("identity number (South Africa)", r"\d{13}", _is_south_africa),
    _rule("SNILS (Russia)", r"\d{3}-\d{3}-\d{3} \d{2}", _is_russia),
    _rule(
        "national insurance number (UK)",
        r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]",
        _always,
    ),
    _rule("NHS number (UK)", r"\d{3} ?\d{3} ?\d{4}", _is_nhs, r"\bnhs\b"),
    _rule(
        "social insurance number (Canada)", r"\d{3}[ -]\d{3}[ -]\d{3}", passes_luhn, r"\bsin\b|\bnas\b|social insurance"
    ),
    _rule("tax file number (Australia)", r"\d{3} ?\d{3} ?\d{3}", _is_australia, r"\btfn\b|tax file"),
)
