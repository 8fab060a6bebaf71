"""Lets a teacher answer the candidates: concurrently, within a budget, and never the same question twice.

Each answer is in the journal, on the disk, before the next question of that conversation. Whether an answer is good is
decided when it is used, so stricter checks apply to old answers without asking again.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llava.data.budget import Attempts, Budget, RunningRequests, Usage, estimate_image_tokens, estimate_text_tokens
from llava.data.chat_client import ChatClient, ClientSettings, Reply
from llava.data.collection.answer_checks import find_fault, strip_thoughts
from llava.data.collection.journal import Journal
from llava.data.collection.plug_ins import write_image_part
from llava.data.collection.request_filters import Candidate
from llava.data.first_interrupt import catch_first_interrupt
from llava.data.harm import HarmRule
from llava.errors import LlavaError
from llava.image.source import load_image, measure_image
from llava.text import write_line

PROMPT = (
    "You answer questions of real users about images. Look at the image carefully and answer exactly what is asked, "
    "completely and truthfully, in the language of the question unless it asks for another one. Say what you cannot "
    "see instead of guessing. Do not identify real people, and do not repeat personal data such as phone numbers, "
    "addresses or identity numbers."
)
_LINE_EVERY_S = 5.0


@dataclass(frozen=True)
class AskingSettings:
    """How candidates are answered.

    Attributes:
        prompt: the system text for the teacher; a request's own system text follows it.
        concurrency: requests at the same time.
        languages: in which answers have to be; by default that of each question.
        retries_invalid: whether questions whose answer could not be used are asked again, once in this run.
        max_faults_in_a_row: unusable answers in a row after which the work stops: the teacher is broken.
    """

    teacher: ClientSettings
    prompt: str = PROMPT
    concurrency: int = 4
    languages: frozenset[str] = frozenset()
    least_characters: int = 1
    most_characters: int = 20_000
    retries_invalid: bool = False
    max_faults_in_a_row: int = 20


@dataclass
class Answered:
    """A candidate with the teacher's good answers to its first questions; ``fault``: why there are no more."""

    candidate: Candidate
    entries: list[dict[str, Any]] = field(default_factory=list)
    fault: str = ""
    needs_asking: bool = False  # its next question has no answer yet

    @property
    def answers(self) -> list[str]:
        """The answers' texts."""
        return [strip_thoughts(entry["answer"]) for entry in self.entries]


