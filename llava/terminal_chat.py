"""A conversation about images in the terminal.

``Chat`` holds the turns and is independent of the terminal; ``run_chat`` reads lines and prints. A turn is added to the
history only once it has at least part of an answer, so an error or Ctrl-C never leaves an unanswered question there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llava import __version__
from llava.answer import Answer, Sampling, answer, start_conversation, write_chat
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import ContextTooLong, LlavaError, UsageError
from llava.image.geometry import plan_tiles
from llava.image.source import FOR_LOCAL_USER, LoadedImage, expand_home, load_image
from llava.text import find_flaw, fit_line, for_stream, write_line

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

HELP = """\
/image IMAGE...  add images to the next question: paths, URLs, data URIs
/clear           remove all turns and images
/undo            remove the last question; its images are kept for the next one
/save FILE       write the conversation: FILE.json in LLaVA's data format, any other name as text
/help            print this list
/quit            leave, as Ctrl-D does
Ctrl-C stops an answer and keeps its text so far."""


@dataclass(frozen=True)
class Turn:
    """A question with its images, and its answer."""

    question: str
    images: tuple[LoadedImage, ...]
    answer: str


class Chat:
    """The turns so far, and the images for the next question.

    Raises UsageError for an unknown ``template``.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        sampling: Sampling,
        *,
        template: str | None = None,
        max_image_pixels: int | None = None,
    ) -> None:
        self.loaded = loaded
        self.sampling = sampling
        self.template = template
        self.limits = FOR_LOCAL_USER.with_pixels(max_image_pixels)
        self.turns: list[Turn] = []
        self.waiting: list[LoadedImage] = []
        start_conversation(loaded, template)  # refuses an unknown template before the first question

    def show(self, source: str) -> str:
        """Adds an image to the next question; returns a description of it. Raises BadImage, UsageError for "-"."""
        if source == "-":
            raise UsageError("No image is read from standard input, where the questions come from: name a file.")
        shown = load_image(source, self.limits)
        self.waiting.append(shown)
        plan = plan_tiles(shown.size, self.loaded.spec.tiling)
        width, height = shown.size
        done = f" ({'; '.join(shown.notes)})" if shown.notes else ""
        return f"{fit_line(shown.name)}: {width} x {height}, {plan.say_positions()}{done}"

    def ask(self, question: str, on_text: Callable[[str], None]) -> Answer | None:
        """Answers the question and adds the turn; None if Ctrl-C ended the answer, whose partial text is kept."""
        turns = [*self.turns, Turn(question, tuple(self.waiting), "")]
        conversation = write_chat(
            self.loaded, [(turn.question, len(turn.images), turn.answer) for turn in turns], self.template
        )
        shown = [image for turn in turns for image in turn.images]
        said: list[str] = []

        def hear(piece: str) -> None:
            said.append(piece)
            on_text(piece)

        reply = None
        try:
            reply = answer(self.loaded, conversation, shown, self.sampling, on_text=hear)
        except KeyboardInterrupt:
            if not said:
                return None
        self.turns.append(Turn(question, tuple(self.waiting), "".join(said).strip()))
        self.waiting = []
        return reply

    def undo(self) -> str:
        """Removes the last turn; returns its question. Its images are kept for the next question."""
        if not self.turns:
            raise UsageError("There is nothing to undo.")
        turn = self.turns.pop()
        self.waiting = [*turn.images, *self.waiting]
        return turn.question

    def clear(self) -> None:
        """Removes all turns and waiting images."""
        self.turns, self.waiting = [], []

    def save(self, path: Path) -> None:
        """Writes the conversation, as LLaVA's JSON records if the name ends in .json, otherwise as plain text."""
        if path.suffix == ".json":
            text = json.dumps([self._record()], ensure_ascii=False, indent=2)
        else:
            lines = []
            for turn in self.turns:
                lines += [f"[{shown.name}]" for shown in turn.images]
                lines += [f"> {turn.question}", "", turn.answer, ""]
            text = "\n".join(lines)
        # An image name that is not valid Unicode is escaped; in JSON, the escapes denote the same name.
        path.write_text(text.rstrip("\n") + "\n", encoding="utf-8", errors="backslashreplace")

    def _record(self) -> dict[str, object]:
        """This conversation as one sample of LLaVA's data format, with ``image`` a list if there are several."""
        messages = []
        for turn in self.turns:
            question = (DEFAULT_IMAGE_TOKEN + "\n") * len(turn.images) + turn.question
            messages += [{"from": "human", "value": question}, {"from": "gpt", "value": turn.answer}]
        names = [shown.name for turn in self.turns for shown in turn.images]
        image = {"image": names[0] if len(names) == 1 else names} if names else {}
        return {"id": "chat", **image, "conversations": messages}


