"""Front door: writes the answers as MM-Vet's grader reads them, with the original's flags."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.data.collection.journal import write_whole
from llava.entry_point import run_command
from llava.eval.json_files import find_repeated, pick_text, read_whole_lines
from llava.eval.submission import pick_id, say_empty
from llava.text import write_line


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--src", required=True)
    parser.add_argument("--dst", required=True)
    args = parser.parse_args()

    def work() -> int:
        rows = read_whole_lines(args.src)
        ids = [f"v1_{pick_id(row, 'question_id', args.src)}" for row in rows]
        given = {key: pick_text(row, "text", args.src) for key, row in zip(ids, rows, strict=True)}
        if repeated := find_repeated(ids):
            write_line(
                f"llava: {len(repeated)} questions are answered more than once in '{args.src}', such as "
                f"{repeated[0]!r}; the last answer counts."
            )
        say_empty(given.values(), args.src)
        write_whole(Path(args.dst).resolve(), json.dumps(given, indent=2).encode())
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
