"""Front door: writes the file that VQAv2's server scores, with the original's flags."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.entry_point import run_command
from llava.eval.submission import write_vqav2


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, default=Path("./playground/data/eval/vqav2"))
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("--split", required=True)
    args = parser.parse_args()
    answers = args.dir / "answers" / args.split / args.ckpt / "merge.jsonl"
    questions = args.dir / "llava_vqav2_mscoco_test2015.jsonl"
    target = args.dir / "answers_upload" / args.split / f"{args.ckpt}.json"
    return run_command(lambda: print(write_vqav2(answers, questions, target)) or 0)


if __name__ == "__main__":
    sys.exit(main())
