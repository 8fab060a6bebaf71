"""From a conversation to token ids and back to text: the one tokenizing path of inference and training.

A conversation is rendered once to text, split at its image slots, and each stretch is tokenized separately, as in the
original; the labels follow from the tokens' offsets in that text. So the ids are always those of
``tokenizer_image_token(conversation.get_prompt(), tokenizer)``, in training and inference alike. No torch at import.

Source: haotian-liu/LLaVA@c121f04 llava/mm_utils.py (tokenizer_image_token), llava/train/train.py (the targets).
"""

from __future__ import annotations

import codecs
import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_TOKEN,
    IGNORE_INDEX,
    IMAGE_TOKEN_INDEX,
)
from llava.conversation import Conversation, SeparatorStyle
from llava.errors import ContextTooLong, UsageError
from llava.separators import Piece

# Inserted into user text that would otherwise read as markup, and never part of the text itself: Unicode reserves this
# noncharacter for internal use. Source: Unicode Standard 15.0, section 23.7.
ESCAPE = "\ufdd0"
_MARKUP = re.compile(r"<(?=[^\s<>]+>)|\[(?=/?[A-Z_]+\])")


def escape_image_tokens(user_text: str) -> str:
    """The text as a message in which nothing is read as an image slot or a special token.

    ESCAPE is inserted into everything of the form ``<...>`` and ``[INST]``. ``render`` and ``tokenizer_image_token``
    remove it, so ordinary text keeps its ids; only text that would have become one of the tokenizer's added tokens is
    tokenized in pieces. (A slow tokenizer, which has no offsets, keeps the ids of ESCAPE itself there.) Escaping is
    idempotent. Markup that is not a token, such as ``USER:``, cannot be distinguished from the user's words.
    """
    return _MARKUP.sub(lambda found: found[0] + ESCAPE, user_text.replace(ESCAPE, ""))


def keep_needed_escapes(text: str, tokenizer: Any) -> str:
    """The text for an external tokenizer: ESCAPE is kept only inside what would otherwise be an added token."""
    slot = DEFAULT_IMAGE_TOKEN
    return slot.join(_without_escapes(stretch, None, tokenizer)[0] for stretch in split_at_images(text))


def write_image_slot(has_start_end: bool) -> str:
    """The text of one image's slot: ``<image>``, between start and end tokens for ``mm_use_im_start_end``.

    Source: haotian-liu/LLaVA@c121f04 llava/eval/run_llava.py.
    """
    return DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN if has_start_end else DEFAULT_IMAGE_TOKEN


def split_at_images(text: str) -> list[str]:
    """The stretches of text between image slots: always one more than there are slots, and some may be empty."""
    return text.split(DEFAULT_IMAGE_TOKEN)


def tokenizer_image_token(
    prompt: str, tokenizer: Any, image_token_index: int = IMAGE_TOKEN_INDEX, return_tensors: str | None = None
) -> Any:
    """Token ids of a prompt with ``image_token_index`` for each ``<image>``.

    A list, or for ``return_tensors="pt"`` a 1-D int64 tensor; ValueError for any other value. Each stretch between
    images is tokenized separately; if stretches begin with the tokenizer's BOS, only the first keeps it. Differences
    from the original: there, the others lose their first id even if it is not BOS; and for a tokenizer that drops a
    leading blank, as Transformers' Llama tokenizers do, a second blank is added, because sentencepiece, and so the
    original, kept it.
    """
    ids, _ = _encode(prompt, tokenizer, image_token_index)
    if return_tensors is None:
        return ids
    if return_tensors == "pt":
        import torch

        return torch.tensor(ids, dtype=torch.long)
    raise ValueError(f"Unsupported tensor type: {return_tensors}")


