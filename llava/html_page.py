"""The look of the pages that this package writes: reports of training and of evaluation.

A page needs no network, no script and no other file: its style and its images are inside.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

# Source: Okabe and Ito, Color Universal Design (2008), without black and vermilion.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#b3a100", "#7a5195", "#8c6d31")
"""Colors of lines and bars, in their order."""


def write_page(title: str, sections: Iterable[str], style: str = "") -> str:
    """The page of these sections, which are HTML; the title is escaped. ``style``: CSS beside that of all pages."""
    name = html.escape(title)
    head = '<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">'
    body = "\n".join(sections)
    return (
        f"{head}\n<title>{name}</title>\n<style>\n{_STYLE}{style}</style></head><body><h1>{name}</h1>\n{body}\n"
        "</body></html>\n"
    )


def encode_image(image: Any, longest_px: int = 320) -> str:
    """A PIL image as a data URL of a JPEG, shrunk to at most ``longest_px`` on each side."""
    small = image.copy()
    small.thumbnail((longest_px, longest_px))
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=85)
    return write_data_url(file.getvalue(), "jpeg")


def write_data_url(data: bytes, kind: str) -> str:
    """An image file's bytes as a data URL; ``kind`` is png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def make_table(titles: Sequence[str], rows: Iterable[Sequence[str]], num_texts: int = 2) -> str:
    """A table whose columns after the first ``num_texts`` are numbers, aligned on the right."""

    def make_cells(tag: str, row: Sequence[str]) -> str:
        kinds = [" class=number" if i >= num_texts else "" for i in range(len(row))]
        return "".join(f"<{tag}{kind}>{html.escape(str(cell))}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    body = "".join(f"<tr>{make_cells('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{make_cells('th', titles)}</tr></thead>"
    return f"<div class=scroll><table>{head}<tbody>{body}</tbody></table></div>"


_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328;
  max-width: 1080px; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: 1.2rem; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
.hint, .no-image, .summary span, dt, summary { color: #59636e; font-size: .87rem; } .hint { margin-top: -.4rem; }
.summary { display: flex; flex-wrap: wrap; gap: .8rem; }
.summary div { background: #f3f5f8; border-radius: 10px; padding: .7rem 1.1rem; }
.summary b { display: block; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.notes, .fault { border-radius: 8px; padding: .7rem 1.1rem; } .notes li { margin-left: 1rem; }
.notes { background: #fff8e6; color: #6b4e00; }
.fault { background: #ffebe9; color: #82071e; white-space: pre-wrap; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 1.2rem; }
figure { margin: 0; } svg { width: 100%; } svg text { font: 12px system-ui, sans-serif; fill: #59636e; }
.grid { stroke: #e4e8ec; } .legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem;
  padding-left: 9.5%; } .legend i { display: inline-block; width: .8rem; height: .25rem; border-radius: 2px;
  margin-right: .4rem; vertical-align: middle; }
figcaption { font-weight: 600; font-size: .92rem; }
.answer { display: grid; grid-template-columns: 200px 1fr; gap: 1.4rem; align-items: start;
  border-top: 1px solid #d9dfe5; padding: 1rem 0; }
.answer img { max-width: 200px; max-height: 200px; border-radius: 6px; }
dl { display: grid; grid-template-columns: 6.5rem 1fr; gap: .3rem .8rem; margin: 0; align-items: baseline; }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; } dd.after { font-weight: 600; }
.settings { grid-template-columns: repeat(auto-fill, minmax(10rem, max-content) minmax(16rem, 1fr)); }
summary { cursor: pointer; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; } th { text-align: left; font-weight: 600; font-size: .87rem; color: #59636e; }
th, td { padding: .3rem 1.4rem .3rem 0; border-bottom: 1px solid #e4e8ec; vertical-align: top; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.number { text-align: right; white-space: nowrap; }
@media (max-width: 620px) { .answer { grid-template-columns: 1fr; }
  .settings { grid-template-columns: 7rem minmax(0, 1fr); } }
@media print { .answer, figure { break-inside: avoid; } }
"""
