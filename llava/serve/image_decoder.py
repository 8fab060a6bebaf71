"""Decodes images in separate processes with a memory limit and a timeout, to contain malicious files.

A decoder that crashes or takes too long costs one image. ``DecoderPool`` runs in the server, ``run`` in the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import IO, Any

from PIL import Image

from llava.errors import BadImage, EngineClosed
from llava.image.geometry import Size
from llava.image.source import Limits, LoadedImage, load_image

# Several times what the largest image takes that is allowed by default.
MEMORY_BYTES = 4 * 2**30


class DecoderPool:
    """A pool of decoder processes, started on first use. ``decode`` may be called from as many threads."""

    def __init__(self, number: int, limits: Limits, timeout_s: float, memory_bytes: int = MEMORY_BYTES) -> None:
        self.limits, self.timeout_s = limits, timeout_s
        self._free: queue.LifoQueue[_Child] = queue.LifoQueue()
        self._children = [_Child(memory_bytes) for _ in range(number)]
        for child in self._children:
            self._free.put(child)

    def decode(self, data: bytes, name: str) -> LoadedImage:
        """The image in these bytes, called ``name`` in messages.

        If the process is killed from outside, decoding is retried once in a new one. Raises BadImage, also if decoding
        times out or crashes, and EngineClosed if the retry was killed too or no process could be started.
        """
        child = self._free.get()
        try:
            try:
                return child.decode(data, name, self.limits, self.timeout_s)
            except _Killed:
                return child.decode(data, name, self.limits, self.timeout_s)
        finally:
            self._free.put(child)

    def warm_up(self) -> None:
        """Starts the processes now."""
        for child in self._children:
            child.start()

    def close(self) -> None:
        """Kills the processes."""
        for child in self._children:
            child.end()


class _Killed(EngineClosed):
    """The process got a SIGKILL that was not ours, perhaps long before the image arrived."""


class _Child:
    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self.process is None or self.process.poll() is not None:
                self._forget()
                paths = os.pathsep.join(filter(None, sys.path))
                try:
                    self.process = subprocess.Popen(
                        [sys.executable, "-c", f"from llava.serve.image_decoder import run; run({self._memory_bytes})"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
                        start_new_session=True,  # Ctrl-C is for the server, which then ends this process
                    )
                except OSError as error:  # out of file descriptors, processes or memory
                    raise EngineClosed(f"No image decoder could be started: {error.strerror}. Try again.") from error
            return self.process

    def _forget(self) -> None:
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()
            self.process = None

    def end(self) -> None:
        with self._lock:
            if self.process is not None:
                self.process.kill()
                self.process.wait()
                self._forget()

    def decode(self, data: bytes, name: str, limits: Limits, timeout_s: float) -> LoadedImage:
        process = self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout_s, stop)
        timer.start()
        try:
            _write(process.stdin, {"name": name, "limits": asdict(limits)}, data)
            answer, pixels = _read(process.stdout)
        except (OSError, EOFError, ValueError) as error:
            code = process.wait()
            if late.is_set():
                raise BadImage(
                    f"{name} could not be decoded within {timeout_s:g} seconds (limit decode_s). Send a simpler file."
                ) from error
            if code == -9:
                raise _Killed(f"{name} was not decoded: the decoder process was killed. Try again.") from error
            raise BadImage(f"{name} could not be decoded: the decoder crashed. Send another file.") from error
        finally:
            timer.cancel()
        if "error" in answer:
            raise BadImage(answer["error"])
        image = Image.frombytes("RGB", tuple(answer["size"]), pixels)
        return LoadedImage(image, answer["digest"], name, tuple(answer["notes"]), Size(*answer["stored"]))


def _write(pipe: IO[bytes], head: dict[str, Any], data: bytes) -> None:
    pipe.write(json.dumps({**head, "num_bytes": len(data)}).encode() + b"\n")
    pipe.write(data)
    pipe.flush()


def _read(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    data = pipe.read(head["num_bytes"])
    if len(data) < head["num_bytes"]:
        raise EOFError
    return head, data


def run(memory_bytes: int) -> None:
    """The decoder process: reads files from standard input and writes pixels to standard output, until EOF."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            head, data = _read(sys.stdin.buffer)
        except EOFError:
            return
        limits = Limits(**{**head["limits"], "formats": tuple(head["limits"]["formats"])})
        try:
            image = load_image(data, limits)
            pixels = image.image.tobytes()
            answer = {"size": image.size, "digest": image.digest, "notes": image.notes, "stored": image.stored}
        except BadImage as error:
            answer, pixels = {"error": str(error).replace("The image", head["name"], 1)}, b""
        except MemoryError:
            answer, pixels = {"error": f"{head['name']} needs too much memory to decode. Send a smaller one."}, b""
        _write(sys.stdout.buffer, answer, pixels)
