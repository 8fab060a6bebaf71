"""MathVista with its judge, which finds the answer within a response. Loads no torch.

It is asked only where a response is more than an answer. Replies are kept in ``ANSWERS.extractions.replies``, so that
the same command goes on after a kill. A response without a reply is left out of the score and counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.data.collection.journal import lock_file
from llava.eval.answer_matching import MatchedAnswers
from llava.eval.judge import Ask, Judge, Review, ReviewRequest
from llava.eval.judge_flags import JudgeDefaults, open_judge
from llava.eval.scoring.math_vista_judge import JUDGE, MAX_TOKENS, PROMPT, TEMPERATURE, write_prompt
from llava.eval.task_score import ScoringOptions, TaskScore
from llava.eval.tasks.math_vista import find_unread, score_replies
from llava.text import write_line


def judge_math_vista(
    matched: MatchedAnswers, path: Path, data: Path, judge: argparse.Namespace
) -> tuple[TaskScore | None, int]:
    """The score of the answers in ``path``, and the exit code, 1 if replies miss; no score if only the cost was asked.

    ``judge`` holds the flags of ``add_judge_flags``. Raises LlavaError: files, flags or the judge cannot be used.
    """
    judge.judge_model = judge.judge_model or JUDGE
    judge.judge_max_tokens = judge.judge_max_tokens or MAX_TOKENS
    unread = find_unread(matched.questions, matched.texts, data)
    requests = [
        ReviewRequest(str(place), (Ask(({"role": "user", "content": write_prompt(query, matched.texts[place])},)),))
        for place, query in unread.items()
    ]
    journal = path.with_name(f"{path.name.removesuffix('.jsonl')}.extractions.replies")
    defaults = JudgeDefaults(JUDGE, TEMPERATURE, judge.judge_max_tokens)
    asked = open_judge(judge, defaults, journal, lambda text: True, PROMPT)
    write_line(asked.describe_cost(requests, len(requests)))
    if judge.judge_dry_run:
        return None, 0
    with lock_file(journal):
        replies = _ask(asked, requests)
    score = score_replies(matched.questions, matched.texts, data, ScoringOptions(), replies)
    notes = [f"The judge is {judge.judge_model}.", *score.notes]
    if judge.judge_model != JUDGE:
        notes.append(
            f"MathVista's own judge is {JUDGE}, and lmms-eval's was gpt-3.5-turbo: others may extract otherwise."
        )
    return TaskScore(**{**vars(score), "notes": notes}), 1 if len(replies) < len(requests) else 0


def _ask(judge: Judge, requests: list[ReviewRequest]) -> dict[int, str]:
    replies: dict[int, str] = {}

    def keep(review: Review) -> None:
        if not review.fault:
            replies[int(review.id)] = review.text.strip()

    judge.journal.open()
    try:
        judge.run(requests, keep)
    finally:
        judge.journal.close()
    write_line(f"llava: {judge.describe().line}")
    if missing := len(requests) - len(replies):
        reasons = [f"{fault} ({num})" for fault, num in judge.faults.most_common(3)]
        reasons += [f"the budget {judge.limit} is spent"] if judge.limit else []
        write_line(
            f"llava: error: {missing} of {len(requests)} responses got no reply: {'; '.join(reasons)}. Run the same "
            "command again to ask for them."
        )
    return replies
