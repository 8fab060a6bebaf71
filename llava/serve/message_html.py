"""Renders the web chat's messages as HTML without losing a character: answers as Markdown, the others literally.

A model can produce only Markdown's own elements: HTML, entities, images, reference definitions and links other than
http(s) stay text. A block in which rendering would lose any character besides Markdown's own marks is shown literally.

The HTML also carries the source text, so that a conversation that comes back from a browser is read exactly. Its
outermost element, which only this file writes, tells whether a message is an answer, a question or a notice.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import takewhile

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

# Answers over these limits are shown without Markdown: they are longer than ``new_tokens`` allows, or could take
# seconds to parse. (Opening brackets are slow; table cells are padded to the width of the first row.)
_MAX_CHARACTERS, _MAX_BRACKETS, _MAX_CELLS = 40_000, 1_000, 10_000
# What looks like a URL, or like a host name at the start of one.
_ADDRESS = re.compile(r"[a-z][a-z+.-]*://|(?:[\w-]+\.)+[\w-]{2,}(?=$|[\s/:?#])", re.IGNORECASE)
# The elements that Markdown produces.
_TAGS = frozenset(
    "p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong s a table thead tbody tr th td".split()
)
# Markdown's own marks. All other characters of a block have to appear in its rendering.
_MARKS = re.compile(r"[\s\\`*_~#>|=:.()\[\]!\"'+-]+")
_URL = re.compile(r"https?://[^\s<>\"'`]*[^\s<>\"'`.,;:!?)\]}*_]", re.IGNORECASE)
_LINK = re.compile(r"https?://", re.IGNORECASE)
_ALIGNED = re.compile(r"text-align:(left|right|center)")
_UNFIT = re.compile("[\0\ud800-\udfff]")
# Control characters are shown as their symbols, since a browser would show nothing. Bidirectional overrides and tag
# characters are shown by code point (tag characters after a black flag are part of an emoji).
_CONTROLS: dict[int, str] = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n\r"}
_CONTROLS |= {0x7F: "\u2421"} | {code: f"[U+{code:04X}]" for code in (*range(0x80, 0xA0), 0x202D, 0x202E)}
_TAGS_OF_TEXT = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f)|[\U000e0000-\U000e007f]")
_SHOWN = re.compile(
    r'<div class="(?:prose answer(?: open)?" dir="auto" content="(?P<answer>[^"<>]*)">.*'
    r'|(?:typed|notice(?: refusal)?)" (?:dir="auto"|role="note")>(?P<plain>[^<>]*))</div>',
    re.DOTALL,
)


def render_answer(text: str, *, is_open: bool = False, is_plain: bool = False) -> str:
    """An answer as HTML. ``is_open``: more of it is to come. ``is_plain``: without Markdown."""
    text, kind = sanitize(text), "prose answer open" if is_open else "prose answer"
    return f'<div class="{kind}" dir="auto" content="{_quote(text)}">{_render(text, is_plain)}</div>'


def render_question(text: str) -> str:
    """The user's text as HTML, literally, without Markdown."""
    return f'<div class="typed" dir="auto">{_quote(sanitize(text))}</div>'


def render_notice(sentence: str, *, is_error: bool = False) -> str:
    """A notice from the server as HTML."""
    kind = "notice refusal" if is_error else "notice"
    return f'<div class="{kind}" role="note">{_quote(sanitize(sentence))}</div>'


def extract_text(shown: str) -> str:
    """The source text of a message's HTML; ``shown`` itself if this file did not write it."""
    found = _SHOWN.fullmatch(shown)
    if found is None:
        return shown
    return html.unescape(found["plain"] if found["answer"] is None else found["answer"])


def sanitize(text: str) -> str:
    """The text with lone surrogates and NUL replaced, which neither JSON nor HTML can represent."""
    return _UNFIT.sub("\ufffd", text)


def _quote(text: str) -> str:
    return html.escape(text).replace("\r", "&#13;")


def _show(text: str) -> str:
    named = _TAGS_OF_TEXT.sub(lambda found: found[1] or f"[U+{ord(found[0]):04X}]", text.translate(_CONTROLS))
    return html.escape(named)


def _render(text: str, is_plain: bool) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    if is_plain or _takes_long(text, lines):
        return _render_literally(lines)
    pieces: list[str] = []
    end = 0
    for block in _split(_parser().parse(text)):
        first, last = block[0].map or (end, end)
        written = "\n".join(lines[first:last])
        writer = _Writer(block)
        keeps_all = _MARKS.sub("", written) == _MARKS.sub("", writer.said)
        keeps_all = keeps_all and (writer.shows_text or _is_rule(block))
        pieces += [
            _render_literally(lines[end:first]),
            writer.html if keeps_all else _render_literally(lines[first:last]),
        ]
        end = last
    pieces.append(_render_literally(lines[end:]))
    rendered = "".join(pieces)
    # An answer that is only a line of dashes is not a horizontal rule.
    return rendered if rendered != "<hr>" else _render_literally(lines)


def _takes_long(text: str, lines: Sequence[str]) -> bool:
    num_cells = max(line.count("|") for line in lines) * sum("|" in line for line in lines)
    return len(text) > _MAX_CHARACTERS or text.count("[") > _MAX_BRACKETS or num_cells > _MAX_CELLS


def _is_rule(block: Sequence[Token]) -> bool:
    return block[0].type == "hr"


