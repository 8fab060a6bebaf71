"""A server that shuts down does not wait for the import of Gradio."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from llava.serve.stoppable_import import ImportStopped, import_unless


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose first module sets ``sys.import_flag``, and whose second one is imported in a careless try."""
    name = "slow_" + tmp_path.name.replace("-", "_")
    (tmp_path / name).mkdir()
    text = "import {0}.first\ntry:\n    import {0}.second\nexcept Exception:\n    pass\n"
    (tmp_path / name / "__init__.py").write_text(text.format(name))
    (tmp_path / name / "first.py").write_text("import sys\nif sys.sets_flag:\n    sys.import_flag.set()\n")
    (tmp_path / name / "second.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "import_flag", threading.Event(), raising=False)
    monkeypatch.setattr(sys, "sets_flag", True, raising=False)
    return name


def test_an_import_ends_at_the_next_module_once_it_is_stopped(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    finders = list(sys.meta_path)
    flag = sys.import_flag  # type: ignore[attr-defined]
    with pytest.raises(ImportStopped, match=rf"{package}\.second"):
        import_unless(flag, package)
    assert not [name for name in sys.modules if name.startswith(package)]
    assert sys.meta_path == finders

    # Afterwards the package can be imported by a second server of the process.
    monkeypatch.setattr(sys, "sets_flag", False)
    flag.clear()
    module = import_unless(flag, package)
    assert module is sys.modules[package]
    assert {f"{package}.first", f"{package}.second"} <= sys.modules.keys()


def test_other_packages_are_imported_to_their_end(package: str, tmp_path: Path) -> None:
    other = f"other_{package}"
    (tmp_path / f"{other}.py").write_text("")
    with (tmp_path / package / "first.py").open("a") as file:
        file.write(f"import {other}\n")
    with pytest.raises(ImportStopped):
        import_unless(sys.import_flag, package)  # type: ignore[attr-defined]
    assert other in sys.modules
