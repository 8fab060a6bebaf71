"""``llava data collect``: training data from users' requests in the server's logs, answered by a teacher."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from llava.commands.flags import add_command

_KEY = "LLAVA_TEACHER_KEY"


def add_collect(actions: Any) -> None:
    """Adds the command to the parser's ``actions``."""
    text = "Turn the server's conversation logs into training data: filtered, answered by a teacher, reviewed."
    parser = add_command(actions, "collect", _collect, text)
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="of llava serve --log-conversations; .gz too")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for data.json, images/, review.html")
    parser.add_argument("--dry-run", action="store_true", help="print counts and the cost; ask nobody, write nothing")
    _add_filter_flags(parser)
    _add_teacher_flags(parser)
    parser.add_argument(
        "--review", type=Path, nargs="+", default=[], metavar="FILE", help="decisions saved from review sheets"
    )
    parser.add_argument("--keep-undecided", action="store_true", help="with --review: keep rows without a decision")


def _add_filter_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters")
    group.add_argument(
        "--log-images", type=Path, nargs="+", default=[], metavar="DIR", help="images of logs that were moved"
    )
    group.add_argument("--turns", type=int, default=1, metavar="N", help="questions of a chat (default: %(default)s)")
    group.add_argument("--text-only", action="store_true", help="take requests without an image, too")
    group.add_argument("--harm-rules", type=Path, metavar="FILE", help="instead of the rules that ship (YAML)")
    group.add_argument("--similarity", type=float, default=0.8, metavar="X", help="of near duplicates (default: 0.8)")
    group.add_argument("--same-text", type=int, default=20, metavar="N", help="requests with one text (default: 20)")
    group.add_argument("--same-image", type=int, default=5, metavar="N", help="requests on one image (default: 5)")
    text = "reads the text on images: module:callable, or the URL of an endpoint"
    group.add_argument("--ocr", metavar="READER", help=text)
    group.add_argument("--ocr-model", metavar="NAME", help="the model of the endpoint that --ocr names")
    group.add_argument("--classifier", metavar="module:callable", help="judges harm: (text, image files) -> str")


def _add_teacher_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("teacher")
    group.add_argument("--teacher", metavar="URL", help="any endpoint with OpenAI's API, such as http://host:8000/v1")
    group.add_argument("--teacher-model", metavar="NAME", help="its model")
    group.add_argument(
        "--teacher-key-env",
        default=_KEY,
        metavar="NAME",
        help="environment variable with the key (default: %(default)s)",
    )
    group.add_argument("--teacher-prompt", type=Path, metavar="FILE", help="a system text instead of the own one")
    group.add_argument("--yes", action="store_true", help="ask without confirmation of the cost")
    for flag, kind, default, metavar, text in (
        ("--max-requests", int, None, "N", "budget: requests, all runs into DIR together"),
        ("--max-tokens", int, None, "N", "budget: tokens in and out"),
        ("--max-cost", float, None, "X", "budget: money, in the currency of the prices"),
        ("--price-in", float, None, "X", "price of a million tokens in"),
        ("--price-out", float, None, "X", "price of a million tokens out"),
        ("--concurrency", int, 4, "N", "requests at the same time (default: %(default)s)"),
        ("--attempts", int, 6, "N", "times a request is sent while faults pass (default: %(default)s)"),
        ("--timeout", float, 180.0, "S", "for one answer (default: %(default)s)"),
        ("--max-answer-tokens", int, 1024, "N", "longest answer (default: %(default)s)"),
        ("--temperature", float, None, "X", "(default: the endpoint's own)"),
    ):
        group.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)
    group.add_argument(
        "--language", nargs="+", default=[], metavar="CODE", help="of answers, such as en (default: the question's)"
    )
    group.add_argument("--retry-invalid", action="store_true", help="ask again where an answer could not be used")


def _collect(arguments: argparse.Namespace) -> int:
    from llava.data.collection.collect import CollectSettings, collect

    _check_numbers(arguments)
    settings = CollectSettings(
        filters=_read_filters(arguments),
        out=arguments.out,
        asking=_read_asking(arguments),
        budget=_read_budget(arguments),
        reviews=tuple(arguments.review),
        keeps_undecided=arguments.keep_undecided,
        is_dry=arguments.dry_run,
    )
    return collect(settings, lambda cost: _confirm(cost, arguments.yes), print)


