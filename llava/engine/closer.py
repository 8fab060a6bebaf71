"""Completes a constrained answer in time: finds a short suffix that completes the document from its current state.

A model does not know how many tokens it has left, so near its limit only tokens are accepted that leave enough for the
rest of the document. The matcher therefore keeps a completing suffix from token to token. Mostly the suffix stays
valid, or its own first token is sampled; only where the document opens something new is another one searched for.

The search is greedy, byte by byte: it prefers bytes that close to bytes that open, and among other bytes the one it has
used least, so that it satisfies most patterns, too. The suffix it finds is short, but not always the shortest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# A search gives up after so many bytes, or so many seconds of CPU time.
MAX_BYTES, _MAX_S = 4096, 0.1
# How many leading tokens of the known suffix may be skipped, and how many bytes may come before the rest of it.
_MAX_SKIPPED, _MAX_BYTES_BEFORE = 4, 40
_CLOSING = b"}]"
_BETWEEN = b",:"
_OPENING = b"[{"
_DIGITS = b"1234567890"
_LITERALS = b"nft-.eE+ulrasx"
_BLANKS = b" \n"
_LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789-_.:/@ ABCDEFGHIJKLMNOPQRSTUVWXYZ+#,;()[]{}!?*%&=~'$^|<>`"


# A number ends after so many digits: with a point, a double precision number has no more that matter.
_MOST_DIGITS, _MOST_DIGITS_OF_INTEGER = 17, 32
_IN_NUMBERS = b"0123456789.eE+-"


@dataclass
class StringState:
    """A small lexer: whether a JSON document is inside a string, and how long the number is that it is inside of."""

    in_string: bool = False
    _is_escaped: bool = False
    _num_digits: int = 0
    _is_integer: bool = True

    @property
    def is_long_number(self) -> bool:
        """Whether the document is inside a number that has as many digits as matter."""
        return self._num_digits >= (_MOST_DIGITS_OF_INTEGER if self._is_integer else _MOST_DIGITS)

    def read(self, text: bytes) -> None:
        """Advances by some bytes of the document."""
        for byte in text:
            if self.in_string or byte not in _IN_NUMBERS:
                self._num_digits, self._is_integer = 0, True
            else:
                self._num_digits += byte in _DIGITS
                self._is_integer &= byte in _DIGITS or byte == 0x2D
            if not self.in_string:
                self.in_string = byte == 0x22
            elif self._is_escaped:
                self._is_escaped = False
            elif byte == 0x5C:
                self._is_escaped = True
            else:
                self.in_string = byte != 0x22

    def copy(self) -> StringState:
        """An independent copy."""
        return replace(self)


class Closer:
    """Finds completing suffixes, for one vocabulary.

    Args:
        tokenizer: llguidance's.
        token_bytes: the bytes of every token.
    """

    def __init__(self, tokenizer: LLTokenizer, token_bytes: Sequence[bytes]) -> None:
        self._tokenizer, self.token_bytes = tokenizer, token_bytes
        special = [tokenizer.is_special_token(token) for token in range(len(token_bytes))]
        self._of_byte = {
            text[0]: token for token, text in enumerate(token_bytes) if len(text) == 1 and not special[token]
        }
        # A bit for each token, as in llguidance's masks: whether it would continue a number.
        self.number_bits = sum(
            1 << token for token, text in enumerate(token_bytes) if text[:1] and text[0] in _IN_NUMBERS
        )

    def list_closing_tokens(self, strings: StringState) -> list[int]:
        """The tokens that can close the open string, or the open array or object."""
        return [self._of_byte[byte] for byte in (b'"' if strings.in_string else _CLOSING) if byte in self._of_byte]

    def completes(self, matcher: LLMatcher, suffix: Sequence[int]) -> bool:
        """Whether the document is complete after the suffix."""
        return bool(matcher.validate_tokens([*suffix, self._tokenizer.eos_token]) == len(suffix) + 1)

    def find(
        self, matcher: LLMatcher, strings: StringState, max_bytes: int = MAX_BYTES, known: tuple[int, ...] | None = None
    ) -> tuple[int, ...] | None:
        """A suffix that completes the document; None if the search gave up. Leaves the matcher unchanged.

        ``known``: the suffix of one token before, of which most can usually be reused.
        """
        suffix = self._search(matcher.deep_copy(), strings.copy(), max_bytes, known or ())
        if suffix is None:
            return None
        try:
            text = b"".join(self.token_bytes[token] for token in suffix).decode()
        except UnicodeDecodeError:
            return suffix
        shorter = tuple(self._tokenizer.greedy_tokenize(text))
        return shorter if len(shorter) < len(suffix) and self.completes(matcher, shorter) else suffix

    def _search(
        self, matcher: LLMatcher, strings: StringState, max_bytes: int, known: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        suffix: list[int] = []
        used: Counter[int] = Counter()
        num_bytes, end_s = 0, time.thread_time() + _MAX_S
        while num_bytes <= max_bytes and not matcher.is_error() and time.thread_time() < end_s:
            if matcher.is_accepting():
                return tuple(suffix)
            for start in range(min(len(known), _MAX_SKIPPED) if num_bytes <= _MAX_BYTES_BEFORE else 0):
                if self.completes(matcher, known[start:]):
                    return (*suffix, *known[start:])
            step = matcher.compute_ff_tokens() or self._choose_next(matcher, strings, used)
            if not step or not matcher.consume_tokens(step):
                return None
            suffix += step
            for token in step:
                text = self.token_bytes[token]
                num_bytes += len(text)
                used.update(text)
                strings.read(text)
        return None

    def _choose_next(self, matcher: LLMatcher, strings: StringState, used: Counter[int]) -> list[int]:
        def rank(candidates: bytes) -> list[int]:
            return sorted(candidates, key=lambda byte: used[byte])

        if strings.in_string:
            order = [0x22, *rank(_LETTERS)]
        else:
            order = [*_CLOSING, *_BETWEEN, 0x22, *rank(_DIGITS), *_LITERALS, *_OPENING, *_BLANKS]
        for byte in order:
            token = self._of_byte.get(byte)
            if token is not None and matcher.validate_tokens([token]) == 1:
                return [token]
        return self._choose_any(matcher)

    def _choose_any(self, matcher: LLMatcher) -> list[int]:
        """The shortest of all tokens that the grammar allows."""
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [token for token in range(len(self.token_bytes)) if mask >> token & 1 and self.token_bytes[token]]
        return [min(allowed, key=lambda token: len(self.token_bytes[token]))] if allowed else []
