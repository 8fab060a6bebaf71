"""``llava chat``: a conversation about images in the terminal."""

from __future__ import annotations

import argparse
from typing import Any

from llava.commands.answering import add_answering_flags, load, read_sampling
from llava.commands.flags import add_command


def add_chat(commands: Any) -> None:
    """Adds the command to the parser's ``commands``."""
    parser = add_command(commands, "chat", _chat, "Chat about images in the terminal.", needs_output=True)
    parser.add_argument("words", nargs="*", metavar="IMAGE", help="images to begin with; /image adds more")
    add_answering_flags(parser)


def _chat(arguments: argparse.Namespace) -> int:
    from llava.terminal_chat import Chat, run_chat

    sampling = read_sampling(arguments)
    chat = Chat(load(arguments), sampling, template=arguments.conv_mode, max_image_pixels=arguments.max_image_pixels)
    return run_chat(chat, arguments.words)
