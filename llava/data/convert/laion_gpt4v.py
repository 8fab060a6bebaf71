"""LAION-GPT-V: descriptions by GPT-4V of images that are named by their addresses.

The dataset holds no images. They are found in a local folder, or fetched if that is asked for; many addresses are
dead.

Source: laion/gpt4v-dataset on Hugging Face (README at 99a9caf: ``link``, ``caption``, ``message_id``, ``timestamp``;
12,356 rows); rom1504/img2dataset README (the folder: 00012/000120034.jpg with .json beside it, whose ``url`` is the
address), whose names LLaVA-NeXT-Data's laion-gpt4v-20231128/ has.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llava.data import prompts
from llava.data.convert.converter import Options, Row, Source, make_row
from llava.data.convert.document_sets import save_image
from llava.data.convert.parquet_input import choose_suffix, iterate_parquet
from llava.errors import FetchError, UsageError
from llava.image.fetch import fetch

FORMATS = {
    "local": "images in the folder laion-gpt4v, named by message_id or by img2dataset",
    "fetch": "images are fetched from their addresses; those that the folder has are not fetched again",
}
FOLDER = "laion-gpt4v"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_MOST_BYTES = 64 * 1024 * 1024
_TIMEOUT_S = 20.0
_THREADS = 8

_Rows = Iterator[tuple[str, str, str]]  # (id, address, description)


def convert_laion_gpt4v(source: Source, options: Options) -> Iterator[Row]:
    """A row for each description whose image is there: one of LLaVA's sixteen requests for a detailed description."""
    if options.format == "local" and options.images is None:
        raise UsageError(
            "LAION-GPT-V holds no images, only addresses. Name the folder that has them below 'laion-gpt4v': --images "
            "DIR; or have them fetched: --format fetch --save-images DIR."
        )
    known = _find_images(options.images)
    rows = _iterate_rows(source, options)
    for id, caption, image in (_fetch_images if options.format == "fetch" else _take_images)(rows, known, options):
        request = options.draw(f"laion-gpt4v-{id}").choice(prompts.DESCRIBE)
        yield make_row(f"laion-gpt4v-{id}", image, [(options.choose_prompt(request), caption)], "laion-gpt4v")


def _iterate_rows(source: Source, options: Options) -> _Rows:
    """(id, address, description) of each row that has them."""
    for path in source.files(0):
        for number, row in iterate_parquet(path, ("link", "caption", "message_id")):
            thing = f"row {number} of {path.name}"
            values = [
                row[name].strip() if isinstance(row[name], str) else "" for name in ("message_id", "link", "caption")
            ]
            lacks = [name for name, value in zip(("id", "address", "description"), values, strict=True) if not value]
            if lacks:
                options.leave_out(f"has no {lacks[0]}", thing)
            else:
                yield values[0], values[1], values[2]


def _find_images(images: Path | None) -> dict[str, str]:
    """Names of the images in the local folder, by address (from img2dataset's files) and by their names' stems."""
    known: dict[str, str] = {}
    folder = None if images is None else images / FOLDER
    if images is None or folder is None or not folder.is_dir():
        return known
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        if path.suffix.lower() in _SUFFIXES:
            known.setdefault(path.stem, path.relative_to(images).as_posix())
    for path in paths:
        name = known.get(path.stem)
        if path.suffix == ".json" and name is not None and (url := _read_url(path)) is not None:
            known[url] = name
    return known


def _read_url(path: Path) -> str | None:
    try:
        details: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    url = details.get("url") if isinstance(details, dict) else None
    return url if isinstance(url, str) else None


def _take_images(rows: _Rows, known: dict[str, str], options: Options) -> Iterator[tuple[str, str, str]]:
    """(id, description, name of the image) of each row whose image the local folder has."""
    for id, link, caption in rows:
        name = known.get(link) or known.get(_make_stem(id))
        if name is None:
            options.leave_out("has an image that the folder lacks", f"message {id}")
        else:
            yield id, caption, name


def _fetch_images(rows: _Rows, known: dict[str, str], options: Options) -> Iterator[tuple[str, str, str]]:
    """(id, description, name of the image) of each row whose image the local folder has or can be fetched."""
    with ThreadPoolExecutor(_THREADS) as pool:
        while batch := list(itertools.islice(rows, 4 * _THREADS)):
            names = [known.get(link) or known.get(_make_stem(id)) for id, link, _ in batch]
            bodies = pool.map(_fetch, [None if name else link for name, (_, link, _) in zip(names, batch, strict=True)])
            for (id, _, caption), name, body in zip(batch, names, bodies, strict=True):
                name = name or _store(id, body, options)
                if name is not None:
                    yield id, caption, name


def _fetch(link: str | None) -> bytes | None:
    if link is None:
        return None
    try:
        return fetch(link, max_bytes=_MOST_BYTES, timeout_s=_TIMEOUT_S, max_redirects=3)
    except FetchError:
        return None


def _store(id: str, body: bytes | None, options: Options) -> str | None:
    suffix = choose_suffix(body) if body else None
    if body is None or suffix is None:
        lack = "has an image that cannot be fetched" if body is None else "has an address that is no image's"
        options.leave_out(lack, f"message {id}")
        return None
    name = f"{FOLDER}/{_make_stem(id)}{suffix}"
    save_image(options, "LAION-GPT-V's images are fetched.", name, body)
    return name


def _make_stem(id: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in id)
