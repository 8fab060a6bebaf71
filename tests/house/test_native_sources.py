"""The C++ sources keep the laws that the Python files keep, and their structures are the ones that Python declares."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llava.native import abi

NATIVE = Path(__file__).resolve().parents[2] / "llava/native"
SOURCES = sorted([*NATIVE.glob("*.h"), *NATIVE.glob("*.cpp")])
MAX_LINES = 60  # of a function
MAX_PHASE_LINES = 40  # of a function of the decode step, where a drawing shows what each barrier protects
# Comments, literals and preprocessor lines: braces in them open nothing.
IGNORED = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | ^[ \t]*\#(?:[^\n\\]|\\.)* | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)


@dataclass
class Function:
    name: str
    num_lines: int


def functions_of(source: str) -> Iterator[Function]:
    """Every function, with its lines from the first of its signature to its closing brace.

    Lambdas, blank lines and comments inside a function count as its lines.
    """
    source = IGNORED.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), source)
    opened: list[str] = []  # what each open brace is: a scope, a function, a block inside one, or an initial value
    start = 0  # of the statement that a brace belongs to
    for match in re.finditer(r"[{};]|\b(?:public|private):", source):
        head = source[start : match.start()]
        ends_statement = not opened or opened[-1] == "scope"
        if match[0] == "{":
            if "function" in opened:
                opened.append("block")
            elif re.match(r"\s*(template\s*<[^{}]*>\s*)?(namespace|extern|struct|class|enum|union)\b", head):
                opened.append("scope")
            elif re.search(r"[)}]\s*((const|noexcept|override)\s*)*(->[\w\s:<>,*&]+)?$", head):
                opened.append("function")
            else:
                opened.append("value")
            ends_statement = opened[-1] == "scope"
        elif match[0] == "}":
            closed = opened.pop()
            if closed == "function":
                name = re.search(r"(\w+)\s*\(", head)
                assert name is not None
                yield Function(name[1], source[start : match.end()].strip().count("\n") + 1)
            ends_statement = closed in ("scope", "function")
        if ends_statement:
            start = match.end()
    assert not opened


SAMPLE = """// int commented() {
namespace {
template <typename T, int N = 3> struct Pair {
    T first = {}, second{};

  public:
    Pair(T a,
         T b)
        : first(a), second{b} {
        use("}");
    }
    int size() const { return 2; }
};
inline int outer(int n) {
    auto inner = [&](int m) {
        return m;
    };

    for (int i = 0; i < n; i++) { inner(i); }  // }
    return n;
}
constexpr int TABLE[] = {1, 2};
#define MACRO(x) [&] { x; }
}
extern "C" {
template <typename F> int
guard(F run) noexcept {
    return 0;
}
}
auto trailing(int n) -> std::pair<int, char *> {
    return {};
}
"""


def test_functions_are_counted_from_their_signature_to_their_brace() -> None:
    assert [(each.name, each.num_lines) for each in functions_of(SAMPLE)] == [
        ("Pair", 5),
        ("size", 1),
        ("outer", 8),
        ("guard", 4),
        ("trailing", 3),
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_native_source_keeps_the_laws(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 500, "which noun is missing?"
    assert max(map(len, text.splitlines())) <= 120
    limit = MAX_PHASE_LINES if path.name == "decoder.h" else MAX_LINES
    assert {each.name: each.num_lines for each in functions_of(text) if each.num_lines > limit} == {}


def test_no_function_is_overlooked() -> None:
    found = {each.name for path in SOURCES for each in functions_of(path.read_text(encoding="utf-8"))}
    exported = set(re.findall(r"^(?:int|uint64_t) (llava_\w+)\(", (NATIVE / "kernels.cpp").read_text(), re.MULTILINE))
    members = {"DecodeStep", "run_layer", "project_qkv", "attend_splits", "merge_partials", "wait", "reserve"}
    assert len(exported) > 10
    assert exported | members | {"attend_chunk", "plan_kv_splits", "gemv", "gemm_int8", "quantize"} <= found


def test_the_drawing_of_the_decode_step_has_a_line_for_every_phase_and_barrier() -> None:
    drawing, code = (NATIVE / "decoder.h").read_text(encoding="utf-8").split("#pragma once")
    drawn = re.findall(r"^//     (\w+)(?= .* (?:rows|columns|heads|splits) )", drawing, re.MULTILINE)
    layer = re.search(r"void run_layer\(.*?\n    }\n", code, re.DOTALL)
    assert layer is not None
    called = re.findall(r"^ +(\w+)\(.*\);$", layer[0], re.MULTILINE)
    phases = [name for name in called if name != "share_rows"]
    assert drawn == phases
    waiting = [name for name in called if name in ("share_rows", "prepare", "lower")]  # they wait by themselves
    assert layer[0].count("barrier.wait(") + len(waiting) == len(drawn)


def fields_of(struct: str) -> list[tuple[str, str]]:
    """The names of a structure's members in order, each with its type."""
    source = IGNORED.sub("", (NATIVE / "abi.h").read_text(encoding="utf-8"))
    body = re.search(rf"struct {struct} {{(.*?)^}};", source, re.DOTALL | re.MULTILINE)
    assert body is not None
    fields = []
    for declaration in filter(None, map(str.strip, body[1].split(";"))):
        kind, names = re.split(r"\s+(?=\*)|(?<=\*)\s+|(?<=\w)\s+", declaration.removeprefix("const "), maxsplit=1)
        is_pointer = "*" in declaration
        fields += [(name.strip(" *"), "pointer" if is_pointer else kind) for name in names.split(",")]
    return fields


@pytest.mark.parametrize("struct", ["Matrix", "LowRank", "Layer", "Decoder", "Batch", "Attention", "Heads", "Choosing"])
def test_python_declares_the_structures_of_the_c_interface(struct: str) -> None:
    kinds = {ctypes.c_int32: "int32_t", ctypes.c_float: "float", ctypes.c_void_p: "pointer"}
    kinds |= {abi.Matrix: "Matrix", abi.LowRank: "LowRank"}
    declared = [(name, kinds[kind]) for name, kind in getattr(abi, struct)._fields_]
    assert fields_of(struct) == declared
