"""Sets that come in LLaVA's own format: ShareGPT4V, ALLaVA, LLaVAR, LLaVA-NeXT-Data, Open-LLaVA-NeXT, GeoQA+.

Their conversations pass through as they are.

Source, Hugging Face datasets: Lin-Chen/ShareGPT4V; FreedomIntelligence/ALLaVA-4V (README: names, samples, ``idx`` in
allava_text); SALT-NLP/LLaVAR (README of SALT-NLP/LLaVAR@03b2b17: images named as those of CC3M and COCO);
lmms-lab/LLaVA-NeXT-Data (README: id, conversations, data_source, image; 250 parquet files, 779,289 rows, of which
40,688 without an image; llava_next_raw_format_processed.json, 738,590 rows); Lin-Chen/Open-LLaVA-NeXT-mix1M
(xiaoachen98/Open-LLaVA-NeXT@2391c9c docs/Data.md); geoqa+.jsonl of OpenGVLab/InternVL (internvl_1_2_finetune.json).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from llava.data.convert.converter import Options, Row, Source
from llava.data.convert.document_sets import save_image
from llava.data.convert.json_input import iterate_json, iterate_lines
from llava.data.convert.parquet_input import choose_suffix, find_bytes, iterate_parquet
from llava.errors import UsageError

TEXT_ONLY = "text"
"""The ``data_source`` of a conversation without an image in a set that mixes several."""


def convert_sharegpt4v(source: Source, options: Options) -> Iterator[Row]:
    """The conversations of a file of ShareGPT4V."""
    yield from _pass_file(source.file(0), "sharegpt4v", is_mixture=options.split == "mix665k")


def convert_allava(source: Source, options: Options) -> Iterator[Row]:
    """The conversations of a file of ALLaVA-4V; text only for the split "text"."""
    yield from _pass_file(source.file(0), "allava", part=options.split)


def convert_llavar(source: Source, options: Options) -> Iterator[Row]:
    """The conversations of a file of LLaVAR, which LLaVA's own are among."""
    root = "coco/train2017" if options.split == "finetune" else "llavar/pretrain"
    yield from _pass_file(source.file(0), "llavar", root=root, part=options.split)


def convert_open_llava_next(source: Source, options: Options) -> Iterator[Row]:
    """The conversations of Open-LLaVA-NeXT's mixture of a million."""
    yield from _pass_file(source.file(0), "open-llava-next", is_mixture=True)


def convert_geoqa(source: Source, options: Options) -> Iterator[Row]:
    """The conversations of GeoQA+ as InternVL published it; the original is a pickle, which is not read."""
    yield from _pass_file(source.file(0), "geoqa-plus", root="geoqa+")


def convert_llava_next(source: Source, options: Options) -> Iterator[Row]:
    """The rows of LLaVA-NeXT-Data: from parquet, with its images, or from the JSON of its raw format."""
    if options.split == "raw":
        yield from _pass_file(source.file(0), "llava-next", is_mixture=True)
        return
    for shard, path in enumerate(source.files(0)):
        for number, entry in iterate_parquet(path, ("id", "conversations", "image")):
            thing = f"row {number} of {path.name} (id {entry['id']})"
            image, data = None, None
            if entry["image"] is not None and _is_shown(entry["image"]):
                data = find_bytes(entry["image"], f"Row {number} of '{path}'")
                suffix = choose_suffix(data) if data else None
                if data is None or suffix is None:
                    options.leave_out("holds no image" if data is None else "holds bytes that are no image", thing)
                    continue
                # Not named by its id: different images of GQA and OCR-VQA have the same.
                image = f"llava-next/{shard:05d}/{number:06d}{suffix}"
                save_image(options, "LLaVA-NeXT-Data holds its images in its own files.", image, data)
            id = str(entry["id"])
            yield pass_row({**entry, "image": image}, f"llava-next-{id}", name_source(id, image))


def _is_shown(image: Any) -> bool:
    """Whether a cell of an image column holds something; `datasets` writes a missing image as null or {null, null}."""
    return not isinstance(image, Mapping) or any(image.get(key) is not None for key in ("bytes", "path"))


# LLaVA-NeXT-Data says "llava-next-instruct" in each row; what a row is follows from how its id begins.
_SOURCE_BY_ID = {
    "VG_100K": "vg",
    "synthdog_en_": "synthdog-en",
    "coco2014_caps_": "coco2014_caps",
    "bar_train_": "dvqa",
    "chart_qa_": "chartqa",
    "docvqa": "docvqa",
    "ai2d": "ai2d",
    "laion-gpt4v-": "laion-gpt4v",
}


def name_source(id: str, image: str | None) -> str:
    """The set that a row of LLaVA-NeXT-Data is from, as far as its id tells: LLaVA-1.5's sets have numbers only."""
    if image is None:
        return TEXT_ONLY
    return next((name for start, name in _SOURCE_BY_ID.items() if id.startswith(start)), "llava-1.5")


def _pass_file(path: Path, name: str, *, root: str = "", part: str = "", is_mixture: bool = False) -> Iterator[Row]:
    """The conversations of a .json or .jsonl file.

    Args:
        root: the folder that the file's image names are relative to, if they do not begin with it.
        part: becomes a part of the ids, for sets whose files have the same ids.
        is_mixture: whether the source of a row is the first folder of its image's name.
    """
    for number, entry in iterate_lines(path) if path.suffix == ".jsonl" else iterate_json(path):
        if not isinstance(entry, Mapping):
            raise UsageError(f"Row {number} of '{path}' is no object. The file is none of {name}: get it again.")
        own = str(entry.get("id", entry.get("idx", number)))
        own = own.removeprefix(f"{name}_").removeprefix(f"{name}-")
        image = entry.get("image")
        if root and isinstance(image, str) and image and not image.startswith(f"{root}/"):
            entry = {**entry, "image": f"{root}/{image}"}
        id = "-".join(filter(None, (name, part, own)))
        yield pass_row(entry, id, _name_top(image) if is_mixture else name)


def _name_top(image: Any) -> str:
    """The first folder of an image's name, which says what set the row of a mixture is from."""
    first = image[0] if isinstance(image, list) and image else image
    return PurePosixPath(first).parts[0] if isinstance(first, str) and first else TEXT_ONLY


def pass_row(entry: Mapping[str, Any], id: str, data_source: str) -> Row:
    """A row with the images and the conversation of a row in LLaVA's format, which the writer checks."""
    images = entry.get("image") or None  # "" stands for none in some files
    row: Row = {"id": id} if images is None else {"id": id, "image": images}
    return {**row, "conversations": entry.get("conversations"), "data_source": data_source}
