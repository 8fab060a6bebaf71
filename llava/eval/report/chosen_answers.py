"""Which answers a report shows: some of the worst and of the best, spread over the categories. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from llava.eval.score_file import AnswerRecord, ScoredRun

_T = TypeVar("_T")


def choose_examples(run: ScoredRun, count: int) -> tuple[list[AnswerRecord], list[AnswerRecord]]:
    """At most ``count`` of the worst answers and of the best ones: none below full marks is among the best.

    The worst begin with those that nothing could be read from. Within equal scores the categories take turns, and
    within a category the answers are spread over the file, so that the same run shows the same examples.
    """
    wrong = [answer for answer in run.answers if answer.score < 1]
    unread = _take_turns([answer for answer in wrong if answer.reading is None], count)[: -(-count // 2)]
    read = [answer for answer in wrong if answer.reading is not None]
    worst = unread
    for score in sorted({answer.score for answer in read}):
        if len(worst) >= count:
            break
        worst = worst + _take_turns([answer for answer in read if answer.score == score], count - len(worst))
    best = _take_turns([answer for answer in run.answers if answer.score >= 1], count)
    return worst, best


def _take_turns(answers: Sequence[AnswerRecord], count: int) -> list[AnswerRecord]:
    """At most ``count`` of the answers, from as many categories as possible."""
    groups: dict[tuple[str, ...], list[AnswerRecord]] = {}
    for answer in answers:
        groups.setdefault(answer.categories, []).append(answer)
    share = -(-count // max(1, len(groups)))
    queues = [spread(group, max(share, count)) for group in groups.values()]
    chosen: list[AnswerRecord] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return chosen


def spread(items: Sequence[_T], count: int) -> list[_T]:
    """``count`` of the items at equal distances; all of them if there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[number * len(items) // count] for number in range(count)]
