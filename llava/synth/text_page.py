"""Pages of running text to transcribe, in the manner of SynDog: paragraphs in one or two columns on paper.

The text is made of the word list's words, without meaning: a model that transcribes it has to read.

Source: SynthDoG of clovaai/donut (arXiv:2111.15664, section 3.2), which sets text in a random layout on a texture of
paper over a background, and distorts it lightly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from llava.synth import words
from llava.synth.drawing import Drawing, load_font
from llava.synth.paper import lay_on_paper, tilt
from llava.synth.scene import Scene, Turn, Type, draw_type

_INKS = ("black", "black", "black", "black", "blue", "brown", "gray")
# One word per this many square pixels at most.
_AREA_PER_WORD = 1100


@dataclass(frozen=True)
class _Column:
    """A column's left edge, width and lowest line's end, in pixels."""

    left: float
    width: float
    bottom: float


@dataclass
class _Setter:
    """Sets words in lines, from ``y`` downwards, until ``num_words`` are set or the column is full."""

    rng: random.Random
    drawing: Drawing
    kind: Type
    ink: str
    stream: Iterator[str]
    num_words: int
    y: float = 0.0

    def fill(self, column: _Column, alignment: str, leading: float) -> None:
        """Paragraphs of 4 to 14 words, the first of them starting at ``y``."""
        while self.num_words > 0 and self.fits(column):
            count = min(self.num_words, self.rng.randint(4, 14))
            indent = self.kind.font.size * self.rng.choice((0.0, 0.0, 1.0, 1.5))
            self.set_paragraph(column, count, alignment, leading, indent)
            self.y += self.kind.line_px * self.rng.uniform(0.2, 0.7)

    def fits(self, column: _Column) -> bool:
        """Whether one more line is above the column's end."""
        return self.y + self.kind.line_px <= column.bottom

    def set_paragraph(self, column: _Column, count: int, alignment: str, leading: float, indent: float) -> None:
        """The next ``count`` words, as far as the column reaches; a word that is wider than a line is left out."""
        font = self.kind.font
        space = font.getlength(" ")
        line: list[str] = []
        room = column.width - indent
        pending = [next(self.stream) for _ in range(count)]
        while pending and self.fits(column):
            line = []
            used = 0.0
            while pending and used + font.getlength(pending[0]) <= room:
                line.append(pending.pop(0))
                used += font.getlength(line[-1]) + space
            if not line:  # a word wider than the line
                pending.pop(0)
                continue
            self._set_line(column.left + column.width - room, room, line, alignment, is_last=not pending)
            self.y += self.kind.line_px * leading
            room = column.width

    def _set_line(self, left: float, room: float, line: list[str], alignment: str, is_last: bool) -> None:
        font = self.kind.font
        space = font.getlength(" ")
        slack = room - sum(font.getlength(word) for word in line) - space * (len(line) - 1)
        x = left
        if alignment == "justified" and not is_last and len(line) > 1:
            space += min(slack / (len(line) - 1), 3 * space)
        elif alignment == "centered":
            x += slack / 2
        for word in line:
            self.drawing.write(x, self.y, word, font, self.ink)
            x += font.getlength(word) + space
        self.num_words -= len(line)


def draw_text_page(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """A page with paragraphs in one or two columns, possibly under a title; the one question asks for its text."""
    drawing = Drawing(rng, width, height)
    kind = draw_type(rng, _choose_size_px(rng, width, height))
    margin = rng.uniform(4, 4 + 0.06 * width)
    num_columns = 2 if width - 2 * margin > 18 * kind.font.size and rng.random() < 0.45 else 1
    gap = rng.uniform(1.0, 2.0) * kind.font.size
    column_px = (width - 2 * margin - gap * (num_columns - 1)) / num_columns
    max_letters = max(3, min(10, int(column_px / (0.72 * kind.font.size))))
    stream = _iterate_words(rng, held_out, max_letters)
    num_words = rng.randint(4, max(6, width * height // _AREA_PER_WORD))
    setter = _Setter(rng, drawing, kind, rng.choice(_INKS), stream, num_words, rng.uniform(2, 4 + 0.05 * height))
    bottom = height - margin / 2
    if rng.random() < 0.35 and height > 7 * kind.line_px:
        _set_title(setter, _Column(margin, width - 2 * margin, bottom), held_out)
    top = setter.y
    alignment, leading = rng.choice(("left", "left", "justified", "centered")), rng.uniform(1.0, 1.3)
    # Both columns are filled alike: a short text would leave the second one empty.
    share = -(-setter.num_words // num_columns)
    rest = setter.num_words
    for i in range(num_columns):
        setter.y, setter.num_words = top, min(share, rest - i * share)
        setter.fill(_Column(margin + i * (column_px + gap), column_px, bottom), alignment, leading)
    if not drawing.texts:
        return draw_text_page(rng, width, height, held_out)
    lay_on_paper(drawing, rng)
    if rng.random() < 0.6:
        tilt(drawing, rng)
    text = " ".join(drawing.texts)
    return Scene("page-text", drawing, text, [Turn("", text, "transcription")])


def _choose_size_px(rng: random.Random, width: int, height: int) -> int:
    """A type size: 12 to 15 pixels on a small page, and up to a twentieth of the shorter side on a large one."""
    return rng.randint(12, max(15, min(width, height) // 20))


def _set_title(setter: _Setter, column: _Column, held_out: bool) -> None:
    """One to three words in larger type in the middle of the first line."""
    rng, body, stream = setter.rng, setter.kind, setter.stream
    size_px = round(body.font.size * rng.uniform(1.15, 1.4))
    font = load_font(rng.choice((1, 7, 10)), size_px)  # the bold ones of font_paths
    ascent, descent = font.getmetrics()
    count = rng.randint(1, 3)
    title = [words.draw_word(rng, held_out, 8).title() for _ in range(count)]
    while title and font.getlength(" ".join(title)) > column.width:
        title.pop()
    if title:
        setter.kind, setter.stream, num_words = Type(font, ascent + descent), iter(title), setter.num_words
        setter.set_paragraph(column, len(title), "centered", 1.0, indent=0.0)
        setter.kind, setter.stream, setter.num_words = body, stream, num_words
        setter.y += 2


def _iterate_words(rng: random.Random, held_out: bool, max_letters: int) -> Iterator[str]:
    """Words of sentences of four to nine words, with their punctuation, without end."""
    while True:
        length = rng.randint(4, 9)
        for i in range(length):
            if rng.random() < 0.07:
                word = rng.choice((words.draw_number, words.draw_price, words.draw_code))(rng)
            else:
                word = words.draw_word(rng, held_out, max_letters).lower()
            if i == 0 or rng.random() < 0.06:
                word = word[0].upper() + word[1:]
            if i == length - 1:
                word += rng.choice("......?!")
            elif rng.random() < 0.08:
                word += ","
            yield word
