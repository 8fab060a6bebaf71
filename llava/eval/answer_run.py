"""Answers a benchmark's questions into an answers file: resumable, in the questions' order, failures counted and named.

Questions about one image are asked together, so that the engine's prefix cache holds the image; the file keeps the
questions' order all the same. A question that fails has no line in the file, so that nothing can score it unnoticed:
it is named in ``FILE.failures``, and the next run asks it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.data.collection.journal import is_stream, write_whole
from llava.data.long_work import LongWork
from llava.eval.answer_kinds import is_refusal
from llava.eval.answers_file import AnswersFile
from llava.eval.askers import Asker, Outcome
from llava.eval.task import Question
from llava.text import fit_line, write_line

WINDOW = 256  # questions within which those about one image are brought together


@dataclass
class Summary:
    """The outcome of a run: the places of the questions of each kind; ``kept`` were answered by an earlier run."""

    asked: int
    kept: int
    failed: dict[int, str]
    empty: list[int]
    refused: list[int]
    cut: list[int]


def order_by_image(questions: Sequence[Question], places: Sequence[int]) -> Iterator[int]:
    """The places in the order of asking: within each window, questions about one image follow each other."""
    for start in range(0, len(places), WINDOW):
        window = places[start : start + WINDOW]
        first: dict[object, int] = {}
        for place in window:
            first.setdefault(questions[place].images, place)
        yield from sorted(window, key=lambda place: (first[questions[place].images], place))


def answer_questions(
    questions: Sequence[Question],
    asker: Asker,
    path: Path,
    *,
    name: str = "Answering",
    wanted: Sequence[int] | None = None,
) -> Summary:
    """Answers the questions that the file does not answer yet; says on stderr what failed, is empty, refused or cut.

    ``wanted``: the places of those that are asked, by default all. The file may hold answers to the others, too.
    """
    wanted = range(len(questions)) if wanted is None else wanted
    with AnswersFile(path, questions, asker.model_id, asker.settings) as file:
        places = [place for place in wanted if place not in file.lines]
        summary = Summary(len(places), len(wanted) - len(places), {}, [], [], [])
        if summary.kept:
            others = "the others are asked" if places else "none is left to ask"
            write_line(f"llava: '{path}' has {summary.kept} of {len(wanted)} answers already; {others}.")
        try:
            _ask(questions, places, asker, file, summary, name)
        except KeyboardInterrupt:
            write_line(f"llava: '{path}' keeps its {len(file.lines)} answers: the same command asks the others.")
            raise
    _write_failures(path, questions, summary)
    _say(path, questions, summary)
    return summary


def _ask(
    questions: Sequence[Question],
    places: Sequence[int],
    asker: Asker,
    file: AnswersFile,
    summary: Summary,
    name: str,
) -> None:
    """Asks the questions at these places; their outcomes go to the file and the summary in the places' order."""
    asked = list(order_by_image(questions, places))
    ready: dict[int, Outcome] = {}
    next_place = iter(places)
    waiting_for = next(next_place, None)
    with LongWork(name, summary.kept + len(places), " questions") as work:
        work.move_to(summary.kept)
        outcomes = asker.ask(questions[place] for place in asked)
        for done, (place, outcome) in enumerate(zip(asked, outcomes, strict=True), 1):
            ready[place] = outcome
            while waiting_for is not None and waiting_for in ready:
                _keep(file, summary, waiting_for, ready.pop(waiting_for))
                waiting_for = next(next_place, None)
            work.move_to(summary.kept + done)


def _keep(file: AnswersFile, summary: Summary, place: int, outcome: Outcome) -> None:
    if outcome.text is None:
        summary.failed[place] = outcome.error
        return
    file.write(place, outcome.text)
    if not outcome.text:
        summary.empty.append(place)
    elif is_refusal(outcome.text):
        summary.refused.append(place)
    if outcome.is_cut:
        summary.cut.append(place)


def _write_failures(path: Path, questions: Sequence[Question], summary: Summary) -> None:
    target = path.with_name(path.name + ".failures")
    if is_stream(path):  # it has no folder of its own
        return
    if not summary.failed:
        target.unlink(missing_ok=True)
        return
    rows = [{"question_id": questions[place].id, "error": error} for place, error in summary.failed.items()]
    write_whole(target.resolve(), "".join(json.dumps(row) + "\n" for row in rows).encode())


def _say(path: Path, questions: Sequence[Question], summary: Summary) -> None:
    def name(places: Sequence[int]) -> str:
        ids = ", ".join(repr(questions[place].id) for place in places[:5])
        return f"{len(places)} ({ids}{', ...' if len(places) > 5 else ''})"

    if summary.empty:
        write_line(f"llava: empty answers: {name(summary.empty)}.")
    if summary.refused:
        write_line(f"llava: answers that read like a refusal: {name(summary.refused)}.")
    if summary.cut:
        write_line(f"llava: answers cut at the most new tokens, or at the context's end: {name(summary.cut)}.")
    if summary.failed:
        first = next(iter(summary.failed.values()))
        named = "" if is_stream(path) else f", and are named in '{path.name}.failures'"
        write_line(
            f"llava: questions that failed: {name(list(summary.failed))}. They have no line in '{path}'{named}. "
            f"The first: {fit_line(first)}"
        )
