"""The native library: built once for this exact CPU, cached by a digest of its sources, and loaded.

The cache is in ``XDG_CACHE_HOME`` (or ``~/.cache``); where it is not writable, the library is built for this process
alone. ``CXX`` names the compiler. Without one, and with ``LLAVA_NATIVE=0``, ``load`` returns None and torch computes
everything.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fopenmp", "-Wno-psabi")


@cache
def load() -> ctypes.CDLL | None:
    """The library, built first if it is not cached; None where it cannot be, and ``status`` says why."""
    try:
        path = _find()
        library = _open(path)
    except _Absent as reason:
        _status.append(str(reason))
        return None
    is_cached = path.parent == _cache_folder()
    _status.append("compiled for this CPU" + ("" if is_cached else ", for this process alone: nothing can be kept"))
    return library


def status() -> str:
    """One line: whether the native library is used, and the fallback reason if not."""
    load()
    return _status[-1]


_status: list[str] = []


class _Absent(Exception):
    """There is no library; the message is the fallback reason."""


def _find() -> Path:
    """The library's path, built first where the cache has none or a damaged one."""
    if os.environ.get("LLAVA_NATIVE") == "0":
        raise _Absent("LLAVA_NATIVE is 0")
    if sys.platform != "linux":
        raise _Absent(f"the native library is for Linux, and this is {sys.platform}")
    compiler = shlex.split(os.environ.get("CXX", "")) or [*filter(shutil.which, ("g++", "clang++"))][:1]
    if not compiler:
        raise _Absent("there is no C++ compiler (g++ or clang++)")
    try:
        name = f"kernels-{_fingerprint(compiler)}.so"
        cached = _cache_folder()
        if cached is not None:
            if _is_intact(cached / name):
                return cached / name
            try:
                return _build(compiler, cached / name)
            except OSError:
                pass  # nothing can be written there
        own = tempfile.mkdtemp(prefix="llava-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        return _build(compiler, Path(own) / name)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", "") or ""
        raise _Absent(f"building it failed: {error} {output[-300:]}".strip()) from error


def _build(compiler: list[str], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        compiled, linked = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
        _run([*compiler, *FLAGS, "-march=native", "-c", str(SOURCE), "-o", str(compiled)])
        # Linked without an OpenMP runtime: the symbols resolve to the one that torch brings, so that there is one pool
        # of threads and not two that compete for the same cores.
        _run([*compiler, "-shared", str(compiled), "-o", str(linked)])
        with linked.open("ab") as file:
            file.write(hashlib.sha256(linked.read_bytes()).digest())
        linked.replace(path)  # atomic, even if another process builds it at the same time
    return path


def _is_intact(path: Path) -> bool:
    """Whether a library matches its digest: loading one that a full disk truncated would crash the process."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def _run(command: list[str]) -> None:
    # A build takes seconds, and on a busy machine minutes, which is still worth it.
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)


def _cache_folder() -> Path | None:
    """Where built libraries are cached; None for a user without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llava"
    except RuntimeError:
        return None


def _fingerprint(compiler: list[str]) -> str:
    """A digest of all sources, the compiler, its flags and the CPU: a change of any is another file."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    sources = [path.read_text(encoding="utf-8") for path in sorted([*SOURCE.parent.glob("*.h"), SOURCE])]
    parts = [*sources, shlex.join([*compiler, *FLAGS]), version, platform.machine()]
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        lines = cpu.read_text(encoding="utf-8").splitlines()
        parts += sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _open(path: Path) -> ctypes.CDLL:
    """Loads the library, with the OpenMP runtime that torch has loaded made visible to it."""
    import torch  # noqa: F401  (it brings OpenMP)

    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").split()
    openmp = next((word for word in maps if word.startswith("/") and "omp" in Path(word).name), None)
    try:
        if openmp is not None:
            ctypes.CDLL(openmp, mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise _Absent(f"it cannot be loaded: {error}") from error
