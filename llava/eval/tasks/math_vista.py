"""MathVista: its questions, and the accuracy over all of them and by what the data set says of each. Loads no torch.

Source: lupantech/MathVista@53d5258 evaluation/calculate_score.py; EvolvingLMMs-Lab/lmms-eval 0.7.3
lmms_eval/tasks/mathvista (the prompt, "format").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llava.data.prompts import INTEGER, LETTER, ONE_DECIMAL, PYTHON_LIST, TWO_DECIMALS, join_lines, write_options
from llava.errors import UsageError
from llava.eval.parquet_shards import ShardRow, read_shards
from llava.eval.scoring.math_vista_answers import CHOICE, MATH_VISTA_READINGS, Problem, score_by_rules
from llava.eval.task import File, Question, Task
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore
from llava.eval.tasks.readings import find_mean, group

_FILES = "mathvista/data/testmini-*.parquet"
_HINTS: dict[tuple[str, float | None], str] = {
    ("integer", None): INTEGER,
    ("float", 1): ONE_DECIMAL,
    ("float", 2): TWO_DECIMALS,
    ("list", None): PYTHON_LIST,
}
_GROUPS = ("language", "source", "category", "task", "context", "grade", "skills")
_COLUMNS = ("pid", "question_type", "answer_type", "choices", "precision")


def read_math_vista(path: Path, images: Path) -> list[Question]:
    """MathVista's questions, each with a sentence on the form of its answer."""
    questions = []
    for row in read_shards(path, [*_COLUMNS, "question", "unit"], images=["decoded_image"]):
        unit = f" (Unit: {row.pick('unit', str)})" if row.values["unit"] else ""
        options = write_options(_read_choices(row))
        text = join_lines(row.pick("question", str) + unit, options, _choose_hint(row)).strip()
        questions.append(Question(row.pick("pid", str), row.images, text, text))
    return questions


def _read_types(row: ShardRow) -> tuple[str, str]:
    """The question's and the answer's type. Raises UsageError for one that MathVista does not have."""
    kind, answer_type = row.pick("question_type", str), row.pick("answer_type", str)
    if (kind == CHOICE) != (answer_type == "text") or kind not in (CHOICE, "free_form"):
        raise UsageError(
            f"{row.where} has the question type {kind!r} with the answer type {answer_type!r}; MathVista has "
            "multi_choice with text, and free_form with integer, float and list."
        )
    return kind, answer_type


def _read_choices(row: ShardRow) -> tuple[str, ...]:
    """The choices, which a question of free form lacks."""
    is_choice = row.pick("question_type", str) == CHOICE
    return row.pick_texts("choices") if is_choice or row.values["choices"] else ()


def _choose_hint(row: ShardRow) -> str:
    question_type, kind = _read_types(row)
    if question_type == CHOICE:
        return LETTER
    precision = row.values["precision"]
    digits = precision if kind == "float" and isinstance(precision, int | float) else None
    found = _HINTS.get((kind, digits))
    if found is None:
        raise UsageError(
            f"{row.where} wants the answer type {kind!r} with precision {precision!r}; MathVista has integer, list, "
            "and float with 1 or 2 digits."
        )
    return found


