"""``llava data mix``: what a mixture consists of, and the mixture as one file or as shards."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from llava.commands.flags import add_command
from llava.errors import UsageError


def add_mix(actions: Any) -> None:
    """Adds the command to the parser's ``actions``."""
    parser = add_command(actions, "mix", _mix, "Show what a mixture consists of; write it as one file or as shards.")
    parser.add_argument("mixture", metavar="MIXTURE", help="a .yaml file, or the name of one in the package, as next")
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="the folder that the data files are relative to")
    parser.add_argument("--images", type=Path, default=Path(), metavar="FOLDER", help="where the images are")
    parser.add_argument("--with", action="append", default=[], dest="wanted", metavar="NAME", help="an optional source")
    parser.add_argument("--model", metavar="MODEL", help="also count tokens in this checkpoint, images included")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw samples, words and images by source")
    parser.add_argument("--out", type=Path, metavar="PATH", help="write a .json or .jsonl file, or a folder of shards")
    parser.add_argument(
        "--format", choices=("json", "jsonl", "parquet", "webdataset"), help="of --out (a folder's default: parquet)"
    )
    parser.add_argument("--shard-rows", type=int, default=5000, metavar="N", help="rows a shard (default: %(default)s)")
    parser.add_argument("--shard", default="1/1", metavar="K/N", help="write every N-th shard only, from the K-th on")


def _mix(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from llava.data.mixture import open_mixture
    from llava.data.mixture_file import find_mixture, list_shipped
    from llava.data.mixture_report import build_table, check_plot, plot_shares
    from llava.data.mixture_writer import choose_format, write_json, write_shards
    from llava.text import for_stream, write_line
    from llava.yaml_files import name_nearest

    path = find_mixture(arguments.mixture)
    if path is None:
        names = list_shipped()
        raise UsageError(f"There is no mixture '{arguments.mixture}'.{name_nearest(arguments.mixture, names)}")
    part, format = _read_part(arguments.shard), ""
    if arguments.shard_rows < 1:
        raise UsageError(f"--shard-rows is {arguments.shard_rows}; it has to be 1 or more.")
    if arguments.out is not None:
        format = choose_format(arguments.out, arguments.format)
        if part != (1, 1) and format in ("json", "jsonl"):
            raise UsageError(f"--shard {arguments.shard} is for folders of shards, and '{arguments.out}' is one file.")
    if arguments.plot is not None:
        check_plot(arguments.plot)
    mixture = open_mixture(path, arguments.root, arguments.wanted)
    tokens = None
    if arguments.model is not None:
        from llava.train.dataset.row_lengths import count_tokens

        tokens = count_tokens(mixture, arguments.images, arguments.model)
    console = Console(file=sys.stdout, highlight=False)
    console = console if console.is_terminal else Console(file=sys.stdout, highlight=False, width=120)
    console.print(build_table(mixture, tokens))
    for source in mixture.file.left_out:
        print(for_stream(f"left out (--with {source.name}): {source.about}", sys.stdout))
    if arguments.plot is not None:
        plot_shares(mixture, arguments.plot)
    if arguments.out is None:
        return 0
    if format in ("json", "jsonl"):
        done = write_json(mixture, arguments.out)
    else:
        done = write_shards(
            mixture, arguments.out, format, arguments.images, shard_rows=arguments.shard_rows, part=part
        )
    files = (
        f"{len(done.files):,} {'shard' if len(done.files) == 1 else 'shards'} in "
        if format in ("parquet", "webdataset")
        else ""
    )
    print(for_stream(f"{files}{arguments.out}: {done.num_rows:,} rows written", sys.stdout))
    if done.failed:
        write_line(f"llava: {len(done.failed):,} rows were left out.")
    return 0


def _read_part(text: str) -> tuple[int, int]:
    first, _, total = text.partition("/")
    if not (first.isdecimal() and total.isdecimal() and 1 <= int(first) <= int(total)):
        raise UsageError(f"--shard is '{text}'; it has to be K/N with K from 1 to N, such as 1/4.")
    return int(first), int(total)
