"""Constrained decoding: grammars for JSON and JSON schemas, which mask the logits of tokens that they do not allow.

llguidance compiles the schemas and matches the answers against them. A schema of a few lines can take minutes to
compile, so each is first compiled in a process of its own, which is killed when it takes too long.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llava.engine.closer import Closer, StringState
from llava.engine.endless_schemas import is_endless
from llava.errors import BadSchema, EngineClosed, UsageError

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

# Limits of compiling a schema: CPU time, so that a busy machine refuses nothing; wall time; and memory.
SCHEMA_S, _SCHEMA_WALL_S = 0.5, 20
_SCHEMA_BYTES = 2 * 2**30
# How many compiled schemas are cached.
_CACHE_SIZE = 64

# An answer may begin with the space that many templates expect. Inside the document whitespace is limited to one space
# or to a new line with its indentation, because some models write whitespace without end where they may.
_GRAMMAR = 'start: " "? value\nvalue: %json '
_WHITESPACE = {"whitespace_pattern": r"( |\n {0,16})?"}
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


class GrammarCompiler:
    """Compiles the grammars of one model's tokenizer, and caches them. Thread-safe.

    Args:
        tokenizer: a fast one of Transformers.
        stop_ids: the tokens that end an answer, at least one; they are allowed wherever the grammar accepts.
    """

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int]) -> None:
        self._source, self._stop_ids = tokenizer, list(stop_ids)
        self._tokenizer: LLTokenizer | None = None
        self._closer: Closer | None = None
        self._cache: OrderedDict[str, Grammar | str] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, response_format: Mapping[str, Any]) -> Grammar:
        """The grammar of OpenAI's ``response_format`` of type ``json_object`` or ``json_schema``.

        Raises BadSchema for a schema that is invalid, unsatisfiable, unsupported or takes too long to compile;
        UsageError for a tokenizer that is not fast; EngineClosed where no process could be started.
        """
        schema = response_format.get("json_schema", {}).get("schema", _ANY_OBJECT)
        text = json.dumps({**schema, "x-guidance": _WHITESPACE})
        with self._lock:
            compiled = self._cache.pop(text, None) or self._compile(text, is_ours=schema is _ANY_OBJECT)
            self._cache[text] = compiled
            if len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
        if isinstance(compiled, str):
            remedy = "" if compiled == _ENDLESS else " Use a simpler one."
            raise BadSchema(f"Answers cannot be constrained to this schema: {compiled}.{remedy}")
        return compiled

    def _compile(self, schema: str, *, is_ours: bool) -> Grammar | str:
        """The grammar, or why there is none."""
        grammar = _GRAMMAR + schema
        error = "" if is_ours else _validate(grammar)
        if error:
            return error
        if self._tokenizer is None or self._closer is None:
            self._tokenizer, token_bytes = _read_tokenizer(self._source, self._stop_ids)
            self._closer = Closer(self._tokenizer, token_bytes)
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0, limits=_limits())
        if not matcher.is_error():
            probe = (
                matcher.deep_copy()
            )  # a slow grammar is mostly slow at its first token; here no request waits for it
            probe.compute_bitmask()
            if probe.is_error():
                return _clean_error(probe.get_error())
            return Grammar(matcher, self._closer, self._stop_ids)
        return _clean_error(matcher.get_error())


# With more tokens left than this beyond the known suffix, an answer may open what no suffix was found for.
_AMPLE_TOKENS = 128

# llguidance's other stop reasons are limits that were reached, and dead ends.
_GOOD_STOP_REASONS = ("NotStopped", "NoExtension", "EndOfSentence")


class Grammar:
    """A compiled grammar, which any number of answers can use at once."""

    def __init__(self, matcher: LLMatcher, closer: Closer, stop_ids: Sequence[int]) -> None:
        self._matcher, self._closer, self._stop_ids = matcher, closer, stop_ids
        self._suffix = closer.find(matcher, StringState())

    def start(self) -> GrammarMatcher:
        """The matcher of one answer, at its first token."""
        return GrammarMatcher(self._matcher.deep_copy(), self._closer, self._stop_ids, self._suffix)


class GrammarMatcher:
    """The state of one answer in its grammar.

    It also makes sure that the document is complete before the answer's tokens run out. For that it knows a *suffix*:
    tokens that complete the document from here.

    ``is_truncated``: whether a token was replaced because it left too few tokens for the rest of the document.
    """

    def __init__(
        self, matcher: LLMatcher, closer: Closer, stop_ids: Sequence[int], suffix: tuple[int, ...] | None
    ) -> None:
        self.is_truncated = False
        self._matcher, self._closer, self._stop_ids = matcher, closer, stop_ids
        self._suffix = suffix  # None where no suffix is known
        self._strings = StringState()
        self._num_accepted = self._next_search = 0

    @property
    def is_complete(self) -> bool:
        """Whether no token can follow, so that the answer ends without an end token."""
        return bool(self._matcher.is_stopped())

    def mask_logits(self, logits_V: torch.Tensor) -> torch.Tensor:
        """Logits [V] on the CPU, minus infinity for each token that the grammar does not allow next. Raises BadSchema.

        Where the end token is the model's argmax but not allowed, its logit goes to the token that closes the open
        string, array or object. Otherwise the model would continue with its next best token, mostly the same syllable
        again and again.
        """
        import numpy as np  # not needed by the process that validates schemas
        import torch

        allowed = np.unpackbits(np.frombuffer(self.compute_bits(), np.uint8), bitorder="little")[: len(logits_V)]
        allowed = np.pad(allowed, (0, len(logits_V) - len(allowed)))
        masked_V = torch.where(torch.from_numpy(allowed).bool(), logits_V, -torch.inf)
        ends = [token for token in self._stop_ids if token < len(logits_V)]
        if ends and not allowed[ends].any() and logits_V[ends].max() == (highest := logits_V.max()):
            closing = self.find_closing_token()
            if closing is not None:
                masked_V[closing] = highest
        return masked_V

    def compute_bits(self) -> bytes:
        """A bit for each token, the first one the least significant: whether it is allowed next. Raises BadSchema.

        A number ends once it is long, where it may: some models write zeros without end where they may.
        """
        bits = bytes(self._matcher.compute_bitmask())
        self._check()
        if self._strings.is_long_number:
            ending = int.from_bytes(bits, "little") & ~self._closer.number_bits
            bits = ending.to_bytes(len(bits), "little") if ending else bits
        return bits

    def find_closing_token(self) -> int | None:
        """The token that closes the open string, array or object, if it is allowed."""
        for token in self._closer.list_closing_tokens(self._strings):
            if self._matcher.validate_tokens([token]) == 1:
                return token
        return None

    def accept(self, token: int, num_left: int | None = None) -> int:
        """Advances by a token and returns it, or the token that replaced it. Raises BadSchema.

        ``num_left``: how many tokens may follow it. A token that leaves too few for the rest of the document is
        replaced by the next one of the known suffix.
        """
        if token not in self._stop_ids:
            token = self._ensure_completion(token, num_left)
        self._matcher.consume_token(token)
        self._check()
        self._num_accepted += 1
        if token not in self._stop_ids:
            self._strings.read(self._closer.token_bytes[token])
        return token

    def _ensure_completion(self, token: int, num_left: int | None) -> int:
        """The token, or the next one of the known suffix where the token would leave too few for the rest."""
        suffix = self._suffix
        if suffix and token == suffix[0]:
            self._suffix = suffix[1:]
            return token
        found = self._find_suffix_after(token)
        fits = num_left is None or (found is not None and len(found) <= num_left)
        # A search that found nothing may only have been cut short: while many tokens are left, the token is accepted
        # although it abandons the known suffix.
        may_search_again = found is None and num_left is not None and num_left > len(suffix or ()) + _AMPLE_TOKENS
        if suffix is None or fits or may_search_again or (num_left is not None and len(suffix) > num_left + 1):
            self._suffix = found
            return token
        self.is_truncated = True
        self._suffix = suffix[1:]
        return suffix[0] if suffix else self._stop_ids[0]

    def _find_suffix_after(self, token: int) -> tuple[int, ...] | None:
        """A suffix that completes the document after the token; None if none is found."""
        if self._suffix is None and self._num_accepted < self._next_search:
            return None
        after = self._matcher.deep_copy()
        after.consume_token(token)
        if after.is_error():
            return None
        strings = self._strings.copy()
        strings.read(self._closer.token_bytes[token])
        found = self._closer.find(after, strings, known=self._suffix)
        if found is None:
            self._next_search = 2 * self._num_accepted + 1  # exponential backoff
        return found

    def _check(self) -> None:
        if self._matcher.is_error() or self._matcher.stop_reason() not in _GOOD_STOP_REASONS:
            raise BadSchema(
                f"The answer could not be constrained to its schema any further: "
                f"{_clean_error(self._matcher.get_error())}. Use a simpler one."
            )


def _limits() -> LLParserLimits:
    """Limits of one step's work for one answer, which delays all others: mostly 0.1 ms, in the worst case below 1 s."""
    from llguidance import LLParserLimits

    return LLParserLimits(step_lexer_fuel=100_000, step_max_items=20_000, max_items_in_row=20_000, verbose_errors=False)