def find_closings(conversation: Conversation, tokenizer: Any) -> tuple[list[str], list[int]]:
    """The texts and the token ids that end an answer in the conversation's template.

    A separator that is an added token is an id, since its text may never appear in the stream; any other is a text.
    """
    ids = list(conversation.stop_token_ids or ())
    texts = []
    second = conversation.sep_style in (SeparatorStyle.TWO, SeparatorStyle.LLAMA_2)
    closing = conversation.stop_str or (conversation.sep2 if second else conversation.sep)
    own_tokens = tokenizer.get_added_vocab()
    for text in [closing] if isinstance(closing, str) else closing or ():
        if text.strip() in own_tokens:
            ids.append(own_tokens[text.strip()])
        elif text:
            texts.append(text)
    return texts, ids


@dataclass(frozen=True)
class Prompt:
    """Token ids with IMAGE_TOKEN_INDEX for each image, and the merged length in positions.

    ``labels`` is as long as ``input_ids``: the id of each target, IGNORE_INDEX elsewhere; None at inference.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...] | None
    num_positions: int

    @property
    def num_images(self) -> int:
        """Image slots in ``input_ids``."""
        return self.input_ids.count(IMAGE_TOKEN_INDEX)


def render(
    conversation: Conversation,
    tokenizer: Any,
    num_positions_per_image: Sequence[int],
    *,
    limit_tokens: int | None,
    supervise: bool = False,
) -> Prompt:
    """The conversation as token ids, its merged length known before any pixel is read.

    ``num_positions_per_image``: positions of each image, in the order of the slots. ``limit_tokens``: the size of the
    model's context in positions; None is no limit.

    ``supervise`` adds labels. Targets are the tokens that begin in a target piece (``Conversation.pieces``), including
    the closing separator and the lone blank token with which some answers begin after ``ASSISTANT:``, since prompts end
    at the colon; and the tokens of ``Conversation.always_targets``. It requires a fast tokenizer.

    Raises UsageError when slots and images differ in number, or when there is nothing to learn; ContextTooLong for more
    positions than ``limit_tokens``.
    """
    pieces = conversation.pieces()
    text = "".join(piece.text for piece in pieces)
    _check_slots("conversation", len(split_at_images(text)) - 1, len(num_positions_per_image))
    targets = _mark_targets(pieces) if supervise else None
    ids, labels = _encode(text, tokenizer, IMAGE_TOKEN_INDEX, targets, conversation.always_targets)
    num_positions = _count_positions(ids, num_positions_per_image, limit_tokens)
    return Prompt(tuple(ids), tuple(labels) if supervise else None, num_positions)


def render_sample(
    conversation: Conversation, tokenizer: Any, num_positions_per_image: Sequence[int], *, limit_tokens: int | None
) -> Prompt:
    """The conversation as the originals' training has it, with labels: the ids and labels of a training sample.

    The same as ``render`` with ``supervise``, except for the text of three styles, see
    ``Conversation.training_pieces``, and for a BOS that a template writes itself, which the tokenizer does not add once
    more. Arguments and errors as those of ``render``.
    """
    pieces = conversation.training_pieces()
    text = "".join(piece.text for piece in pieces)
    _check_slots("conversation", len(split_at_images(text)) - 1, len(num_positions_per_image))
    ids, labels = _encode(text, tokenizer, IMAGE_TOKEN_INDEX, _mark_targets(pieces), conversation.always_targets)
    if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        ids, labels = ids[1:], labels[1:]
    num_positions = _count_positions(ids, num_positions_per_image, limit_tokens)
    return Prompt(tuple(ids), tuple(labels), num_positions)


def _mark_targets(pieces: Sequence[Piece]) -> bytes:
    """A byte for each character of the pieces' text, 1 for a target. Raises UsageError if there is none."""
    targets = b"".join((b"\1" if piece.is_target else b"\0") * len(piece.text) for piece in pieces)
    if not any(targets):
        raise UsageError("The conversation holds no answer that is known to be the model's: nothing to learn.")
    return targets


