"""A benchmark and its questions: what is asked about which image, and the check of a benchmark's files. No torch."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llava.errors import UsageError
from llava.eval.shards import ALTERNATIVE, choose_path

ImageView = Literal["whole", "center_crop"]


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        id: as the benchmark has it, with its JSON type.
        images: paths, or the bytes of image files.
        text: what is asked, without a slot for the image.
        prompt: what the answers file repeats; the original leaves out some lines of ``text``.
        before, after: what the answers file has besides, before the prompt and after the answer.
        row: set where the answers file repeats the benchmark's own row and adds the answer as ``response``.
        view: ``center_crop`` shows the model CLIP's square crop of the image, as Q-Bench is asked.
    """

    id: int | str
    images: tuple[Path | bytes, ...]
    text: str
    prompt: str
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, Any] | None = None
    view: ImageView = "whole"

    @property
    def key(self) -> Hashable:
        """What distinguishes it: the id, the round, and the prompt, since TextVQA's ids are those of its images."""
        return (type(self.id).__name__, self.id, self.before.get("round_id"), self.prompt)


@dataclass(frozen=True)
class File:
    """A file or folder of a benchmark, by its path under the data folder, and where it comes from.

    The path may be several with " | " between them, of which one is there, and may have ``*`` for the shards of a
    split.
    """

    path: str
    source: str

    def find(self, data: Path) -> Path | None:
        """Where it is, with the ``*`` of its path; None if it is missing. Raises UsageError if a shard is missing."""
        return choose_path(data, self.path)

    def describe_missing(self, data: Path) -> str:
        """A sentence that says which file is missing, and where it comes from."""
        paths = " or ".join(f"'{data / path}'" for path in self.path.split(ALTERNATIVE))
        return f"{paths} is missing: {self.source}."


@dataclass(frozen=True)
class Task:
    """A benchmark as it is run here.

    Attributes:
        files: all of it; the first is the questions' file.
        images: the image folder under the data folder; "" where the questions' file holds the images.
        read: the questions, from their file (a path with ``*`` where it is in shards) and the image folder; None where
            no reader is written yet.
        count: how many questions the split has.
        prompt: how it asks, in one line.
        image: how the image is shown, in one line.
        scorer: ``module:function`` of one answer's scorer; "" where only a server or a judge scores.
        score: ``module:function`` of the whole run's ``TaskScorer``; "" where only a server or a judge scores.
        score_command: the module, and its flags, that scores an answers file; ``{data}`` and ``{answers}`` are filled.
        published: scores by checkpoint.
        source: of the published scores.
    """

    name: str
    title: str
    split: str
    count: int
    files: tuple[File, ...]
    images: str
    read: Callable[[Path, Path], list[Question]] | None
    prompt: str
    max_new_tokens: int
    scorer: str
    submission: str
    published: Mapping[str, str]
    source: str = "haotian-liu/LLaVA@c121f04 docs/MODEL_ZOO.md"
    image: str = "as the checkpoint says: 1.5 pads to a square, NeXT cuts tiles (AnyRes)"
    score: str = ""
    score_command: tuple[str, ...] = ()
    ids_repeat: bool = False

    def find_questions(self, data: Path) -> Path:
        """Where the questions' file is. Raises UsageError if it is missing."""
        path = self.files[0].find(data)
        if path is None:
            raise UsageError(f"{self.name}: {self.files[0].describe_missing(data)}")
        return path


def resolve(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names. Raises UsageError if this version does not have it."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
    except AttributeError:
        pass
    raise UsageError(
        f"The scorer {name} is not part of this version. The answers are not lost: score their file with the "
        "benchmark's own script."
    )


def find_missing(task: Task, data: Path) -> list[str]:
    """A sentence for each file of the task that is not there."""
    return [file.describe_missing(data) for file in task.files if file.find(data) is None]


def check(task: Task, data: Path, *, is_partial: bool = False) -> tuple[list[Question], list[str]]:
    """The task's questions, and what is odd about them, as sentences. Everything is looked at before a model is loaded.

    ``is_partial``: another number of questions is odd, but not refused. Raises UsageError with all that is missing.
    """
    if missing := find_missing(task, data):
        raise UsageError(f"{task.name}: {' '.join(missing)}")
    if task.read is None:
        raise UsageError(
            f"{task.name} cannot be asked yet: no reader of its files is written. Write its questions as JSON lines "
            "with question_id, image and text, and answer them with python -m llava.eval.model_vqa_loader."
        )
    path = task.find_questions(data)
    questions = task.read(path, data / task.images)
    notes = []
    if len(questions) != task.count:
        said = (
            f"'{path}' has {len(questions)} questions, and {task.split} has {task.count}: it is another split, another "
            "version, or a part"
        )
        if not is_partial:
            raise UsageError(f"{task.name}: {said}. Get {task.files[0].source}, or allow it with --partial.")
        notes.append(f"{said}. The score is not comparable with published ones.")
    if not task.ids_repeat:
        counts = Counter((question.id, question.before.get("round_id")) for question in questions)
        if repeated := [key[0] for key, count in counts.items() if count > 1]:
            raise UsageError(
                f"{task.name}: {len(repeated)} ids occur more than once in '{path}', the first of them "
                f"{repeated[0]!r}. An answer could not be told from another: remove the repeated rows."
            )
    notes += find_oddities(questions)
    paths = {image: None for question in questions for image in question.images if isinstance(image, Path)}
    if absent := [image for image in paths if not image.is_file()]:
        raise UsageError(
            f"{task.name}: {len(absent)} of {len(paths)} images are missing, the first of them '{absent[0]}'. Check "
            f"'{data / task.images}'."
        )
    return questions, notes


def find_oddities(questions: Sequence[Question]) -> list[str]:
    """Sentences on questions that hold ``<image>`` as text, at which the original fails."""
    marked = [question.id for question in questions if "<image>" in question.text]
    if not marked:
        return []
    return [
        f"{len(marked)} questions have the text <image>, the first of them {marked[0]!r}; it is asked as text, and "
        "the image comes before the question."
    ]
