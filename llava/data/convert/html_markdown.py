"""HTML as a chat page shows it, as Markdown: what the ShareGPT converter cleans answers with.

Only what such pages are made of: paragraphs, lists, code, tables, emphasis, headings, links. Text is never escaped, and
text that is no markup ("if a<b:") is kept as it stands. No dependency: the standard library's parser does the reading.

Source: lm-sys/FastChat@f8d3230 fastchat/data/clean_sharegpt.py, which does this by markdownify 0.11.6 and repairs its
result: code blocks get their language from the header "python" + "Copy code", and the buttons' texts go. markdownify
also escapes underscores and asterisks; here they stay what they are.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_MARKUP = re.compile(
    r"</?(?:p|pre|ul|ol|li|code|strong|em|b|i|br|h[1-6]|table|tr|td|th|blockquote|div|span|a|img|hr)"
    r"(?:\s+[\w-]+=(?:\"[^\"<>]*\"|'[^'<>]*'))*\s*/?>",  # so that "if a<b and c>d" is none
    re.I,
)
_IGNORED = ("button", "svg", "style", "script")
_SPACES = re.compile(r"[ \t\r\n\f]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_FENCE = "```"
_DECLARATION = re.compile("<!(?!--)")  # no chat page has any, and the parser fails at broken ones

# "2 / 2" before an answer that was generated again; "Copy123 chars / 45 words" after a block of code.
_PAGE_NUMBER = re.compile(r"\d+ / \d+")
_COPY_CHARS = re.compile(r"Copy\d+ chars / \d+ words")
_COPY_CODE = re.compile(r"```[ \t]*\n?([^\n`]*?)(?:Copy code)+(.+?)\s*?```", re.DOTALL)


def has_markup(text: str) -> bool:
    """Whether the text holds tags that a chat page is made of."""
    return _MARKUP.search(text) is not None


def html_to_markdown(text: str) -> str:
    """The text as Markdown, without what belongs to the page and not to the answer. Text without tags stays."""
    if has_markup(text):
        writer = _Writer()
        writer.feed(_DECLARATION.sub("&lt;!", text))
        writer.close()
        text = writer.finish()
    text = _COPY_CODE.sub(
        lambda found: f"{_FENCE}{found[1].strip()}\n{found[2].strip(chr(10))}\n{_FENCE}", text.strip()
    )
    number = _PAGE_NUMBER.match(text)
    if number is not None:
        text = text[number.end() :]
    return _COPY_CHARS.sub("", text).strip()


class _Writer(HTMLParser):
    """Collects Markdown while the parser goes through the tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._blocks: list[list[str]] = [[]]  # the innermost block's text is last
        self._lists: list[list[int | None]] = []  # the next number, or None for bullets
        self._ignored = 0
        self._language = ""
        self._code: list[str] | None = None  # inside <pre>: the code, once <code> has begun
        self._is_pre = False
        self._links: list[str] = []
        self._rows: list[list[str]] = []

    def finish(self) -> str:
        while len(self._blocks) > 1:
            self._end_block("", "")
        if self._is_pre:
            self._end_pre()
        return _BLANK_LINES.sub("\n\n", "".join(self._blocks[0])).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in _IGNORED:
            self._ignored += 1
        elif tag == "pre":
            self._is_pre, self._language, self._code = True, "", None
        elif self._is_pre:
            if tag == "code":
                named = re.search(r"language-([\w+#.-]+)", values.get("class", ""))
                self._language = named[1] if named else self._language.strip()
                self._code = []
        elif tag in ("ul", "ol"):
            start = values.get("start", "")
            self._lists.append([None if tag == "ul" else int(start) if start.isdecimal() else 1])
            self._write("\n" if len(self._lists) > 1 else "\n\n")
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("li", "blockquote", "td", "th", "a") or re.fullmatch("h[1-6]", tag):
            self._links += [values.get("href", "")] if tag == "a" else []
            self._blocks.append([])
        elif tag == "img":
            self._write(f"![{values.get('alt', '')}]({values.get('src', '')})")
        else:
            if tag == "br" and self._blocks[-1]:
                self._blocks[-1][-1] = self._blocks[-1][-1].rstrip(" ")
            self._write(_MARKS.get(tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _IGNORED:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in _IGNORED:
            self._ignored = max(0, self._ignored - 1)
        elif tag == "pre" and self._is_pre:
            self._end_pre()
        elif self._is_pre:
            return
        elif tag in ("ul", "ol") and self._lists:
            self._lists.pop()
            self._write("" if self._lists else "\n\n")
        elif tag == "table":
            self._end_table()
        elif tag in ("td", "th") and self._rows and len(self._blocks) > 1:
            self._rows[-1].append(_SPACES.sub(" ", "".join(self._blocks.pop())).strip())
        elif tag == "li":
            self._end_item()
        elif tag == "a" and self._links:
            self._end_block("[", f"]({self._links.pop()})")
        elif re.fullmatch("h[1-6]", tag):
            self._end_block("\n\n" + "#" * int(tag[1]) + " ", "\n\n")
        elif tag == "blockquote" and len(self._blocks) > 1:
            quoted = _BLANK_LINES.sub("\n\n", "".join(self._blocks.pop())).strip()
            self._write("\n\n" + "\n".join(f"> {line}".rstrip() for line in quoted.split("\n")) + "\n\n")
        elif tag not in ("br", "hr"):
            self._write(_MARKS.get(tag, ""))

    def handle_data(self, data: str) -> None:
        if self._ignored:
            return
        if self._is_pre:
            if self._code is None:
                self._language += data
            else:
                self._code.append(data)
            return
        if self._lists and len(self._blocks) == 1 and not data.strip():
            return  # white space between the items of a list
        self._write(data if "\n" in data and data.strip() else _SPACES.sub(" ", data) if data.strip() else data[:1])

    def _write(self, text: str) -> None:
        if text:
            self._blocks[-1].append(text)

    def _end_block(self, before: str, after: str) -> None:
        if len(self._blocks) > 1:
            text = "".join(self._blocks.pop()).strip()
            self._write(f"{before}{text}{after}" if text else "")

    def _end_item(self) -> None:
        if len(self._blocks) < 2:
            return
        text = _BLANK_LINES.sub("\n\n", "".join(self._blocks.pop())).strip()
        number = self._lists[-1][0] if self._lists else None
        mark = "* " if number is None else f"{number}. "
        if number is not None:
            self._lists[-1][0] = number + 1
        self._write(mark + text.replace("\n", "\n" + " " * len(mark)) + "\n")

    def _end_pre(self) -> None:
        code = "".join(self._code) if self._code is not None else self._language
        language = self._language.strip() if self._code is not None else ""
        self._is_pre, self._code = False, None
        if code.strip():
            self._write(f"\n\n{_FENCE}{language}\n{code.strip(chr(10)).rstrip()}\n{_FENCE}\n\n")

    def _end_table(self) -> None:
        rows, self._rows = [row for row in self._rows if row], []
        if not rows:
            return
        width = max(map(len, rows))
        lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in rows]
        lines.insert(1, "|" + " --- |" * width)
        self._write("\n\n" + "\n".join(lines) + "\n\n")


_MARKS = {"p": "\n\n", "br": "\n", "hr": "\n\n---\n\n", "strong": "**", "b": "**", "em": "*", "i": "*", "code": "`"}
