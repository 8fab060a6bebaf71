"""The work behind ``eval_gpt_review``, ``_bench`` and ``_visual``: read, show the cost, ask, write, report.

Loads no torch.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_gpt_review.py, eval_gpt_review_bench.py, eval_gpt_review_visual.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from llava.data.collection.journal import lock_file
from llava.errors import UsageError
from llava.eval.judge import Judge, Review
from llava.eval.judge_flags import JudgeDefaults, add_judge_flags, open_judge
from llava.eval.pair_reviews import SYSTEM, TEMPERATURE, PairFiles, PairProtocol, PairRow, read_rows
from llava.eval.reviews_file import ReviewsFile, find_journal
from llava.eval.scoring.judge_drift import warn_of_drift
from llava.eval.scoring.judged import is_failed, parse_score
from llava.text import write_line


def build_parser(prog: str, protocol: PairProtocol) -> argparse.ArgumentParser:
    """The original's flags, and those of the judge."""
    parser = argparse.ArgumentParser(prog=prog, description="ChatGPT-based QA evaluation.")
    parser.add_argument("-q", "--question")
    if protocol.describe is not None:
        parser.add_argument("-c", "--context")
    parser.add_argument("-a", "--answer-list", nargs="+", default=[])
    parser.add_argument("-r", "--rule")
    parser.add_argument("-o", "--output")
    text = "maximum number of tokens produced in the output"
    parser.add_argument("--max-tokens", type=int, default=1024, help=text)
    add_judge_flags(parser, protocol.judge)
    return parser


def run_reviews(
    arguments: argparse.Namespace,
    protocol: PairProtocol,
    say_kept: Callable[[int], object],
    say_written: Callable[[int], object],
) -> int:
    """Makes the reviews that the output file lacks; the exit code is 1 if some got no reply.

    ``say_kept``, ``say_written``: see ``ReviewsFile``.

    Raises:
        LlavaError: files, flags or the judge cannot be used.
    """
    rows = read_rows(_read_files(arguments, protocol), protocol)
    path = Path(os.path.expanduser(arguments.output))
    with contextlib.nullcontext() if arguments.judge_dry_run else lock_file(find_journal(path)):
        return _review(arguments, protocol, rows, path, say_kept, say_written)


def say_kept(place: int) -> None:
    """What LLaVA-Bench's two commands print for a review that is there already."""
    print(f"Skipping {place} as we already have it.\n{place + 1}", flush=True)


def say_written(place: int) -> None:
    """What they print for a new review: its number, from 1 on."""
    print(place + 1, flush=True)


def _review(
    arguments: argparse.Namespace,
    protocol: PairProtocol,
    rows: Sequence[PairRow],
    path: Path,
    say_kept: Callable[[int], object],
    say_written: Callable[[int], object],
) -> int:
    is_new = not path.exists()
    if is_new and not arguments.judge_dry_run:
        find_journal(path).write_bytes(b"")  # the reviews were removed, to have them made again
    file = ReviewsFile(path, rows, lambda review: parse_score(review, print), say_kept, say_written)
    judge = open_judge(
        arguments,
        JudgeDefaults(protocol.judge, TEMPERATURE, arguments.max_tokens),
        find_journal(path),
        lambda text: True,
        json.dumps([SYSTEM, *sorted({row.rule for row in rows})]),
    )
    if is_new:
        judge.forget(lambda text: True)
    if arguments.judge_retry_failed:
        file.drop(lambda review: is_failed(review.get("tuple", review.get("score"))))
        judge.forget(lambda text: is_failed(parse_score(text)))
    others = judge.find_others()
    if kept := [name for place in sorted(file.reviews) if (name := others.get(rows[place].request.id))]:
        raise UsageError(
            f"{len(kept)} reviews in '{path}' are by {kept[0]!r}, and {judge.client.model!r} is asked now: scores of "
            f"two judges are not averaged. Name --judge-model {kept[0]}, or remove the file to have all made again."
        )
    missing = [row.request for place, row in enumerate(rows) if place not in file.reviews]
    write_line(judge.describe_cost(missing, len(rows)))
    if arguments.judge_dry_run:
        return 0
    faults: list[Review] = []

    def keep(review: Review) -> None:
        if review.fault:
            faults.append(review)
        else:
            file.add(int(review.id) - 1, review.text)

    judge.journal.open()
    try:
        file.open()
        judge.run(missing, keep)
    finally:
        file.close()
        judge.journal.close()
    return _report(judge, protocol, file, len(rows))


def _report(judge: Judge, protocol: PairProtocol, file: ReviewsFile, num_rows: int) -> int:
    """Says who judged and how many reviews failed; returns the exit code."""
    failed = sum(is_failed(review.get("tuple", review.get("score"))) for review in file.reviews.values())
    write_line(f"llava: {judge.describe().line}")
    if failed:
        write_line(
            f"llava: {failed} of {num_rows} reviews hold no scores to be averaged: they are in the file as the "
            "original reads them, such as [-1, -1], and summarize_gpt_review leaves them out. "
            "--judge-retry-failed asks for them again."
        )
    if protocol.prefix:
        write_line(f"llava: {warn_of_drift('llava-bench', protocol.judge, judge.client.model)}")
    num_missing = num_rows - len(file.reviews)
    if num_missing:
        reasons = [f"{fault} ({num})" for fault, num in judge.faults.most_common(3)]
        reasons += [f"the budget {judge.limit} is spent"] if judge.limit else []
        write_line(
            f"llava: error: {num_missing} of {num_rows} reviews got no reply and are not in '{file.path}': "
            f"{'; '.join(reasons)}. Run the same command again to ask for them."
        )
    return 1 if num_missing else 0


def _read_files(arguments: argparse.Namespace, protocol: PairProtocol) -> PairFiles:
    context = None
    wanted = {"--question": arguments.question, "--rule": arguments.rule, "--output": arguments.output}
    if protocol.describe is not None:
        context = wanted["--context"] = arguments.context
    if missing := [flag for flag, value in wanted.items() if value is None]:
        raise UsageError(f"Give {' and '.join(missing)} FILE.")
    if len(arguments.answer_list) < 2:
        raise UsageError(
            f"--answer-list names {len(arguments.answer_list)} files; it needs two: the reference answers, and the "
            "answers of the model."
        )
    first, second = (os.path.expanduser(path) for path in arguments.answer_list[:2])
    return PairFiles(
        os.path.expanduser(arguments.question),
        (first, second),
        os.path.expanduser(arguments.rule),
        None if context is None else os.path.expanduser(context),
    )
