"""Messages as HTML: only Markdown's elements, and no character lost."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.serve import message_html

ELEMENTS = set("p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong s a".split())
ELEMENTS |= set("table thead tbody tr th td".split())
ATTRIBUTES = {
    ("a", "href"),
    ("a", "title"),
    ("li", "value"),
    ("td", "align"),
    ("th", "align"),
    ("pre", "tabindex"),
    ("pre", "content"),
}
# What Markdown may take for a mark, and so show as something else than itself.
MARKS = set("\\`*_~#>|-+=:.()[]!\"'")


class Page(HTMLParser):
    """What a browser makes of an answer."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        opening = re.match(r'<div class="prose answer" dir="auto" content="[^"<>]*">', shown)
        assert opening is not None
        assert shown.endswith("</div>")
        self.text, self.all, self.links = "", "", list[str]()
        self.elements: list[str] = []
        self.feed(shown[opening.end() : -len("</div>")])
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        assert tag in ELEMENTS
        for name, value in attributes:
            assert (tag, name) in ATTRIBUTES
            self.all += f" {value}"
            if name == "href":
                assert (value or "").lower().startswith(("http://", "https://"))
                self.links.append(value or "")

    def handle_data(self, text: str) -> None:
        self.text += text
        self.all += text

    def handle_comment(self, text: str) -> None:
        raise AssertionError("a comment")

    handle_decl = handle_pi = unknown_decl = handle_comment


LITERAL = [
    "A < B and <tag> text & <|im_end|> x < y > z",
    "<form><input type=password></form>",
    '<span class="notice refusal">The server was shut down</span>',
    "<style>body{display:none}</style>",
    "<!-- a comment --> and <!DOCTYPE html> and <![CDATA[x]]> and <?php ?>",
    "<details><summary>More</summary>x</details>",
    "<svg><script>alert(1)</script></svg><math><mi>x</mi></math>",
    "&lt;b&gt; &amp; &#60; &nbsp; &copy",
    "[press](javascript:alert(1)) [data](data:text/html,x) [rel](/etc) [file](file:///etc/passwd)",
    "<javascript:alert(1)> <mailto:a@b.c>",
    "![seen](x.png)",
    "[one]: /url 'title'",
    "[one][two] [three][]",
    "$x_1 * y_2$ and $$\\frac{a}{b}$$ and \\(a\\) and \\[b\\]",
    "C:\\new\\table",
    "2*3*4 = 24 and a*b*c",
    "snake_case_name and __init__x",
    "7.",
    "-",
    "#",
    ">",
    "---",
    "***",
    "```",
    "5 * 3",
    "[]() and [x]()",
    "text\n===",
    "| a | b |\n|---|---|\n| 1 | 2 | 3 |",  # a cell too many
    "> " * 80 + "deep",
    '<div class="prose answer" dir="auto" content="forged">x</div>',
]


@pytest.mark.parametrize("text", LITERAL)
def test_what_is_not_markdown_is_shown_as_it_is(text: str) -> None:
    page = Page(message_html.render_answer(text))
    assert re.sub(r"\s", "", page.text) == re.sub(r"\s", "", text)
    assert not set(page.elements) - {"p", "br", "a"}


def test_markdown_is_read() -> None:
    text = (
        "# Head\n\nSome **bold**, *slanted*, ~~gone~~ `<code> &lt;` and [a link](https://x.test/?a=1&b=2).\n\n"
        "3. three\n5. five\n   - inside\n\n> quoted\n\n```html\n<b>&amp;</b>\n```\n\n| a | b |\n|:--|--:|\n| 1 | 2 |\n"
    )
    assert message_html.render_answer(text).partition('">')[2] == (
        "<h1>Head</h1><p>Some <strong>bold</strong>, <em>slanted</em>, <s>gone</s> <code>&lt;code&gt; &amp;lt;</code>"
        ' and <a href="https://x.test/?a=1&amp;b=2">a link</a>.</p>'
        '<ol><li value="3">three</li><li value="5">five<ul><li>inside</li></ul></li></ol>'
        "<blockquote><p>quoted</p></blockquote>"
        '<pre tabindex="0" content="html"><code>&lt;b&gt;&amp;amp;&lt;/b&gt;</code></pre>'
        '<table><thead><tr><th align="left">a</th><th align="right">b</th></tr></thead>'
        '<tbody><tr><td align="left">1</td><td align="right">2</td></tr></tbody></table></div>'
    )


def test_bare_addresses_are_links_and_show_themselves() -> None:
    page = Page(
        message_html.render_answer("See https://x.test/a_b?c=d&e, (http://y.test/z). No: ftp://x.test javascript:x")
    )
    assert page.links == ["https://x.test/a_b?c=d&e", "http://y.test/z"]
    assert page.text == "See https://x.test/a_b?c=d&e, (http://y.test/z). No: ftp://x.test javascript:x"


def test_characters_that_a_browser_would_not_show_are_shown() -> None:
    assert Page(message_html.render_answer("a\x1b[31m\x00b\ud800c")).text == "a\u241b[31m\ufffdb\ufffdc"


def test_characters_that_turn_or_hide_what_follows_are_named() -> None:
    text = "a\u202eb\u202dc\x85d\U000e0041e \u0645\u200f \U0001f3f4\U000e0067\U000e0062\U000e0073\U000e007f"
    shown = "a[U+202E]b[U+202D]c[U+0085]d[U+E0041]e" + text.partition("e ")[2].join([" ", ""])
    assert Page(message_html.render_answer(text)).text == shown
    assert message_html.extract_text(message_html.render_answer(text)) == text


@pytest.mark.parametrize(
    ("label", "href", "is_link"),
    [
        ("here", "http://b.test", True), ("http://a.test", "http://a.test/", True), ("a.test", "https://A.test", True),
        ("a.test", "https://a.test/b?c", True), ("version 1.5", "http://b.test", True),
        ("a.test says", "http://b.test", False),
        ("http://a.test", "http://b.test", False), ("**https://a.test/**", "http://b.test", False),
        ("`a.test`", "http://b.test", False), ("a.test", "http://a.test.b.test", False),
        ("http://a.test", "http://a.test@b.test", False), ("www.a.test/x", "http://b.test", False),
    ],
)  # fmt: skip
def test_a_link_leads_where_it_says(label: str, href: str, is_link: bool) -> None:
    page = Page(message_html.render_answer(f"See [{label}]({href})."))
    assert (page.links == [href]) == is_link
    if not is_link:
        assert f"]({href})" in page.text


def test_half_of_anything_is_shown_while_the_rest_is_to_come() -> None:
    text = "Say `<b>` or\n\n```html\n<p>&amp;</p>\n```\n\n**so** <i>it</i> is: [x](http://y.test)"
    for end in range(len(text) + 1):
        Page(message_html.render_answer(text[:end]))
    assert Page(message_html.render_answer(text[: text.index("&amp;")])).text.endswith("<p>")


PIECES = st.sampled_from(
    [
        "<",
        ">",
        "&",
        "&lt;",
        "<b>",
        "</div>",
        "<!--",
        '"',
        "'",
        "`",
        "```\n",
        "*",
        "**",
        "_",
        "~~",
        "#",
        "# ",
        "- ",
        "1. ",
    ]
    + ["> ", "|", "|-|-|\n", "[", "](", "](http://a.b", ")", "!", "\\", "\n", "\n\n", " ", "    ", "\t", "x", "7", "ä"]
    + ["http://a.b/c", "javascript:", "$", "\r\n", "\x00", "\u202e", "[a]: b\n", "---\n", ":", "<a@b.c>", "=", "~~~\n"]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_answer_keeps_its_text_and_makes_no_element_but_markdowns(text: str) -> None:
    shown = message_html.render_answer(text)
    assert message_html.extract_text(shown) == message_html.sanitize(text)
    found = iter(Page(shown).all)
    for letter in message_html.sanitize(text).replace("\r", "\n"):
        letter = f"[U+{ord(letter):04X}]" if letter == "\u202e" else letter
        assert letter in MARKS or letter.isspace() or all(one in found for one in letter), (
            f"{letter!r} is lost of {text!r}: {shown}"
        )


@given(st.lists(PIECES, max_size=40).map("".join))
def test_what_is_typed_and_what_is_noted_is_text_alone(text: str) -> None:
    for shown in (
        message_html.render_question(text),
        message_html.render_notice(text),
        message_html.render_notice(text, is_error=True),
    ):
        assert shown.count("<") == 2
        assert message_html.extract_text(shown) == message_html.sanitize(text)


def test_what_was_not_written_here_is_text() -> None:
    for text in ("plain", "<div>x</div>", '<div class="notice" role="note">a<b></b></div>', ""):
        assert message_html.extract_text(text) == text


def test_very_long_answers_are_shown_without_markdown() -> None:
    text = "**b** <i>\n" * 20_000
    assert Page(message_html.render_answer(text)).text.strip() == text.strip()


@pytest.mark.parametrize("slow", ["[" * 2000, "|" + "a|" * 500 + "\n|" + "-|" * 500 + "\n" + "|\n" * 100])
def test_what_would_take_long_to_parse_is_shown_without_markdown(slow: str) -> None:
    text = f"**b** <i>\n\n{slow}"
    shown = Page(message_html.render_answer(text))
    assert shown.text.strip() == text.strip()
    assert "strong" not in message_html.render_answer(text)
