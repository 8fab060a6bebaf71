"""How far today's judges are known to be from the published ones, as a warning beside a score. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Drift:
    """The published score of a model, and what others got; ``source``: where that is reported."""

    task: str
    answers: str
    published: str
    seen: str
    why: str
    source: str


KNOWN = (
    Drift(
        "mm-vet",
        "LLaVA-1.5-7B's answers as its authors published them",
        "31.1",
        "27.9",
        "graded by MM-Vet's public evaluator in September 2025",
        "haotian-liu/LLaVA issue 1905",
    ),
    Drift(
        "mm-vet",
        "LLaVA-1.5-7B's answers",
        "31.1",
        "1.4",
        "in a toolkit that counts failed calls as 0",
        "EvolvingLMMs-Lab/lmms-eval issue 80",
    ),
    Drift(
        "llava-bench",
        "LLaVA-1.6-Mistral-7B's answers",
        "83.2",
        "66.6",
        "reviewed by another judge in May 2024",
        "open-compass/VLMEvalKit issue 194",
    ),
    Drift(
        "llava-bench",
        "LLaVA-1.5's answers",
        "65.4 (7B) or 72.5 (13B)",
        "96.1",
        "in a toolkit that averages failed calls in as -1",
        "EvolvingLMMs-Lab/lmms-eval issue 64",
    ),
)
SPREADS = {
    "llava-bench": "The authors' own three reviews of one set of answers gave 72.8, 72.7 and 72.1 (13B), and 64.7, "
    "65.3 and 66.3 (7B)",
    "mm-vet": "The authors' own three grades of one set of answers gave 31.2, 30.8 and 31.2 (7B)",
}
"""What the published judge itself varies by. Source: haotian-liu/LLaVA@32cebc3 playground/data/eval (eval.zip)."""


def warn_of_drift(task: str, published_judge: str, judge: str) -> str:
    """What a reader of a score has to know about the judge, in sentences."""
    parts = [f"{SPREADS[task]}."]
    if judge != published_judge:
        parts.insert(0, f"The published scores are by {published_judge}, this one is by {judge}: do not compare them.")
    parts += [
        f"{drift.answers} got {drift.seen} instead of {drift.published}, {drift.why} ({drift.source})."
        for drift in KNOWN
        if drift.task == task
    ]
    return " ".join(parts)
