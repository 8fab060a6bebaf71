"""A recipe that trains a tiny checkpoint in a second, and a program that runs such recipes and kills them."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from tests.tiny_checkpoints import write_llava_1_6

STAGE: dict[str, Any] = {"steps": 6, "batch_size": 2, "lr": 1e-2, "log_steps": 1, "save_steps": 2, "max_length": 256}


def write_data(folder: Path, num_samples: int = 10) -> dict[str, str]:
    """Samples about images of several shapes; every third is about none."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(((40, 20), (30, 50), (28, 28))):
        Image.new("RGB", size, (60 * i, 90, 120)).save(folder / f"{i}.png")
    rows = []
    for i in range(num_samples):
        image = {"image": f"{i % 3}.png"} if i % 3 != 2 else {}
        question = {"from": "human", "value": ("<image>\n" if image else "") + "What is it?" + " it" * (i % 4)}
        answer = {"from": "gpt", "value": "an image" + " is" * (i % 5)}
        rows.append({"id": f"row {i}", **image, "conversations": [question, answer]})
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    return {"json": str(folder / "data.json"), "images": str(folder)}


def write_mixture(data: dict[str, str], sources: dict[str, dict[str, Any]]) -> dict[str, str]:
    """A mixture whose sources all read the same data, each in its own way."""
    path = Path(data["images"]) / "mix.yaml"
    files = {name: {"data": data["json"], **source} for name, source in sources.items()}
    path.write_text(yaml.safe_dump({"sources": files}), encoding="utf-8")
    return {**data, "json": str(path)}


def write_recipe(folder: Path, sources: dict[str, dict[str, Any]] | None = None, **changes: Any) -> Path:
    """A recipe of one stage, "tiny", with its checkpoint and its data, all in the folder; ``sources`` of a mixture."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "start").exists():
        write_llava_1_6(folder / "start")
    data = write_data(folder / "data")
    data = write_mixture(data, sources) if sources else data
    values = {"name": "tiny", "start": str(folder / "start"), "data": data, **STAGE, **changes}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def read_losses(output: Path) -> list[tuple[int, float, float]]:
    """(step, loss, gradient norm) of each line of a finished run's log."""
    history = json.loads((output / "tiny/history.json").read_text(encoding="utf-8"))
    return [(line["step"], line["loss"], float(line["grad_norm"])) for line in history if "loss" in line]


def run_and_die(recipe: Path, output: Path, workers: int, step: float) -> None:
    """Runs the recipe, but kills this process after the gradients of that step; N.5 is the checkpoint of step N."""
    from llava.train import run as run_module
    from llava.train.recipe_file import read_recipe
    from llava.train.trainer import LLaVATrainer

    class Dying(LLaVATrainer):
        def training_step(self, *arguments: Any, **named: Any) -> Any:
            loss = super().training_step(*arguments, **named)
            if self.state.global_step + 1 == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return loss

        def _save_rng_state(self, output_dir: str) -> None:  # after weights and optimizer
            if self.state.global_step + 0.5 == step:
                os.kill(os.getpid(), signal.SIGKILL)
            super()._save_rng_state(output_dir)

    run_module.LLaVATrainer = Dying  # type: ignore[misc]
    run_module.run(read_recipe(recipe), output, workers=workers)


def main() -> None:
    """Runs RECIPE OUTPUT WORKERS STEP, each in a process of its own, and prints each one's exit code."""
    import torch

    import llava.train.run  # noqa: F401  # once, before the first fork

    torch.set_num_threads(1)
    gc.freeze()  # each run collects garbage, and nothing of what was imported is any
    words = sys.argv[1:]
    for recipe, output, workers, step in zip(*[iter(words)] * 4, strict=True):
        child = os.fork()
        if not child:
            run_and_die(Path(recipe), Path(output), int(workers), float(step))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
