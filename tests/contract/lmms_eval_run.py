"""Runs lmms-eval as it is, in a process of its own, because it changes warnings, locks and SSL for its whole process.

``python lmms_eval_run.py order.json``; the order says ``checkpoints``, ``tasks`` (a folder with task files), ``names``,
``batch_sizes`` and ``output``, the file to which what lmms-eval logged of every sample goes: by checkpoint, batch size
and task.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager


def main() -> None:
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    manager = TaskManager(include_path=order["tasks"], include_defaults=False)
    logged: dict[str, dict[int, dict[str, Any]]] = {}
    for checkpoint, batch_size in itertools.product(order["checkpoints"], order["batch_sizes"]):
        logged.setdefault(checkpoint, {})[batch_size] = {}
        # One task at a time: a batch of the adapter takes all its samples from the task of the first.
        for name in order["names"]:
            results = simple_evaluate(
                model="llava",
                model_args=f"pretrained={checkpoint},device_map=auto,conv_template=vicuna_v1",
                tasks=[name],
                batch_size=batch_size,
                device="cpu",
                task_manager=manager,
                bootstrap_iters=0,
            )
            logged[checkpoint][batch_size][name] = [
                {"doc_id": sample["doc_id"], "said": sample["filtered_resps"], "acc": sample.get("acc")}
                for sample in results["samples"][name]
            ]
    Path(order["output"]).write_text(json.dumps(logged), encoding="utf-8")


if __name__ == "__main__":
    main()
