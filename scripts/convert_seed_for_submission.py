"""Front door: prints SEED-Bench's accuracy and writes the leaderboard's file, with the original's flags."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.eval.seed_submission import main

if __name__ == "__main__":
    sys.exit(main())
