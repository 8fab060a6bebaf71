"""The report of evaluations: one HTML page and its figures as PNG, made from scores files alone.

The page needs no network and no other file. Everything in it that comes from a model, a benchmark or a file is text:
it is escaped, and what a terminal or a browser would interpret is made visible.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.data.collection.journal import write_whole
from llava.errors import UsageError
from llava.eval.benchmark_table import TASKS
from llava.eval.report.chosen_answers import choose_examples
from llava.eval.report.published_scores import Standing, compare_with_published, find_published
from llava.eval.report.run_conditions import list_conditions, list_known_gaps
from llava.eval.report.score_noise import Z_95
from llava.eval.report.score_plots import (
    LEAST_AXES,
    MOST_BARS,
    Series,
    check_matplotlib,
    cut_middle,
    draw_bars,
    draw_radar,
)
from llava.eval.report.shown_examples import Example, ExampleMaker, find_tiling
from llava.eval.score_file import AnswerRecord, ScoredRun, read_scores
from llava.html_page import make_table, write_data_url, write_page
from llava.text import fit_line, make_visible

REPORT = "report.html"

_MOST_REFERENCES = 12  # that are shown of an answer
_VERDICTS = {
    "same": ("equal", "good"),
    "within noise": ("within noise", "good"),
    "above": ("above, more than noise", "other"),
    "below": ("below, more than noise", "bad"),
    "noise unknown": ("noise unknown", ""),
    "other questions": ("another set of questions", ""),
    "": ("no published score", ""),
}
_NOISE_NOTE = (
    "Within noise: the published score is in the 95 % interval of this one, its score ± {z:g} standard errors. The "
    "standard error says how much the score would move with other questions of the same kind; it is binomial where "
    "answers are right or wrong. A run of the same weights on the same questions should come much closer than that."
)


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        against: the published checkpoint that runs are compared with; by default the one of their model's name.
        model: whose tiling the token maps show; by default it is found by the runs' model names.
        data: the folder with the benchmarks' files, for images that their questions' files hold.
        num_examples: the worst and the best answers that are shown of each run.
    """

    against: str | None = None
    model: str | None = None
    data: Path | None = None
    num_examples: int = 6


def write_report(paths: Sequence[Path], folder: Path, options: ReportOptions) -> Path:
    """Writes ``report.html`` and its figures to the folder; returns the page's path.

    Raises UsageError for files that are not scores files, and for two runs of one model on one benchmark.
    """
    runs = [read_scores(path) for path in paths]
    seen: dict[tuple[str, str], Path] = {}
    for path, run in zip(paths, runs, strict=True):
        if (run.task, run.model) in seen:
            raise UsageError(
                f"'{path}' and '{seen[run.task, run.model]}' are both of '{run.model}' on {run.task}: name one of "
                "them, or compare them with llava eval compare."
            )
        seen[run.task, run.model] = path
    if options.against is not None and not any(find_published(options.against, run.published) for run in runs):
        known = list(dict.fromkeys(name for run in runs for name in run.published))
        raise UsageError(
            f"There is no published score of '{options.against}'; there are: {', '.join(known) or 'none at all'}."
        )
    check_matplotlib()
    standings = [compare_with_published(run, options.against) for run in runs]
    page = write_page(_title(runs), _make_sections(standings, folder, options), PAGE_STYLE)
    target = folder / REPORT
    write_whole(target.resolve(), page.encode())
    return target


def _title(runs: Sequence[ScoredRun]) -> str:
    models = list(dict.fromkeys(fit_line(run.model, 60) for run in runs))
    tasks = list(_name_tasks(runs).values())
    return f"{', '.join(models)}: {', '.join(tasks) if len(tasks) <= 3 else f'{len(tasks)} benchmarks'}"


def _name_tasks(runs: Iterable[ScoredRun]) -> dict[str, str]:
    """A title for each benchmark, without what is in parentheses or after a comma; no two are equal."""
    tasks = dict.fromkeys(run.task for run in runs)
    titles = {name: TASKS[name].title if name in TASKS else name for name in tasks}
    short = {name: fit_line(title, 60).partition(" (")[0].partition(",")[0] for name, title in titles.items()}
    counts = Counter(short.values())
    return {name: title if counts[title] == 1 else f"{title} ({fit_line(name, 60)})" for name, title in short.items()}


