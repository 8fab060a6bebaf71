"""What a stage writes about itself while it runs: facts, test answers, the log and the report.

``facts.json`` is there from the first step on, ``history.json`` and ``report.html`` as soon as training ends, however
it ends. Nothing that goes wrong here stops a training.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llava.errors import LlavaError
from llava.text import fit_line, write_line
from llava.train.cautions import list_cautions
from llava.train.dataset.sample_sizes import measure_sizes
from llava.train.dataset.samples import Fault, InstructionData
from llava.train.part_table import build_table
from llava.train.parts import find_llava
from llava.train.recipe import TuningStage
from llava.train.report.html_report import FACTS, HISTORY, SampleAnswer, StageFacts, write_report
from llava.train.report.meter import Meter
from llava.train.report.sample_answers import AnswerLog, FixedSamples

# Shown in the report whatever they are; the others only where they are not the default.
_ALWAYS_SHOWN = ("lr", "batch_size", "accumulation", "train", "schedule", "warmup", "seed", "precision")
# Samples whose lengths are shown.
_MOST_MEASURED = 500
# Samples that are left out, of which so many are named.
_MOST_NAMED = 20
_WHY_LEFT_OUT = {
    Fault.UNUSABLE: "with images or turns that cannot be used",
    Fault.LONG: "longer than max_length or the model's context",
    Fault.CUT: "without a target before max_length",
}
_NEVER_SHOWN = ("name", "steps", "epochs")


class StageRecord(TrainerCallback):
    """Keeps the facts of a stage in its folder, on the first process.

    Args:
        facts: what is known before training.
        data: what is trained on.
        answers: test answers; None for none.
        meter: measures time, of which answers are no part.
    """

    def __init__(
        self, folder: Path, facts: StageFacts, data: InstructionData, answers: AnswerLog | None, meter: Meter
    ) -> None:
        self._folder, self._facts, self._data, self._answers, self._meter = folder, facts, data, answers, meter
        if answers is not None:
            facts.answers = answers.samples.answers

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Asks before the first step, and writes what is known."""
        if not args.should_save:
            return
        if self._answers is not None and state.global_step == 0:
            self._answers.ask(0)
        self._save()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Asks again, and writes what is known."""
        # After Ctrl-C or SIGTERM, which may have little patience, nothing is asked.
        is_stopped = control.should_training_stop and state.global_step < state.max_steps
        if not args.should_save or is_stopped:
            return
        if self._answers is not None:
            self._answers.ask(state.global_step)
        self._save()
        self._meter.leave_out_pause()

    def finish(self, history: Sequence[dict[str, Any]], fault: BaseException | None = None) -> Path | None:
        """Writes history and report; the report's path, or None if that failed, which is said."""
        self._facts.fault = "" if fault is None else (str(fault).strip() or type(fault).__name__)
        for kind, why in _WHY_LEFT_OUT.items():
            if names := self._data.list_left_out(kind):
                who = "1 sample was" if len(names) == 1 else f"{len(names):,} samples were"
                rest = " ..." if len(names) > _MOST_NAMED else "."
                note = f"{who} left out, {why}: {', '.join(map(fit_line, names[:_MOST_NAMED]))}{rest}"
                self._facts.notes.append(note)
                write_line(f"llava: {note}")
        try:
            self._facts.save(self._folder)
            (self._folder / HISTORY).write_text(json.dumps(list(history), indent=1), encoding="utf-8")
            return write_report(self._folder)
        except Exception as error:  # a report is not worth a training
            write_line(f"llava: The report could not be written: {type(error).__name__}: {fit_line(str(error), 300)}")
            return None

    def _save(self) -> None:
        try:
            self._facts.save(self._folder)
        except OSError as error:
            write_line(f"llava: {self._folder / FACTS} could not be written: {error}.")


def read_answers(folder: Path) -> list[SampleAnswer]:
    """The test answers of an interrupted run in this folder; none where there are none."""
    try:
        return StageFacts.load(folder).answers
    except (OSError, ValueError, TypeError, KeyError):
        return []


