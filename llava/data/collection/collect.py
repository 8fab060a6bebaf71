"""From the server's logs to training data: ``llava data collect``, and ``llava data review`` after a person's review.

The output folder:

    data.json            rows in LLaVA's format, their images in images/
    provenance.jsonl     for each row: the log's line, consent, filters, teacher, model, date and prompt
    left-out.jsonl       what was left out and why; never the text itself
    review.html          the review sheet; review-1.html and so on for more than 500 rows
    accepted.json        written by ``llava data review``: the rows that a person accepted
    answers.jsonl        the teacher's answers, image-text.jsonl what was judged of images: nothing is asked twice

Everything but the last line follows from the logs and that line, so a command that was killed is simply run again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.budget import Budget, Usage
from llava.data.collection.asking import Answered, Asking, AskingSettings
from llava.data.collection.chat_logs import SLOT, Removed
from llava.data.collection.journal import Journal, lock_folder, write_whole
from llava.data.collection.request_filters import Candidate, FilterSettings, RequestFilters
from llava.data.collection.review_sheet import Decisions, SheetRow, read_decisions, write_sheets
from llava.data.records import parse_record
from llava.errors import LlavaError, UsageError
from llava.text import fit_line

SOURCE = "user"
_DATA, _PROVENANCE, _LEFT_OUT, _ACCEPTED = "data.json", "provenance.jsonl", "left-out.jsonl", "accepted.json"


@dataclass(frozen=True)
class CollectSettings:
    """What ``collect`` does.

    Attributes:
        asking: how the teacher is asked; None asks nobody, and writes the review sheet of the questions.
        budget: what the teacher may cost, this folder's earlier runs included.
        reviews: files of decisions: dropped rows are left out, and undecided ones unless ``keeps_undecided``.
        is_dry: whether counts and the cost are said, and nothing is written or asked.
    """

    filters: FilterSettings
    out: Path
    asking: AskingSettings | None = None
    budget: Budget | None = None
    reviews: tuple[Path, ...] = ()
    keeps_undecided: bool = False
    is_dry: bool = False


def collect(settings: CollectSettings, confirm: Callable[[str], bool], say: Callable[[str], None]) -> int:
    """Runs it and returns the exit code: 1 if questions have no answer because of faults.

    ``confirm``: shows the cost and returns whether to go on. ``say``: prints a line of the result.

    Raises LlavaError, also for a full disk; what was answered is kept.
    """
    decisions = read_decisions(settings.reviews) if settings.reviews else None
    if settings.is_dry:
        return _Collection(settings, decisions, say).plan()
    with lock_folder(settings.out):
        return _Collection(settings, decisions, say).run(confirm)


class _Collection:
    def __init__(self, settings: CollectSettings, decisions: Decisions | None, say: Callable[[str], None]) -> None:
        self.settings, self.decisions, self.say = settings, decisions, say
        self.answers = Journal(settings.out / "answers.jsonl")
        self.judged = Journal(settings.out / "image-text.jsonl")
        self.filters = RequestFilters(settings.filters, None if settings.is_dry else self.judged)
        self.asking: Asking | None = None
        if settings.asking is not None:
            budget = settings.budget or Budget()
            self.asking = Asking(settings.asking, budget, self.answers, self.filters.rules)

    @property
    def removed(self) -> Removed:
        return self.filters.removed

    def plan(self) -> int:
        """Says what would be done."""
        candidates = self._find_candidates()
        self._say_table(len(candidates), "candidates")
        if self.asking is not None:
            for line in describe_cost(self.asking, candidates):
                self.say(line)
        self.say("Dry run: nobody was asked and nothing was written.")
        return 0

    def run(self, confirm: Callable[[str], bool]) -> int:
        """Filters, asks, and writes all files."""
        self.judged.open()
        try:
            candidates = self._find_candidates()
        finally:
            self.judged.close()
        if self.asking is None:
            self._write_questions(candidates)
            return 0
        asked: BaseException | None = None
        if any(self.asking.look_up(candidate).needs_asking for candidate in candidates):
            if not confirm("\n".join(describe_cost(self.asking, candidates))):
                self.say("Nobody was asked.")
                return 1
            asked = self._ask(candidates)
        self._write_answers([self.asking.look_up(candidate) for candidate in candidates])
        if asked is not None:
            raise asked
        return 1 if self.asking.faults else 0

    def _ask(self, candidates: Sequence[Candidate]) -> BaseException | None:
        """Asks, and returns what ended it early: what was answered until then is written all the same."""
        assert self.asking is not None
        self.answers.open()
        try:
            self.asking.run(candidates)
        except (LlavaError, KeyboardInterrupt) as error:
            return error
        finally:
            self.answers.close()
        return None

    def _find_candidates(self) -> list[Candidate]:
        candidates = self.filters.apply()
        decided = self.decisions.rows if self.decisions is not None else {}
        if decided and candidates and not any(candidate.id in decided for candidate in candidates):
            raise UsageError(
                f"None of the {len(decided):,} rows that were decided is among the {len(candidates):,} candidates: is "
                "it the review of another collection? Nothing was changed."
            )
        return [candidate for candidate in candidates if self._is_wanted(candidate)]

    def _is_wanted(self, candidate: Candidate) -> bool:
        """Whether the review lets it pass. What a candidate asks follows from its id, so what was seen is the same."""
        if self.decisions is None or self.decisions.is_accepted(candidate.id):
            return True
        is_dropped = self.decisions.is_dropped(candidate.id)
        if is_dropped or not self.settings.keeps_undecided:
            reason = "dropped in the review" if is_dropped else "undecided in the review"
            self.removed.add(reason, candidate.request)
            return False
        return True

    def _write_questions(self, candidates: Sequence[Candidate]) -> None:
        """Writes what can be written without a teacher: the sheet, and what was left out."""
        sheets = write_sheets([_make_sheet_row(candidate) for candidate in candidates], self.settings.out)
        self._write_left_out()
        self._say_table(len(candidates), "candidates")
        for sheet in sheets:
            self.say(f"Review: {sheet}")
        if candidates:
            self.say("No answers yet: name a teacher with --teacher URL --teacher-model NAME.")

    def _write_answers(self, answered: Sequence[Answered]) -> None:
        """Writes rows, images, provenance, the sheet, and what was left out."""
        assert self.asking is not None
        out = self.settings.out
        rows: list[dict[str, Any]] = []
        provenance: list[dict[str, Any]] = []
        sheet_rows: list[SheetRow] = []
        for one in answered:
            if not one.entries:
                kind = one.fault.partition(":")[0]
                reason = f"answer: {kind}" if kind else "not answered yet"
                self.removed.add(reason, one.candidate.request, detail=one.fault)
                continue
            row = make_row(one)
            parse_record(row, len(rows), _DATA)
            rows.append(row)
            provenance.append(self._describe(one))
            sheet_rows.append(_make_sheet_row(one.candidate, one.answers, provenance[-1]["model"]))
        _copy_images(answered, out / "images")
        write_whole(out / _PROVENANCE, _write_lines(provenance))
        write_whole(out / _DATA, json.dumps(rows, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"))
        sheets = write_sheets(sheet_rows, out)
        self._write_left_out()
        self._say_table(len(rows), "rows")
        for fault, num in self.asking.faults.most_common(5):
            self.say(f"No answer to {num:,}: {fault}")
        if self.asking.limit:
            self.say(f"The budget ended the run: {self.asking.limit}. Raise it and run the same command to go on.")
        self.say(_say_spent(self.asking))
        for path in (out / _DATA, *sheets):
            self.say(f"Written: {path}")

    def _describe(self, answered: Answered) -> dict[str, Any]:
        """The provenance of a row."""
        request, entries, asking = answered.candidate.request, answered.entries, self.settings.asking
        assert asking is not None
        return {
            "id": request.id,
            "log": request.log,
            "line": request.number,
            "line_sha256": request.line,
            "logged": request.time,
            "consent": request.consent,
            "filters": [*answered.candidate.filters, *(["review"] if self.decisions else []), "answer checks"],
            "teacher": entries[-1]["teacher"],
            "model": entries[-1]["model"],
            "date": entries[-1]["time"],
            "prompt": asking.prompt,
            "questions": len(request.turns),
            "answered": len(entries),
        }

    def _write_left_out(self) -> None:
        write_whole(self.settings.out / _LEFT_OUT, _write_lines(self.removed.places))

    def _say_table(self, num: int, what: str) -> None:
        """Prints how many lines were read, what was left out and why, and what is left."""
        counts = self.removed.counts
        rows = [("lines read", self.filters.num_lines), *((f"  - {reason}", -n) for reason, n in counts.most_common())]
        width = max(len(name) for name, _ in [*rows, (what, 0)])
        for name, number in [*rows, (what, num)]:
            self.say(f"{name:<{width}}  {number:>9,}")
        if self.filters.num_unread:
            why = "in a dry run" if self.settings.filters.reader else "without a reader: name one with --ocr"
            self.say(f"The text on {self.filters.num_unread:,} images was not checked {why}.")


def make_row(answered: Answered) -> dict[str, Any]:
    """The row of LLaVA's data format: as many questions as have good answers."""
    request, answers = answered.candidate.request, answered.answers
    turns = request.turns[: len(answers)]
    said: list[dict[str, str]] = [{"from": "system", "value": request.system}] if request.system else []
    for turn, answer in zip(turns, answers, strict=True):
        slots = f"{SLOT}\n" * len(turn.images)
        said += [{"from": "human", "value": slots + turn.text}, {"from": "gpt", "value": answer}]
    images = [f"images/{image}.png" for turn in turns for image in turn.images]
    shown = {"image": images[0] if len(images) == 1 else images} if images else {}
    return {"id": request.id, **shown, "conversations": said, "data_source": SOURCE}


