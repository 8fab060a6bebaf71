"""The review sheet in a browser: keys, what it keeps, what it saves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava.data.collection.review_sheet import SheetRow, read_decisions, write_sheets
from llava.errors import UsageError
from tests.data.user_logs import draw
from tests.serve.tab import needs_browser, run_browser


def make_rows(tmp_path: Path, num: int) -> list[SheetRow]:
    draw(1).save(tmp_path / "a.png")
    evil = "</script><script>document.title = 'taken over'</script><img src=x onerror=\"document.title='taken over'\">"
    return [
        SheetRow(f"user-{i}", (("human", evil), ("gpt", f"Answer {i}.")), (tmp_path / "a.png",)) for i in range(num)
    ]


@needs_browser
def test_rows_are_accepted_and_dropped_by_keys_and_the_sheet_remembers(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 4)
    (sheet,) = write_sheets(rows, tmp_path)
    requested: list[str] = []
    with run_browser() as context:
        page = context.new_page()
        page.on("request", lambda request: requested.append(request.url.partition(":")[0]))
        page.goto(sheet.as_uri())
        for key in "adja":  # the second row is dropped, the third one skipped, the fourth one accepted
            page.keyboard.press(key)
        counts = page.locator("#counts").inner_text()
        with page.expect_download() as download:
            page.keyboard.press("s")
        download.value.save_as(tmp_path / "review.json")
        page.reload()
        assert page.locator("#counts").inner_text() == counts == "4 rows: 2 accepted, 1 dropped, 1 undecided"
        page.locator("#show").select_option("drop")
        assert page.locator("article:visible").count() == 1
        assert page.title() == "Review"
        assert "onerror" in page.locator("article:visible .human").inner_text()
    assert set(requested) <= {"file", "data", "blob"}
    decisions = read_decisions([tmp_path / "review.json"])
    assert [decisions.is_accepted(row.id, row.seen) for row in rows] == [True, False, False, True]
    assert [decisions.is_dropped(row.id) for row in rows] == [False, True, False, False]


def test_many_rows_are_several_sheets_and_old_sheets_are_removed(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 5)
    (tmp_path / "review-notes.html").write_text("mine", encoding="utf-8")
    assert [path.name for path in write_sheets(rows, tmp_path, 2)] == [f"review-{i}.html" for i in (1, 2, 3)]
    assert [path.name for path in write_sheets(rows, tmp_path)] == ["review.html"]
    assert write_sheets([], tmp_path) == []
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["review-notes.html"]


def test_decisions_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for name, decision in (("a.json", "accept"), ("b.json", "drop")):
        rows = {"user-1": {"decision": decision, "seen": "x"}}
        (tmp_path / name).write_text(json.dumps({"llava_review": 1, "rows": rows}), encoding="utf-8")
    with pytest.raises(UsageError, match="accepted in one file of decisions and dropped in another"):
        read_decisions([tmp_path / "a.json", tmp_path / "b.json"])