class Asking:
    """The questions of candidates to one teacher, and what it answered before."""

    def __init__(
        self, settings: AskingSettings, budget: Budget, journal: Journal, rules: tuple[HarmRule, ...] = ()
    ) -> None:
        self.settings, self.budget, self.journal, self._rules = settings, budget, journal, rules
        for entry in journal.history:
            budget.spent += _read_usage(entry)
        self.faults: Counter[str] = Counter()  # of questions that got no answer in this run
        self._running = RunningRequests(budget, lambda: self._is_over)
        self.num_asked = 0
        self._in_a_row = 0
        self._stopped: Exception | None = None
        self._is_interrupted = False
        self._asked: set[str] = set()
        self._judged: dict[tuple[str, str], str] = {}

    def look_up(self, candidate: Candidate) -> Answered:
        """The candidate with the answers that the journal holds."""
        answered = Answered(candidate)
        for turn in candidate.request.turns:
            key = self._find_key(candidate, answered.answers)
            entry = self.journal.entries.get(key)
            if entry is None:
                answered.needs_asking = True
                break
            answered.fault = self._judge(turn.text, entry)
            if answered.fault:
                answered.needs_asking = self.settings.retries_invalid and key not in self._asked
                break
            answered.entries.append(entry)
        return answered

    def estimate(self, candidates: Sequence[Candidate]) -> tuple[Usage, Usage]:
        """What asking costs at most, and what it costs if answers take a quarter of their longest length."""
        most, usual = Usage(), Usage()
        longest = self.settings.teacher.max_answer_tokens
        for candidate in candidates:
            answered = self.look_up(candidate)
            if not answered.needs_asking:
                continue
            begun = len(answered.entries)
            for i in range(begun, len(candidate.request.turns)):
                tokens = self._estimate_input(candidate, answered.answers, i)
                most += Usage(1, tokens + longest * (i - begun), longest)
                usual += Usage(1, tokens + longest // 4 * (i - begun), longest // 4)
        return most, usual

    def run(self, candidates: Sequence[Candidate], **teacher_options: Any) -> None:
        """Asks all that has no answer yet.

        ``teacher_options``: those of ``ChatClient``.

        Raises:
            LlavaError: the teacher cannot be used, or answers nothing usable many times in a row.
            KeyboardInterrupt: after Ctrl-C, when the running requests have ended.
        """
        asyncio.run(self._run(ChatClient(self.settings.teacher, **teacher_options), candidates))
        if self._stopped is not None:
            raise self._stopped
        if self._is_interrupted:
            raise KeyboardInterrupt

    async def _run(self, teacher: ChatClient, candidates: Sequence[Candidate]) -> None:
        self._running.open()
        self._lines = _Lines(len(candidates))
        waiting = iter(candidates)
        async with teacher:
            with catch_first_interrupt(self._interrupt):
                workers = [self._work(teacher, waiting) for _ in range(self.settings.concurrency)]
                await asyncio.gather(*workers)

    async def _work(self, teacher: ChatClient, waiting: Iterator[Candidate]) -> None:
        for candidate in waiting:
            if self._is_over:
                return
            try:
                await self._answer(teacher, candidate)
            except Exception as error:
                self._stopped = self._stopped or error
                return
            self._lines.say(self)

    @property
    def limit(self) -> str:
        """The limit of the budget that ended the work, in words; "" if none did."""
        return self._running.limit

    @property
    def _is_over(self) -> bool:
        return self._stopped is not None or self._is_interrupted or bool(self.limit)

    async def _answer(self, teacher: ChatClient, candidate: Candidate) -> None:
        """Asks the questions of one candidate, one after another."""
        while not self._is_over:
            answered = self.look_up(candidate)
            if not answered.needs_asking:
                return
            turn = len(answered.entries)
            tokens = self._estimate_input(candidate, answered.answers, turn)
            estimate = Usage(1, tokens, self.settings.teacher.max_answer_tokens)
            if not await self._running.reserve(estimate):
                return
            attempts = Attempts(self.budget, lambda: self._is_over)
            reply = Reply()
            try:
                messages = await asyncio.to_thread(self._write_messages, candidate, answered.answers)
                reply = await teacher.ask(messages, Usage(1, tokens, self._guess_output()), attempts.may_send)
            finally:
                await self._running.settle(estimate + Usage(attempts.num_more), reply.used)
            self._keep(candidate, answered, reply)
            if reply.fault:
                return

    def _guess_output(self) -> int:
        return self.settings.teacher.max_answer_tokens // 4

    def _keep(self, candidate: Candidate, answered: Answered, reply: Reply) -> None:
        """Writes the reply to the journal. Raises LlavaError if the disk is full or the teacher seems broken."""
        turn = len(answered.entries)
        key = self._find_key(candidate, answered.answers)
        facts = {
            "id": candidate.id,
            "turn": turn,
            "teacher": self.settings.teacher.url,
            "model": reply.model or self.settings.teacher.model,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "requests": reply.used.requests,
            "tokens_in": reply.used.tokens_in,
            "tokens_out": reply.used.tokens_out,
        }
        self._asked.add(key)
        if reply.fault:
            self.faults[reply.fault] += 1
            if reply.used.requests:
                self.journal.write({"key": f"{key} {len(self.journal.history)}", "unanswered": reply.fault, **facts})
            fault = reply.fault
        else:
            self.num_asked += 1
            entry = {"key": key, "answer": reply.text, "finish_reason": reply.finish_reason, **facts}
            self.journal.write(entry)
            fault = self._judge(candidate.request.turns[turn].text, entry)
        self._in_a_row = self._in_a_row + 1 if fault else 0
        if self._in_a_row >= self.settings.max_faults_in_a_row:
            raise LlavaError(
                f"The last {self._in_a_row} answers of the teacher could not be used, the last one because: {fault}. "
                "Check the model and its endpoint; what was answered is kept, and the same command goes on from there."
            )

    def _judge(self, question: str, entry: dict[str, Any]) -> str:
        settings, place = self.settings, (entry["key"], str(entry.get("answer", "")))
        if place not in self._judged:
            self._judged[place] = find_fault(
                question,
                strip_thoughts(place[1]),
                entry.get("finish_reason"),
                self._rules,
                languages=settings.languages,
                least_characters=settings.least_characters,
                most_characters=settings.most_characters,
            )
        return self._judged[place]

    def _find_key(self, candidate: Candidate, answers: Sequence[str]) -> str:
        """Follows from all that decides about an answer: a changed model or prompt asks again."""
        teacher, turn = self.settings.teacher, len(answers)
        asked = [teacher.model, self.settings.prompt, candidate.request.digests[turn], list(answers)]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:40]

    def _find_system(self, candidate: Candidate) -> str:
        return "\n\n".join(filter(None, (self.settings.prompt, candidate.request.system)))

    def _estimate_input(self, candidate: Candidate, answers: Sequence[str], turn: int) -> int:
        texts = [self._find_system(candidate), *(one.text for one in candidate.request.turns[: turn + 1]), *answers]
        num_images = sum(len(one.images) for one in candidate.request.turns[: turn + 1])
        images = sum(estimate_image_tokens(measure_image(path)) for path in candidate.paths[:num_images])
        return sum(map(estimate_text_tokens, texts)) + images

    def _write_messages(self, candidate: Candidate, answers: Sequence[str]) -> list[dict[str, Any]]:
        """The messages up to the next question, each image before the text of its turn."""
        system = self._find_system(candidate)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        paths = iter(candidate.paths)
        for i, turn in enumerate(candidate.request.turns[: len(answers) + 1]):
            parts: list[dict[str, Any]] = [write_image_part(load_image(next(paths)).image) for _ in turn.images]
            messages.append({"role": "user", "content": [*parts, {"type": "text", "text": turn.text}]})
            if i < len(answers):
                messages.append({"role": "assistant", "content": answers[i]})
        return messages

    def _interrupt(self) -> None:
        self._is_interrupted = True
        write_line(
            f"llava: stopping; waiting for {self._running.num_open} running requests (Ctrl-C again: do not wait)."
        )


class _Lines:
    """Says every few seconds how far the work is."""

    def __init__(self, num_all: int) -> None:
        self._num_all, self._num_done = num_all, 0
        self._began = self._said_at = time.monotonic()

    def say(self, asking: Asking) -> None:
        """Counts one candidate as done, and says a line if the last one is old enough."""
        self._num_done += 1
        now = time.monotonic()
        if now - self._said_at < _LINE_EVERY_S:
            return
        self._said_at = now
        left_s = (now - self._began) / self._num_done * (self._num_all - self._num_done)
        budget = asking.budget
        cost = f", cost {budget.cost:.4g}" if budget.prices.is_known else ""
        write_line(
            f"llava: {self._num_done:,} of {self._num_all:,} requests: {asking.num_asked:,} answered, "
            f"{sum(asking.faults.values()):,} without an answer{cost}, about {left_s / 60:.0f} min left"
        )


def _read_usage(entry: dict[str, Any]) -> Usage:
    numbers = [entry.get(name) for name in ("requests", "tokens_in", "tokens_out")]
    return Usage(*(number if isinstance(number, int) else 0 for number in numbers))