def encode_text(
    text: str, tokenizer: Any, num_positions_per_image: Sequence[int], *, limit_tokens: int | None
) -> Prompt:
    """A finished prompt, with ``<image>`` for each image, as token ids. Arguments and errors as those of ``render``."""
    ids = tokenizer_image_token(text, tokenizer)
    _check_slots("prompt", ids.count(IMAGE_TOKEN_INDEX), len(num_positions_per_image))
    if not ids:
        raise UsageError("The prompt is empty.")
    return Prompt(tuple(ids), None, _count_positions(ids, num_positions_per_image, limit_tokens))


def _check_slots(what: str, num_slots: int, num_images: int) -> None:
    if num_slots != num_images:
        raise UsageError(
            f"The {what} has {num_slots} {DEFAULT_IMAGE_TOKEN}, but there are {num_images} images. "
            "Each image needs one place in the text."
        )


def _count_positions(ids: Sequence[int], num_positions_per_image: Sequence[int], limit_tokens: int | None) -> int:
    """The merged length. Raises ContextTooLong above ``limit_tokens``."""
    num_text_tokens = len(ids) - len(num_positions_per_image)
    num_positions = num_text_tokens + sum(num_positions_per_image)
    if limit_tokens is not None and num_positions > limit_tokens:
        remedy = _say_how_many_fit(num_text_tokens, num_positions_per_image, limit_tokens)
        raise ContextTooLong(num_positions, limit_tokens, remedy)
    return num_positions


def _say_how_many_fit(num_text_tokens: int, num_positions_per_image: Sequence[int], limit_tokens: int) -> str:
    """The remedy for a prompt that is too long: how many of its images fit beside its text and one new token."""
    num_images, room = len(num_positions_per_image), limit_tokens - num_text_tokens - 1
    if not num_images or room < 0:
        alone = f"The text alone takes {num_text_tokens} of them. " if num_images else ""
        return f"{alone}Shorten the text."
    ends = list(itertools.accumulate(num_positions_per_image))
    num_fitting = sum(end <= room for end in ends)
    if num_images == 1:
        return f"The image takes {ends[0]} of them. Shorten the text or use a smaller image."
    which = "None" if not num_fitting else f"The first {num_fitting}"
    return f"{which} of the {num_images} images would fit. Shorten the text or use fewer or smaller images."


def _encode(
    text: str,
    tokenizer: Any,
    image_token_index: int,
    targets: bytes | None = None,
    always_targets: Iterable[str] = (),
) -> tuple[list[int], list[int]]:
    """Ids of a text with image slots, and labels if ``targets`` is given, a byte for each character.

    Every prompt becomes ids here.
    """
    ids: list[int] = []
    labels: list[int] = []
    has_bos = False
    start = 0
    for i, stretch in enumerate(split_at_images(text)):
        marked = None if targets is None else targets[start : start + len(stretch)]
        more_ids, more_labels = _encode_stretch(stretch, tokenizer, marked, frozenset(always_targets))
        begins_with_bos = bool(more_ids) and more_ids[0] == tokenizer.bos_token_id
        if i == 0:
            has_bos = begins_with_bos
        else:
            num_dropped = int(has_bos and begins_with_bos)
            more_ids = [image_token_index, *more_ids[num_dropped:]]
            more_labels = [IGNORE_INDEX, *more_labels[num_dropped:]] if marked is not None else []
        ids += more_ids
        labels += more_labels
        start += len(stretch) + len(DEFAULT_IMAGE_TOKEN)
    return ids, labels


