"""Scores a model on the held-out suite of drawn images: ``llava eval synth``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from llava.answer import write_chat
from llava.backends.answerer import Answerer
from llava.errors import UsageError
from llava.eval.answer_health import Health, describe_health, measure_health
from llava.eval.proportion import interval
from llava.eval.scoring.sentence_answers import judge, says_it_cannot_tell
from llava.image.source import load_image
from llava.sampling import Sampling
from llava.synth.full_size.full_size_suite import FULL_SIZE_TASKS, FullSizeTask, draw_full_size_item
from llava.synth.full_size.pyplot_charts import has_matplotlib
from llava.synth.suite import TASKS, Task, draw_item, is_right
from llava.synth.suite_truths import find_truth
from llava.synth.truth import Truth
from llava.text import write_line

BATCH_SIZE = 25
MAX_NEW_TOKENS = 40
FULL_SIZE_NEW_TOKENS = 64
NO_REFUSAL = "full size: no false refusal"
MOST_FALSE_REFUSALS = 0.03  # the goal

AnyTask = Task | FullSizeTask


@dataclass(frozen=True)
class Score:
    """A task's score; ``low`` and ``high`` are the 95 % confidence interval of ``share`` (Wilson).

    Attributes:
        right: answers that are right by the rule for words and sentences alike.
        exact: the share of answers that are the right one letter by letter, as this suite counted at first; None for
            tasks at full size, which have more than one right answer.
    """

    task: str
    right: int
    asked: int
    share: float
    low: float
    high: float
    goal: float
    exact: float | None = None


@dataclass
class SuiteRun:
    """The scores of a run, and how its answers behaved; ``answers`` has whether the image holds each one's answer."""

    scores: list[Score] = field(default_factory=list)
    answers: list[tuple[str, bool, bool]] = field(default_factory=list)  # text, answerable, cut
    left_out: list[str] = field(default_factory=list)
    refusals: list[bool] = field(default_factory=list)  # of the answerable questions at full size

    @property
    def health(self) -> Health:
        """How the answers behave."""
        texts, answerable, cut = ([row[i] for row in self.answers] for i in range(3))
        return measure_health(texts, answerable, cut)  # type: ignore[arg-type]


class AskedItem(NamedTuple):
    """One question of either suite. ``is_exact``: whether an answer is the right one letter by letter, or None."""

    image: Image.Image
    question: str
    truth: Truth
    is_exact: Callable[[str], bool] | None


def draw_asked(task: AnyTask, index: int) -> AskedItem:
    """Question number ``index`` of a task; always the same."""
    if isinstance(task, FullSizeTask):
        return AskedItem(*draw_full_size_item(task, index), None)
    item = draw_item(task, index)
    return AskedItem(item.image, item.question, find_truth(task, item), lambda answer: is_right(item, answer))


def find_tasks(names: Sequence[str] | None) -> tuple[AnyTask, ...]:
    """Tasks whose names begin with one of ``names``; all tasks without names. Raises UsageError if none does."""
    tasks: tuple[AnyTask, ...] = (*TASKS, *FULL_SIZE_TASKS)
    if not names:
        return tasks
    chosen = tuple(task for task in tasks if any(task.name.startswith(name) for name in names))
    if not chosen:
        raise UsageError(f"No task begins with '{names[0]}'; there are: {', '.join(task.name for task in tasks)}.")
    return chosen


def answer_items(loaded: Any, items: Sequence[AskedItem], max_new_tokens: int) -> list[tuple[str, bool]]:
    """Greedy answers to the items' questions, computed in one batch, and whether each reached the most new tokens."""
    sampling = Sampling(max_new_tokens=max_new_tokens)
    asked = []
    for item in items:
        conversation = write_chat(loaded, [(item.question, 1, None)])
        asked.append((conversation, [load_image(item.image)], sampling))
    return [(answer.text, not answer.finished) for answer in Answerer.of(loaded).answer_all(asked)]


