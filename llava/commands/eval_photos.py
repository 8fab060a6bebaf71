"""``llava eval photos``: a model on a folder of images whose content is known."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from llava.commands.answering import load
from llava.commands.eval_tasks import make_asker
from llava.commands.flags import add_checkpoint_flags, add_command, add_engine_flags, add_image_flags
from llava.errors import UsageError
from llava.text import name_safely, write_line


def add_eval_photos(suites: Any) -> None:
    """Adds the command to the parser's ``suites``."""
    text = "Score a model on a folder of images whose content is known: by their names, truth.json or truth.csv."
    parser = add_command(suites, "photos", _run, text, needs_output=True)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the images")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="the list of what is true, .json or .csv")
    parser.add_argument(
        "--answers", type=Path, metavar="FILE.jsonl", help="the answers file (default: DIR/answers/MODEL.jsonl)"
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.scores.json",
        help="show the answers of another run on the page, too; may be repeated",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N questions")
    parser.add_argument("--url", metavar="URL", help="ask a server with OpenAI's API in place of a local model")
    parser.add_argument("--url-model", metavar="NAME", help="the model's id there (default: the only one)")
    parser.add_argument(
        "--conv-mode", metavar="NAME", help="conversation template (default: the one of the checkpoint's evaluation)"
    )
    add_checkpoint_flags(parser)
    add_engine_flags(parser)
    add_image_flags(parser)


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from llava.eval.answer_health import describe_health
    from llava.eval.answer_matching import match_answers
    from llava.eval.answer_run import answer_questions
    from llava.eval.answers_file import check_answers_path
    from llava.eval.askers import AS_EVALUATED
    from llava.eval.photo_suite import (
        MAX_NEW_TOKENS,
        make_questions,
        make_table,
        read_scores,
        score_answers,
        write_scores,
    )
    from llava.eval.photo_truths import check_images, read_folder
    from llava.eval.report.photos_page import write_photos_page
    from llava.eval.score_file import name_scores_file
    from llava.sampling import Sampling

    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f"--limit is {arguments.limit}; it has to be at least 1.")
    folder = arguments.folder
    beside = [read_scores(path) for path in arguments.beside]
    asked = read_folder(folder, arguments.truth)
    check_images(asked, AS_EVALUATED.with_pixels(arguments.max_image_pixels))
    check_answers_path(arguments.answers or folder / "answers" / "MODEL.jsonl")  # before the model is loaded
    questions = make_questions(asked)
    loaded = None if arguments.url else load(arguments)
    with contextlib.closing(make_asker(arguments, loaded, Sampling(max_new_tokens=MAX_NEW_TOKENS))) as asker:
        path = arguments.answers or folder / "answers" / f"{name_safely(asker.model_id)}.jsonl"
        wanted = range(len(questions))[: arguments.limit]
        summary = answer_questions(questions, asker, path, name=folder.name, wanted=wanted)
        model = asker.model_id
    if summary.failed:
        write_line("llava: nothing is scored, since questions failed. Run the same command again to ask them.")
        return 1
    matched = match_answers(path, questions, is_partial=arguments.limit is not None)
    texts = dict(zip((question.key for question in matched.questions), matched.texts, strict=True))
    scores = score_answers(
        [asked[place] for place in wanted], [texts[questions[place].key] for place in wanted], model, folder
    )
    target = name_scores_file(path)
    page = target.with_name(target.name.removesuffix(".scores.json") + ".html")
    write_scores(target, scores)
    write_photos_page(page, [scores, *beside], folder)
    Console().print(make_table(scores))
    print(describe_health(scores.health))
    print(f"'{target}' and '{page}' are written.")
    return 0
