"""Shows an overlap: a table by source, the pairs as JSON lines, and a contact sheet."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from rich.table import Table

from llava.data.fingerprints import ImageSource, draw_pixels
from llava.data.image_comparison import Box
from llava.data.near_images import WHOLE
from llava.data.overlap import Corpus, ImagePair, Overlap
from llava.errors import BadImage, LlavaError

_SHEET_PX = 280
_MOST_SHOWN = 200
_KINDS = {"file": "the same file", "pixels": "the same pixels", "near": "near duplicates"}
_STYLE = """body{font:15px system-ui,sans-serif;margin:2em auto;max-width:1300px;padding:0 1em;color:#1b1b1b}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(590px,1fr));gap:1em}
figure{margin:0;padding:.8em;border:1px solid #ccc;border-radius:8px}div{display:flex;gap:.6em;align-items:flex-start}
img{max-width:280px;max-height:280px}figcaption{margin-top:.5em;overflow-wrap:anywhere}small{color:#555}
@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}figure{border-color:#444}small{color:#aaa}}"""


def make_table(overlap: Overlap) -> Table:
    """Rates by source: first those of the training data, then those of the benchmark."""
    table = Table("", "source", box=None, header_style="bold", pad_edge=False)
    for heading in ("images", "shared", "share", "unreadable", "questions", "shared", "on shared images"):
        table.add_column(heading, justify="right")
    on_shared = overlap.questions_on_shared_images()
    sides = (("train", overlap.train), ("eval", overlap.eval))
    for side, corpus in sides:
        shared = {getattr(pair, side) for pair in overlap.pairs}
        for i, source in enumerate(corpus.all_sources()):
            table.add_row(side if i == 0 else "", source, *_describe(corpus, source, shared, overlap, on_shared))
    return table


def _describe(corpus: Corpus, source: str, shared: set[str], overlap: Overlap, on_shared: set[str]) -> list[str]:
    images = corpus.images_of(source)
    num_broken = sum(source in corpus.sources[name] for name in corpus.broken)
    asked = {question for question, by_source in corpus.questions.items() if source in by_source}
    num_shared = len(images & shared)
    rate = f"{num_shared / len(images):.2%}" if images else ""
    numbers = [len(asked), len(asked.intersection(overlap.questions)), len(asked & on_shared)]
    return [f"{len(images):,}", f"{num_shared:,}", rate, f"{num_broken:,}", *(f"{num:,}" for num in numbers)]


def write_files(overlap: Overlap, folder: Path) -> list[Path]:
    """Writes pairs.jsonl, questions.jsonl, unreadable.jsonl and pairs.html, each complete or not at all.

    Raises LlavaError where they cannot be written.
    """
    written = []
    rows = {
        "pairs.jsonl": list(_list_pairs(overlap)),
        "questions.jsonl": list(_list_questions(overlap)),
        "unreadable.jsonl": [
            {"side": side, "image": name, "reason": message}
            for side, corpus in (("train", overlap.train), ("eval", overlap.eval))
            for name, message in sorted(corpus.broken.items())
        ],
    }
    texts = {name: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part) for name, part in rows.items()}
    texts["pairs.html"] = draw_contact_sheet(overlap)
    for name, text in texts.items():
        path, partial = folder / name, folder / f"{name}.partial"
        try:
            partial.write_bytes(text.encode("utf-8", "backslashreplace"))
            os.replace(partial, path)
        except OSError as error:
            raise LlavaError(f"'{path}' cannot be written: {error.strerror or error}.") from error
        written.append(path)
    return written


def _list_pairs(overlap: Overlap) -> Iterator[dict[str, Any]]:
    for found in overlap.pairs:
        pair = found.pair
        row = {
            "train": found.train,
            "eval": found.eval,
            "kind": pair.kind,
            "similarity": pair.similarity,
            "train_sources": sorted(overlap.train.sources[found.train]),
            "eval_sources": sorted(overlap.eval.sources[found.eval]),
        }
        boxes = {"train_box": pair.first_box, "eval_box": pair.second_box}
        yield row | {name: [round(side, 4) for side in box] for name, box in boxes.items() if _is_part(box)}


def _is_part(box: Box) -> bool:
    return any(abs(one - two) > 0.01 for one, two in zip(box, WHOLE, strict=True))


def _list_questions(overlap: Overlap) -> Iterator[dict[str, Any]]:
    on_shared = overlap.questions_on_shared_images()
    for question in overlap.questions:
        sources = {
            f"{side}_sources": sorted(corpus.questions[question])
            for side, corpus in (("train", overlap.train), ("eval", overlap.eval))
        }
        yield {"question": question, "on_a_shared_image": question in on_shared, **sources}


def draw_contact_sheet(overlap: Overlap) -> str:
    """A web page without external parts that shows up to 200 pairs, near duplicates first, the least similar first."""
    shown = choose_shown(overlap.pairs)
    figures = "\n".join(_draw_figure(overlap, pair) for pair in shown)
    rest = f", of which {len(shown)} are shown" if len(shown) < len(overlap.pairs) else ""
    note = f"{len(overlap.pairs):,} pairs{rest}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Shared images</title><style>{_STYLE}</style>'
        f"<h1>Images in the training data and in the benchmark</h1><p>{note}; training data on the left. The part that "
        f"both show is framed where one is cropped.</p>\n<main>\n{figures}\n</main></html>\n"
    )


def choose_shown(pairs: Sequence[ImagePair]) -> list[ImagePair]:
    """The pairs most worth a look: those that are least sure."""
    return sorted(pairs, key=lambda pair: (pair.pair.kind != "near", pair.pair.similarity))[:_MOST_SHOWN]


def _draw_figure(overlap: Overlap, found: ImagePair) -> str:
    images = [overlap.train.images[found.train][1], overlap.eval.images[found.eval][1]]
    boxes = found.pair.first_box, found.pair.second_box
    drawn = "".join(_draw(image, box) for image, box in zip(images, boxes, strict=True))
    names = (html.escape(name.encode("utf-8", "backslashreplace").decode()) for name in (found.train, found.eval))
    sources = "; ".join(
        ", ".join(sorted(corpus.sources[name]))
        for corpus, name in ((overlap.train, found.train), (overlap.eval, found.eval))
    )
    return (
        f"<figure><div>{drawn}</div><figcaption>{' = '.join(names)}<br><small>{_KINDS[found.pair.kind]}, "
        f"similarity {found.pair.similarity:.3f}; {html.escape(sources)}</small></figcaption></figure>"
    )


def _draw(source: ImageSource, box: Box) -> str:
    try:
        image = Image.fromarray(draw_pixels(source))
    except BadImage as error:
        return f"<span>{html.escape(str(error))}</span>"
    image.thumbnail((_SHEET_PX, _SHEET_PX))
    if _is_part(box):
        left, top, right, bottom = box
        frame = left * image.width, top * image.height, right * image.width - 1, bottom * image.height - 1
        ImageDraw.Draw(image).rectangle(frame, outline=(230, 30, 60), width=2)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'
