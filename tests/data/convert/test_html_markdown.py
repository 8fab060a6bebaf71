"""HTML of a chat page becomes Markdown, and text that is no markup stays."""

from __future__ import annotations

import pytest

from llava.data.convert.html_markdown import html_to_markdown

CODE = (
    '<pre><div class="bg-black mb-4 rounded-md"><div class="flex items-center"><span class="">python</span>'
    '<button class="flex ml-auto gap-2"><svg stroke="currentColor"><path d="M16 4h2a2"></path></svg>Copy code</button>'
    '</div><div class="p-4 overflow-y-auto"><code class="!whitespace-pre hljs">'
    '<span class="hljs-keyword">for</span> i <span>in</span> x_y:\n    f(i &lt; 2)\n</code></div></div></pre>'
)


@pytest.mark.parametrize(("html", "markdown"), [
    ("if a<b and c>d: f(x_y)\n\n  *x*", "if a<b and c>d: f(x_y)\n\n  *x*"),
    ("List<String> x; <T> y", "List<String> x; <T> y"),
    ("<p>Now <b>do</b> <em>it</em>:</p>" + CODE, "Now **do** *it*:\n\n```python\nfor i in x_y:\n    f(i < 2)\n```"),
    ("<ul>\n<li>a</li>\n<li><p>b</p></li>\n</ul>\n<p>x</p>", "* a\n* b\n\nx"),
    ('<ol start="3"><li>a<ul><li>in</li></ul></li><li>b</li></ol>', "3. a\n   * in\n4. b"),
    ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td></tr></table>", "| a | b |\n| --- | --- |\n| 1 |  |"),
    ("<h2>Title</h2><blockquote><p>one</p><p>two</p></blockquote>", "## Title\n\n> one\n>\n> two"),
    ('see <a href="http://x.y">here</a><br/>next<hr>', "see [here](http://x.y)\nnext\n\n---"),
    ("<p>a &amp; b &lt;c&gt;</p>", "a & b <c>"),
    ("2 / 2\n\nHello", "Hello"),
    ("1 / 2 of a cup", "of a cup"),  # as in the original
    ("Half is 1 / 2", "Half is 1 / 2"),
    ("```\npythonCopy codeprint(1)\n\n```", "```python\nprint(1)\n```"),
    ("doneCopy12 chars / 3 words", "done"),
    ("<p>unclosed <b>bold", "unclosed **bold"),
    ("</p></li></ul></pre></td>text", "text"),
    ("<p>broken <![<b>declaration</b> <!DOCTYPE [<x", "broken <![**declaration** <!DOCTYPE [<x"),
    ("<p>a<!-- comment -->b</p>", "ab"),
    ("", ""),
])  # fmt: skip
def test_markup_becomes_markdown(html: str, markdown: str) -> None:
    assert html_to_markdown(html) == markdown
