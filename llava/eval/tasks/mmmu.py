"""MMMU: its questions, and the accuracy over all of them, by discipline and by subject. Loads no torch.

Source: MMMU-Benchmark/MMMU@bb0b95a eval/main_parse_and_eval.py, main_eval_only.py and data_utils.py;
mmmu/configs/llava1.5.yaml (its own prompt); EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/mmmu (the other prompt).
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llava.data.prompts import ANSWER_FORMATS, LETTER, SHORT_ANSWER, write_options
from llava.errors import UsageError
from llava.eval.parquet_shards import ShardRow, read_shards
from llava.eval.scoring.letter_rules import name_options
from llava.eval.scoring.mmmu_parsers import CHOICE, MMMU_READINGS, parse_golds
from llava.eval.scoring.verdict import Verdict
from llava.eval.task import File, Question, Task
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore
from llava.eval.tasks.readings import find_mean, group, say_unread

_FILES = "mmmu/data/validation-*.parquet"
_IMAGES = [f"image_{number}" for number in range(1, 8)]
_IMAGE_WORD = re.compile(r"<image (\d+)>")

SEED = 42
"""Of MMMU's dice."""

DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
_DISCIPLINE_OF = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects}
_ORDER = [name for discipline, subjects in DISCIPLINES.items() for name in (discipline, *subjects)]

Gold = tuple[str, list[str], str]
"""The question's type, its options, and the answer."""


def read_mmmu(path: Path, images: Path) -> list[Question]:
    """MMMU's questions as lmms-eval asks them: their text keeps the words ``<image 1>``, all images come first.

    An image that only an option names is shown too, and one that nothing names is not.
    """
    questions = []
    for row in read_shards(path, ["id", "question", "options", "question_type"], images=_IMAGES):
        lines = row.pick("question", str)
        if row.pick("question_type", str) == CHOICE:
            lines += f"\n{write_options(_read_options(row))}"
        text = f"{lines}\n\n{_choose_sentence(row)}"
        numbers = sorted(set(_IMAGE_WORD.findall(lines)))
        if strange := [number for number in numbers if f"image_{number}" not in _IMAGES]:
            raise UsageError(f"{row.where} names the image {strange[0]}; there are {len(_IMAGES)}.")
        shown = tuple(row.images[_IMAGES.index(f"image_{number}")] for number in numbers)
        questions.append(Question(row.pick("id", str), shown, text, text))
    return questions


def read_mmmu_own(path: Path, images: Path) -> list[Question]:
    """MMMU's questions as its own script asks LLaVA-1.5: with the first image only, and options as "(A) x"."""
    questions = []
    for row in read_shards(path, ["id", "question", "options", "question_type"], images=_IMAGES[:1]):
        text = row.pick("question", str)
        if row.pick("question_type", str) == CHOICE:
            options = name_options(_read_options(row))
            text += "\n\n" + "".join(f"({letter}) {option}\n" for letter, option in options.items())
        text += f"\n\n{_choose_sentence(row)}"
        questions.append(Question(row.pick("id", str), row.images, text, text))
    return questions


def _choose_sentence(row: ShardRow) -> str:
    return ANSWER_FORMATS["mmmu"] if row.pick("question_type", str) == CHOICE else SHORT_ANSWER


def _read_options(row: ShardRow) -> list[str]:
    """The options: a list, or the text of one as Python writes it. Raises UsageError for neither."""
    options = row.values["options"]
    if isinstance(options, str):
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            options = None
    if not isinstance(options, list):
        raise UsageError(f"{row.where} has no list of options, but {str(row.values['options'])[:80]!r}.")
    return [str(option) for option in options]


def score_mmmu(questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions) -> TaskScore:
    """MMMU's accuracy. Raises UsageError for questions of another version, or without published answers."""
    golds = _read_golds(data / _FILES, questions)
    headline, *others = MMMU_READINGS
    judged = {
        name: [scorer(text, *gold) for text, gold in zip(texts, golds, strict=True)]
        for name, scorer in MMMU_READINGS.items()
    }
    verdicts = judged[headline]
    unread = [place for place, gold in enumerate(golds) if gold[0] == CHOICE and verdicts[place].reading is None]
    if options.throws_dice:
        verdicts = _throw_dice(questions, golds, verdicts, unread)
    answers = [
        ScoredAnswer(place, one.score, one.reading, _name_right(gold), _categories(question), one.note)
        for place, (question, gold, one) in enumerate(zip(questions, golds, verdicts, strict=True))
    ]
    if options.throws_dice:
        notes = [f"{len(unread)} answers could not be read: dice are thrown as in MMMU's scorer, seed {SEED}."]
        notes += ["The other readings count answers that they cannot read as wrong."]
        notes += ["Dice depend on all answers before them; of a part they are others."] if options.is_partial else []
    else:
        notes = [say_unread(len(unread), len(texts), "MMMU's scorer throws dice for their letter")] if unread else []
    if several := sum(len(question.images) > 1 for question in questions):
        notes.append(
            f"{several} questions have several images, each on its own line; lmms-eval has a blank between them."
        )
    scores = {"accuracy": find_mean(answers)}
    for name, is_choice in (("multiple-choice questions", True), ("open questions", False)):
        if chosen := [answer for answer in answers if (golds[answer.place][0] == CHOICE) == is_choice]:
            scores[f"accuracy of {name}"] = find_mean(chosen)
    readings = {name: 100 * sum(one.score for one in judged[name]) / len(texts) for name in others}
    return TaskScore("accuracy", scores, group(answers, _ORDER), answers, readings, notes)


