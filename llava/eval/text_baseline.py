"""A text model's answers to questions, as a baseline without images. Loads no torch.

Source: haotian-liu/LLaVA@c121f04 llava/eval/qa_baseline_gpt35.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from llava.data.collection.journal import lock_file, write_whole
from llava.errors import UsageError
from llava.eval.json_files import find_repeated, pick, read_whole_lines
from llava.eval.judge import Ask, Review, ReviewRequest
from llava.eval.judge_flags import JudgeDefaults, open_judge
from llava.eval.reviews_file import find_journal
from llava.text import write_line

MODEL, MODEL_ID = "gpt-3.5-turbo", "gpt-3.5-turbo:20230327"
SYSTEM = "You are a helpful assistant."
_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"  # shortuuid's


def make_answer_id(question_id: object, model_id: str) -> str:
    """22 letters that look like those of the package shortuuid, and follow from the arguments."""
    number = int.from_bytes(hashlib.sha256(json.dumps([question_id, model_id]).encode()).digest()[:16], "big")
    letters = []
    for _ in range(22):
        number, place = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[place])
    return "".join(reversed(letters))


def answer_questions(arguments: argparse.Namespace, questions: Path, output: Path) -> int:
    """Writes the answers, ordered by question_id; the exit code is 1 if some questions got none. Raises LlavaError."""
    rows = read_whole_lines(questions)
    texts = {pick(row, "question_id", questions): pick(row, "text", questions) for row in rows}
    if repeated := find_repeated(row["question_id"] for row in rows):
        write_line(
            f"llava: {len(repeated)} questions occur more than once in '{questions}', such as {repeated[0]!r}; the "
            "last text of each is asked."
        )
    try:
        ids = sorted(texts)
    except TypeError as error:
        raise UsageError(f"The ids in '{questions}' are numbers and texts: make them all one or the other.") from error
    requests = {}
    for key in ids:
        messages = ({"role": "system", "content": SYSTEM}, {"role": "user", "content": texts[key]})
        requests[json.dumps(key)] = ReviewRequest(json.dumps(key), (Ask(messages),))
    defaults = JudgeDefaults(MODEL, None, arguments.max_tokens)
    journal = find_journal(output)
    judge = open_judge(arguments, defaults, journal, lambda text: True, SYSTEM)
    write_line(judge.describe_cost(list(requests.values()), len(requests)))
    if arguments.judge_dry_run:
        return 0
    answers: dict[str, str] = {}

    def keep(review: Review) -> None:
        if not review.fault:
            answers[review.id] = review.text

    model_id = MODEL_ID if judge.client.model == MODEL else judge.client.model
    with lock_file(journal):
        judge.journal.open()
        try:
            judge.run(list(requests.values()), keep)
        finally:
            judge.journal.close()
            lines = [_write_row(key, model_id, answers) for key in ids if json.dumps(key) in answers]
            write_whole(output.resolve(), "\n".join(lines).encode())
    num_missing = len(ids) - len(answers)
    if num_missing:
        reasons = "; ".join(f"{fault} ({num})" for fault, num in judge.faults.most_common(3)) or judge.limit
        write_line(
            f"llava: error: {num_missing} of {len(ids)} questions got no answer and are not in '{output}': {reasons}. "
            "Run the same command again to ask them."
        )
    return 1 if num_missing else 0


def _write_row(key: object, model_id: str, answers: dict[str, str]) -> str:
    answer_id, text = make_answer_id(key, model_id), answers[json.dumps(key)]
    return json.dumps({"answer_id": answer_id, "question_id": key, "model_id": model_id, "text": text})
