"""The ``llava`` command answers without torch's compiler, sharded tensors and accelerate; others import as always."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava.deferred_imports import TESTED, _Finder, _is_tested
from llava.entry_point import quick_imports

HEAVY = ("torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp", "accelerate", "sympy")

PACKAGE = """
class Sharded:
    def __init__(self, dim=0):
        self.dim = dim
def double(x):
    return 2 * x
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package that is deferred in the test, and that no other test has imported."""
    name = f"deferred_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "tensors.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("llava.deferred_imports._has_gpu", lambda: False)
    return name


def import_while_deferred(package: str, code: str) -> dict[str, Any]:
    """What ``code`` defines, run while imports of the package are deferred."""
    names: dict[str, Any] = {}
    finder = _Finder([package])
    try:
        exec(code.format(package), names)
    finally:
        finder.stop()
    return names


def test_a_deferred_name_is_the_real_one_as_soon_as_it_is_called(package: str) -> None:
    names = import_while_deferred(package, "from {0}.tensors import Sharded, double")
    assert f"{package}.tensors" not in sys.modules
    assert not isinstance(3, names["Sharded"])
    assert f"{package}.tensors" not in sys.modules, "asking for an instance has imported the module"
    assert names["double"](4) == 8
    assert isinstance(sys.modules[f"{package}.tensors"].Sharded(), names["Sharded"])
    assert not isinstance(3, names["Sharded"])
    assert issubclass(sys.modules[f"{package}.tensors"].Sharded, names["Sharded"])


def test_a_call_while_imports_are_deferred_is_made_when_its_result_is_used(package: str) -> None:
    names = import_while_deferred(package, "from {0}.tensors import Sharded\nrule = Sharded(dim=2)")
    assert f"{package}.tensors" not in sys.modules
    assert names["rule"].dim == 2
    assert isinstance(names["rule"], sys.modules[f"{package}.tensors"].Sharded)


def test_a_subclass_of_a_deferred_name_has_the_real_base(package: str) -> None:
    code = "from {0}.tensors import Sharded, double\nclass Own(Sharded): pass\nfour = double(2)"
    names = import_while_deferred(package, code)
    assert issubclass(names["Own"], sys.modules[f"{package}.tensors"].Sharded)
    assert names["four"] == 4


def test_a_deferred_package_is_imported_as_always_afterwards(package: str) -> None:
    import_while_deferred(package, "import {0}.tensors")
    names: dict[str, Any] = {}
    exec(f"import {package}.tensors as tensors\nfrom {package} import tensors as again", names)
    assert names["tensors"].double(1) == 2
    assert names["again"] is names["tensors"]


def test_a_package_that_is_not_installed_stays_missing() -> None:
    finder = _Finder(["no_such_package_of_anybody"])
    try:
        with pytest.raises(ModuleNotFoundError):
            exec("import no_such_package_of_anybody")
    finally:
        finder.stop()


def test_the_installed_transformers_is_one_whose_imports_may_be_deferred() -> None:
    assert _is_tested(), f"see that this file passes with it, and widen TESTED, {TESTED}"


def test_a_question_is_answered_without_what_only_compiling_and_several_devices_need() -> None:
    code = f"""
import sys
from llava.cli import main
assert main(["ask", "examples/demo.png", "What is written on the sign?"]) == 0
print([name for name in {HEAVY} if name in sys.modules])
# Nor does the talking model's outline, whose tower is another one.
from pathlib import Path
from llava.config import read_spec
from llava.model.meta_model import build_meta_model
place = Path("llava/talking_model/config.json")
model = build_meta_model(read_spec(place.parent), place.parent, place, "smollm2", None)
assert all(parameter.is_meta for parameter in model.parameters())
print([name for name in {HEAVY} if name in sys.modules])
# Afterwards everything is as in any other process.
import torch.distributed.tensor, transformers.distributed.utils as utils
assert not utils.is_dtensor(torch.ones(1))
import accelerate
double = torch.compile(lambda x: 2 * x, backend="eager")
assert callable(accelerate.dispatch_model)
print(double(torch.ones(1)).item())
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines() == ["MORTALS", "[]", "[]", "2.0"], result.stderr


def test_later_collections_leave_alone_what_was_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_quickly.py").write_text("values = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    with quick_imports():
        pass  # what it needs itself is imported now
    gc.unfreeze()  # what the tests froze, too, until the end
    try:
        with quick_imports():
            pass
        assert gc.get_freeze_count() == 0
        with quick_imports():
            import imported_quickly  # type: ignore[import-not-found]
        assert gc.isenabled()
        assert not {id(value) for value in imported_quickly.values} & {id(value) for value in gc.get_objects()}
    finally:
        gc.freeze()


def test_importing_the_package_in_another_program_defers_nothing() -> None:
    code = "import sys, llava.model.llava\nassert not isinstance(sys.modules['torch._dynamo'].disable, type(None))\n"
    code += "import transformers.masking_utils as m; assert isinstance(m.TransformGetItemToIndex, type), m"
    subprocess.run([sys.executable, "-c", code], check=True)
