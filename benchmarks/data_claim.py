"""LLaVA-NeXT's claim about its data, in small: what do documents and charts in the mixture do, on the same budget?

Two mixtures of as many conversations train the same model with the same settings and as many steps:

    without    drawn scenes, words, lines and signs
    with       half of these, a quarter pages of text to transcribe (SynDog's task) and a quarter bar charts (DVQA's)

both are drawn by ``llava synth`` and trained by ``llava train``'s own code. Every seed draws other images and shuffles
them differently. The model is the embedded one: from random weights a model of this size learns nothing that can be
measured in minutes (the embedded model itself took hours). It has seen neither of the two sources, but bar charts of
another make. Images are single tiles (LLaVA-1.5's "pad"), for speed.

"Blind" is what one gets without looking: for each held-out question the most frequent answer that "with" has been
given to the same words.

All models answer the same questions about images of words that training never draws:

    documents  letters right: 1 minus the edit distance per letter of the longer text
    charts     exact answers, by the kind of question
    plain      every second page and chart again, without the dataset's sentence: what is left of the difference where
               both arms know how they are asked (pages) or what only the sentence confuses (charts)
    scenes     exact answers

An interval is Student's 95 % for the mean of the seeds' differences; its variance is the sum of the seeds' and the
questions'. With three seeds it is wide: what it leaves of a difference can be relied on.

Every step is skipped if its result exists, and an interrupted training resumes:

    python benchmarks/data_claim.py [--output runs/data-claim] [--steps 80] [--seeds 3] [--quick]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from llava.answer import write_chat
from llava.backends.answerer import Answerer
from llava.data.prompts import ANSWER_FORMATS, join_lines
from llava.edit_distance import count_edits
from llava.eval.scoring.sentence_answers import judge
from llava.image.source import load_image
from llava.model.checkpoint import LoadedModel, load_model
from llava.sampling import Sampling
from llava.synth.bars import BAR_KINDS
from llava.synth.conversations import READING_REQUESTS
from llava.synth.document_kinds import DATASETS, NAMED_KINDS
from llava.synth.truth import Truth
from llava.synth.write import write
from llava.train.recipe_file import RecipeFile
from llava.train.run import run

ARMS = ("without", "with")
SCENES = ("shapes", "words", "lines", "signs")
# As many pages as charts.
DOCUMENTS = (*("page-text",) * len(BAR_KINDS), *BAR_KINDS)
SIZES = ((104, 112, 104, 112),)
BATCH_SIZE = 8
AT_ONCE = 24
# Student's t for a two-sided 95 % interval, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
MEASURES = (
    "documents",
    "charts",
    "chart structure",
    "chart data",
    "chart reasoning",
    "documents, plain",
    "charts, plain",
    "scenes",
)


@dataclass(frozen=True)
class Question:
    """One held-out question.

    Attributes:
        measures: the rows of the table that it counts for.
        truth: where it is given, the answer may be a sentence, and ``llava.eval.scoring.sentence_answers`` judges it.
    """

    image: Image.Image
    question: str
    answer: str
    measures: tuple[str, ...]
    truth: Truth | None = None

    def score(self, answer: str) -> float:
        """0 to 1: letters right for a document, else whether the answer is right."""
        if self.truth is not None:
            return float(judge(answer, self.truth, self.question).is_right)
        said, truth = answer.strip(), self.answer
        if self.measures[0].startswith("documents"):
            # How the embedded model answers who asks for text: both ways of writing a transcription count.
            said = said.removeprefix("The text says ").replace(" / ", " ")
            return 1 - count_edits(said, truth) / max(len(said), len(truth), 1)
        return float(said.lower() == truth.lower())


@dataclass(frozen=True)
class Difference:
    """The mean over seeds of "with" minus "without", its 95 % interval, and both arms' means."""

    without: float
    with_: float
    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    num_questions: int


def draw_questions(num_pages: int, num_charts: int, num_scenes: int) -> list[Question]:
    """The held-out questions, always the same: one for each image, about words that training never draws."""
    questions = []
    groups = (("documents", ("page-text",), num_pages), ("charts", tuple(BAR_KINDS), num_charts))
    for measure, kinds, count in (*groups, ("scenes", SCENES, num_scenes)):
        for index in range(count):
            rng = random.Random(f"data claim:{measure}:{index}")
            kind = kinds[index % len(kinds)]
            low, high, _, _ = SIZES[0]
            scene = NAMED_KINDS[kind](rng, rng.randint(low, high), rng.randint(low, high), True)
            scene.drawing.spoil(0.5)
            task = rng.choice(sorted({turn.task for turn in scene.turns}))
            turn = rng.choice([turn for turn in scene.turns if turn.task == task])
            sentence = ANSWER_FORMATS[DATASETS[kind]] if kind in DATASETS else ""
            measures = (measure, task) if measure == "charts" else (measure,)
            text = join_lines(turn.question, sentence)
            questions.append(Question(scene.drawing.image, text, turn.answer, measures))
            if kind in DATASETS and index % 2 == 0:
                plain = turn.question or READING_REQUESTS[0]
                questions.append(Question(scene.drawing.image, plain, turn.answer, (f"{measure}, plain",)))
    return questions


