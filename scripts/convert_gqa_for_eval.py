"""Front door: writes answers as GQA's evaluation reads them, with the original's flags."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.entry_point import run_command
from llava.eval.submission import write_gqa


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--src", required=True)
    parser.add_argument("--dst", required=True)
    args = parser.parse_args()
    return run_command(lambda: write_gqa(args.src, args.dst) or 0)


if __name__ == "__main__":
    sys.exit(main())