def run_suite(
    loaded: Any,
    tasks: Sequence[AnyTask],
    count: int,
    on_answer: Callable[[AnyTask, AskedItem, str, str], None] | None = None,
) -> SuiteRun:
    """The scores of ``count`` questions per task; tasks that need matplotlib are left out where it is missing.

    ``on_answer`` is called with every answer and why it is wrong, which is "" for a right one.
    """
    run = SuiteRun()
    for task in track(tasks, description="Asking", console=Console(stderr=True), transient=True):
        if isinstance(task, FullSizeTask) and task.needs_matplotlib and not has_matplotlib():
            run.left_out.append(task.name)
            continue
        run.scores.append(_run_task(loaded, task, count, run, on_answer))
    if run.refusals:
        refused, asked = sum(run.refusals), len(run.refusals)
        share = 1 - refused / asked
        low, high = interval(asked - refused, asked)
        goal = 1 - MOST_FALSE_REFUSALS
        run.scores.append(Score(NO_REFUSAL, asked - refused, asked, share, low, high, goal))
    return run


def _run_task(
    loaded: Any,
    task: AnyTask,
    count: int,
    run: SuiteRun,
    on_answer: Callable[[AnyTask, AskedItem, str, str], None] | None,
) -> Score:
    is_full = isinstance(task, FullSizeTask)
    right, exact = 0, 0
    for start in range(0, count, BATCH_SIZE):
        batch = [draw_asked(task, index) for index in range(start, min(count, start + BATCH_SIZE))]
        answers = answer_items(loaded, batch, FULL_SIZE_NEW_TOKENS if is_full else MAX_NEW_TOKENS)
        for item, (answer, is_cut) in zip(batch, answers, strict=True):
            reading = judge(answer, item.truth, item.question)
            right += reading.is_right
            exact += item.is_exact is not None and item.is_exact(answer)
            answerable = item.truth.form != "cannot tell"
            run.answers.append((answer, answerable, is_cut))
            if is_full and answerable:
                run.refusals.append(says_it_cannot_tell(answer))
            if on_answer is not None:
                on_answer(task, item, answer, reading.why)
    low, high = interval(right, count)
    return Score(task.name, right, count, right / count, low, high, task.goal, None if is_full else exact / count)


def make_table(scores: Sequence[Score], title: str) -> Table:
    """The scores as a table: share right, interval, share exact, goal, and whether it is reached."""
    table = Table(title=title)
    for name in ("task", "right", "95 % interval", "exact", "goal", ""):
        table.add_column(name, justify="left" if name == "task" else "right")
    for score in scores:
        goal = f"{score.goal:.0%}" if score.goal else ""
        verdict = "" if not score.goal else "[green]reached[/]" if score.share >= score.goal else "[red]below[/]"
        exact = "" if score.exact is None else f"{score.exact:.1%}"
        share, limits = f"{score.share:.1%}", f"{score.low:.0%} - {score.high:.0%}"
        table.add_row(score.task, share, limits, exact, goal, verdict)
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
) -> SuiteRun:
    """A model's run, its scores printed as a table and written to the files that are given.

    Raises UsageError for a ``count`` below 1 and for unknown tasks.
    """
    if count < 1:
        raise UsageError(f"The number of questions a task is {count}; it has to be at least 1.")
    wrong: list[dict[str, Any]] = []

    def note(task: AnyTask, item: AskedItem, answer: str, why: str) -> None:
        if why:
            right = item.truth.answers
            row = {"task": task.name, "question": item.question, "right": right[0] if len(right) == 1 else list(right)}
            wrong.append({**row, "answer": answer, "why": why})

    run = run_suite(loaded, find_tasks(tasks), count, note)
    title = f"Held-out suite: {name}, {count} questions a task"
    Console().print(make_table(run.scores, title))
    print(describe_health(run.health))
    if run.left_out:
        write_line(
            f"llava: {len(run.left_out)} tasks are left out, since matplotlib is not installed: "
            f"{', '.join(run.left_out)}. For them run pip install 'llava[eval]'."
        )
    if json_path is not None:
        scores = [asdict(score) for score in run.scores]
        text = json.dumps({"model": name, "scores": scores, "health": asdict(run.health)}, indent=1)
        json_path.write_text(text + "\n", encoding="utf-8")
    if plot_path is not None:
        plot_scores(run.scores, plot_path, title)
    if wrong_path is not None:
        wrong_path.write_text("".join(json.dumps(row) + "\n" for row in wrong), encoding="utf-8")
    return run
