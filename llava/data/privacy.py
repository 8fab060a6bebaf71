"""Finds personal data in text: what must not become training data, by kind.

E-mail addresses, phone numbers, payment cards, IBANs and national identity numbers (``identity_numbers``), street
addresses, dates of birth, passwords, API keys, tokens, private keys, IP addresses. Only the kinds are reported, never
the matched text, so that a report holds no personal data itself. Names of people are not found. The patterns take time
linear in the text. No torch, no network.

Source: ITU-T E.164 and the numbering plans as libphonenumber's metadata has them (google/libphonenumber
resources/PhoneNumberMetadata.xml); prefixes of keys from gitleaks/gitleaks config/gitleaks.toml; RFC 7519 (JWT), RFC
7468 (private keys).
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata

from llava.data.identity_numbers import find_numbers

# Characters without width, with which addresses are hidden, and dashes and spaces that keyboards and OCR produce.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
_FOLDED = {ord(dash): "-" for dash in "\u2010\u2011\u2012\u2013\u2014\u2212"}
_FOLDED |= {ord(space): " " for space in "\u00a0\u2002\u2003\u2009\u202f"}


def find_private(text: str) -> tuple[str, ...]:
    """The kinds of personal data in the text, sorted; empty if none was found."""
    folded = fold(text)
    found = {kind for kind, pattern, clue in _PATTERNS if clue.search(folded) and pattern.search(folded)}
    if not _DIGIT.search(folded):
        return tuple(sorted(found))
    found.update(find_numbers(folded))
    if any(_is_public_address(match[0]) for match in _ADDRESSES.finditer(folded)):
        found.add("IP address")
    if "phone number" not in found and _has_phone(folded):
        found.add("phone number")
    return tuple(sorted(found))


def fold(text: str) -> str:
    """The text with digits and letters of any width or script of digits as ASCII, and without invisible characters."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE).translate(_FOLDED)
    return "".join(
        str(unicodedata.digit(letter)) if not letter.isascii() and letter.isdigit() else letter for letter in text
    )


_EMAIL = (
    r"(?<![A-Za-z0-9._%+-])(?!git@git)[A-Za-z0-9._%+-]{1,64}\s?@\s?[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,6}\.[A-Za-z]{2,24}(?![A-Za-z0-9])"
    r"|[\w.+-]{1,64} ?[\[({]\s?(?:at|@|arroba)\s?[\])}] ?[\w-]{1,63} ?"
    r"(?:[\[({]\s?(?:dot|punkt|punto|point)\s?[\])}]|\.) ?[a-z]{2,24}\b"
    r"|(?i:[\w.+-]{2,64} at (?:gmail|yahoo|hotmail|outlook|icloud|proton(?:mail)?|qq|163) dot \w{2,5}\b)"
    # Internationalised (RFC 6531), and a quoted name.
    r"|(?<![\w.+-])(?!git@git)[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,6}\.[^\W\d_]{2,24}"
    r"|\w\"@[\w-]{1,63}(?:\.[\w-]{1,63}){0,6}\.[^\W\d_]{2,24}"
)

