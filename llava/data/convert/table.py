"""The datasets that ``llava data convert`` knows: a row each, as ``llava data list`` prints them. No torch."""

from __future__ import annotations

from llava.data.convert.converter import Converter
from llava.data.convert.document_table import DOCUMENT_ROWS
from llava.errors import UsageError
from llava.yaml_files import name_nearest

_ROWS: tuple[Converter, ...] = (
    # Questions about photographs, captions, regions.
    # Documents, charts, science, conversations.
    *DOCUMENT_ROWS,
)

CONVERTERS = {row.name: row for row in _ROWS}


def find_converter(name: str) -> Converter:
    """The row of the table with that name. Raises UsageError if there is none."""
    if name not in CONVERTERS:
        raise UsageError(f"There is no converter '{name}'.{name_nearest(name, CONVERTERS)}")
    return CONVERTERS[name]
