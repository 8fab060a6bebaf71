"""The later editions of the drawn suite (talking_edition_b to _i): their pages answer what is asked of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from importlib import import_module
from itertools import combinations
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from benchmarks import talking_edition_g
from benchmarks.talking_drawings import WORDS
from benchmarks.talking_editions import Edition, Pad, Page, read_pages
from benchmarks.talking_suites import SUITES, edition_of, read_truths
from llava.eval.photo_suite import score_answers
from llava.eval.photo_truths import read_folder

EDITIONS: tuple[Edition, ...] = tuple(
    import_module(f"benchmarks.talking_edition_{letter}").EDITION for letter in "bcdefghi"
)
# Signs, words, answerable questions of a group, those of all groups, and questions that cannot be answered: the fewest.
FEWEST = {
    **dict.fromkeys("bc", (30, 40, 20, 0, 25)),
    **dict.fromkeys("def", (30, 40, 18, 280, 40)),
    "g": (20, 28, 15, 250, 35),
    "h": (25, 30, 15, 320, 40),
    "i": (25, 30, 15, 310, 40),
}
TOLD = {edition.letter: read_pages(edition.letter) for edition in EDITIONS}
of_each_edition = pytest.mark.parametrize("letter", TOLD)


def pages_of(letter: str) -> list[Page]:
    """The pages of which something of their own is asked."""
    return [page for pages in TOLD[letter].values() for page in pages if page.asked]


def told_of(letter: str) -> set[str]:
    """The titles, signs and words of an edition."""
    lines = [page.title.split(" | ")[0] for page in pages_of(letter)]
    lines += [page.lines[0].removeprefix("! ") for group in ("signs", "words") for page in TOLD[letter][group]]
    return {line.lower() for line in lines if line}


def words_of(line: str) -> set[str]:
    return {word.strip(".:") for word in re.findall(r"[\w@.:-]+", line.lower())}


@of_each_edition
def test_every_group_has_enough_questions_and_some_cannot_be_answered(letter: str) -> None:
    groups = TOLD[letter]
    (edition,) = (one for one in EDITIONS if one.letter == letter)
    assert set(groups) == {"words", *edition.draw}
    signs, words, of_group, of_all, unknown = FEWEST[letter]
    assert (len(groups["signs"]) >= signs, len(groups["words"])) == (True, words)
    asked = {group: [row["form"] for page in pages for row in page.asked] for group, pages in groups.items()}
    counts = {group: len(forms) - forms.count("cannot tell") for group, forms in asked.items() if forms}
    assert min(counts.values()) >= of_group
    assert sum(forms.count("cannot tell") for forms in asked.values()) >= unknown
    assert sum(counts.values()) >= of_all


@pytest.mark.parametrize("letter", "ghi")
def test_an_edition_says_yes_as_often_as_no_and_asks_one_question_in_six_for_a_word(letter: str) -> None:
    rows = [row for page in pages_of(letter) for row in page.asked]
    said = Counter(row["answers"][0] for row in rows if row["form"] == "yes/no")
    assert said["yes"] == said["no"]
    asked = [talking_edition_g.ask(row) for row in rows]
    assert len(asked) / 8 < sum(question.endswith("single word or phrase.") for question in asked) < len(asked) / 5
    assert sum("\nB. " in question for question in asked) >= 5


def test_no_content_is_of_another_edition() -> None:
    first = "".join(path.read_text("utf-8") for path in Path("benchmarks").glob("talking_[dpc]*.py")).lower()
    words = {word.lower() for word in WORDS}
    shown = {letter: told_of(letter) for letter in TOLD}
    assert [title for titles in shown.values() for title in titles if f'"{title}"' in first] == []
    assert set().union(*(shown[letter] for letter in "cdefghi")) & words == set()
    assert [pair for pair in combinations(shown, 2) if shown[pair[0]] & shown[pair[1]]] == []


def test_no_face_and_no_photograph_is_of_another_edition() -> None:
    first = Path("benchmarks/talking_drawings.py").read_text("utf-8")
    faces = [package for edition in EDITIONS for package in edition.faces]
    assert len(faces) == len(set(faces))
    assert [package for package in faces if f'"{package}"' in first] == []
    sources = {
        suite: {path.split("/")[0] for path, _ in read_truths(suite)}
        for suite in ("photos", "photos_b", "photos_c", "photos_d", "photos_e", "photos_i")
    }
    assert len(set().union(*sources.values())) == sum(map(len, sources.values()))
    assert min(len(read_truths(suite)) for suite in sources) >= 32


def test_each_suite_belongs_to_one_edition() -> None:
    assert Counter(map(edition_of, SUITES)) == {"a": 6, "b": 3, "c": 3, "d": 3, "e": 2, "f": 1, "g": 1, "h": 1, "i": 3}


@of_each_edition
def test_every_answer_that_is_read_stands_on_its_page(letter: str) -> None:
    missing = []
    for page, row in [(one, row) for one in pages_of(letter) for row in one.asked]:
        shown = words_of("\n".join(page.lines))
        is_drawn = page.layout == "scene" or page in TOLD[letter].get("shapes", [])  # colours and counts, not words
        if row["form"] == "text" and not is_drawn and not any(words_of(answer) <= shown for answer in row["answers"]):
            missing.append(row["question"])
        if row["form"] == "number" and not row["question"].startswith(("How many", "Into how many", "Count")):
            values = {
                float(value.replace(",", ".")) for value in re.findall(r"\d+(?:[.,]\d{1,2}\b)?", "\n".join(page.lines))
            }
            values |= {float(value.replace(",", "")) for value in re.findall(r"\d+,\d{3}", "\n".join(page.lines))}
            if float(row["answers"][0]) not in values:
                missing.append(row["question"])
    assert missing == []


@of_each_edition
def test_the_articles_of_a_receipt_add_up(letter: str) -> None:
    checked = 0
    for page in TOLD[letter]["receipts"]:
        blocks = "\n".join(page.lines).split("---\n")
        articles, sums = (re.findall(r"\| [$£¥]?([\d.]+)(?= EUR$|$)", block, re.MULTILINE) for block in blocks[1:])
        if ":" not in blocks[1]:  # else hours, not prices
            assert sum(map(float, articles)) == pytest.approx(float(sums[0])), page.title
            checked += 1
    assert checked >= 7


@of_each_edition
def test_the_judge_takes_every_accepted_answer_and_no_rival(letter: str, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    asked = [row for page in pages_of(letter) for row in page.asked]
    told = [(row, answer, right) for row in asked for right, key in ((1, "answers"), (0, "others"))
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


@pytest.mark.parametrize("edition", EDITIONS, ids=list(TOLD))
def test_a_page_of_every_layout_is_drawn_alike_each_time(edition: Edition) -> None:
    fonts = Path(matplotlib.get_data_path()) / "fonts"
    plain = replace(edition, faces=dict.fromkeys(edition.faces, ("DejaVuSans.ttf",)))
    told = TOLD[edition.letter]
    pages = {(group, page.layout): page for group in edition.draw for page in told[group]}
    assert len(pages) > 20
    for (group, layout), page in pages.items():
        again = 1 + (not group.startswith("charts"))  # matplotlib is slow
        images = [edition.draw[group](Pad(lambda _: fonts, layout, "abc", plain), page)[0] for _ in range(again)]
        assert len({image.tobytes() for image in images}) == 1, (group, layout)
        assert all(300 <= side <= 1600 for side in images[0].size), (group, layout, images[0].size)


def test_a_face_without_the_letters_is_never_chosen() -> None:
    plain = replace(EDITIONS[0], faces={"fonts": ("DejaVuSans.ttf",)}, plain=["fonts"])
    kit = Pad(lambda _: Path(matplotlib.get_data_path()) / "fonts", "seed", "A漢", plain)
    with pytest.raises(LookupError, match="漢"):
        kit.plain(20)
