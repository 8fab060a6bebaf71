"""The second edition of the drawn suite (talking_edition_b): its questions can be answered from its pages."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from benchmarks import talking_edition_b
from benchmarks.talking_edition_b import Pad, Page, read_pages
from llava.eval.photo_suite import score_answers
from llava.eval.photo_truths import read_folder

GROUPS = read_pages()
PAGES = [page for group, pages in GROUPS.items() if group not in ("signs", "words") for page in pages]
ASKED = [(page, row) for page in PAGES for row in page.asked]


def words_of(line: str) -> set[str]:
    return {word.strip(".:") for word in re.findall(r"[\w@.:-]+", line.lower())}


def test_every_group_has_enough_questions_and_some_cannot_be_answered() -> None:
    assert (len(GROUPS["signs"]), len(GROUPS["words"])) == (30, 40)
    counts = {group: Counter(row["form"] == "cannot tell" for page in pages for row in page.asked)
              for group, pages in GROUPS.items() if group not in ("signs", "words")}  # fmt: skip
    assert len(counts) == 7
    assert min(count[False] for count in counts.values()) >= 20
    assert sum(count[True] for count in counts.values()) >= 25


def test_no_content_is_of_the_first_edition() -> None:
    first = "".join(path.read_text("utf-8") for path in Path("benchmarks").glob("talking_[dpc]*.py"))
    titles = [page.title.split(" | ")[0] for page in PAGES] + [page.lines[0] for page in GROUPS["signs"]]
    assert [title for title in titles if title and f'"{title}"' in first] == []


def test_every_answer_that_is_read_stands_on_its_page() -> None:
    missing = []
    for page, row in ASKED:
        shown = words_of("\n".join(page.lines))
        if row["form"] == "text" and not any(words_of(answer) <= shown for answer in row["answers"]):
            missing.append(row["question"])
        if row["form"] == "number" and not row["question"].startswith("How many"):
            values = {
                float(value.replace(",", ".")) for value in re.findall(r"\d+(?:[.,]\d{1,2}\b)?", "\n".join(page.lines))
            }
            values |= {float(value.replace(",", "")) for value in re.findall(r"\d+,\d{3}", "\n".join(page.lines))}
            if float(row["answers"][0]) not in values:
                missing.append(row["question"])
    assert missing == []


def test_the_articles_of_a_receipt_add_up() -> None:
    checked = 0
    for page in GROUPS["receipts"]:
        blocks = "\n".join(page.lines).split("---\n")
        articles, sums = (re.findall(r"\| [$£¥]?([\d.]+)(?= EUR$|$)", block, re.MULTILINE) for block in blocks[1:])
        if ":" not in blocks[1]:  # else hours, not prices
            assert sum(map(float, articles)) == pytest.approx(float(sums[0])), page.title
            checked += 1
    assert checked >= 7


def test_the_judge_takes_every_accepted_answer_and_no_rival(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    told = [(row, answer, right) for _, row in ASKED for right, key in ((1, "answers"), (0, "others"))
            for answer in row.get(key, ())]  # fmt: skip
    rows = [{"file": "a.png", **{key: value for key, value in row.items() if value}} for row, _, _ in told]
    (tmp_path / "truth.json").write_text(json.dumps(rows), encoding="utf-8")
    scores = score_answers(read_folder(tmp_path), [answer for _, answer, _ in told], "m", tmp_path)
    wrong = [
        (row["question"], answer)
        for (row, answer, right), got in zip(told, scores.answers, strict=True)
        if got.score != right
    ]
    assert wrong == []


def test_a_page_of_every_layout_is_drawn_alike_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talking_edition_b, "FACES", dict.fromkeys(talking_edition_b.FACES, ("DejaVuSans.ttf",)))
    fonts = Path(matplotlib.get_data_path()) / "fonts"
    draw = {**talking_edition_b._DRAW, "signs": talking_edition_b.draw_sign}
    pages: dict[tuple[str, str], Page] = {
        (group, page.layout): page for group, pages in GROUPS.items() if group in draw for page in pages
    }
    assert len(pages) > 20
    for (group, layout), page in pages.items():
        again = 1 + (group != "charts of other looks")  # matplotlib is slow
        images = [draw[group](Pad(lambda _: fonts, layout, "abc"), page)[0] for _ in range(again)]
        assert len({image.tobytes() for image in images}) == 1, (group, layout)
        assert all(300 <= side <= 1600 for side in images[0].size), (group, layout, images[0].size)


def test_a_face_without_the_letters_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talking_edition_b, "FACES", {"fonts": ("DejaVuSans.ttf",)})
    kit = Pad(lambda _: Path(matplotlib.get_data_path()) / "fonts", "seed", "A漢")
    with pytest.raises(LookupError, match="漢"):
        kit.pick(["fonts"], 20)
