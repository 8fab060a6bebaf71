"""Personal data that a text may hold, and texts that only look like it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.data.identity_numbers import is_card, is_iban, passes_luhn
from llava.data.privacy import find_private

# Numbers from the authorities' and libraries' own documentation, such as python-stdnum's; none is a person's.
PRIVATE = {
    "e-mail address": [
        "mail me at john.doe+x@example.co.uk",
        "john (at) example (dot) com",
        "写信给zhang@qq.com谢谢",
        "jane dot doe at gmail dot com",
        "ｊｏｈｎ＠ｅｘａｍｐｌｅ．ｃｏｍ",
        "jo\u200bhn@exam\u200bple.com",
    ],
    "phone number": [
        "Call +49 170 1234567",
        "(415) 555-2671",
        "415-555-2671",
        "我的手机13812345678",
        "tel 01 42 68 53 00",
        "06 12 34 56 78",
        "020 7946 0958",
        "07911 123456",
        "090-1234-5678",
        "010-1234-5678",
        "98765 43210",
        "(11) 91234-5678",
        "8 (912) 345-67-89",
        "0412 345 678",
        "612 345 678",
        "0221 / 4567890",
        "whatsapp 5551234567",
        "phone: ٠٥٥١٢٣٤٥٦٧",
        "+1 (650) 253-0000",
        "+86 138 1234 5678",
        "0912-345-678",
    ],
    "payment card": [
        "4111 1111 1111 1111",
        "5500-0000-0000-0004 exp 12/25",
        "378282246310005",
        "card 4111111111111111 123",
    ],
    "IBAN": [
        "DE89 3704 0044 0532 0130 00 please",
        "gb82west12345698765432",
        "FR1420041010050500013M02606",
    ],
    "social security number (US)": [
        "078-05-1120",
        "my ssn 078051120",
    ],
    "identity number (China)": [
        "身份证11010519491231002X",
        "我的身份证号是11010519491231002X。",
    ],
    "CPF (Brazil)": [
        "529.982.247-25",
    ],
    "RUT (Chile)": [
        "12.345.678-5",
    ],
    "CUIT (Argentina)": [
        "20-12345678-6",
    ],
    "DNI or NIE (Spain)": [
        "12345678Z",
        "X1234567L",
    ],
    "codice fiscale (Italy)": [
        "RSSMRA85T10A562S",
    ],
    "social security number (France)": [
        "2 95 10 99 126 111 93",
    ],
    "national number (Belgium)": [
        "85.07.30-033.28",
    ],
    "BSN (Netherlands)": [
        "BSN 111222333",
    ],
    "tax id (Germany)": [
        "Steuer-ID 36 574 261 809",
    ],
    "PESEL (Poland)": [
        "PESEL 44051401359",
    ],
    "personnummer (Sweden)": [
        "811228-9874",
    ],
    "identity code (Finland)": [
        "131052-308T",
    ],
    "NRIC (Singapore)": [
        "S1234567D",
    ],
    "identity number (Taiwan)": [
        "A123456789",
    ],
    "identity number (Hong Kong)": [
        "G123456(A)",
    ],
    "Aadhaar (India)": [
        "2341 2341 2346",
    ],
    "identity number (Turkey)": [
        "T.C. kimlik 10000000146",
    ],
    "identity number (South Africa)": [
        "8001015009087",
    ],
    "SNILS (Russia)": [
        "112-233-445 95",
    ],
    "national insurance number (UK)": [
        "AB 12 34 56 C",
    ],
    "NHS number (UK)": [
        "NHS 943 476 5919",
    ],
    "social insurance number (Canada)": [
        "SIN 046-454-286",
    ],
    "tax file number (Australia)": [
        "TFN 123 456 782",
    ],
    "passport (machine-readable zone)": [
        "L898902C36UTO7408122F1204159ZE184226B<<<<<10",
    ],
    "My Number (Japan)": [
        "My Number 123456789018",
    ],
    "resident number (Korea)": [
        "900101-1234567",
    ],
    "street address": [
        "1600 Pennsylvania Avenue NW",
        "Send to 221B Baker Street, London",
        "Hauptstraße 12",
        "12 rue de la Paix",
        "Calle de Alcalá, 42",
        "Via Roma 10",
        "北京市海淀区中关村大街27号",
        "東京都千代田区丸の内1丁目9-1",
        "SW1A 2AA",
        "Springfield, IL 62704",
        "P.O. Box 123",
        "ул. Ленина, д. 5",
        "서울시 강남구 테헤란로 152",
    ],
    "key or token": [
        "sk-proj-abcdefghijklmnopqrstuvwx",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1" * 18,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "-----BEGIN RSA PRIVATE KEY-----",
        "postgres://bob:hunter2@db.example.com/x",
        "api_key = 'abcd1234abcd1234abcd'",
    ],
    "password": [
        "password: hunter22",
        "密码是abc12345",
    ],
    "date of birth": [
        "born on 12/03/1985",
        "DOB: March 3, 1985",
    ],
    "IP address": [
        "8.8.8.8",
        "from 2001:4860:4860::8888 now",
        "server 93.184.216.34:8080",
    ],
}
HARMLESS = [
    "Describe the image.",
    "The screen is 1920x1080 at 60 Hz",
    "In 1998-2004 he sold 12,345,678 units",
    "What is 3.14159265358979?",
    "ISBN 978-3-16-148410-0",
    "version 1.2.3.4",
    "192.168.1.1 and 127.0.0.1",
    "Compute 123456789 * 987654321",
    "2024-11-28 13:57:02",
    "10:30:45",
    "The population is 1 234 567 890",
    "chart: 2001 2002 2003 2004 2005 2006",
    "What does @user mean on twitter?",
    "bbox [0.12, 0.34, 0.56, 0.78]",
    "how do I reset my password?",
    "The password is not shown",
    "US $1,234.56",
    "12 Angry Men",
    "He lives on the street",
    "10 Downing",
    "Is it 5 Great Wall of China Way?",
    "100 200 300 400",
    "order 1234567",
    "1/2 + 3/4",
    "c++ std::vector<int>::iterator",
    "a::b",
    "call me maybe",
    "PH 7.35-7.45",
    "13:45-14:30",
    "The 2 largest bars are 345 and 678",
    "Windows 10.0.19045.3803",
    "Pi 3.141592653589793238462643383279",
    "Room 404, Building 7",
    "A4 paper 210x297",
    "There are 1000000000000 stars",
    "GPT-4 vs LLaVA-1.6",
    "第12条街道很长",
    "这条路3公里",
    "What is the year 2023?",
    "1700000000000",
    "3 Doors Down Place to be",
    "What is on the Road 66 sign?",
    "Main St is closed",
    "MH370 flight number, AB1234",
    "A 123 456 789",
    "Q3 2023: 415.5, 555.2, 267.1",
    "2023-2024-2025",
    "12-11-2023",
    "123-456-789",
    "tel aviv 2023",
    "Wir fahren mit Linie 12 nach Hause",
    "The model is LLaVA-NeXT 34B, revision 2024-01-30",
    "IMG_20240115_123456.jpg",
    "#FF5733 and rgb(255, 87, 51)",
    "Solve: 4x + 12 = 28, 3x^2 - 7",
    "他在2023年12月31日买了12345个苹果",
    "scale 1:250000",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in PRIVATE.items() for text in texts])
def test_personal_data_is_found(kind: str, text: str) -> None:
    assert kind in find_private(text)
    assert kind in find_private(f"Hello, {text}, what is this?")


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_is_not_taken_for_personal_data(text: str) -> None:
    assert find_private(text) == ()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("e-mail address", "user@münchen.de"),
        ("e-mail address", "info@例え.jp"),
        ("e-mail address", '"john doe"@firm.example'),
        ("e-mail address", "me AT gmail DOT com"),
        ("phone number", "9876543210 is my phone"),
        ("phone number", "89123456789 мой телефон"),
        ("phone number", "(555) 123-4567"),
        ("payment card", "4111.1111.1111.1111"),
        ("PAN (India)", "ABCPE1234F"),
        ("password", "пароль: qwerty12"),
        ("date of birth", "my birthday is 1984-05-03"),
        ("street address", "My address is 55 elm street apt 4"),
        ("key or token", "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("key or token", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0NTY3ODkwIn0."),
        ("key or token", "gsk" + "_a1b2c3d4e5f6g7h8i9j0k1l2"),
        ("key or token", "r8" + "_a1b2c3d4e5f6g7h8i9j0k1l2"),
        ("key or token", "xai" + "-a1b2c3d4e5f6g7h8i9j0k1l2"),
        ("key or token", "shpat" + "_0123456789abcdef0123456789abcdef"),
        ("key or token", "dckr_pat" + "_a1b2c3d4e5f6g7h8i9j0k1l2"),
        ("key or token", "key" + "-0123456789abcdef0123456789abcdef"),
        ("key or token", "AccountKey=" + "a1b2" * 20 + "=="),
    ],
)
def test_personal_data_in_rarer_forms_is_found(kind: str, text: str) -> None:
    assert kind in find_private(text)


@pytest.mark.parametrize(
    "text",
    [
        "git clone git@github.com:owner/repo.git",
        "RFC 2119 section 3.4.2.1",
        "row 4500 4600 4700 4800",
        "a @ b.T is one",
    ],
)
def test_text_of_programs_and_tables_is_not_personal(text: str) -> None:
    assert find_private(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # Luhn
        "DE89 3704 0044 0532 0130 01",  # modulo 97
        "11010519491231002Y",
        "110105194912310021",  # check digit of China
        "11010519491331002X",  # there is no month 13
        "666-05-1120",
        "529.982.247-26",
        "85.07.30-033.29",
        "RSSMRA85T10A562T",
        "S1234567A",
        "131052-308U",
        "12345678A",
    ],
)
def test_a_number_whose_check_digit_is_wrong_is_no_number_of_its_kind(text: str) -> None:
    assert not {kind for kind in find_private(text) if kind != "phone number"}


@given(st.text(string.digits, min_size=15, max_size=15).filter(lambda digits: len(set(digits)) > 1))
def test_changing_one_digit_of_a_card_is_noticed(digits: str) -> None:
    number = "4" + digits[1:]
    check = next(str(i) for i in range(10) if passes_luhn(number + str(i)))
    assert is_card(number + check)
    assert not passes_luhn(number + str((int(check) + 1) % 10))


@given(st.text(string.digits, min_size=18, max_size=18))
def test_an_iban_is_valid_with_exactly_one_of_the_checksums(digits: str) -> None:
    assert sum(is_iban(f"DE{check:02}{digits}") for check in range(2, 99)) == 1


@settings(max_examples=30)
@given(st.text(max_size=120))
def test_any_text_can_be_judged(text: str) -> None:
    assert isinstance(find_private(text), tuple)


@pytest.mark.parametrize("piece", ["1 ", "a@", "1-", "A ", "12 Aaaa ", "北", "eyJ", "0 ", "x:", "password: ", "(1) "])
def test_a_long_text_takes_time_that_grows_with_its_length_only(piece: str) -> None:
    """A pattern that backtracks would not come back from this."""
    assert isinstance(find_private(piece * 4000), tuple)
