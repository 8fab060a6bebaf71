"""The page of ``llava eval photos``: every image with its answers, what is right, and how they were judged."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from llava.data.collection.journal import write_whole
from llava.errors import LlavaError
from llava.eval.answer_health import describe_health
from llava.eval.askers import AS_EVALUATED
from llava.eval.photo_suite import PhotoAnswer, PhotoScores
from llava.eval.report.score_page import PAGE_STYLE
from llava.html_page import encode_image, make_table, write_page
from llava.image.source import load_image
from llava.text import fit_line, make_visible

_IMAGE_PX = 320


def write_photos_page(path: Path, runs: Sequence[PhotoScores], images: Path) -> None:
    """Writes the page of one run, or of several on the same images beside each other; ``images``: their folder.

    Raises LlavaError if it cannot be written.
    """
    names = [fit_line(run.model, 60) for run in runs]
    page = write_page(
        f"{Path(runs[0].folder).name}: {', '.join(names)}", _make_sections(runs, names, images), PAGE_STYLE
    )
    write_whole(path.resolve(), page.encode())


def _make_sections(runs: Sequence[PhotoScores], names: Sequence[str], images: Path) -> Iterator[str]:
    titles = ("model", "group", "images", "questions", "right", "95 %", "right or its kind", "95 %")
    rows = [
        (
            name,
            make_visible(one.group),
            str(one.images),
            str(one.questions),
            f"{one.share:.1%}",
            f"{one.low:.0%} - {one.high:.0%}",
            f"{one.kind_share:.1%}",
            f"{one.kind_low:.0%} - {one.kind_high:.0%}",
        )
        for run, name in zip(runs, names, strict=True)
        for one in run.groups
    ]
    yield make_table(titles, rows)
    for run, name in zip(runs, names, strict=True):
        yield f"<p class=hint>{html.escape(name)}: {html.escape(describe_health(run.health))}</p>"
    others = [{(a.file, a.question, a.accepted): a for a in run.answers} for run in runs[1:]]
    by_file: dict[str, list[PhotoAnswer]] = {}
    for answer in runs[0].answers:
        by_file.setdefault(answer.file, []).append(answer)
    # Wrong ones first: they are what one looks for.
    for file, answers in sorted(by_file.items(), key=lambda pair: sum(a.kind_score for a in pair[1]) / len(pair[1])):
        beside = [[other.get((a.file, a.question, a.accepted)) for other in others] for a in answers]
        yield _make_image(images / file, answers, beside, names)


def _make_image(
    path: Path, answers: Sequence[PhotoAnswer], beside: Sequence[Sequence[PhotoAnswer | None]], names: Sequence[str]
) -> str:
    try:
        image: Image.Image = load_image(path, AS_EVALUATED).image
        shown = f'<img src="{encode_image(image, _IMAGE_PX)}" alt="">'
    except LlavaError as error:
        shown = f"<div class=no-image>{html.escape(make_visible(str(error)))}</div>"
    rows = [("file", path.name)]
    for answer, others in zip(answers, beside, strict=True):
        accepted = ", ".join(answer.accepted) or "that it cannot be told"
        kinds = f" (kinds: {', '.join(answer.kinds)})" if answer.kinds else ""
        rows += [("question", answer.question), ("right", accepted + kinds)]
        for name, one in zip(names, (answer, *others), strict=True):
            if one is not None:
                rows.append((name if len(names) > 1 else "answer", one.answer))
                rows.append(
                    ("judged", "right" if one.score else f"{'kind only' if one.kind_score else 'wrong'}: {one.why}")
                )
    body = "".join(
        f"<dt>{html.escape(make_visible(name))}</dt><dd>{html.escape(make_visible(text)) or '<i>nothing</i>'}</dd>"
        for name, text in rows
    )
    share = sum(answer.kind_score for answer in answers) / len(answers)
    kind = "good" if share == 1 else "bad" if share == 0 else "half"
    return f"<div class='answer {kind}'><div>{shown}</div><dl>{body}</dl></div>"
