"""Scores an answers file by its benchmark's scorer, writes the scores file and says what the score is. No torch."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.answer_kinds import is_refusal
from llava.eval.answer_matching import MatchedAnswers, match_answers
from llava.eval.answers_file import name_settings_file
from llava.eval.report.published_scores import find_published
from llava.eval.score_file import ScoredRun, make_scored_run, name_scores_file, write_scores
from llava.eval.task import Question, Task, resolve
from llava.eval.task_score import ScoringOptions, TaskScore

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_PACKAGES = ("torch", "transformers", "tokenizers", "pillow")


def score_file(
    task: Task,
    path: Path,
    questions: Sequence[Question],
    data: Path,
    options: ScoringOptions,
    settings: Mapping[str, Any] | None = None,
) -> ScoredRun:
    """Scores the answers of a file, and writes ``FILE.scores.json`` beside it.

    Args:
        settings: how the answers were made; by default what the run left beside the file.

    Raises:
        UsageError: answers or annotations cannot be scored.
        LlavaError: the scores file cannot be written.
    """
    matched = match_answers(path, questions, ids_repeat=task.ids_repeat, is_partial=options.is_partial)
    scorer = resolve(task.score)
    return keep_score(task, path, matched, scorer(matched.questions, matched.texts, data, options), options, settings)


def keep_score(
    task: Task,
    path: Path,
    matched: MatchedAnswers,
    score: TaskScore,
    options: ScoringOptions,
    settings: Mapping[str, Any] | None = None,
) -> ScoredRun:
    """Writes the scores file of a run that was scored, with the facts of the run and notes on its answers."""
    known = read_run_settings(path) if settings is None else dict(settings)
    model = matched.model or str(known.get("model_id", ""))
    facts = describe_run(task, known, len(matched.questions), options)
    notes = [*matched.notes, *_describe_answers(matched), *score.notes]
    if (count := len(matched.questions)) != task.count:
        said = f"{count} of the {task.count} questions of {task.split} are scored"
        notes.insert(0, f"{said}: the score is not comparable with published ones.")
    if settings is None and not known:
        notes.append("How the answers were made is not known: no run of llava eval left its settings beside the file.")
    elif (temperature := facts["temperature"]) not in (0, None):
        notes.append(f"The answers are sampled at temperature {temperature}; the published scores are greedy.")
    run = make_scored_run(task, model, facts, score, matched.questions, matched.texts)
    run = ScoredRun(**{**vars(run), "notes": tuple(notes)})
    write_scores(name_scores_file(path), run)
    return run


def read_run_settings(path: Path) -> dict[str, Any]:
    """The settings that the run left beside an answers file; none where it did not, or where they are damaged."""
    try:
        value = json.loads(name_settings_file(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def describe_run(task: Task, settings: Mapping[str, Any], count: int, options: ScoringOptions) -> dict[str, Any]:
    """The settings of a run as its scores file has them. What is not known is None."""
    found = settings.get("sampling")
    sampling: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    others = {name: value for name, value in settings.items() if name not in ("sampling", "model_id", "template")}
    return {
        "split": task.split,
        "count": count,
        "of": task.count,
        "is_partial": options.is_partial,
        "prompt": task.prompt,
        "image": task.image,
        "template": settings.get("template"),
        "temperature": sampling.get("temperature"),
        "num_beams": sampling.get("num_beams"),
        "max_new_tokens": sampling.get("max_new_tokens"),
        **others,
        "throws_dice": options.throws_dice,
        "versions": find_versions(),
    }


def find_versions() -> dict[str, str]:
    """The versions of this package, of Python, and of what answers depend on; of those that are installed."""
    from llava import __version__

    versions = {"llava": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _describe_answers(matched: MatchedAnswers) -> list[str]:
    kinds = (
        ("are empty", lambda text: not text.strip()),
        ("read like a refusal", is_refusal),
    )
    notes = []
    for verb, is_one in kinds:
        ids = [question.id for question, text in zip(matched.questions, matched.texts, strict=True) if is_one(text)]
        if ids:
            notes.append(f"{len(ids)} answers {verb}, the first of them to {ids[0]!r}.")
    return notes


def write_summary(run: ScoredRun, scores_path: Path) -> str:
    """What a person has to know of a score, as lines: the score beside the published one, and how it was made."""
    settings = run.settings
    lines = [
        f"{run.task}: {run.headline} {_format(run.scores[run.headline])} ({len(run.answers)} answers, {run.model})"
    ]
    lines.append(f"  published   {_write_published(run)}")
    others = {name: score for name, score in run.scores.items() if name != run.headline}
    groups = {name: f"{_format(score)} of {count}" for name, (score, count) in run.categories.items()}
    for title, pairs in (
        ("scores", {name: _format(score) for name, score in others.items()}),
        ("categories", groups),
        ("readings", {name: _format(score) for name, score in run.readings.items()}),
    ):
        if pairs:
            lines.append(f"  {title:11} {'; '.join(f'{name} {text}' for name, text in pairs.items())}")
    lines.append(f"  run         {_write_settings(settings)}")
    versions = settings.get("versions")
    if isinstance(versions, Mapping):
        lines.append(f"  versions    {', '.join(f'{name} {version}' for name, version in versions.items())}")
    lines += [f"  note        {note}" for note in run.notes]
    lines.append(f"  kept        '{scores_path}'")
    return "\n".join(lines)


def _write_published(run: ScoredRun) -> str:
    if not run.published:
        return f"nothing ({run.source})"
    checkpoint = find_published(run.model, run.published)
    if checkpoint is None:
        rows = ", ".join(f"{name} {score}" for name, score in run.published.items())
        return f"{rows} ({run.source}); none for {run.model or 'this model'}"
    own = run.published[checkpoint]
    found = _NUMBER.match(own)
    difference = f", {run.scores[run.headline] - float(found[0]):+.2f} here" if found else ""
    return f"{own} for {checkpoint}{difference} ({run.source})"


def _write_settings(settings: Mapping[str, Any]) -> str:
    temperature = settings.get("temperature")
    how = "temperature not known" if temperature is None else "greedy" if temperature == 0 else f"t {temperature}"
    parts = [
        f"{settings.get('split')}, {settings.get('count')} of {settings.get('of')} questions",
        how,
        f"template {settings.get('template') or 'not known'}",
        f"image {settings.get('image_aspect_ratio') or 'not known'}",
        f"at most {settings.get('max_new_tokens') or 'an unknown number of'} new tokens",
    ]
    return "; ".join(parts)


def _format(score: float) -> str:
    return f"{score:.2f}"
