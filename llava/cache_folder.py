"""Where this package keeps what can be made again: indexes of data, converted and assembled checkpoints."""

from __future__ import annotations

import os
from pathlib import Path


def find_cache() -> Path:
    """``$LLAVA_CACHE``, else ``llava`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. It need not exist or be writable.

    For a user without a home it is a path at which nothing can be written.
    """
    own = os.environ.get("LLAVA_CACHE")
    if own:
        return Path(own).expanduser()
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "llava"
    except RuntimeError:
        return Path(os.devnull) / "llava"