def _make_sections(standings: Sequence[Standing], folder: Path, options: ReportOptions) -> Iterator[str]:
    yield _make_summary(standings)
    yield "<h2>Beside the published scores</h2>"
    names = _name_tasks(each.run for each in standings)
    yield _make_standings(standings, names)
    yield f"<p class=hint>{_escape(_NOISE_NOTE.format(z=Z_95))}</p>"
    yield from _make_overview(standings, names, folder)
    for task in dict.fromkeys(each.run.task for each in standings):
        yield f"<h2 class=task>{_escape(names[task])}</h2>"
        yield from _make_task([each for each in standings if each.run.task == task], folder, options)


def _make_summary(standings: Sequence[Standing]) -> str:
    tiles = []
    if len(standings) == 1:
        run, score = standings[0].run, standings[0].score
        if score is not None:
            tiles.append((_say(score), run.headline))
        if standings[0].published is not None:
            tiles.append((_say(standings[0].published), f"published for {standings[0].checkpoint}"))
            tiles.append((_sign(standings[0].difference), _VERDICTS[standings[0].verdict][0]))
    else:
        compared = [
            standing for standing in standings if standing.verdict in ("same", "within noise", "above", "below")
        ]
        tiles.append((str(len(standings)), "scores"))
        if compared:
            near = sum(standing.verdict in ("same", "within noise") for standing in compared)
            tiles.append((f"{near} of {len(compared)}", "equal to the published score or within noise"))
    tiles.append((f"{sum(len(standing.run.answers) for standing in standings):,}", "scored answers"))
    cells = "".join(f"<div><b>{_escape(value)}</b><span>{_escape(name)}</span></div>" for value, name in tiles)
    return f"<div class=summary>{cells}</div>"


def _make_standings(standings: Sequence[Standing], names: Mapping[str, str]) -> str:
    rows = []
    for each in standings:
        word, kind = _VERDICTS[each.verdict]
        error = "" if each.noise is None else f"± {_say_error(each.noise.standard_error)}"
        cells = [
            ("name", f"<a href='#{_spell(each.run.task, each.run.model)}'>{_escape(names[each.run.task])}</a>"),
            ("name", _escape(cut_middle(each.run.model, 60))),
            ("number", "" if each.score is None else _say(each.score)),
            ("number", _escape(error)),
            ("number", "" if each.published is None else _escape(each.run.published[each.checkpoint])),
            ("number", _sign(each.difference)),
            ("", f"<span class='verdict {kind}'>{word}</span>"),
            ("number", f"{len(each.run.answers):,}"),
        ]
        rows.append("<tr>" + "".join(f"<td class='{style}'>{cell}</td>" for style, cell in cells) + "</tr>")
    titles = ("benchmark", "model", "score", "standard error", "published", "difference", "", "answers")
    numbers = {"score", "standard error", "published", "difference", "answers"}
    head = "".join(f"<th class='{'number' if name in numbers else ''}'>{name}</th>" for name in titles)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<div class=scroll>{table}</div>"


def _make_overview(standings: Sequence[Standing], names: Mapping[str, str], folder: Path) -> Iterator[str]:
    """The figure over all benchmarks: a radar chart, or bars where there are too few for one."""
    known = [each for each in standings if each.score is not None]
    titles = list(dict.fromkeys(names[each.run.task] for each in known))
    if len(known) < 2:
        return
    own: dict[str, dict[str, float]] = {}
    others: dict[str, tuple[dict[str, float], str]] = {}
    for each in known:
        title = names[each.run.task]
        own.setdefault(each.run.model, {})[title] = each.score or 0.0
        if each.published is not None:
            others.setdefault(each.checkpoint, ({}, each.run.model))[0][title] = each.published
    series = [Series(name, values) for name, values in own.items()]
    series += [Series(name, values, True, partner) for name, (values, partner) in others.items()]
    if len(titles) >= LEAST_AXES:
        draw_radar(titles, series, folder / "radar.png")
        hint = "Each axis has a span of its own, which is written on it; it does not begin at 0."
        if len(own) > 1:
            hint += " Scores beside a benchmark are in the order of the legend."
        yield f"<h2>All benchmarks</h2><p class=hint>{hint}</p>{_embed(folder / 'radar.png', 'Radar chart')}"
    else:
        draw_bars(titles, series, folder / "scores.png", {})
        yield f"<h2>All benchmarks</h2>{_embed(folder / 'scores.png', 'Scores')}"


