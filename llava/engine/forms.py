"""Answers held to a form: JSON, or what a JSON schema allows, as the tokens that may come next.

llguidance reads the schemas and follows the answers. A schema of a few lines can take minutes to read, so each is read
in a process of its own first, which is ended when it takes too long.
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

from llava.engine.closing import Closer, Lexer
from llava.errors import BadSchema, EngineClosed, UsageError

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

# What reading a schema may take: of the processor's time, so that a busy machine refuses nothing, and of the clock's.
SCHEMA_S, _SCHEMA_CLOCK_S = 0.5, 20
_SCHEMA_BYTES = 2 * 2**30
_NUM_KEPT = 64

# An answer may begin with the blank that many templates expect. Within it, a model that may write blanks without end
# does; one, or a new line with its indentation, is what people write.
_GRAMMAR = 'start: " "? value\nvalue: %json '
_LAYOUT = {"whitespace_pattern": r"( |\n {0,16})?"}
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


class Forms:
    """The forms that a model's answers were asked in, each read once; any thread may ask.

    Args:
        tokenizer: a fast one of Transformers.
        stop_ids: the tokens that end an answer, at least one; they may come wherever the form lets it end.
    """

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int]) -> None:
        self._source, self._stop_ids = tokenizer, list(stop_ids)
        self._tokenizer: LLTokenizer | None = None
        self._closer: Closer | None = None
        self._kept: OrderedDict[str, Form | str] = OrderedDict()
        self._lock = threading.Lock()

    def make(self, response_format: Mapping[str, Any]) -> Form:
        """The form that OpenAI's ``response_format`` of type ``json_object`` or ``json_schema`` asks for.

        Raises BadSchema for one that is none, that nothing satisfies, that holds what cannot be followed, or that takes
        too long to read; UsageError for a tokenizer that is not fast; EngineClosed where no process could be started.
        """
        schema = response_format.get("json_schema", {}).get("schema", _ANY_OBJECT)
        text = json.dumps({**schema, "x-guidance": _LAYOUT})
        with self._lock:
            made = self._kept.pop(text, None) or self._read(text, is_ours=schema is _ANY_OBJECT)
            self._kept[text] = made
            if len(self._kept) > _NUM_KEPT:
                self._kept.popitem(last=False)
        if isinstance(made, str):
            raise BadSchema(f"Answers cannot be held to this schema: {made}. Use a simpler one.")
        return made

    def _read(self, schema: str, *, is_ours: bool) -> Form | str:
        """The form, or why there is none."""
        grammar = _GRAMMAR + schema
        obstacle = "" if is_ours else _judge(grammar)
        if obstacle:
            return obstacle
        if self._tokenizer is None or self._closer is None:
            self._tokenizer, spelled = _read_tokenizer(self._source, self._stop_ids)
            self._closer = Closer(self._tokenizer, spelled)
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0, limits=_limits())
        if not matcher.is_error():
            tried = matcher.deep_copy()  # most of what takes too long does so at the first token; here nobody waits
            tried.compute_bitmask()
            if tried.is_error():
                return _explain(tried.get_error())
            return Form(matcher, self._closer, self._stop_ids)
        return _explain(matcher.get_error())


_MUCH_ROOM = 128


# Others are limits that were reached, and dead ends.
_GOOD_REASONS = ("NotStopped", "NoExtension", "EndOfSentence")


class Form:
    """A form, of any number of answers."""

    def __init__(self, matcher: LLMatcher, closer: Closer, stop_ids: Sequence[int]) -> None:
        self._matcher, self._closer, self._stop_ids = matcher, closer, stop_ids
        self._way = closer.find(matcher, Lexer())

    def begin(self) -> Following:
        """For one answer, from its first token on."""
        return Following(self._matcher.deep_copy(), self._closer, self._stop_ids, self._way)


class Following:
    """One answer on its way through a form.

    ``is_cut``: whether a token was taken in another's place because that left too little room for the rest.
    """

    def __init__(
        self, matcher: LLMatcher, closer: Closer, stop_ids: Sequence[int], way: tuple[int, ...] | None
    ) -> None:
        self.is_cut = False
        self._matcher, self._closer, self._stop_ids = matcher, closer, stop_ids
        self._way = way  # from here to the end of the document, where one is known
        self._lexer = Lexer()
        self._num_taken = self._next_search = 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow, so that the answer ends without a token that says so."""
        return bool(self._matcher.is_stopped())

    def mask(self, scores_V: torch.Tensor) -> torch.Tensor:
        """Scores [V] on the CPU, minus infinity for each token that may not come next. Raises BadSchema.

        Where the model would rather end its answer than say anything else, but the form does not let it, the end
        token's score counts for the token that closes the string, list or object that is open. Else it would have to go
        on with what it likes next best, which is mostly the same syllable again and again.
        """
        import numpy as np  # the process that reads schemas does without

        allowed = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        self._check()
        barred_V = scores_V.new_ones(len(scores_V)).bool()
        length = min(len(allowed), len(scores_V))
        barred_V[:length] = barred_V.new_tensor(allowed[:length] == 0)
        masked_V = scores_V.masked_fill(barred_V, -float("inf"))
        ends = [token for token in self._stop_ids if token < len(scores_V)]
        if ends and bool(barred_V[ends].all()) and scores_V[ends].max() == scores_V.max():
            closing = self._find_closing()
            if closing is not None:
                masked_V[closing] = scores_V.max()
        return masked_V

    def _find_closing(self) -> int | None:
        """The token that closes the string, list or object that is open, if it may come."""
        for token in self._closer.list_closing(self._lexer):
            if self._matcher.validate_tokens([token]) == 1:
                return token
        return None

    def take(self, token: int, room: int | None = None) -> int:
        """Takes a token and returns it, or what came in its place. Raises BadSchema.

        ``room``: how many more may come behind it. A token that leaves too little room for the rest of the document
        gives way to the next one of the way to the end.
        """
        if token not in self._stop_ids:
            token = self._keep_room(token, room)
        self._matcher.consume_token(token)
        self._check()
        self._num_taken += 1
        if token not in self._stop_ids:
            self._lexer.read(self._closer.spelled[token])
        return token

    def _keep_room(self, token: int, room: int | None) -> int:
        """The token, or where it would leave too little room the next one of the known way to the end."""
        way = self._way
        if way and token == way[0]:
            self._way = way[1:]
            return token
        found = self._look_ahead(token)
        has_room = room is None or (found is not None and len(found) <= room)
        # Where a search is given up, it may be for want of patience; a known way is left for that only while there is
        # much room.
        is_hopeful = found is None and room is not None and room > len(way or ()) + _MUCH_ROOM
        if way is None or has_room or is_hopeful or (room is not None and len(way) > room + 1):
            self._way = found
            return token
        self.is_cut = True
        self._way = way[1:]
        return way[0] if way else self._stop_ids[0]

    def _look_ahead(self, token: int) -> tuple[int, ...] | None:
        """A way to the end behind the token; None if none is found."""
        if self._way is None and self._num_taken < self._next_search:
            return None
        after = self._matcher.deep_copy()
        after.consume_token(token)
        if after.is_error():
            return None
        lexer = self._lexer.copy()
        lexer.read(self._closer.spelled[token])
        found = self._closer.find(after, lexer, known=self._way)
        if found is None:
            self._next_search = 2 * self._num_taken + 1  # not again at once
        return found

    def _check(self) -> None:
        if self._matcher.is_error() or self._matcher.stop_reason() not in _GOOD_REASONS:
            raise BadSchema(
                f"The answer could not be held to its schema further: {_explain(self._matcher.get_error())}. "
                "Use a simpler one."
            )