def draw_data(folder: Path, seed: int, num_samples: int) -> dict[str, Path]:
    """Draws a seed's conversations; returns each arm's data file. Image paths are relative to ``folder``."""
    files = {arm: folder / f"{arm}.json" for arm in ARMS}
    if not all(file.is_file() for file in files.values()):
        scenes = draw_source(folder, "scenes", seed, num_samples, SCENES)
        documents = draw_source(folder, "documents", seed, num_samples // 2, DOCUMENTS)
        rows = {"without": scenes, "with": scenes[: num_samples - len(documents)] + documents}
        for arm, file in files.items():
            write_whole(file, json.dumps(rows[arm]))
    return files


def draw_source(folder: Path, name: str, seed: int, count: int, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of one source of a mixture."""
    path = write(folder / name, count, seed=1000 + seed, kinds=kinds, formats=ANSWER_FORMATS, sizes=SIZES)
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [{"data_source": name, **row, "image": f"{name}/images/{row['image']}"} for row in rows]


def write_whole(file: Path, text: str) -> None:
    """Writes a file that is there with all its text or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def train(folder: Path, data: Path, seed: int, steps: int, **changes: Any) -> Path:
    """Trains the embedded model on a data file, unless that is done; returns the checkpoint's folder.

    ``changes``: keys of the recipe with other values.
    """
    recipe = {
        "name": "claim",
        "start": "embedded",
        "data": {"json": str(data), "images": str(data.parent)},
        "vision": {"image_aspect_ratio": "pad", "mm_patch_merge_type": "flat"},
        "train": ["vision_tower", "projector", "language_model"],
        "steps": steps,
        "batch_size": BATCH_SIZE,
        "lr": 3.0e-4,
        "seed": seed,
        "save_steps": 20,
        "log_steps": 10,
        **changes,
    }
    return run(RecipeFile(recipe, "benchmarks/data_claim.py"), folder, workers=0)


def answer_all(
    load: Callable[[], LoadedModel], questions: Sequence[Question], file: Path, max_new_tokens: int = 160
) -> list[float]:
    """The score of every question; the answers are kept in ``file``, from which they are read if it exists."""
    if not file.is_file():
        loaded = load()
        answerer = Answerer(loaded)
        answers: list[str] = []
        sampling = Sampling(max_new_tokens=max_new_tokens)
        for start in range(0, len(questions), AT_ONCE):
            batch = [
                (write_chat(loaded, [(each.question, 1, None)]), [load_image(each.image)], sampling)
                for each in questions[start : start + AT_ONCE]
            ]
            answers += [answer.text for answer in answerer.answer_all(batch)]
        answerer.engine.close()
        rows = [
            {"question": each.question, "right": each.answer, "answer": answer}
            for each, answer in zip(questions, answers, strict=True)
        ]
        write_whole(file, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    rows = json.loads(file.read_text(encoding="utf-8"))
    if [row["question"] for row in rows] != [each.question for each in questions]:
        raise SystemExit(f"{file} answers other questions than this run asks. Choose another --output.")
    return [each.score(row["answer"]) for each, row in zip(questions, rows, strict=True)]


def answer_blindly(data: Path, questions: Sequence[Question]) -> list[float]:
    """The scores of the most frequent answer to the same question in a data file; 0 where it is never asked."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in json.loads(data.read_text(encoding="utf-8")):
        turns = [turn["value"] for turn in row["conversations"]]
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            answers[take_question(question)][answer] += 1
    usual = {question: counts.most_common(1)[0][0] for question, counts in answers.items()}
    return [each.score(usual.get(take_question(each.question), "")) for each in questions]


def take_question(prompt: str) -> str:
    """The question of a prompt, without the image's place and an answer-format sentence after it."""
    return prompt.removeprefix("<image>\n").partition("\n")[0]


def compare(without: Sequence[Sequence[float]], with_: Sequence[Sequence[float]]) -> Difference:
    """The difference between the arms, from each seed's scores of the same questions."""
    num_seeds, num_questions = len(with_), len(with_[0])
    pairs = [[b - a for a, b in zip(*both, strict=True)] for both in zip(without, with_, strict=True)]
    by_seed = tuple(statistics.fmean(pair) for pair in pairs)
    by_question = [statistics.fmean(values) for values in zip(*pairs, strict=True)]
    mean = statistics.fmean(by_seed)
    variance = statistics.variance(by_seed) / num_seeds + statistics.variance(by_question) / num_questions
    half = STUDENT[num_seeds - 1] * math.sqrt(variance)
    arms = [statistics.fmean(statistics.fmean(row) for row in arm) for arm in (without, with_)]
    return Difference(arms[0], arms[1], mean, mean - half, mean + half, by_seed, num_questions)


def say_verdict(difference: Difference) -> str:
    """What the interval says about the difference."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not significant"


def make_table(start: dict[str, float], blind: dict[str, float], differences: dict[str, Difference]) -> str:
    """The results as a table in Markdown, in percent."""
    lines = [
        "| held out | blind | embedded model | without | with | difference | 95 % interval | by seed | |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for name, found in differences.items():
        seeds = ", ".join(f"{100 * value:+.1f}" for value in found.by_seed)
        shares = (blind[name], start[name], found.without, found.with_)
        levels = " | ".join(f"{100 * share:.1f}" for share in shares)
        interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
        lines.append(f"| {name} | {levels} | {100 * found.mean:+.1f} | {interval} | {seeds} | {say_verdict(found)} |")
    return "\n".join(lines)


def plot(differences: dict[str, Difference], path: Path, title: str) -> None:
    """Draws both arms side by side, and the difference with its interval and every seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    levels, changes = figure.subplots(1, 2)
    places = list(range(len(differences)))
    for shift, arm, color in ((-0.2, "without", "tab:gray"), (0.2, "with", "tab:blue")):
        heights = [100 * (found.with_ if arm == "with" else found.without) for found in differences.values()]
        levels.barh([place + shift for place in places], heights, 0.38, color=color, label=arm)
    levels.set(yticks=places, yticklabels=list(differences), xlim=(0, 100), xlabel="score, %", title=title)
    levels.legend(loc="center right")
    for place, found in zip(places, differences.values(), strict=True):
        changes.plot([100 * found.low, 100 * found.high], [place, place], color="black")
        changes.plot([100 * value for value in found.by_seed], [place] * len(found.by_seed), "o", color="tab:blue")
    changes.axvline(0, color="tab:red", linewidth=1)
    changes.set(yticks=places, yticklabels=[], xlabel="with - without, points", title="95 % interval, seeds")
    for axes in (levels, changes):
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what has not been run yet, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("runs/data-claim"), metavar="DIR")
    parser.add_argument("--steps", type=int, default=80, metavar="N", help=f"of {BATCH_SIZE} samples (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, choices=range(2, 11), metavar="N", help="2 to 10 (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: 2 seeds, 2 steps, and 24 questions")
    given = parser.parse_args(arguments)
    num_seeds, steps = (2, 2) if given.quick else (given.seeds, given.steps)
    questions = draw_questions(*((4, 12, 8) if given.quick else (90, 240, 160)))
    began = time.monotonic()
    folder = given.output / f"{steps}-steps"
    scores: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    start = answer_all(lambda: load_model("embedded"), questions, given.output / f"start-{len(questions)}.json")
    for seed in range(num_seeds):
        files = draw_data(folder / f"data-{seed}", seed, steps * BATCH_SIZE)
        for arm in ARMS:
            here = folder / f"{arm}-{seed}"
            model = train(here, files[arm], seed, steps)
            answers = here / f"answers-{len(questions)}.json"
            scores[arm].append(answer_all(partial(load_model, model), questions, answers))
    chosen = {name: [i for i, each in enumerate(questions) if name in each.measures] for name in MEASURES}
    differences = {
        name: compare(*([[row[i] for i in places] for row in scores[arm]] for arm in ARMS))
        for name, places in chosen.items()
    }
    before, blind = (
        {name: statistics.fmean(values[i] for i in places) for name, places in chosen.items()}
        for values in (start, answer_blindly(folder / "data-0" / "with.json", questions))
    )
    title = f"{num_seeds} seeds, {steps} steps of {BATCH_SIZE}"
    counts = ", ".join(f"{name} {len(places)}" for name, places in chosen.items())
    print(f"{title}; questions: {counts}\n\n{make_table(before, blind, differences)}\n")
    plot(differences, folder / "claim.png", title)
    print(f"{folder / 'claim.png'}; this run took {(time.monotonic() - began) / 60:.1f} min")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
