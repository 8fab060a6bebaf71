"""A sentence about each thing, which the language model itself writes, so that answers may say more than a name.

    python -m llava.scratch.talking.thing_facts THINGS facts.json

Without an image the default model is SmolLM2, so this is what SmolLM2 says. It is often wrong, and what a rule can see
to be wrong is left out. All answers are kept in ``facts.jsonl`` beside the result: a run that was stopped continues,
and a change of the rules needs no new answers.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from llava.data.collection.journal import write_whole
from llava.model.lexical.nouns import is_plural, with_article
from llava.scratch.talking.thing_groups import ANIMALS, BUILDINGS, FOODS, PLANTS, VEHICLES

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

_MAX_NEW_TOKENS = 36
_MOST_WORDS, _FEWEST_WORDS = 25, 5
_WRITE_EVERY = 50  # answers
_GROUPS = (ANIMALS, FOODS, PLANTS, VEHICLES, BUILDINGS)
# What may be said of everything in a group, in place of its kind.
_GENERAL = {
    ANIMALS: frozenset("animal mammal creature breed species reptile amphibian arthropod invertebrate".split()),
    FOODS: frozenset("food dish fruit vegetable plant dessert drink beverage meal snack ingredient treat".split()),
    PLANTS: frozenset("plant flower fungus shrub".split()),
    VEHICLES: frozenset("vehicle craft machine transport transportation watercraft".split()),
    BUILDINGS: frozenset("building structure place house".split()),
}
# What is called one of these is no thing that an image shows: the name was understood in another sense.
_NO_THINGS = frozenset(
    """term word phrase concept process technique style genre language sport game activity dance disease condition
    event group person musician artist singer actor player character band song film movie company brand city town
    region folklore mythology""".split()
)
# Of what is not real, or not said in company; and where a thing comes from, which the model mostly has wrong.
_UNWANTED = re.compile(
    r"\b(mythical|mythological|legendary|fictional|fantasy|novel|folklore|mythology|assed|sexy?|sexual|not an?|"
    r"actually|confused|mistaken|native|originat\w*|found in|illicit)\b"
    r"|\b(?:that|is|are|and|of|the|with|in)\.$"
)
_MYTHICAL = frozenset("alien dragon ghost mermaid unicorn robot".split())
# What the sentence says that the thing is: "is a type of small, brown bird" -> "small, brown bird".
_STOP = (
    r"\b(?:that|which|who|with|in|of|on|from|by|to|for|used|made|known|played|designed|built|native|found|originating|"
    r"raised|filled|named|based)\b"
)
# Animals that are called mammals in error alone.
_NO_MAMMALS = frozenset(
    """bird chicken duck goose swan owl parrot penguin eagle pigeon turkey fish shark frog lizard snake turtle crocodile
    dinosaur reptile amphibian insect butterfly moth beetle bee ant fly dragonfly grasshopper spider scorpion crab
    crustacean snail worm jellyfish starfish coral""".split()
)
_IS = re.compile(rf"\b(?:is|are|was|were) (?:an? |the |some )?((?:(?!{_STOP}).)+)")
_CLASS = "type|kind|form|species|breed|variety|genus|family|member|subspecies"
_KIND_OF = re.compile(rf"(?:\w+ )?(?:{_CLASS})s? of (?:an? |the )?")
# Where a sentence that is too long may end.
_CLAUSE = re.compile(
    r",? and (?:is|are|was|has|have)\b| that (?:is|are) often (?:confused|mistaken)|,? but\b|"
    r",?(?: that (?:is|are))? native to\b|,? that originated\b|,? originating\b|,? found in\b|"
    r", (?:which|who|known|often|typically|usually|primarily|specifically|commonly|especially|particularly|"
    r"characterized|making|with|where|native|found|designed|used)\b"
)


def list_names(folder: Path) -> dict[str, str]:
    """The kind of each thing by its name: what views show and ImageNet's classes. ``folder``: of ``view_features``."""
    views = json.loads((folder / "views.json").read_text("utf-8"))
    things = [thing for view in views for thing in view["objects"]]
    things += json.loads((folder / "classes.json").read_text("utf-8"))
    return dict(sorted({thing["name"]: thing["kind"] for thing in things}.items()))


def write_question(name: str, kind: str) -> str:
    """What the model is asked. The kind, where the name does not say it, tells it which sense is meant."""
    which = "" if kind in name else f", which {'are' if is_plural(name) else 'is'} {with_article(kind)}"
    return f"What {'are' if is_plural(name) else 'is'} {with_article(name)}{which}? Answer in one short sentence."


