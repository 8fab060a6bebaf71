"""Writes what the code knows about itself into docs/: the commands, the file map, the layers, the benchmarks.

``python docs/build.py`` writes; ``--check`` says which files are out of date and fails.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def commands_page() -> str:
    """docs/cli.md: every command with its arguments, read from the parser."""
    sys.path.insert(0, str(ROOT))
    from llava.cli import build_parser

    lines = ["# Commands", "", "Written by `make docs` from `llava/commands/`.", ""]
    for name, parser in _leaves("llava", build_parser()):
        shown = [
            action
            for action in parser._actions
            if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS
        ]
        rows = [f"| {_spell(action)} | {_help(action)} |" for action in shown]
        table = ["| argument | what it says |", "|---|---|", *rows, ""] if rows else []
        lines += [f"## `{name}`", "", parser.description or "", "", *table]
    return "\n".join(lines)


def _leaves(name: str, parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    """The commands below ``parser`` that do something, with their full names, once each; a flag may begin one, too."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        return [(name, parser)]
    found = []
    for action in sorted(below, key=lambda action: bool(action.option_strings)):
        words = [name, *action.option_strings]
        first = {id(child): key for key, child in reversed(action.choices.items())}
        children = {first[id(child)]: child for child in action.choices.values()}  # without aliases
        found += [leaf for key, child in children.items() for leaf in _leaves(" ".join([*words, key]), child)]
    return found


def _spell(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return ", ".join(f"`{flag}{value}`" for flag in action.option_strings) or f"`{action.metavar or action.dest}`"


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%(default)s", str(action.default))
    return text.replace("|", "\\|")


def file_map() -> str:
    """The package as a tree: each module with the first line of its docstring."""
    lines = []
    for path in sorted((ROOT / "llava").rglob("*.py"), key=_reading_order):
        relative = path.relative_to(ROOT / "llava")
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        lines.append(f"| `{relative}` | {first} |")
    return "\n".join(["| file | what it is for |", "|---|---|", *lines])


def _reading_order(path: Path) -> tuple[bool, list[str], bool, str]:
    relative = path.relative_to(ROOT / "llava")
    return len(relative.parts) > 1, list(relative.parts[:-1]), path.name != "__init__.py", path.name


def layers() -> str:
    """The floors from the top down, as import-linter checks them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^layers = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block, "pyproject.toml has no layers"
    return "\n".join(["```", *re.findall(r'"(.*)"', block[1]), "```"])


def benchmarks() -> str:
    """The benchmarks as a table: what is asked of which split, and the published scores by generation."""
    sys.path.insert(0, str(ROOT))
    from llava.eval.benchmark_table import TASKS

    titles = ("`llava eval`", "benchmark", "split, questions", "prompt", "1.5 7B, 13B", "1.6 7B, 13B, Mistral, 34B")
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for task in TASKS.values():
        by_name = task.published.get
        old = [by_name(f"llava-v1.5-{size}") for size in ("7b", "13b")]
        new = [by_name(f"llava-v1.6-{size}") for size in ("vicuna-7b", "vicuna-13b", "mistral-7b", "34b")]
        prompt = re.sub(r'"(.*?)"', r"`\1`", task.prompt).replace("|", "\\|")
        scores = [", ".join(score or "-" for score in row) if any(row) else "" for row in (old, new)]
        cells = (f"`{task.name}`", task.title, f"{task.split}, {task.count:,}", prompt, *scores)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_parts(page: str, parts: dict[str, str]) -> str:
    """A page of docs/ with its written parts brought up to date."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
        head, _, rest = text.partition(begin)
        _, found, tail = rest.partition(end)
        assert found, f"docs/{page} has no place for {name}"
        text = f"{head}{begin}\n{part}\n{end}{tail}"
    return text


def house_page() -> str:
    """docs/house.md with its two written parts brought up to date."""
    return write_parts("house.md", {"files": file_map(), "layers": layers()})


def evaluation_page() -> str:
    """docs/evaluation.md with its table of benchmarks brought up to date."""
    return write_parts("evaluation.md", {"benchmarks": benchmarks()})


def main() -> int:
    """Write the pages, or with --check compare them; returns the exit code."""
    stale = []
    pages = {"cli.md": commands_page(), "house.md": house_page(), "evaluation.md": evaluation_page()}
    for path, text in ((ROOT / "docs" / name, text) for name, text in pages.items()):
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.relative_to(ROOT))
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"out of date, run make docs: {', '.join(map(str, stale))}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
