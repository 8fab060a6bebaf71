"""What a run keeps on disk: the ``checkpoint-N`` folders of Transformers' Trainer, complete or absent, in our layouts.

A checkpoint is written under another name and renamed when it is complete, so that neither a full disk nor a killed
process leaves one that is not. Weights and optimizer state are written as one process would write them, so that any
number of processes can resume.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from llava.errors import CheckpointError
from llava.train import training_faults
from llava.train.devices.parallel import gather_state, read_optimizer, write_optimizer
from llava.train.resumption import RESUME_FILES, RUN_FILE, check_files, check_step, name_random_states, say_remedy
from llava.train.snapshots import check_snapshot, is_llava, list_written, read_snapshot, write_snapshot

# Where a checkpoint is written before it gets its name; Transformers takes it for none.
_UNFINISHED = "unfinished"


class CheckpointingTrainer(Trainer):
    """A Trainer that writes and reads checkpoints as this module says."""

    optimizer: Any
    _writes_to: Path | None = None

    def describe_run(self) -> dict[str, Any]:
        """What resuming needs beside Transformers' own state, as JSON values."""
        raise NotImplementedError

    def remove_unfinished(self) -> None:
        """Removes what a killed process left of a checkpoint."""
        if self.args.should_save:
            shutil.rmtree(Path(self.args.output_dir) / _UNFINISHED, ignore_errors=True)

    def check_checkpoint(self, checkpoint: Path, num_steps: int) -> None:
        """Raises CheckpointError if a checkpoint lacks what resuming needs, and UsageError if it is of a later step."""
        assert self.model is not None
        check_step(checkpoint, num_steps, "This run")
        if self.is_deepspeed_enabled:
            return  # its checkpoints have files of its own
        check_files(checkpoint, [*RESUME_FILES, *name_random_states(checkpoint, self.args)])
        if is_llava(self.model):
            try:
                check_snapshot(self.model, checkpoint)
            except CheckpointError as error:
                if (remedy := say_remedy(checkpoint)) in str(error):
                    raise
                raise CheckpointError(f"{error} {remedy}") from error

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Writes the model as both originals do, see ``llava.train.snapshots``; other models as Transformers does."""
        assert self.model is not None
        if not is_llava(self.model):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = self.args.output_dir if output_dir is None else output_dir
            write_snapshot(self.model, self.processing_class, str(folder), state=state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        root = self.model if model is None else model
        if is_llava(root) and not self.is_deepspeed_enabled:
            read_snapshot(root, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the model to a folder; each process has to call it."""
        if self.is_fsdp_enabled:
            self._save(output_dir, self.gather_weights())
        else:
            super().save_model(output_dir, _internal_call)

    def gather_weights(self, *, all_of_them: bool = False) -> dict[str, torch.Tensor]:
        """The weights by name, whole in the first process, wherever they are sharded. Each process has to call it.

        ``all_of_them``: also frozen ones that are not saved.
        """
        assert self.model is not None
        if self.is_deepspeed_enabled:
            state: dict[str, torch.Tensor] = self.accelerator.get_state_dict(self.model_wrapped)
            return state
        names = None if all_of_them or not is_llava(self.model) else list_written(self.model)
        return gather_state(self.model, names)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled:
            write_optimizer(self.optimizer, self.lr_scheduler, Path(output_dir))
        else:
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.is_fsdp_enabled and checkpoint is not None:
            read_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint))
        else:
            super()._load_optimizer_and_scheduler(checkpoint)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._writes_to or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any, metrics: Any = None) -> None:
        """Writes ``checkpoint-N`` under another name and renames it when it is complete; then deletes older ones.

        Raises:
            LlavaError: the disk is full. Nothing of this checkpoint remains, and the older ones do.
        """
        folder = Path(super()._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        unfinished = folder / _UNFINISHED
        try:
            self._writes_to = unfinished
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                self._complete(unfinished / name, folder / name)
        except Exception as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if not training_faults.is_disk_full(error):
                raise
            raise training_faults.disk_full(error, folder / name) from error
        finally:
            self._writes_to = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if (folder / name).is_dir():  # of a run that went on from an earlier checkpoint
                shutil.rmtree(folder / name)
            (unfinished / name).rename(folder / name)
            shutil.rmtree(unfinished, ignore_errors=True)
            rotate_checkpoints(
                output_dir=str(folder),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
            )
        self.accelerator.wait_for_everyone()

    def _complete(self, written: Path, final: Path) -> None:
        """Adds what Transformers does not keep to a checkpoint, and its final path where it names itself."""
        if self.state.best_model_checkpoint == str(written):
            self.state.best_model_checkpoint = str(final)
            self.state.save_to_json(str(written / "trainer_state.json"))
        (written / RUN_FILE).write_text(json.dumps(self.describe_run(), indent=1), encoding="utf-8")
