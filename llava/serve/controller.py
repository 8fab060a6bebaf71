"""FRONT DOOR: ``python -m llava.serve.controller``, the original's controller: gives clients the workers' addresses.

It translates the command line and decides nothing; ``llava.serve.worker_registry`` does the work. A single
``llava serve`` needs no controller: it answers the controller's routes itself.

Source: haotian-liu/LLaVA@c121f04 llava/serve/controller.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llava.entry_point import run_command
from llava.serve.startup import need_serve_extra


def build_parser() -> argparse.ArgumentParser:
    """The original's flags with the original's defaults, and ``--allow-host`` from ``llava serve``."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.controller")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=21001)
    parser.add_argument("--dispatch-method", choices=["lottery", "shortest_queue"], default="shortest_queue")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="accept this host name too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or Ctrl-C; returns the exit code."""
    args = build_parser().parse_args(argv)

    def work() -> int:
        need_serve_extra()
        from llava.serve.host_and_origin import read_host_name
        from llava.serve.worker_registry import serve_controller

        return serve_controller(args.host, args.port, args.dispatch_method, list(map(read_host_name, args.allow_host)))

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
