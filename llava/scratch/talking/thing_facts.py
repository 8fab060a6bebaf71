"""A sentence about each thing, which the language model itself writes, so that answers may say more than a name.

    python -m llava.scratch.talking.thing_facts THINGS facts.json

Without an image the default model is SmolLM2, so this is what SmolLM2 says. It is often wrong, and what a rule can see
to be wrong is left out. All answers are kept in ``facts.jsonl`` beside the result: a run that was stopped continues,
and a change of the rules needs no new answers.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llava.scratch.talking.thing_turns import ANIMALS, BUILDINGS, FOODS, PLANTS, VEHICLES
from llava.scratch.things.names import with_article

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

QUESTION = "What is {}? Answer in one short sentence."
_MAX_NEW_TOKENS = 48
_MOST_WORDS, _FEWEST_WORDS = 25, 5
_WRITE_EVERY = 50  # answers
_GROUPS = (ANIMALS, FOODS | PLANTS, VEHICLES, BUILDINGS)
# What the sentence says that the thing is: "is a type of small, brown bird" -> "small, brown bird".
_IS = re.compile(r"\b(?:is|are|was|were) (?:an? |the |some )?((?:(?!\b(?:that|which|with|in|of|used|made|for)\b).)+)")
_CLASS = "type|kind|form|species|breed|variety|genus|family|member|subspecies"
_KIND_OF = re.compile(rf"(?:\w+ )?(?:{_CLASS})s? of (?:an? |the )?")


def list_names(folder: Path) -> dict[str, str]:
    """The kind of each thing by its name: what views show and ImageNet's classes. ``folder``: of ``view_features``."""
    views = json.loads((folder / "views.json").read_text("utf-8"))
    things = [thing for view in views for thing in view["objects"]]
    things += json.loads((folder / "classes.json").read_text("utf-8"))
    return dict(sorted({thing["name"]: thing["kind"] for thing in things}.items()))


def ask_all(loaded: LoadedModel, names: Sequence[str]) -> Iterator[str]:
    """What the model answers about each, computed together and without chance."""
    from llava.answer import write_chat
    from llava.backends.answerer import Answerer
    from llava.sampling import Sampling

    sampling = Sampling(temperature=0, max_new_tokens=_MAX_NEW_TOKENS)
    chats = (write_chat(loaded, [(QUESTION.format(with_article(name)), 0, None)], None) for name in names)
    for answer in Answerer.of(loaded).answer_all((chat, [], sampling) for chat in chats):
        yield answer.text


def keep_fact(answer: str, name: str, kind: str) -> str | None:
    """The answer's first sentence; None if it is no usable sentence about the thing, or calls it another kind."""
    sentence = re.split(r"(?<=[.!?])\s", answer.strip())[0]
    words = re.findall(r"[\w'-]+", sentence.lower())
    if not sentence.endswith(".") or "\n" in sentence or not _FEWEST_WORDS <= len(words) <= _MOST_WORDS:
        return None
    if re.search(r"\b(I|I'm|my|me|you|your)\b", sentence) or _repeats(words) or not _names(words, name):
        return None
    return None if _is_of_another_group(sentence, kind) else sentence


def _names(words: Sequence[str], name: str) -> bool:
    """Whether each word of the name occurs, in singular or plural."""
    heads = {word.rstrip("s") for word in words}
    return all(word.rstrip("s") in heads for word in re.findall(r"[\w'-]+", name.lower()))


def _repeats(words: Sequence[str]) -> bool:
    """Whether three words follow one another twice, or one word comes four times that is no article or preposition."""
    triples = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    long = [word for word in words if len(word) > 3]
    return len(set(triples)) < len(triples) or any(long.count(word) > 3 for word in long)


def _is_of_another_group(sentence: str, kind: str) -> bool:
    """Whether it says "is a bird" of what is no animal, or the like."""
    match = _IS.search(_KIND_OF.sub("", sentence.lower()))
    if match is None:
        return False
    said = re.sub(r"[^\w\s]", " ", match[1]).split()
    head = said[-1].rstrip("s") if said else ""
    return any(head in group and kind not in group for group in _GROUPS)


def write_facts(answers: Mapping[str, str], kinds: Mapping[str, str], file: Path) -> dict[str, str]:
    """Writes the sentences that are kept, by names, as JSON, and returns them."""
    kept = {name: keep_fact(answers[name], name, kind) for name, kind in kinds.items() if name in answers}
    facts = {name: fact for name, fact in kept.items() if fact is not None}
    write_whole(file, json.dumps(facts, indent=0, ensure_ascii=False) + "\n")
    return facts


def write_whole(file: Path, text: str) -> None:
    """Writes the file at once or not at all."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(file)


def _write_line(one: tuple[str, str]) -> str:
    return json.dumps({"name": one[0], "answer": one[1]}, ensure_ascii=False) + "\n"


def read_answers(file: Path) -> dict[str, str]:
    """The answers of earlier runs; a line that was cut is not counted."""
    answers = {}
    for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
        try:
            one = json.loads(line)
        except ValueError:
            continue
        answers[one["name"]] = one["answer"]
    return answers


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("things", type=Path, help="the folder of llava.scratch.things.view_features")
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="talking", help="which model is asked")
    arguments = parser.parse_args()
    kinds, log = list_names(arguments.things), arguments.output.with_suffix(".jsonl")
    answers = read_answers(log)
    missing = [name for name in kinds if name not in answers]
    if missing:
        from llava.model.checkpoint import load_model

        loaded = load_model(arguments.model, device="cpu", for_engine=True)
        write_whole(log, "".join(map(_write_line, answers.items())))  # without a line that was cut
        with log.open("a", encoding="utf-8") as lines:
            for name, answer in zip(missing, ask_all(loaded, missing), strict=True):
                answers[name] = answer
                lines.write(_write_line((name, answer)))
                lines.flush()
                if len(answers) % _WRITE_EVERY == 0:
                    facts = write_facts(answers, kinds, arguments.output)
                    print(f"{len(answers)} of {len(kinds)} answered, {len(facts)} kept", flush=True)
    facts = write_facts(answers, kinds, arguments.output)
    print(f"{len(answers)} of {len(kinds)} answered, {len(facts)} kept")


if __name__ == "__main__":
    main()
