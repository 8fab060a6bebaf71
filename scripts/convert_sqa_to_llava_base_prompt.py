"""Front door: the prompts of ScienceQA's problems, by the original's functions.

The texts are those of llava.data.convert.scienceqa. An unknown format is a UsageError.

Source: haotian-liu/LLaVA@5a5bda8 scripts/convert_sqa_to_llava_base_prompt.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.data.convert.scienceqa import INPUTS, OUTPUTS, tidy, write_steps
from llava.errors import UsageError

OPTIONS = ("A", "B", "C", "D", "E")


def get_question_text(problem):
    return problem["question"]


def get_context_text(problem, use_caption):
    parts = [problem["hint"], problem["caption"] if use_caption else ""]
    return " ".join(parts).strip() or "N/A"


def get_choice_text(problem, options):
    return " ".join(f"({options[place]}) {choice}" for place, choice in enumerate(problem["choices"]))


def get_answer(problem, options):
    return options[problem["answer"]]


def get_lecture_text(problem):
    return problem["lecture"].replace("\n", "\\n")


def get_solution_text(problem):
    return problem["solution"].replace("\n", "\\n")


def _write(format, question, context, choice, answer, lecture, solution, test_example, *, has_steps=False):
    """What is asked, and what is answered, before blanks are made single."""
    given, _, said = format.partition("-")
    if given not in INPUTS or not (test_example or (said in OUTPUTS and (has_steps or said != "LEPA"))):
        raise UsageError(
            f"There is no format {format!r}: before the hyphen is one of {', '.join(INPUTS)}, and after it one of "
            f"{', '.join(OUTPUTS)}."
        )
    parts = {"q": question, "c": context, "o": choice, "a": answer, "l": lecture, "e": solution}
    asked = INPUTS[given].format(**parts)
    if test_example:
        return asked, "Answer:"
    return asked, write_steps(parts) if said == "LEPA" else OUTPUTS[said].format(**parts)


def create_one_example_chatbot(format, question, context, choice, answer, lecture, solution, test_example=True):
    asked, said = _write(format, question, context, choice, answer, lecture, solution, test_example, has_steps=True)
    return tidy(asked), tidy(said)


def create_one_example(format, question, context, choice, answer, lecture, solution, test_example=True):
    return tidy("".join(_write(format, question, context, choice, answer, lecture, solution, test_example)))


def create_one_example_gpt4(format, question, context, choice, answer, lecture, solution, test_example=True):
    asked, said = _write(format, question, context, choice, answer, lecture, solution, test_example)
    asked = asked.replace("  ", " ").strip()
    return {"role": "user", "content": f"Can you explain {asked}?"}, {"role": "assistant", "content": tidy(said)}


def _read(problem, use_caption, options):
    """Question, context, choices, answer, lecture and solution of a problem."""
    return (
        get_question_text(problem),
        get_context_text(problem, use_caption),
        get_choice_text(problem, options),
        get_answer(problem, options),
        get_lecture_text(problem),
        get_solution_text(problem),
    )


def build_prompt_chatbot(problems, shot_qids, prompt_format, use_caption=False, options=OPTIONS, is_test=False):
    examples = {}
    for qid in shot_qids:
        *first, lecture, solution = _read(problems[qid], use_caption, options)
        texts = (text.replace("\\n", "\n") for text in (lecture, solution))
        examples[qid] = create_one_example_chatbot(prompt_format, *first, *texts, test_example=is_test)
    return examples


def build_prompt(problems, shot_qids, test_qid, args):
    examples = []
    for qid, is_test in [*((qid, False) for qid in shot_qids), (test_qid, True)]:
        parts = _read(problems[qid], args.use_caption, args.options)
        examples.append(create_one_example(args.prompt_format, *parts, test_example=is_test))
    return "\n\n".join(examples)


def build_prompt_gpt4(problems, shot_qids, test_qid, args):
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    for qid, is_test in [*((qid, False) for qid in shot_qids), (test_qid, True)]:
        parts = _read(problems[qid], args.use_caption, args.options)
        messages += create_one_example_gpt4(args.prompt_format, *parts, test_example=is_test)
    return messages