_STREETS = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Terrace|Highway|Hwy|Parkway|Pkwy|Crescent|Mews|"
    r"(?:Court|Ct|Place|Pl|Way|Circle|Cir|Close|Gardens|Row|Square|Sq)"
    r"(?=\.?,|\.?$|\.?\n|\.? #?\d|\.? (?:Apt|Suite|Unit|Floor))"
)
_NAME = r"[A-Z0-9ÄÖÜÉÈÀÂÇÑ][\w'’.-]{0,24}"
_STATES = (
    "AL|AK|AZ|AR|CA|CO|CT|DC|DE|FL|GA|HI|IA|ID|IL|IN|KS|KY|LA|MA|MD|ME|MI|MN|MO|MS|MT|NC|ND|NE|NH|NJ|NM|NV|NY|OH|OK|OR|"
    "PA|RI|SC|SD|TN|TX|UT|VA|VT|WA|WI|WV|WY"
)
_STREET_ADDRESS = "|".join(
    (
        rf"\b\d{{1,5}}[A-Za-z]?,? (?:[NSEW]\.? )?(?:{_NAME} ){{1,3}}(?:{_STREETS})\b\.?(?! (?:of|and|in the)\b)",
        # In small letters only where a word says that it is an address.
        r"(?i:\b(?:address|live[sd]? (?:at|on)|deliver to|ship to)\b.{0,20}\b\d{1,5}[a-z]? (?:[a-z]{2,20} ){1,2}"
        r"(?:street|st|avenue|ave|road|rd|lane|drive|terrace|boulevard)\b)",
        rf"\b(?:{_STATES}),? \d{{5}}(?:-\d{{4}})?\b",
        r"\b[A-Z]{1,2}\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2}\b",  # a postcode of the United Kingdom
        r"\b[ABCEGHJ-NPRSTVXY]\d[A-Z] \d[A-Z]\d\b",  # of Canada
        r"\b(?:P\.? ?O\.? ?|Post Office )Box \d{1,6}\b",
        r"\b[A-ZÄÖÜ][\wäöüß.-]{1,30}(?:straße|strasse|str\.|weg|gasse|platz|allee|ring|damm|ufer) \d{1,4} ?[a-z]?\b",
        r"\b(?:[A-ZÄÖÜ][\wäöüß.-]{1,24} ){1,2}(?:Straße|Strasse|Str\.|Weg|Gasse|Platz|Allee) \d{1,4} ?[a-z]?\b",
        r"\b\d{1,4}(?: ?bis| ?ter)?,? (?:rue|avenue|av\.|boulevard|bd|allée|chemin|impasse|quai|place) "
        r"(?:de |du |des |d'|la |le |les |l'){0,2}[A-ZÉÈÀ][\w'-]{1,30}",
        r"\b(?i:calle|c/|avenida|avda\.|av\.|paseo|plaza|rua|via|viale|corso|piazza|vicolo|ulica|ul\.|ulitsa) ?"
        r"(?:de |del |della |la |las |los |dos |da ){0,2}(?:[A-ZÁÉÍÓÚ][\wáéíóúñ'-]{1,24},? ){1,4}"
        r"(?:n[.º°o]* ?)?\d{1,4}\b",
        r"\b(?i:ул\.|улица|проспект|пр-т|пер\.) ?[А-ЯЁ][\w-]{1,30},? (?:д\.|дом)? ?\d{1,4}\b",
        r"[\u4e00-\u9fff]{1,12}(?:路|街|道|巷|弄|胡同) ?\d{1,5} ?(?:号|號|弄)",
        r"[\u4e00-\u9fff]{2,8}(?:小区|花园|社区|大厦|公寓)[\u4e00-\u9fff\d]{0,8}\d{1,4} ?(?:栋|幢|号楼|单元|室)",
        r"[\u4e00-\u9fff\u3040-\u30ff]{1,12}(?:都|道|府|県)[\u4e00-\u9fff\u3040-\u30ff]{1,12}(?:市|区|町|村)[^\s、。]{0,12}\d{1,3}"
        r"(?:丁目|-\d{1,3}|番)",
        r"[\uac00-\ud7a3]{1,10}(?:로|길) ?\d{1,4}(?:번길)?(?:-\d{1,3})?(?= |,|$|번)",
    )
)