def _read_golds(path: Path, questions: Sequence[Question]) -> list[Gold]:
    if not questions:
        raise UsageError("There are no answers to score.")
    found = {}
    for row in read_shards(path, ["id", "question_type", "options", "answer"]):
        kind = row.pick("question_type", str)
        choices = _read_options(row) if kind == CHOICE else []
        found[row.pick("id", str)] = (kind, choices, row.pick("answer", str))
    for question in questions:
        if question.id not in found:
            raise UsageError(f"'{path}' has no question {question.id!r}: the questions are of another version.")
        kind, choices, gold = found[str(question.id)]
        if gold == "?" or (kind == CHOICE and gold not in name_options(choices)):
            raise UsageError(
                f"'{path}' has {gold!r} as the answer of question {question.id!r}, which is none of its letters: the "
                "answers of MMMU's test split are not published."
            )
    return [found[str(question.id)] for question in questions]


def _throw_dice(
    questions: Sequence[Question], golds: Sequence[Gold], verdicts: Sequence[Verdict], unread: Sequence[int]
) -> list[Verdict]:
    """The verdicts with thrown letters, subject by subject in alphabetical order as in MMMU's scorer."""
    dice, thrown = random.Random(SEED), list(verdicts)
    for place in sorted(unread, key=lambda place: (_subject_of(questions[place]), place)):
        letter = dice.choice(list(name_options(golds[place][1])))
        right = float(letter == golds[place][2])
        thrown[place] = replace(verdicts[place], score=right, reading=letter, note="thrown by dice")
    return thrown


def _subject_of(question: Question) -> str:
    return "_".join(str(question.id).split("_")[1:-1])


def _categories(question: Question) -> tuple[str, ...]:
    subject = _subject_of(question)
    return tuple(name for name in (_DISCIPLINE_OF.get(subject), subject) if name)


def _name_right(gold: Gold) -> tuple[str, ...]:
    kind, choices, answer = gold
    return (answer, name_options(choices)[answer]) if kind == CHOICE else tuple(parse_golds(answer))


_CHOICE_PROMPT = f'"{LETTER}"'
_OPEN_PROMPT = f'an open question: blank line, "{SHORT_ANSWER}"'
_BLOG = "LLaVA-NeXT's blog post, 30 Jan 2024"
_NEXT = {
    "llava-v1.6-vicuna-7b": "35.8",
    "llava-v1.6-vicuna-13b": "36.2",
    "llava-v1.6-mistral-7b": "35.3",
    "llava-v1.6-34b": "51.1",
}

MMMU_TASKS = tuple(
    Task(
        name,
        title,
        "val",
        900,
        (File(_FILES, "https://huggingface.co/datasets/lmms-lab/MMMU, its folder and file names kept"),),
        "",
        reader,
        prompt,
        128,
        "llava.eval.scoring.mmmu_parsers:score_official",
        "none",
        published,
        _BLOG,
        score="llava.eval.tasks.mmmu:score_mmmu",
    )
    for name, title, reader, prompt, published in (
        (
            "mmmu",
            "MMMU as lmms-eval asks it",
            read_mmmu,
            f'question with the words "<image 1>", options, blank line, {_CHOICE_PROMPT}; {_OPEN_PROMPT}',
            {"llava-v1.5-13b": "36.4"} | _NEXT,
        ),
        (
            "mmmu_own",
            "MMMU as its own script asks LLaVA-1.5, with the first image only",
            read_mmmu_own,
            f'question, blank line, lines "(A) ...", two blank lines, {_CHOICE_PROMPT}; {_OPEN_PROMPT}',
            {"llava-v1.5-13b": "36.4"},
        ),
    )
)
"""Its rows in the table of benchmarks."""