def describe_cost(asking: Asking, candidates: Sequence[Candidate]) -> list[str]:
    """What asking the candidates will cost, as lines."""
    most, usual = asking.estimate(candidates)
    budget, teacher = asking.budget, asking.settings.teacher
    lines = [f"Teacher: {teacher.model} at {teacher.url}"]
    lines.append(
        f"Questions to ask: {most.requests:,}; about {usual.tokens_in:,} tokens in, {usual.tokens_out:,} to "
        f"{most.tokens_out:,} out (estimated)"
    )
    if budget.prices.is_known:
        usual_cost, most_cost = (
            _say_cost(budget.prices.find_cost(one.tokens_in, one.tokens_out)) for one in (usual, most)
        )
        lines.append(f"Cost: about {usual_cost}, at most {most_cost} (spent before: {_say_cost(budget.cost)})")
    else:
        lines.append("Cost: unknown; give the prices per million tokens with --price-in and --price-out")
    if most.requests and (limit := budget.find_limit(most)):
        lines.append(f"The budget may end it before: {limit}")
    return lines


def review(sheets: Sequence[Path], folder: Path, out: Path | None, keeps_undecided: bool) -> list[str]:
    """Writes the rows of ``folder`` that were accepted, and returns what to print.

    ``out``: the file, by default ``accepted.json`` in the folder. Raises UsageError for files that do not fit.
    """
    decisions = read_decisions(sheets)
    try:
        rows = json.loads((folder / _DATA).read_text(encoding="utf-8"))
        kept = {row["id"]: row for row in rows}
        seen = {id: _find_seen(id, row) for id, row in kept.items()}
    except OSError as error:
        raise UsageError(
            f"'{folder / _DATA}' cannot be read: {error.strerror or error}. Name the folder of llava data collect."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"'{folder / _DATA}' is damaged: run llava data collect again.") from error
    states: dict[str, str] = {}
    for id in kept:
        if decisions.is_dropped(id):
            states[id] = "dropped"
        elif decisions.is_accepted(id, seen[id]):
            states[id] = "accepted"
        else:
            states[id] = "changed since the review" if decisions.is_accepted(id) else "undecided"
    unknown = sum(id not in kept for id in decisions.rows)
    if not kept or unknown == len(decisions.rows) > 0:
        raise UsageError(
            f"None of the {unknown:,} rows that were decided is in '{folder / _DATA}': another collection?"
        )
    wanted = {"accepted", "undecided"} if keeps_undecided else {"accepted"}
    accepted = [row for id, row in kept.items() if states[id] in wanted]
    path = out or folder / _ACCEPTED
    write_whole(path, json.dumps(accepted, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"))
    lines = [
        f"{name:<25}{sum(state == name for state in states.values()):>7,}"
        for name in ("accepted", "dropped", "undecided", "changed since the review")
    ]
    if unknown:
        lines.append(f"{'not in the data':<25}{unknown:>7,}")
    return [*lines, f"Written: {path} ({len(accepted):,} rows)"]


def _find_seen(id: str, row: dict[str, Any]) -> str:
    """The digest of what a review sheet shows of a row."""
    return SheetRow(id, tuple((turn["from"], _strip_slots(turn["value"])) for turn in row["conversations"])).seen


def _strip_slots(text: str) -> str:
    while text.startswith(f"{SLOT}\n"):
        text = text[len(SLOT) + 1 :]
    return text


def _make_sheet_row(candidate: Candidate, answers: Sequence[str] = (), model: str = "") -> SheetRow:
    request = candidate.request
    said = [("system", request.system)] if request.system else []
    turns = request.turns[: len(answers)] if answers else request.turns
    for i, turn in enumerate(turns):
        said.append(("human", turn.text))
        if i < len(answers):
            said.append(("gpt", answers[i]))
    num_images = sum(len(turn.images) for turn in turns)
    facts = " · ".join(filter(None, (request.id, f"{request.log}, line {request.number}", fit_line(model, 80))))
    return SheetRow(request.id, tuple(said), candidate.paths[:num_images], facts)


def _say_spent(asking: Asking) -> str:
    spent: Usage = asking.budget.spent
    cost = f", cost {_say_cost(asking.budget.cost)}" if asking.budget.prices.is_known else ""
    return (
        f"Answered in this run: {asking.num_asked:,}; in all {spent.requests:,} requests, {spent.tokens_in:,} tokens "
        f"in, {spent.tokens_out:,} out{cost}"
    )


def _say_cost(cost: float) -> str:
    return f"{cost:,.2f}" if cost >= 1 or cost == 0 else f"{cost:.4f}"


def _copy_images(answered: Iterable[Answered], folder: Path) -> None:
    """Copies the rows' images, each once and atomically. Raises LlavaError."""
    for one in answered:
        if not one.entries:
            continue
        num_images = sum(len(turn.images) for turn in one.candidate.request.turns[: len(one.entries)])
        for source in one.candidate.paths[:num_images]:
            target = folder / source.name
            part = folder / f".{source.name}.part"
            try:
                if target.is_file() and target.stat().st_size == source.stat().st_size:
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    shutil.copyfile(source, part)
                    part.replace(target)
                finally:
                    part.unlink(missing_ok=True)
            except OSError as error:
                reason = error.strerror or error
                raise LlavaError(f"'{target}' cannot be written: {reason}. Run the same command again.") from error


def _write_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")
