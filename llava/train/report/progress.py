"""Progress on stderr: a bar with speed, loss and time left on a terminal, and a line every few seconds elsewhere.

On a terminal, rows of the log are lines above the bar, also at most one every few seconds: with a row per step they
would scroll too fast to be read, and the complete log is in ``history.json``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llava.text import is_terminal, write_line
from llava.train.report.html_report import say_duration
from llava.train.report.meter import Meter
from llava.train.report.plot import SOURCE_PREFIX

_LINE_EVERY_S = 5.0
_LEAST_BAR_COLUMNS = 10
# Sources whose losses are in a line; the log has them all.
_MOST_SOURCES = 4


class ProgressCallback(TrainerCallback):
    """Shows how far a training is, on the first process.

    Args:
        meter: that of the trainer.
        clock: seconds.
    """

    def __init__(self, meter: Meter, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter, self._clock = meter, clock
        self._bar: Progress | None = None
        self._said_at: float | None = None
        self._row: Mapping[str, Any] = {}
        self._num_evaluated = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the bar where there is a terminal."""
        if not state.is_world_process_zero:
            return
        self._said_at = None
        if is_terminal(sys.stderr):
            columns = (TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[facts]}"))
            console = Console(stderr=True, highlight=False)
            self._bar = Progress(*columns, console=console, auto_refresh=False)
            self._bar.add_task("step 0", total=state.max_steps, completed=state.global_step, facts="")
            self._bar.start()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begins to take time: what was done before the first step is no part of it."""
        self._meter.leave_out_pause()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Takes the time of the step, and moves the bar."""
        self._meter.end_step()
        self._draw(state)

    def _draw(self, state: TrainerState) -> None:
        if self._bar is not None:
            step = f"{state.global_step:,}/{state.max_steps:,}"
            room = self._bar.console.width - len(step) - _LEAST_BAR_COLUMNS - 2
            facts = self._describe(state, room)
            (task,) = self._bar.task_ids
            self._bar.update(task, description=step, completed=state.global_step, facts=facts, refresh=True)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Says a row of the log, unless one was said a moment ago."""
        if not state.is_world_process_zero or logs is None:
            return
        if "eval_loss" in logs:
            self.say(f"step {state.global_step:,}: loss {logs['eval_loss']:.4g} on the samples held out")
        if "loss" not in logs:
            return
        self._row = logs
        self._draw(state)
        now = self._clock()
        is_last = state.global_step >= state.max_steps
        if self._said_at is not None and now - self._said_at < _LINE_EVERY_S and not is_last:
            return
        self._said_at = now
        if self._bar is not None:
            self.say(f"step {state.global_step:,}: {describe_row(logs)}")
        else:
            share = f" ({state.global_step / state.max_steps:.0%})" if state.max_steps > 0 else ""
            facts = ", ".join(filter(None, (describe_row(logs), self._describe(state, with_loss=False))))
            self.say(f"step {state.global_step:,} of {state.max_steps:,}{share}: {facts}")

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Shows that an evaluation moves on."""
        self._num_evaluated += 1
        if self._bar is not None:
            (task,) = self._bar.task_ids
            self._bar.update(task, facts=f"evaluating, batch {self._num_evaluated:,}", refresh=True)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leaves the evaluation out of the time of a step."""
        self._num_evaluated = 0
        self._meter.leave_out_pause()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leaves the saving out of the time of a step."""
        self._meter.leave_out_pause()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leaves the bar where it is."""
        self.close()

    def say(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar is None:
            write_line(f"llava: {line}")
        else:
            self._bar.console.print(line, markup=False)

    def close(self) -> None:
        """Leaves the bar where it is. Needed after an error, which ends a training without ``on_train_end``."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _describe(self, state: TrainerState, room: int = 200, *, with_loss: bool = True) -> str:
        """Loss, time left, speed and share of the peak, the most important first, as far as there is room."""
        step_s, row = self._meter.step_s, self._row
        facts = []
        if with_loss and "loss" in row:
            facts.append(f"loss {row['loss']:.4g}")
        if step_s is not None and 0 < state.global_step < state.max_steps:
            facts.append(f"{say_duration(step_s * (state.max_steps - state.global_step))} left")
        if "tokens_per_second" in row:
            facts.append(f"{_round(row['tokens_per_second'])} tokens/s")
        if "peak_share" in row:
            facts.append(f"{row['peak_share']:.0%} of peak")
        if "samples_per_second" in row:
            facts.append(f"{_round(row['samples_per_second'])} samples/s")
        while facts and len(", ".join(facts)) > room:
            facts.pop()
        return ", ".join(facts)


def describe_row(row: Mapping[str, Any]) -> str:
    """A row of the log as a line: loss, loss by source, rate, gradient norm."""
    facts = [f"loss {row['loss']:.4g}"]
    sources = [f"{key.removeprefix(SOURCE_PREFIX)} {value:.3g}" for key, value in row.items() if _is_source(key)]
    if sources:
        more = [f"{len(sources) - _MOST_SOURCES} more"] if len(sources) > _MOST_SOURCES else []
        facts[0] += f" ({', '.join([*sources[:_MOST_SOURCES], *more])})"
    if "learning_rate" in row:
        facts.append(f"lr {row['learning_rate']:.3g}")
    if "grad_norm" in row:
        facts.append(f"grad norm {row['grad_norm']:.3g}")
    return ", ".join(facts)


def _is_source(key: str) -> bool:
    return key.startswith(SOURCE_PREFIX)


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
