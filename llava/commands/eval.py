"""``llava eval``: scores of a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llava.commands.answering import load
from llava.commands.eval_harness import add_harness
from llava.commands.eval_photos import add_eval_photos
from llava.commands.eval_report import add_eval_reports
from llava.commands.eval_tasks import add_eval_tasks
from llava.commands.flags import add_checkpoint_flags, add_command


def add_eval(commands: Any) -> None:
    """Adds the command, with one subcommand per suite, to the parser's ``commands``."""
    parent = commands.add_parser("eval", help="Score a model.", description="Score a model.")
    add_harness(parent)
    # Either a suite or --harness is required, which argparse alone cannot say.
    parent.set_defaults(run=_demand_suite, parser=parent, needs_output=False)
    suites = parent.add_subparsers(title="suites", metavar="SUITE", dest="suite")
    parser = add_command(
        suites, "synth", _eval_synth, "Score a model on drawn images that training never sees.", needs_output=True
    )
    parser.add_argument("--count", type=int, default=200, metavar="N", help="questions per task (default: %(default)s)")
    parser.add_argument(
        "--task", action="append", metavar="NAME", help="only tasks whose names begin with NAME; may be repeated"
    )
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="write the scores as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the scores and their goals")
    parser.add_argument("--wrong", type=Path, metavar="FILE.jsonl", help="write every wrong answer")
    add_checkpoint_flags(parser)
    add_eval_photos(suites)
    add_eval_tasks(suites)
    add_eval_reports(suites)


def _demand_suite(arguments: argparse.Namespace) -> int:
    parser: argparse.ArgumentParser = arguments.parser
    parser.error("the following arguments are required: SUITE")


def _eval_synth(arguments: argparse.Namespace) -> int:
    from llava.eval.synth_suite import find_tasks, score
    from llava.model.default_choice import resolve_name

    find_tasks(arguments.task)  # an unknown task is refused before the model is loaded
    score(
        load(arguments),
        resolve_name(arguments.model),
        count=arguments.count,
        tasks=arguments.task,
        json_path=arguments.save,
        plot_path=arguments.plot,
        wrong_path=arguments.wrong,
    )
    return 0
