"""Front door: writes ScienceQA as LLaVA's training reads it, with the original's commands and flags.

``convert_to_llava`` writes llava_SPLIT_FORMAT.json and ``convert_to_jsonl`` scienceqa_SPLIT_FORMAT.jsonl into the base
folder. A problem that has no such form is left out and named, where the original stops.

Source: haotian-liu/LLaVA@82bc69e scripts/convert_sqa_to_llava.py.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.data.collection.journal import write_whole
from llava.data.convert.converter import Options, Source
from llava.data.convert.scienceqa import FORMATS, LETTER, convert_scienceqa
from llava.entry_point import run_command
from llava.errors import UsageError
from llava.text import write_line
from llava.yaml_files import name_nearest

FILES = ("problems.json", "pid_splits.json")


def read_rows(folder, split, format):
    """The rows of a split, one for each id."""
    if format not in FORMATS or format == LETTER:
        raise UsageError(f"There is no format '{format}'.{name_nearest(format, FORMATS)}")
    options = Options(split=split, format=format)
    source = Source(folder, FILES, tuple((folder / name,) for name in FILES), "https://github.com/lupantech/ScienceQA")
    rows = {row["id"]: row for row in convert_scienceqa(source, options)}
    for reason, num in options.left_out.counts.items():
        examples = ", ".join(options.left_out.examples[reason])
        write_line(f"llava: {num} problems are left out, since each {reason}: {examples}{', ...' * (num > 3)}")
    return rows.values()


def write_llava(folder, split, format):
    target = []
    for row in read_rows(folder, split, format):
        target.append({name: row[name] for name in ("id", "image", "conversations") if name in row})
    print(f"Number of samples: {len(target)}")
    write_whole((folder / f"llava_{split}_{format}.json").resolve(), json.dumps(target, indent=2).encode())


def write_lines(folder, split, format):
    lines = []
    for row in read_rows(folder, split, format):
        asked, said = (turn["value"] for turn in row["conversations"])
        image = {"image": row["image"]} if "image" in row else {}
        lines.append(json.dumps({"id": row["id"], **image, "instruction": asked, "output": said}) + "\n")
    write_whole((folder / f"scienceqa_{split}_{format}.jsonl").resolve(), "".join(lines).encode())


def main():
    commands = {"convert_to_llava": write_llava, "convert_to_jsonl": write_lines}
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=commands)
    parser.add_argument("--base-dir", "--base_dir", type=Path, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--prompt-format", "--prompt_format", default="QCM-LEPA")
    args = parser.parse_args()
    return run_command(lambda: commands[args.task](args.base_dir, args.split, args.prompt_format) or 0)


if __name__ == "__main__":
    sys.exit(main())
