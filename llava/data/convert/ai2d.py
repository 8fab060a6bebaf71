"""AI2D: multiple-choice questions about diagrams of science books, answered by the option's letter.

Many questions name labels by letters ("What is A?"), which the images themselves do not show: they are drawn.

Source: allenai, ai2d-all.zip: questions/N.png.json (``imageName``, ``questions``: by text, each with ``abcLabel``,
``answerTexts``, ``correctAnswer``, ``questionId``), annotations/N.png.json (``text``: by name, each with ``rectangle``
and ``replacementText``), images/N.png; ai2d_test_ids.csv. Read as allenai/molmo and google-research/big_vision@11eea57
do: "{}" is no option, and options that repeat are given once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import Any

from llava.data import prompts
from llava.data.convert.converter import Options, Row, Source, make_row
from llava.data.convert.diagram_labels import Label, draw_labels
from llava.data.convert.document_sets import save_image
from llava.data.convert.json_input import open_text, read_json, take, take_list
from llava.errors import BadImage, UsageError
from llava.image.source import load_image

FORMATS = {
    "mask": "labels that questions name by letters are replaced by the letters",
    "no-mask": "the letters stand beside the labels, which stay readable",
    "plain": "without the questions that name labels by letters",
}

# Where the diagrams with letters go, by format; "abc_images" is LLaVA-NeXT's name.
_FOLDERS = {"mask": "abc_images", "no-mask": "abc_beside_images"}
_NULL_OPTION = "{}"


def convert_ai2d(source: Source, options: Options) -> Iterator[Row]:
    """A row for each image with questions: one for the diagram itself, and one for the diagram with letters."""
    test_ids = _read_test_ids(source.file(1))
    paths = sorted(source.file(0).glob("*.json"), key=lambda path: (len(path.name), path.name))
    if not paths:
        raise UsageError(f"The folder '{source.file(0)}' has no .json file. Unpack AI2D's ai2d-all.zip.")
    for path in paths:
        entry = read_json(path)
        image = PurePosixPath(take(entry, "imageName", str, f"'{path}'")).name
        if (PurePosixPath(image).stem in test_ids) != (options.split == "test"):
            continue  # of the other split
        asked: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        for question, details in take(entry, "questions", dict, f"'{path}'").items():
            where = f"'{question}' of '{path}'"
            has_letters = take(details, "abcLabel", bool, where)
            thing = str(details.get("questionId", f"{image} {question}"))
            if has_letters and options.format == "plain":
                options.leave_out("names labels by letters", thing)
            elif (turn := _ask(question, details, where, thing, options)) is not None:
                asked[has_letters].append(turn)
        id = f"ai2d-{PurePosixPath(image).stem}"
        if asked[False]:
            yield make_row(id, f"ai2d/images/{image}", asked[False], "ai2d")
        if asked[True]:
            name = f"ai2d/{_FOLDERS[options.format]}/{image}"
            if _draw(source, image, name, options, len(asked[True])):
                yield make_row(f"{id}-abc", name, asked[True], "ai2d")


def _read_test_ids(path: Path) -> set[str]:
    """The stems of the images that belong to the test split."""
    with open_text(path) as file:
        return {line.strip().removesuffix(".png") for line in file if line.strip()}


def _ask(question: str, details: Any, where: str, thing: str, options: Options) -> tuple[str, str] | None:
    """The question with its options, and the letter of the right one; None if it cannot be asked."""
    texts = [str(text).strip() for text in take(details, "answerTexts", list, where)]
    index = take(details, "correctAnswer", int, where)
    if not 0 <= index < len(texts) or texts[index] in ("", _NULL_OPTION):
        options.leave_out("has an answer that is none of its options", thing)
        return None
    choices = list(dict.fromkeys(text for text in texts if text not in ("", _NULL_OPTION)))
    if not question.strip():
        options.leave_out("has no question", thing)
        return None
    if not 2 <= len(choices) <= len(ascii_uppercase):
        options.leave_out("has fewer than two options", thing)
        return None
    asked = prompts.join_lines(question.strip(), prompts.write_options(choices))
    return options.ask(asked, prompts.ANSWER_FORMATS["ai2d"]), ascii_uppercase[choices.index(texts[index])]


def _draw(source: Source, image: str, name: str, options: Options, num_questions: int) -> bool:
    """Stores the diagram with letters, unless the image folder has it; False if that is impossible."""
    if options.images is not None and (options.images / name).is_file():
        return True
    labels = _read_labels(source.file(2) / f"{image}.json")
    diagram = _find_diagram(source, image, options)
    if not labels or diagram is None:
        lack = "labels" if not labels else "diagram"
        for _ in range(num_questions):
            options.leave_out(f"names labels by letters, and its {lack} cannot be found", image)
        return False
    try:
        canvas = load_image(diagram).image
    except BadImage:
        for _ in range(num_questions):
            options.leave_out("names labels by letters, and its diagram cannot be decoded", image)
        return False
    drawn = draw_labels(canvas, labels, is_opaque=options.format == "mask")
    save_image(options, "AI2D's diagrams with letters are drawn; --format plain does without.", name, drawn)
    return True


def _find_diagram(source: Source, image: str, options: Options) -> Path | None:
    folders = [*source.found[3], source.file(0).parent / "images"]
    folders += [options.images / "ai2d" / "images"] if options.images is not None else []
    return next((folder / image for folder in folders if (folder / image).is_file()), None)


def _read_labels(path: Path) -> list[Label]:
    """The labels of a diagram, none if it has no annotation."""
    if not path.is_file():
        return []
    where = f"'{path}'"
    labels = []
    for name, text in take(read_json(path), "text", dict, where).items():
        place = f"Text {name} of {where}"
        corners = take_list(text, "rectangle", list, place)
        sides = [side for corner in corners for side in corner]
        if len(sides) != 4 or not all(isinstance(side, (int, float)) and math.isfinite(side) for side in sides):
            raise UsageError(f"{place}: its rectangle is {corners!r:.60}, not two corners. Get the file again.")
        labels.append(Label((sides[0], sides[1], sides[2], sides[3]), take(text, "replacementText", str, place)))
    return labels
