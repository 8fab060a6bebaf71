"""The laws of docs/house.md that a test can check: sizes, names, docstrings, modules without torch, and style."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.test_imports import WITHOUT_TORCH

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = sorted((ROOT / "llava").rglob("*.py"))
NATIVE = sorted(path for suffix in ("*.h", "*.cpp") for path in (ROOT / "llava/native").glob(suffix))
PROSE = sorted(
    {*ROOT.glob("*.md"), *(path for name in ("docs", "examples", "llava") for path in (ROOT / name).rglob("*.md"))}
)
SHIPPED = sorted(path for kind in ("yaml", "js", "css", "html") for path in (ROOT / "llava").rglob(f"*.{kind}"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if path.name != Path(__file__).name)
TOOLS = sorted(path for name in ("benchmarks", "docs") for path in (ROOT / name).glob("*.py"))
MAX_LINES_OF_A_FILE, MAX_LINES_OF_A_FUNCTION = 500, 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


def docstring_of(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_front_door(path: Path) -> bool:
    """Whether outsiders fixed this file's place and names."""
    return docstring_of(path).lower().startswith(("front door", "the original's"))


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*PACKAGE, *NATIVE], ids=ids)
def test_a_file_is_no_longer_than_a_reader_can_hold(path: Path) -> None:
    num_lines = path.read_text(encoding="utf-8").count("\n")
    assert num_lines <= MAX_LINES_OF_A_FILE, "which noun is missing?"


def long_functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            num_lines = (node.end_lineno or 0) - node.lineno + 1
            if num_lines > MAX_LINES_OF_A_FUNCTION:
                yield node.name, num_lines


def test_a_function_is_no_longer_than_a_screen() -> None:
    found = {ids(path): list(long_functions(ast.parse(path.read_text(encoding="utf-8")))) for path in PACKAGE}
    assert {path: functions for path, functions in found.items() if functions} == {}


def test_a_long_function_is_found() -> None:
    body = "\n".join(f"    x = {i}" for i in range(MAX_LINES_OF_A_FUNCTION))
    assert list(long_functions(ast.parse(f"def f():\n{body}"))) == [("f", MAX_LINES_OF_A_FUNCTION + 1)]


def test_a_file_is_identified_by_its_name_alone() -> None:
    own = [path for path in PACKAGE if path.name not in ("__init__.py", "__main__.py") and not is_front_door(path)]
    assert {name: num for name, num in Counter(path.name for path in own).items() if num > 1} == {}


# Overridden methods of torch, Transformers, uvicorn, io and logging.
CALLED_BY_LIBRARIES = {"forward", "extra_repr", "log", "write", "flush", "serve", "handle_exit", "step", "state_dict"}
CALLED_BY_LIBRARIES |= {"load_state_dict", "put", "end", "emit", "format", "convert", "from_pretrained"}


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public functions and classes of a module, and public methods and classes of its public classes, without a
    docstring; "the module" if it has none itself.

    A method that overrides one of a documented class in the same module, or one of a library's that calls it, says what
    that one says.
    """
    if ast.get_docstring(tree) is None:
        yield "the module"
    documented: set[str] = set()
    for node in public_in(tree):
        if ast.get_docstring(node) is None:
            yield node.name
        for part in public_in(node) if isinstance(node, ast.ClassDef) else ():
            if ast.get_docstring(part) is not None:
                documented.add(part.name)
            elif isinstance(part, ast.ClassDef) or not node.bases or part.name not in documented | CALLED_BY_LIBRARIES:
                yield f"{node.name}.{part.name}"


def public_in(parent: ast.AST) -> Iterator[Function | ast.ClassDef]:
    """The public functions and classes of a module or class, also those under an if, a try or a with."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, (*Function.__args__, ast.ClassDef)):
            if not node.name.startswith("_"):
                yield node
        elif isinstance(node, (ast.stmt, ast.excepthandler)):
            yield from public_in(node)


