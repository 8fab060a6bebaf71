"""Paths of every kind, and the errors for those that are not files or do not exist."""

from __future__ import annotations

import gzip
import io
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from llava.errors import BadImage, UsageError
from llava.image.source import Limits, load_image, say_notes


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.skipif(os.name != "posix", reason="names and kinds of file that only POSIX has")
def test_a_file_of_any_name_is_read_and_named_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a\nb.png", "-a.png", "a%20b.png", "img:/x.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(_png())
        assert load_image(name).name == Path(name).name, "programs get the name as it is"
    Path("a\nb.png").write_bytes(b"text")
    with pytest.raises(BadImage, match=r"^a\\nb\.png is not an image"):
        load_image("a\nb.png")


def test_a_note_is_one_line_whatever_the_image_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    say_notes([replace(load_image(_png()), name="a\nb", notes=("turned upright",))])
    assert capsys.readouterr().err == "llava: a\\nb: turned upright.\n"


def test_a_path_as_a_url_would_write_it_is_told_from_one_that_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my photo.png").write_bytes(_png())
    with pytest.raises(BadImage, match=r"^There is no file my%20photo\.png\. There is a my photo\.png: pass that\.$"):
        load_image("my%20photo.png")
    with pytest.raises(BadImage, match=r"^There is no file no%20photo\.png\.$"):
        load_image("no%20photo.png")
    with pytest.raises(BadImage, match=r"^file: is not opened; pass a path, such as /a/my photo\.png, an http"):
        load_image("file:///a/my%20photo.png")


@pytest.mark.skipif(os.name != "posix", reason="kinds of file that only POSIX has")
def test_a_path_that_is_not_a_file_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("door.png")
        with pytest.raises(BadImage, match=r"^door\.png cannot be read: it is a socket\.$"):
            load_image("door.png")
    Path("loop.png").symlink_to("loop.png")
    with pytest.raises(BadImage, match=r"^loop\.png cannot be read: .*symbolic links\.$"):
        load_image("loop.png")
    with pytest.raises(BadImage, match=r"^a{197}\.\.\. cannot be read: file name too long\.$"):
        load_image("a" * 5000)
    with pytest.raises(BadImage, match=r"^a\\x00\.png cannot be read: embedded null.*\.$"):
        load_image("a\0.png")
    with pytest.raises(BadImage, match=r"^null is empty"):
        load_image("/dev/null")
    with pytest.raises(BadImage, match=r"^/dev/zero has more than 1,000 bytes"):
        load_image("/dev/zero", Limits(max_bytes=1000))


def test_a_video_larger_than_all_limits_is_named_by_its_first_bytes(tmp_path: Path) -> None:
    file = tmp_path / "film.mp4"
    file.write_bytes(b"\0\0\0\x20ftypisom" + bytes(20_000))
    for limits in (Limits(), Limits(max_bytes=10_000)):
        with pytest.raises(BadImage, match=r"it is a video\. Take a frame out of it"):
            load_image(file, limits)
    with file.open("rb") as opened, pytest.raises(BadImage, match="it is a video"):
        load_image(opened, Limits(max_bytes=10_000))


def test_first_bytes_that_could_be_a_targa_refuse_nothing(tmp_path: Path) -> None:
    # It begins with "<", as web pages do, and only its name and its last bytes say what it is.
    head = bytes((0x3C, 0, 2)) + bytes(9) + bytes((100, 0, 100, 0, 24, 0x20)) + bytes(0x3C)
    data = head + bytes((0, 0, 255)) * 10_000 + bytes(8) + b"TRUEVISION-XFILE.\0"
    (tmp_path / "scan").write_bytes(data)
    image = load_image(tmp_path / "scan")
    assert (image.size, image.image.getpixel((0, 0))) == ((100, 100), (255, 0, 0))


def test_standard_input_that_was_read_before_is_told_from_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(_png())))
    assert load_image("-").size == (3, 2)
    with pytest.raises(BadImage, match=r"^Standard input holds nothing, or nothing more: pipe one image into it"):
        load_image("-")


def test_a_file_that_is_closed_or_cannot_be_read_is_refused_and_any_path_object_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png())
    with (tmp_path / "a.png").open("rb") as file:
        assert load_image(file).size == (3, 2)
    with pytest.raises(UsageError, match=r"a\.png is a file that was closed; open it again\."):
        load_image(file)

    with gzip.open(tmp_path / "a.png.gz", "wb") as packed:
        packed.write(_png() * 100)
    cut = (tmp_path / "a.png.gz").read_bytes()[:-20]
    with gzip.open(io.BytesIO(cut)) as unpacked, pytest.raises(BadImage, match="cannot be read: compressed file ended"):
        load_image(unpacked)

    class Place:
        def __fspath__(self) -> str:
            return str(tmp_path / "a.png")

    assert load_image(Place()).name == "a.png"  # type: ignore[arg-type]


def test_a_jpeg_that_ends_too_early_says_how_much_of_it_is_the_grey_of_its_decoder() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8))
    file = io.BytesIO()
    noise.save(file, "JPEG")
    data = file.getvalue()
    cut = load_image(data[: len(data) // 2] + b"\xff\xd9")
    (note,) = cut.notes
    percent = int(note.removeprefix("the last ").partition(" ")[0])
    assert note == f"the last {percent} % of its rows are plain grey, as decoders draw what is missing"
    assert 35 < percent < 60
    grey = (np.asarray(cut.image) == 128).all(axis=(1, 2))
    assert abs(100 * grey.mean() - percent) < 1
    assert load_image(data).notes == ()
    file = io.BytesIO()
    Image.new("RGB", (60, 40), (128, 128, 128)).save(file, "JPEG")
    assert load_image(file.getvalue()).notes == (), "a plain grey image is one"