_SECRETS = "|".join(
    (
        r"-----BEGIN (?:[A-Z]{2,12} ){0,2}PRIVATE KEY",
        r"\bPuTTY-User-Key-File-\d",
        r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.",  # without a signature, too
        r"\bsk-[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic and compatible services
        r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
        r"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{60,}|\bglpat-[\w-]{20,}",
        r"\bAIza[\w-]{35}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}",
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/T\w+/B\w+/\w+",
        r"\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",
        r"\bhf_[A-Za-z0-9]{30,}|\bnpm_[A-Za-z0-9]{36}|\bpypi-AgEI[\w-]{50,}|\bdop_v1_[a-f0-9]{64}",
        r"\bSG\.[\w-]{16,}\.[\w-]{16,}|\bSK[0-9a-f]{32}\b|\bAC[0-9a-f]{32}\b",
        # Groq, Replicate, xAI, Perplexity, Shopify, Docker, Linear, Notion, Grafana, NVIDIA, Tailscale, Figma, Square
        r"\b(?:gsk_|r8_|xai-|pplx-|shp(?:at|ss|ca|pa)_|dckr_pat_|lin_api_|ntn_|glsa_|nvapi-|tskey-|figd_|sq0csp-)"
        r"(?=[A-Za-z_-]{0,60}\d)[A-Za-z0-9_-]{20,}",
        r"\b(?:key-|secret_)(?=[A-Za-z]{0,60}\d)[A-Za-z0-9]{32,}\b|\bAGE-SECRET-KEY-1[A-Z0-9]{20,}|"
        r"\bAccountKey=[A-Za-z0-9+/=]{40,}",
        r"\b\d{8,10}:AA[\w-]{32,33}\b",  # a bot of Telegram
        r"\b[a-z][a-z0-9+.-]{1,12}://[^\s/:@]{1,64}:[^\s/@]{1,64}@[\w.-]{1,120}",
        r"(?i:\bbearer [A-Za-z0-9._~+/-]{20,})",
        r"(?<![A-Za-z0-9])(?i:api|secret|access|auth|private)[ _-]?(?i:key|token|secret)\b"
        r"[\"' ]{0,3}(?:is|[:=]{1,2}>?)[\"' ]{0,3}"
        r"[A-Za-z0-9+/_.-]{16,}",
    )
)
_PASSWORD = (
    r"(?i)(?:\b(?:password|passwd|pwd|passphrase|passwort|contraseña|mot de passe|senha|wachtwoord|hasło|şifre|"
    r"пароль)\b|密码|密碼|パスワード|비밀번호)"
    r"(?: is|は|是|:|=|：)+[ \"']{0,3}"
    r"(?!(?:not|the|a|an|my|your|too|invalid|incorrect|wrong|required|weak|strong)\b)\S{4,}"
)
_BIRTH = (
    r"(?i)(?:\bdob\b|\b(?:date of birth|birth ?date|birthday|born on|geboren am|geburtsdatum|née? le|"
    r"fecha de nacimiento)\b|"
    r"出生日期|生年月日|дата рождения)\W{0,4}(?:is |the )?(?:\d{1,4}[./年-] ?\d{1,2}[./月-] ?\d{1,4}|"
    r"\d{1,2}(?:st|nd|rd|th|\.)? ?[^\W\d]{3,12}\.?,? \d{4}|[a-z]{3,9}\.? \d{1,2}(?:st|nd|rd|th)?,? \d{4})"
)

_DIGIT = re.compile("[0-9]")

# A kind, its pattern, and a clue: what every match has and most texts lack, so that most texts are judged fast.
_PATTERNS = (
    ("e-mail address", re.compile(_EMAIL), re.compile("(?i)@|at|arroba")),
    ("street address", re.compile(_STREET_ADDRESS), _DIGIT),
    ("key or token", re.compile(_SECRETS), re.compile(r"\S{16}|://|-----BEGIN|PuTTY")),
    ("password", re.compile(_PASSWORD), re.compile("(?i)pass|pwd|contra|senha|wacht|hasł|şifre|пароль|密|パス|비밀")),
    ("date of birth", re.compile(_BIRTH), _DIGIT),
    ("phone number", re.compile(r"(?i)\btel:\+?[\d-]{6,}|\bwa\.me/\d{7,}|\bt\.me/\+\d{7,}"), _DIGIT),
)

_ADDRESSES = re.compile(
    r"(?<![\w.:])(?<!version )(?<!release )(?<!Version )(?<!section )(?<!Section )"
    r"(?:(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)|(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){0,6}(?::(?!\w))?)"
)


