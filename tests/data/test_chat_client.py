"""Asking a model behind an endpoint: retries, Retry-After, faults that last, budgets; no time passes in these tests."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from llava.data.budget import Budget, Prices, Usage, estimate_image_tokens, estimate_text_tokens
from llava.data.chat_client import ChatClient, ClientSettings, Reply, read_retry_after, read_url
from llava.errors import LlavaError, UsageError
from llava.image.geometry import Size
from tests.data.user_logs import FakeTeacher, complete, run_teacher

HELLO = [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def ask(teacher: FakeTeacher, clock: Clock | None = None, **changes: Any) -> Reply:
    clock = clock or Clock()
    settings = dataclasses.replace(ClientSettings(teacher.url, "m", key="secret"), **changes)

    async def run() -> Reply:
        async with ChatClient(settings, sleep=clock.sleep, clock=lambda: clock.now, draw=lambda: 1.0) as client:
            return await client.ask(HELLO, Usage(1, 70, 7))

    return asyncio.run(run())


def in_turn(*answers: Any) -> Any:
    """Answers that come one after another."""
    left: Iterator[Any] = iter(answers)
    return lambda request: next(left)


def test_an_answer_comes_with_what_it_has_cost() -> None:
    with run_teacher(in_turn(complete("Hi.", prompt_tokens=12, completion_tokens=3))) as teacher:
        reply = ask(teacher, max_answer_tokens=55, temperature=0.5)
    assert reply == Reply("Hi.", "stop", "teacher-1", Usage(1, 12, 3))
    assert teacher.requests == [{"model": "m", "messages": HELLO, "max_tokens": 55, "temperature": 0.5}]
    assert teacher.keys == ["Bearer secret"]


def test_passing_faults_are_tried_again_after_pauses_that_double() -> None:
    faults = [(500, {}, b"oops"), (429, {}, b"{}"), (200, {}, b"<html>busy</html>"), (503, {}, {"error": "down"})]
    clock = Clock()
    with run_teacher(in_turn(*faults, complete("Hi."))) as teacher:
        reply = ask(teacher, clock)
    assert (reply.text, reply.used.requests, reply.fault) == ("Hi.", 5, "")
    assert clock.slept == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'{"choices": []}', b'{"choices": [{}]}', b'{"choices": [{"message": {"content": 3}}]}']
    + [b"\xff\xfe", b"[" * 50_000, b'{"choices": [{"message": {"content": [1]}}]}', b'{"error": "x"}'],
)
def test_nonsense_is_no_answer(body: bytes) -> None:
    with run_teacher(lambda request: body) as teacher:
        reply = ask(teacher, max_attempts=2)
    assert reply.text == ""
    assert reply.fault.startswith("not a chat completion: ")
    assert reply.fault.endswith(" (after 2 attempts)")
    assert reply.used == Usage(2)


def test_retry_after_is_respected_by_every_request() -> None:
    clock = Clock()
    settings = ClientSettings("", "m")
    answers = in_turn((429, {"Retry-After": "30"}, b"{}"), complete("One."), complete("Two."))
    with run_teacher(answers) as fake:

        async def run() -> list[Reply]:
            client = ChatClient(
                dataclasses.replace(settings, url=fake.url),
                sleep=clock.sleep,
                clock=lambda: clock.now,
                draw=lambda: 0.0,
            )
            async with client:
                first = await client.ask(HELLO, Usage())
                return [first, await client.ask(HELLO, Usage())]

        assert [reply.text for reply in asyncio.run(run())] == ["One.", "Two."]
    assert sum(clock.slept) == 30.0


def test_a_wait_that_is_too_long_ends_the_work() -> None:
    with run_teacher(lambda request: (429, {"Retry-After": "7200"}, b"{}")) as teacher:
        with pytest.raises(LlavaError, match=r"wait for 7,200 s .* run the same command again"):
            ask(teacher)
        assert len(teacher.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 5.0), ("0", 0.0), ("-3", 0.0), ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0), ("nan", None), ("soon", None)]
    + [("", None), (None, None), ("1e999", float("inf"))],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, now=10.0) == seconds


@pytest.mark.parametrize(
    ("status", "word"), [(401, "key"), (403, "key"), (404, "--teacher-model"), (402, "credit"), (301, "--teacher")]
)
def test_a_fault_that_every_request_would_have_ends_the_work(status: int, word: str) -> None:
    with run_teacher(lambda request: (status, {}, {"error": {"message": "no"}})) as teacher:
        with pytest.raises(UsageError, match=rf"HTTP {status}: no\. .*{word}"):
            ask(teacher)
        assert len(teacher.requests) == 1


def test_an_account_without_credit_is_not_tried_again() -> None:
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    with run_teacher(lambda request: (429, {}, body)) as teacher:
        with pytest.raises(UsageError, match="no credit left"):
            ask(teacher)
        assert len(teacher.requests) == 1


def test_the_newer_name_of_the_longest_answer_is_used_where_it_is_asked_for() -> None:
    refusal = (400, {}, {"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'."}})
    with run_teacher(in_turn(refusal, complete("Hi."))) as teacher:
        assert ask(teacher, max_answer_tokens=9).text == "Hi."
    assert [request.get("max_completion_tokens") for request in teacher.requests] == [None, 9]


def test_requests_that_were_under_way_follow_the_newer_name_too() -> None:
    refusal = (400, {}, {"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'."}})
    clock, begun = Clock(), []

    async def run(url: str) -> list[Reply]:
        async with ChatClient(ClientSettings(url, "m"), sleep=clock.sleep, clock=lambda: clock.now) as client:
            post = client._post

            async def post_when_both_are_sent(*sent: Any) -> Any:
                found = await post(*sent)
                begun.append(found)
                while len(begun) < 2:
                    await asyncio.sleep(0)
                return found

            client._post = post_when_both_are_sent  # type: ignore[method-assign]
            return list(await asyncio.gather(*(client.ask(HELLO, Usage(1, 7, 7)) for _ in range(2))))

    with run_teacher(lambda request: refusal if "max_tokens" in request else complete("Hi.")) as teacher:
        assert [reply.text for reply in asyncio.run(run(teacher.url))] == ["Hi.", "Hi."]


def test_a_request_that_the_endpoint_refuses_fails_alone() -> None:
    with run_teacher(lambda request: (400, {}, {"error": {"message": "image too large\n\x1b[2J"}})) as teacher:
        reply = ask(teacher)
    assert reply == Reply(used=Usage(1), fault="refused by the endpoint: HTTP 400: image too large\\n\\x1b[2J")


def test_a_server_that_is_not_there_is_tried_again_and_named() -> None:
    with run_teacher(lambda request: b"") as teacher:
        pass
    reply = ask(teacher, max_attempts=3)
    assert reply.fault.startswith("connection failed: ")
    assert reply.used.requests == 3


def test_tokens_that_are_not_reported_are_estimated() -> None:
    answer = {"choices": [{"message": {"content": "Hi."}}]}
    with run_teacher(lambda request: answer) as teacher:
        assert ask(teacher) == Reply("Hi.", None, "", Usage(1, 70, 7))


def test_a_refusal_beside_an_empty_answer_is_the_reason() -> None:
    answer = {"choices": [{"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}]}
    with run_teacher(lambda request: answer) as teacher:
        assert ask(teacher).finish_reason == "refusal"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("https://host/openai/v1/chat/completions", "https://host/openai/v1"),
    ],
)
def test_a_url_is_completed(given: str, url: str) -> None:
    assert read_url(given) == url


@pytest.mark.parametrize(
    "url", ["", "host:8000", "ftp://host", "http://", "http://[", "http://u:p@host/v1", "file:///x"]
)
def test_a_url_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"no URL|password"):
        read_url(url)


def test_a_budget_counts_what_is_reserved_until_it_is_settled() -> None:
    budget = Budget(max_requests=3, max_tokens=1000, max_cost=1.0, prices=Prices(1000.0, 2000.0))
    one = Usage(1, 100, 50)
    assert budget.find_limit(one) == ""
    budget.reserve(one)
    assert budget.find_limit(Usage(1, 800, 100)) == "--max-tokens 1,000"
    assert budget.find_limit(Usage(1, 400, 250)) == "--max-cost 1"
    assert budget.find_limit(Usage(3)) == "--max-requests 3"
    budget.settle(one, Usage(1, 90, 10))
    assert budget.spent == Usage(1, 90, 10)
    assert budget.cost == pytest.approx(0.11)
    assert budget.find_limit(Usage(2, 800, 0)) == ""


def test_tokens_of_images_and_texts_are_estimated() -> None:
    assert estimate_image_tokens(Size(512, 512)) == 85 + 170
    assert estimate_image_tokens(Size(1024, 1024)) == 85 + 4 * 170  # 768 px
    assert estimate_image_tokens(Size(4096, 2048)) == 85 + 6 * 170  # 1536x768 px
    assert estimate_image_tokens(Size(1, 60_000)) == 85 + 4 * 170
    assert estimate_text_tokens("abcd" * 10) == 18
    assert estimate_text_tokens("图中是什么") == 13
