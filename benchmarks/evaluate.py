"""Answering a benchmark: this package's runner against the original's loop, one question at a time, in one run.

Both answer the same questions, eight about each image, with the same random weights of the XS shape of engine.py; the
loop is the model's own ``generate``, as in the original's model_vqa_loader. The goal is 4 times its questions a second.
An image is padded to a square, as LLaVA-1.5 shows it; with ``--images anyres`` it is cut into tiles, as NeXT shows it,
which takes a CPU five times as long. Beside the time it prints the processor's, which other programs do not lengthen.

    python benchmarks/evaluate.py [--questions 32] [--new-tokens 8] [--dtype float32] [--images pad] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.engine import checkpoint, image_of, write_checkpoints

GOAL = 4.0
QUESTIONS_PER_IMAGE = 8


@dataclass(frozen=True)
class Clocks:
    """Time, and this process's time on all cores, in seconds."""

    wall_s: float
    cpu_s: float

    def __sub__(self, began: Clocks) -> Clocks:
        return Clocks(self.wall_s - began.wall_s, self.cpu_s - began.cpu_s)


def read_clocks() -> Clocks:
    """Both clocks now."""
    return Clocks(time.perf_counter(), time.process_time())


def main() -> int:
    """Measures both, prints questions a second; returns 1 if the answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--images", default="pad", choices=("pad", "anyres"))
    parser.add_argument("--keep", metavar="FOLDER", help="keep the checkpoint there, for the next run")
    options = parser.parse_args()
    options.shape, options.without_peers = "XS", True
    with tempfile.TemporaryDirectory() as folder:
        options.keep = options.keep or folder
        write_checkpoints(options)
        return compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> int:
    """Answers the questions both ways, and prints how long each took."""
    from llava.answer import write_chat
    from llava.backends.answerer import Answerer
    from llava.eval.answer_run import answer_questions
    from llava.eval.askers import ImageReader, LocalAsker
    from llava.eval.task import Question
    from llava.model.checkpoint import load_model
    from llava.sampling import Sampling

    questions = []
    for number in range(options.questions):
        path = folder / f"{number // QUESTIONS_PER_IMAGE}.png"
        if not path.exists():
            image_of(number).save(path)
        text = " ".join(f"w{(number * 31 + i * 7) % 900 + 10}" for i in range(12))
        questions.append(Question(number, (path,), text, text))
    loaded = load_model(
        str(checkpoint(options, "original")), dtype=options.dtype, overrides={"image_aspect_ratio": options.images}
    )
    sampling = Sampling(max_new_tokens=options.new_tokens)

    asker = LocalAsker(loaded, "XS", sampling)
    answer_questions(questions[:2], asker, folder / "warm.jsonl")
    began = read_clocks()
    answer_questions(questions, asker, folder / "answers.jsonl")
    runner = read_clocks() - began
    answers = [json.loads(line)["text"] for line in (folder / "answers.jsonl").read_text().splitlines()]

    one_by_one = []
    answerer = Answerer.of(loaded)
    began = read_clocks()
    for question in questions:
        images = ImageReader(336).read(question)
        prepared = answerer.prepare(write_chat(loaded, [(question.text, 1, None)]), images, sampling)
        one_by_one.append(answerer._generate(prepared, 0.0, None).text.strip())
    loop = read_clocks() - began

    count = len(questions)
    for name, taken in (("runner", runner), ("one by one", loop)):
        print(f"{name:10}  {count / taken.wall_s:6.2f} questions/s, {taken.cpu_s / count:6.3f} s of a core a question")
    times, by_cpu = loop.wall_s / runner.wall_s, loop.cpu_s / runner.cpu_s
    print(f"{times:.1f} times as fast, {by_cpu:.1f} times by the processor's time; the goal is {GOAL:g}")
    differing = sum(one != other for one, other in zip(answers, one_by_one, strict=True))
    print(f"{differing} of {count} answers differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