def _limits() -> LLParserLimits:
    """A step's work for one answer keeps the others waiting: mostly 0.1 ms, and whatever is asked less than 1 s."""
    from llguidance import LLParserLimits

    return LLParserLimits(step_lexer_fuel=100_000, step_max_items=20_000, max_items_in_row=20_000, verbose_errors=False)


def _read_tokenizer(source: Any, stop_ids: list[int]) -> tuple[LLTokenizer, list[bytes]]:
    """The vocabulary as bytes, for llguidance and as a list.

    llguidance spells what a form leaves no choice in with the tokenizer itself. One that puts a blank before every text
    then spells what the form does not allow, so the longest tokens are taken instead.
    """
    from llguidance import LLTokenizer

    if not getattr(source, "is_fast", False):
        raise UsageError("Answers of this model cannot be held to a form: that needs a fast tokenizer.")
    plain = LLTokenizer(source.backend_tokenizer.to_str(), eos_token=stop_ids)
    spelling = _Spelling(plain)
    return LLTokenizer(spelling, eos_token=stop_ids), spelling.tokens  # type: ignore[arg-type]


class _Spelling:
    """A tokenizer in the shape that llguidance asks for."""

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


def _judge(grammar: str) -> str:
    """Why there is no form of this grammar, found in a process of its own; nothing if there is one."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from llava.engine.forms import run; run()"],
            input=grammar,
            capture_output=True,
            text=True,
            timeout=_SCHEMA_CLOCK_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _TOO_LONG
    except OSError as error:  # no file handle, process or memory left
        raise EngineClosed(f"The schema could not be read: {error.strerror}. Ask again.") from error
    return done.stdout if done.returncode == 0 else _TOO_LONG


_TOO_LONG = f"reading it takes more than {SCHEMA_S:g} s or crashes"


def run() -> None:
    """The process: a grammar from standard input, what is wrong with it to standard output."""
    from llguidance import LLMatcher

    limits = _limits()
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        signal.setitimer(signal.ITIMER_PROF, SCHEMA_S)  # ends the process
        resource.setrlimit(resource.RLIMIT_AS, (_SCHEMA_BYTES, _SCHEMA_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write(_explain(LLMatcher.validate_grammar(sys.stdin.read(), limits=limits)))


def _explain(said: str) -> str:
    """llguidance's error without where it stands in a text that nobody sent."""
    said = said.split("\n   1 | ")[0].split("<non-verbose/>")[0]
    said = re.sub(r"^at \d+\(\d+\): |failed to compile JSON schema: ", "", said)
    return " ".join(said.split())[:300].rstrip(".")
