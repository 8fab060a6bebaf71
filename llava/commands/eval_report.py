"""``llava eval report`` and ``llava eval compare``: what scores files show."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.commands.flags import add_command
from llava.errors import UsageError

if TYPE_CHECKING:
    from llava.eval.report.score_page import ReportOptions


def add_eval_reports(suites: Any) -> None:
    """Adds the commands to the parser's ``suites``."""
    report = add_command(
        suites, "report", _report, "Write a page about runs: beside the published scores, by category, with examples."
    )
    report.add_argument("scores", nargs="+", type=Path, metavar="SCORES.json", help="scores files of llava eval")
    report.add_argument("--out", type=Path, required=True, metavar="DIR", help="for report.html and its figures")
    report.add_argument(
        "--against", metavar="CHECKPOINT", help="the published row to compare with (default: by the model's name)"
    )
    compare = add_command(
        suites,
        "compare",
        _compare,
        "Compare two runs on one benchmark, question by question: McNemar's exact test, and the answers that flip.",
        needs_output=True,
    )
    compare.add_argument("first", type=Path, metavar="A.scores.json", help="the scores file of the first run")
    compare.add_argument("second", type=Path, metavar="B.scores.json", help="the scores file of the second run")
    compare.add_argument("--out", type=Path, metavar="DIR", help="write the flips with their images, as compare.html")
    for parser, what in ((report, "of the worst and of the best answers"), (compare, "of the flips each way")):
        parser.add_argument(
            "--examples", type=int, default=6, metavar="N", help=f"show N {what} (default: %(default)s)"
        )
        parser.add_argument(
            "--model", metavar="MODEL", help="draw the token maps of this checkpoint (default: by the model's name)"
        )
        parser.add_argument(
            "--data", type=Path, metavar="DIR", help="the benchmarks' folder, if the questions' file holds the images"
        )


def _read_options(arguments: argparse.Namespace) -> ReportOptions:
    from llava.eval.report.score_page import ReportOptions

    if arguments.examples < 0:
        raise UsageError(f"--examples is {arguments.examples}; it has to be 0 or more.")
    against = getattr(arguments, "against", None)
    return ReportOptions(against, arguments.model, arguments.data, arguments.examples)


def _report(arguments: argparse.Namespace) -> int:
    from llava.eval.report.score_page import write_report

    print(write_report(arguments.scores, arguments.out, _read_options(arguments)))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from llava.eval.report.run_comparison import compare_runs, describe
    from llava.eval.score_file import read_scores

    options = _read_options(arguments)
    comparison = compare_runs(read_scores(arguments.first), read_scores(arguments.second))
    print(describe(comparison, options.num_examples))
    if arguments.out is not None:
        from llava.eval.report.flips_page import write_comparison

        print(f"\n{write_comparison(comparison, arguments.out, options)}")
    return 0
