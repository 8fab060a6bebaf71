"""The project's statements about itself are true: its pages, its pins, its laws."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from llava.cli import build_parser

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = sorted((ROOT / "llava").rglob("*.py"))
TEXT = [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.txt"), ROOT / "Makefile", ROOT / ".ci/run"]
TEXT += [path for folder in ("docs", "examples", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.[pm][yd]")]


def load_docs_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins() -> Iterator[Requirement]:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def name_of(requirement: Requirement) -> str:
    return re.sub(r"[-_.]+", "-", requirement.name).lower()


def test_the_written_pages_are_up_to_date() -> None:
    builder = load_docs_builder()
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == builder.commands_page()
    assert (ROOT / "docs/house.md").read_text(encoding="utf-8") == builder.house_page()
    assert (ROOT / "docs/evaluation.md").read_text(encoding="utf-8") == builder.evaluation_page()


def test_every_module_says_what_it_is_for_in_one_line() -> None:
    rows = re.findall(r"^\| `(.*?)` \| (.*) \|$", load_docs_builder().file_map(), re.MULTILINE)
    assert [name for name, line in rows if len(line) < 10] == []
    assert len(rows) == len(PACKAGE)


def test_torch_is_the_first_pin() -> None:
    assert next(pins()).name == "torch"


def test_a_pin_stands_for_every_dependency_that_make_test_installs() -> None:
    pinned = {name_of(pin): pin for pin in pins()}
    for text in metadata.requires("llava") or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": e}) for e in ("train", "serve", "web", "dev")
        ):
            version = next(iter(pinned[name_of(requirement)].specifier)).version
            assert requirement.specifier.contains(version), f"{requirement} excludes the tested {version}"


def test_the_tests_run_on_the_pinned_versions() -> None:
    installed = {pin.name: metadata.version(pin.name).split("+")[0] for pin in pins() if name_of(pin) != "colorama"}
    assert installed == {pin.name: next(iter(pin.specifier)).version for pin in pins()}


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_keeps_the_laws(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 560, "which noun is missing?"
    assert path.stem not in {"helpers", "common", "base", "manager"}
    for pattern in (
        r"^\s*except\s*(Exception)?\s*:",
        r"\.cuda\(\)",
        r"\btorchvision\b(?!`| )",
        r"trust_remote_code=True",
        r"weights_only=False",
        r"set_trace|breakpoint\(",
    ):
        assert re.search(pattern, text, re.MULTILINE) is None, pattern


def imports_of(path: Path) -> Iterator[str]:
    """The modules that a file names in its imports, with ``from x import y`` as x and as x.y."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_of_the_package_imports_a_front_door() -> None:
    doors = {}
    for path in PACKAGE:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if docstring.lower().startswith("front door"):
            doors[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    assert {"llava.mm_utils", "llava.utils", "llava.eval.run_llava", "llava.model.builder"} <= doors.keys()
    inside = [path for path in PACKAGE if path not in doors.values()]
    assert [(path.name, name) for path in inside for name in imports_of(path) if name in doors] == []


def test_no_page_speaks_of_the_place_where_it_was_written() -> None:
    places = re.compile(r"/w[o]rk/|/f[a]rm/|[.]l[i]brary/|/t[m]p/(?!\w*\bexample)")
    assert [str(path) for path in [*PACKAGE, *TEXT] if places.search(path.read_text(encoding="utf-8"))] == []


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def test_every_command_of_the_readme_is_one_that_llava_takes() -> None:
    commands = [line.split("| ")[-1].removeprefix("$ ") for line in readme_commands() if line.startswith("$ ")]
    spoken = [shlex.split(line)[1:] for line in commands if line.startswith("llava ")]
    assert len(spoken) >= 6
    for words in spoken:
        build_parser().parse_known_args(words)


def test_every_make_target_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", text))
    assert {"demo", "test", "check", "bench"} <= named <= targets


def test_every_link_of_the_pages_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_python_310_is_enough_for_the_syntax() -> None:
    for path in PACKAGE:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


def test_every_test_that_the_table_of_checkpoints_names_exists() -> None:
    blocks = (ROOT / "docs/checkpoints.md").read_text(encoding="utf-8").split("\n\n")
    tables = [block.splitlines() for block in blocks if "| the test that proves it |\n" in block]
    rows = [row for table in tables for row in table[2:]]
    named = [match for row in rows for match in re.findall(r"(tests/\S+\.py)::(\w+) \|$", row)]
    assert len(named) == len(rows) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
