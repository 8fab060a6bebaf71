"""Two runs on the same benchmark, question by question: which answers flip, and whether the difference is chance.

Answers are joined by the question's id and prompt, never by their place in the file. Questions that only one of the
runs was asked are counted and named, and are no part of the test. Loads no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from llava.errors import UsageError
from llava.eval.report.chosen_answers import spread
from llava.eval.report.paired_test import PairedTest, compare_pairs
from llava.eval.report.run_conditions import list_differences
from llava.eval.report.score_noise import CIRCLE, CIRCULAR
from llava.eval.score_file import AnswerRecord, ScoredRun
from llava.text import fit_line

_MOST_NAMED = 5


@dataclass(frozen=True)
class Comparison:
    """What became different between the first and the second run.

    Attributes:
        pairs: the answers to the same question, in the first run's order.
        only_first, only_second: answers to questions that the other run was not asked.
        changed_prompts: ids that both have, under another prompt; these are among the former, too.
        test: of the pairs' scores.
    """

    first: ScoredRun
    second: ScoredRun
    pairs: Sequence[tuple[AnswerRecord, AnswerRecord]]
    only_first: Sequence[AnswerRecord]
    only_second: Sequence[AnswerRecord]
    changed_prompts: Sequence[int | str]
    test: PairedTest

    @property
    def gained(self) -> list[tuple[AnswerRecord, AnswerRecord]]:
        """The pairs in which the second run's answer scores higher."""
        return [pair for pair in self.pairs if pair[1].score > pair[0].score]

    @property
    def lost(self) -> list[tuple[AnswerRecord, AnswerRecord]]:
        """The pairs in which the second run's answer scores lower."""
        return [pair for pair in self.pairs if pair[1].score < pair[0].score]


def choose_flips(
    flips: Sequence[tuple[AnswerRecord, AnswerRecord]], count: int
) -> list[tuple[AnswerRecord, AnswerRecord]]:
    """At most ``count`` of the flips, those of the greatest difference first, spread over the file."""
    chosen: list[tuple[AnswerRecord, AnswerRecord]] = []
    for size in sorted({abs(b.score - a.score) for a, b in flips}, reverse=True):
        chosen += spread([pair for pair in flips if abs(pair[1].score - pair[0].score) == size], count - len(chosen))
        if len(chosen) >= count:
            break
    return chosen


def compare_runs(first: ScoredRun, second: ScoredRun) -> Comparison:
    """Compares two runs. Raises UsageError for runs on different benchmarks or without a common question."""
    if first.task != second.task:
        raise UsageError(
            f"The first run is of {first.task} and the second of {second.task}: only runs on one benchmark can be "
            "compared question by question. llava eval report shows both side by side."
        )
    for run, name in ((first, "first"), (second, "second")):
        if not run.answers:
            raise UsageError(f"The {name} run, of '{run.model}', has no scored answers: it cannot be compared.")
    known = dict(_key_answers(second.answers))
    pairs, only_first = [], []
    for key, answer in _key_answers(first.answers):
        if key in known:
            pairs.append((answer, known.pop(key)))
        else:
            only_first.append(answer)
    if not pairs:
        raise UsageError(
            f"The runs have no question in common: the first begins with {_name(first.answers[:1])}, the second with "
            f"{_name(second.answers[:1])}. Prompts have to be equal, too."
        )
    ids = {_key_id(answer) for answer in known.values()}
    changed = [answer.id for answer in only_first if _key_id(answer) in ids]
    test = compare_pairs(_list_scores(first.task, pairs))
    return Comparison(first, second, pairs, only_first, [*known.values()], changed, test)


def _list_scores(task: str, pairs: Sequence[tuple[AnswerRecord, AnswerRecord]]) -> list[tuple[float, float]]:
    """The scores that are tested. MMBench's copies of one question are one score: all of them have to be right."""
    if task not in CIRCULAR:
        return [(a.score, b.score) for a, b in pairs]
    least: dict[Hashable, tuple[float, float]] = {}
    for a, b in pairs:
        key = a.id % CIRCLE if isinstance(a.id, int) else a.id
        before = least.get(key, (1.0, 1.0))
        least[key] = min(before[0], a.score), min(before[1], b.score)
    return [*least.values()]


