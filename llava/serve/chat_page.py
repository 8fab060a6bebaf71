"""The web chat's Gradio page: its layout and event handlers. ``chat_session`` and ``chat_transcript`` do the work."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from llava.backends.protocol import ChatRequest
from llava.errors import LlavaError
from llava.serve import chat_session, chat_transcript, message_html, token_map_panel
from llava.serve.chat_session import ChatSessions, ChatSettings
from llava.serve.chat_transcript import Message

# The original page's defaults. Source: haotian-liu/LLaVA@c121f04 llava/serve/gradio_web_server.py.
_TEMPERATURE, _TOP_P, _NEW_TOKENS = 0.2, 0.7, 512
_FLAGS = ["Wrong about the image", "Made up", "Offensive", "Something else"]
_QUESTIONS = {
    "demo.png": "What is written on the sign?",
    "receipt.png": "How much is the Total?",
    "shapes.png": "What is the color of the star?",
    "chart.png": "Which bar is the tallest?",
}
_CAMERA = '<video playsinline muted></video><p role="status"></p><button id="snap">Take photo</button>'
_AWAY = '<p role="status"></p>'
_HINT = '<p role="alert"></p>'
_EMPTY = (
    "<h2>Ask about an image</h2>"
    "<p>Drop it here, paste it, choose a file or take a photo. Sent without a question, it is described.</p>"
)
_PLACEHOLDER = "Ask about an image, or just send one"
_FONTS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
_MONO_FONTS = ["ui-monospace", "SF Mono", "Cascadia Code", "Menlo", "Consolas", "monospace"]
Update = dict[Any, Any]
# The values of the page's components, keyed by component like an Update.
Given = dict[Any, Any]


def build_page(sessions: ChatSessions, assets: Path, delete_cache: tuple[int, int]) -> gr.Blocks:
    """The page, ready to be mounted. ``delete_cache``: Gradio's sweep interval and maximum age of uploads, in s."""
    return _Page(sessions, assets).build(delete_cache)


