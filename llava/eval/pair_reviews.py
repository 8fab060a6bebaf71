"""Reviews of two answers to each question, as LLaVA's ``eval_gpt_review*`` write them: prompts and rows.

Answers are matched to questions by question_id; where no answer has one, by line, as the original always does. Other
counts, repeated ids and missing keys are refused before anybody is asked. Loads no torch.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_gpt_review.py, eval_gpt_review_bench.py, eval_gpt_review_visual.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llava.errors import UsageError
from llava.eval.json_files import find_repeated, pick, read_json, read_whole_lines
from llava.eval.judge import Ask, ReviewRequest
from llava.text import write_line

SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
TEMPERATURE = 0.2


@dataclass(frozen=True)
class PairFiles:
    """The files of a run; ``context`` is None for questions without an image."""

    questions: str
    answers: tuple[str, str]
    rules: str
    context: str | None


@dataclass(frozen=True)
class PairRow:
    """One review to be made: the first keys of its row in the reviews file, the judge's prompt, and its rule."""

    facts: dict[str, Any]
    content: str
    rule: str

    @property
    def request(self) -> ReviewRequest:
        """What the judge is asked."""
        messages = ({"role": "system", "content": SYSTEM}, {"role": "user", "content": self.content})
        return ReviewRequest(str(self.facts["id"]), (Ask(messages),))


@dataclass(frozen=True)
class PairProtocol:
    """What differs between the three scripts.

    Attributes:
        describe: the context of a question from its row of the context file.
        prefix: of the category, which names the rule.
        default_rule: whether the rule "default" is for categories without one.
        wants_answer_ids: whether both answers need an answer_id, or the second one only.
    """

    judge: str
    describe: Callable[[dict[str, Any], str], str] | None
    prefix: str = ""
    default_rule: bool = False
    wants_answer_ids: bool = False


def read_rows(files: PairFiles, protocol: PairProtocol) -> list[PairRow]:
    """All reviews to be made, in the questions' order. Raises UsageError."""
    questions = read_whole_lines(files.questions)
    if not questions:
        raise UsageError(f"'{files.questions}' has no questions.")
    firsts, seconds = (_match(files.questions, questions, path) for path in files.answers)
    rules = read_json(files.rules)
    if not isinstance(rules, dict):
        raise UsageError(f"'{files.rules}' is not a file of rules: it holds no object.")
    contexts = _read_contexts(files.context)
    rows = []
    for number, (question, first, second) in enumerate(zip(questions, firsts, seconds, strict=True), 1):
        category = protocol.prefix + str(pick(question, "category", files.questions))
        rule = _find_rule(rules, category, files.rules, protocol.default_rule)
        context = ""
        if protocol.describe is not None:
            image = pick(question, "image", files.questions)
            if image not in contexts:
                raise UsageError(f"'{files.context}' describes no image {image!r}, about which question {number} asks.")
            try:
                context = f"[Context]\n{protocol.describe(contexts[image], str(files.context))}\n\n"
            except (TypeError, AttributeError) as error:
                raise UsageError(
                    f"The row of image {image!r} in '{files.context}' is not a description: {error}."
                ) from error
        facts = {
            "id": number,
            "question_id": pick(question, "question_id", files.questions),
            "answer1_id": _find_answer_id(first, files.answers[0], protocol.wants_answer_ids),
            "answer2_id": pick(second, "answer_id", files.answers[1]),
            "category": category,
        }
        texts = [pick(question, "text", files.questions)]
        texts += [pick(row, "text", path) for row, path in zip((first, second), files.answers, strict=True)]
        content = context + _write_prompt(texts, rule["role"], rule["prompt"])
        rows.append(PairRow(facts, content, str(rule["prompt"])))
    return rows


def describe_captions(row: dict[str, Any], path: str) -> str:
    """The context of LLaVA-Bench (in the wild): the caption, or several in lines."""
    caption = pick(row, "caption", path)
    return "\n".join(caption) if isinstance(caption, list) else str(caption)


def describe_boxes(row: dict[str, Any], path: str) -> str:
    """The context of LLaVA-Bench (COCO): captions, and the category and box of each object."""
    boxes = [f"{pick(box, 'category', path)}: {pick(box, 'bbox', path)}" for box in pick(row, "instances", path)]
    return "\n".join(pick(row, "captions", path)) + "\n\n" + "\n".join(boxes)


def _write_prompt(texts: Sequence[Any], role: str, prompt: str) -> str:
    question, first, second = texts
    return (
        f"[Question]\n{question}\n\n"
        f"[{role} 1]\n{first}\n\n[End of {role} 1]\n\n"
        f"[{role} 2]\n{second}\n\n[End of {role} 2]\n\n"
        f"[System]\n{prompt}\n\n"
    )


def _match(path: str, questions: list[dict[str, Any]], answers_path: str) -> list[dict[str, Any]]:
    """The answer to each question."""
    answers = read_whole_lines(answers_path)
    if len(answers) != len(questions):
        raise UsageError(
            f"'{path}' has {len(questions)} questions, but '{answers_path}' has {len(answers)} answers: name the "
            "answers to these questions."
        )
    if not any("question_id" in row for row in answers):
        return answers
    asked = [str(pick(row, "question_id", path)) for row in questions]
    ids = [str(pick(row, "question_id", answers_path)) for row in answers]
    if ids == asked:
        if repeated := find_repeated(asked):
            write_line(f"llava: {len(repeated)} questions occur more than once in '{path}', such as {repeated[0]}.")
        return answers
    for name, found in ((path, asked), (answers_path, ids)):
        if repeated := find_repeated(found):
            raise UsageError(
                f"{len(repeated)} questions occur more than once in '{name}', such as {repeated[0]}: which of them "
                "counts is not known. Remove the others."
            )
    by_id = dict(zip(ids, answers, strict=True))
    missing = [key for key in asked if key not in by_id]
    if missing:
        raise UsageError(
            f"{len(missing)} of the {len(asked)} questions of '{path}' have no answer in '{answers_path}', the first "
            f"of them {missing[0]}: its answers are to other questions."
        )
    write_line(f"llava: '{answers_path}' has another order than the questions; answers are matched by question_id.")
    return [by_id[key] for key in asked]


def _find_answer_id(row: dict[str, Any], path: str, is_needed: bool) -> Any:
    return pick(row, "answer_id" if is_needed or "answer_id" in row else "question_id", path)


def _find_rule(rules: dict[str, Any], category: str, path: str, has_default: bool) -> dict[str, Any]:
    rule = rules.get(category, rules.get("default") if has_default else None)
    if not (isinstance(rule, dict) and "role" in rule and "prompt" in rule):
        raise UsageError(
            f"'{path}' has no rule for the category {category!r}: llava/eval/table/rule.json has those of LLaVA-Bench."
        )
    return rule


def _read_contexts(path: str | None) -> dict[Any, dict[str, Any]]:
    if path is None:
        return {}
    return {pick(row, "image", path): row for row in read_whole_lines(path)}


LLAVA_BENCH = PairProtocol(judge="gpt-4-0314", describe=describe_captions, prefix="llava_bench_")
"""LLaVA-Bench (in the wild)."""