def choose_samples(trained: InstructionData, evaluated: InstructionData | None) -> FixedSamples | None:
    """The samples for test answers: held-out ones where there are some. None where none can be asked about."""
    try:
        return FixedSamples(trained if evaluated is None else evaluated)
    except Exception as error:  # a broken image was said, or will be; test answers are no reason to stop
        if not isinstance(error, LlavaError):
            write_line(f"llava: There are no test answers: {type(error).__name__}: {fit_line(str(error), 300)}")
        return None


def describe_settings(stage: TuningStage, start: str, num_samples: int, num_devices: int) -> list[tuple[str, str]]:
    """The rows of a report's table of settings: of the stage, and of what it ran on."""
    defaults = {each.name: each.default for each in dataclasses.fields(TuningStage)}
    rows = [("start", start), ("length", f"{stage.epochs:g} epochs" if stage.epochs else f"{stage.steps:,} steps")]
    for name, value in vars(stage).items():
        is_default = value == defaults[name] or value in ({}, ())
        if name not in _NEVER_SHOWN and (name in _ALWAYS_SHOWN or not is_default):
            rows += [(f"{name}{below}", text) for below, text in _write_value(value)]
    rows.append(("samples", f"{num_samples:,}"))
    rows.append(("device", _name_device(num_devices)))
    rows.append(("versions", f"torch {torch.__version__}, transformers {transformers.__version__}"))
    return rows


def _write_value(value: Any) -> list[tuple[str, str]]:
    """A setting as text; of one with keys of its own, those that are set, each with what its name has appended."""
    if dataclasses.is_dataclass(value):
        own = [(each.name, getattr(value, each.name), each.default) for each in dataclasses.fields(value)]
        return [(f".{name}", _write_plain(each)) for name, each, default in own if each != default]
    if isinstance(value, dict):
        return [(f".{name}", _write_plain(each)) for name, each in value.items()]
    return [("", _write_plain(value))]


def _write_plain(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(str(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _name_device(num_devices: int) -> str:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    return f"{num_devices} x {name}" if num_devices > 1 else name


@contextmanager
def recording(trainer: Any, stage: TuningStage, title: str, start: str, folder: Path) -> Iterator[None]:
    """While a stage trains, keeps its record in ``folder``; at the end, also after an error, writes the report.

    What looks wrong with the stage is said before. Processes other than the first do nothing.
    """
    if not trainer.args.should_save:
        yield
        return
    record = _begin(trainer, stage, title, start, folder)
    trainer.add_callback(record)
    try:
        yield
    except BaseException as error:
        record.finish(trainer.state.log_history, error)
        raise
    path = record.finish(trainer.state.log_history)
    if path is not None:
        write_line(f"llava: The report of stage '{stage.name}' is {path}")


def _begin(trainer: Any, stage: TuningStage, title: str, start: str, folder: Path) -> StageRecord:
    # A packed row is made of samples of another dataset.
    data, evaluated = (getattr(each, "samples", each) for each in (trainer.train_dataset, trainer.eval_dataset))
    llava = find_llava(trainer.model)
    sizes = measure_sizes(data, _MOST_MEASURED, stage.seed)
    arguments = trainer.args
    rows_per_update = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    per_update = rows_per_update * len(data) / max(1, len(trainer.train_dataset))
    cautions = list(list_cautions(stage, llava, trainer.trainable, sizes, per_update))
    for caution in cautions:
        write_line(f"llava: {caution}")
    table = build_table(trainer.model, trainer.trainable, stage.lr, stage.weight_decay)
    facts = StageFacts(
        title,
        describe_settings(stage, start, len(data), arguments.world_size),
        list(zip(*(column.cells for column in table.columns), strict=True)),
        [size.num_positions for size in sizes.typical],
        notes=cautions,
    )
    samples = choose_samples(data, evaluated)
    if samples is None or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return StageRecord(
            folder, facts, data, None, trainer.meter
        )  # sharded weights answer only if every process asks

    def find_model() -> tuple[Any, AbstractContextManager[Any]]:
        return llava, trainer.compute_loss_context_manager()

    answers = AnswerLog(samples, find_model, trainer.progress.say, read_answers(folder))
    return StageRecord(folder, facts, data, answers, trainer.meter)
