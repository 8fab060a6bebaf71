"""Front door: writes the file that VizWiz's server scores, with the original's flags."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.entry_point import run_command
from llava.eval.submission import write_vizwiz


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--annotation-file", required=True)
    parser.add_argument("--result-file", required=True)
    parser.add_argument("--result-upload-file", required=True)
    args = parser.parse_args()
    return run_command(
        lambda: print(write_vizwiz(args.result_file, args.annotation_file, args.result_upload_file)) or 0
    )


if __name__ == "__main__":
    sys.exit(main())