def _encode_stretch(
    stretch: str, tokenizer: Any, targets: bytes | None, always_targets: frozenset[str]
) -> tuple[list[int], list[int]]:
    """Ids of text without image slots, and their labels if ``targets`` is given."""
    fed, marked, parted = (
        _without_escapes(stretch, targets, tokenizer) if ESCAPE in stretch else (stretch, targets, False)
    )
    if fed[:1] in (" ", "▁") and _swallows_a_blank(tokenizer):
        fed, marked = " " + fed, marked and marked[:1] + marked
    if re.search(">[ ▁]", fed) and _swallows_a_blank(tokenizer, "a" + (getattr(tokenizer, "eos_token", None) or "")):
        found = re.finditer(f"(?:{_match_added(tokenizer)})(?=[ ▁])", fed)
        for place in reversed([each.end() for each in found]):
            fed = f"{fed[:place]} {fed[place:]}"
            marked = marked and marked[: place + 1] + marked[place:]
    is_fast = getattr(tokenizer, "is_fast", False)
    if marked is None and not (parted and is_fast):
        return list(tokenizer(fed).input_ids), []
    if not is_fast:
        raise UsageError("Training labels need a fast tokenizer, one that tells where in the text its tokens stand.")

    # Silent about ``model_max_length``: callers count, and cut or refuse what is too long.
    encoded = tokenizer(fed, return_offsets_mapping=True, verbose=False)
    ids: list[int] = []
    labels: list[int] = []
    last_end = 0
    for token, (begin, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
        held = fed[begin:end]
        if held == ESCAPE:
            continue
        ids.append(token)
        if marked is not None:
            # A token without characters was added by the tokenizer, or is a blank trimmed from its span. One that
            # begins before a target belongs to the question, as in the original's count of the question's tokens.
            spanned = marked[last_end:end] if begin == end else marked[begin : begin + 1]
            labels.append(token if held in always_targets or 1 in spanned else IGNORE_INDEX)
        last_end = max(last_end, end)
    return ids, labels


def _without_escapes(stretch: str, targets: bytes | None, tokenizer: Any) -> tuple[str, bytes | None, bool]:
    """The stretch and ``targets`` without unneeded ESCAPEs, and whether one is left.

    An ESCAPE is needed inside what would otherwise be read as one of the tokenizer's added tokens.
    """
    places = [i for i, character in enumerate(stretch) if character != ESCAPE]
    plain = "".join(stretch[i] for i in places)
    added = {*getattr(tokenizer, "all_special_tokens", ())}
    if hasattr(tokenizer, "get_added_vocab"):
        added.update(tokenizer.get_added_vocab())
    needed: set[int] = set()
    for token in added - {""}:
        begin = plain.find(token)
        while begin >= 0:
            first, last = places[begin], places[begin + len(token) - 1]
            needed.update(i for i in range(first, last) if stretch[i] == ESCAPE)
            begin = plain.find(token, begin + 1)
    kept = sorted([*places, *needed])
    return "".join(stretch[i] for i in kept), targets and bytes(targets[i] for i in kept), bool(needed)


def _swallows_a_blank(tokenizer: Any, before: str = "") -> bool:
    """Whether the tokenizer drops one blank after ``before``: ``" a"`` has the ids of ``"a"``, but ``"  a"`` has not.

    ``before``: nothing, or a text that ends with a special token, after which ``legacy`` tokenizers start anew.
    Source: transformers 5.23 models/llama/tokenization_llama.py, whose Metaspace adds a blank only if there is none.
    """
    none, one, two = (list(tokenizer(before + blanks + "a").input_ids) for blanks in ("", " ", "  "))
    return none == one != two


def _match_added(tokenizer: Any) -> str:
    """A pattern for the tokenizer's added tokens."""
    return "|".join(re.escape(token) for token in sorted(tokenizer.get_added_vocab(), key=len, reverse=True))


class TextStream:
    """Incremental detokenization: token ids in, text out as soon as it is final.

    The concatenated results of ``feed`` and ``finish`` equal the tokenizer's text for all ids at once, without special
    tokens, and no result ends within a character. The cost per token is constant. With ``stop``, the text ends before
    the first occurrence of one of these strings, across token boundaries too; ``stopped`` is then true, ``stop_text``
    that string, and all further text is dropped. Raises UsageError for an empty stop string.
    """

    def __init__(self, tokenizer: Any, stop: Iterable[str] = ()) -> None:
        self.stopped = False
        self.stop_text: str | None = None  # the stop string that ended it
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        if not all(self._stop):
            raise UsageError("A stop string is empty; it would end every text at once.")
        # The ids are decoded in a sliding window: those of the last text returned, which decide about a blank between
        # the two, then those that do not form a complete character yet.
        self._before: list[int] = []
        self._waiting: list[int] = []
        self._held = ""  # text that may be the start of a stop string

    def feed(self, ids: int | Iterable[int]) -> str:
        """The text that has become final with these ids."""
        certain = []
        for token in (ids,) if isinstance(ids, int) else ids:
            if self.stopped:
                break
            self._waiting.append(int(token))
            certain.append(self._say(self._decode_waiting(is_end=len(self._waiting) > _MAX_WAITING)))
        return "".join(certain)

    def finish(self, *, is_cut: bool = False) -> str:
        """The rest, after the last token: incomplete characters as U+FFFD, and text held back for a stop string.

        ``is_cut``: the answer was cut, so a trailing incomplete character is left out. U+FFFD that the tokens encode is
        kept.
        """
        if self.stopped:
            return ""
        if is_cut and self._waiting:
            return self._say(self._decode_whole()) + self._release()
        rest = self._say(self._decode_waiting(is_end=True))
        return rest + self._release()

    def _release(self) -> str:
        """The text that was held back as the possible start of a stop string."""
        held, self._held = "" if self.stopped else self._held, ""
        return held

    def _decode_whole(self) -> str:
        """The text of the waiting ids, without a trailing incomplete character."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(b"".join(map(self._spell, self._waiting)))
        num_missing = len(decoder.getstate()[0])
        ids = self._waiting
        while num_missing > 0 and (size := len(self._spell(ids[-1]))) <= num_missing:
            ids, num_missing = ids[:-1], num_missing - size
        self._waiting = ids
        text = self._decode_waiting(is_end=True)
        # A token that holds the end of one character and the beginning of the next shows the latter as one U+FFFD.
        return text.removesuffix("\ufffd") if num_missing else text

    def _spell(self, token: int) -> bytes:
        """A token's bytes, which may be part of a character."""
        text = self._decode([token])
        if "\ufffd" not in text:
            return text.encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        byte = re.fullmatch("<0x([0-9A-F]{2})>", piece)  # sentencepiece's notation; below, GPT-2's
        if byte is not None:
            return bytes.fromhex(byte[1])
        values = _byte_values()
        if all(character in values for character in piece):
            return bytes(values[character] for character in piece)
        return text.encode()

    def _decode_waiting(self, *, is_end: bool) -> str:
        """The text of the waiting ids; "" while they end within a character, unless ``is_end``."""
        before = self._decode(self._before)
        text = self._decode(self._before + self._waiting)
        # An invalid byte can change the decoding of its neighbours, even of returned ones: then it is decoded alone.
        added = text[len(before) :] if text.startswith(before) else self._decode(self._waiting)
        if added.endswith("\ufffd") and not is_end:
            return ""
        if added:
            self._before, self._waiting = self._waiting, []
        elif is_end:
            self._waiting = []  # special tokens, which have no text
        return added

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _say(self, added: str) -> str:
        """The held text and ``added``, up to a stop string or the possible start of one."""
        text = self._held + added
        found = [(place, word) for word in self._stop if (place := text.find(word)) >= 0]
        if found:
            place, self.stop_text = min(found, key=lambda one: one[0])
            self.stopped, self._held = True, ""
            return text[:place]
        num_held = max((_overlap(text, word) for word in self._stop), default=0)
        sure = len(text) - num_held
        self._held = text[sure:]
        return text[:sure]


@functools.cache
def _byte_values() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary represents.

    Source: openai/gpt-2@9b63575 src/encoder.py (bytes_to_unicode).
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


# A character has at most four bytes, so a longer wait means invalid UTF-8, which is then decoded as it is.
_MAX_WAITING = 16


def _overlap(text: str, word: str) -> int:
    """The length of the longest suffix of ``text`` that is a proper prefix of ``word``."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)
