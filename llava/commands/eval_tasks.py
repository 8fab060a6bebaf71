"""``llava eval TASK...``, ``llava eval list`` and ``llava eval merge``: benchmarks, by their own files."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.commands.answering import load
from llava.commands.eval_score import DEFAULT_DATA, add_eval_score, add_scoring_flags, score_answers
from llava.commands.flags import add_checkpoint_flags, add_command, add_engine_flags, add_image_flags
from llava.data.collection.journal import is_stream
from llava.errors import LlavaError, UsageError
from llava.text import name_safely, write_line

if TYPE_CHECKING:
    from llava.eval.askers import LocalAsker, UrlAsker
    from llava.eval.task import Question, Task


def add_eval_tasks(suites: Any) -> None:
    """Adds the commands to the parser's ``suites``."""
    from llava.eval.benchmark_table import TASKS

    add_command(suites, "list", _list, "Print the benchmarks: files, prompts, published scores.", needs_output=True)
    merge = add_command(suites, "merge", _merge, "Join the answers files of shards.")
    merge.add_argument("parts", nargs="+", type=Path, metavar="FILE.jsonl", help="the shards' files, in their order")
    merge.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="the joined file")

    add_eval_score(suites)

    first, *others = TASKS
    text = f"Answer the questions of benchmarks, and score them: {', '.join(TASKS)}."
    parser = suites.add_parser(first, aliases=others, help="Answer and score benchmarks.", description=text)
    parser.set_defaults(run=_run, parser=parser, needs_output=False)
    parser.usage = "llava eval TASK... --data DIR [options]"
    parser.add_argument("more", nargs="*", metavar="TASK", help="further benchmarks; see llava eval list")
    parser.add_argument(
        "--answers",
        type=Path,
        metavar="FILE.jsonl",
        help="the answers file of one benchmark (default: DIR/TASK/answers/MODEL.jsonl)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N questions")
    parser.add_argument("--shard", type=_read_shard, metavar="K/N", help="only slice K of N, from 0 on; see merge")
    parser.add_argument("--check", action="store_true", help="check the files, and ask nothing")
    parser.add_argument("--no-score", action="store_true", help="answer, and score nothing")
    parser.add_argument("--url", metavar="URL", help="ask a server with OpenAI's API in place of a local model")
    parser.add_argument("--url-model", metavar="NAME", help="the model's id there (default: the only one)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
    parser.add_argument(
        "--conv-mode", metavar="NAME", help="conversation template (default: the one of the checkpoint's evaluation)"
    )
    add_checkpoint_flags(parser)
    add_engine_flags(parser)
    add_image_flags(parser)
    add_scoring_flags(parser)


def _read_shard(text: str) -> tuple[int, int]:
    index, _, number = text.partition("/")
    if not (index.isdecimal() and number.isdecimal() and int(index) < int(number)):
        raise argparse.ArgumentTypeError(f"'{text}' is no shard; K/N is one, such as 0/4, 1/4, 2/4 or 3/4.")
    return int(index), int(number)


def _list(arguments: argparse.Namespace) -> int:
    from llava.eval.benchmark_table import write_listing

    print(write_listing())
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    from llava.eval.answers_file import merge

    count = merge(arguments.parts, arguments.out)
    write_line(f"llava: '{arguments.out}' has {count} answers of {len(arguments.parts)} files.")
    return 0


def _find_tasks(arguments: argparse.Namespace) -> list[Task]:
    from llava.eval.benchmark_table import TASKS

    tasks = []
    for name in dict.fromkeys([arguments.suite, *arguments.more]):
        if name not in TASKS:
            raise UsageError(f"There is no benchmark '{name}'; there are: {', '.join(TASKS)}.")
        tasks.append(TASKS[name])
    if arguments.answers is not None and len(tasks) > 1:
        raise UsageError(f"--answers names one file, and there are {len(tasks)} benchmarks. Leave it out.")
    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f"--limit is {arguments.limit}; it has to be at least 1.")
    return tasks


def _run(arguments: argparse.Namespace) -> int:
    from llava.eval.question_files import take_chunk
    from llava.eval.task import check, resolve

    tasks = _find_tasks(arguments)
    shard = arguments.shard or _read_torchrun()
    asked: list[tuple[Task, list[Question], list[int]]] = []
    for task in tasks:  # all of them before a model is loaded
        questions, notes = check(task, arguments.data, is_partial=arguments.partial)
        for note in notes:
            write_line(f"llava: {task.name}: {note}")
        write_line(f"llava: {task.name}: {task.split}, {len(questions)} questions, all files are there.")
        places = list(range(len(questions)))[: arguments.limit]
        asked.append((task, questions, places if shard is None else take_chunk(places, shard[1], shard[0])))
    if arguments.check:
        return 0
    for name in [name for task in tasks for name in (task.score, task.judge, task.submit) if name]:
        resolve(name)  # refuses one that is not there, before hours of answering
    return _answer(arguments, asked, shard)


