"""A run's score beside the published ones: the difference, and whether it is within the score's noise. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llava.eval.report.score_noise import Z_95, Noise, estimate_noise
from llava.eval.score_file import ScoredRun

_NUMBER = re.compile(r"\d+(?:\.(\d+))?")


@dataclass(frozen=True)
class Standing:
    """A run's headline score beside a published one.

    Attributes:
        checkpoint: the published row that it is compared with; "" if there is none.
        published: that row's score, its first number; None if there is none.
        noise: of the run's score; None if it cannot be stated.
        verdict: "same", "within noise", "above", "below", "noise unknown", "other questions" where the run asked
            another set of them, or "" without a published score.
    """

    run: ScoredRun
    score: float | None
    checkpoint: str
    published: float | None
    noise: Noise | None
    verdict: str

    @property
    def difference(self) -> float | None:
        """The run's score less the published one."""
        return None if self.score is None or self.published is None else self.score - self.published


def compare_with_published(run: ScoredRun, against: str | None = None) -> Standing:
    """The run beside the published score of ``against``, by default of the checkpoint that its model's name says."""
    score = run.scores.get(run.headline)
    checkpoint = find_published(against if against is not None else run.model, run.published) or ""
    found = _NUMBER.search(run.published[checkpoint]) if checkpoint else None
    noise = estimate_noise(run)
    if found is None or score is None:
        return Standing(run, score, checkpoint, None, noise, "")
    published, places = float(found[0]), len(found[1] or "")
    if is_partial(run):
        verdict = "other questions"
    elif abs(score - published) <= 0.5 * 10**-places + 1e-9:
        verdict = "same"
    elif noise is None:
        verdict = "noise unknown"
    elif abs(score - published) <= Z_95 * noise.standard_error:
        verdict = "within noise"
    else:
        verdict = "above" if score > published else "below"
    return Standing(run, score, checkpoint, published, noise, verdict)


def is_partial(run: ScoredRun) -> bool:
    """Whether the run was asked other questions than the benchmark's split has."""
    count, of = run.settings.get("count"), run.settings.get("of")
    return run.settings.get("is_partial") is True or (None not in (count, of) and count != of)


def find_published(model: str, published: Mapping[str, str]) -> str | None:
    """The published row of a model, by its name: of the authors' checkpoint, or of its conversion for Transformers."""
    wanted = _shorten(model)
    return next((name for name in published if _shorten(name) == wanted), None)


def _shorten(name: str) -> str:
    """The last part of a name, as ``llava-1.5-7b``: without the owner, the revision, "v" and "-hf"."""
    name = re.split(r"/|\\|--", name.strip("/"))[-1].lower().partition("@")[0]
    return name.removesuffix("-hf").replace("llava-v1", "llava-1")
