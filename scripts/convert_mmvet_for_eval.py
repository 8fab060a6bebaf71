"""Front door: writes the answers as MM-Vet's grader reads them, with the original's flags."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.data.collection.journal import write_whole
from llava.entry_point import run_command
from llava.eval.json_files import pick, read_whole_lines


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--src", required=True)
    parser.add_argument("--dst", required=True)
    args = parser.parse_args()

    def work() -> int:
        rows = read_whole_lines(args.src)
        given = {f"v1_{pick(row, 'question_id', args.src)}": pick(row, "text", args.src) for row in rows}
        write_whole(Path(args.dst).resolve(), json.dumps(given, indent=2).encode())
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
