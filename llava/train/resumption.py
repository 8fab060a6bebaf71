"""Resuming: which checkpoint is taken, whether it is complete, and what has changed since it was written.

The Trainer itself resets in silence what a checkpoint lacks, and takes rates and schedule from the checkpoint whatever
the settings say. Here an incomplete checkpoint is refused, and changed settings are told.
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.trainer_utils import get_last_checkpoint

from llava.errors import CheckpointError, Notice, UsageError

# The state that the Trainer saves in checkpoint-N. Where a file is missing it would reset that state in silence.
RESUME_FILES = ("trainer_state.json", "optimizer.pt", "scheduler.pt")
# What ``LLaVATrainer`` adds to a checkpoint: the settings that matter, the order of the samples, sums for the log.
RUN_FILE = "run_state.json"
# How a changed setting acts on a run that is resumed.
_FROM_CHECKPOINT = ("lr", "lr_scales")
# With another value of these the weights or the optimizer's state of a checkpoint fit no more.
_FIXED = ("train", "optimizer", "lora", "quantization")
# Each worker is a process with the data's rows in its memory.
_MOST_WORKERS = 128


def find_last(folder: Path) -> Path | None:
    """The latest ``checkpoint-N`` in a run's folder, if there is any."""
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return None if last is None else Path(last)


def read_step(checkpoint: Path) -> int:
    """The step at which ``checkpoint-N`` was written, N. Raises UsageError for any other path."""
    number = checkpoint.name.rpartition("-")[2]
    if not number.isdecimal() or not checkpoint.is_dir():
        raise UsageError(f"{checkpoint} is no checkpoint to resume from: name a folder checkpoint-N of a run.")
    return int(number)


def list_weights(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint with the model's own weights."""
    return sorted(checkpoint.glob("model*.safetensors"))


def check_files(folder: Path, names: Sequence[str]) -> None:
    """Raises CheckpointError, which names them, if files of a checkpoint are missing, empty or cut off."""
    missing = [name for name in names if not (folder / name).is_file() or not (folder / name).stat().st_size]
    if missing:
        raise CheckpointError(f"{folder} is incomplete: it has no {', '.join(missing)}. {say_remedy(folder)}")
    for name in names:
        if (fault := _find_damage(folder / name)) is not None:
            raise CheckpointError(f"{folder / name} is damaged ({fault}). {say_remedy(folder)}")


def _find_damage(file: Path) -> str | None:
    """What is wrong with a file of torch or JSON, as far as can be said without reading all of it."""
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix in (".pt", ".pth"):
            with zipfile.ZipFile(file):  # its directory is at its end, which a cut file lacks
                pass
    except (ValueError, zipfile.BadZipFile) as error:
        return str(error)
    return None


def check_resumable(folder: Path, module: nn.Module, num_steps: int, where: str) -> None:
    """Checks that the Trainer can resume from its checkpoint in ``folder``, which holds all of the module's weights.

    Args:
        num_steps: of the run.
        where: what messages begin with, such as "Stage 'next'".

    Raises:
        CheckpointError: a file, or a tensor of the module, is missing; it is named.
        UsageError: the run has fewer steps than the checkpoint.
    """
    check_step(folder, num_steps, where)
    files = list_weights(folder)
    check_files(folder, [*([] if files else ["model.safetensors"]), *RESUME_FILES])
    found: set[str] = set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                found.update(tensors.keys())
        except SafetensorError as error:
            raise CheckpointError(f"{file} is damaged ({error}). {say_remedy(folder)}") from error
    tied = set(getattr(module, "all_tied_weights_keys", None) or ())
    lacking = [name for name in module.state_dict() if name not in found and name not in tied]
    if lacking:
        raise CheckpointError(f"{folder} lacks {name_some(lacking)}. {say_remedy(folder)}")


def check_deepspeed_files(folder: Path, num_processes: int, is_enabled: bool) -> None:
    """Checks that a checkpoint belongs to a run with DeepSpeed as this one is, and is complete.

    Raises:
        CheckpointError: a file of DeepSpeed's is missing.
        UsageError: it was written with DeepSpeed and this run is without, or the reverse, or by another number of
            processes.
    """
    latest = folder / "latest"
    if latest.is_file() != is_enabled:
        written, now = ("with", "without") if latest.is_file() else ("without", "with")
        raise UsageError(
            f"{folder} was written {written} DeepSpeed, and this run is {now} it: their optimizer states differ. Go on "
            f"{written} it, or start a new run from the weights in {folder}."
        )
    if not is_enabled:
        return
    before = read_run_state(folder).get("settings", {}).get("processes", num_processes)
    if before != num_processes:
        raise UsageError(
            f"{folder} was written by {before} processes with DeepSpeed; here are {num_processes}, which cannot read "
            f"each other's shards. Start {before}, or start a new run from the weights in {folder}."
        )
    step = folder / latest.read_text(encoding="utf-8").strip()
    if len(list(step.glob("*optim_states.pt"))) < num_processes:
        raise CheckpointError(f"{step} lacks optimizer states of some processes. {say_remedy(folder)}")


def check_step(folder: Path, num_steps: int, where: str) -> None:
    """Raises UsageError if the checkpoint is of a later step than the last one of the run."""
    if read_step(folder) > num_steps:
        raise UsageError(
            f"{where} has {num_steps} steps, but {folder} is of a later step. Raise steps, or delete {folder.parent} "
            "to start over."
        )


def say_remedy(folder: Path) -> str:
    """What to do about a checkpoint that cannot be used."""
    return f"Delete {folder} to resume from the checkpoint before it, or from the start."


def read_run_state(folder: Path) -> dict[str, Any]:
    """What ``LLaVATrainer`` wrote in a checkpoint; empty where another program wrote it. Raises CheckpointError."""
    file = folder / RUN_FILE
    if not file.is_file():
        return {}
    try:
        state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}. {say_remedy(folder)}") from error
    return state


