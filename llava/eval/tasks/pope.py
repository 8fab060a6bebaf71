"""Scores a run of POPE: F1 by category, of which the mean is the published number. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.eval.json_files import pick_text, read_whole_lines
from llava.eval.scoring.pope_counts import PopeCounts, count_pope, join_pope
from llava.eval.scoring.yes_no import read_pope, read_pope_lmms_eval, read_vlmevalkit
from llava.eval.submission import pick_id
from llava.eval.task import Question
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore

CATEGORIES = ("random", "popular", "adversarial")
QUESTIONS = "pope/llava_pope_test.jsonl"
_MEASURES = ("F1", "accuracy", "precision", "recall", "yes ratio")


def score_pope(questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions) -> TaskScore:
    """F1 and the other measures, in percent; the label files are those under ``pope/coco``."""
    rows = _find_rows(questions, data / QUESTIONS)
    counts: dict[str, PopeCounts] = {}
    answers: dict[int, ScoredAnswer] = {}
    pairs: list[tuple[str, str]] = []
    for category in CATEGORIES:
        places = [place for place, row in enumerate(rows) if row["category"] == category]
        if not places and options.is_partial:
            continue
        path = str(data / "pope/coco" / f"coco_pope_{category}.json")
        chosen = [(rows[place], texts[place]) for place in places]
        joined = join_pope(chosen, read_whole_lines(path), path, is_partial=options.is_partial)
        counts[category] = count_pope(joined)
        pairs += joined
        for place, (text, label) in zip(places, joined, strict=True):
            reading = read_pope(text)
            answers[place] = ScoredAnswer(place, float(reading == label), reading, (label,), (category,))
    if not counts:
        raise UsageError("There is no answer to score in POPE.")
    scores = {"F1": _mean([count.f1 for count in counts.values()])}
    for category, count in counts.items():
        values = (count.f1, count.accuracy, count.precision, count.recall, count.yes_ratio)
        scores |= {f"{category} {name}": value * 100 for name, value in zip(_MEASURES, values, strict=True)}
    return TaskScore(
        headline="F1",
        scores=scores,
        categories={name: (count.f1 * 100, count.num) for name, count in counts.items()},
        answers=[answers[place] for place in sorted(answers)],
        readings={
            "eval_pope, all categories together": count_pope(pairs).f1 * 100,
            "lmms-eval, all categories together": count_pope(pairs, read_pope_lmms_eval).f1 * 100,
            "VLMEvalKit, all categories together": count_pope(pairs, _read_vlmevalkit).f1 * 100,
        },
        notes=_write_notes(pairs, counts),
    )


def _read_vlmevalkit(text: str) -> str:
    """Its reading for F1, where an answer that is neither yes nor no counts as no."""
    return "yes" if read_vlmevalkit(text) == "yes" else "no"


def _find_rows(questions: Sequence[Question], path: Path) -> list[Mapping[str, Any]]:
    """Each question's row of the questions file, which knows its category."""
    by_id: dict[str | int, Mapping[str, Any]] = {}
    for row in read_whole_lines(path):
        category = pick_text(row, "category", path)
        if category not in CATEGORIES:
            raise UsageError(f"'{path}' has the category {category[:80]!r}; POPE has {', '.join(CATEGORIES)}.")
        by_id[pick_id(row, "question_id", path)] = row
    strangers = [question.id for question in questions if question.id not in by_id]
    if strangers:
        raise UsageError(f"{len(strangers)} questions are not in '{path}', such as {strangers[0]!r}.")
    return [by_id[question.id] for question in questions]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) * 100


def _write_notes(pairs: Sequence[tuple[str, str]], counts: Mapping[str, PopeCounts]) -> list[str]:
    notes = []
    if len(counts) < len(CATEGORIES):
        notes.append(f"F1 is the mean over {', '.join(counts)} only; the published one is over three categories.")
    if num := sum(read_pope(text) == "yes" and read_pope_lmms_eval(text) != "yes" for text, _ in pairs):
        notes.append(f"{num} answers other than yes count as yes, since none of No, no and not is a word of them.")
    if never := [name for name, count in counts.items() if not count.tp]:
        notes.append(f"No answer yes is right in {', '.join(never)}: F1 is 0 there, and the original script stops.")
    return notes
