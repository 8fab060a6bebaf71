"""``llava eval --harness lmms-eval TASKS``: another project's evaluation over this package's engine."""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.commands.answering import load
from llava.commands.flags import add_checkpoint_flags, add_command, add_engine_flags
from llava.errors import UsageError


def add_harness(parser: argparse.ArgumentParser) -> None:
    """Adds ``--harness`` to the parser of ``llava eval``; what follows it is a command of its own."""
    harnesses = parser.add_argument(
        "--harness",
        action=argparse._SubParsersAction,
        prog=f"{parser.prog} --harness",
        parser_class=type(parser),
        metavar="NAME",
        help="run another project's evaluation over this engine: lmms-eval",
    )
    harness = add_command(
        harnesses, "lmms-eval", _run_lmms_eval, "Run lmms-eval's tasks and scorers over this engine.", needs_output=True
    )
    harness.add_argument("tasks", nargs="+", metavar="TASK", help="lmms-eval's names, such as mme or textvqa_val")
    harness.add_argument("--include", type=Path, metavar="DIR", help="a folder with further task files of lmms-eval")
    harness.add_argument("--limit", type=int, metavar="N", help="only the first N documents of each task")
    harness.add_argument("--out", type=Path, metavar="DIR", help="for results.json, and TASK.jsonl with every answer")
    harness.add_argument(
        "--conv-mode", metavar="NAME", help="conversation template (default: the one of the checkpoint's evaluation)"
    )
    add_checkpoint_flags(harness)
    add_engine_flags(harness)


def _run_lmms_eval(arguments: argparse.Namespace) -> int:
    from llava.eval.lmms_eval_run import prepare_tasks, run_lmms_eval
    from llava.model.default_choice import resolve_name

    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f"--limit is {arguments.limit}; it has to be at least 1.")
    manager, tasks = prepare_tasks(arguments.tasks, arguments.include)  # before the model is loaded
    return run_lmms_eval(
        load(arguments),
        resolve_name(arguments.model),
        manager,
        tasks,
        template=arguments.conv_mode,
        limit=arguments.limit,
        folder=arguments.out,
    )