def _render_literally(lines: Sequence[str]) -> str:
    text = "\n".join(lines).strip("\n")
    return f"<p>{_show(text)}</p>" if text.strip() else ""


def _split(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The top-level blocks, each as the list of its tokens."""
    block: list[Token] = []
    for token in tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            yield block
            block = []


class _Writer:
    """Writes a block as HTML. ``said``: the source text that it contains, without Markdown's marks."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.shows_text = False
        self._html: list[str] = []
        self._said: list[str] = []
        self._links: list[tuple[str, str]] = []  # for each open link: its source text and its closing HTML
        self._write(tokens)

    @property
    def html(self) -> str:
        return "".join(self._html)

    @property
    def said(self) -> str:
        return "".join(self._said)

    def _write(self, tokens: Sequence[Token]) -> None:
        for index, token in enumerate(tokens):
            if token.type == "inline":
                self._write(token.children or ())
            elif token.type == "link_open":
                self._open_link(token, tokens[index + 1 :])
            elif token.type in ("text", "text_special"):
                self._write_text(token.content)
            elif token.type == "softbreak":
                self._html.append("<br>")
            elif token.type == "code_inline":
                self._say(token.content, "<code>", "</code>")
            elif token.type in ("fence", "code_block"):
                self._write_code(token)
            elif token.type == "link_close":
                self._close_link()
            elif token.tag in _TAGS and not token.hidden:
                self._write_tag(token)

    def _say(self, text: str, before: str = "", after: str = "") -> None:
        self._said.append(text)
        self.shows_text = self.shows_text or bool(text.strip())
        self._html.append(f"{before}{_show(text)}{after}")

    def _write_text(self, text: str) -> None:
        end = 0
        for url in _URL.finditer(text) if not self._links else ():
            self._say(text[end : url.start()])
            self._say(url[0], f'<a href="{_quote(url[0])}">', "</a>")
            end = url.end()
        self._say(text[end:])

    def _write_code(self, token: Token) -> None:
        language = token.info.strip()
        self._said.append(language)
        # The style sheet shows the language: it is not part of the code.
        named = f' content="{_quote(language)}"' if language else ""
        self._say(token.content.removesuffix("\n"), f'<pre tabindex="0"{named}><code>', "</code></pre>")

    def _open_link(self, token: Token, rest: Sequence[Token]) -> None:
        href, title = str(token.attrs.get("href", "")), str(token.attrs.get("title", ""))
        inside = takewhile(lambda one: one.type != "link_close", rest)
        label = "".join(one.content for one in inside if one.type in ("text", "text_special", "code_inline"))
        titled = f' "{title}"' if title else ""
        if not href or _is_disguise(label, href):  # it leads nowhere, or not where its label says
            self._html.append("[")
            self._links.append((f"{href} {title}", f"]({_show(href)}{_show(titled)})"))
        else:
            titled = f' title="{_quote(title)}"' if title else ""
            self._html.append(f'<a href="{_quote(href)}"{titled}>')
            self._links.append((f"{href} {title}", "</a>"))

    def _close_link(self) -> None:
        said, closing = self._links.pop()
        self._said.append(said)
        self._html.append(closing)

    def _write_tag(self, token: Token) -> None:
        attributes = ""
        if token.type == "list_item_open" and token.info:
            self._said.append(token.info)
            attributes = f' value="{int(token.info)}"'  # else the browser would renumber the list
        elif (aligned := _ALIGNED.fullmatch(str(token.attrs.get("style", "")))) is not None:
            attributes = f' align="{aligned[1]}"'
        self._html.append(f"</{token.tag}>" if token.nesting == -1 else f"<{token.tag}{attributes}>")


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 50})
    parser.enable(["table", "strikethrough"])
    parser.disable(["html_block", "html_inline", "image", "autolink", "entity", "reference", "lheading"])
    parser.inline.ruler.at("escape", _escape)
    parser.inline.ruler.before("emphasis", "product", _keep_literal)
    parser.validateLink = _is_link  # type: ignore[method-assign]
    parser.normalizeLink = str  # type: ignore[method-assign, assignment]
    return parser


def _is_disguise(label: str, href: str) -> bool:
    """Whether a link's label is a URL other than the one it leads to."""
    if _ADDRESS.match(label.strip()) is None:
        return False
    bare, target = (_LINK.sub("", one.strip()).removesuffix("/").lower() for one in (label, href))
    return not (target == bare or target.startswith((f"{bare}/", f"{bare}?", f"{bare}#")))


def _is_link(url: str) -> bool:
    return _LINK.match(url) is not None


def _escape(state: StateInline, silent: bool) -> bool:
    """Drops a backslash only where it escapes a mark of Markdown; others belong to formulas and paths."""
    after = state.src[state.pos + 1 : state.pos + 2]
    if state.src[state.pos] != "\\" or after not in tuple("*_`~"):
        return False
    if not silent:
        token = state.push("text_special", "", 0)
        token.content, token.markup, token.info = after, f"\\{after}", "escape"
    state.pos += 2
    return True


def _keep_literal(state: StateInline, silent: bool) -> bool:
    """Keeps ``2*3*4`` (a product) and ``![`` (an image) as text."""
    source, at = state.src, state.pos
    around = source[max(0, at - 1) : at + 2]
    is_product = len(around) == 3 and around[1] == "*" and around.isascii() and (around[0] + around[2]).isalnum()
    num = 2 if source.startswith("![", at) else int(is_product)
    if num and not silent:
        state.pending += source[at : at + num]
    state.pos += num
    return num > 0
