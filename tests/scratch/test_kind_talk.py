"""What everybody knows about kinds of things: the grammar is read as it says, and known things are talked about."""

from __future__ import annotations

import random
from importlib import resources

import pytest

from llava.model.lexical.nouns import is_plural
from llava.scratch.talking import kind_talk
from llava.scratch.talking.kind_talk import find_known, load_kinds, read_kinds, talk_of_kind
from llava.scratch.talking.thing_groups import GROUPS
from llava.scratch.talking.thing_turns import talk_about_thing
from llava.scratch.things.kinds import KINDS
from llava.scratch.things.names import vocabulary

GRAMMAR = """
# Of animals.
ask eat
? What does it eat? / What would I feed {a}?
ask wild
? Is it wild? / is this a wild animal
kind cat, fox except kitten
eat: It eats meat.
? Does it purr? / Can the {name} purr?
! Yes, it purrs.
name lynx
eat: It eats hares.
group animal
eat: It eats something.
wild: No, it is an animal.
plural scissors
? Are they sharp? / are the {name} sharp
! Yes, they are sharp.
"""
KNOWN = {"dog": "dog", "poodle": "dog", "lion": "big cat", "banana": "fruit", "taxi": "car", "scissors": "scissors"}


def list_kinds() -> set[str]:
    """The kinds that things may have."""
    words = {entry.strip().partition("=")[0] for entry in KINDS.replace("\n", " ").split(",")}
    classes = resources.files("llava.model.lexical").joinpath("class_names.txt").read_text("utf-8").splitlines()
    return words | set(vocabulary()["kinds"].values()) | {line.rpartition("\t")[2] for line in classes}


@pytest.fixture
def grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    sections = read_kinds(GRAMMAR, "test")
    monkeypatch.setattr(kind_talk, "load_kinds", lambda: sections)
    monkeypatch.setattr(kind_talk, "find_known", find_known.__wrapped__)


@pytest.mark.parametrize(
    ("name", "kind", "answers"),
    [
        ("cat", "cat", {"It eats meat.", "Yes, it purrs.", "No, it is an animal."}),
        ("kitten", "cat", {"It eats something.", "No, it is an animal."}),
        ("lynx", "fox", {"It eats hares.", "Yes, it purrs.", "No, it is an animal."}),
        ("cow", "cow", {"It eats something.", "No, it is an animal."}),
        ("cats", "cat", set()),
        ("shears", "scissors", {"Yes, they are sharp."}),
        ("cup", "cup", set()),
    ],
)
@pytest.mark.usefixtures("grammar")
def test_the_nearest_section_answers(name: str, kind: str, answers: set[str]) -> None:
    rng, thing = random.Random(0), {"name": name, "kind": kind}
    assert {answer for _ in range(200) for _, answer in talk_of_kind(rng, thing)} == answers
    assert all(len({way.lower() for way, _ in talk_of_kind(rng, thing)}) <= 3 for _ in range(20))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("eat: It eats meat.", "drink: It drinks.", "test:8: there is no question 'drink'"),
        ("It eats meat.", "It eats meat", "test:8: 'It eats meat' is no sentence"),
        ("It eats meat.", "It eats " + "meat " * 17 + "now.", "test:8: .* at most 18 words"),
        ("It eats meat.", "Yes, it eats meat.", "test:8: 'What does it eat.' is not answered with yes or no"),
        ("? Does it purr? / Can", "? Can", "test:9: .* different ways to ask"),
        ("? Does it purr? / Can the {name} purr?", "? Does {a} purr? / Can {a} purr?", "test:9: .* without {a}"),
        ("Can the {name} purr?", "Can the {cat} purr?", "test:9: .* has {cat}, which is no slot"),
        ("! Yes, it purrs.\n", "", "test:10: the question before it has no answer"),
        ("! Yes, it purrs.", "! Yes, it purrs.\n! No, it does not.", "test:11: .* answers no question"),
        ("group animal", "group beast", "test:13: there is no group 'beast'"),
        ("name lynx", "name", "test:11: 'name' has no name"),
        ("name lynx\n", "thing lynx\n", "test:11: 'thing lynx' is none of ask"),
        ("name lynx\n", "name lynx\nkind cow\n", "test:11: the section tells nothing"),
        ("name lynx\n", "kind fox\n", "test:12: 'What does it eat.' was answered for 'fox' before"),
        ("! Yes, they are sharp.\n", "", "test:17: the last question is not finished"),
        ("ask wild\n", "ask eat\n", "test:5: 'eat' was told before"),
        ("? Is it wild? / is this a wild animal\n", "", "test:6: 'wild' is not asked for"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(old: str, new: str, message: str) -> None:
    assert old in GRAMMAR
    with pytest.raises(ValueError, match=f"^{message}".replace("{", r"\{").replace("}", r"\}")):
        read_kinds(GRAMMAR.replace(old, new), "test")


def test_kinds_of_the_package() -> None:
    """Reading has checked that answers are short and that nothing is answered twice; here: that things have them."""
    sections = load_kinds()
    kinds = {kind for section in sections if section.mark in ("kind", "plural") for kind in section.of}
    assert len(kinds) > 350
    assert not kinds - list_kinds()
    assert not frozenset().union(*GROUPS.values()) - list_kinds()
    names = [name for section in sections if section.mark == "name" for name in section.of]
    assert not [name for name in names if is_plural(name)]


@pytest.mark.parametrize("name", KNOWN)
def test_no_question_has_two_answers(name: str) -> None:
    own, general = find_known(name, KNOWN[name])
    ways = [way for known in (*own, *general) for way in known.asks]
    assert len(ways) == len(set(ways))
    assert len(own) >= 5


def test_answers_are_as_often_yes_as_no() -> None:
    rng = random.Random(0)
    kinds = sorted({kind for section in load_kinds() if section.mark == "kind" for kind in section.of})
    turns = [turn for kind in kinds * 10 for turn in talk_of_kind(rng, {"name": kind, "kind": kind})]
    yes, no = (sum(answer.startswith(start) for _, answer in turns) for start in ("Yes", "No,"))
    assert 0.75 < yes / no < 1.33


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_thing_is_talked_about(name: str) -> None:
    own, general = find_known(name, KNOWN[name])
    answers = {known.says for known in (*own, *general)}
    for seed in range(10):
        thing = {"name": name, "kind": KNOWN[name]}
        turns = talk_about_thing(random.Random(seed), thing, ["cup", "owl"], {}, has_place=False)
        assert answers & {answer for _, answer in turns}
        assert len({question for question, _ in turns}) == len(turns)
