"""Answers as a report shows them: with their images, and the drawings of the images' tiles and positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava.data.records import StoredImage
from llava.errors import BadImage, LlavaError, UsageError
from llava.eval.askers import ImageReader
from llava.eval.benchmark_table import TASKS
from llava.eval.score_file import AnswerRecord, ScoredRun
from llava.eval.task import Question
from llava.html_page import encode_image
from llava.image.geometry import RELEASED_PINPOINTS, Size, Tiling, plan_tiles
from llava.image.source import FOR_LOCAL_USER
from llava.image.tones import to_rgb

_IMAGE_PX, _MAP_PX = 400, 760
_RELEASED = {
    "llava-v1.5": Tiling(aspect="pad"),
    "llava-v1.6": Tiling(aspect="anyres", merge="spatial_unpad", pinpoints=RELEASED_PINPOINTS),
}


@dataclass(frozen=True)
class Example:
    """An answer with its images: data URLs, or sentences that say why an image is not shown.

    ``maps``: drawings of the images' tiles and positions, a caption and a data URL each.
    """

    answer: AnswerRecord
    images: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    maps: tuple[tuple[str, str], ...] = ()


def find_tiling(run: ScoredRun, model: str | None) -> tuple[Tiling | None, str]:
    """How the run's model cuts images into tiles, and where that is known from; None and why if it is not known.

    Args:
        model: a folder, a hub id or a short name; by default one of this package, or a released one by its name.

    Raises CheckpointError for a ``model`` that is not there.
    """
    from llava.model.default_choice import PACKAGED
    from llava.model.folder import Folder
    from llava.model.sources import find_checkpoint

    if model is None and run.model in PACKAGED:
        model = run.model
    if model is not None:
        from llava.config import read_spec

        folder = Folder.of(find_checkpoint(model))
        return read_spec(folder.path, config=folder.config).tiling, f"the tiling is that of '{model}'"
    for prefix, tiling in _RELEASED.items():
        if prefix in run.model.lower().replace("llava-1.", "llava-v1."):
            return tiling, f"the tiling is that of the released {prefix} checkpoints"
    return None, f"Token maps are not drawn: how '{run.model}' cuts images is not known. Name it with --model."


class ExampleMaker:
    """Makes examples of a run's answers.

    Args:
        tiling: for the token maps; None for none.
        data: the folder with the benchmark's files, where its questions' file holds the images.
    """

    def __init__(self, run: ScoredRun, tiling: Tiling | None, data: Path | None = None) -> None:
        self._run, self._tiling, self._data = run, tiling, data
        self._questions: Sequence[Question] | None = None
        self._reader = ImageReader(336, FOR_LOCAL_USER)

    def make(self, answer: AnswerRecord) -> Example:
        """The answer with its images and their token maps."""
        example = Example(answer)
        for number, path in enumerate(answer.images):
            try:
                question = Question(answer.id, (self._find(answer, number, path),), "", "")
                image = to_rgb(self._reader.read(question)[0].image)  # as the model was shown it, not turned by EXIF
            except (LlavaError, OSError) as error:
                example = replace(example, missing=(*example.missing, str(error)))
                continue
            example = replace(example, images=(*example.images, encode_image(image, _IMAGE_PX)))
            if self._tiling is not None:
                example = replace(example, maps=(*example.maps, self._draw(image, self._tiling)))
        return example

    def _find(self, answer: AnswerRecord, number: int, path: str | None) -> Path | bytes | StoredImage:
        if path is not None:
            return Path(path)
        if self._data is None:
            raise BadImage("The image is in the benchmark's own file: name the folder with --data.")
        if self._questions is None:
            task = TASKS.get(self._run.task)
            if task is None or task.read is None:
                raise UsageError(f"The questions of '{self._run.task}' cannot be read.")
            self._questions = task.read(self._data / task.files[0].path, self._data / task.images)
        question = next((each for each in self._questions[answer.place :][:1] if each.id == answer.id), None)
        if question is None or number >= len(question.images):
            raise BadImage(f"Question {answer.id!r} is not in '{self._data}' where the run had it.")
        return question.images[number]

    def _draw(self, image: Any, tiling: Tiling) -> tuple[str, str]:
        from llava.image.tokenmap import describe_plan, draw_sheet

        plan = plan_tiles(Size(*image.size), tiling)
        return describe_plan(plan, tiling), encode_image(draw_sheet(image, plan, tiling), _MAP_PX)
