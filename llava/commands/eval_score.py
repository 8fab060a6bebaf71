"""``llava eval score``: the score of an answers file; what ``llava eval TASK`` does after it has answered."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.commands.flags import add_command
from llava.errors import UsageError
from llava.text import write_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llava.eval.task import Question, Task


DEFAULT_DATA = Path("playground/data/eval")


def add_eval_score(suites: Any) -> None:
    """Adds the command to the parser's ``suites``."""
    text = "Score an answers file of a benchmark, of llava eval or of another tool."
    parser = add_command(suites, "score", _score, text, needs_output=True)
    parser.add_argument("task", metavar="TASK", help="the benchmark; see llava eval list")
    parser.add_argument("answers", type=Path, metavar="ANSWERS.jsonl", help="its answers")
    add_scoring_flags(parser)


def add_scoring_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of scoring: the data folder, what is allowed, and the judge."""
    from llava.eval.judge_flags import add_judge_flags

    parser.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        metavar="DIR",
        help="the folder with the benchmarks' files (default: %(default)s)",
    )
    parser.add_argument("--partial", action="store_true", help="allow another number of questions or answers")
    parser.add_argument("--dice", action="store_true", help="guess where the published scorer guesses")
    add_judge_flags(parser, None)
    text = "longest reply (default: as published; a judge that reasons first needs more)"
    parser.add_argument("--judge-max-tokens", type=_read_tokens, metavar="N", help=text)


def _read_tokens(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of tokens: it has to be a whole one, at least 1")
    return int(text)


def _score(arguments: argparse.Namespace) -> int:
    from llava.eval.benchmark_table import TASKS
    from llava.eval.task import check

    if arguments.task not in TASKS:
        raise UsageError(f"There is no benchmark '{arguments.task}'; there are: {', '.join(TASKS)}.")
    task = TASKS[arguments.task]
    questions, notes = check(task, arguments.data, is_partial=arguments.partial, needs_images=False)
    for note in notes:
        write_line(f"llava: {task.name}: {note}")
    return score_answers(task, arguments.answers, questions, arguments)


def score_answers(
    task: Task, path: Path, questions: Sequence[Question], arguments: argparse.Namespace, *, is_partial: bool = False
) -> int:
    """Prints the score of an answers file, writes its scores file and its submission; returns the exit code.

    ``is_partial``: as if ``--partial`` were given.
    """
    from llava.eval.score_file import name_scores_file
    from llava.eval.score_run import score_file, write_summary
    from llava.eval.task import resolve
    from llava.eval.task_score import ScoringOptions

    options = ScoringOptions(throws_dice=arguments.dice, is_partial=arguments.partial or is_partial)
    code = 0
    if task.judge and is_judge_named(arguments):
        code = _judge(task, path, questions, arguments, options)
    elif task.score:
        run = score_file(task, path, questions, arguments.data, options)
        print(write_summary(run, name_scores_file(path)))
    elif task.judge:
        write_line(
            f"llava: {task.name}: a judge scores it. Name one with --judge-url and --judge-model, and see with "
            "--judge-dry-run what it costs; the answers are kept."
        )
    if task.submit and not options.is_partial:
        write_line(f"llava: {task.name}: '{resolve(task.submit)(path, arguments.data)}' is {task.submission}.")
    elif not task.score and not task.judge:
        write_line(f"llava: {task.name}: it is not scored here; its submission: {task.submission}.")
    return code


def is_judge_named(arguments: argparse.Namespace) -> bool:
    """Whether the command line asks for a judge, which costs money."""
    return bool(arguments.judge or arguments.judge_model or arguments.judge_dry_run)


def _judge(task: Task, path: Path, questions: Sequence[Question], arguments: argparse.Namespace, options: Any) -> int:
    from llava.eval.answer_matching import match_answers
    from llava.eval.score_file import name_scores_file
    from llava.eval.score_run import keep_score, read_run_settings, write_summary
    from llava.eval.task import resolve

    matched = match_answers(path, questions, is_partial=options.is_partial)
    judge = argparse.Namespace(**vars(arguments))
    score, code = resolve(task.judge)(matched, path, arguments.data, judge)
    if score is not None:
        temperature = None if judge.judge_temperature == "none" else judge.judge_temperature
        facts = {"judge": {"model": judge.judge_model, "url": judge.judge, "temperature": temperature}}
        run = keep_score(task, path, matched, score, options, {**read_run_settings(path), **facts})
        print(write_summary(run, name_scores_file(path)))
    return code
