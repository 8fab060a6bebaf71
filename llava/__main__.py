"""``python -m llava`` is the ``llava`` command."""

from __future__ import annotations

import sys

from llava.cli import main

if __name__ == "__main__":
    sys.exit(main())
