"""ScienceQA in every format of the original's converter, word by word, and as LLaVA-1.5 asks it.

A format is "INPUT-OUTPUT": Q question, C context, M multiple options, L lecture, E explanation (the field
``solution``), A answer. What the original does by accident is kept, since its models learned from it: AL has the
explanation and AE the lecture, AEL and ALE have them the other way round, double blanks become single ones once, and
"Question: " or "Answer: " goes everywhere in a text that begins with it.

Source: haotian-liu/LLaVA@82bc69e scripts/convert_sqa_to_llava.py and @5a5bda8 convert_sqa_to_llava_base_prompt.py;
lupantech/ScienceQA data/scienceqa (problems.json, pid_splits.json).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llava.data import prompts
from llava.data.convert.converter import Options, Row, Source, make_row
from llava.data.convert.json_input import read_json, take
from llava.errors import UsageError
from llava.yaml_files import name_nearest

_LETTERS = "ABCDE"

# q(uestion), c(ontext), o(ptions), l(ecture), e(xplanation), a(nswer).
INPUTS = {
    "QCM": "Question: {q}\nContext: {c}\nOptions: {o}\n",
    "CQM": "Context: {c}\nQuestion: {q}\nOptions: {o}\n",
    "QCML": "Question: {q}\nContext: {c}\nOptions: {o}\nBECAUSE: {l}\n",
    "QCME": "Question: {q}\nContext: {c}\nOptions: {o}\nBECAUSE: {e}\n",
    "QCMLE": "Question: {q}\nContext: {c}\nOptions: {o}\nBECAUSE: {l} {e}\n",
    "QCLM": "Question: {q}\nContext: {c}\nBECAUSE: {l}\nOptions: {o}\n",
    "QCEM": "Question: {q}\nContext: {c}\nBECAUSE: {e}\nOptions: {o}\n",
    "QCLEM": "Question: {q}\nContext: {c}\nBECAUSE: {l} {e}\nOptions: {o}\n",
}
OUTPUTS = {
    "LEA": "Answer: {l} {e} The answer is {a}.",
    "A": "Answer: The answer is {a}.",
    "AL": "Answer: The answer is {a}. BECAUSE: {e}",
    "AE": "Answer: The answer is {a}. BECAUSE: {l}",
    "ALE": "Answer: The answer is {a}. BECAUSE: {l} {e}",
    "AEL": "Answer: The answer is {a}. BECAUSE: {e} {l}",
    "LA": "Answer: {l} The answer is {a}.",
    "EA": "Answer: {e} The answer is {a}.",
    "ELA": "Answer: {e} {l} The answer is {a}.",
    "LEPA": "",  # written by write_steps
}
LETTER = "letter"

_ORDERS = {"Q": "question", "C": "context", "M": "options", "L": "lecture", "E": "explanation"}

FORMATS = {
    f"{given}-{said}": f"as the original's script, from {', '.join(_ORDERS[part] for part in given)}"
    for given in INPUTS
    for said in OUTPUTS
} | {LETTER: "as LLaVA-1.5 is asked: context, question, lettered options; answered by the letter"}

SPLITS = ("train", "val", "test", "trainval", "minitrain", "minival", "minitest")


def convert_scienceqa(source: Source, options: Options) -> Iterator[Row]:
    """The problems of a split in the order of pid_splits.json; the id and the image's name are the original's."""
    problems, splits = read_json(source.file(0)), read_json(source.file(1))
    where = f"'{source.file(1)}'"
    if not isinstance(splits, dict) or not isinstance(splits.get(options.split), list):
        known = splits if isinstance(splits, dict) else ()
        raise UsageError(f"{where} has no list '{options.split}'.{name_nearest(options.split, map(str, known))}")
    if not isinstance(problems, dict):
        raise UsageError(f"'{source.file(0)}' has to be an object of problems by their numbers.")
    for id in map(str, splits[options.split]):
        if id not in problems:
            options.leave_out("is in pid_splits.json, but not in problems.json", f"problem {id}")
            continue
        yield from _convert_problem(id, problems[id], f"Problem {id} of '{source.file(0)}'", options)


def _convert_problem(id: str, problem: Any, where: str, options: Options) -> Iterator[Row]:
    choices, answer = take(problem, "choices", list, where), take(problem, "answer", int, where)
    if len(choices) > len(_LETTERS):
        options.leave_out("has more options than letters, A to E", f"problem {id}")
        return
    if not 0 <= answer < len(choices):
        options.leave_out("has an answer that is none of its options", f"problem {id}")
        return
    image = problem.get("image")
    name = None if image is None else f"{id}/{image}"
    if options.format == LETTER:
        question, said = _ask_letter(problem, choices, answer, where, options)
        yield make_row(id, name, [(question, said)], "scienceqa")
        return
    question, said = _write_problem(problem, choices, answer, where, options.format)
    if name is not None:
        question += "\n<image>"  # at the end here, other than everywhere else
    row = make_row(id, None, [(question, said)], "scienceqa")
    yield row if name is None else {"id": id, "image": name, **row}


def _write_problem(problem: Any, choices: list[Any], answer: int, where: str, format: str) -> tuple[str, str]:
    """Question and answer, exactly as the original's script makes them."""
    given, said = format.split("-")
    parts = {
        "q": take(problem, "question", str, where),
        "c": take(problem, "hint", str, where).strip() or "N/A",
        "o": " ".join(f"({letter}) {choice}" for letter, choice in zip(_LETTERS, choices, strict=False)),
        "l": take(problem, "lecture", str, where).replace("\\n", "\n"),
        "e": take(problem, "solution", str, where).replace("\\n", "\n"),
        "a": _LETTERS[answer],
    }
    question = tidy(INPUTS[given].format(**parts))
    reply = tidy(write_steps(parts) if said == "LEPA" else OUTPUTS[said].format(**parts))
    if question.startswith("Question: "):
        question = question.replace("Question: ", "")
    if reply.startswith("Answer: "):
        reply = reply.replace("Answer: ", "")
    return question, reply


def write_steps(parts: dict[str, str]) -> str:
    """The answer of LEPA: lecture and solution, where there are any, and the letter after a line of its own."""
    lecture = f"LECTURE: {parts['l']}\n" if parts["l"].strip() else ""
    solution = f"SOLUTION: {parts['e']}\n" if parts["e"].strip() else ""
    return f"{lecture}{solution}###\nANSWER: {parts['a']}."


def tidy(text: str) -> str:
    """The text with double blanks made single ones once, and without all "BECAUSE:" if it ends with one."""
    text = text.replace("  ", " ").strip()
    return text.replace("BECAUSE:", "").strip() if text.endswith("BECAUSE:") else text


def _ask_letter(problem: Any, choices: list[Any], answer: int, where: str, options: Options) -> tuple[str, str]:
    hint = take(problem, "hint", str, where).strip()
    context = f"Context: {hint}" if hint else ""
    asked = prompts.join_lines(context, take(problem, "question", str, where), prompts.write_options(choices))
    return options.ask(asked, prompts.ANSWER_FORMATS["scienceqa"]), _LETTERS[answer]