def ask_all(loaded: LoadedModel, questions: Sequence[str]) -> Iterator[str]:
    """What the model answers to each, computed together and without chance."""
    from llava.answer import write_chat
    from llava.backends.answerer import Answerer
    from llava.sampling import Sampling

    sampling = Sampling(temperature=0, max_new_tokens=_MAX_NEW_TOKENS)
    chats = (write_chat(loaded, [(question, 0, None)], None) for question in questions)
    for answer in Answerer.of(loaded).answer_all((chat, [], sampling) for chat in chats):
        yield answer.text


def keep_fact(answer: str, name: str, kind: str) -> str | None:
    """The answer's first sentence, or its first clauses where these alone are usable; None if nothing is.

    It is usable if it ends, is short, names the thing, does not repeat itself, and calls the thing what it is.
    """
    sentence = re.sub(r" \([^)]*\)", "", re.split(r"(?<=[.!?])\s", answer.strip())[0])  # Latin, and mostly wrong
    ends = [match.start() for match in _CLAUSE.finditer(sentence)]
    whole = [sentence] if sentence.endswith(".") else []
    for text in (*whole, *(f"{sentence[:end]}." for end in reversed(ends))):
        if _is_usable(text, name, kind):
            return text
    return None


def _is_usable(sentence: str, name: str, kind: str) -> bool:
    words = re.findall(r"[\w'-]+", sentence.lower())
    if "\n" in sentence or not _FEWEST_WORDS <= len(words) <= _MOST_WORDS or _repeats(words):
        return False
    if not re.search(r"\b(is|are|has|have|can)\b", sentence) or not _begins_with(words, name):
        return False
    if re.search(r"\b(I|I'm|my|me|you|your|[A-Z]\.)(\W|$)", sentence):
        return False
    if _UNWANTED.search(sentence) and kind not in _MYTHICAL:
        return False
    return _is_called(sentence, words, name, kind)


def _begins_with(words: Sequence[str], name: str) -> bool:
    """Whether the name is where a sentence about it has it, in singular or plural."""
    wanted = [_singular(word) for word in re.findall(r"[\w'-]+", name.lower())]
    return set(wanted) <= set(map(_singular, words[: len(wanted) + 2]))


def _repeats(words: Sequence[str]) -> bool:
    """Whether three words follow one another twice, one word follows itself, or comes three times if it is long."""
    triples = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    if len(set(triples)) < len(triples) or any(a == b for a, b in pairwise(words)):
        return True
    long = [word for word in words if len(word) > 3]
    return any(a == c and b == "and" for a, b, c in triples) or any(long.count(word) > 2 for word in long)


def _is_called(sentence: str, words: Sequence[str], name: str, kind: str) -> bool:
    """Whether it calls the thing its kind, or what else may be said of it, and nothing else that it could be."""
    match = _IS.search(_KIND_OF.sub("", sentence.lower()))
    said = [_singular(word) for word in re.findall(r"\w+", match[1])] if match else []
    own = [group for group in _GROUPS if kind in group]
    general = frozenset[str]().union(*(_GENERAL[group] for group in own))
    fits = general | {kind.rpartition(" ")[2]}  # "piece of furniture"
    if own and not fits & set(map(_singular, words)):
        return False
    if said and said[-1] not in fits and (said[-1] in _NO_THINGS or any(said[-1] in group for group in _GROUPS)):
        return False
    others = {word for group in own for word in group} - fits - set(name.lower().split())
    is_circular = " ".join(said).endswith(" ".join(map(_singular, name.lower().split())))
    is_false_mammal = kind in _NO_MAMMALS and "mammal" in words
    # An animal's sentence tells of other animals in error; a dish has ingredients.
    return not (is_circular or is_false_mammal or others & set(map(_singular, words) if kind in ANIMALS else said))


def _singular(word: str) -> str:
    return word if word.endswith("ss") else word.removesuffix("s")


def write_facts(answers: Mapping[str, str], kinds: Mapping[str, str], file: Path) -> dict[str, str]:
    """Writes the sentences that are kept, by names, as JSON, and returns them."""
    kept = {name: keep_fact(answers[name], name, kind) for name, kind in kinds.items() if name in answers}
    facts = {name: fact for name, fact in kept.items() if fact is not None}
    write_whole(file, f"{json.dumps(facts, indent=0, ensure_ascii=False)}\n".encode())
    return facts


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
    random.Random(0).shuffle(missing)  # so that a part of the answers is about things of all kinds
    questions = [write_question(name, kinds[name]) for name in missing]
    if missing:
        from llava.model.checkpoint import load_model

        loaded = load_model(arguments.model, device="cpu", for_engine=True)
        write_whole(log, "".join(map(_write_line, answers.items())).encode())  # without a line that was cut
        with log.open("a", encoding="utf-8") as lines:
            for name, answer in zip(missing, ask_all(loaded, questions), strict=True):
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
