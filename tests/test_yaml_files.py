"""YAML files that people write: what is wrong with one is one sentence, which says where."""

from __future__ import annotations

import pytest

from llava.errors import UsageError
from llava.train.typed_values import apply_overrides
from llava.yaml_files import parse_mapping, say_value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("2026-02-30", "'2026-02-30' is not a valid date"),
        ("2026-01-01T99:00:00", "'2026-01-01T99:00:00' is not a valid date"),
        ("0x_", "'0x_' is not a valid whole number"),
        ("9" * 5000, "...' is not a valid whole number"),
        ("!!int x", "'x' is not a valid whole number"),
        ("!!int ''", "'' is not a valid whole number"),
        ("!!float x", "'x' is not a valid number"),
        ("!!timestamp x", "'x' is not a valid date"),
        ("!!bool maybe", "'maybe' is not a valid boolean"),
    ],
)
def test_a_value_that_its_type_does_not_have_is_named_with_its_line(value: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_mapping(f"a: 1\nb: {value}", "The file")
    assert str(caught.value).startswith("The file is not valid YAML in line 2: ")
    assert f"{says}; write it in quotes if it is a text." in str(caught.value)
    with pytest.raises(UsageError, match="The value of b is not valid YAML in line 1: "):
        apply_overrides({}, [f"b={value}"])


def test_an_override_is_read_as_strictly_as_the_file() -> None:
    with pytest.raises(UsageError, match="the key 'rank' occurs twice"):
        apply_overrides({}, ["lora={rank: 1, rank: 2}"])
    with pytest.raises(UsageError, match="is nested too deeply"):
        apply_overrides({}, ["lora=" + "[" * 3000])


def test_a_value_is_quoted_on_one_short_line() -> None:
    assert say_value("a\nb") == r"'a\nb'"
    assert len(say_value("x" * 1000)) == len(say_value(16**9000)) == 80
    assert (say_value(b"x"), say_value({1})) == ("binary data", "a set")
