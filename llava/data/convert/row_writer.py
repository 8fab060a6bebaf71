"""Writes the rows of a converter to a file, all or nothing, and counts what was left out and why.

The rows are streamed to a temporary file beside the target, which gets its name when it is complete: a killed
conversion leaves nothing that looks finished, and starts over. No torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from llava.data.convert.converter import Converter, LeftOut, Options, Row
from llava.data.records import parse_record
from llava.errors import LlavaError, UsageError


@dataclass
class Written:
    """What a conversion wrote.

    Attributes:
        path: the file.
        num_rows, num_turns: rows, and question-answer pairs.
        num_images: different images.
        num_renamed: rows whose id had occurred before, to which a number was added.
        left_out: what was not converted.
    """

    path: Path
    num_rows: int = 0
    num_turns: int = 0
    num_images: int = 0
    num_renamed: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
