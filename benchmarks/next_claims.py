"""LLaVA-NeXT's claims in small: do AnyRes, documents and charts, a larger language model, and a tuned tower pay here?

Each claim compares two arms that differ in one thing, with three seeds, on held-out drawn questions:

    anyres    the talking model, which sees an image as AnyRes tiles or as a single tile of 384 px. Its tower is not
              trained, so both arms are the same weights
    data      its training has documents and charts, or in their place more shapes, signs and lines of text
    decoder   SmolLM2-135M, or the decoder of the embedded model (4.2 million parameters), behind the same tower
    tower     the embedded model, whose ViT is frozen or tuned at a fifth of the other rate, through the decoder

The first three train the talking model's adapter for ``--steps`` steps from one that changes nothing
(``claim_talking.py``) and ask about images of 400 to 1,500 px (``claim_questions.py``). The last one is about the
embedded model, because the talking model's tower cannot be tuned through the language model: it passes words on, and
no gradient goes back through words. Its training and questions are those of ``data_claim.py``, "with" documents and
charts.

An interval is Student's 95 % for the mean of the seeds' differences, as in ``data_claim.py``. What is done is kept in
OUT, and the same command continues after an interruption:

    python benchmarks/next_claims.py OUT --things THINGS --facts facts.json

THINGS and facts.json are inputs of the adapter's training (docs/contributing.md, "Train the talking model").
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import claim_questions, data_claim
from benchmarks.claim_questions import CHARTS, DOCUMENTS, SCENES, TEXT, TYPES
from benchmarks.claim_talking import BATCH_SIZE, Talker, make_small
from benchmarks.data_claim import STUDENT, Difference, Question, answer_all, compare, say_verdict, write_whole
from llava.errors import LlavaError
from llava.model.checkpoint import LoadedModel, load_model
from llava.model.default_choice import TALKING
from llava.scratch.talking.document_records import MAKERS
from llava.scratch.talking.thing_samples import ThingSamples

WHOLE, ONE_TILE, NO_DOCUMENTS, SMALL = "whole", "one tile", "no documents", "small decoder"
FROZEN, TUNED = "tower frozen", "tower tuned"
WITHOUT_DOCUMENTS = ("shapes", "signs", "lines")
# Of the embedded model's learning rate; LLaVA-NeXT's is 2e-6 of 1e-5.
TOWER_RATE = 0.2
NUM_TOWER_QUESTIONS = (60, 60, 60)  # pages, charts, scenes


@dataclass(frozen=True)
class Claim:
    """Two arms, of which the second is expected to be better, and what they are compared by."""

    title: str
    arms: tuple[str, str]
    measures: tuple[str, ...]


CLAIMS = {
    "anyres": Claim("one tile -> AnyRes", (ONE_TILE, WHOLE), (*TYPES, DOCUMENTS, CHARTS, SCENES)),
    "data": Claim("without -> with documents and charts", (NO_DOCUMENTS, WHOLE), (DOCUMENTS, CHARTS, TEXT, SCENES)),
    "decoder": Claim("small decoder -> SmolLM2-135M", (SMALL, WHOLE), (TEXT, DOCUMENTS, CHARTS, SCENES)),
    "tower": Claim("tower frozen -> tuned", (FROZEN, TUNED), ("documents", "documents, plain", "charts", "scenes")),
}


class Workplace:
    """Trains an arm with a seed and asks it, unless that is done.

    Args:
        given: the command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self.folder = given.output / f"{given.steps}-steps"
        self._tower_folder = given.output / f"tower-{given.tower_steps}-steps"

    @cached_property
    def _talker(self) -> Talker:
        return Talker(load_model(self._given.model))

    @cached_property
    def _small(self) -> Talker:
        return make_small(self._talker)

    @cached_property
    def _things(self) -> ThingSamples:
        return ThingSamples(self._given.things, self._given.facts)

    @cached_property
    def _questions(self) -> list[Question]:
        return claim_questions.draw_questions()

    @cached_property
    def _tower_questions(self) -> list[Question]:
        return data_claim.draw_questions(*NUM_TOWER_QUESTIONS)

    def ask(self, arm: str, seed: int) -> dict[str, list[float]]:
        """The scores of an arm's answers by measure, in the order of the questions."""
        if arm in (FROZEN, TUNED):
            questions, folder, load, most = self._tower_questions, self._tower_folder, self._tune, 160
        else:
            questions, folder, load, most = self._questions, self.folder, self._talk, 64
        file = folder / "answers" / name_file(arm, seed, f"of-{len(questions)}.json")
        scores = answer_all(partial(load, arm, seed), questions, file, most)
        by_measure: dict[str, list[float]] = {}
        for score, question in zip(scores, questions, strict=True):
            for measure in question.measures:
                by_measure.setdefault(measure, []).append(score)
        return by_measure

    def _talk(self, arm: str, seed: int) -> LoadedModel:
        talker = self._small if arm == SMALL else self._talker
        kinds = WITHOUT_DOCUMENTS if arm == NO_DOCUMENTS else tuple(MAKERS)
        folder = self.folder / name_file(WHOLE if arm == ONE_TILE else arm, seed)
        checkpoint = talker.train(self._things, kinds, seed, self._given.steps, folder)
        return talker.take(checkpoint, is_tiled=arm != ONE_TILE)

    def _tune(self, arm: str, seed: int) -> LoadedModel:
        steps, folder = self._given.tower_steps, self._tower_folder
        data = data_claim.draw_data(folder / f"data-{seed}", seed, steps * data_claim.BATCH_SIZE)["with"]
        changes: dict[str, Any] = {"train": ["projector", "language_model"]}
        if arm == TUNED:
            changes = {"train": ["vision_tower", *changes["train"]], "lr_scales": {"vision_tower": TOWER_RATE}}
        return load_model(data_claim.train(folder / name_file(arm, seed), data, seed, steps, **changes))


