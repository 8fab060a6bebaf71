"""SEED-Bench's accuracy by type, and the file for its leaderboard, as LLaVA-1.5's script prints and writes them.

Deliberate differences from the original: ids that are written as text are found; without an answer to every question
no file is written, where the original leaves half of one; an image-only run gets its accuracy and its file. Loads no
torch.

Source: haotian-liu/LLaVA@524a75b scripts/convert_seed_for_submission.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.data.collection.journal import write_whole
from llava.entry_point import run_command
from llava.errors import UsageError
from llava.eval.json_files import find_repeated, pick_text, read_whole_lines
from llava.eval.scoring.seed_bench import score_seed
from llava.eval.seed_files import KINDS, SeedAnnotations, SeedQuestion, count_seed, make_key, read_seed
from llava.eval.submission import pick_id, say_empty
from llava.text import write_line


def convert(annotation_file: str, result_file: str, upload_file: str) -> None:
    """Prints the accuracies and writes the upload file. Raises UsageError if answers are missing, after printing."""
    annotations = read_seed(annotation_file)
    given = _read_answers(result_file, annotations)
    _print_accuracies(annotations, given)
    missing = [question for question in annotations.questions if make_key(question.id) not in given]
    rest = annotations.questions
    if missing:
        rest = [question for question in annotations.questions if question.kind == "image"]
        _refuse_half(missing, rest, annotations, result_file)
    rows = [{"question_id": one.id, "prediction": given[make_key(one.id)]} for one in rest]
    write_whole(Path(upload_file).resolve(), "".join(json.dumps(row) + "\n" for row in rows).encode())


def _read_answers(path: str, annotations: SeedAnnotations) -> dict[int | str, str]:
    rows = read_whole_lines(path)
    ids = [pick_id(row, "question_id", path) for row in rows]
    given = {make_key(key): pick_text(row, "text", path) for key, row in zip(ids, rows, strict=True)}
    known = {make_key(question.id) for question in annotations.questions}
    strangers = [key for key in given if key not in known]
    if strangers:
        raise UsageError(
            f"{len(strangers)} of the {len(given)} answers in '{path}' are to questions that the annotations do not "
            f"have, such as {strangers[0]!r}. Name the files of the same version of SEED-Bench."
        )
    if repeated := find_repeated(map(make_key, ids)):
        write_line(
            f"llava: {len(repeated)} questions are answered more than once in '{path}', such as {repeated[0]!r}; the "
            "last answer counts."
        )
    if as_text := sum(isinstance(make_key(key), int) and not isinstance(key, int) for key in ids):
        write_line(f"llava: {as_text} ids in '{path}' are numbers as text; the original counts such answers as wrong.")
    say_empty(given.values(), path)
    return given


def _print_accuracies(annotations: SeedAnnotations, given: dict[int | str, str]) -> None:
    rows: list[tuple[SeedQuestion, bool]] = []
    for question in annotations.questions:
        text = given.get(make_key(question.id))
        rows.append((question, text is not None and score_seed(text, question.answer).score == 1))
    table = count_seed(rows)
    for type_id in table.num:
        print(f"{annotations.types[type_id]}: {table.accuracy_of(type_id):.2f}%")
    print(f"Total accuracy: {table.accuracy:.2f}%")
    if silent := _find_silent(annotations, rows, given):
        write_line(f"llava: no answer is right in the type {silent[0]}; the original stops there.")
    for kind in KINDS:
        part = count_seed(rows, (kind,))
        if part.total:
            print(f"{kind} accuracy: {part.accuracy:.2f}%")
        else:
            write_line(f"llava: the annotations have no question about the {kind}; the original stops here.")


def _find_silent(
    annotations: SeedAnnotations, rows: Sequence[tuple[SeedQuestion, bool]], given: Mapping[int | str, str]
) -> list[str]:
    """The types that the original's table lacks: each question is answered, and wrongly."""
    counted = {one.type_id for one, is_right in rows if is_right or make_key(one.id) not in given}
    return [annotations.types[key] for key in sorted({one.type_id for one, _ in rows} - counted)]


def _refuse_half(
    missing: Sequence[SeedQuestion], images: Sequence[SeedQuestion], annotations: SeedAnnotations, path: str
) -> None:
    """Says what an image-only run is. Raises UsageError unless exactly the videos' questions have no answer."""
    num_videos = len(annotations.questions) - len(images)
    if len(missing) == num_videos and all(question.kind == "video" for question in missing):
        write_line(
            f"llava: none of the {num_videos} questions about videos is answered, and they count as wrong: the image "
            "accuracy is the score of this run, as LLaVA-NeXT's is. The file holds the answers about images only."
        )
        return
    raise UsageError(
        f"{len(missing)} of the {len(annotations.questions)} questions have no answer in '{path}', the first of them "
        f"{missing[0].id!r}, and count as wrong above. No file is written: the leaderboard wants all of them."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Scores and converts the answers; returns the exit code."""
    parser = argparse.ArgumentParser(prog="convert_seed_for_submission.py")
    for flag in ("--annotation-file", "--result-file", "--result-upload-file"):
        parser.add_argument(flag, type=str, required=True)
    args = parser.parse_args(argv)

    def work() -> int:
        convert(args.annotation_file, args.result_file, args.result_upload_file)
        return 0

    return run_command(work)
