"""Review sheets, on which a person accepts or drops rows, and the files of decisions that they save.

A sheet is one HTML file that loads nothing from anywhere: thumbnails, text and script are in it. Its decisions are
kept in the browser and saved as a JSON file. Each decision holds a digest of what the person saw, so that a row that
changed since then counts as undecided.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from llava.data.collection.journal import write_whole
from llava.errors import UsageError
from llava.image.source import load_image
from llava.text import fit_line

ROWS_PER_SHEET = 500
_THUMBNAIL_PX = 480
_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class SheetRow:
    """What a person judges: the turns as in LLaVA's data format, without slots; ``facts``: where it comes from."""

    id: str
    turns: tuple[tuple[str, str], ...]
    paths: tuple[Path, ...] = ()
    facts: str = ""

    @property
    def seen(self) -> str:
        """A digest of the turns."""
        return hashlib.sha256(json.dumps([self.id, self.turns]).encode()).hexdigest()[:16]


def write_sheets(rows: Sequence[SheetRow], folder: Path, rows_per_sheet: int = ROWS_PER_SHEET) -> list[Path]:
    """Writes ``review.html``, or ``review-1.html`` and so on, and removes sheets of earlier runs. Returns the paths."""
    parts = [rows[i : i + rows_per_sheet] for i in range(0, len(rows), rows_per_sheet)]
    names = ["review"] if len(parts) == 1 else [f"review-{i + 1}" for i in range(len(parts))]
    paths = []
    for name, part in zip(names, parts, strict=True):
        write_whole(folder / f"{name}.html", _render(part, f"{name}.json").encode("utf-8", "replace"))
        paths.append(folder / f"{name}.html")
    for old in folder.glob("review*.html"):
        if old not in paths and (old.stem == "review" or old.stem[len("review-") :].isdigit()):
            old.unlink()
    return paths


def _render(rows: Sequence[SheetRow], file: str) -> str:
    data = {
        "sheet": hashlib.sha256("".join(row.id for row in rows).encode()).hexdigest()[:16],
        "file": file,
        "rows": [
            {
                "id": row.id,
                "seen": row.seen,
                "turns": [{"from": speaker, "value": text} for speaker, text in row.turns],
                "thumbnails": [_draw_thumbnail(path) for path in row.paths],
                "facts": row.facts,
            }
            for row in rows
        ],
    }
    # Inside <script> only "<" could end the data.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return Path(__file__).with_name("sheet.html").read_text(encoding="utf-8").replace("%DATA%", text, 1)


def _draw_thumbnail(path: Path) -> str:
    image = load_image(path).image
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True)
class Decisions:
    """What a person decided: (decision, digest of what was seen) by the id of a row."""

    rows: Mapping[str, tuple[str, str]]

    def is_dropped(self, id: str) -> bool:
        """Whether the row was dropped, whatever was seen of it: its question stays the same."""
        return self.rows.get(id, ("", ""))[0] == "drop"

    def is_accepted(self, id: str, seen: str | None = None) -> bool:
        """Whether the row was accepted, and as it is now if ``seen`` is its digest."""
        decision, was_seen = self.rows.get(id, ("", ""))
        return decision == "accept" and seen in (None, was_seen)


def read_decisions(paths: Sequence[Path]) -> Decisions:
    """The decisions of several files. Raises UsageError for a file that is none, and for rows decided both ways."""
    rows: dict[str, tuple[str, str]] = {}
    for path in paths:
        for id, (decision, seen) in _read_file(path).items():
            if rows.get(id, (decision,))[0] != decision:
                raise UsageError(f"Row {id} is accepted in one file of decisions and dropped in another, '{path}'.")
            rows[id] = (decision, seen)
    return Decisions(rows)


def _read_file(path: Path) -> dict[str, tuple[str, str]]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"'{path}' has more than 256 MiB: it is not a file of decisions.")
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"The file of decisions '{path}' cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        remedy = "Save it again from the review sheet."
        raise UsageError(f"'{path}' is not valid JSON: {fit_line(str(error))}. {remedy}") from error
    rows = content.get("rows") if isinstance(content, dict) and content.get("llava_review") == 1 else None
    if not isinstance(rows, dict):
        raise UsageError(f"'{path}' is not a file of decisions: save one with the button of the review sheet.")
    decisions = {}
    for id, row in rows.items():
        decision = row.get("decision") if isinstance(row, dict) else None
        if decision not in ("accept", "drop"):
            raise UsageError(f"'{path}': row {fit_line(id, 60)} is {decision!r:.40}; it has to be accept or drop.")
        decisions[id] = (decision, str(row.get("seen", "")))
    return decisions