def _make_task(standings: Sequence[Standing], folder: Path, options: ReportOptions) -> Iterator[str]:
    """A benchmark's section: all of its runs by category, then each run."""
    task, runs = standings[0].run.task, [each.run for each in standings]
    series = [Series(run.model, {name: pair[0] for name, pair in run.categories.items()}) for run in runs]
    if any(one.values for one in series):
        every = list(dict.fromkeys(name for run in runs for name in run.categories))
        names = every[:MOST_BARS]
        counts = {name: count for run in runs for name, (_, count) in run.categories.items()}
        path = folder / f"{_spell(task)}-categories.png"
        draw_bars(names, series, path, counts)
        left_out = f" The first {len(names)} of {len(every):,} categories are drawn." if len(names) < len(every) else ""
        yield f"<h3>By category</h3><p class=hint>The number of answers is in parentheses.{left_out}</p>"
        yield _embed(path, "Bars")
    for standing in standings:
        yield from _make_run(standing, options)


def _make_run(standing: Standing, options: ReportOptions) -> Iterator[str]:
    run = standing.run
    yield f"<h2 class=run id='{_spell(run.task, run.model)}'>{_escape(fit_line(run.model))}</h2>"
    if run.notes:
        yield "<ul class=notes>" + "".join(f"<li>{_escape(note)}</li>" for note in run.notes) + "</ul>"
    yield from _make_numbers(standing)
    yield from _make_gap(standing)
    if options.num_examples and run.answers:
        yield from _make_examples(run, options)


def _make_numbers(standing: Standing) -> Iterator[str]:
    run = standing.run
    rows = [
        (name + (" (the published one)" if name == run.headline else ""), _say(v)) for name, v in run.scores.items()
    ]
    if rows:
        noise = "" if standing.noise is None else f" The standard error is {standing.noise.how}."
        yield "<h3>Scores</h3>" + make_table(("score", "value"), _visible(rows), 1)
        yield f"<p class=hint>Published scores are from {_escape(run.source)}.{_escape(noise)}</p>"
    else:
        yield "<p>It is not scored here: a server or a judge scores it.</p>"
    if run.readings:
        base = standing.score or 0.0
        rows_of = [(name, _say(value), _sign(value - base)) for name, value in run.readings.items()]
        yield "<h3>The same answers by other published scorers</h3>"
        yield make_table(("scorer", run.headline, "difference"), _visible(rows_of), 1)


def _make_gap(standing: Standing) -> Iterator[str]:
    conditions = list_conditions(standing.run, standing.checkpoint)
    rows = "".join(
        f"<tr{' class=differs' if each.differs else ''}><td>{_escape(each.name)}</td><td>{_escape(each.ours)}</td>"
        f"<td>{_escape(each.published)}</td></tr>"
        for each in conditions
    )
    titles = "<tr><th>setting</th><th>this run</th><th>published run</th></tr>"
    num = sum(each.differs for each in conditions)
    said = {0: "No setting that is known of the published run differs.", 1: "1 setting differs."}
    hint = said.get(num, f"{num} settings differ.")
    yield f"<h3>What could explain a gap</h3><p class=hint>{hint}</p>"
    yield f"<div class='scroll wrapped'><table><thead>{titles}</thead><tbody>{rows}</tbody></table></div>"
    if gaps := list_known_gaps(standing.run):
        yield "<ul class=known>" + "".join(f"<li>{_escape(gap)}</li>" for gap in gaps) + "</ul>"


def _make_examples(run: ScoredRun, options: ReportOptions) -> Iterator[str]:
    tiling, told = find_tiling(run, options.model)
    maker = ExampleMaker(run, tiling, options.data)
    worst, best = choose_examples(run, options.num_examples)
    has_images = any(answer.images for answer in [*worst, *best])
    for title, answers in (("Worst answers", worst), ("Best answers", best)):
        if answers:
            yield f"<h3>{title}</h3>" + "\n".join(make_example(maker.make(answer)) for answer in answers)
    if has_images:
        yield f"<p class=hint>Token maps: {_escape(told)}.</p>" if tiling else f"<p class=hint>{_escape(told)}</p>"