def _key_id(answer: AnswerRecord) -> Hashable:
    return type(answer.id).__name__, answer.id


def _key_answers(answers: Sequence[AnswerRecord]) -> Iterator[tuple[Hashable, AnswerRecord]]:
    """Each answer with its question's key; equal questions are told apart by their order."""
    seen: Counter[Hashable] = Counter()
    for answer in answers:
        key = (*(type(answer.id).__name__, answer.id), answer.prompt)
        yield (*key, seen[key]), answer
        seen[key] += 1


def describe(comparison: Comparison, num_examples: int = 5) -> str:
    """The comparison as text for a terminal: the counts, the test, the flips and some of them in full."""
    first, second, test = comparison.first, comparison.second, comparison.test
    gained, lost = comparison.gained, comparison.lost
    equal = [a for a, b in comparison.pairs if a.score == b.score]
    names = [fit_line(run.model, 60) for run in (first, second)]
    lines = [
        f"{first.task}: A is '{names[0]}', B is '{names[1]}'",
        *_name_settings(comparison),
        f"  questions in both     {len(comparison.pairs):,}",
        *_name_differing(comparison),
        f"  headline, {first.headline}: A {_headline(first)}, B {_headline(second)}",
        f"  mean score of these   A {_mean(comparison, 0):.2f}, B {_mean(comparison, 1):.2f}, difference "
        f"{100 * test.difference:+.2f} ± {196 * test.standard_error:.2f} (95 %)",
        f"  {_say_test(comparison)}: p = {_say_p(test.p_value)}{_judge(test)}",
        "",
        f"  full marks for both   {sum(a.score == b.score == 1 for a, b in comparison.pairs):,}",
        f"  equal below that      {sum(answer.score < 1 for answer in equal):,}",
        f"  B is better           {len(gained):,}",
        f"  A is better           {len(lost):,}",
    ]
    for title, flips in (("B is better", gained), ("A is better", lost)):
        if flips and num_examples:
            shown = choose_flips(flips, num_examples)
            lines += ["", f"{title} ({len(shown)} of {len(flips):,}):"]
            lines += [line for pair in shown for line in _describe_flip(pair)]
    return "\n".join(lines)


def _name_settings(comparison: Comparison) -> Iterator[str]:
    for name, first, second in list_differences(comparison.first, comparison.second):
        yield f"  differs, {fit_line(name, 40)}: A {fit_line(first, 60)}, B {fit_line(second, 60)}"


def _name_differing(comparison: Comparison) -> Iterator[str]:
    for who, answers in (("A", comparison.only_first), ("B", comparison.only_second)):
        if answers:
            yield f"  questions only in {who}   {len(answers):,}: {_name(answers)}; they are not compared"
    if comparison.changed_prompts:
        yield (
            f"  asked otherwise       {len(comparison.changed_prompts):,} of these have an id that the other run has, "
            "with another prompt"
        )


def _describe_flip(pair: tuple[AnswerRecord, AnswerRecord]) -> list[str]:
    first, second = pair
    return [
        f"  {first.id!r}: {fit_line(first.prompt, 110)}",
        f"    right: {fit_line(', '.join(dict.fromkeys(first.references)) or '-', 90)}",
        f"    A {first.score:.2g}: {fit_line(first.text, 90) or '(nothing)'}",
        f"    B {second.score:.2g}: {fit_line(second.text, 90) or '(nothing)'}",
    ]


def _name(answers: Sequence[AnswerRecord]) -> str:
    ids = ", ".join(fit_line(repr(answer.id), 40) for answer in answers[:_MOST_NAMED])
    return ids + (", ..." if len(answers) > _MOST_NAMED else "")


def _headline(run: ScoredRun) -> str:
    return f"{run.scores[run.headline]:.2f}" if run.headline in run.scores else "none"


def _mean(comparison: Comparison, side: int) -> float:
    return 100 * sum(pair[side].score for pair in comparison.pairs) / len(comparison.pairs)


def _say_test(comparison: Comparison) -> str:
    copies = ", each question with its copies" if comparison.first.task in CIRCULAR else ""
    return comparison.test.name + copies


def _say_p(p_value: float) -> str:
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.1g}"


def _judge(test: PairedTest) -> str:
    return ", a difference beyond chance at 5 %" if test.p_value < 0.05 else ", no difference beyond chance at 5 %"
