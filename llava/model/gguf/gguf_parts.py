"""Models in several GGUF files, as llama.cpp's ``gguf-split`` writes them: NAME-00001-of-00003.gguf and so on.

The first part has all metadata; each has the numbers of itself and of the parts, and its own tensors.

Source: ggml-org/llama.cpp as in llama-cpp-python 0.3.36: tools/gguf-split/gguf-split.cpp; src/llama.cpp
(llama_split_path), src/llama-model-loader.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NUMBER, COUNT, NUM_TENSORS = "split.no", "split.count", "split.tensors.count"
_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def count_parts(metadata: Mapping[str, Any]) -> int:
    """In how many files the model is, by the metadata of one of them; 1 if they do not say it."""
    count = metadata.get(COUNT, 1)
    return count if isinstance(count, int) and count > 1 else 1


def name_parts(path: Path, count: int) -> list[Path] | None:
    """The paths of all parts, by that of one of them; None if its name is not that of one of so many parts."""
    match = _NAME.fullmatch(path.name)
    if match is None or int(match[3]) != count or not 1 <= int(match[2]) <= count:
        return None
    return [path.with_name(f"{match[1]}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def is_later_part(name: str) -> bool:
    """Whether a file's name is that of a part after the first."""
    match = _NAME.fullmatch(name)
    return match is not None and int(match[2]) > 1


def drop_part(name: str) -> str:
    """The name without the number of the part."""
    match = _NAME.fullmatch(name)
    return name if match is None else f"{match[1]}.gguf"
