"""Trains recipes under DeepSpeed, each twice, as one of torchrun's processes: deepspeed_run.py FOLDER NAME...

Before the second time, what was written after checkpoint-2 is moved away, as if the run had been killed then.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from llava.entry_point import run_command
from llava.train.devices.parallel import read_rank, wait_for_all
from llava.train.recipe_file import read_recipe
from llava.train.run import run


def train(here: Path) -> int:
    """0, after the recipe in that folder has been run."""
    run(read_recipe(here / "recipe.yaml"), here / "run", workers=0)
    return 0


def main(folder: str, *names: str) -> int:
    torch.set_num_threads(1)
    for name in names:
        here = Path(folder) / name
        if code := run_command(lambda here=here: train(here)):
            return code
        if read_rank() == 0:
            later = here / "later"
            later.mkdir()
            for path in ("model", "checkpoint-4", "history.json"):
                (here / "run/tiny" / path).rename(later / path)
        wait_for_all()
        if code := run_command(lambda here=here: train(here)):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
