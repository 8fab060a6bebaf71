"""The flags that say who judges, what that may cost, and how it is asked; for every command with a judge."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llava.errors import UsageError

if TYPE_CHECKING:
    from llava.eval.judge import Judge

_OPENAI = "https://api.openai.com/v1"
_URL_NAMES = ("OPENAI_BASE_URL", "OPENAI_API_BASE")  # of the openai package, after and before version 1


@dataclass(frozen=True)
class JudgeDefaults:
    """What a published protocol says: its judge, the temperature and the longest reply."""

    model: str
    temperature: float | None
    max_tokens: int


def add_judge_flags(parser: argparse.ArgumentParser, model: str | None) -> None:
    """Adds them to the parser. All begin with ``--judge``, so none hides a flag of the original.

    ``model``: the published judge; None where it depends on the benchmark.
    """
    group = parser.add_argument_group("judge")
    text = "an endpoint with OpenAI's API (default: $OPENAI_BASE_URL)"
    group.add_argument("--judge", "--judge-url", metavar="URL", help=text)
    text = "(default: %(default)s, as published)" if model else "(default: the benchmark's published one)"
    group.add_argument("--judge-model", default=model, metavar="NAME", help=text)
    text = "environment variable with the key (default: %(default)s)"
    group.add_argument("--judge-key-env", default="OPENAI_API_KEY", metavar="NAME", help=text)
    for flag, kind, default, metavar, help_text in (
        ("price-in", float, None, "X", "price of a million tokens in"),
        ("price-out", float, None, "X", "price of a million tokens out"),
        ("max-cost", float, None, "X", "budget: money, in the currency of the prices, over all runs"),
        ("max-requests", int, None, "N", "budget: requests, over all runs"),
        ("concurrency", int, 4, "N", "requests at the same time (default: %(default)s)"),
        ("attempts", int, 6, "N", "times a request is sent while faults pass (default: %(default)s)"),
        ("timeout", float, 180.0, "S", "for one reply (default: %(default)s)"),
    ):
        group.add_argument(f"--judge-{flag}", type=kind, default=default, metavar=metavar, help=help_text)
    text = "instead of the published one; none: the endpoint's own, where it takes no other"
    group.add_argument("--judge-temperature", type=_read_temperature, default="published", metavar="X", help=text)
    text = "ask again for reviews whose scores could not be read"
    group.add_argument("--judge-retry-failed", action="store_true", help=text)
    group.add_argument(
        "--judge-dry-run",
        action="store_true",
        help="print what the reviews would cost, and call no judge",
    )


def _read_temperature(text: str) -> float | str:
    if text in ("published", "none"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 0 to 2 nor none")
    return value


def open_judge(
    arguments: argparse.Namespace,
    defaults: JudgeDefaults,
    journal: Path,
    is_readable: Callable[[str], bool],
    prompt: str,
) -> Judge:
    """The judge that the flags name.

    Args:
        journal: its file, which is read; open it before asking.
        is_readable, prompt: see ``Judge``.

    Raises:
        UsageError: a flag or a variable has a value that cannot be used, or httpx is not installed.
    """
    # Not where the parser of a command line is built: they take a tenth of a second.
    from llava.data.budget import Budget, Prices
    from llava.data.chat_client import ClientSettings, import_httpx, read_url
    from llava.data.collection.journal import Journal
    from llava.eval.judge import Judge

    _check_numbers(arguments)
    import_httpx()
    url = arguments.judge or next(filter(None, map(os.environ.get, _URL_NAMES)), _OPENAI)
    key = os.environ.get(arguments.judge_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"The key in {arguments.judge_key_env} holds a character that no header can hold.")
    url = read_url(url)
    if not key and url == _OPENAI and not arguments.judge_dry_run:
        raise UsageError(
            f"No judge: set the key in {arguments.judge_key_env}, or name another endpoint with --judge URL and its "
            "model with --judge-model."
        )
    client = ClientSettings(
        url=url,
        model=arguments.judge_model,
        key=key,
        max_answer_tokens=defaults.max_tokens,
        temperature=choose_temperature(arguments, defaults.temperature),
        timeout_s=arguments.judge_timeout,
        max_attempts=arguments.judge_attempts,
        role="judge",
    )
    budget = Budget(
        max_requests=arguments.judge_max_requests,
        max_cost=arguments.judge_max_cost,
        prices=Prices(arguments.judge_price_in, arguments.judge_price_out),
        flags="--judge-",
    )
    return Judge(client, Journal(journal), budget, arguments.judge_concurrency, is_readable, prompt)


def choose_temperature(arguments: argparse.Namespace, published: float | None) -> float | None:
    """The temperature by ``--judge-temperature``; None for the endpoint's own."""
    chosen = arguments.judge_temperature
    if chosen == "published":
        return published
    return None if chosen == "none" else chosen


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name in ("judge_concurrency", "judge_attempts", "judge_max_tokens", "max_tokens"):
        if getattr(arguments, name, 1) < 1:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is {getattr(arguments, name)}; it has to be at least 1.")
    for name in ("judge_max_requests", "judge_max_cost", "judge_price_in", "judge_price_out"):
        if (value := getattr(arguments, name)) is not None and not 0 <= value < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} is {value}; it has to be 0 or more.")
    if not 0 < arguments.judge_timeout < float("inf"):
        raise UsageError(f"--judge-timeout is {arguments.judge_timeout}; it has to be above 0.")
    prices = (arguments.judge_price_in, arguments.judge_price_out)
    if arguments.judge_max_cost is not None and prices == (None, None):
        raise UsageError("--judge-max-cost needs the prices: give --judge-price-in and --judge-price-out.")
