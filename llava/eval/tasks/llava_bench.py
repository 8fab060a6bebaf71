"""LLaVA-Bench (in the wild): the score of a run by a judge's reviews. Loads no torch.

The reviews are in ``ANSWERS.reviews.jsonl`` beside the answers, as ``eval_gpt_review_bench`` writes them. A review that
holds no scores is left out and counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.eval.answer_matching import MatchedAnswers
from llava.eval.json_files import read_whole_lines
from llava.eval.pair_reviews import LLAVA_BENCH
from llava.eval.review_command import run_reviews
from llava.eval.scoring.judge_drift import warn_of_drift
from llava.eval.scoring.judged import LEAST, MOST, is_failed, summarize_pairs
from llava.eval.task_score import ScoredAnswer, TaskScore

_FOLDER = "llava-bench-in-the-wild"
_RULES = Path(__file__).resolve().parents[1] / "table" / "rule.json"
_MAX_TOKENS = 1024


def judge_llava_bench(
    matched: MatchedAnswers, path: Path, data: Path, judge: argparse.Namespace
) -> tuple[TaskScore | None, int]:
    """The score of the answers in ``path``, and the exit code; no score if only the cost was asked, or reviews miss.

    ``judge`` holds the flags of ``add_judge_flags``. Raises LlavaError: files, flags or the judge cannot be used.
    """
    folder = data / _FOLDER
    reviews = path.with_name(f"{path.name.removesuffix('.jsonl')}.reviews.jsonl")
    judge.judge_model = judge.judge_model or LLAVA_BENCH.judge
    wanted = {
        "question": str(folder / "questions.jsonl"),
        "context": str(folder / "context.jsonl"),
        "rule": str(_RULES),
        "answer_list": [str(folder / "answers_gpt4.jsonl"), str(path)],
        "output": str(reviews),
        "max_tokens": judge.judge_max_tokens or _MAX_TOKENS,
    }
    arguments = argparse.Namespace(**{**vars(judge), **wanted, "judge_max_tokens": wanted["max_tokens"]})
    code = run_reviews(arguments, LLAVA_BENCH, lambda place: None, lambda place: None)
    if code or judge.judge_dry_run:
        return None, code
    return _score(matched, reviews, folder / "answers_gpt4.jsonl", judge.judge_model), 0


def _score(matched: MatchedAnswers, reviews: Path, references: Path, judge: str) -> TaskScore:
    rows = read_whole_lines(reviews)
    good = [row for row in rows if not is_failed(row.get("tuple"))]
    if not good:
        raise UsageError(f"None of the {len(rows)} reviews in '{reviews}' holds scores. Try --judge-retry-failed.")
    texts = {str(row.get("question_id")): str(row.get("text", "")) for row in read_whole_lines(references)}
    places = {str(question.id): place for place, question in enumerate(matched.questions)}
    answers = [
        ScoredAnswer(
            places[str(row["question_id"])],
            min(1.0, row["tuple"][1] / MOST),
            f"{row['tuple'][0]:g} {row['tuple'][1]:g}",
            (texts.get(str(row["question_id"]), ""),),
            (_name_category(row),),
            str(row.get("content", "")).strip(),
        )
        for row in good
    ]
    total = summarize_pairs([row["tuple"] for row in good])
    if total.relative is None:
        raise UsageError(f"All reference answers in '{reviews}' are scored 0, so no score relative to them exists.")
    groups = {}
    for name in sorted(set(map(_name_category, good))):
        members = summarize_pairs([row["tuple"] for row in good if _name_category(row) == name])
        if members.relative is not None:
            groups[name] = (members.relative, members.num_reviews)
    scores = {"relative": total.relative, "reference": total.first, "model": total.second}
    notes = [f"The judge is {judge}."]
    if len(good) < len(rows):
        notes.append(f"{len(rows) - len(good)} of {len(rows)} reviews hold no scores and are left out.")
    notes.append(warn_of_drift("llava-bench", LLAVA_BENCH.judge, judge))
    return TaskScore("relative", scores, groups, answers, _read_otherwise(rows, good), notes)


def _name_category(row: dict[str, Any]) -> str:
    return str(row.get("category", "")).removeprefix(LLAVA_BENCH.prefix)


def _read_otherwise(rows: Sequence[dict[str, Any]], good: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The score as the original averages it, with failures as they stand, and without scores off the judge's scale."""
    readings = {}
    kept = [row["tuple"] for row in good if all(LEAST <= score <= MOST for score in row["tuple"])]
    found: tuple[tuple[str, list[Any]], ...] = (("published", [row.get("tuple") for row in rows]), ("strict", kept))
    for name, pairs in found:
        try:
            relative = summarize_pairs(pairs).relative if pairs else None
        except (TypeError, ValueError):
            continue
        if relative is not None and relative == relative:
            readings[name] = relative
    return readings
