"""Front door: writes answers to MME as its calculation reads them, with the flags of eval.zip's script."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from llava.eval.convert_answer_to_mme import main

if __name__ == "__main__":
    sys.exit(main())
