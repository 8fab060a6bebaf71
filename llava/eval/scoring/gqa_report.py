"""GQA's accuracy on the balanced questions, by type, length and steps, without scene graphs. Loads no torch.

Source: the official eval.py of gqadataset.org with LLaVA's edit that tolerates missing scene graphs and choices
(haotian-liu/LLaVA@c121f04 docs/Evaluation.md; SHI-Labs/VCoder@2f95684 playground/data/eval/gqa/data/eval/eval.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llava.errors import UsageError

# The last step of each question, which asks for the answer, is no reasoning step.
_ASKING = ("exist", "query: name", "choose name")


@dataclass(frozen=True)
class GqaReport:
    """Shares in percent. ``by_*`` map a type or number to its share and its number of questions.

    ``distribution`` is the chi-square distance between the answers given and the true ones, lower is better; None if no
    question has a group. ``validity`` and ``plausibility`` are 0 without the choices file.
    """

    binary: float
    open: float
    accuracy: float
    validity: float
    plausibility: float
    distribution: float | None
    by_structure: dict[str, tuple[float, int]]
    by_semantics: dict[str, tuple[float, int]]
    by_steps: dict[int, tuple[float, int]]
    by_words: dict[int, tuple[float, int]]


def evaluate_gqa(
    questions: Mapping[str, Mapping[str, Any]],
    predictions: Mapping[Any, str],
    choices: Mapping[str, Mapping[str, Any]] | None = None,
) -> GqaReport:
    """The report over the balanced questions; ``predictions`` map their ids to answers as submitted.

    Raises UsageError if a balanced question has no prediction.
    """
    balanced = {key: row for key, row in questions.items() if row["isBalanced"]}
    if not balanced:
        raise UsageError(f"None of the {len(questions)} questions is balanced, and GQA is scored over those that are.")
    missing = [key for key in balanced if key not in predictions]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(balanced)} questions have no prediction, the first of them '{missing[0]}': GQA is "
            "scored over all of its balanced questions. Answer them, or name the questions file of the split answered."
        )
    groups: dict[str, defaultdict[Any, list[float]]] = {
        name: defaultdict(list) for name in ("kind", "structural", "semantic", "steps", "words")
    }
    valid, plausible = [], []
    for key, row in balanced.items():
        score = float(predictions[key] == row["answer"])
        types = row["types"]
        groups["kind"]["open" if types["structural"] == "query" else "binary"].append(score)
        groups["kind"]["all"].append(score)
        groups["structural"][types["structural"]].append(score)
        groups["semantic"][types["semantic"]].append(score)
        groups["steps"][_count_steps(row)].append(score)
        groups["words"][len(row["question"].split())].append(score)
        valid.append(float(_is_among(predictions[key], row, choices, key, "valid")))
        plausible.append(float(_is_among(predictions[key], row, choices, key, "plausible")))
    shares = {name: {key: (_percent(s), len(s)) for key, s in sorted(group.items())} for name, group in groups.items()}
    kinds = {name: share for name, (share, _) in shares["kind"].items()}
    return GqaReport(
        kinds.get("binary", 0.0),
        kinds.get("open", 0.0),
        kinds.get("all", 0.0),
        _percent(valid),
        _percent(plausible),
        _measure_distribution(balanced, predictions),
        shares["structural"],
        shares["semantic"],
        shares["steps"],
        shares["words"],
    )


def write_gqa_report(report: GqaReport) -> str:
    """The report's lines as the official script prints them."""
    lines = ["", *(f"{n.capitalize()}: {getattr(report, n):.2f}%" for n in ("binary", "open", "accuracy"))]
    lines += [f"Validity: {report.validity:.2f}%", f"Plausibility: {report.plausibility:.2f}%"]
    distance = "no question has a group" if report.distribution is None else f"{report.distribution:.2f}"
    lines.append(f"Distribution: {distance} (lower is better)")
    tables: list[tuple[str, Mapping[Any, tuple[float, int]]]] = [
        ("structural type", report.by_structure),
        ("semantic type", report.by_semantics),
        ("steps number", report.by_steps),
        ("words number", report.by_words),
    ]
    for title, shares in tables:
        lines += ["", f"Accuracy / {title}:"]
        lines += [f"  {key}: {share:.2f}% ({num} questions)" for key, (share, num) in shares.items()]
    return "".join(f"{line}\n" for line in lines)


def _count_steps(row: Mapping[str, Any]) -> int:
    steps = (f"{step['operation']}: {step['argument']}" for step in row["semantic"])
    return sum(not any(asking in step for asking in _ASKING) for step in steps)


def _is_among(
    answer: str, row: Mapping[str, Any], choices: Mapping[str, Mapping[str, Any]] | None, key: str, name: str
) -> bool:
    if not choices:
        return False
    return answer in (("color", "material", "shape") if "Common" in row["types"]["detailed"] else choices[key][name])


def _measure_distribution(balanced: Mapping[str, Mapping[str, Any]], predictions: Mapping[Any, str]) -> float | None:
    gold: defaultdict[str, Counter[str]] = defaultdict(Counter)
    given: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for key, row in balanced.items():
        group = row["groups"]["global"]
        if group is not None:
            gold[group][row["answer"]] += 1
            given[group][predictions[key]] += 1
    total = sum(counts.total() for counts in gold.values())
    if not total:
        return None
    score = 0.0
    for group, counts in gold.items():
        distance = 0.0
        for answer, expected in counts.items():
            distance += float(given[group][answer] - expected) ** 2 / expected
        score += distance * counts.total()
    return score / total / 100


def _percent(scores: list[float]) -> float:
    return sum(scores) / len(scores) * 100 if scores else 0.0
