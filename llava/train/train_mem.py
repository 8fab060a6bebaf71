"""Front door: ``python -m llava.train.train_mem``, the original's training command with flash-attention.

Here it is ``llava.train.train``: whatever attention is the fastest of those installed is used.

Source: haotian-liu/LLaVA@c121f04 llava/train/train_mem.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from llava.train.train import main, train

__all__ = ["train"]

if __name__ == "__main__":
    sys.exit(main())
