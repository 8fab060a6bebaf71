"""What the columns of a parquet file hold: which are LLaVA's fields, and in which of the known types.

    conversations   list<struct<from, value>>, struct<from: list, value: list>, the same with role and content
    image, images   struct<bytes: binary, path: string>, list of these; string (a path) or binary, lists of them
    id, data_source anything; other columns are ignored

Source: huggingface/datasets@1b935da src/datasets/features/image.py (Image is stored as struct<bytes, path>; a string is
a path, binary is an image's bytes; either of bytes and path may be null); a list of dicts is stored as a struct of
lists where the feature is a ``Sequence`` of a dict; the columns of huggingface.co/datasets/lmms-lab/LLaVA-NeXT-Data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava.errors import UsageError

_TURN_KEYS = ({"from", "value"}, {"role", "content"})


@dataclass(frozen=True)
class ParquetSchema:
    """The columns that are used.

    Attributes:
        texts: columns, or parts of them, that are read for a row: everything but the bytes of images.
        image: the image column; None without one.
        kind: of an image: "struct", "path", "bytes" or "null".
        leaf: the path of the column of bytes in the file, such as "images.list.element.bytes"; "" without one.
    """

    texts: tuple[str, ...]
    image: str | None = None
    kind: str = "null"
    leaf: str = ""


def read_schema(file: Any, path: str) -> ParquetSchema:
    """The columns of a ``ParquetFile``. Raises UsageError if one is missing or has a type that is none of the known."""
    arrow = file.schema_arrow
    for name in ("conversations", "id", "data_source", "image", "images"):
        if (count := arrow.names.count(name)) > 1:
            raise UsageError(f"The data file '{path}' has {count} columns '{name}': keep one of them.")
    if "conversations" not in arrow.names:
        raise UsageError(
            f"The data file '{path}' has no column 'conversations'; it has {', '.join(arrow.names[:12])}. Convert it "
            "to LLaVA's format first."
        )
    _check_conversations(arrow.field("conversations").type, path)
    named = [name for name in ("image", "images") if name in arrow.names]
    if len(named) > 1:
        raise UsageError(f"The data file '{path}' has the columns 'image' and 'images': keep one of them.")
    others = tuple(name for name in ("id", "data_source", "conversations") if name in arrow.names)
    if not named:
        return ParquetSchema(others)
    image = named[0]
    kind = _find_kind(arrow.field(image).type, image, path)
    leaves = [leaf for leaf in _list_leaves(file) if leaf == image or leaf.startswith(f"{image}.")]
    stored = [leaf for leaf in leaves if kind == "bytes" or (kind == "struct" and leaf.endswith(".bytes"))]
    rest = [leaf for leaf in leaves if leaf not in stored]
    # Without a part beside the bytes, only these tell which rows have an image.
    return ParquetSchema((*others, *(rest or leaves)), image, kind, stored[0] if stored else "")


def _list_leaves(file: Any) -> list[str]:
    return [file.schema.column(i).path for i in range(len(file.schema))]


def _is_list(type: Any) -> bool:
    from pyarrow import types

    return types.is_list(type) or types.is_large_list(type) or types.is_fixed_size_list(type)


def _is_text(type: Any) -> bool:
    from pyarrow import types

    is_known = types.is_string(type) or types.is_large_string(type) or types.is_null(type)
    return is_known or types.is_string_view(type)


def _is_binary(type: Any) -> bool:
    from pyarrow import types

    return types.is_binary(type) or types.is_large_binary(type) or types.is_binary_view(type)


def _check_conversations(type: Any, path: str) -> None:
    from pyarrow import types

    turn = type.value_type if _is_list(type) else type
    if types.is_struct(turn):
        fields = {field.name: field.type for field in turn}
        for keys in _TURN_KEYS:
            if keys <= set(fields):
                values = [fields[key] for key in keys]
                if not _is_list(type):
                    values = [each.value_type if _is_list(each) else None for each in values]
                if all(each is not None and _is_text(each) for each in values):
                    return
    raise UsageError(
        f"The column 'conversations' of the data file '{path}' is of type {type}; it has to be a list of structs with "
        "the texts 'from' and 'value'."
    )


def _find_kind(type: Any, image: str, path: str) -> str:
    from pyarrow import types

    each = type.value_type if _is_list(type) else type
    if types.is_null(each):
        return "null"
    if _is_text(each):
        return "path"
    if _is_binary(each):
        return "bytes"
    if types.is_struct(each):
        fields = {field.name: field.type for field in each}
        has_bytes = "bytes" in fields and (_is_binary(fields["bytes"]) or types.is_null(fields["bytes"]))
        if has_bytes or ("path" in fields and _is_text(fields["path"])):
            return "struct"
    raise UsageError(
        f"The column '{image}' of the data file '{path}' is of type {type}; it has to be an image as `datasets` stores "
        "it, struct<bytes: binary, path: string>, or the path of one, or a list of these."
    )
