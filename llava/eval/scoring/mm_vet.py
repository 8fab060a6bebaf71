"""MM-Vet: the judge's prompt, the grade in its reply, and scores by capability. Loads no torch.

A judge completes the last cell of a table with a grade from 0.0 to 1.0. A reply that is not one is asked for again,
with a longer prompt and a rising temperature; the published grader gives 0 after the last one and takes "nan" for a
grade. Here a failed grade is left out and counted; ``failed_as_zero`` gives the published number.

Source: yuweihao/MM-Vet@7d717c2 mm-vet_evaluator.py. The prompt is quoted from there, since grades depend on it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llava.eval.scoring.verdict import Verdict

PROMPT = """Compare the ground truth and prediction from AI models, to give a correctness score for the prediction. \
<AND> in the ground truth means it is totally right only when all elements in the ground truth are present in the \
prediction, and <OR> means it is totally right when any one element in the ground truth is present in the prediction. \
The correctness score is 0.0 (totally wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, or 1.0 (totally right). \
Just complete the last space of the correctness score.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
What is x in the equation? | -1 <AND> -5 | x = 3 | 0.0
What is x in the equation? | -1 <AND> -5 | x = -1 | 0.5
What is x in the equation? | -1 <AND> -5 | x = -5 | 0.5
What is x in the equation? | -1 <AND> -5 | x = -5 or 5 | 0.5
What is x in the equation? | -1 <AND> -5 | x = -1 or x = -5 | 1.0
Can you explain this meme? | This meme is poking fun at the fact that the names of the countries Iceland and \
Greenland are misleading. Despite its name, Iceland is known for its beautiful green landscapes, while Greenland is \
mostly covered in ice and snow. The meme is saying that the person has trust issues because the names of these \
countries do not accurately represent their landscapes. | The meme talks about Iceland and Greenland. It's pointing \
out that despite their names, Iceland is not very icy and Greenland isn't very green. | 0.4
Can you explain this meme? | This meme is poking fun at the fact that the names of the countries Iceland and \
Greenland are misleading. Despite its name, Iceland is known for its beautiful green landscapes, while Greenland is \
mostly covered in ice and snow. The meme is saying that the person has trust issues because the names of these \
countries do not accurately represent their landscapes. | The meme is using humor to point out the misleading nature \
of Iceland's and Greenland's names. Iceland, despite its name, has lush green landscapes while Greenland is mostly \
covered in ice and snow. The text 'This is why I have trust issues' is a playful way to suggest that these \
contradictions can lead to distrust or confusion. The humor in this meme is derived from the unexpected contrast \
between the names of the countries and their actual physical characteristics. | 1.0
"""
AGAIN = "\nPredict the correctness of the answer (digit): "
JUDGE, MAX_TOKENS = "gpt-4-0613", 3
TEMPERATURES = (0.0, 0.0, 0.5, 1.0, 1.5)
"""Of the first request and of those after it. The published grader sends a sixth one, whose reply it never reads."""

_PLAIN = re.compile(r"[0-9]*\.?[0-9]+", re.ASCII)


def write_prompt(question: str, answer: str, prediction: str, *, again: bool = False) -> str:
    """The judge's prompt; with ``again`` the one after a reply that could not be read."""
    truth = answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    return PROMPT + "\n" + " | ".join([question, truth, prediction, ""]) + (AGAIN if again else "")


def read_published_grade(reply: str) -> Verdict:
    """The grade by the published rule: what is before the first blank, as a number that is not outside 0 to 1."""
    word = reply.split(" ")[0].strip()
    try:
        grade = float(word)
    except ValueError:
        return Verdict(0.0, None, f"{reply[:40]!r} does not begin with a number and a blank")
    if grade > 1.0 or grade < 0.0:
        return Verdict(0.0, None, f"{word[:20]} is not from 0 to 1")
    return Verdict(grade, word)


def read_strict_grade(reply: str) -> Verdict:
    """The same, where the grade also has to be a plain decimal number, which "nan" is not."""
    verdict = read_published_grade(reply)
    if verdict.reading is not None and not _PLAIN.fullmatch(verdict.reading.removesuffix(".")):
        return Verdict(0.0, None, f"{verdict.reading[:20]!r} is not a plain decimal number")
    return verdict


@dataclass(frozen=True)
class GradeTable:
    """Scores in percent by capability and by combination; ``runs``: the total of each run; ``num_failed`` grades."""

    by_capability: dict[str, float]
    by_combination: dict[str, float]
    total: float
    std: float
    runs: list[float]
    num_failed: int


def summarize_grades(
    grades: Mapping[str, Sequence[float | None]],
    capabilities: Mapping[str, Sequence[str]],
    *,
    failed_as_zero: bool = False,
    decimals: int = 1,
) -> GradeTable:
    """The table of MM-Vet.

    Args:
        grades: by question, one for each run; None for a failed one.
        capabilities: by question; the frequent ones come first in the table, as in the published one.
    """
    groups = {key: frozenset(capabilities[key]) for key in grades}
    singles = Counter(name for key in grades for name in dict.fromkeys(capabilities[key]))
    num_runs = max(map(len, grades.values()))

    def mean(keys: Sequence[str], run: int) -> float:
        found = [grades[key][run] for key in keys]
        kept = [grade or 0.0 for grade in found if failed_as_zero or grade is not None]
        total = 0.0
        for grade in kept:  # one after another, as published: sum() is more exact
            total += grade
        return total / len(kept) * 100 if kept else math.nan

    def score(keys: Sequence[str]) -> float:
        return round(float(np.mean([mean(keys, run) for run in range(num_runs)])), decimals)

    totals = np.array([mean(list(grades), run) for run in range(num_runs)])
    return GradeTable(
        {name: score([key for key in grades if name in groups[key]]) for name, _ in singles.most_common()},
        {
            "_".join(sorted(group)): score([key for key in grades if groups[key] == group])
            for group, _ in Counter(groups.values()).most_common()
        },
        round(float(totals.mean()), decimals),
        round(float(totals.std()), decimals),
        [round(float(total), decimals) for total in totals],
        sum(grade is None for row in grades.values() for grade in row),
    )


GRADE_READINGS: dict[str, Callable[[str], Verdict]] = {
    "published": read_published_grade,
    "strict": read_strict_grade,
}
"""The readings of a reply by name, the benchmark's first."""
