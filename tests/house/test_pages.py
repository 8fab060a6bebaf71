"""The pages of docs/ are true and read the same on GitHub and on the site."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown
import pytest
import yaml
from markdown_it import MarkdownIt

from llava.cli import build_parser

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SITE: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows_of(text: str) -> list[list[str]]:
    """The cells of every row of every table, without the rows of dashes."""
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.endswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def names_in(file: str) -> set[str]:
    """The names that a file of Python defines or uses, and the texts in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Constant):
            found.add(str(node.value))
    return found


def test_a_broken_link_fails_the_build_of_the_site_in_make_check(tmp_path: Path) -> None:
    """With pages of a line each, since ``make check`` builds the real ones."""
    command = re.search(r"\$\(BIN\)/mkdocs (build[^>&|#\n]*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert command is not None
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "docs").mkdir()
    for page in PAGES:
        (tmp_path / "docs" / page.name).write_text("# Title\n\n[top](house.md#title)\n", encoding="utf-8")

    def build() -> tuple[int, str]:
        words = [sys.executable, "-m", "mkdocs", *shlex.split(command[1])]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout + done.stderr

    assert build()[0] == 0
    with (tmp_path / "docs/ask.md").open("a", encoding="utf-8") as page:
        page.write("\n[none](house.md#no-such-section)\n")
    code, output = build()
    assert code != 0
    assert "no-such-section" in output


WHERE = rows_of(read("house.md").split("<!-- where:")[1].split("<!-- end of where -->")[0])[1:]


@pytest.mark.parametrize(("question", "file", "names"), WHERE, ids=[row[0][:60] for row in WHERE])
def test_the_files_and_names_on_the_house_page_exist(question: str, file: str, names: str) -> None:
    assert "?" in question
    path, wanted = file.strip("`"), re.findall(r"`([^`]+)`", names)
    assert wanted
    if path.endswith(".py"):
        assert sorted(set(wanted) - names_in(path)) == []
    else:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert [name for name in wanted if name not in text] == []


def test_ten_files_are_to_be_read_first_and_all_are_there() -> None:
    first = read("house.md").split("## Read these first")[1].split("\n## ")[0]
    files = re.findall(r"^\d+\. `([^`]+)`: \w", first, re.MULTILINE)
    assert len(set(files)) == 10
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_every_difference_names_a_test_that_exists() -> None:
    rows = [row for row in rows_of(read("differences.md")) if row[-1] != "the test that holds it"]
    named = [re.fullmatch(r"(tests/\S+\.py)::(\w+)", row[-1]) for row in rows if set(row[-1]) != {"-"}]
    assert len(named) > 40
    for match in named:
        assert match is not None
        assert f"def {match[2]}(" in (ROOT / match[1]).read_text(encoding="utf-8"), match[0]


def test_every_page_has_its_place_in_the_navigation() -> None:
    def leaves(part: Any) -> list[str]:
        if isinstance(part, str):
            return [part]
        return [leaf for one in (part.values() if isinstance(part, dict) else part) for leaf in leaves(one)]

    assert sorted(leaves(SITE["nav"])) == [page.name for page in PAGES]


def test_the_log_has_its_newest_entry_first_and_each_says_its_verdict() -> None:
    log = re.sub(r"```.*?```", "", read("log.md"), flags=re.DOTALL)
    entries = log.split("\n## ")[1:]
    days = []
    for entry in entries:
        heading = entry.split("\n")[0]
        found = re.fullmatch(r"(\d{4}-\d{2}-\d{2}): .+: .+", heading)
        assert found, heading
        days.append(found[1])
        labels = re.findall(r"^- (\w+): \S", entry, re.MULTILINE)
        assert labels == ["Question", "Change", "Command", "Commit"], heading
    assert len(days) > 50
    assert days == sorted(days, reverse=True)


class _Counter(HTMLParser):
    """Counts the elements that Markdown's blocks become."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = dict.fromkeys(("h2", "h3", "table", "td", "li", "pre", "img"), 0)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in self.counts:
            self.counts[tag] += 1


def count_elements(html: str) -> dict[str, int]:
    counter = _Counter()
    counter.feed(html)
    return counter.counts


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_the_same_blocks_on_github_and_on_the_site(page: Path) -> None:
    extensions = [name if isinstance(name, str) else next(iter(name)) for name in SITE["markdown_extensions"]]
    text = page.read_text(encoding="utf-8")
    on_site = markdown.markdown(text, extensions=[name for name in extensions if name not in ("toc", "codehilite")])
    on_github = MarkdownIt("commonmark").enable("table").render(text)
    assert count_elements(on_site) == count_elements(on_github)


def test_the_site_loads_nothing_from_another_host() -> None:
    theme = SITE["theme"]
    assert theme["name"] == "readthedocs"  # MkDocs' own, whose fonts and search it brings along
    assert theme["highlightjs"] is False
    for key in ("extra_css", "extra_javascript"):
        assert [path for path in SITE.get(key, []) if not (DOCS / path).is_file()] == []
    assert "url(" not in read("site.css")


def commands() -> list[tuple[str, str]]:
    """Page and words of each ``llava`` command in the pages' consoles."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            asked = [line.split("| ")[-1].removeprefix("$ ") for line in lines if line.startswith("$ ")]
            found += [(page.name, line) for line in asked if line.startswith("llava ")]
    return found


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_command_of_the_pages_is_one_that_llava_takes(page: str, command: str) -> None:
    build_parser().parse_known_args(shlex.split(command, comments=True)[1:])


def test_every_make_target_of_the_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"[`$] ?make ([a-z-]+)", page.read_text(encoding="utf-8"))) <= targets, page.name
