"""``llava data check``: reads all of a data file and its images once, and says what is wrong."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.commands.flags import add_command

if TYPE_CHECKING:
    from llava.data.row_check import RowFacts


def add_check(actions: Any) -> None:
    """Adds the command to the parser's ``actions``."""
    parser = add_command(
        actions, "check", _check, "Check every row of a data file and decode its images; an interrupted check resumes."
    )
    parser.add_argument("file", metavar="FILE", help="a .json, .jsonl, .parquet or .tar file, or shards of one")
    parser.add_argument("--images", default="", metavar="FOLDER", help="the folder that image names are relative to")
    parser.add_argument("--model", metavar="MODEL", help="also count the tokens of each sample in this checkpoint")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core, at most 8)")
    parser.add_argument(
        "--bad", type=Path, metavar="FILE", help="for the rows with findings (default: NAME.findings.jsonl)"
    )
    parser.add_argument(
        "--fix",
        type=Path,
        metavar="OUT",
        help="write a clean copy, in the format of FILE; of .json also as .jsonl, and the reverse",
    )


def _check(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from llava.data.check_report import (
        build_report,
        check_outputs,
        find_journal,
        write_findings,
    )
    from llava.data.check_run import check_files, check_workers, remove_journal
    from llava.data.clean_copy import check_fixable
    from llava.data.data_paths import list_data_files
    from llava.text import for_stream

    workers = check_workers(arguments.workers)
    files = list_data_files(arguments.file)
    if arguments.fix is not None:
        check_fixable(files, arguments.fix)
    bad = arguments.bad or Path(f"{Path(files[0]).name}.findings.jsonl")
    check_outputs(files, bad, arguments.fix)
    journal = find_journal(bad)
    make_meter = None
    if arguments.model is not None:
        from llava.train.dataset.row_lengths import RowMeter

        RowMeter(arguments.model)  # a model that cannot be opened is refused here
        make_meter = functools.partial(RowMeter, arguments.model)
    options = {"model": arguments.model}
    facts = check_files(files, Path(arguments.images), journal, workers=workers, make_meter=make_meter, options=options)
    console = Console(file=sys.stdout, highlight=False)
    console = console if console.is_terminal else Console(file=sys.stdout, highlight=False, width=120)
    console.print(build_report(facts))
    num_found = write_findings(facts, bad)
    if num_found:
        print(for_stream(f"{bad}: {num_found:,} {'row' if num_found == 1 else 'rows'} with findings", sys.stdout))
    else:
        bad.unlink()
    if arguments.fix is not None:
        num_written, num_renamed = _write_copy(files, facts, arguments.fix, journal)
        renamed = f", {num_renamed:,} of them under a new id" if num_renamed else ""
        print(for_stream(f"{arguments.fix}: {num_written:,} rows{renamed}", sys.stdout))
    remove_journal(journal)
    return 1 if any(each.is_bad for each in facts) else 0


def _write_copy(files: list[str], facts: list[RowFacts], out: Path, journal: Path) -> tuple[int, int]:
    from llava.data.check_run import remove_journal
    from llava.data.clean_copy import write_clean_copy
    from llava.errors import LlavaError

    try:
        # Without its journal, a command that is killed before the copy has its name checks everything again.
        return write_clean_copy(files, facts, out, lambda: remove_journal(journal))
    except LlavaError as error:
        if not isinstance(error.__cause__, OSError):  # after a full disk it goes on; else the next one looks again
            remove_journal(journal)
        raise
