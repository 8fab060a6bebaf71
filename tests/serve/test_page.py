"""The web chat's page in a browser: how answers and questions are displayed, and its client-side behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from llava.backends.protocol import ChatRequest, Delta, FinishReason, Usage
from llava.serve.limits import Limits, Settings
from tests.serve.serving import PATIENCE_S, Puppet, Running
from tests.serve.tab import EXAMPLES, Tab, need_gradio, needs_browser, run_browser, run_web

need_gradio()


class Speaker(Puppet):
    """Says ``text`` in pieces of three characters, and then waits while the gate is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.reason = "", "stop"

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        self.requests.append(request)
        for start in range(0, len(self.text), 3):
            yield Delta(text=self.text[start : start + 3])
            await asyncio.sleep(0)
        while not self.gate.is_set():
            await asyncio.sleep(0.005)
        reason: FinishReason = "length" if self.reason == "length" else "stop"
        yield Delta(finish_reason=reason, usage=Usage(7, 512))


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return Speaker()


@pytest.fixture(scope="module")
def running(speaker: Speaker) -> Iterator[Running]:
    with run_web(speaker, Settings(limits=Limits(decode_s=PATIENCE_S), decoders=1)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with run_browser() as browser:
        yield browser


@pytest.fixture
def tab(browser: Any, running: Running, speaker: Speaker) -> Iterator[Tab]:
    """A page that was never open before."""
    speaker.gate.set()
    speaker.reason = "stop"
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = Tab(context, running)
    tab.wait_until_begun()
    yield tab
    speaker.gate.set()
    context.close()


HOSTILE = [
    "A < B and <tag> text & <|im_end|> x < y > z",
    '<span class="notice refusal">The server was shut down</span>',
    "<div class=notice role=note>The answer was cut</div>",
    "<form action=/gradio_api/upload><input type=password autofocus></form>",
    "<style>* { display: none }</style><p style='position:fixed;inset:0'>over all</p>",
    "<img src=x onerror=alert(1)> ![i](http://x.test/i.png) <svg onload=alert(1)></svg>",
    "&lt;b&gt; &amp; &#x3c;i&#x3e; &copy;",
    "<!-- gone? --> <details><summary>s</summary>d</details> <math><mi>x</mi></math>",
    "[j](javascript:alert(1)) [r](/config) <javascript:alert(1)> [one]: http://x.test",
    "$$x^2$$ and $x$ and \\(x\\)",
    '</div></span><div class="notice" role="note">The server was shut down</div>',
]


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


@needs_browser
def test_answers_are_text_and_markdown_and_nothing_else(tab: Tab, speaker: Speaker) -> None:
    for number, text in enumerate(HOSTILE, start=1):
        speaker.text = text
        tab.type("Hi")
        tab.wait_for_answer(number)
    assert tab.answers == HOSTILE
    speaker.text = "```mermaid\ngraph TD; A-->B\n```\n\n```html\n<b>&lt;</b>\n```\n\nInline `<i>&amp;` and **bold**."
    tab.type("Hi")
    tab.wait_for_answer(len(HOSTILE) + 1)
    assert lines_of(tab.answers[-1]) == ["graph TD; A-->B", "<b>&lt;</b>", "Inline <i>&amp; and bold."]

    found = tab.page.evaluate(
        """() => [...document.querySelectorAll("#chat .answer *")].map((part) => part.tagName.toLowerCase())"""
    )
    assert set(found) <= {"p", "a", "pre", "code", "strong", "br"}
    assert tab.find("#chat .notice").count() == 0
    assert tab.find("#chat .bot.message :is(form, input, style, svg, img, [style*=fixed])").count() == 0

    # The whole conversation, too, when the browser brings it back.
    tab.page.reload()
    tab.wait_until_begun()
    assert tab.answers[:-1] == HOSTILE


@needs_browser
def test_half_an_answer_shows_what_there_is(tab: Tab, speaker: Speaker) -> None:
    speaker.gate.clear()
    speaker.text = "See <b and\n\n```html\n<p>&lt; half a"
    tab.type("Hi")
    tab.until(lambda: tab.answers and tab.answers[0].endswith("half a"))
    assert lines_of(tab.answers[0]) == ["See <b and", "<p>&lt; half a"]
    tab.until(lambda: tab.find("#chat [role=log]").get_attribute("aria-busy") == "true")
    tab.page.keyboard.press("Escape")
    tab.wait_for_answer()
    tab.until(lambda: tab.notices == ["You stopped the answer here."])
    tab.until(lambda: tab.find("#chat [role=log]").get_attribute("aria-busy") == "false")


TYPED = "*a* _b_ # 1. <b>c</b> $x$ `d` &lt;\n- \"e\" 'f'\n\n    g  h"


@needs_browser
def test_what_is_typed_is_shown_edited_copied_and_asked_as_it_was_typed(tab: Tab, speaker: Speaker) -> None:
    speaker.text = "**Yes** <i>&lt;"
    tab.type(TYPED)
    tab.wait_for_answer()
    assert tab.questions == [TYPED]
    assert speaker.requests[-1].messages[-1].parts[-1] == TYPED

    tab.find("#chat [aria-label^=Copy]").first.click()
    tab.until(lambda: tab.page.evaluate("() => navigator.clipboard.readText()") == TYPED)
    tab.find("#chat [aria-label='Copy message']").last.click()
    tab.until(lambda: tab.page.evaluate("() => navigator.clipboard.readText()") == speaker.text)

    tab.find("#chat [aria-label=Edit]").click()
    field = tab.find("#chat .edit-textarea")
    assert field.input_value() == TYPED
    box = field.bounding_box()
    assert box["width"] >= 300
    assert box["height"] >= 100
    changed = f'{TYPED} <div class="typed" dir="auto">i</div>'
    field.fill(changed)
    field.press("Control+Enter")
    tab.until(lambda: speaker.requests[-1].messages[-1].parts[-1] == changed)
    tab.wait_for_answer()
    assert tab.questions == [changed]

    tab.find("#chat [aria-label=Edit]").click()
    field.fill("Something else")
    field.press("Escape")
    tab.until(lambda: field.count() == 0)
    assert tab.questions == [changed]


@needs_browser
def test_an_image_without_words_is_to_be_described(tab: Tab, speaker: Speaker) -> None:
    speaker.text = "A receipt."
    tab.choose(EXAMPLES / "receipt.png")
    tab.find("#box textarea").press("Enter")
    tab.wait_for_answer()
    assert tab.questions == ["Describe the image."]
    tab.until(lambda: tab.find("#chat .user.message img").get_attribute("alt") == "Image receipt.png")


@needs_browser
@pytest.mark.parametrize("where", ["#box textarea", "#chat"])
def test_a_file_that_is_no_image_is_refused_in_words_wherever_it_is_dropped(tab: Tab, where: str) -> None:
    tab.page.evaluate(
        """([where, bytes]) => {
            const dragged = new DataTransfer();
            dragged.items.add(new File(["Not an image."], "notes.pdf", { type: "application/pdf" }));
            dragged.items.add(new File([Uint8Array.from(bytes)], "chart.png", { type: "image/png" }));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.querySelector(where).dispatchEvent(
                    new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: dragged }));
        }""",
        [where, list((EXAMPLES / "chart.png").read_bytes())],
    )
    tab.until(lambda: tab.find("#box .thumbnail-item").count() == 1)  # the image beside it is taken
    said = tab.find("#hint").inner_text()
    assert said == "Not an image: notes.pdf. Accepted formats are PNG, JPEG, WebP, GIF and BMP."
    assert tab.find(".toast-body").count() == 0


@needs_browser
def test_why_an_answer_ended_is_said_and_stays_said(tab: Tab, speaker: Speaker) -> None:
    speaker.text, speaker.reason = "Cut he", "length"
    tab.type("Hi")
    tab.wait_for_answer()
    tab.until(lambda: tab.notices)
    assert "was cut off after 512 tokens" in tab.notices[0]
    speaker.text, speaker.reason = "\n", "stop"
    tab.type("And?")
    tab.until(lambda: len(tab.notices) == 2)
    assert "empty answer" in tab.notices[1]
    tab.until(lambda: tab.typed == "And?")  # it was not answered, and goes back
    tab.until(lambda: "was cut off after" in tab.kept)
    tab.page.reload()
    tab.wait_until_begun()
    assert len(tab.notices) == 1
    assert "was cut off after 512 tokens" in tab.notices[0]
    tab.until(lambda: tab.typed == "And?")


@needs_browser
def test_what_was_typed_and_set_is_there_after_loading_again(tab: Tab) -> None:
    tab.choose(EXAMPLES / "demo.png")
    tab.find("#box textarea").fill("Half a ques")
    tab.find("#side-button").click()
    tab.find("#side input[type=number]").first.fill("1.5")
    tab.find("#side input[type=number]").first.press("Tab")
    tab.until(lambda: tab.page.evaluate("() => sessionStorage.getItem('llava-settings')") is not None)
    tab.until(lambda: "demo.png" in tab.page.evaluate("() => sessionStorage.getItem('llava-draft')"))
    tab.page.reload()
    tab.wait_until_begun()
    tab.until(lambda: tab.typed == "Half a ques" and tab.find("#box .thumbnail-item").count() == 1)
    tab.until(lambda: tab.find("#side input[type=number]").first.input_value() == "1.5")
    tab.until(lambda: tab.find("#side").is_visible())


@needs_browser
def test_buttons_say_what_they_show_and_messages_are_not_named_by_their_html(tab: Tab, speaker: Speaker) -> None:
    def shows(element: str, attribute: str, value: str) -> None:  # set by a script once what it says has changed
        tab.until(lambda: tab.find(element).get_attribute(attribute) == value)

    shows("#side-button", "aria-expanded", "false")
    shows("#photo", "aria-expanded", "false")
    tab.find("#side-button").press("Enter")
    shows("#side-button", "aria-expanded", "true")
    tab.page.keyboard.press("Escape")
    shows("#side-button", "aria-expanded", "false")
    shows("#dark-button", "aria-pressed", "false")
    tab.find("#dark-button").click()
    shows("#dark-button", "aria-pressed", "true")
    speaker.text = "Yes."
    tab.type("Hi")
    tab.wait_for_answer()
    tab.until(lambda: tab.find("#chat [data-testid][aria-label]").count() == 0)
    # Gradio may draw a button anew, and then without what the script had set.
    redraw = "const fresh = old.cloneNode(true); fresh.removeAttribute('aria-expanded'); old.replaceWith(fresh);"
    tab.find("#photo").evaluate(f"(old) => {{ {redraw} }}")
    shows("#photo", "aria-expanded", "false")


@needs_browser
def test_a_finger_hits_the_buttons_of_a_phone(browser: Any, running: Running, speaker: Speaker) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    tab = Tab(context, running)
    tab.wait_until_begun()
    speaker.text = "Yes."
    tab.type("Hi")
    tab.wait_for_answer()
    buttons = tab.find("#chat .message-buttons button, #box button, #bar button, #below button").all()
    assert len(buttons) > 8
    for box in filter(None, (button.bounding_box() for button in buttons if button.is_visible())):
        assert min(box["width"], box["height"]) >= 40
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


@needs_browser
def test_ten_tabs_of_one_browser_work_at_the_same_time(browser: Any, running: Running, speaker: Speaker) -> None:
    # A browser has six connections for all of them; one that a tab holds all the time leaves none for the seventh.
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tabs = [Tab(context, running) for _ in range(10)]
    speaker.text = "Yes."
    for tab in (tabs[0], tabs[-1]):
        tab.page.bring_to_front()
        tab.wait_until_begun()
        tab.type("Hi")
        tab.wait_for_answer()
    context.close()
