"""How an answer that is held to a form comes to its end: a short way from where it stands to a complete document.

A model does not know how many tokens it has left, so near the end of them only what still leaves room for the rest of
the document may be said. For that a way to the end is kept from token to token: mostly it stays valid, or its own first
token is said; only where the document opens something new is another one searched for.

The search goes byte by byte and takes what closes before what opens, and of other bytes the one that it has used least,
so it also comes to the end of most patterns. What it finds is short but not always the shortest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# A search of more bytes, or of more of the processor's time, is given up.
MOST_BYTES, _MOST_S = 4096, 0.1
# Of a known way so many tokens may be left out at its beginning, and so many bytes be said in front of the rest of it.
_LEFT_OUT, _IN_FRONT = 4, 40
_CLOSING = b"}]"
_BETWEEN = b",:"
_OPENING = b"[{"
_DIGITS = b"1234567890"
_LITERALS = b"nft-.eE+ulrasx"
_BLANKS = b" \n"
_LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789-_.:/@ ABCDEFGHIJKLMNOPQRSTUVWXYZ+#,;()[]{}!?*%&=~'$^|<>`"


@dataclass
class Lexer:
    """Whether a document stands within a string."""

    in_string: bool = False
    _is_escaped: bool = False

    def read(self, text: bytes) -> None:
        for byte in text:
            if not self.in_string:
                self.in_string = byte == 0x22
            elif self._is_escaped:
                self._is_escaped = False
            elif byte == 0x5C:
                self._is_escaped = True
            else:
                self.in_string = byte != 0x22

    def copy(self) -> Lexer:
        return Lexer(self.in_string, self._is_escaped)


class Closer:
    """Searches ways to the end, for one vocabulary.

    Args:
        tokenizer: llguidance's.
        spelled: the bytes of every token.
    """

    def __init__(self, tokenizer: LLTokenizer, spelled: Sequence[bytes]) -> None:
        self._tokenizer, self.spelled = tokenizer, spelled
        special = [tokenizer.is_special_token(token) for token in range(len(spelled))]
        self._single = {text[0]: token for token, text in enumerate(spelled) if len(text) == 1 and not special[token]}

    def list_closing(self, lexer: Lexer) -> list[int]:
        """The tokens of which one closes what is open."""
        return [self._single[byte] for byte in (b'"' if lexer.in_string else _CLOSING) if byte in self._single]

    def fits(self, matcher: LLMatcher, way: Sequence[int]) -> bool:
        """Whether the tokens lead to a complete document."""
        return bool(matcher.validate_tokens([*way, self._tokenizer.eos_token]) == len(way) + 1)

    def find(
        self, matcher: LLMatcher, lexer: Lexer, most_bytes: int = MOST_BYTES, known: tuple[int, ...] | None = None
    ) -> tuple[int, ...] | None:
        """A way to the end, or None where none was found. The matcher stays as it is.

        ``known``: the way from one token before, of which most can be gone again.
        """
        way = self._walk(matcher.deep_copy(), lexer.copy(), most_bytes, known or ())
        if way is None:
            return None
        try:
            text = b"".join(self.spelled[token] for token in way).decode()
        except UnicodeDecodeError:
            return way
        shorter = tuple(self._tokenizer.greedy_tokenize(text))
        return shorter if len(shorter) < len(way) and self.fits(matcher, shorter) else way

    def _walk(
        self, matcher: LLMatcher, lexer: Lexer, most_bytes: int, known: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        way: list[int] = []
        used: Counter[int] = Counter()
        num_bytes, end_s = 0, time.thread_time() + _MOST_S
        while num_bytes <= most_bytes and not matcher.is_error() and time.thread_time() < end_s:
            if matcher.is_accepting():
                return tuple(way)
            for start in range(min(len(known), _LEFT_OUT) if num_bytes <= _IN_FRONT else 0):
                if self.fits(matcher, known[start:]):
                    return (*way, *known[start:])
            step = matcher.compute_ff_tokens() or self._step(matcher, lexer, used)
            if not step or not matcher.consume_tokens(step):
                return None
            way += step
            for token in step:
                text = self.spelled[token]
                num_bytes += len(text)
                used.update(text)
                lexer.read(text)
        return None

    def _step(self, matcher: LLMatcher, lexer: Lexer, used: Counter[int]) -> list[int]:
        def rank(bytes_: bytes) -> list[int]:
            return sorted(bytes_, key=lambda byte: used[byte])

        if lexer.in_string:
            order = [0x22, *rank(_LETTERS)]
        else:
            order = [*_CLOSING, *_BETWEEN, 0x22, *rank(_DIGITS), *_LITERALS, *_OPENING, *_BLANKS]
        for byte in order:
            token = self._single.get(byte)
            if token is not None and matcher.validate_tokens([token]) == 1:
                return [token]
        return self._take_any(matcher)

    def _take_any(self, matcher: LLMatcher) -> list[int]:
        """The shortest of all tokens that may come."""
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [token for token in range(len(self.spelled)) if mask >> token & 1 and self.spelled[token]]
        return [min(allowed, key=lambda token: len(self.spelled[token]))] if allowed else []
