"""A small L that can be none is a capital I."""

from __future__ import annotations

import pytest

from llava.model.lexical.capital_i import mend_capitals


@pytest.mark.parametrize(
    ("read", "meant"),
    [
        ("Bianchi lce Cream", "Bianchi Ice Cream"),
        ("Charge | lgnore", "Charge | Ignore"),
        ("lt is late", "It is late"),
        ("EXlT", "EXIT"),
        ("lNFO", "INFO"),
        ("l am here, l'm late", "I am here, I'm late"),
        ("TAXl", "TAXI"),
        ("Apple lnc.", "Apple Inc."),
        ("ls it lvy? ld card", "Is it Ivy? Id card"),
    ],
)
def test_an_l_before_a_consonant_begins_no_word(read: str, meant: str) -> None:
    assert mend_capitals(read) == meant


@pytest.mark.parametrize(
    "text", ["ls -l", "lstat(path)", "lr = 0.01", "lst=[]", "Smith & Sons ltd", "ln 2", "/usr/bin/lsof"]
)
def test_code_and_abbreviations_stay(text: str) -> None:
    assert mend_capitals(text) == text


@pytest.mark.parametrize(
    "text",
    ["5 lb of flour", "12 lbs", "800 lm", "2 l of milk", "la lune", "l'eau", "llama", "late", "Km/l", "5 l milk"],
)
def test_words_and_units_with_an_l_stay(text: str) -> None:
    assert mend_capitals(text) == text
