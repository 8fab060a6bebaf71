"""Front door: scores the files of a folder as MME's own calculation does, with its flags."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

from llava.eval.calculate_mme import main

if __name__ == "__main__":
    sys.exit(main())
