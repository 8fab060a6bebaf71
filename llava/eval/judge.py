"""Asks a judge: any model behind an endpoint with OpenAI's chat completions API. Loads no torch.

Reviews are asked for concurrently, within a budget, and each reply is in a journal on the disk before it counts, so the
same command goes on after a kill and pays for nothing twice. A review without a reply (the endpoint failed, or refused)
is asked for again by the next run; a reply that cannot be read is kept and counted apart. Needs httpx.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llava.data.budget import Attempts, Budget, RunningRequests, Usage, estimate_text_tokens
from llava.data.chat_client import ChatClient, ClientSettings
from llava.data.collection.answer_checks import strip_thoughts
from llava.data.collection.journal import Journal
from llava.data.first_interrupt import catch_first_interrupt
from llava.data.long_work import LongWork
from llava.errors import LlavaError
from llava.text import fit_line, write_line

MOST_FAULTS_IN_A_ROW = 10
"""Reviews without a reply, one after another, after which the endpoint counts as broken."""


@dataclass(frozen=True)
class Ask:
    """One request: messages, and a temperature (None: the client's)."""

    messages: tuple[dict[str, Any], ...]
    temperature: float | None = None


@dataclass(frozen=True)
class ReviewRequest:
    """A review to be made. A later one of ``asks`` is sent only if the reply to the one before cannot be read."""

    id: str
    asks: tuple[Ask, ...]


@dataclass(frozen=True)
class Review:
    """The judge's last reply about ``id``, or the ``fault`` for which there is none."""

    id: str
    text: str = ""
    fault: str = ""
    num_asked: int = 0


@dataclass(frozen=True)
class JudgeFacts:
    """What a report says about the judge.

    Attributes:
        models: how the endpoint named the model, with the number of replies.
        first, last: dates of the replies, "" if there are none.
        prompt_digest: of all that is the same in every request: templates, temperatures, the longest answer.
    """

    asked_model: str
    url: str
    models: dict[str, int]
    first: str
    last: str
    prompt_digest: str
    spent: Usage
    cost: float | None

    @property
    def line(self) -> str:
        """All of it in one line."""
        names = ", ".join(f"{fit_line(name, 60)} ({num})" for name, num in self.models.items()) or "no reply"
        dates = self.first if self.first == self.last else f"{self.first} to {self.last}"
        cost = "" if self.cost is None else f", cost {self.cost:.4g}"
        return (
            f"judge {self.asked_model} at {self.url}; replies by {names}; {dates or 'no date'}; prompt "
            f"{self.prompt_digest}; {self.spent.requests:,} requests, {self.spent.tokens_in:,} tokens in, "
            f"{self.spent.tokens_out:,} out{cost}"
        )


@dataclass
class Judge:
    """A judge with its journal, which is open while reviews are asked for.

    ``is_readable``: whether a reply holds what is wanted; if not, the next of the request's asks is sent.
    """

    client: ClientSettings
    journal: Journal
    budget: Budget = field(default_factory=Budget)
    concurrency: int = 4
    is_readable: Callable[[str], bool] = lambda text: True
    prompt: str = ""

    def __post_init__(self) -> None:
        self._running = RunningRequests(self.budget, lambda: self._is_over)
        self.faults: Counter[str] = Counter()
        self._in_a_row = self._num_done = 0
        self._stopped: Exception | None = None
        self._is_interrupted = False
        for entry in self.journal.history:
            self.budget.spent += _read_usage(entry)

    def look_up(self, request: ReviewRequest) -> Review | None:
        """The review that the journal holds; None if it has to be asked for."""
        entry = self.journal.entries.get(self._find_key(request))
        if entry is None or not isinstance(entry.get("texts"), list) or not entry["texts"]:
            return None
        return Review(request.id, str(entry["texts"][-1]), "", len(entry["texts"]))

    def forget(self, is_forgotten: Callable[[str], bool]) -> None:
        """Lets reviews be asked for again whose reply is such."""
        entries = self.journal.entries
        for key in [key for key, entry in entries.items() if entry.get("texts") and is_forgotten(entry["texts"][-1])]:
            del entries[key]

    def estimate(self, requests: Sequence[ReviewRequest]) -> tuple[Usage, Usage]:
        """What is still to be paid if every answer has its longest length, and if it has a quarter of that.

        Neither counts what is asked again.
        """
        longest = self.client.max_answer_tokens
        new = [request for request in requests if self.look_up(request) is None]
        tokens = sum(_estimate_input(request.asks[0]) for request in new)
        return Usage(len(new), tokens, longest * len(new)), Usage(len(new), tokens, -(-longest // 4) * len(new))

    def describe_cost(self, requests: Sequence[ReviewRequest], num_all: int) -> str:
        """What the reviews will cost, as a line to be shown before; ``num_all``: with those that are made already."""
        most, usual = self.estimate(requests)
        prices = self.budget.prices
        cost = "; the cost is unknown without prices"
        if prices.is_known:
            amounts = [prices.find_cost(usage.tokens_in, usage.tokens_out) for usage in (usual, most)]
            cost = f"; cost about {amounts[0]:.4g}, at most {amounts[1]:.4g}"
        return (
            f"llava: {most.requests:,} of {num_all:,} reviews to ask {self.client.model} at {self.client.url} "
            f"for: about {most.tokens_in:,} tokens in and {usual.tokens_out:,} out, at most {most.tokens_out:,} out"
            f"{cost}."
        )

    def find_models(self) -> dict[str, str]:
        """How the endpoint named the model of each reply, by the review's id."""
        replies = [entry for entry in self.journal.entries.values() if entry.get("texts")]
        return {str(entry.get("id")): str(entry.get("model")) for entry in replies}

    def find_others(self) -> dict[str, str]:
        """By the review's id, which other judge was asked for the reply that the journal holds."""
        replies = [entry for entry in self.journal.entries.values() if entry.get("texts")]
        asked = {str(entry.get("id")): str(entry.get("asked", self.client.model)) for entry in replies}
        return {key: name for key, name in asked.items() if name != self.client.model}

    def describe(self) -> JudgeFacts:
        """What the journal says about the judge."""
        replies = [entry for entry in self.journal.entries.values() if entry.get("texts")]
        dates = sorted(str(entry.get("time", ""))[:10] for entry in replies)
        same = [self.prompt, self.client.temperature, self.client.max_answer_tokens]
        return JudgeFacts(
            self.client.model,
            self.client.url,
            dict(Counter(str(entry.get("model")) for entry in replies).most_common()),
            dates[0] if dates else "",
            dates[-1] if dates else "",
            hashlib.sha256(json.dumps(same).encode()).hexdigest()[:12],
            self.budget.spent,
            self.budget.cost if self.budget.prices.is_known else None,
        )

    def run(self, requests: Sequence[ReviewRequest], keep: Callable[[Review], object], **client_options: Any) -> None:
        """Asks for all reviews that the journal lacks, and gives every review to ``keep``, as they come.

        ``client_options``: those of ``ChatClient``.

        Raises:
            LlavaError: the endpoint cannot be used, or gives no reply many times in a row; what came is kept.
            KeyboardInterrupt: after Ctrl-C, when the running requests have ended.
        """
        new = []
        for request in requests:
            review = self.look_up(request)
            if review is None:
                new.append(request)
            else:
                keep(review)
        if new:
            asyncio.run(self._run(new, keep, client_options))
        if self._stopped is not None:
            raise self._stopped
        if self._is_interrupted:
            raise KeyboardInterrupt

    @property
    def limit(self) -> str:
        """The limit of the budget that ended the work, in words; "" if none did."""
        return self._running.limit

    @property
    def _is_over(self) -> bool:
        return self._stopped is not None or self._is_interrupted

    def _interrupt(self) -> None:
        self._is_interrupted = True
        write_line(
            f"llava: stopping; waiting for {self._running.num_open} running requests (Ctrl-C again: do not wait)."
        )

    async def _run(
        self, requests: Sequence[ReviewRequest], keep: Callable[[Review], object], options: dict[str, Any]
    ) -> None:
        self._running.open()
        waiting = iter(requests)
        with LongWork("Asking for reviews", len(requests), " reviews") as work:
            async with ChatClient(self.client, **options) as client:
                with catch_first_interrupt(self._interrupt):
                    num_workers = min(self.concurrency, len(requests))
                    await asyncio.gather(*(self._work(client, waiting, keep, work) for _ in range(num_workers)))

    async def _work(
        self,
        client: ChatClient,
        waiting: Iterator[ReviewRequest],
        keep: Callable[[Review], object],
        work: LongWork,
    ) -> None:
        for request in waiting:
            if self._is_over or self.limit:
                return
            try:
                review = await self._review(client, request)
                if review is None:
                    return
                keep(review)
            except Exception as error:
                self._stopped = self._stopped or error
                return
            self._num_done += 1
            work.move_to(self._num_done)

    async def _review(self, client: ChatClient, request: ReviewRequest) -> Review | None:
        """The review, after it was written to the journal; None if no request may be sent any more."""
        texts: list[str] = []
        used, model, fault = Usage(), "", ""
        for ask in request.asks:
            estimate = Usage(1, _estimate_input(ask), self.client.max_answer_tokens)
            if not await self._running.reserve(estimate):
                fault = f"the budget {self.limit} is spent" if self.limit else "the work was stopped"
                break
            attempts, reply_used = Attempts(self.budget, lambda: self._is_over), Usage()
            try:
                messages = list(ask.messages)
                reply = await client.ask(messages, estimate, attempts.may_send, temperature=ask.temperature)
                reply_used = reply.used
            finally:
                await self._running.settle(estimate + Usage(attempts.num_more), reply_used)
            used, model, fault = used + reply.used, reply.model or model, reply.fault
            if fault:
                break
            is_thought = reply.text.lstrip().startswith("<think>")
            texts.append(strip_thoughts(reply.text) if is_thought else reply.text)
            if self.is_readable(texts[-1]):
                break
        if fault and not used.requests:
            return None
        return self._keep(request, texts, fault, model, used)

    def _keep(self, request: ReviewRequest, texts: list[str], fault: str, model: str, used: Usage) -> Review:
        facts = {
            "id": request.id,
            "asked": self.client.model,
            "model": model or self.client.model,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "requests": used.requests,
            "tokens_in": used.tokens_in,
            "tokens_out": used.tokens_out,
        }
        key = self._find_key(request)
        if not fault:
            self.journal.write({"key": key, "texts": texts, **facts})
            self._in_a_row = 0
            return Review(request.id, texts[-1], "", len(texts))
        self.journal.write({"key": f"{key} {len(self.journal.history)}", "unanswered": fault, **facts})
        self.faults[fault] += 1
        self._in_a_row += 1
        if self._in_a_row >= MOST_FAULTS_IN_A_ROW:
            raise LlavaError(
                f"The last {self._in_a_row} reviews got no reply, the last one because: {fault}. Check the judge's "
                "model and endpoint; what it answered is kept, and the same command goes on from there."
            )
        return Review(request.id, "", fault, len(texts))

    def _find_key(self, request: ReviewRequest) -> str:
        """Follows from all that decides about a review: a changed judge, prompt or answer asks again."""
        asks = [[list(ask.messages), ask.temperature] for ask in request.asks]
        asked = [request.id, self.client.model, self.client.temperature, self.client.max_answer_tokens, asks]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:40]


def _estimate_input(ask: Ask) -> int:
    return sum(estimate_text_tokens(str(message["content"])) for message in ask.messages)


def _read_usage(entry: dict[str, Any]) -> Usage:
    numbers = [entry.get(name) for name in ("requests", "tokens_in", "tokens_out")]
    return Usage(*(number if isinstance(number, int) else 0 for number in numbers))
