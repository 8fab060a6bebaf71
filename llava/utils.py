"""FRONT DOOR: the original's ``llava.utils``, for code written against it.

Nothing inside this package imports it. Where the original reached for the whole process (reset functions replaced,
stdout captured), these do not: each docstring says what is different.

Source: haotian-liu/LLaVA@c121f04 llava/utils.py; LLaVA-VL/LLaVA-NeXT@df17966 llava/utils.py (the rank printers).
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from llava.constants import LOGDIR

server_error_msg = "The server could not answer. Please try again."
moderation_msg = "This text was refused by the content filter. Please write it differently."


def disable_torch_init() -> None:
    """Change nothing: checkpoints are built without allocating or initializing weights, so there is nothing to skip.

    The original replaced ``reset_parameters`` of every ``nn.Linear`` and ``nn.LayerNorm`` in the process.
    """


def build_logger(logger_name: str, logger_filename: str) -> logging.Logger:
    """A logger that writes to stderr and to ``LOGDIR/logger_filename``, a new file each day.

    Calling it again with the same name returns the same logger. The original also redirected stdout and stderr
    of the whole process into it; this does not.
    """
    logger = logging.getLogger(logger_name)
    if logger.handlers:
        return logger
    logger.setLevel(logging.INFO)
    layout = logging.Formatter("%(asctime)s | %(levelname)s | %(name)s | %(message)s", "%Y-%m-%d %H:%M:%S")
    folder = Path(LOGDIR)
    folder.mkdir(parents=True, exist_ok=True)
    to_file = logging.handlers.TimedRotatingFileHandler(folder / logger_filename, when="D", utc=True, encoding="utf-8")
    for handler in (logging.StreamHandler(), to_file):
        handler.setFormatter(layout)
        logger.addHandler(handler)
    return logger


class StreamToLogger:
    """A stream whose whole lines become records of ``logger``; everything else is that of the stdout of now."""

    def __init__(self, logger: logging.Logger, log_level: int = logging.INFO) -> None:
        self.terminal = sys.stdout
        self.logger, self.log_level = logger, log_level
        self.linebuf = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)

    def write(self, buf: str) -> None:
        """Logs every whole line of ``buf``, and keeps the rest until its line feed comes."""
        *lines, self.linebuf = (self.linebuf + buf).split("\n")
        for line in lines:
            self.logger.log(self.log_level, line.rstrip())

    def flush(self) -> None:
        """Logs what is left of a line."""
        if self.linebuf:
            self.write("\n")


def violates_moderation(text: str) -> bool:
    """True if OpenAI's moderation service flags ``text``; False, with a logged warning, if it cannot be asked.

    Sends ``text`` to api.openai.com with the key in ``OPENAI_API_KEY``.
    """
    request = urllib.request.Request(
        "https://api.openai.com/v1/moderations",
        data=json.dumps({"input": text.replace("\n", "")}).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bool(json.load(reply)["results"][0]["flagged"])
    except (urllib.error.URLError, TimeoutError, ValueError, LookupError) as error:
        logging.getLogger(__name__).warning("moderation could not be asked: %s", error)
        return False


def pretty_print_semaphore(semaphore: Any) -> str:
    """One line about an ``asyncio.Semaphore``: its free places and whether it is locked; ``"None"`` for None."""
    if semaphore is None:
        return "None"
    return f"Semaphore(value={semaphore._value}, locked={semaphore.locked()})"


def _rank() -> int | None:
    """This process's place in the distributed group, or None outside one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return None
    return int(torch.distributed.get_rank())


def rank0_print(*args: Any) -> None:
    """Print, but in a distributed group only on its first process."""
    if _rank() in (None, 0):
        print(*args)


def rank_print(*args: Any) -> None:
    """Print, in a distributed group with the process's rank in front."""
    rank = _rank()
    print(*args) if rank is None else print(f"Rank {rank}: ", *args)