def _check_numbers(arguments: argparse.Namespace) -> None:
    from llava.errors import UsageError

    for name in ("turns", "same_text", "same_image", "concurrency", "attempts", "max_answer_tokens"):
        if getattr(arguments, name) < 1:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is {getattr(arguments, name)}; it has to be at least 1.")
    for name in ("max_requests", "max_tokens", "max_cost", "price_in", "price_out", "temperature"):
        if (value := getattr(arguments, name)) is not None and not 0 <= value < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} is {value}; it has to be 0 or more.")
    if not 0 < arguments.similarity <= 1:
        raise UsageError(f"--similarity is {arguments.similarity}; it has to be above 0 and at most 1.")
    if not 0 < arguments.timeout < float("inf"):
        raise UsageError(f"--timeout is {arguments.timeout}; it has to be above 0.")
    if arguments.max_cost is not None and arguments.price_in is None and arguments.price_out is None:
        raise UsageError("--max-cost needs the prices: give --price-in and --price-out.")


def _read_filters(arguments: argparse.Namespace) -> Any:
    from llava.data.collection.plug_ins import load_plug_in
    from llava.data.collection.request_filters import FilterSettings
    from llava.data.harm import RULES_FILE

    reader = classifier = None
    if arguments.ocr is not None:
        is_endpoint = arguments.ocr.startswith(("http://", "https://"))
        reader = _open_reader(arguments) if is_endpoint else load_plug_in(arguments.ocr, "--ocr")
    if arguments.classifier is not None:
        classifier = load_plug_in(arguments.classifier, "--classifier")
    return FilterSettings(
        logs=tuple(arguments.logs),
        folders=tuple(arguments.log_images),
        max_turns=arguments.turns,
        takes_text_only=arguments.text_only,
        harm_rules=arguments.harm_rules or RULES_FILE,
        similarity=arguments.similarity,
        max_same_text=arguments.same_text,
        max_same_image=arguments.same_image,
        reader=reader,
        reader_name=" ".join(filter(None, (arguments.ocr, arguments.ocr_model))),
        classifier=classifier,
        classifier_name=arguments.classifier or "",
    )


def _open_reader(arguments: argparse.Namespace) -> Any:
    from llava.data.chat_client import ClientSettings
    from llava.data.collection.plug_ins import EndpointReader
    from llava.errors import UsageError

    if not arguments.ocr_model:
        raise UsageError(f"--ocr {arguments.ocr} needs --ocr-model NAME.")
    settings = ClientSettings(
        arguments.ocr, arguments.ocr_model, max_answer_tokens=2048, temperature=0.0, timeout_s=arguments.timeout
    )
    return EndpointReader(settings)


def _read_asking(arguments: argparse.Namespace) -> Any:
    from llava.data.chat_client import ClientSettings, import_httpx, read_url
    from llava.data.collection.asking import PROMPT, AskingSettings
    from llava.errors import UsageError

    if arguments.teacher is None:
        if arguments.teacher_model is not None:
            raise UsageError("--teacher-model names a model without a server: give its URL with --teacher.")
        return None
    if not arguments.teacher_model:
        raise UsageError("--teacher needs --teacher-model NAME; an endpoint lists its models at /v1/models.")
    import_httpx()
    key = os.environ.get(arguments.teacher_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"The key in {arguments.teacher_key_env} holds a character that no header can hold.")
    prompt = PROMPT
    if arguments.teacher_prompt is not None:
        try:
            prompt = arguments.teacher_prompt.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"--teacher-prompt: '{arguments.teacher_prompt}' cannot be read: {reason}.") from error
    teacher = ClientSettings(
        url=read_url(arguments.teacher),
        model=arguments.teacher_model,
        key=key,
        max_answer_tokens=arguments.max_answer_tokens,
        temperature=arguments.temperature,
        timeout_s=arguments.timeout,
        max_attempts=arguments.attempts,
    )
    return AskingSettings(
        teacher,
        prompt=prompt,
        concurrency=arguments.concurrency,
        languages=frozenset(arguments.language),
        retries_invalid=arguments.retry_invalid,
    )


def _read_budget(arguments: argparse.Namespace) -> Any:
    from llava.data.budget import Budget, Prices

    prices = Prices(arguments.price_in, arguments.price_out)
    return Budget(arguments.max_requests, arguments.max_tokens, arguments.max_cost, prices)


def _confirm(cost: str, is_confirmed: bool) -> bool:
    """Shows the cost and returns whether the user agrees. Raises UsageError where nobody can be asked."""
    from llava.errors import UsageError
    from llava.text import is_terminal, write_line

    write_line(cost)
    if is_confirmed:
        return True
    if not is_terminal(sys.stdin):
        raise UsageError("Asking the teacher needs your consent to the cost above: give --yes.")
    try:
        return input("Ask the teacher? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
