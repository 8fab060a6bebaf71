"""Worker processes end with the command that started them, however that ends."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from llava.data.fingerprint_store import map_in_processes

def hold(path):
    global pipe
    pipe = open(path, "w")
    print("held", file=pipe, flush=True)

if __name__ == "__main__":
    for _ in map_in_processes(hold, iter(lambda: sys.argv[1], None), 2):
        pass
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_the_workers_of_a_command_that_was_killed_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "program.py").write_text(PROGRAM)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with subprocess.Popen([sys.executable, tmp_path / "program.py", pipe]) as command:
        read(reader)
        command.kill()
    while read(reader):  # until every worker, each of which holds the pipe open, has ended
        pass
    os.close(reader)


def read(reader: int) -> bytes:
    ready, _, _ = select.select([reader], [], [], 60)
    assert ready, "a worker is still there"
    return os.read(reader, 65_536)
