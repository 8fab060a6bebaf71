"""A comparison of two runs as one HTML page: the test, and the answers that flip, with their images."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from llava.data.collection.journal import write_whole
from llava.eval.report.run_comparison import Comparison, choose_flips, describe
from llava.eval.report.score_page import PAGE_STYLE, ReportOptions, make_example
from llava.eval.report.shown_examples import ExampleMaker, find_tiling
from llava.eval.score_file import AnswerRecord
from llava.html_page import write_page
from llava.text import fit_line, make_visible

PAGE = "compare.html"


def write_comparison(comparison: Comparison, folder: Path, options: ReportOptions) -> Path:
    """Writes ``compare.html`` to the folder; returns its path."""
    names = [fit_line(run.model, 60) for run in (comparison.first, comparison.second)]
    page = write_page(
        f"{comparison.first.task}: {names[0]} and {names[1]}", _make_sections(comparison, options), PAGE_STYLE + _STYLE
    )
    target = folder / PAGE
    write_whole(target.resolve(), page.encode())
    return target


def _make_sections(comparison: Comparison, options: ReportOptions) -> Iterator[str]:
    yield f"<pre class=summary-text>{html.escape(make_visible(describe(comparison, 0)))}</pre>"
    tiling, _ = find_tiling(comparison.first, options.model)
    maker = ExampleMaker(comparison.first, tiling, options.data)
    for title, flips in (("B is better", comparison.gained), ("A is better", comparison.lost)):
        yield from _make_flips(title, flips, maker, options.num_examples)


def _make_flips(
    title: str, flips: Sequence[tuple[AnswerRecord, AnswerRecord]], maker: ExampleMaker, count: int
) -> Iterator[str]:
    shown = choose_flips(flips, count)
    if not shown:
        return
    yield f"<h2>{title}: {len(flips):,}</h2><p class=hint>{len(shown)} of them.</p>"
    for first, second in shown:
        yield make_example(maker.make(first), second)


_STYLE = """.summary-text { background: #f3f5f8; border-radius: 10px; padding: .9rem 1.2rem; overflow-x: auto;
  font-size: .9rem; }
"""
