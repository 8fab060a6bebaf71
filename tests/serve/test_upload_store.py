"""The folder of uploaded images: ownership, locking, removal."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("python_multipart", reason="forms are read by python-multipart: pip install llava[web]")

from llava.serve.upload_store import clean_name, make_folder, name_like, remove_stale

ROOT = Path(__file__).resolve().parents[2]
OWNER = "from llava.serve.upload_store import make_folder; print(make_folder(), flush=True); input()"


@contextlib.contextmanager
def run_owner(place: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a folder of its own, there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_TEMP_DIR": str(place)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([sys.executable, "-c", OWNER], **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="nothing is found stale on Windows")
def test_the_folder_of_a_killed_process_is_removed_and_no_other(tmp_path: Path) -> None:
    with run_owner(tmp_path) as (living, kept), run_owner(tmp_path) as (dying, left):
        (left / "a.png").write_bytes(b"x")
        for name in ("llava-web-without-lock", "somebody-elses"):
            (tmp_path / name).mkdir()
        (tmp_path / "llava-web-file").touch()
        (tmp_path / "llava-web-link").symlink_to(left)
        assert remove_stale(tmp_path) == []
        dying.kill()
        dying.wait()
        assert left.is_dir()
        assert remove_stale(tmp_path) == [left]
        assert not left.exists()
        assert kept.is_dir()
        assert living.poll() is None
        assert (tmp_path / "llava-web-without-lock").is_dir()
        assert (tmp_path / "somebody-elses").is_dir()
    assert remove_stale(tmp_path) == [kept]  # killed, too


def test_a_process_that_ends_takes_its_folder_along(tmp_path: Path) -> None:
    with run_owner(tmp_path) as (process, folder):
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o077 == 0
        process.communicate("\n")
        assert not folder.exists()


def test_the_next_process_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    with run_owner(tmp_path) as (process, left):
        process.kill()
        process.wait()
        with run_owner(tmp_path) as (_, folder):
            assert (folder.is_dir(), left.exists()) == (True, False)


def test_there_is_one_folder_in_a_process() -> None:
    assert make_folder() == make_folder() == Path(os.environ["GRADIO_TEMP_DIR"])


@pytest.mark.parametrize(
    ("name", "kind", "kept"),
    [
        ("photo.JPG", "JPEG", "photo.JPG"),
        ("photo.png", "JPEG", "photo.png.jpg"),
        ("../x/y.webp", "WEBP", "y.webp"),
        ("..", "PNG", "image.png"),
        ("a\nb\0.gif", "GIF", "ab.gif"),
        ("größe.bmp", "BMP", "größe.bmp"),
        (".png", "PNG", "png.png"),
    ],
)
def test_names_are_harmless_and_say_what_the_file_is(name: str, kind: str, kept: str) -> None:
    assert name_like(clean_name(name), kind) == kept
