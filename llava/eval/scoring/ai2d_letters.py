"""AI2D's answers as lmms-eval reads them. Loads no torch.

Source: EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/ai2d/utils.py and ai2d.yaml.
"""

from __future__ import annotations

import re
import string

from llava.eval.scoring.verdict import Verdict

_LETTER = re.compile(r"^\s*([A-Z])\.")
_NO_MARKS = str.maketrans("", "", string.punctuation)


def read_ai2d(answer: str) -> str:
    """The letter before a dot at the beginning, else the whole answer; in lower case without ASCII punctuation."""
    found = _LETTER.match(answer)
    return (found[1] if found else answer).lower().translate(_NO_MARKS)


def score_ai2d(answer: str, truth: str) -> Verdict:
    """1.0 if the answer is the right letter; "(b)" and "B. a dog" are it, and "B) a dog" is not."""
    said = read_ai2d(answer)
    return Verdict(float(said == read_ai2d(truth)), said.upper() if len(said) == 1 else None)
