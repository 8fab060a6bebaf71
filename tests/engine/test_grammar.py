"""Constrained answers, compared with every text that their grammar allows."""

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pydantic
import pytest
import torch

from llava import load_model
from llava.engine.choose import mask
from llava.engine.endless_schemas import is_endless
from llava.engine.engine import Engine
from llava.engine.grammar import GrammarCompiler
from llava.engine.stream import Question
from llava.errors import EngineClosed, UsageError
from llava.prompt import Prompt
from llava.sampling import Sampling

WORDS = ["yes", "no", "nope", "é…"]


@pytest.fixture(scope="module")
def loaded(next_folder: Path) -> Any:
    return load_model(str(next_folder), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def grammars(loaded: Any) -> GrammarCompiler:
    return GrammarCompiler(loaded.tokenizer, [loaded.tokenizer.eos_token_id])


def schema(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": content}}


def spell(tokenizer: Any, token: int) -> bytes:
    """The bytes of a token in the middle of a text, from its name."""
    name = tokenizer.convert_ids_to_tokens(token)
    if name.startswith("<0x"):
        return bytes([int(name[3:5], 16)])
    return b"" if token in tokenizer.all_special_ids else name.replace("▁", " ").encode()


def allowed_by_hand(tokenizer: Any, texts: list[bytes], said: bytes) -> set[int]:
    """The tokens after which the answer is still a prefix of one of ``texts``."""
    tokens = range(len(tokenizer))
    spelled = {token: spell(tokenizer, token) for token in tokens}
    return {token for token in tokens if spelled[token] and any(t.startswith(said + spelled[token]) for t in texts)}


@pytest.mark.parametrize("word", WORDS)
def test_the_allowed_tokens_are_those_that_lead_to_an_allowed_text(
    loaded: Any, grammars: GrammarCompiler, word: str
) -> None:
    tokenizer = loaded.tokenizer
    texts = [f'{blank}"{one}"'.encode() for blank in ("", " ") for one in WORDS]
    matcher = grammars.compile(schema({"enum": WORDS})).start()
    said, wanted = b"", f'"{word}"'.encode()
    while said != wanted:
        assert not matcher.is_complete
        logits = matcher.mask_logits(torch.zeros(len(tokenizer) + 5))
        allowed = {token for token, logit in enumerate(logits.tolist()) if logit == 0}
        by_hand = allowed_by_hand(tokenizer, texts, said)
        left = {text[len(said) :] for text in texts if text.startswith(said)}
        # Where the next text is forced, one tokenization of it is enough.
        first = {text[:1] for text in left}
        assert allowed == by_hand if len(first) > 1 else allowed <= by_hand
        token = next(t for t in allowed if wanted.startswith(said + spell(tokenizer, t)))
        matcher.accept(token)
        said += spell(tokenizer, token)
    assert matcher.is_complete


def test_a_greedy_answer_is_the_likeliest_of_the_allowed_tokens_at_each_step(
    loaded: Any, grammars: GrammarCompiler
) -> None:
    model, tokenizer = loaded.model, loaded.tokenizer
    texts = [f'{blank}"{one}"'.encode() for blank in ("", " ") for one in WORDS]
    for question in ("Hi", "Is it?", "Why is the sky so high?"):
        ids = tokenizer(question).input_ids
        said, new = b"", []
        while said not in texts:
            with torch.inference_mode():
                logits = model(torch.tensor([ids + new])).logits[0, -1]
            new.append(max(allowed_by_hand(tokenizer, texts, said), key=lambda token: float(logits[token])))
            said += spell(tokenizer, new[-1])
        with Engine(loaded) as engine:
            grammar = grammars.compile(schema({"enum": WORDS}))
            text, result = engine.submit(Question(Prompt(tuple(ids), None, len(ids)), grammar=grammar)).wait()
        assert text.strip() == said.decode().strip()
        assert result.reason == "stop"


class Fruit(pydantic.BaseModel, extra="forbid"):
    name: Literal["apple", "pear"]
    count: int = pydantic.Field(ge=0, le=20)
    ripe: bool
    notes: list[Literal["a", "b"]] = pydantic.Field(max_length=3)


class Bowl(pydantic.BaseModel, extra="forbid"):
    fruits: list[Fruit] = pydantic.Field(min_length=1, max_length=2)
    owner: str | None = pydantic.Field(max_length=4)


def bytes_for(loaded: Any, num_positions: int) -> int:
    config = loaded.model.config
    head_dim = config.hidden_size // config.num_attention_heads
    return num_positions * 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * 4


def submit_bowls(engine: Engine, loaded: Any, grammars: GrammarCompiler, seeds: range) -> list[str]:
    prompt = Prompt(tuple(loaded.tokenizer("Hi").input_ids), None, 2)
    grammar = grammars.compile(schema(Bowl.model_json_schema()))
    settings = [Sampling(temperature=2.0, seed=seed, max_new_tokens=400, repetition_penalty=1.2) for seed in seeds]
    stop_ids = [loaded.tokenizer.eos_token_id]
    streams = [engine.submit(Question(prompt, sampling=one, stop_ids=stop_ids, grammar=grammar)) for one in settings]
    answers = [stream.wait() for stream in streams]
    assert {result.reason for _, result in answers} == {"stop"}
    return [text for text, _ in answers]


def test_drawn_answers_fit_their_schema_whatever_else_runs(loaded: Any, grammars: GrammarCompiler) -> None:
    with Engine(loaded, max_running=8) as engine:
        together = submit_bowls(engine, loaded, grammars, range(12))
        engine._scheduler.audit()
    for text in together:
        Bowl.model_validate_json(text)
    assert len(set(together)) == len(together)
    # Room for few at once: the others are preempted again and again, and continue where they were.
    with Engine(loaded, memory_bytes=bytes_for(loaded, 500)) as small:
        assert submit_bowls(small, loaded, grammars, range(12)) == together
        assert small.stats().num_preemptions > 0


def test_a_constrained_answer_may_contain_separators_but_no_stop_text_of_the_client(
    loaded: Any, grammars: GrammarCompiler
) -> None:
    prompt = Prompt(tuple(loaded.tokenizer("Hi").input_ids), None, 2)
    grammar = grammars.compile(schema({"const": ["ab", "c"]}))
    with Engine(loaded) as engine:
        text, result = engine.submit(Question(prompt, grammar=grammar)).wait()
        assert json.loads(text) == ["ab", "c"]
        text, result = engine.submit(Question(prompt, sampling=Sampling(stop=("b",)), grammar=grammar)).wait()
        assert text.strip() == '["a'
        assert result.reason == "stop"
        text, result = engine.submit(Question(prompt, sampling=Sampling(max_new_tokens=3), grammar=grammar)).wait()
        assert result.reason == "length"


def draw_schema(source: random.Random, depth: int = 0) -> dict[str, Any]:
    """A random schema of the kinds that ``fits`` below supports."""
    leaves = ["string", "bounded", "pattern", "integer", "number", "boolean", "null", "enum", "const", "date"]
    kind = source.choice(leaves if depth > 2 else [*leaves, "array", "object", "object", "anyOf", "array"])
    low = source.randint(0, 4)
    name = source.choice(["a", "bc", "long_name", "x-y"])
    made: dict[str, dict[str, Any]] = {
        "string": {"type": "string"},
        "bounded": {"type": "string", "minLength": low, "maxLength": low + source.randint(0, 9)},
        "pattern": {"type": "string", "pattern": source.choice([r"^[a-z]{3}-\d{2,}$", "^(ab)*c$", "^#[0-9A-F]{6}$"])},
        "integer": {"type": "integer", "minimum": source.choice([-7, 0, 10, 1234]), "maximum": 99_999},
        "number": {"type": "number"},
        "boolean": {"type": "boolean"},
        "null": {"type": "null"},
        "enum": {"enum": source.sample(["yes", "no", "é…", 5, None, "a long text with blanks"], 3)},
        "const": {"const": source.choice([{"k": [1, "two"]}, "fixed", 3.5])},
        "date": {"type": "string", "format": "date"},
    }
    if kind == "array":
        least = source.randint(0, 3)
        return {"type": "array", "items": draw_schema(source, depth + 1), "minItems": least, "maxItems": least + 4}
    if kind == "object":
        names = [f"{name}{i}" for i in range(source.randint(0, 4))]
        return {
            "type": "object",
            "properties": {one: draw_schema(source, depth + 1) for one in names},
            "required": [one for one in names if source.random() < 0.6],
            "additionalProperties": source.random() < 0.3,
        }
    if kind == "anyOf":
        return {"anyOf": [draw_schema(source, depth + 1), draw_schema(source, depth + 1)]}
    return made[kind]


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether the schema allows the value, for schemas as ``draw_schema`` makes them."""
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kind = schema["type"]
    if kind == "object":
        known = schema["properties"]
        return (
            isinstance(value, dict)
            and set(schema["required"]) <= set(value)
            and (schema["additionalProperties"] or set(value) <= set(known))
            and all(fits(one, known[name]) for name, one in value.items() if name in known)
        )
    if kind == "array":
        is_as_long = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
        return is_as_long and all(fits(one, schema["items"]) for one in value)
    if kind == "string":
        return (
            isinstance(value, str)
            and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
            and re.search(schema.get("pattern", ""), value) is not None
            and (schema.get("format") != "date" or re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) is not None)
        )
    if kind == "integer":
        return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
    return {"number": isinstance(value, (int, float)), "boolean": isinstance(value, bool), "null": value is None}[kind]


@pytest.mark.parametrize("seed", range(24))
def test_however_few_tokens_there_are_the_document_is_complete_and_fits(
    loaded: Any, grammars: GrammarCompiler, seed: int
) -> None:
    source = random.Random(seed)
    prompt = Prompt(tuple(loaded.tokenizer("Hi").input_ids), None, 2)
    content = draw_schema(source)
    grammar = grammars.compile(schema(content))
    assert grammar._suffix is not None
    with Engine(loaded) as engine:
        settings = [
            Sampling(max_new_tokens=max(1, len(grammar._suffix) + more), temperature=temperature, seed=seed)
            for more in (0, 1, 3, 10, 40, 150)
            for temperature in (0.0, 2.0)
        ]
        stop_ids = [loaded.tokenizer.eos_token_id]
        streams = [
            engine.submit(Question(prompt, sampling=one, stop_ids=stop_ids, grammar=grammar)) for one in settings
        ]
        for stream, sampling in zip(streams, settings, strict=True):
            text, result = stream.wait()
            assert fits(json.loads(text), content), (content, sampling, text)
            assert result.new_tokens <= sampling.max_new_tokens


def test_a_document_that_was_cut_short_says_so(loaded: Any, grammars: GrammarCompiler) -> None:
    prompt = Prompt(tuple(loaded.tokenizer("Hi").input_ids), None, 2)
    grammar = grammars.compile(schema({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}))
    with Engine(loaded) as engine:
        text, result = engine.submit(Question(prompt, sampling=Sampling(max_new_tokens=60), grammar=grammar)).wait()
        assert isinstance(json.loads(text)["a"], str)
        assert result.reason == "length"
        # There is no room for even the smallest document.
        text, result = engine.submit(Question(prompt, sampling=Sampling(max_new_tokens=2), grammar=grammar)).wait()
        assert result.reason == "length"


def test_a_model_that_wants_to_end_closes_the_open_string_array_or_object(
    loaded: Any, grammars: GrammarCompiler
) -> None:
    tokenizer, end = loaded.tokenizer, loaded.tokenizer.eos_token_id
    content = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}, "required": ["a"]}
    matcher = grammars.compile(schema(content)).start()
    said = b""
    while not matcher.is_complete:
        logits = torch.zeros(len(tokenizer) + 40)
        logits[end] = 5.0
        open_token = next(t for t in range(len(tokenizer)) if spell(tokenizer, t) == b'"')
        if said.endswith(b"["):
            logits[open_token] = 9.0
        closing = matcher.find_closing_token()
        bits = torch.frombuffer(bytearray(matcher.compute_bits()), dtype=torch.int32)
        ids = torch.tensor([-1 if closing is None else closing])
        masked = mask(logits[None], bits[None], ids, torch.tensor([end]))[0]
        assert torch.equal(masked, matcher.mask_logits(logits))
        token = matcher.accept(int(masked.argmax()))
        said += spell(tokenizer, token)
    assert json.loads(said) == {"a": [""]}


@pytest.mark.parametrize(
    "content",
    [
        {"type": "number"},
        {"type": "number", "minimum": 5, "maximum": 7},
        {"type": "integer"},
        {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
    ],
)
def test_a_model_that_writes_digits_without_end_ends_its_numbers(
    loaded: Any, grammars: GrammarCompiler, content: dict[str, Any]
) -> None:
    tokenizer = loaded.tokenizer
    liked = {b"5": 9.0, b".": 9.5}
    wanted = torch.tensor([liked.get(spell(tokenizer, token), 0.0) for token in range(len(tokenizer))])
    wanted[tokenizer.eos_token_id] = 1.0
    matcher = grammars.compile(schema(content)).start()
    said = b""
    while not matcher.is_complete and len(said) < 200:
        token = matcher.accept(int(matcher.mask_logits(wanted).argmax()))
        said += spell(tokenizer, token)
    numbers = json.loads(said)
    assert len(said) < 80
    for number in numbers if isinstance(numbers, list) else [numbers]:
        assert isinstance(number, (int, float))
        assert number >= 5


SLOW = {"allOf": [{"type": "string", "pattern": f"(a|b)*{i}.*"} for i in range(30)]}
LARGE = {"anyOf": [{"type": "object", "properties": {f"a{i}": {"type": "string"}}} for i in range(2000)]}


def test_an_answer_that_cannot_be_constrained_any_further_fails_alone(loaded: Any, grammars: GrammarCompiler) -> None:
    content = {"type": "array", "minItems": 2, "prefixItems": [{"const": 1}, LARGE]}
    prompt = Prompt(tuple(loaded.tokenizer("Hi").input_ids), None, 2)
    with Engine(loaded) as engine:
        other = engine.submit(Question(prompt, sampling=Sampling(max_new_tokens=100)))
        failing = engine.submit(Question(prompt, grammar=grammars.compile(schema(content))))
        with pytest.raises(
            UsageError, match=r"could not be constrained to its schema any further: .*\. Use a simpler one\."
        ):
            failing.wait()
        assert other.wait()[1].reason == "length"
        engine._scheduler.audit()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no type": ({"type": "nonsense"}, r"Invalid type: nonsense"),
    "nothing fits": ({"type": "integer", "minimum": 5, "maximum": 3}, r"minimum \(5\) is greater than maximum \(3\)"),
    "not": ({"not": {"type": "string"}}, r'Unimplemented keys: \["not"\]'),
    "elsewhere": ({"$ref": "http://localhost/x"}, r"localhost/x' is not present"),
    "broken pattern": ({"type": "string", "pattern": "("}, r"unclosed group"),
    "slow": (SLOW, r"takes more than 0.5 s"),
    "of itself": ({"$ref": "#"}, r"no document that fits it ends"),
    "of itself by another": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}},
        r"no document that fits it ends",
    ),
    "always holds itself": (
        {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
        r"no document that fits it ends",
    ),
    "large": (LARGE, r"(Too many items|takes more than 0.5 s)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_cannot_be_compiled_is_refused(grammars: GrammarCompiler, name: str) -> None:
    content, says = REFUSED[name]
    began = time.process_time()
    for _ in range(2):
        with pytest.raises(
            UsageError,
            match=rf"Answers cannot be constrained to this schema: .*{says}.*\. (Use a simpler|Let the inner) one",
        ):
            grammars.compile(schema(content))
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("content", "is_without_end"),
    [
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, False),
        ({"type": "array", "items": {"$ref": "#"}}, False),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, True),
        ({"type": "array", "prefixItems": [{"const": 1}, {"$ref": "#"}], "minItems": 1}, False),
        ({"type": "array", "prefixItems": [{"const": 1}, {"$ref": "#"}], "minItems": 2}, True),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, False),
        ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, True),
        ({"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, False),
        ({"$ref": "http://localhost/x"}, False),
        ({"$ref": "#/$defs/x~1y", "$defs": {"x/y": {"$ref": "#/$defs/z"}, "z": {"type": "string"}}}, False),
        ({"properties": {"a": {"enum": [{"$ref": "#"}]}}, "required": ["a"], "type": "object"}, False),
    ],
)
def test_a_schema_is_endless_where_each_document_holds_another(content: dict[str, Any], is_without_end: bool) -> None:
    assert is_endless(content) is is_without_end


def test_a_schema_is_compiled_once(grammars: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    first = grammars.compile(schema({"enum": [1, 2]}))
    starts: list[Any] = []

    def refuse(*arguments: Any, **keywords: Any) -> Any:
        starts.append(arguments)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert grammars.compile(schema({"enum": [1, 2]})) is first
    grammars.compile({"type": "json_object"})  # ours, so it is trusted
    assert not starts
    for _ in range(2):  # the failure is not cached
        with pytest.raises(EngineClosed, match="could not be compiled: Too many open files"):
            grammars.compile(schema({"enum": [1, 3]}))


def test_the_grammars_compiled_last_are_cached(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.engine.grammar._CACHE_SIZE", 2)
    grammars = GrammarCompiler(loaded.tokenizer, [2])
    one, two, _ = (grammars.compile(schema({"enum": [number]})) for number in (1, 2, 3))
    assert grammars.compile(schema({"enum": [2]})) is two
    assert grammars.compile(schema({"enum": [1]})) is not one


def test_a_slow_tokenizer_is_named() -> None:
    with pytest.raises(UsageError, match="fast tokenizer"):
        GrammarCompiler(SimpleNamespace(is_fast=False), [2]).compile({"type": "json_object"})
