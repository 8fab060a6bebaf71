"""Scores a model on the held-out suite of drawn images: ``llava eval synth``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from llava.answer import write_chat
from llava.backends.answerer import Answerer
from llava.errors import UsageError
from llava.eval.proportion import interval
from llava.image.source import load_image
from llava.sampling import Sampling
from llava.synth.suite import TASKS, Item, Task, draw_items, is_right

BATCH_SIZE = 25
MAX_NEW_TOKENS = 40


@dataclass(frozen=True)
class Score:
    """A task's score; ``low`` and ``high`` are the 95 % confidence interval of ``share`` (Wilson)."""

    task: str
    right: int
    asked: int
    share: float
    low: float
    high: float
    goal: float


def find_tasks(names: Sequence[str] | None) -> tuple[Task, ...]:
    """Tasks whose names begin with one of ``names``; all tasks without names. Raises UsageError if none does."""
    if not names:
        return TASKS
    chosen = tuple(task for task in TASKS if any(task.name.startswith(name) for name in names))
    if not chosen:
        raise UsageError(f"No task begins with '{names[0]}'; there are: {', '.join(task.name for task in TASKS)}.")
    return chosen


def answer_items(loaded: Any, items: Sequence[Item]) -> list[str]:
    """Greedy answers to the items' questions, computed in one batch."""
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
    asked = []
    for item in items:
        conversation = write_chat(loaded, [(item.question, 1, None)])
        asked.append((conversation, [load_image(item.image)], sampling))
    return [answer.text for answer in Answerer.of(loaded).answer_all(asked)]


def run_suite(
    loaded: Any, tasks: Sequence[Task], count: int, on_answer: Callable[[Task, Item, str], None] | None = None
) -> list[Score]:
    """The scores of ``count`` questions per task. ``on_answer`` is called with every answer."""
    scores = []
    for task in track(tasks, description="Asking", console=Console(stderr=True), transient=True):
        items = list(draw_items(task, count))
        right = 0
        for start in range(0, count, BATCH_SIZE):
            batch = items[start : start + BATCH_SIZE]
            for item, answer in zip(batch, answer_items(loaded, batch), strict=True):
                right += is_right(item, answer)
                if on_answer is not None:
                    on_answer(task, item, answer)
        low, high = interval(right, count)
        scores.append(Score(task.name, right, count, right / count, low, high, task.goal))
    return scores


def make_table(scores: Sequence[Score], title: str) -> Table:
    """The scores as a table: share right, interval, goal, and whether it is reached."""
    table = Table(title=title)
    for name in ("task", "right", "95 % interval", "goal", ""):
        table.add_column(name, justify="left" if name == "task" else "right")
    for score in scores:
        goal = f"{score.goal:.0%}" if score.goal else ""
        verdict = "" if not score.goal else "[green]reached[/]" if score.share >= score.goal else "[red]below[/]"
        table.add_row(score.task, f"{score.share:.1%}", f"{score.low:.0%} - {score.high:.0%}", goal, verdict)
    return table


def plot_scores(scores: Sequence[Score], path: Path, title: str) -> None:
    """Draws a bar chart with an interval and a goal mark for each task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.32 * len(scores) + 1), layout="constrained")
    axes = figure.subplots()
    places = range(len(scores))
    shares = [score.share for score in scores]
    errors = [[s.share - s.low for s in scores], [s.high - s.share for s in scores]]
    axes.barh(places, shares, xerr=errors, color="tab:blue", ecolor="black", capsize=2, alpha=0.85)
    goals = [(i, s.goal) for i, s in enumerate(scores) if s.goal]
    axes.scatter(
        [g for _, g in goals], [i for i, _ in goals], marker="|", s=160, color="tab:red", zorder=3, label="goal"
    )
    axes.set(yticks=list(places), yticklabels=[s.task for s in scores], xlim=(0, 1), title=title, xlabel="share right")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    if goals:
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def score(
    loaded: Any,
    name: str,
    *,
    count: int = 200,
    tasks: Sequence[str] | None = None,
    json_path: Path | None = None,
    plot_path: Path | None = None,
    wrong_path: Path | None = None,
) -> list[Score]:
    """A model's scores, printed as a table and written to the files that are given.

    Raises UsageError for a ``count`` below 1 and for unknown tasks.
    """
    if count < 1:
        raise UsageError(f"The number of questions a task is {count}; it has to be at least 1.")
    wrong: list[dict[str, str]] = []

    def note(task: Task, item: Item, answer: str) -> None:
        if not is_right(item, answer):
            wrong.append({"task": task.name, "question": item.question, "right": item.answer, "answer": answer})

    scores = run_suite(loaded, find_tasks(tasks), count, note)
    title = f"Held-out suite: {name}, {count} questions a task"
    Console().print(make_table(scores, title))
    if json_path is not None:
        text = json.dumps({"model": name, "scores": [asdict(s) for s in scores]}, indent=1)
        json_path.write_text(text + "\n", encoding="utf-8")
    if plot_path is not None:
        plot_scores(scores, plot_path, title)
    if wrong_path is not None:
        wrong_path.write_text("".join(json.dumps(row) + "\n" for row in wrong), encoding="utf-8")
    return scores
