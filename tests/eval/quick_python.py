"""A ``python`` for shell scripts, each call of which is forked from one process that has loaded torch before.

``python quick_python.py SOCKET`` is that process; ``write_python`` writes the command that asks it to run something.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NEW_TOKENS = 4  # in place of the 1024 of commands without a flag for it

_CLIENT = """#!{python} -IS
import json, os, socket, sys
channel = socket.socket(socket.AF_UNIX)
channel.connect({path!r})
asked = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "environ": dict(os.environ)}}
socket.send_fds(channel, [json.dumps(asked).encode()], [0, 1, 2])
channel.shutdown(socket.SHUT_WR)
sys.exit(int(channel.recv(8) or b"70"))
"""


@contextlib.contextmanager
def run_quick_python(folder: Path) -> Iterator[Path]:
    """The folder of a command ``python``, for a ``PATH``; it works until the block ends."""
    path = str(folder / "s")
    (folder / "python").write_text(_CLIENT.format(python=sys.executable, path=path))
    (folder / "python").chmod(0o755)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, __file__, path], env=environ, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield folder
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def serve(path: str) -> None:
    """Runs what the commands ask for, each in a process of its own."""
    import llava.backends.answerer
    import llava.eval.answer_run
    import llava.eval.askers
    import llava.model.checkpoint  # noqa: F401
    from llava.eval import original_runner

    original_runner.DEFAULT_NEW_TOKENS = NEW_TOKENS
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    while True:
        channel, _ = listener.accept()
        data, handles, _, _ = socket.recv_fds(channel, 1 << 20, 3)
        while piece := channel.recv(1 << 20):
            data += piece
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            channel.sendall(str(_run(json.loads(data), handles)).encode())
            os._exit(0)
        channel.close()
        for handle in handles:
            os.close(handle)


def _run(asked: dict[str, Any], handles: list[int]) -> int:
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
        for number, mode in enumerate("rww")
    )
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.argv = asked["argv"]
    code: Any = 0
    try:
        if sys.argv[0] == "-m":
            del sys.argv[0]
            sys.path.insert(0, "")
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 1


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    serve(sys.argv[1])
