"""Front door: writes the answers as MM-Vet's grader reads them, with the original's flags."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.entry_point import run_command
from llava.eval.submission import write_mmvet


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--src", required=True)
    parser.add_argument("--dst", required=True)
    args = parser.parse_args()

    def work() -> int:
        write_mmvet(args.src, args.dst)
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
