"""A stage's report: one HTML page with curves, parts and rates, sample lengths, and answers before and after training.

The page needs no network and no other file: plots and images are inside. It is made from what the stage's folder
holds, ``history.json`` (the Trainer's log) and ``facts.json``, so that it can be made again at any time.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.train.plot import list_sources, plot_curve, plot_lengths, plot_losses

HISTORY, FACTS, REPORT = "history.json", "facts.json", "report.html"


@dataclass
class SampleAnswer:
    """A fixed sample's question, the answer in the data, and the model's answers before and after training.

    ``image``: the image as a data URL, or "" for a sample without one.
    """

    question: str
    reference: str
    before: str = ""
    after: str = ""
    image: str = ""


@dataclass
class StageFacts:
    """What the report shows beside the history: each list of pairs is a row of a table.

    Attributes:
        settings: names and values.
        parts: part, trained parameters, learning rate, weight decay.
        lengths: positions of each sample, images included, or of a random share of them.
        notes: sentences about the run, such as samples that were left out.
    """

    title: str
    settings: list[tuple[str, str]] = field(default_factory=list)
    parts: list[tuple[str, str, str, str]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    answers: list[SampleAnswer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Writes the facts to the stage's folder."""
        text = json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1)
        (folder / FACTS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> StageFacts:
        """The facts in the stage's folder."""
        values = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        answers = [SampleAnswer(**each) for each in values.pop("answers")]
        return cls(**values, answers=answers)


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` from the history and facts in the stage's folder; returns its path."""
    facts = StageFacts.load(folder)
    history: list[dict[str, Any]] = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    page = _PAGE.format(title=html.escape(facts.title), body="\n".join(_make_sections(facts, history)))
    path = folder / REPORT
    path.write_text(page, encoding="utf-8")
    return path


def encode_image(image: Any, longest_px: int = 320) -> str:
    """A PIL image as a data URL for ``SampleAnswer``, shrunk to at most ``longest_px`` on each side."""
    small = image.copy()
    small.thumbnail((longest_px, longest_px))
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=85)
    return _write_data_url(file.getvalue(), "jpeg")


def _make_sections(facts: StageFacts, history: Sequence[dict[str, Any]]) -> Iterable[str]:
    yield _make_summary(history)
    if facts.notes:
        yield "<ul class=notes>" + "".join(f"<li>{html.escape(note)}</li>" for note in facts.notes) + "</ul>"
    yield "<h2>Curves</h2><div class=plots>"
    if any("loss" in row for row in history):
        by_source = " by source" if list_sources(history) else ""
        yield _make_figure(plot_losses(history), f"Loss{by_source}")
    for key, caption in (("learning_rate", "Learning rate"), ("grad_norm", "Gradient norm before clipping")):
        if any(key in row for row in history):
            yield _make_figure(plot_curve(history, key, caption), caption)
    if facts.lengths:
        yield _make_figure(plot_lengths(facts.lengths), "Positions per sample, images included")
    yield "</div>"
    if facts.answers:
        yield "<h2>Answers before and after</h2>" + "\n".join(map(_make_answer, facts.answers))
    yield "<h2>What was trained</h2>"
    yield _make_table(("part", "trained parameters", "learning rate", "weight decay"), facts.parts)
    yield "<h2>Settings</h2>"
    yield _make_table(("setting", "value"), facts.settings)


def _make_summary(history: Sequence[dict[str, Any]]) -> str:
    """The first and last loss, the steps and the speed as large figures."""
    losses = [row for row in history if "loss" in row]
    tiles = []
    if losses:
        tiles = [
            (f"{losses[0]['loss']:.3f} → {losses[-1]['loss']:.3f}", "loss, first and last"),
            (f"{losses[-1].get('step', len(losses)):,}", "steps"),
        ]
    evaluated = [row["eval_loss"] for row in history if "eval_loss" in row]
    if evaluated:
        tiles.append((f"{evaluated[-1]:.3f}", "loss on held-out samples"))
    last = history[-1] if history else {}
    if "train_runtime" in last:
        tiles.append((_say_duration(last["train_runtime"]), "training time"))
    if "train_samples_per_second" in last:
        tiles.append((f"{last['train_samples_per_second']:.3g}", "samples per second"))
    cells = "".join(f"<div><b>{html.escape(value)}</b><span>{name}</span></div>" for value, name in tiles)
    return f"<div class=summary>{cells}</div>"


def _say_duration(seconds: float) -> str:
    minutes, hours = int(seconds / 60) % 60, int(seconds / 3600)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {int(seconds) % 60} s"


def _make_answer(answer: SampleAnswer) -> str:
    image = f'<img src="{answer.image}" alt="">' if answer.image else "<div class=no-image>text only</div>"
    rows = [("question", answer.question), ("in the data", answer.reference)]
    rows += [("before", answer.before), ("after", answer.after)]
    said = "".join(f"<dt>{name}</dt><dd>{html.escape(text) or '<i>nothing</i>'}</dd>" for name, text in rows)
    return f"<div class=answer>{image}<dl>{said}</dl></div>"


def _make_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _make_figure(figure: Any, caption: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return f'<figure><img src="{_write_data_url(file.getvalue(), "png")}" alt="{caption}"></figure>'


def _write_data_url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


_PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2.2rem; }}
.summary {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
.summary div {{ background: #f6f8fa; border-radius: 8px; padding: .7rem 1.1rem; }}
.summary b {{ display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }}
.summary span {{ color: #59636e; font-size: .85rem; }}
.notes {{ color: #9a6700; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 1rem; }}
figure {{ margin: 0; }} figure img {{ width: 100%; }}
.answer {{ display: grid; grid-template-columns: 180px 1fr; gap: 1rem; margin: 1rem 0; align-items: start; }}
.answer img {{ max-width: 180px; border-radius: 6px; }} .no-image {{ color: #59636e; font-size: .85rem; }}
dl {{ display: grid; grid-template-columns: 6.5rem 1fr; gap: .25rem .8rem; margin: 0; }}
dt {{ color: #59636e; }} dd {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; }} th {{ text-align: left; font-weight: 600; }}
th, td {{ padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid #d1d9e0; vertical-align: top; }}
td {{ overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }}
@media (max-width: 560px) {{ .answer {{ grid-template-columns: 1fr; }} }}
</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""
