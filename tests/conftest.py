"""No test reaches a network, and importing torch is left to the tests that need it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.install_browser import describe_skipped

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The default model is the small one, whichever packages are installed; tests of the choice undo this.
os.environ["LLAVA_DEFAULT_MODEL"] = "embedded"

# How fast a machine is fails no test, and a test that passed passes again: the same examples are drawn each time.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


# The files whose tests take longest go first, and the other trainings after them, so that no worker is left with one of
# them at the end.
LONGEST = (
    "train/test_walkthrough", "engine/test_native", "train/test_resume", "contract/test_lmms_eval", "serve/test_web",
    "serve/test_page", "engine/test_gpu_kernels", "serve/test_restart", "engine/test_gpu_engine", "engine/test_engine",
    "train/test_parallel", "engine/test_grammar", "scratch/test_pipeline", "test_default_model",
    "eval/test_benchmark_runs", "house/test_deferred_imports",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the longest files to the front; the workers take one file after the other."""
    names = [f"{name}.py" for name in LONGEST]

    def find_place(path: Path) -> int:
        name = path.relative_to(Path(__file__).parent).as_posix()
        return names.index(name) if name in names else len(names) + (not name.startswith("train/"))

    places = {path: find_place(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: places[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Leaves what was imported out of every later garbage collection, of which each training demands one.

    The objects of torch, of Transformers and of the tests themselves stay alive to the end, and looking through all of
    them takes a quarter of a second each time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """What a test draws without a seed of its own does not hang on which tests ran before it in this process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The last line says what a browser would have made run."""
    reports = terminalreporter.stats.get("skipped", [])
    line = describe_skipped([str(report.longrepr) for report in reports])
    if line is not None:
        terminalreporter.config.add_cleanup(lambda: print(line))


@pytest.fixture(scope="session")
def next_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA-NeXT checkpoint of random weights in the original's layout, with tiles of 28 px; not to be changed.

    It never says a byte or a special token, so its answers are printable and end only where they are cut.
    """
    from safetensors.torch import load_file, save_file

    from tests.tiny_checkpoints import write_llava_1_6

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-v1.6"
    write_llava_1_6(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][:259] = 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of 100 x 67 px, every pixel different."""
    from PIL import Image

    path = tmp_path_factory.mktemp("images") / "photo.png"
    red, green = Image.linear_gradient("L").resize((100, 67)), Image.radial_gradient("L").resize((100, 67))
    Image.merge("RGB", (red, green, red.transpose(Image.Transpose.ROTATE_180))).save(path)
    return path