def _is_public_address(text: str) -> bool:
    """Whether this is an IP address that belongs to somebody: those of private networks and examples do not."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


# National formats, each with enough separators or a prefix that only phone numbers have.
_PHONES = "|".join(
    (
        r"\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){5,12}",  # international, ITU-T E.164
        r"00[1-9]\d{0,2}[ .-](?:\(0?\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,11}",
        r"(?:1[ .-])?\([2-9]\d{2}\) ?\d{3}[ .-]\d{4}|(?:1[ .-])?[2-9]\d{2}([.-])[2-9]\d{2}\1\d{4}",  # US, Canada
        r"1[3-9]\d(?:[ -]?\d{4}){2}",  # mobile phones in China
        r"0\d{2,3}-[2-9]\d{6,7}",  # land lines in China
        r"0[789]0-\d{4}-\d{4}|0\d{1,3}-\d{2,4}-\d{4}",  # Japan
        r"01[016-9][ -]\d{3,4}[ -]\d{4}",  # Korea
        r"[6-9]\d{4}[ -]\d{5}",  # India
        r"0[1-79](?:[ .-]\d{2}){4}|0[67]\d{8}",  # France
        r"07\d{3} ?\d{3} ?\d{3}|0(?:20 \d{4} \d{4}|1\d{3} \d{6}|1\d{2} \d{3} \d{4})",  # United Kingdom
        r"0(?:1[5-7]\d|[2-9]\d{1,4})(?:[ ]?[/-][ ]?| )\d{3,4}[ -]?\d{3,5}|01[5-7]\d{8,9}",  # Germany
        r"[67]\d{2}(?:[ .-]\d{3}){2}|[67]\d{2}(?:[ .-]\d{2}){3}",  # Spain
        r"3[2-9]\d[ .-]\d{3}[ .-]?\d{4}",  # Italy
        r"\(\d{2}\) ?9?\d{4}-\d{4}|\d{2} 9\d{4}-\d{4}",  # Brazil
        r"8[ (-]{1,2}9\d{2}[ )-]{1,2}\d{3}[ -]?\d{2}[ -]?\d{2}",  # Russia
        r"04\d{2} ?\d{3} ?\d{3}|\(0[2378]\) ?\d{4} ?\d{4}",  # Australia
        r"09\d{2}[ -]\d{3}[ -]\d{3,4}|09\d{2}[ -]\d{6}",  # Taiwan, Philippines
        r"0[57]\d{1,2}[ -]\d{3}[ -]\d{2,4}(?:[ -]\d{2})?",  # Türkiye, Israel, Switzerland
        r"06[ -]\d{4} ?\d{4}|06-?\d{8}",  # Netherlands
        r"08\d{2}[ -]\d{3,4}[ -]\d{3,5}",  # Indonesia
    )
)
_PHONE = re.compile(rf"(?<![\w+.,-])(?:{_PHONES})(?![\w]|[.,-]\d)")
_PHONE_BESIDE_LETTERS = re.compile(r"(?<![0-9A-Za-z+.,-])1[3-9]\d{9}(?![0-9A-Za-z]|[.,-]\d)")
_PHONE_WORDS = (
    r"(?:\b(?:phone|tel|telephone|mobile|cell|whats ?app|fax|call (?:me|us|him|her)|text me|telefon|handy|teléfono|"
    r"telefono|téléphone|portable|celular|móvil|тел|телефон)\b|电话|電話|手机|手機|微信|携帯|전화|휴대폰|फ़ोन|هاتف|โทร)"
)
_CALLED = re.compile(rf"(?i){_PHONE_WORDS}[^\d\n]{{0,24}}(\+?\(?\d[\d ().-]{{5,18}}\d)(?![.,]?\d)")
_CALLED_AFTER = re.compile(
    r"(?i)(?<![\w+.,-])(\+?\(?\d[\d ().-]{5,18}\d)(?:[ ,]{1,2}\w{1,4})? (?:my|our|his|her|mi|mein|meine|mon|мой) "
    + _PHONE_WORDS
)


def _has_phone(text: str) -> bool:
    """Whether a phone number is in the text: in a national format, or of any format where a word says so."""
    if any(_counts(found[0]) for found in _PHONE.finditer(text)) or _PHONE_BESIDE_LETTERS.search(text):
        return True
    return any(_counts(found[1]) for pattern in (_CALLED, _CALLED_AFTER) for found in pattern.finditer(text))


def _counts(text: str) -> bool:
    """Whether it has as many digits as phone numbers have, and not all the same."""
    digits = re.sub(r"\D", "", text)
    return 7 <= len(digits) <= 15 and len(set(digits)) > 2