def run_chat(chat: Chat, sources: Sequence[str]) -> int:
    """Reads questions and commands from standard input until it ends; returns the exit code, always 0.

    Errors are printed and the conversation continues. Raises BadImage for an image of ``sources`` that cannot be used.
    """
    shown = [chat.show(source) for source in sources]
    if sys.stdin.isatty():
        parameters = sum(weight.numel() for weight in chat.loaded.model.parameters())
        where = f"{chat.loaded.model.device}, {str(chat.loaded.model.dtype).removeprefix('torch.')}"
        _say(f"llava {__version__}, {parameters / 1e6:,.1f} M parameters on {where}. /help lists the commands.")
    for line in shown:
        _say(line)
    with _line_editing():
        for line in _lines():
            try:
                if line == "/quit":
                    break
                # A file name need not be valid Unicode.
                if not line.startswith("/image ") and (flaw := find_flaw(line)) is not None:
                    raise UsageError(f"The input {flaw}.")
                _obey(chat, line) if line.startswith("/") else _reply(chat, line)
            except LlavaError as error:
                write_line(f"llava: error: {error}")
                if isinstance(error, ContextTooLong):
                    write_line("/undo removes the last question, /clear starts over.")
            except OSError as error:
                if error.filename is None:  # standard output cannot be written
                    raise
                write_line(f"llava: error: {error.strerror}: {error.filename}")
            except KeyboardInterrupt:
                _say("\n(stopped)")
    return 0


def _say(text: str, end: str = "\n") -> None:
    print(for_stream(text, sys.stdout), end=end, flush=True)


def _reply(chat: Chat, question: str) -> None:
    reply = chat.ask(question, partial(_say, end=""))
    _say("")
    if reply is None:
        _say("(stopped)")
    elif not reply.text:
        _say(f"({reply.explain(chat.loaded.tokenizer)})")
    elif not reply.finished:
        full = ", and the context is full" if reply.finish_reason == "context" else ""
        _say(f"(cut after {reply.new_tokens} tokens{full})")


def _obey(chat: Chat, line: str) -> None:
    """Executes one /command."""
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name == "/image":
        for source in _sources(rest):
            _say(chat.show(source))
    elif name == "/save":
        if not rest:
            raise UsageError("/save needs the name of a file.")
        chat.save(Path(os.path.expanduser(rest)))
        _say(f"saved {len(chat.turns)} turns to {rest}")
    elif name == "/undo":
        _say(f"taken back: {chat.undo()}")
    elif name == "/clear":
        chat.clear()
        _say("cleared")
    elif name == "/help":
        _say(HELP)
    else:
        raise UsageError(f"There is no command '{name}'; /help lists them.")


def _sources(rest: str) -> list[str]:
    """The images named after /image: one path if such a file exists, otherwise words split as by a shell."""
    if not rest:
        raise UsageError("/image needs an image: a path, an http(s) URL or a data URI.")
    if expand_home(rest).is_file():
        return [rest]
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise UsageError(f"The names after /image cannot be told apart: {error}.") from error


def _lines() -> Iterator[str]:
    """The lines that the user types, without blank ones; Ctrl-C discards the line, Ctrl-D ends."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            if prompt:
                _say("")
            return
        except KeyboardInterrupt:
            _say("\n(Ctrl-D or /quit leaves)")
            continue
        if line:
            yield line


@contextlib.contextmanager
def _line_editing() -> Iterator[None]:
    """Enables line editing and a persistent history, on a terminal and where readline is available."""
    if not sys.stdin.isatty():
        yield
        return
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "llava"
    history = folder / "history"
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
