"""MME's folder of questions, its truths, and the files of answers by category. Loads no torch.

Source: haotian-liu/LLaVA@32cebc3 playground/data/eval/MME/convert_answer_to_mme.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llava.data.prompts import SHORT_ANSWER
from llava.errors import UsageError
from llava.text import write_line

_YES_OR_NO = "Please answer yes or no."
_BREAKS = re.compile(r"[\t\r\n]")  # what ends a line, or a column, of a category's file

Key = tuple[str, str, str]
"""Category, the name of the image's text file, and the question with MME's own last sentence."""


@dataclass(frozen=True)
class MmeQuestion:
    """A question of MME's folder, as its files have it, and the truth: "Yes" or "No".

    ``num``: how often the file has it.
    """

    category: str
    file: str
    text: str
    truth: str
    num: int = 1


def read_mme_folder(folder: Path) -> dict[Key, MmeQuestion]:
    """The questions of MME_Benchmark_release_version. Raises UsageError for files that are not MME's."""
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is missing: it is MME's folder of images and questions, a folder a category.")
    found: dict[Key, MmeQuestion] = {}
    torn = []
    for category in sorted(path for path in folder.iterdir() if path.is_dir()):
        has_images = (category / "images").exists()
        place = category / "questions_answers_YN" if has_images else category
        if not place.is_dir():
            raise UsageError(f"'{place}' is missing, though '{category / 'images'}' is there: get MME's folder again.")
        for path in sorted(path for path in place.glob("*.txt") if not path.name.startswith("._")):  # of macOS
            for text, truth in _read_pairs(path):
                key = (category.name, path.name, text)
                before = found.get(key)
                if before is not None and before.truth != truth:
                    torn.append(path)
                found[key] = MmeQuestion(*key, truth, 1 if before is None else before.num + 1)
    if not found:
        raise UsageError(f"'{folder}' holds no question of MME: its categories' folders have no files NAME.txt.")
    if torn:
        write_line(f"llava: '{torn[0]}' has a question with both truths ({len(torn)} such questions); the last counts.")
    return found


def _read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is not UTF-8 text: {error}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = line.strip().split("\t")
        if len(parts) != 2 or parts[1].lower() not in ("yes", "no"):
            raise UsageError(f"Line {number} of '{path}' is not a question, a tab, and Yes or No: {line[:80]!r}.")
        yield parts[0], parts[1]


def find_question(questions: dict[Key, MmeQuestion], question_id: object, prompt: str) -> MmeQuestion | None:
    """The question that LLaVA asked as ``prompt``; None if MME's folder does not have it.

    ``question_id``: "CATEGORY/IMAGE" or "CATEGORY/images/IMAGE".
    """
    parts = str(question_id).split("/")
    category, file = parts[0], parts[-1].split(".")[0] + ".txt"
    text = prompt.replace(SHORT_ANSWER, "").strip() if SHORT_ANSWER in prompt else prompt
    if _YES_OR_NO not in text:
        text = f"{text} {_YES_OR_NO}"
        if (category, file, text) not in questions:  # some files have two blanks there
            text = text.replace(f" {_YES_OR_NO}", f"  {_YES_OR_NO}")
    return questions.get((category, file, text))


def write_line_of(question: MmeQuestion, answer: str) -> str:
    """The line of a category's file; a tab or line break in an answer becomes a blank, which no scorer minds."""
    return "\t".join((question.file, question.text, question.truth, _BREAKS.sub(" ", answer))) + "\n"


def breaks_line(answer: str) -> bool:
    """Whether the answer holds a tab or a line break, which would break the original's file."""
    return _BREAKS.search(answer) is not None
