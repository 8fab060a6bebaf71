"""A benchmark and its questions: what is asked about which image, and the check of a benchmark's files. No torch."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from llava.data.records import StoredImage
from llava.errors import BadImage, UsageError

ImageView = Literal["whole", "center_crop", "upright"]


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        id: as the benchmark has it, with its JSON type.
        images: paths, the bytes of image files, or images that the questions' own file holds.
        text: what is asked, without a slot for the image.
        prompt: what the answers file repeats; the original leaves out some lines of ``text``.
        before, after: what the answers file has besides, before the prompt and after the answer.
        row: set where the answers file repeats the benchmark's own row and adds the answer as ``response``.
        view: ``center_crop`` shows the model CLIP's square crop of the image, as Q-Bench is asked; ``upright`` turns
            it as its EXIF says, which the original's benchmarks never do.
    """

    id: int | str
    images: tuple[Path | bytes | StoredImage, ...]
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

    A ``*`` in the path's last part stands for anything, as in "val-*.parquet": the split is all the files together.
    """

    path: str
    source: str

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, of images mostly."""
        return not PurePosixPath(self.path).suffix

    def is_in(self, data: Path) -> bool:
        """Whether the data folder has it."""
        path = data / self.path
        return any(path.parent.glob(path.name)) if "*" in path.name else path.exists()


@dataclass(frozen=True)
class Task:
    """A benchmark as it is run here.

    Attributes:
        files: all of it; the first is the questions' file.
        images: the image folder under the data folder; "" where the questions' file holds the images.
        read: the questions, from their file and the image folder; None where no reader is written yet.
        count: how many questions the split has.
        prompt: how it asks, in one line.
        image: how the image is shown, in one line.
        template: in which LLaVA-1.5 is asked for its published score; other families are asked in their own.
        scorer: ``module:function`` of one answer's scorer; "" where only a server or a judge scores.
        score: ``module:function`` of the whole run's ``TaskScorer``; "" where only a server or a judge scores.
        judge: ``module:function`` that scores a run by a judge, for tasks that one scores.
        submit: ``module:function`` that writes the file for the benchmark's server from an answers file.
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
    judge: str = ""
    submit: str = ""
    ids_repeat: bool = False
    template: str = "vicuna_v1"


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


def find_missing(task: Task, data: Path, *, needs_images: bool = True) -> list[str]:
    """A sentence for each file of the task that is not there; ``needs_images``: folders, too."""
    files = [file for file in task.files if needs_images or not file.is_folder]
    return [f"'{data / file.path}' is missing: {file.source}." for file in files if not file.is_in(data)]


def check(
    task: Task, data: Path, *, is_partial: bool = False, needs_images: bool = True
) -> tuple[list[Question], list[str]]:
    """The task's questions, and what is odd about them, as sentences. Everything is looked at before a model is loaded.

    ``is_partial``: another number of questions is odd, but not refused. ``needs_images``: they are looked for; scoring
    needs none. Raises UsageError with all that is missing.
    """
    if missing := find_missing(task, data, needs_images=needs_images):
        raise UsageError(f"{task.name}: {' '.join(missing)}")
    if task.read is None:
        raise UsageError(
            f"{task.name} cannot be asked yet: no reader of its files is written. Write its questions as JSON lines "
            "with question_id, image and text, and answer them with python -m llava.eval.model_vqa_loader."
        )
    path = data / task.files[0].path
    questions = task.read(path, data / task.images)
    notes = []
    if not questions:
        raise UsageError(f"{task.name}: '{path}' has no questions. Get {task.files[0].source}.")
    if len(questions) != task.count:
        said = (
            f"'{path}' has {len(questions)} questions, not the {task.count} of {task.split}: it is another split, "
            "another version, or a part"
        )
        if not is_partial:
            raise UsageError(
                f"{task.name}: {said}. "
                f"Where it comes from: {task.files[0].source}. To ask it all the same, give --partial."
            )
        notes.append(f"{said}. The score is not comparable with published ones.")
    if not task.ids_repeat:
        counts = Counter((question.id, question.before.get("round_id")) for question in questions)
        if repeated := [key[0] for key, count in counts.items() if count > 1]:
            raise UsageError(
                f"{task.name}: {len(repeated)} ids occur more than once in '{path}', the first of them "
                f"{repeated[0]!r}. An answer could not be told from another: remove the repeated rows."
            )
    notes += find_oddities(questions)
    if needs_images:
        _check_images(task, questions, data)
    return questions, notes


def _check_images(task: Task, questions: Sequence[Question], data: Path) -> None:
    paths = {image: None for question in questions for image in question.images if isinstance(image, Path)}
    if absent := [image for image in paths if not image.is_file()]:
        raise UsageError(
            f"{task.name}: {len(absent)} of {len(paths)} images are missing, the first of them '{absent[0]}'. Check "
            f"'{data / task.images}'."
        )
    faults = []
    for question in questions:
        for image in question.images:
            if not isinstance(image, Path | bytes):
                try:
                    image.read()
                except BadImage as error:
                    faults.append(str(error))
    if faults:
        raise UsageError(f"{task.name}: {len(faults)} images cannot be read. {faults[0]} Get the file again.")


def find_oddities(questions: Sequence[Question]) -> list[str]:
    """Sentences on questions that hold ``<image>`` as text, at which the original fails."""
    marked = [question.id for question in questions if "<image>" in question.text]
    if not marked:
        return []
    return [
        f"{len(marked)} questions have the text <image>, the first of them {marked[0]!r}; it is asked as text, and "
        "the image comes before the question."
    ]