def name_file(arm: str, seed: int, *more: str) -> str:
    """The name of an arm's file or folder."""
    return "-".join([arm.replace(" ", "-"), str(seed), *more])


def run(workplace: Workplace, claims: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, Difference]]:
    """What each measure of each claim differs by; does what has not been done yet, seed by seed."""
    arms = list(dict.fromkeys(arm for claim in claims for arm in CLAIMS[claim].arms))
    scores: dict[str, list[dict[str, list[float]]]] = {arm: [] for arm in arms}
    began = time.monotonic()
    for i, (seed, arm) in enumerate((seed, arm) for seed in seeds for arm in arms):
        minutes = (time.monotonic() - began) / 60
        print(f"{i + 1} of {len(seeds) * len(arms)}: {arm}, seed {seed}, after {minutes:.0f} min", flush=True)
        scores[arm].append(workplace.ask(arm, seed))
    return {
        claim: {
            measure: compare(*([each[measure] for each in scores[arm]] for arm in CLAIMS[claim].arms))
            for measure in CLAIMS[claim].measures
        }
        for claim in claims
    }


def make_table(found: Mapping[str, Mapping[str, Difference]]) -> str:
    """The results as a table in Markdown, in percent."""
    lines = [
        "| claim | held out | questions | from | to | difference | 95 % interval | by seed | |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for claim, differences in found.items():
        title = CLAIMS[claim].title
        for measure, each in differences.items():
            seeds = ", ".join(f"{100 * value:+.1f}" for value in each.by_seed)
            interval = f"{100 * each.low:+.1f} to {100 * each.high:+.1f}"
            levels = f"{each.num_questions} | {100 * each.without:.1f} | {100 * each.with_:.1f}"
            rest = f"{100 * each.mean:+.1f} | {interval} | {seeds} | {say_verdict(each)}"
            lines.append(f"| {title} | {measure} | {levels} | {rest} |")
            title = ""
    return "\n".join(lines)


def plot(found: Mapping[str, Mapping[str, Difference]], path: Path, title: str) -> None:
    """Draws the differences of every claim with their intervals and seeds, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(found), 3.4), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    for axes, (claim, differences) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        for place, each in enumerate(differences.values()):
            axes.plot([100 * each.low, 100 * each.high], [place, place], color="black")
            axes.plot([100 * value for value in each.by_seed], [place] * len(each.by_seed), "o", color="tab:blue")
        axes.axvline(0, color="tab:red", linewidth=1)
        labels = [f"{name}\n{100 * each.without:.0f} -> {100 * each.with_:.0f} %" for name, each in differences.items()]
        axes.set_yticks(range(len(labels)), labels, fontsize="small")
        axes.set_title(CLAIMS[claim].title, fontsize="small")
        axes.set_xlabel("points")
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--things", type=Path, help="the folder of llava.scratch.things.view_features")
    parser.add_argument("--facts", type=Path, help="JSON of llava.scratch.talking.thing_facts")
    parser.add_argument("--claims", nargs="+", choices=list(CLAIMS), default=list(CLAIMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="two or more (0 1 2)")
    parser.add_argument("--steps", type=int, default=30, help=f"of {BATCH_SIZE} samples, of the adapter (%(default)s)")
    parser.add_argument(
        "--tower-steps", type=int, default=40, help=f"of {data_claim.BATCH_SIZE}, of the embedded model (%(default)s)"
    )
    parser.add_argument("--model", default=TALKING, help="a talking model's folder (%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what has not been run yet, prints the table, and writes it as JSON and as a plot."""
    parser = make_parser()
    given = parser.parse_args(arguments)
    given.seeds = list(dict.fromkeys(given.seeds))
    if len(given.seeds) - 1 not in STUDENT:
        parser.error(f"--seeds names {len(given.seeds)} seeds; an interval takes 2 to {max(STUDENT) + 1}")
    if min(given.steps, given.tower_steps) < 1:
        parser.error("--steps and --tower-steps have to be at least 1")
    if set(given.claims) != {"tower"}:
        for name, path in (("things", given.things), ("facts", given.facts)):
            if path is None or not path.exists():
                parser.error(f"--{name} is {path}, which is not there: {', '.join(given.claims)} train on it")
    workplace = Workplace(given)
    try:
        found = run(workplace, given.claims, given.seeds)
    except LlavaError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "Stopped. The same command continues.\n")
    title = f"{len(given.seeds)} seeds, {given.steps} steps of {BATCH_SIZE} (tower: {given.tower_steps} of 8)"
    print(f"\n{title}\n\n{make_table(found)}\n")
    rows = {claim: {measure: asdict(each) for measure, each in rows.items()} for claim, rows in found.items()}
    settings = {"steps": given.steps, "tower_steps": given.tower_steps, "seeds": given.seeds}
    write_whole(given.output / "claims.json", json.dumps({**settings, "claims": rows}, indent=1) + "\n")
    plot(found, given.output / "claims.png", title)
    print(f"{given.output / 'claims.json'}, {given.output / 'claims.png'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
