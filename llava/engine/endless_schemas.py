"""Tells schemas that no finite document fits, as those whose objects always hold another of their kind.

llguidance compiles them, and an answer would go on until its tokens run out. What is not understood here is taken for
finite, so that no schema is refused wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def is_endless(schema: Mapping[str, Any]) -> bool:
    """Whether each document that fits a schema holds another one without end."""
    targets = {ref: _resolve(schema, ref) for ref in _list_refs(schema)}
    finite: set[str] = set()
    num_known = -1
    while num_known < len(finite):  # the least fixed point: what is finite by what is known to be
        num_known = len(finite)
        for ref, target in targets.items():
            if ref not in finite and _ends(target, finite):
                finite.add(ref)
    return not _ends(schema, finite)


def _ends(schema: Any, finite: set[str]) -> bool:
    """Whether a finite document fits a schema whose references in ``finite`` have one."""
    if not isinstance(schema, Mapping) or "const" in schema or "enum" in schema:
        return True
    if isinstance(schema.get("$ref"), str) and schema["$ref"] not in finite:
        return False
    if not all(_ends(part, finite) for part in _as_list(schema.get("allOf"))):
        return False
    for choice in ("anyOf", "oneOf"):
        parts = _as_list(schema.get(choice))
        if parts and not any(_ends(part, finite) for part in parts):
            return False
    return all(_ends(part, finite) for part in _list_held(schema))


def _list_held(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas of what each object or array that fits holds; none where a value of another type fits as well."""
    if schema.get("type") in ("object", ["object"]) and isinstance(schema.get("properties"), Mapping):
        names = [name for name in _as_list(schema.get("required")) if isinstance(name, str)]
        yield from (schema["properties"][name] for name in names if name in schema["properties"])
    least = schema.get("minItems")
    if schema.get("type") in ("array", ["array"]) and isinstance(least, int):
        first = _as_list(schema.get("prefixItems"))[:least]
        yield from first
        if least > len(first):
            yield schema.get("items")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _list_refs(value: Any) -> Iterator[str]:
    """All references within a schema; one that stands in a constant is merely not needed."""
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from _list_refs(part)
    elif isinstance(value, list):
        for part in value:
            yield from _list_refs(part)


def _resolve(schema: Any, ref: str) -> Any:
    """What a reference points to within the schema; None where that is not found."""
    if not ref.startswith("#"):
        return None
    found = schema
    for step in ref[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if ref == "#" or ref.startswith("#/") else None