def _read_torchrun() -> tuple[int, int] | None:
    """The shard of one of torchrun's processes; None where there is one process. Raises UsageError."""
    world, rank = os.environ.get("WORLD_SIZE") or "1", os.environ.get("RANK") or "0"
    if not (world.isdecimal() and rank.isdecimal() and int(rank) < int(world)):
        raise UsageError(
            f"WORLD_SIZE is {world!r} and RANK is {rank!r}: torchrun sets them to numbers, RANK from 0 to WORLD_SIZE "
            "- 1. Unset both, or name the shard with --shard."
        )
    return (int(rank), int(world)) if int(world) > 1 else None


def _answer(
    arguments: argparse.Namespace, asked: list[tuple[Task, list[Question], list[int]]], shard: tuple[int, int] | None
) -> int:
    from llava.eval.answer_run import answer_questions
    from llava.eval.answers_file import check_answers_path
    from llava.sampling import Sampling

    for task, _, _ in asked:  # before the model is loaded
        check_answers_path(arguments.answers or arguments.data / task.name / "answers" / "MODEL.jsonl")
    how = "greedy" if arguments.temperature == 0 else f"sampled at temperature {arguments.temperature:g}"
    write_line(f"llava: answers are {how}.")
    if "LOCAL_RANK" in os.environ and arguments.device is None and not arguments.url:
        arguments.device = _find_device(int(os.environ["LOCAL_RANK"]))
    loaded = None if arguments.url else load(arguments)
    code = 0
    for task, questions, places in asked:
        sampling = Sampling(temperature=arguments.temperature, max_new_tokens=task.max_new_tokens)
        with contextlib.closing(make_asker(arguments, loaded, sampling, task.template)) as asker:
            path = arguments.answers or _name_file(arguments.data / task.name / "answers", asker.model_id, shard)
            if arguments.answers and shard and arguments.shard is None:  # torchrun
                path = path.with_name(f"{path.stem}.{shard[1]}_{shard[0]}{path.suffix}")
            summary = answer_questions(questions, asker, path, name=task.name, wanted=places)
        write_line(f"llava: {task.name}: '{path}' has {len(places) - len(summary.failed)} answers.")
        if summary.failed:
            code = max(code, 1)
            write_line(
                f"llava: {task.name}: it is not scored, since questions failed. Run the same command again to ask "
                f"them, or score the others: {_write_score_command(task, path, arguments.data, is_partial=True)}"
            )
        elif shard is not None:
            write_line(f"llava: {task.name}: join the shards with llava eval merge, and score with llava eval score.")
        elif not arguments.no_score and not is_stream(path):
            code = max(code, _score(task, path, [questions[place] for place in places], arguments))
    return code


def _find_device(local_rank: int) -> str | None:
    """The device of one of torchrun's processes: each has its own GPU, where there are any."""
    import torch

    return f"cuda:{local_rank}" if torch.cuda.is_available() else None


def _score(task: Task, path: Path, questions: list[Question], arguments: argparse.Namespace) -> int:
    """Scores the answers; a benchmark that cannot be scored does not keep the next one from being asked."""
    try:
        return score_answers(task, path, questions, arguments, is_partial=arguments.limit is not None)
    except LlavaError as error:
        write_line(f"llava: error: {task.name}: {error}")
        command = _write_score_command(
            task, path, arguments.data, is_partial=arguments.partial or arguments.limit is not None
        )
        write_line(f"llava: {task.name}: its answers are kept; score them with {command}")
        return error.exit_code


def _write_score_command(task: Task, path: Path, data: Path, *, is_partial: bool) -> str:
    parts = ["llava", "eval", "score", task.name, str(path)]
    parts += [] if data == DEFAULT_DATA else ["--data", str(data)]
    return shlex.join([*parts, "--partial"] if is_partial else parts)


def make_asker(
    arguments: argparse.Namespace, loaded: Any, sampling: Any, published_template: str = "vicuna_v1"
) -> LocalAsker | UrlAsker:
    """Who answers: the server that ``--url`` names, or the loaded model, LLaVA-1.5 in its published template."""
    from llava.eval.askers import AS_EVALUATED, LocalAsker, UrlAsker, choose_template
    from llava.model.default_choice import resolve_name
    from llava.model.sources import name_checkpoint

    limits = AS_EVALUATED.with_pixels(arguments.max_image_pixels)
    if arguments.url:
        key = os.environ.get("OPENAI_API_KEY")
        return UrlAsker(arguments.url, arguments.url_model, key, sampling, limits=limits)
    name = name_checkpoint(resolve_name(arguments.model))
    template = arguments.conv_mode or choose_template(loaded, published_template)
    asker = LocalAsker(loaded, name, sampling, template, model_path=arguments.model, limits=limits)
    flags = ("quant", "model_base", "vision_tower", "merge", "arithmetic")
    asker.settings |= {name: getattr(arguments, name) for name in flags}
    return asker


def _name_file(folder: Path, model_id: str, shard: tuple[int, int] | None) -> Path:
    name = name_safely(model_id)
    return folder / (f"{name}.jsonl" if shard is None else f"{name}.{shard[1]}_{shard[0]}.jsonl")