@pytest.mark.parametrize("path", PACKAGE, ids=ids)
def test_every_public_name_says_what_the_caller_gets(path: Path) -> None:
    assert list(undocumented(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("x = 1", ["the module"]),
        ("'A.'\ndef f(): ...\ndef _f(): ...\nasync def g(): ...", ["f", "g"]),
        ("'A.'\ntry:\n    import x\nexcept ImportError:\n    def f(): ...\nelse:\n    class X: ...", ["X", "f"]),
        ("'A.'\nclass X:\n    'B.'\n    class Y: ...\n    if x:\n        def f(self): ...", ["X.Y", "X.f"]),
        ("'A.'\nclass X:\n    'B.'\n    def f(self): 'C.'\nclass Y(X):\n    'D.'\n    def f(self): ...", []),
    ],
)
def test_a_missing_docstring_is_found(source: str, names: list[str]) -> None:
    assert sorted(undocumented(ast.parse(source))) == names


CLAIM = re.compile(r"\b([Nn]o|[Ww]ithout) torch\b(?! at)|\b[Tt]orch-free\b")


def test_a_module_that_claims_to_load_no_torch_is_on_the_tested_list() -> None:
    saying = {name_of(path) for path in PACKAGE if CLAIM.search(docstring_of(path))}
    assert len(saying) > 5
    assert all(map(CLAIM.search, ("It loads no torch.", "Light: without torch.", "A torch-free module.")))
    assert saying <= set(WITHOUT_TORCH)


# Sentences of another language in English words, and private words for what the field has a word for.
CALQUES = {
    r"\b[Aa]gain is harmless": "is idempotent",
    r"\b(scores|values|numbers|that) (that )?are no numbers\b": "NaN or infinite",
    r"\bwhat is to spare\b": "half of free memory",
    r"\bothers'(?! \w)": "whose?",
    r"\b(an engine|a server|engines|servers|programs) of others\b": "an external engine",
    r"\b[Pp]ictures?\b(?![?.]\")": "image (the questions and answers of drawn images may say picture)",
    r"\b[Aa] image\b": "an image",
    r"\bwho stops listening\b": "a client that disconnects",
    r"\b[Ww]hoever\b": "a user who, a process that, or no relative clause at all",
    r"\b[Ww]hat (becomes|became|has become) of\b": "what happens to, or the noun",
    r"\b[Ww]hat(ever)? is no (?!longer)": "a file that is not",
    r"\b[Ww]hat there is\b": "the noun",
    r"\bnobody vouches for\b": "untrusted",
    r"\b(a|the) (file|checkpoint|model|adapter)s? of others\b": "a third-party file",
    r"\bfrom nothing\b": "from scratch",
    r"\bcomes? inside (the|this) package\b": "is included in",
    r"\bstands? twice\b": "occurs twice",
    r"\bgoes? quietly\b": "shuts down gracefully",
    r"\bbegins? anew\b": "starts over",
    r"\bhand(s|ed)? on\b": "passes on",
    r"\blearns? to say\b": "learns to predict, or is trained on",
    r"\blook (there )?yourself where it matters\b": "check important details",
    r"\b(is|are|stands?|comes?|goes|put|left) behind (each|every|the last|it|them|a)\b": "after",
    r"\b(bytes?|positions?|blocks?|words?|tokens?|layers?) behind (the|a|its|their|it|them)\b": "after",
    r"\bwho goes next\b": "which request is scheduled next",
    r"\bis said of\b": "is reported about",
}


def find_calques(text: str) -> dict[str, str]:
    """Where each calque of a text is, with what to write instead. A pattern's spaces match line breaks, too."""
    return {
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]}": better
        for pattern, better in CALQUES.items()
        for match in re.finditer(pattern.replace(" ", r"\s+"), text)
    }


@pytest.mark.parametrize("path", [*PACKAGE, *NATIVE, *SHIPPED, *PROSE, *TOOLS, *TESTS], ids=ids)
def test_a_page_is_written_as_an_engineer_of_the_field_writes(path: Path) -> None:
    assert find_calques(path.read_text(encoding="utf-8")) == {}


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("What is no image is refused.", True),
        ("a client that\nstops listening, whoever it is", True),
        ("The bytes behind the end are skipped.", True),
        ("the server behind the proxy; nothing is left behind; there is no image", False),
        ('"What is in the picture?"', False),
        ("a picture of it", True),
        ("It is no longer read.", False),
    ],
)
def test_a_calque_is_found_and_plain_english_is_not(text: str, is_found: bool) -> None:
    assert bool(find_calques(text)) == is_found