def name_random_states(folder: Path, args: Any) -> list[str]:
    """The file with this process's random state, if the checkpoint was written by as many processes as there are."""
    if read_run_state(folder).get("settings", {}).get("processes", args.world_size) != args.world_size:
        return []
    return ["rng_state.pth" if args.world_size == 1 else f"rng_state_{args.process_index}.pth"]


def find_changes(folder: Path, settings: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, value then, value now) of each setting that has changed since that checkpoint was written."""
    before = read_run_state(folder).get("settings", {})
    now = json.loads(json.dumps(dict(settings), default=str))
    return [(name, before[name], value) for name, value in now.items() if name in before and before[name] != value]


def list_changes(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """A sentence for each setting that has changed since that checkpoint was written, which says what then holds.

    Raises UsageError for a setting with which that checkpoint cannot be continued.
    """
    sentences = []
    for name, before, now in find_changes(folder, settings):
        changed = f"{name} was {_say(before)} in {folder} and is {_say(now)} now"
        if name in _FIXED:
            raise UsageError(
                f"{changed}, with which that checkpoint cannot be continued. Set it back, name another output folder, "
                f"or delete {folder.parent} to start over."
            )
        effect = (
            "the learning rates go on as in the checkpoint"
            if name in _FROM_CHECKPOINT
            else "from here on the new value counts, and the run is not the one that was interrupted"
        )
        sentences.append(f"{changed}: {effect}.")
    return sentences


def tell_changes(folder: Path, settings: Mapping[str, Any]) -> None:
    """Warns as ``list_changes`` says."""
    for sentence in list_changes(folder, settings):
        warnings.warn(sentence, Notice, stacklevel=3)


def _say(value: Any) -> str:
    return "unset" if value in (None, "", [], {}) else str(value)


def name_some(names: Sequence[str]) -> str:
    """The first three of these tensor names, quoted, and how many more there are."""
    rest = f" and {len(names) - 3} more tensors" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + rest


def check_workers(workers: int) -> None:
    """Raises UsageError for a negative number of worker processes, and for so many that the machine would stall."""
    most = max(_MOST_WORKERS, 4 * (os.cpu_count() or 1))
    if not 0 <= workers <= most:
        raise UsageError(
            f"The number of workers is {workers}; it must be from 0 (this process itself) to {most}. A few per device "
            "are enough."
        )
