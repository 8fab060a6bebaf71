"""A stage's report: one HTML page with curves, parts and rates, sample lengths, and answers before and after training.

The page needs no network and no other file: plots and images are inside. It is made from what the stage's folder
holds, ``history.json`` (the Trainer's log) and ``facts.json``, so that it can be made again at any time.
"""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.html_page import make_table, write_page
from llava.train.report.plot import SOURCE_PREFIX, list_sources
from llava.train.report.svg_charts import Line, draw_histogram, draw_lines

_INK, _RED = "#1f2328", "#d1242f"

HISTORY, FACTS, REPORT = "history.json", "facts.json", "report.html"


@dataclass
class SampleAnswer:
    """A fixed sample's question, the answer in the data, and the model's answers during training.

    Attributes:
        image: the image as a data URL, or "" for a sample without one.
        by_step: (step, answer), in order; step 0 is before training.
    """

    question: str
    reference: str
    image: str = ""
    by_step: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class StageFacts:
    """What the report shows beside the history: each list of pairs is a row of a table.

    Attributes:
        settings: names and values.
        parts: part, modules, parameters, learning rate, weight decay.
        fault: why the run ended before its last step; "" where it did not.
        lengths: positions of each sample, images included, or of a random share of them.
        notes: sentences about the run, such as samples that were left out.
    """

    title: str
    settings: list[tuple[str, str]] = field(default_factory=list)
    parts: list[tuple[str, ...]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    answers: list[SampleAnswer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fault: str = ""

    def save(self, folder: Path) -> None:
        """Writes the facts to the stage's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1)
        (folder / FACTS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> StageFacts:
        """The facts in the stage's folder."""
        values = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        answers = [SampleAnswer(**each) for each in values.pop("answers")]
        for key in ("settings", "parts"):
            values[key] = [tuple(row) for row in values[key]]
        for answer in answers:
            answer.by_step = [(step, text) for step, text in answer.by_step]
        return cls(**values, answers=answers)


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` from the history and facts in the stage's folder; returns its path."""
    facts = StageFacts.load(folder)
    history: list[dict[str, Any]] = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    path = folder / REPORT
    path.write_text(write_page(facts.title, _make_sections(facts, history)), encoding="utf-8")
    return path


def _make_sections(facts: StageFacts, history: Sequence[dict[str, Any]]) -> Iterable[str]:
    if facts.fault:
        yield f"<p class=fault><b>The run ended early.</b> {html.escape(facts.fault)}</p>"
    yield _make_summary(history)
    if facts.notes:
        yield "<ul class=notes>" + "".join(f"<li>{html.escape(note)}</li>" for note in facts.notes) + "</ul>"
    figures = list(_make_figures(facts, history))
    if figures:
        yield f"<h2>Curves</h2><div class=plots>{''.join(figures)}</div>"
    if facts.answers:
        yield "<h2>Answers before and after</h2><p class=hint>The same questions, asked greedily before training and "
        yield "after every save.</p>" + "\n".join(map(_make_answer, facts.answers))
    if facts.parts:
        yield "<h2>What was trained</h2>"
        titles = ("part", "modules", "parameters", "learning rate", "weight decay")
        yield make_table(titles, facts.parts)
    if facts.settings:
        rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.settings)
        yield f"<h2>Settings</h2><dl class=settings>{rows}</dl>"


def _make_figures(facts: StageFacts, history: Sequence[dict[str, Any]]) -> Iterable[str]:
    sources = list_sources(history)
    losses = [Line("all samples" if sources else "training", _read_points(history, "loss"), _INK, is_bold=True)]
    losses += [Line(source, _read_points(history, SOURCE_PREFIX + source)) for source in sources]
    losses.append(Line("held out", _read_points(history, "eval_loss"), _RED, is_marked=True, is_bold=True))
    if drawn := [line for line in losses if line.points]:
        yield _make_figure(draw_lines(drawn), "Loss by source" if sources else "Loss")
    for key, caption in (
        ("learning_rate", "Learning rate, of parts without one of their own"),
        ("grad_norm", "Norm of the gradients before clipping"),
        ("tokens_per_second", "Positions per second, without padding"),
    ):
        if points := _read_points(history, key):
            yield _make_figure(draw_lines([Line(caption, points)]), caption)
    if facts.lengths:
        ordered = sorted(facts.lengths)
        caption = f"Positions per sample: median {ordered[len(ordered) // 2]:,}, longest {ordered[-1]:,}"
        yield _make_figure(draw_histogram(facts.lengths, "positions"), caption)


def _read_points(history: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(row["step"], row[key]) for row in history if key in row and "step" in row]


def _make_summary(history: Sequence[dict[str, Any]]) -> str:
    """Losses, steps, time and speed as large figures."""
    losses = [row for row in history if "loss" in row]
    evaluated = [row["eval_loss"] for row in history if "eval_loss" in row]
    last: dict[str, Any] = history[-1] if history else {}
    tiles = []
    if losses:
        tiles.append((f"{losses[0]['loss']:.3f} → {losses[-1]['loss']:.3f}", "loss, first and last"))
    if evaluated:
        pair = f"{evaluated[0]:.3f} → {evaluated[-1]:.3f}" if len(evaluated) > 1 else f"{evaluated[0]:.3f}"
        tiles.append((pair, "loss on held-out samples"))
    if losses:
        tiles.append((f"{losses[-1].get('step', len(losses)):,}", "steps"))
    if "train_runtime" in last:
        tiles.append((say_duration(last["train_runtime"]), "training time"))
    for key, layout, name in (
        ("tokens_per_second", ",.0f", "positions per second, median"),
        ("samples_per_second", ".3g", "samples per second, median"),
        ("peak_share", ".0%", "of the device's peak, median"),
    ):
        if values := sorted(row[key] for row in losses if key in row):
            tiles.append((format(values[len(values) // 2], layout), name))
    cells = "".join(f"<div><b>{html.escape(value)}</b><span>{name}</span></div>" for value, name in tiles)
    return f"<div class=summary>{cells}</div>"


def say_duration(seconds: float) -> str:
    """A duration in its two largest units, such as "1 h 5 min" or "42 s"."""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole % 60} s"


def _make_answer(answer: SampleAnswer) -> str:
    image = f'<img src="{answer.image}" alt="">' if answer.image else "<div class=no-image>text only</div>"
    said = [("before", answer.by_step[0][1], "")] if answer.by_step and answer.by_step[0][0] == 0 else []
    later = [(step, text) for step, text in answer.by_step if step > 0]
    if later:
        said.append(("after", later[-1][1], " class=after"))
    rows = [("question", answer.question, ""), ("in the data", answer.reference, ""), *said]
    body = "".join(
        f"<dt>{name}</dt><dd{kind}>{html.escape(text) or '<i>nothing</i>'}</dd>" for name, text, kind in rows
    )
    between = later[:-1]
    if between:
        lines = "".join(
            f"<dt>step {step:,}</dt><dd>{html.escape(text) or '<i>nothing</i>'}</dd>" for step, text in between
        )
        body += f"<dt></dt><dd><details><summary>at the saves between</summary><dl>{lines}</dl></details></dd>"
    return f"<div class=answer>{image}<dl>{body}</dl></div>"


def _make_figure(image: str, caption: str) -> str:
    return f"<figure><figcaption>{html.escape(caption)}</figcaption>{image}</figure>"