def _read_tokenizer(source: Any, stop_ids: list[int]) -> tuple[LLTokenizer, list[bytes]]:
    """The vocabulary as bytes, for llguidance and as a list.

    Where a grammar leaves no choice, llguidance tokenizes the forced text with the tokenizer itself. A tokenizer that
    puts a space before every text would then produce what the grammar does not allow, so greedy longest-match
    tokenization is used instead.
    """
    from llguidance import LLTokenizer

    if not getattr(source, "is_fast", False):
        raise UsageError("Answers of this model cannot be constrained to a schema: that needs a fast tokenizer.")
    plain = LLTokenizer(source.backend_tokenizer.to_str(), eos_token=stop_ids)
    greedy = _GreedyTokenizer(plain)
    return LLTokenizer(greedy, eos_token=stop_ids), greedy.tokens  # type: ignore[arg-type]


class _GreedyTokenizer:
    """A longest-match tokenizer with the interface that llguidance asks for."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, plain: LLTokenizer) -> None:
        self._plain = plain
        self.eos_token_id = plain.eos_token
        tokens = range(plain.vocab_size)
        self.tokens = [plain.decode_bytes([token]) for token in tokens]
        self.special_token_ids = [token for token in tokens if plain.is_special_token(token)]

    def __call__(self, text: str | bytes) -> list[int]:
        return self._plain.greedy_tokenize(text if isinstance(text, str) else text.decode(errors="replace"))


def _validate(grammar: str) -> str:
    """Why the grammar does not compile, found in a process of its own; empty if it does."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from llava.engine.grammar import run; run()"],
            input=grammar,
            capture_output=True,
            text=True,
            timeout=_SCHEMA_WALL_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _TOO_LONG
    except OSError as error:  # no file handle, process or memory left
        raise EngineClosed(f"The schema could not be compiled: {error.strerror}. Ask again.") from error
    return done.stdout if done.returncode == 0 else _TOO_LONG


