"""Runs lmms-eval as it is, in a process of its own, because it changes warnings, locks and SSL for its whole process.

``python lmms_eval_run.py order.json``; the order says ``checkpoints``, ``tasks`` (a folder with task files), ``names``,
``batch_sizes`` and ``output``, the file to which what lmms-eval logged of every sample goes: by checkpoint, batch size
and task. Under the batch size "engine" is what it logged with this package's own model in place of its adapter.
``commands`` are run by ``llava`` in the same process, and what they return and print goes to ``printed``.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

import llava.cli
from llava.eval.lmms_eval_model import register


def keep_indexes() -> None:
    """Lets commands share the index of a folder's tasks, which each of them makes: lmms-eval's own has 1,927 files."""
    usual, kept = TaskManager._get_task_and_group, {}

    def index(self: TaskManager, folder: str) -> dict[str, Any]:
        if folder not in kept:
            kept[folder] = usual(self, folder)
        return dict(kept[folder])

    TaskManager._get_task_and_group = index


def main() -> None:
    keep_indexes()
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    register()
    manager = TaskManager(include_path=order["tasks"], include_defaults=False)
    logged: dict[str, dict[int | str, dict[str, Any]]] = {}
    for checkpoint, batch_size in itertools.product(order["checkpoints"], order["batch_sizes"]):
        logged.setdefault(checkpoint, {})[batch_size] = {}
        is_engine = batch_size == "engine"
        # One task at a time: a batch of the adapter takes all its samples from the task of the first.
        for name in order["names"][: -1 if is_engine else None]:  # the last asks for likelihoods
            results = simple_evaluate(
                model="llava_engine" if is_engine else "llava",
                model_args=f"pretrained={checkpoint},conv_template=vicuna_v1{'' if is_engine else ',device_map=auto'}",
                tasks=[name],
                batch_size=1 if is_engine else batch_size,
                device="cpu",
                task_manager=manager,
                bootstrap_iters=0,
            )
            logged[checkpoint][batch_size][name] = [
                {"doc_id": sample["doc_id"], "said": sample["filtered_resps"], "acc": sample.get("acc")}
                for sample in results["samples"][name]
            ]
    Path(order["output"]).write_text(json.dumps(logged), encoding="utf-8")
    Path(order["printed"]).write_text(json.dumps([run(words) for words in order["commands"]]), encoding="utf-8")


def run(words: list[str]) -> tuple[int, str, str]:
    """The exit code of a command of ``llava``, and what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = llava.cli.main(words)
    return code, out.getvalue(), errors.getvalue()


if __name__ == "__main__":
    main()
