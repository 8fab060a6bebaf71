"""AI2D: its questions, and their accuracy by lmms-eval's rule. Loads no torch.

Source: EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/ai2d/utils.py and ai2d.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.data.prompts import ANSWER_FORMATS, ask_choice
from llava.errors import UsageError
from llava.eval.parquet_shards import read_shards
from llava.eval.scoring.ai2d_letters import score_ai2d as score_answer
from llava.eval.scoring.letter_rules import name_options, read_bare_letter, read_vlmevalkit
from llava.eval.task import File, Question, Task
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore
from llava.eval.tasks.readings import find_mean, say_unread

_FILES = "ai2d/data/test-*.parquet"


def read_ai2d(path: Path, images: Path) -> list[Question]:
    """AI2D's questions; they have no ids, so that their numbers are taken, from 0 on."""
    questions = []
    for row in read_shards(path, ["question", "options"], images=["image"]):
        text = ask_choice(row.pick("question", str), row.pick_texts("options"), ANSWER_FORMATS["ai2d"])
        questions.append(Question(row.number, row.images, text, text))
    return questions


def score_ai2d(questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions) -> TaskScore:
    """AI2D's accuracy. Raises UsageError for questions of another version."""
    golds = _read_golds(data / _FILES, questions)
    answers = []
    for place, (text, (choices, truth)) in enumerate(zip(texts, golds, strict=True)):
        one = score_answer(text, truth)
        answers.append(ScoredAnswer(place, one.score, one.reading, (truth, choices[truth])))
    readings = {}
    for name, rule in (("VLMEvalKit", read_vlmevalkit), ("bare letter", read_bare_letter)):
        hits = [rule(text, choices) == truth for text, (choices, truth) in zip(texts, golds, strict=True)]
        readings[name] = 100 * sum(hits) / len(hits)
    unread = sum(answer.reading is None for answer in answers)
    notes = [say_unread(unread, len(texts), "lmms-eval counts them as wrong too")] if unread else []
    return TaskScore("accuracy", {"accuracy": find_mean(answers)}, {}, answers, readings, notes)


def _read_golds(path: Path, questions: Sequence[Question]) -> list[tuple[dict[str, str], str]]:
    """The options by letter, and the right letter, of each question."""
    if not questions:
        raise UsageError("There are no answers to score.")
    found = {}
    for row in read_shards(path, ["question", "options", "answer"]):
        choices = name_options(row.pick_texts("options"))
        said = str(row.values["answer"])
        if not said.isdecimal() or int(said) >= len(choices):
            raise UsageError(f"{row.where} has {said!r} as its answer, which is no number of {len(choices)} options.")
        found[row.number] = (row.pick("question", str), choices, list(choices)[int(said)])
    golds = []
    for question in questions:
        asked, choices, truth = found.get(question.id, ("", {}, "")) if isinstance(question.id, int) else ("", {}, "")
        if not truth or not question.prompt.startswith(asked):
            raise UsageError(
                f"'{path}' has another question at row {question.id!r}: the questions are of another version."
            )
        golds.append((choices, truth))
    return golds


AI2D_TASK = Task(
    "ai2d",
    "AI2D",
    "test",
    3088,
    (File(_FILES, "https://huggingface.co/datasets/lmms-lab/ai2d, its folder and file names kept"),),
    "",
    read_ai2d,
    'question and options, then "Answer with the option\'s letter from the given choices directly."',
    16,
    "llava.eval.scoring.ai2d_letters:score_ai2d",
    "none",
    {},
    "none by the authors",
    score="llava.eval.tasks.diagrams:score_ai2d",
)
"""Its row in the table of benchmarks."""
