"""``llava data convert``: from a dataset's own files to rows that LLaVA trains on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llava.commands.flags import add_command
from llava.errors import UsageError


def add_convert(actions: Any) -> None:
    """Adds the command to the parser's ``actions``."""
    parser = add_command(
        actions, "convert", _convert, "Convert a dataset's own files to LLaVA's data format; see llava data list."
    )
    parser.add_argument("name", metavar="NAME", help="the dataset, as llava data list names it")
    parser.add_argument("src", metavar="SRC", help="the folder with its files, or its only file")
    parser.add_argument("dst", metavar="DST", help="a new file: .json for a list, .jsonl for a row in each line")
    parser.add_argument("--split", default="train", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--format", metavar="NAME", help="which rows are made of it (default: its first format)")
    parser.add_argument("--prompt", metavar="TEXT", help="in place of its answer-format sentence; '' for none")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N rows")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn (default: %(default)s)")
    parser.add_argument(
        "--images", metavar="FOLDER", help="leave out rows whose image is not there; some datasets need its size"
    )
    parser.add_argument(
        "--save-images", metavar="FOLDER", help="where to store the images that a dataset's own files hold"
    )
    parser.add_argument("--left-out", metavar="FILE", help="list everything that was left out, and why, as JSON lines")


def _convert(arguments: argparse.Namespace) -> int:
    from llava.data.convert.converter import Options
    from llava.data.convert.row_writer import convert, list_left_out, make_image_saver
    from llava.data.convert.table import find_converter

    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f"--limit is {arguments.limit}; it has to be at least 1.")
    if arguments.images is not None and not Path(arguments.images).is_dir():
        raise UsageError(f"The image folder '{arguments.images}' does not exist.")
    if arguments.left_out is not None and Path(arguments.left_out).absolute() == Path(arguments.dst).absolute():
        raise UsageError(f"DST and --left-out are the same file, '{arguments.dst}'. Name another one.")
    converter = find_converter(arguments.name)
    with list_left_out(None if arguments.left_out is None else Path(arguments.left_out)) as left_out:
        options = Options(
            split=arguments.split,
            format=converter.check_format(arguments.format),
            prompt=arguments.prompt,
            seed=arguments.seed,
            images=None if arguments.images is None else Path(arguments.images),
            save_image=None if arguments.save_images is None else make_image_saver(Path(arguments.save_images)),
            left_out=left_out,
        )
        written = convert(converter, Path(arguments.src), Path(arguments.dst), options, limit=arguments.limit)
    print(written.describe())
    return 0
