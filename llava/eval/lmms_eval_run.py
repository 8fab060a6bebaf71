"""Runs lmms-eval's own evaluator over this package's engine: its tasks, its scorers, its table of results."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.data.collection.journal import write_whole
from llava.errors import UsageError
from llava.eval.lmms_eval_model import LlavaEngine, register, say_failures
from llava.text import fit_line, for_stream, write_line

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

TESTED = "0.7.3"


def prepare_tasks(names: Sequence[str], include: Path | None = None) -> tuple[Any, list[str]]:
    """lmms-eval's task manager, and the tasks that the names and patterns such as ``mme*`` stand for.

    ``include``: a folder with further task files. Raises UsageError where lmms-eval or what it needs is not installed,
    and for names that it does not know.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "--harness runs in one process, whose engine asks many questions together: leave torchrun out."
        )
    if include is not None and not include.is_dir():
        raise UsageError(f"--include is '{include}', which is not a folder.")
    with _saying_what_is_missing():
        import lmms_eval.evaluator  # noqa: F401
        from lmms_eval.tasks import TaskManager

        register()
    # The name decides which of a task's prompts are asked, and these are the stock adapter's.
    manager = TaskManager(include_path=None if include is None else str(include), model_name="llava")
    known = manager.match_tasks(list(names))
    if unknown := [name for name in names if "*" not in name and name not in known]:
        close = difflib.get_close_matches(unknown[0], manager.all_tasks, n=4)
        guess = f" Did you mean {', '.join(close)}?" if close else " lmms-eval --tasks list prints them."
        raise UsageError(f"lmms-eval has no task '{unknown[0]}'.{guess}")
    if not known:
        raise UsageError(f"lmms-eval has no task like {', '.join(names)}. lmms-eval --tasks list prints them.")
    return manager, known


@contextmanager
def _saying_what_is_missing() -> Iterator[None]:
    """Turns an ImportError into a UsageError that says what to install."""
    try:
        yield
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("lmms_eval", ""):
            raise UsageError(
                "lmms-eval is not installed, or is a version without what is needed: run pip install "
                f"lmms-eval=={TESTED}."
            ) from error
        raise UsageError(f"lmms-eval needs {missing}, which is not installed: run pip install {missing}.") from error


def run_lmms_eval(
    loaded: LoadedModel,
    name: str,
    manager: Any,
    tasks: Sequence[str],
    *,
    template: str | None = None,
    limit: int | None = None,
    folder: Path | None = None,
) -> int:
    """Scores the model on lmms-eval's tasks and prints its table; returns the exit code, 1 if a question failed.

    Args:
        name: of the model, for the results.
        manager, tasks: what ``prepare_tasks`` returned.
        limit: the number of documents of each task.
        folder: for ``results.json``, and ``TASK.jsonl`` with every answer as lmms-eval logs it.
    """
    from lmms_eval.evaluator import simple_evaluate

    model = LlavaEngine(loaded, template)
    write_line(f"llava: lmms-eval asks with the template '{model.template}'; its tasks say how answers are sampled.")
    with _saying_what_is_missing():  # a task may need more than lmms-eval itself
        results = simple_evaluate(
            model=model, tasks=list(tasks), task_manager=manager, limit=limit, batch_size=1, bootstrap_iters=0
        )
    samples = results.pop("samples", {})
    results["config"] |= {"model": name, "conv_template": model.template}
    if folder is not None:
        _save(folder, results, samples)
    print(for_stream(describe_results(results), sys.stdout))
    say_failures(model.failures)
    return 1 if model.failures else 0


def describe_results(results: Mapping[str, Any]) -> str:
    """lmms-eval's results as text: a line for each score of each task, with the number of its documents."""
    rows = []
    for task, scores in results["results"].items():
        count = results.get("n-samples", {}).get(task, {}).get("effective", "")
        for name, value in scores.items():
            metric, _, kind = name.partition(",")
            if kind and "_stderr" not in metric:
                said = f"{value:.4f}" if isinstance(value, float) else fit_line(str(value), 60)
                rows.append((task, metric if kind == "none" else f"{metric}, {kind}", said, str(count)))
    rows.insert(0, ("task", "score", "value", "documents"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows)


def _save(folder: Path, results: dict[str, Any], samples: dict[str, list[Any]]) -> None:
    for name, rows in samples.items():
        lines = "".join(json.dumps(row, default=str, ensure_ascii=False) + "\n" for row in rows)
        write_whole((folder / f"{name}.jsonl").resolve(), lines.encode("utf-8", "backslashreplace"))
    told = json.dumps(results, default=str, ensure_ascii=False, indent=1) + "\n"
    write_whole((folder / "results.json").resolve(), told.encode("utf-8", "backslashreplace"))
