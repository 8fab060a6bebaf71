"""``python -m llava.eval.eval_gqa``: GQA's own evaluation, which needs no scene graphs, choices or torch.

It takes the official eval.py's flags as far as they concern testdev_balanced and prints what that does. Consistency
and grounding are not measured: testdev has no entailed questions' answers and no scene graphs.

Source: SHI-Labs/VCoder@2f95684 playground/data/eval/gqa/data/eval/eval.py, the official script with LLaVA's edit.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
from collections.abc import Sequence
from typing import Any

from llava.entry_point import run_command
from llava.errors import UsageError
from llava.eval.json_files import find_repeated, pick, read_json
from llava.eval.scoring.gqa_report import evaluate_gqa, write_gqa_report
from llava.eval.submission import pick_id, say_empty
from llava.text import write_line

# Quoted, since what the official script prints is compared line by line.
_ADVICE = """\
Please make sure to use our provided visual features as gqadataset.org for better comparability. We provide both \
spatial and object-based features trained on GQA train set.
In particular please avoid using features from https://github.com/peteanderson80/bottom-up-attention since they were \
trained on images contained in the GQA validation set and thus may give false scores improvement.

Please consider using --consistency to compute consistency scores for entailed questions.
If you do so, please provide answers to all questions in val_all_questions.json.

Please consider using --grounding to compute attention scores.
If you do so, please provide attention maps through --attentions.
"""


def build_parser() -> argparse.ArgumentParser:
    """The official script's flags; "{tier}" in a file's name stands for ``--tier``."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.eval_gqa", description="Scores answers to GQA.")
    parser.add_argument("--tier", default="val")
    for name in ("questions", "predictions", "choices"):
        parser.add_argument(f"--{name}", default=f"{{tier}}_{name}.json")
    parser.add_argument("--scenes", default="{tier}_sceneGraphs.json")
    return parser


def _read_predictions(path: str, questions: dict[str, Any]) -> dict[str | int, str]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"'{path}' is no list of objects; scripts/convert_gqa_for_eval.py writes one from answers.")
    ids = [pick_id(row, "questionId", path) for row in rows]
    repeated, strangers = find_repeated(ids), [key for key in ids if key not in questions]
    if repeated:
        write_line(f"llava: {len(repeated)} questions are answered more than once in '{path}'; the last answer counts.")
    if strangers:
        write_line(f"llava: {len(strangers)} answers in '{path}' are to other questions, such as {strangers[0]!r}.")
    texts = [pick(row, "prediction", path) for row in rows]
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise UsageError(f"{len(wrong)} predictions in '{path}' are no text; the first is {wrong[0]!r}.")
    say_empty(texts, path)
    return dict(zip(ids, texts, strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the scores of the predictions file; returns the exit code."""
    args = build_parser().parse_args(argv)
    names = {
        name: getattr(args, name).format(tier=args.tier) for name in ("questions", "predictions", "choices", "scenes")
    }

    def work() -> int:
        print(_ADVICE)
        print("Loading scene graphs...")
        if not Path(names["scenes"]).exists():
            print("Failed to load scene graphs -- cannot evaluate grounding")
        print("Loading questions...")
        questions = read_json(names["questions"])
        if not isinstance(questions, dict):
            raise UsageError(f"'{names['questions']}' is not a questions file of GQA: it holds no object.")
        print("Loading choices...")
        choices = read_json(names["choices"]) if Path(names["choices"]).exists() else None
        if choices is None:
            print("Failed to load choices -- cannot evaluate validity or plausibility")
        print("Loading predictions...")
        predictions = _read_predictions(names["predictions"], questions)
        try:
            report = evaluate_gqa(questions, predictions, choices)
        except (KeyError, TypeError) as error:
            raise UsageError(f"'{names['questions']}' is not a questions file of GQA: {error!r}.") from error
        print(write_gqa_report(report), end="")
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