_ENDLESS = (
    "no document that fits it ends, because it always holds another one of its kind. Let the inner one be left out, or "
    'be {"type": "null"} in an "anyOf"'
)
_TOO_LONG = f"compiling it takes more than {SCHEMA_S:g} s or crashes"


def run() -> None:
    """Entry point of the validating process: a grammar on standard input, its error on standard output."""
    from llguidance import LLMatcher

    limits = _limits()
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        signal.setitimer(signal.ITIMER_PROF, SCHEMA_S)  # SIGPROF kills the process
        resource.setrlimit(resource.RLIMIT_AS, (_SCHEMA_BYTES, _SCHEMA_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    grammar = sys.stdin.read()
    error = _clean_error(LLMatcher.validate_grammar(grammar, limits=limits))
    if not error and is_endless(json.loads(grammar.removeprefix(_GRAMMAR))):
        error = _ENDLESS
    sys.stdout.write(error)


def _clean_error(message: str) -> str:
    """llguidance's error message without positions in the grammar text, which the client never saw."""
    message = message.split("\n   1 | ")[0].split("<non-verbose/>")[0]
    if message == "NoExtensionBias":
        return "no token that may follow leads to a document that fits it"
    message = re.sub(r"^at \d+\(\d+\): |failed to compile JSON schema: ", "", message)
    return " ".join(message.split())[:300].rstrip(".")
