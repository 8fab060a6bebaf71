"""How a run was made beside how the published one was: what could explain a gap between their scores. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llava.conversation import conv_templates
from llava.eval.benchmark_table import TASKS
from llava.eval.score_file import ScoredRun
from llava.eval.scoring.judge_drift import KNOWN

# Source: haotian-liu/LLaVA@c121f04 pyproject.toml, scripts/v1_5/eval, llava/eval/run_llava.py.
_PUBLISHED = {
    "temperature": "0",
    "num_beams": "1",
    "dtype": "float16",
    "quant": "none",
    "is_partial": "False",
    "torch": "2.1.2",
    "transformers": "4.37.2",
}
_TEMPLATES = {"mistral": "mistral_instruct", "34b": "chatml_direct"}  # of 1.6; all others have vicuna_v1
_JUDGED = {"llavabench": "llava-bench", "mmvet": "mm-vet"}  # the names that their judges' drift is known by
_NOTHING = ("", "none", "()")

# What is known to change a benchmark's score. Each sentence names its source.
KNOWN_GAPS: Mapping[str, tuple[str, ...]] = {
    "textvqa": (
        "Without the OCR tokens in the prompt, as lmms-eval asks, LLaVA-1.5-13B has 48.7 in place of 61.3 (lmms-eval "
        "issue 6).",
    ),
    "scienceqa": (
        "The published number is the accuracy on questions with an image. LLaVA-1.5-13B has 71.6 there and 74.4 over "
        "all questions (computed from the authors' answers).",
    ),
    "pope": (
        "The published number is the mean of three F1, not an accuracy. Label files later than AoiDragon/POPE@e3e3926 "
        "have other lines: joined by line, they give LLaVA-1.5-13B an F1 of 45.7 on the random split, not 87.1.",
    ),
    "mme": (
        "The published number of LLaVA-1.5 is perception alone; other papers print the sum with cognition (LLaVA issue "
        "923).",
    ),
    "mmbench": (
        "The published number is circular. LLaVA-1.5-13B has 67.7 then and 76.4 by row (computed from the authors' "
        "answers).",
    ),
    "mmbench_cn": (
        "VLMEvalKit has 22.4 without a judge and 44.1 with one for LLaVA-1.5-7B, whose published score is 58.3 "
        "(VLMEvalKit issue 1529).",
    ),
    "seed": (
        "LLaVA-1.5's number is over images and videos, LLaVA-NeXT's over images alone: LLaVA-1.5-13B has 61.6 and "
        "68.2.",
    ),
    "mmmu": (
        "lmms-eval@75571cf compares the answers to open questions letter by letter, so that none is right (lmms-eval "
        "issue 1436). MMMU's own parser throws dice where it finds no letter.",
    ),
    "llavabench": ("Three reviews of LLaVA-1.5-13B's answers by one judge gave 72.8, 72.7 and 72.1.",),
}


@dataclass(frozen=True)
class Condition:
    """One setting of a run. ``published``: what it was in the published run; "" if that is not known."""

    name: str
    ours: str
    published: str
    differs: bool


def list_conditions(run: ScoredRun, checkpoint: str = "") -> list[Condition]:
    """The run's settings beside those of the published run; ``checkpoint`` is the published row it is compared with."""
    ours = dict(_flatten(run.settings))
    expected = _expect(run, checkpoint)
    rows = [Condition("questions", f"{len(run.answers):,}", expected.pop("count", ""), False)]
    for name, value in ours.items():
        key = name.rpartition(".")[2]
        other = expected.get(key, "")
        if key in ("count", "of") or (value in _NOTHING and not other):  # said above; not set
            continue
        rows.append(Condition(name, value, other, bool(other) and not _is_same(key, value, other)))
    first = rows[0]
    rows[0] = Condition(
        first.name, first.ours, first.published, bool(first.published) and first.ours != first.published
    )
    return rows


def list_differences(first: ScoredRun, second: ScoredRun) -> list[tuple[str, str, str]]:
    """The settings in which two runs differ, with their values; "none" where one of them has no such setting."""
    ours, theirs = dict(_flatten(first.settings)), dict(_flatten(second.settings))
    names = list(dict.fromkeys([*ours, *theirs]))
    pairs = [(name, ours.get(name, "none"), theirs.get(name, "none")) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def list_known_gaps(run: ScoredRun) -> tuple[str, ...]:
    """Sentences about what is known to change this benchmark's score."""
    task = _JUDGED.get(run.task)
    drifts = [
        f"{drift.answers} got {drift.seen} instead of {drift.published}, {drift.why} ({drift.source})."
        for drift in KNOWN
        if drift.task == task
    ]
    return (*KNOWN_GAPS.get(run.task, ()), *drifts)


def _expect(run: ScoredRun, checkpoint: str) -> dict[str, str]:
    expected = dict(_PUBLISHED)
    if (task := TASKS.get(run.task)) is not None:
        expected |= {"split": task.split, "count": f"{task.count:,}", "max_new_tokens": str(task.max_new_tokens)}
        expected["image"] = task.image
    if checkpoint:
        known = (name for word, name in _TEMPLATES.items() if word in checkpoint)
        expected["template"] = next(known, "vicuna_v1")
        expected["image_aspect_ratio"] = "anyres" if "1.6" in checkpoint else "pad"
    return expected


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The settings as names and texts; those inside another have its name in front."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)


def _is_same(key: str, ours: str, published: str) -> bool:
    if ours in _NOTHING and published in _NOTHING:
        return True
    if key == "template":
        known = [conv_templates.get(name) for name in (ours, published)]
        return None not in known and _spell(known[0]) == _spell(known[1])
    if key in ("temperature", "num_beams", "max_new_tokens"):
        try:
            return float(ours) == float(published)
        except ValueError:
            return False
    if key == "dtype":
        ours = ours.removeprefix("torch.")
    if key in ("torch", "transformers"):
        ours = ours.partition("+")[0]
    return ours == published


def _spell(template: Any) -> str:
    """What a template makes of a chat."""
    chat = template.copy()
    chat.append_message(chat.roles[0], "Q")
    chat.append_message(chat.roles[1], None)
    return str(chat.get_prompt())