def score_math_vista(
    questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    """MathVista's accuracy by rules. Raises UsageError for questions of another version, or without answers."""
    return _score(texts, _read_problems(data / _FILES, questions), options, None)


def find_unread(questions: Sequence[Question], texts: Sequence[str], data: Path) -> dict[int, str]:
    """The query of each response that is more than an answer, as MathVista gives it to its judge, by its place."""
    problems = _read_problems(data / _FILES, questions)
    queries = {row.pick("pid", str): row.pick("query", str) for row in read_shards(data / _FILES, ["pid", "query"])}
    return {
        place: queries[str(questions[place].id)]
        for place, (text, (problem, _)) in enumerate(zip(texts, problems, strict=True))
        if score_by_rules(text, problem).note
    }


def score_replies(
    questions: Sequence[Question],
    texts: Sequence[str],
    data: Path,
    options: ScoringOptions,
    replies: Mapping[int, str],
) -> TaskScore:
    """MathVista's accuracy with its judge's replies, by place; a response that lacks one is left out."""
    return _score(texts, _read_problems(data / _FILES, questions), options, replies)


def _score(
    texts: Sequence[str],
    problems: Sequence[tuple[Problem, tuple[str, ...]]],
    options: ScoringOptions,
    replies: Mapping[int, str] | None,
) -> TaskScore:
    _, published, *others = MATH_VISTA_READINGS
    pairs = [(text, problem) for text, (problem, _) in zip(texts, problems, strict=True)]
    verdicts = {place: score_by_rules(*pair) for place, pair in enumerate(pairs)}
    judged = {name: [MATH_VISTA_READINGS[name](*pair) for pair in pairs] for name in (published, *others)}
    unread = [place for place, one in verdicts.items() if one.note]
    for place in unread:
        if replies is not None and place not in replies:
            del verdicts[place]
        elif replies is not None:
            verdicts[place] = replace(score_by_rules(*pairs[place], replies[place]), note="read by a judge")
        elif options.throws_dice:
            verdicts[place] = replace(judged[published][place], note="the choice nearest to an empty text")
    answers = [
        ScoredAnswer(place, one.score, one.reading, (pairs[place][1].answer,), problems[place][1], one.note)
        for place, one in verdicts.items()
    ]
    if not answers:
        raise UsageError("The judge replied to none of the responses, so that there is no score.")
    readings = {name: 100 * sum(one.score for one in ones) / len(texts) for name, ones in judged.items()}
    if replies is not None:
        readings["MathVista by rules"] = 100 * sum(score_by_rules(*pair).score for pair in pairs) / len(texts)
    notes = [_say_unread(len(unread), len(texts), options, replies)] if unread else []
    return TaskScore("accuracy", {"accuracy": find_mean(answers)}, group(answers), answers, readings, notes)


def _say_unread(count: int, total: int, options: ScoringOptions, replies: Mapping[int, str] | None) -> str:
    asked = f"{count} of {total} responses are more than an answer, which MathVista has GPT-4 extract"
    if replies is not None:
        left = f", and {count - len(replies)} got no reply and are left out" if len(replies) < count else ""
        return f"{asked}: the judge extracted {len(replies)}{left}."
    if options.throws_dice:
        return f"{asked}: without it the nearest choice to an empty text is taken, as in MathVista's scorer."
    return f"{asked}: without a judge they count as wrong. Published scores are with the judge."


def _read_problems(path: Path, questions: Sequence[Question]) -> list[tuple[Problem, tuple[str, ...]]]:
    if not questions:
        raise UsageError("There are no answers to score.")
    rows = {row.pick("pid", str): row for row in read_shards(path, [*_COLUMNS, "answer"], ["metadata"])}
    problems = []
    for question in questions:
        if question.id not in rows:
            raise UsageError(f"'{path}' has no question {question.id!r}: the questions are of another version.")
        row = rows[str(question.id)]
        precision, answer = row.values["precision"], row.values["answer"]
        problem = Problem(
            *_read_types(row),
            _read_choices(row),
            precision if isinstance(precision, int | float) else None,
            "" if answer is None else row.pick("answer", str),
        )
        if not problem.answer or (problem.question_type == CHOICE and problem.answer not in problem.choices):
            raise UsageError(
                f"{row.where} has {answer!r} as its answer, which is none: the answers of MathVista's test split are "
                "not published."
            )
        problems.append((problem, _name_groups(row)))
    return problems


def _name_groups(row: ShardRow) -> tuple[str, ...]:
    about = row.values["metadata"]
    pairs = [(key, row.values[key]) for key in ("question_type", "answer_type")]
    for key in _GROUPS if isinstance(about, Mapping) else ():
        value = about.get(key)
        pairs += [(key, one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return tuple(f"{key}: {value}" for key, value in pairs)


MATH_VISTA_TASK = Task(
    "mathvista",
    "MathVista (published scores are a judge's)",
    "testmini",
    1000,
    (File(_FILES, "https://huggingface.co/datasets/AI4Math/MathVista, its folder and file names kept"),),
    "",
    read_math_vista,
    "question, choices, a sentence on the form of the answer",
    1024,
    "llava.eval.scoring.math_vista_answers:score_by_rules",
    "none",
    {
        "llava-v1.5-13b": "27.6",
        "llava-v1.6-vicuna-7b": "34.6",
        "llava-v1.6-vicuna-13b": "35.3",
        "llava-v1.6-mistral-7b": "37.7",
        "llava-v1.6-34b": "46.5",
    },
    "LLaVA-NeXT's blog post, 30 Jan 2024",
    score="llava.eval.tasks.math_vista:score_math_vista",
    judge="llava.eval.tasks.math_vista_replies:judge_math_vista",
)
"""Its row in the table of benchmarks."""
