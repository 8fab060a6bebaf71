"""Front door: writes the table that MMBench's server scores, with the original's flags."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.entry_point import run_command
from llava.eval.mmbench_upload import write_upload


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--annotation-file", type=Path, required=True)
    parser.add_argument("--result-dir", type=Path, required=True)
    parser.add_argument("--upload-dir", type=Path, required=True)
    parser.add_argument("--experiment", required=True)
    args = parser.parse_args()
    answers, target = args.result_dir / f"{args.experiment}.jsonl", args.upload_dir / f"{args.experiment}.xlsx"
    return run_command(lambda: write_upload(args.annotation_file, answers, target) or 0)


if __name__ == "__main__":
    sys.exit(main())
