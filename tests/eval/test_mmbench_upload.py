"""scripts/convert_mmbench_for_submission.py: the original's cells, and what it passes over in silence, named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from llava.errors import UsageError
from llava.eval.mmbench_upload import write_upload

ROOT = Path(__file__).resolve().parents[2]
CASES: dict[str, Any] = json.loads((ROOT / "tests/gold/eval/mmbench_uploads.json").read_text(encoding="utf-8"))["cases"]
ROWS = (
    "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tsource\tl2-category\tcomment\tsplit\n"
    "1\t?\t\ta\tb\tc\td\tA\tcat\taGk=\tsrc\tl2\t\tdev\n"
    "2\t?\t\ta\tb\tc\td\tA\tcat\taGk=\tsrc\tl2\t\tdev\n"
)


def write(folder: Path, table: str, *answers: dict[str, Any] | str) -> Path:
    (folder / "t.tsv").write_text(table, encoding="utf-8")
    lines = [row if isinstance(row, str) else json.dumps(row) + "\n" for row in answers]
    (folder / "x.jsonl").write_text("".join(lines), encoding="utf-8")
    write_upload(folder / "t.tsv", folder / "x.jsonl", folder / "upload/x.xlsx")
    return folder / "upload/x.xlsx"


def read_cells(path: Path) -> list[list[list[Any]]]:
    return [[[cell.value, cell.data_type] for cell in row] for row in openpyxl.load_workbook(path).active]


@pytest.mark.parametrize("name", CASES)
def test_the_cells_and_their_types_are_those_that_pandas_writes(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, CASES[name]["table"], CASES[name]["answers"])
    assert read_cells(path) == CASES[name]["cells"]
    assert openpyxl.load_workbook(path).sheetnames == CASES[name]["sheets"]


def test_the_script_runs_from_any_folder_with_the_originals_flags(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(CASES["usual"]["table"], encoding="utf-8")
    (tmp_path / "x.jsonl").write_text(CASES["usual"]["answers"], encoding="utf-8")
    flags = "--annotation-file t.tsv --result-dir . --upload-dir up --experiment x".split()
    script = ROOT / "scripts/convert_mmbench_for_submission.py"
    done = subprocess.run([sys.executable, str(script), *flags], cwd=tmp_path, capture_output=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"1 answers are to no row of the table, such as 3" in done.stderr
    assert read_cells(tmp_path / "up/x.xlsx") == CASES["usual"]["cells"]


def test_a_newer_table_passes_and_the_columns_that_it_lacks_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = "index\tquestion\tA\tB\timage\tL2-category\tsplit\n1\t?\ta\tb\taGk=\tl2\tdev\n"
    cells = read_cells(write(tmp_path, table, {"question_id": 1, "text": "A"}))
    assert [value for value, _ in cells[0]] == ["index", "question", "A", "B", "split", "prediction"]
    assert "has no column 'hint', 'category', 'source', 'comment'" in capsys.readouterr().err


def test_an_answer_like_a_formula_or_an_error_stays_a_text(tmp_path: Path) -> None:
    answers = [{"question_id": 1, "text": "=A1+1"}, {"question_id": 2, "text": "#N/A"}]
    cells = read_cells(write(tmp_path, ROWS, *answers))
    assert [row[6][0] for row in cells] == ["prediction", "=A1+1", "#N/A"]
    values = openpyxl.load_workbook(tmp_path / "upload/x.xlsx", data_only=True).active
    assert [values.cell(row, 7).value for row in (2, 3)] == ["=A1+1", "#N/A"]


def test_what_a_cell_cannot_hold_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [{"question_id": 1, "text": "A\x00\x1b\ud800\uffff."}, {"question_id": 2, "text": "x" * 40_000}]
    cells = read_cells(write(tmp_path, ROWS, *answers))
    assert [row[6][0] for row in cells[1:]] == ["A.", "x" * 32_767]
    said = capsys.readouterr().err
    assert "the answer to index 1 has characters" in said
    assert "the answer to index 2" in said


def test_of_all_rounds_the_first_is_uploaded_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [{"question_id": key, "round_id": turn, "text": "AB"[turn]} for key in (1, 2) for turn in (0, 1)]
    cells = read_cells(write(tmp_path, ROWS, *answers))
    assert [row[6][0] for row in cells[1:]] == ["A", "A"]
    assert "2 answers in" in capsys.readouterr().err


def test_rows_without_an_answer_and_empty_answers_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ROWS, {"question_id": 1, "text": " "})
    said = capsys.readouterr().err
    assert "1 of the 2 rows have no answer, and an empty cell is uploaded" in said
    assert "1 answers in" in said


@pytest.mark.parametrize(
    ("table", "answers", "said"),
    [
        (ROWS, '{"question_id": 1, "te', "is not a JSON object"),
        (ROWS, '{"question_id": 1}', "has no 'text'"),
        (ROWS, '{"text": "A"}', "has no 'question_id'"),
        (ROWS, '{"question_id": 1, "text": null}', "is None, which is no text"),
        (ROWS, '{"question_id": [1], "text": "A"}', "neither text nor a whole number"),
        (
            ROWS,
            '{"question_id": "1", "text": "A"}',
            "None of the 1 answers .* the answers' ids are like '1', the rows' like 1",
        ),
        (ROWS, "", "None of the 0 answers"),
        (ROWS.replace("index", "idx"), '{"question_id": 1, "text": "A"}', "has no column 'index'; it has 'idx'"),
        (ROWS.replace("question\t", "q\t"), '{"question_id": 1, "text": "A"}', "has no column 'question'"),
        (ROWS[:140], '{"question_id": 1, "text": "A"}', "has another number of cells than the header"),
        ("", '{"question_id": 1, "text": "A"}', "has no rows"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(table: str, answers: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        write(tmp_path, table, answers)
    assert not (tmp_path / "upload/x.xlsx").exists()