class _Page:
    def __init__(self, sessions: ChatSessions, assets: Path) -> None:
        self.sessions, self.assets = sessions, assets
        self.limits = sessions.service.limits
        self.has_votes = sessions.service.log is not None

    def build(self, delete_cache: tuple[int, int]) -> gr.Blocks:
        blocks = gr.Blocks(
            title="LLaVA", analytics_enabled=False, fill_height=True, fill_width=True, delete_cache=delete_cache
        )
        with blocks:
            self._lay_out()
            self._connect(blocks)
        # Admission and queueing are ``Service``'s, for all routes alike.
        blocks.queue(default_concurrency_limit=None, api_open=False)
        return blocks

    def _lay_out(self) -> None:
        model = html.escape(self.sessions.service.backend.model_id)
        with gr.Row(elem_id="bar"):
            gr.HTML(f'<h1>LLaVA</h1><span id="model">{model}</span>', elem_id="brand")
            self.new = gr.Button("New chat", elem_id="new", elem_classes="bare", size="sm")
            self.side = gr.Button("Tokens and settings", elem_id="side-button", elem_classes="bare", size="sm")
            self.dark = gr.Button("Dark colors", elem_id="dark-button", elem_classes="bare", size="sm")
        # What the browser saved: the conversation, the draft and the settings.
        self.kept = [gr.Textbox(visible=False) for _ in range(3)]
        with gr.Row(elem_id="room"):
            with gr.Column(elem_id="chat-column"):
                self.chat = gr.Chatbot(
                    elem_id="chat",
                    show_label=False,
                    container=False,
                    height=None,
                    layout="bubble",
                    editable="user",
                    buttons=["copy"],
                    render_markdown=False,  # messages are HTML, written by ``message_html``
                    latex_delimiters=[],
                    feedback_options=["Like", "Dislike", *_FLAGS] if self.has_votes else None,
                    placeholder=_EMPTY,
                    examples=self._find_examples(),
                    group_consecutive_messages=False,
                    allow_tags=False,
                )
                gr.HTML(_CAMERA, elem_id="camera")
                gr.HTML(_AWAY, elem_id="away")
                gr.HTML(_HINT, elem_id="hint")
                self.box = gr.MultimodalTextbox(
                    elem_id="box",
                    show_label=False,
                    container=False,
                    placeholder=_PLACEHOLDER,
                    file_types=["image"],
                    file_count="multiple",
                    max_plain_text_length=self.limits.characters + 1,
                    max_lines=8,
                    autofocus=True,
                )
                with gr.Row(elem_id="below"):
                    self.photo = gr.Button("Take a photo", elem_id="photo", elem_classes="bare", size="sm")
                    gr.HTML("The model can be wrong. <i>Check important details.</i>", elem_id="caution")
                if notice := self.sessions.service.settings.consent:
                    gr.HTML(f'<p role="note">{html.escape(notice)}</p>', elem_id="consent")
            with gr.Column(elem_id="side"):
                self._lay_out_side()

    def _lay_out_side(self) -> None:
        gr.HTML("<h2>What the model saw</h2>")
        self.token_maps = gr.HTML(token_map_panel.EMPTY, elem_id="token-maps")
        self.usage = gr.HTML("", elem_id="usage")
        gr.HTML("<h2>Settings</h2>")
        self.detail = gr.Radio(
            [("All tiles", "auto"), ("Whole image only", "low")],
            value="auto",
            label="Detail",
            info="Which tiles of an image the model sees.",
        )
        self.temperature = gr.Slider(
            0, 2, _TEMPERATURE, step=0.05, label="Temperature", info="0 always picks the most likely token."
        )
        self.top_p = gr.Slider(
            0.05,
            1,
            _TOP_P,
            step=0.05,
            label="Top-p",
            info="Sample only from the most likely tokens, up to this total probability.",
        )
        most = self.limits.new_tokens
        self.new_tokens = gr.Slider(
            min(16, most), most, min(_NEW_TOKENS, most), step=1, label="Longest answer", info="In tokens."
        )

    def _find_examples(self) -> list[Any] | None:
        """The example images that ship with the package, with a question each."""
        folder = self.assets / "examples"
        found = [(folder / name, question) for name, question in _QUESTIONS.items() if (folder / name).is_file()]
        return [{"text": question, "files": [str(path)]} for path, question in found] or None

    def _connect(self, blocks: gr.Blocks) -> None:
        # A set, so that Gradio passes them as one dictionary.
        inputs: set[Any] = {self.chat, self.temperature, self.top_p, self.new_tokens, self.detail}
        shown = [self.chat, self.box, self.token_maps, self.usage]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        now = {**quiet, "queue": False}

        asked = [
            self.box.submit(self.submit, {self.box, *inputs}, shown, **quiet),
            self.chat.retry(self.retry, inputs, shown, **quiet),
            self.chat.edit(self.edit, inputs, shown, **quiet),
            self.chat.example_select(self.take_example, inputs, shown, **quiet),
        ]
        for event in asked:
            event.then(self.restore_unanswered, [self.chat, self.box], [self.chat, self.box], **now)
        self.box.stop(self.stop, None, None, **now)
        self.chat.undo(self.undo, [self.chat, self.box], [self.chat, self.box], **now)
        self.new.click(self.clear, None, shown, **now)
        if self.has_votes:
            self.chat.like(self.vote, [self.chat], None, **quiet)
        self.chat.change(None, [self.chat], None, js="(messages) => llava.keep(messages)", **now)
        self.box.change(None, [self.box], None, js="(box) => llava.keepDraft(box)", **now)
        settings: list[Any] = [self.temperature, self.top_p, self.new_tokens, self.detail]
        for setting in settings:
            setting.change(None, settings, None, js="(...settings) => llava.keepSettings(settings)", **now)
        blocks.load(
            self.restore, self.kept, [self.chat, self.box, *settings], js="() => llava.recall()", **now
        ).success(None, [self.chat, self.box], None, js="(messages, box) => llava.begin(messages, box)", **now)
        for button, what in ((self.side, "side"), (self.photo, "camera"), (self.dark, "dark")):
            button.click(None, None, None, js=f"() => llava.toggle('{what}')", **now)

    async def submit(self, given: Given, request: gr.Request) -> AsyncGenerator[Update, None]:
        """Sends the typed question with its images; images alone are described."""
        page, box = _page_of(request), given[self.box]
        text, files = (box or {}).get("text") or "", (box or {}).get("files") or []
        if self.sessions.is_busy(page) or not (text.strip() or files):
            yield {self.box: gr.skip()}
            return
        question = chat_transcript.write_question(chat_transcript.fill_in(text, files), files)
        empty = {"text": "", "files": []}
        async for update in self._ask(page, given[self.chat], question, self._read_chat_settings(given), box=empty):
            yield update

    async def retry(self, event: gr.RetryData, given: Given, request: gr.Request) -> AsyncGenerator[Update, None]:
        """Asks the last question again; its old answer comes back if that fails."""
        messages, settings = given[self.chat], self._read_chat_settings(given)
        turn = chat_transcript.find_turn(messages, _index(event))
        question = chat_transcript.write_question(turn.question, turn.paths)
        async for update in self._ask(
            _page_of(request), messages[: turn.begin], question, settings, otherwise=messages
        ):
            yield update

    async def edit(self, event: gr.EditData, given: Given, request: gr.Request) -> AsyncGenerator[Update, None]:
        """Asks an edited question; the messages after it are removed, unless that fails."""
        messages, settings = given[self.chat], self._read_chat_settings(given)
        index = _index(event)
        turn = chat_transcript.find_turn(messages, index)
        changed = chat_transcript.write_question(
            chat_transcript.fill_in(message_html.extract_text(event.value), turn.paths), turn.paths
        )
        # The browser has already changed its message; this restores the old one.
        old: list[Message] = [*messages]
        old[index] = {**messages[index], "content": [{"type": "text", "text": event.previous_value}]}
        before, otherwise = messages[: turn.begin], [*old, *changed]
        async for update in self._ask(_page_of(request), before, changed, settings, otherwise=otherwise):
            yield update

    async def take_example(
        self, event: gr.SelectData, given: Given, request: gr.Request
    ) -> AsyncGenerator[Update, None]:
        files = [file["path"] for file in event.value.get("files", [])]
        question = chat_transcript.write_question(event.value["text"], files)
        async for update in self._ask(_page_of(request), given[self.chat], question, self._read_chat_settings(given)):
            yield update

    def _read_chat_settings(self, given: Given) -> ChatSettings:
        detail: Literal["low", "auto"] = "low" if given[self.detail] == "low" else "auto"
        return ChatSettings(
            float(given[self.temperature]), float(given[self.top_p]), int(given[self.new_tokens]), detail
        )

    async def _ask(
        self,
        page: str,
        before: Sequence[Message],
        question: Sequence[Message],
        settings: ChatSettings,
        *,
        otherwise: Sequence[Message] | None = None,
        box: Any = None,
    ) -> AsyncGenerator[Update, None]:
        """Updates the page while a question is answered. ``otherwise``: the messages to show if it fails."""
        asked = [*await asyncio.to_thread(chat_transcript.tidy, before), *question]
        otherwise = asked if otherwise is None else otherwise
        busy: dict[str, Any] = {"submit_btn": False, "stop_btn": True} | ({"value": box} if box is not None else {})
        yield {self.chat: asked, self.box: gr.update(**busy)}
        began, first_s, shown_request = time.perf_counter(), None, None
        running_answer = None
        async with aclosing(self.sessions.ask(page, asked, settings)) as updates:
            async for running_answer in updates:
                update: Update = {}
                if running_answer.text:
                    first_s = time.perf_counter() - began if first_s is None else first_s
                    # In a thread, since parsing a long answer takes time.
                    shown = await asyncio.to_thread(chat_transcript.write_answer, running_answer.text, is_open=True)
                    update[self.chat] = [*asked, shown]
                if running_answer.request is not None and shown_request is None and running_answer.text:
                    shown_request = running_answer.request
                    update[self.token_maps] = await asyncio.to_thread(self._render_token_maps, shown_request)
                if update:
                    yield update
        if running_answer is None or running_answer.is_dropped:
            return  # the page shows something else by now
        has_text = bool(running_answer.text.strip())
        messages = list(otherwise)
        if has_text:
            messages = [*asked, await asyncio.to_thread(chat_transcript.write_answer, running_answer.text)]
        end = chat_session.describe_end(running_answer)
        if end is not None:
            messages.append(chat_transcript.write_notice(end, is_error=not has_text))
        yield {
            self.chat: messages,
            self.usage: token_map_panel.render_usage(running_answer.usage, first_s),
            self.box: gr.update(submit_btn=True, stop_btn=False),
        }

    def _render_token_maps(self, request: ChatRequest) -> str:
        try:
            backend = self.sessions.service.backend
            tiling, read_out = getattr(backend, "tiling", None), getattr(backend, "read_out", None)
            return token_map_panel.render_token_maps(request, tiling, read_out)
        except LlavaError as error:
            return f"<p>{html.escape(str(error))}</p>"

    def restore_unanswered(self, messages: list[Message], box: Any) -> Update:
        """Moves a question that got no answer back to the text box, unless something new is typed there."""
        turns = chat_transcript.find_turns(messages)
        if not turns or turns[-1].answer is not None or (box or {}).get("text") or (box or {}).get("files"):
            return {self.chat: gr.skip(), self.box: gr.skip()}
        turn = turns[-1]
        others = [*messages[: turn.begin], *messages[turn.end :]]
        return {self.chat: others, self.box: {"text": turn.question, "files": list(turn.paths)}}

    def restore(self, kept: str, draft: str, settings: str) -> Update:
        """Restores what this tab showed before it was reloaded: the conversation, the draft and the settings."""
        messages = chat_transcript.read_kept(kept, self.sessions.uploaded)
        update = self.restore_unanswered(messages, None)
        if update[self.chat] == gr.skip():
            update[self.chat] = messages
        text, files = chat_transcript.read_draft(draft, self.sessions.uploaded)
        if text or files:
            asked: dict[str, Any] = update[self.box] if "files" in update[self.box] else {"text": "", "files": []}
            both = [part for part in (asked["text"], text) if part]
            update[self.box] = {"text": "\n".join(both), "files": [*asked["files"], *files]}
        return update | self._read_kept_settings(settings)

    def _read_kept_settings(self, kept: str) -> Update:
        """The settings that the browser saved, as far as they are valid on this page."""
        sliders = [self.temperature, self.top_p, self.new_tokens]
        numbers, detail = chat_transcript.read_settings(kept)
        if len(numbers) != len(sliders):
            return {one: gr.skip() for one in (*sliders, self.detail)}
        values = dict(zip(sliders, numbers, strict=True))
        return {
            slider: value if slider.minimum <= value <= slider.maximum else gr.skip()
            for slider, value in values.items()
        } | {self.detail: detail if detail in ("low", "auto") else gr.skip()}

    def stop(self, request: gr.Request) -> None:
        self.sessions.stop(_page_of(request))

    def undo(self, event: gr.UndoData, messages: list[Message], box: Any, request: gr.Request) -> Update:
        """Moves the last question back to the text box, before anything that is typed there."""
        self.sessions.stop(_page_of(request), drop=True)
        turn = chat_transcript.find_turn(messages, _index(event))
        typed = (box or {}).get("text") or ""
        text, files = turn.question, [*turn.paths, *(box or {}).get("files", ())]
        return {
            self.chat: chat_transcript.tidy(messages[: turn.begin]),
            self.box: gr.update(
                value={"text": f"{text}\n{typed}" if typed else text, "files": files}, submit_btn=True, stop_btn=False
            ),
        }

    def clear(self, request: gr.Request) -> Update:
        """Starts a new chat. The draft stays."""
        self.sessions.stop(_page_of(request), drop=True)
        return {
            self.chat: [],
            self.box: gr.update(submit_btn=True, stop_btn=False),
            self.token_maps: token_map_panel.EMPTY,
            self.usage: "",
        }

    def vote(self, event: gr.LikeData, messages: list[Message], request: gr.Request) -> None:
        vote = {True: "up", False: "down", "": "none", None: "none"}.get(event.liked, event.liked)
        self.sessions.vote(_page_of(request), messages, _index(event), str(vote))


def _page_of(request: gr.Request) -> str:
    return request.session_hash or ""


def _index(event: Any) -> int:
    """The index of the message that an event is about."""
    index = event.index
    return int(index[0] if isinstance(index, (list, tuple)) else index)


def make_theme() -> gr.themes.Base:
    """The theme: warm neutrals with an orange accent, in the system's fonts."""
    ember = gr.themes.Color(
        name="ember",
        c50="#fdf3ee",
        c100="#fbe3d8",
        c200="#f6c5b0",
        c300="#efa182",
        c400="#e57a53",
        c500="#d65a31",
        c600="#bd4823",
        c700="#9c3a1d",
        c800="#7d321d",
        c900="#662c1c",
        c950="#37140b",
    )
    stone = gr.themes.colors.stone
    return gr.themes.Base(primary_hue=ember, secondary_hue=stone, neutral_hue=stone, font=_FONTS, font_mono=_MONO_FONTS)
