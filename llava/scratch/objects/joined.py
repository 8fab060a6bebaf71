"""Joins the weights of the finder's net and of the namer into the file that ships.

Run it as ``python -m llava.scratch.objects.joined FINDER NAMER OUT``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from llava.model.lexical.object_finder import ObjectFinder


def join(finder: Path, namer: Path, out: Path) -> None:
    """Writes both as one state of ``ObjectFinder``, at once. Raises RuntimeError if one is missing or left over."""
    weights = {k: v for k, v in load_file(finder).items() if not k.startswith("namer.")}
    weights |= {f"namer.{k}": v for k, v in load_file(namer).items()}
    net = ObjectFinder()
    report = net.load_state_dict(weights, strict=False)
    missing = [key for key in report.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or report.unexpected_keys:
        raise RuntimeError(f"{finder} and {namer} lack {missing} and hold {report.unexpected_keys} beside.")
    part = out.with_suffix(".part")
    save_file(weights, part)
    os.replace(part, out)


if __name__ == "__main__":
    join(*map(Path, sys.argv[1:4]))
