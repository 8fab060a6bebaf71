"""A folder of images and what is true of them, for ``llava eval photos``: from the files' names, or a list. No torch.

The list is ``truth.json`` or ``truth.csv`` in the folder: for each image either what it shows (``names``, ``kinds``),
or a question of its own with its accepted ``answers``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from llava.errors import BadImage, UsageError
from llava.eval.everyday_kinds import find_kinds
from llava.eval.json_files import read_json
from llava.image.source import Limits, load_image
from llava.synth.truth import AnswerForm, Truth

LISTS = ("truth.json", "truth.csv")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
WORDINGS = (
    "What is in this picture?",
    "What does this image show?",
    "What is the main thing in this photo? Answer in one sentence.",
)
_KEYS = frozenset("file names kinds question answers others form tolerance keeps_case group".split())
_REMEDY = (
    'Name the images after what they show ("red panda 2.jpg"), or write a truth.json: '
    '[{"file": "a.jpg", "names": ["cat"], "kinds": ["animal"]}, ...].'
)


@dataclass(frozen=True)
class PhotoQuestion:
    """One question about an image of the folder. ``group``: the row of the table in which it counts."""

    path: Path
    question: str
    truth: Truth
    group: str


def read_folder(folder: Path, listed: Path | None = None) -> list[PhotoQuestion]:
    """The questions about a folder's images, in the order of the list, or of the files' names.

    ``listed``: the list, by default ``truth.json`` or ``truth.csv`` of the folder, or else the files' names.

    Raises UsageError for a folder without images or truth, and for a list that is damaged or names a missing image.
    """
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder. Name a folder of images.")
    listed = listed or next((folder / name for name in LISTS if (folder / name).is_file()), None)
    if listed is not None:
        return _read_list(folder, listed)
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES and not path.name.startswith("."))
    if not found:
        raise UsageError(f"'{folder}' has no images ({', '.join(kind[1:] for kind in IMAGES)}). {_REMEDY}")
    nameless = [path.name for path in found if not name_by_file(path)]
    if nameless:
        raise UsageError(
            f"The names of {len(nameless)} of {len(found)} images in '{folder}' do not say what they show, the first "
            f"of them '{nameless[0]}'. {_REMEDY}"
        )
    return [one for path in found for one in _ask_what(path, (name_by_file(path),), find_kinds(name_by_file(path)), "")]


def name_by_file(path: Path) -> str:
    """What a file's name says that it shows, without numbers: "red panda" of ``red_panda-02.jpg``; "" for none.

    Names that cameras give, such as ``IMG_2034.jpg``, say nothing.
    """
    words = re.sub(r"[\W_\d]+", " ", path.stem).strip().lower()
    return "" if re.fullmatch(r"(?:(?:img|image|dsc[nf]?|pict?|photo|p|scan|screenshot|wa|pxl)\b ?)*", words) else words


def check_images(questions: Sequence[PhotoQuestion], limits: Limits) -> None:
    """Opens every image. Raises UsageError that names those that are damaged, or refused by the limits."""
    faults = []
    paths = list(dict.fromkeys(one.path for one in questions))
    for path in paths:
        try:
            load_image(path, limits)
        except BadImage as error:
            faults.append((path.name, str(error)))
    if faults:
        raise UsageError(
            f"{len(faults)} of {len(paths)} images cannot be read: {', '.join(repr(name) for name, _ in faults[:5])}. "
            f"The first: {faults[0][1]} Repair or remove them, in the list, too."
        )


def _ask_what(path: Path, names: Sequence[str], kinds: Sequence[str], group: str) -> Iterator[PhotoQuestion]:
    truth = Truth(tuple(names), kinds=tuple(kind for kind in kinds if kind not in names))
    for wording in WORDINGS:
        yield PhotoQuestion(path, wording, truth, group or "what it shows")


def _read_list(folder: Path, listed: Path) -> list[PhotoQuestion]:
    rows = list(_read_csv(listed)) if listed.suffix.lower() == ".csv" else read_json(listed)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"'{listed}' is not a list of objects. {_REMEDY}")
    if not rows:
        raise UsageError(f"'{listed}' is empty. {_REMEDY}")
    questions: list[PhotoQuestion] = []
    for number, row in enumerate(rows, 1):
        questions += _read_row(folder, _Row(listed, number, row))
    return questions


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file whose first line names the columns; several values of a cell are divided by ";"."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"'{path}' cannot be read: {error}.") from error
    try:
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise UsageError(f"'{path}' is not a CSV file: {error}.") from error
    for row in rows:
        if None in row:
            raise UsageError(f"A line of '{path}' has more cells than the first line has columns: {row[None]}.")
        found: dict[str, Any] = {}
        for key, cell in row.items():
            values = [part.strip() for part in (cell or "").split(";") if part.strip()]
            if values:
                found[key.strip()] = values if key.strip() in ("names", "kinds", "answers", "others") else cell.strip()
        if "tolerance" in found:
            found["tolerance"] = _to_number(found["tolerance"])
        if found.get("keeps_case", "").lower() in ("true", "false"):
            found["keeps_case"] = found["keeps_case"].lower() == "true"
        yield found


def _to_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class _Row:
    """A row of the list, with what an error says of it."""

    listed: Path
    number: int
    row: Mapping[str, Any]

    def fail(self, said: str) -> UsageError:
        return UsageError(f"Entry {self.number} of '{self.listed}': {said}")

    def texts(self, key: str) -> tuple[str, ...]:
        found = self.row.get(key, [])
        found = [found] if isinstance(found, str) else found
        if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
            raise self.fail(f"'{key}' is {found!r}; it has to be a list of texts.")
        return tuple(found)

    def text(self, key: str, default: str = "") -> str:
        found = self.row.get(key, default)
        if not isinstance(found, str):
            raise self.fail(f"'{key}' is {found!r}; it has to be a text.")
        return found


def _read_row(folder: Path, row: _Row) -> Iterator[PhotoQuestion]:
    if unknown := sorted(set(row.row) - _KEYS):
        raise row.fail(f"'{unknown[0]}' is none of its keys; there are: {', '.join(sorted(_KEYS))}.")
    name = row.text("file")
    if not name:
        raise row.fail("it has no 'file'.")
    path = folder / name
    if not path.is_file():
        raise row.fail(f"the image '{path}' is missing.")
    if "question" not in row.row:
        names = row.texts("names") or ((name_by_file(path),) if name_by_file(path) else ())
        if not names:
            raise row.fail("it has neither 'names' nor a 'question', and its file's name does not say what it shows.")
        kinds = row.texts("kinds") or tuple(dict.fromkeys(kind for each in names for kind in find_kinds(each)))
        yield from _ask_what(path, names, kinds, row.text("group"))
        return
    form: Any = row.text("form", "name")
    if form not in get_args(AnswerForm):
        raise row.fail(f"'form' is {form!r}; there are: {', '.join(get_args(AnswerForm))}.")
    answers = row.texts("answers")
    if not answers and form != "cannot tell":
        raise row.fail("it has a question without 'answers'.")
    tolerance = row.row.get("tolerance", 0.0)
    if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 <= tolerance < float("inf"):
        raise row.fail(f"'tolerance' is {tolerance!r}; it has to be a number of at least 0.")
    keeps_case = row.row.get("keeps_case", False)
    if not isinstance(keeps_case, bool):
        raise row.fail(f"'keeps_case' is {keeps_case!r}; it has to be true or false.")
    truth = Truth(answers, form, row.texts("others"), row.texts("kinds"), float(tolerance), keeps_case)
    yield PhotoQuestion(path, row.text("question"), truth, row.text("group") or "questions")
