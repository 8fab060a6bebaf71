"""The lexical tower's median is NumPy's, at less cost for a command's first image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llava.model.lexical import median as module
from llava.model.lexical.median import median


@pytest.mark.parametrize("count", [1, 2, 7, 12])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_it_is_numpys(count: int, dtype: type) -> None:
    values = (100 * np.random.default_rng(count).standard_normal((count, 3))).astype(dtype)
    assert np.array_equal(median(values), np.median(values, axis=0))
    listed = values[:, 0].tolist()
    assert median(listed) == np.median(listed)


def test_it_imports_no_masked_arrays_and_numpys_own_is_not_used() -> None:
    path = Path(module.__file__)
    code = (
        "import runpy, sys; m = runpy.run_path(sys.argv[1]); m['median']([3, 1]); assert 'numpy.ma' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    users = [other.name for other in path.parent.glob("*.py") if "np.median(" in other.read_text(encoding="utf-8")]
    assert users == []
