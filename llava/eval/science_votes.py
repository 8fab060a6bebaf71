"""What two answerers choose in ScienceQA, where one may stand in for the other. Loads no torch.

The originals guess where an answer names no choice. Here such an answer is wrong and counted; with dice it is a guess,
the original's own after ``random.seed(dice)``.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_science_qa_gpt4.py, eval_science_qa_gpt4_requery.py.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from llava.eval.science_files import Problem
from llava.eval.scoring.science_qa import FAILED, OPTIONS, index_of, read_sentence
from llava.text import write_line


@dataclass(frozen=True)
class Vote:
    """An answer, the letter in it (or "FAILED"), and the place of that letter's choice, -1 if there is none."""

    text: str
    letter: str
    index: int

    @property
    def is_failed(self) -> bool:
        """Whether no letter can be read."""
        return self.letter == FAILED


@dataclass
class VoteReader:
    """Reads votes, and counts by answerer those that name no choice; ``dice``: the seed of guesses, None for none."""

    options: Sequence[str] = OPTIONS
    dice: int | None = None
    unread: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._dice = None if self.dice is None else random.Random(self.dice)

    def read(self, answerer: str, text: str, problem: Problem) -> Vote:
        """The vote in ``text``; the order of the calls decides about guesses."""
        letter = read_sentence(text)
        index = index_of(letter, len(problem.choices), self.options)
        if index < 0:
            self.unread[answerer] += 1
            if self._dice is not None:
                index = self._dice.choice(range(len(problem.choices)))
        return Vote(text, letter, index)

    def say_unread(self) -> None:
        """Says on stderr how many answers name no choice."""
        if not self.unread:
            return
        counts = ", ".join(f"{num} of {name}" for name, num in self.unread.items())
        if self.dice is None:
            write_line(
                f"llava: answers without a choice: {counts}. A question that such an answer decides counts as wrong; "
                "--dice SEED guesses instead."
            )
        else:
            write_line(f"llava: answers without a choice: {counts}. They are guesses, by dice of the seed {self.dice}.")


def build_parser(prog: str, files: Sequence[str]) -> argparse.ArgumentParser:
    """The flags of both originals, of which ``files`` name files, and ``--dice``."""
    parser = argparse.ArgumentParser(prog=prog)
    for flag in ("--base-dir", *files):
        parser.add_argument(flag, type=str, required=True)
    parser.add_argument("--split", type=str, default="test")
    parser.add_argument("--options", type=list, default=list(OPTIONS), metavar="LETTERS")
    text = "guess where an answer names no choice, as the original does; it is wrong otherwise"
    parser.add_argument("--dice", type=int, metavar="SEED", help=text)
    return parser
