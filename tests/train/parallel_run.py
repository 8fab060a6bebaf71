"""Trains recipes with two processes, which torchrun's agent starts: python parallel_run.py FOLDER LAUNCH...

A launch is names of folders in FOLDER, joined by commas; each has a recipe.yaml and gets its result in run/ beside it.
The processes are forked, so that all of them share one import of torch. Each writes what it did to rank-N.json; in the
folder "killed" the second one is killed in its second update. The exit code is that of the last launch.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.tensor import DTensor

from llava.entry_point import run_command
from llava.train.recipe_file import read_recipe
from llava.train.run import run
from llava.train.trainer import LLaVATrainer

NUM_PROCESSES = 2
_SAMPLES: list[list[str]] = []
_WRITTEN: list[str] = []
_SHARDED: set[str] = set()
_take = LLaVATrainer.get_batch_samples


def take_batches(self: Any, *arguments: Any) -> Any:
    """Notes the samples of each update, and ends a process that is to be killed."""
    taken = _take(self, *arguments)
    _SAMPLES.append([name for names in self._names.values() for name in names])
    _SHARDED.update(name for name, weight in self.model.named_parameters() if isinstance(weight, DTensor))
    if "/killed/" in self.args.output_dir and len(_SAMPLES) == 2 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return taken


def note_written(event: str, arguments: Any) -> None:
    """Notes each file that Python opens for writing."""
    if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[1], str) and "w" in arguments[1]:
        _WRITTEN.append(arguments[0])


def run_recipe(here: Path) -> int:
    """0, after the recipe in that folder has been run."""
    run(read_recipe(here / "recipe.yaml"), here / "run", workers=0)
    return 0


def train(folder: str, names: str) -> None:
    """Runs the recipes one after another, as one of the processes."""
    torch.set_num_threads(1)
    sys.addaudithook(note_written)
    LLaVATrainer.get_batch_samples = take_batches  # type: ignore[method-assign]
    for name in names.split(","):
        here = Path(folder) / name
        _SAMPLES.clear()
        _WRITTEN.clear()
        _SHARDED.clear()
        if code := run_command(
            lambda here=here: int(not run(read_recipe(here / "recipe.yaml"), here / "run", workers=0))
        ):
            sys.exit(code)
        report = {
            "processes": torch.distributed.get_world_size(),
            "backend": torch.distributed.get_backend(),
            "samples": _SAMPLES,
            "sharded": sorted(_SHARDED),
            "written": [path for path in _WRITTEN if path.startswith(str(here))],
        }
        (here / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(report), encoding="utf-8")


def main(folder: str, launches: list[str]) -> int:
    """The exit code of torchrun for the last launch."""
    code = 0
    gc.freeze()  # each training collects garbage, and looking through all that was imported takes longer than its steps
    for names in launches:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=NUM_PROCESSES,
            run_id=names,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            start_method="fork",
        )
        print(f"launch: {names}", file=sys.stderr, flush=True)
        code = 0
        try:
            elastic_launch(config, train)(folder, names)
        except ChildFailedError as error:
            print(error, file=sys.stderr)
            code = 1
        print(f"exit code: {code}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
