"""Makes mmbench_uploads.json: tables and answers, and the cells of the .xlsx files that the original writes of them.

``python make_mmbench_uploads.py SCRIPT``, in an environment with pandas 3.1.1 and openpyxl 3.1.5. SCRIPT is
scripts/convert_mmbench_for_submission.py of haotian-liu/LLaVA@524a75b.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAMES = "index question hint A B C D answer category image source l2-category comment split".split()


def table(*rows: str) -> str:
    """A table of rows with index, question, A, B, C, D, answer and split, between bars."""
    lines = ["\t".join(NAMES)]
    for row in rows:
        index, question, a, b, c, d, answer, split = row.split("|")
        lines.append("\t".join([index, question, "", a, b, c, d, answer, "cat", "aGk=", "src", "l2", "", split]))
    return "\n".join(lines) + "\n"


def answers(*pairs: tuple[Any, str]) -> str:
    rows = [{"question_id": key, "round_id": 0, "prompt": "?", "text": text, "metadata": {}} for key, text in pairs]
    return "".join(json.dumps(row) + "\n" for row in rows)


USUAL = answers((1, "A"), (2, "B. blue"), (1000001, ""), (3, "none of them"))
CASES = {
    "usual": (
        table("1|Is it?|red|blue|||A|dev", "2|Why?|a dog|nan|None|x|B|dev", "1000001|Is it?|blue|red|||B|dev"),
        USUAL,
    ),
    "numbers": (table("1|1|1|1.5|0|1|A|dev", "2|2|-2|2|7|1e3|B|dev", "3|3| 3 |.5|+4|inf|C|dev"), USUAL),
    "numbers with holes": (table("1|a|1|1.5|True||A|1", "2|b||NA|FALSE|null|B|2", "3|c|3|2|true|n/a|C|3"), USUAL),
    "truth values": (table("1|a|True|true|TRUE|True|True|x", "2|b|fAlSe|false|FALSE|maybe|False|y"), USUAL),
    "texts that look like others": (table("1|007|1,000|1_0|0x1|1 2|A|dev", "2|x|5|2|3|-|B|dev"), USUAL),
    "letters of all kinds": (
        table('1|"two\nlines and ""quotes"""|\u7ea2\u8272|\U0001f600| a |a  b|A|dev', "2|\u00e9|b|c|d|e|B|dev"),
        answers((1, "\u7b54\u6848\u662fA\nand more"), (2, " \u00e9 ")),
    ),
    "one row": (table("1|?|||||A|dev"), answers((1, "A"))),
    "answers in another order, one of them twice": (
        table("1|?|a|b|c|d|A|dev", "2|?|a|b|c|d|A|dev"),
        answers((2, "A"), (1, "B"), (2, "C"), (9, "D")),
    ),
    "great numbers": (table("1|?|9223372036854775807|9223372036854775808|1e400|1e-400|A|dev"), answers((1, "A"))),
    "without an answer column": (
        "\n".join(
            "\t".join(part for place, part in enumerate(line.split("\t")) if place != 7)
            for line in table("1|?|a|b|c|d|A|test", "2|?|a|b|c|d|A|test").splitlines()
        ),
        USUAL,
    ),
}


def main() -> None:
    """Runs the original and writes the gold file."""
    import openpyxl

    gold: dict[str, Any] = {"source": " ".join((__doc__ or "").split("SCRIPT is")[1].split()), "cases": {}}
    for name, (rows, said) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "t.tsv").write_text(rows, encoding="utf-8")
            (Path(folder) / "x.jsonl").write_text(said, encoding="utf-8")
            flags = "--annotation-file t.tsv --result-dir . --upload-dir . --experiment x".split()
            subprocess.run([sys.executable, str(Path(sys.argv[1]).resolve()), *flags], cwd=folder, check=True)
            book = openpyxl.load_workbook(Path(folder) / "x.xlsx")
            cells = [[[cell.value, cell.data_type] for cell in row] for row in book.active]
        gold["cases"][name] = {"table": rows, "answers": said, "sheets": book.sheetnames, "cells": cells}
    (HERE / "mmbench_uploads.json").write_text(json.dumps(gold, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