def make_example(example: Example, other: AnswerRecord | None = None) -> str:
    """An answer with its images as HTML; with ``other``, the answers of two runs, A and B, to the same question."""
    answer = example.answer
    shown = "".join(f'<img src="{image}" alt="">' for image in example.images)
    shown += "".join(f"<div class=no-image>{_escape(fault)}</div>" for fault in example.missing)
    known = list(dict.fromkeys(answer.references))
    references = ", ".join(
        repr(each) if each != each.strip() or not each else each for each in known[:_MOST_REFERENCES]
    )
    rows = [
        ("id", str(answer.id)),
        ("question", answer.prompt),
        ("right", references + (", ..." if len(known) > _MOST_REFERENCES else "")),
    ]
    if other is None:
        rows += _list_answer("answer", answer)
    else:
        rows += [*_list_answer("A's answer", answer), *_list_answer("B's answer", other)]
    if answer.categories:
        rows.append(("categories", ", ".join(answer.categories)))
    body = "".join(f"<dt>{_escape(name)}</dt><dd>{_escape(text) or '<i>nothing</i>'}</dd>" for name, text in rows)
    for caption, image in example.maps:
        drawn = f'<summary>token map: {_escape(caption)}</summary><img src="{image}" alt="">'
        body += f"<dt></dt><dd class=map><details>{drawn}</details></dd>"
    kind = "good" if answer.score >= 1 else "bad" if answer.score <= 0 else "half"
    shown = shown or "<div class=no-image>text only</div>"
    return f"<div class='answer {kind}'><div>{shown}</div><dl>{body}</dl></div>"


def _list_answer(title: str, answer: AnswerRecord) -> list[tuple[str, str]]:
    rows = [
        (title, answer.text),
        ("read as", "nothing could be read from it" if answer.reading is None else answer.reading),
        ("score", f"{answer.score:.3g}"),
    ]
    return [*rows, ("note", answer.note)] if answer.note else rows


def _embed(path: Path, what: str) -> str:
    return f'<figure class=plot><img src="{write_data_url(path.read_bytes(), "png")}" alt="{what}"></figure>'


def _spell(*names: str) -> str:
    """The names as one that an anchor or a file may have; what it cannot spell is told apart by a digest."""
    name = "-".join(names)
    plain = re.sub(r"[^A-Za-z0-9._]", "-", name)[:80]
    return plain if plain == name else f"{plain}-{hashlib.sha256(repr(names).encode()).hexdigest()[:6]}"


def _visible(rows: Iterable[Sequence[str]]) -> Iterator[list[str]]:
    for row in rows:
        yield [make_visible(cell) for cell in row]


def _escape(text: str) -> str:
    return html.escape(make_visible(text))


def _say(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.2f}"


def _say_error(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _sign(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


PAGE_STYLE = """h2.task { border-top: 2px solid #1f2328; padding-top: 1.4rem; margin-top: 3.4rem; font-size: 1.4rem; }
h2.run { font-size: 1.2rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.8rem 0 .6rem; }
.plot img { width: 100%; max-width: 760px; display: block; margin: 0 auto; }
.verdict { border-radius: 999px; padding: .1rem .6rem; background: #f3f5f8; font-size: .85rem; }
.verdict.good { background: #dafbe1; color: #116329; } .verdict.bad { background: #ffebe9; color: #82071e; }
.verdict.other { background: #ddf4ff; color: #0a3069; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
.scroll + .hint { margin-top: .6rem; }
.wrapped td:first-child { white-space: nowrap; }
.wrapped td { white-space: normal; overflow-wrap: anywhere; } tr.differs td { background: #fff8e6; color: #6b4e00; }
.known { color: #59636e; font-size: .92rem; padding-left: 1.2rem; }
.answer img { display: block; margin-bottom: .4rem; } .answer .map img { max-width: 100%; max-height: none; }
.answer dd { min-height: 1.4em; } .answer dd.map { white-space: normal; }
.answer.bad { border-left: 3px solid #d1242f; } .answer.good { border-left: 3px solid #1a7f37; }
.answer.half { border-left: 3px solid #e69f00; }
.answer.bad, .answer.good, .answer.half { padding-left: .9rem; }
a { color: #0969da; text-decoration: none; }
"""
