"""FRONT DOOR: ``python -m llava.serve.gradio_web_server``, the original's web page for chatting with workers.

It translates the command line into ``llava serve --workers-of`` and decides nothing. Deliberate differences: the page
serves one model, the controller's first or the one named by ``--model``; until a worker for it has registered, the
page says that it is starting; a port in use is an error, where the original takes the next one.

Source: haotian-liu/LLaVA@c121f04 llava/serve/gradio_web_server.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llava.serve.original_commands import serve, warn_unused


def build_parser() -> argparse.ArgumentParser:
    """The original's flags with the original's defaults; the port is the one that Gradio takes by default."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.gradio_web_server")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--controller-url", default="http://localhost:21001")
    parser.add_argument("--concurrency-count", type=int, default=16)
    parser.add_argument("--model-list-mode", choices=["once", "reload"])
    parser.add_argument("--share", action="store_true")
    parser.add_argument("--moderate", action="store_true")
    parser.add_argument("--embed", action="store_true")
    parser.add_argument("--model", metavar="NAME", help="which of the controller's models (default: the first)")
    return parser


_UNUSED = {
    "model_list_mode": "the controller is asked before every question",
    "share": "nothing is relayed through other hosts; use your own tunnel or reverse proxy",
    "moderate": "no text is sent to a moderation service, so questions are not moderated",
    "embed": "the page has no header to hide",
}


def write_words(args: argparse.Namespace) -> list[str]:
    """The equivalent arguments of ``llava serve``."""
    words = ["--web", "--host", args.host, "--port", str(args.port), "--max-running", str(args.concurrency_count)]
    words.append(f"--workers-of={args.controller_url}")
    return words + ([f"--model={args.model}"] if args.model else [])


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or Ctrl-C; returns the exit code."""
    args = build_parser().parse_args(argv)
    warn_unused(args, _UNUSED)
    return serve(write_words(args))


if __name__ == "__main__":
    sys.exit(main())
