"""The browser of the tests: found, installed where that can be done, and missed aloud."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import install_browser

ROOT = Path(__file__).resolve().parents[1]


def put(folder: Path, name: str, lines: str) -> None:
    """A program of that name."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where programs are found, and nothing is in it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    return tmp_path


def test_root_gets_debians_browser_where_there_is_none(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    put(bin_folder, "apt-get", f'echo "$@" >> {bin_folder}/asked')
    install_browser.install()
    update, install = (bin_folder / "asked").read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install -y --no-install-recommends chromium")
    put(bin_folder, "chromium", "true")
    assert install_browser.find_browser() == str(bin_folder / "chromium")
    install_browser.install()
    assert len((bin_folder / "asked").read_text().splitlines()) == 2


@pytest.mark.parametrize("user", [0, 1000])
def test_what_cannot_be_installed_fails_nothing(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], user: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    install_browser.install()  # no apt-get
    put(bin_folder, "apt-get", "echo 'E: no network' >&2; exit 100")
    install_browser.install()
    assert ("did not work: E: no network" in capsys.readouterr().out) is (user == 0)


TEST = """
import pytest

@pytest.mark.skip(reason="there is no browser: none")
def test_one():
    pass

@pytest.mark.skip(reason="another reason")
def test_other():
    pass
"""


def test_a_run_without_a_browser_says_so_in_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST)
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    words = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "-n", "1", "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    last = done.stdout.splitlines()[-1]
    assert last == f"1 tests of the web chat were skipped, since there is no browser: {install_browser.REMEDY}."


@pytest.mark.parametrize(("ci", "is_skipped"), [("true", False), ("1", False), ("", True), ("false", True)])
def test_where_ci_is_set_they_are_not_skipped(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, ci: str, is_skipped: bool
) -> None:
    monkeypatch.setenv("CI", ci)
    assert install_browser.is_missed() is is_skipped
    put(bin_folder, "chromium", "true")
    assert install_browser.is_missed() is False
