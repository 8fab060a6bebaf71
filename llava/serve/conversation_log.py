"""The conversation log (JSON Lines, images by digest), written only with ``--log-conversations``.

If it cannot be written, for example on a full disk, answers are not affected. Records of the web chat carry the notice
with which its users consented, where the server was started with ``--log-consent``; only such records may become
training data (``llava data collect``). Clients of the API see no page, so their records never carry it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.backends.protocol import ChatRequest, Delta
from llava.serve.api_errors import LOG


class ConversationLog:
    """Appends JSON lines to a file. Thread-safe.

    ``consent``: the notice that the web chat shows, written to its records as their consent; "" for none.
    """

    def __init__(self, path: Path, consent: str = "") -> None:
        self._path, self._consent = path, consent
        self._lock = threading.Lock()
        self._failed = False

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record with a timestamp, and with the consent of a user of the web chat.

        A failure is logged once, until writing succeeds again.
        """
        consent = {"consent": self._consent} if self._consent and record.get("source") == "web" else {}
        line = json.dumps({"time": round(time.time(), 3), **record, **consent}, ensure_ascii=False) + "\n"
        try:
            with self._lock, self._path.open("a", encoding="utf-8") as file:
                file.write(line)
            self._failed = False
        except OSError as error:
            if not self._failed:
                LOG.error("%s cannot be written: %s. Conversations are not logged.", self._path, error.strerror)
            self._failed = True

    def write_answer(
        self, source: str, model: str, request: ChatRequest, deltas: Sequence[Delta], outcome: str
    ) -> None:
        """Appends a request with its answers."""
        texts = [""] * request.num_choices
        for delta in deltas:
            texts[delta.index] += delta.text
        messages = [
            {
                "role": message.role,
                "parts": [part if isinstance(part, str) else {"sha256": part.loaded.digest} for part in message.parts],
            }
            for message in request.messages
        ]
        asked: dict[str, Any] = {"messages": messages} if request.prompt is None else {"prompt": request.prompt}
        self.write({"kind": "answer", "source": source, "model": model, **asked, "answers": texts, "outcome": outcome})
