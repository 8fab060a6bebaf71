"""Regions and their descriptions, asked for in both directions: RefCOCO, RefCOCO+, RefCOCOg and Visual Genome.

A box is [left, top, right, bottom] in shares of the square to which LLaVA pads an image, rounded to two decimals.
No torch.

Source: haotian-liu/LLaVA issues 606 and 822 (the padded square); rows of llava_v1_5_mix665k.json (the sentences;
descriptions have a capital letter and a period as an answer, and a period only in a question); LLaVA-1.5
(arXiv:2310.03744v2) A.2 (10 regions of an image of Visual Genome; fewer than 10 turns in a conversation of RefCOCO);
of the schemas, lichengunc/refer@2fe1dfe refer.py and homes.cs.washington.edu/~ranjay/visualgenome/api.html.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llava.data.convert.converter import Options, Row, Source, make_row
from llava.data.convert.json_input import iterate_json, take, take_list
from llava.data.convert.merged_turns import capitalize, group
from llava.data.convert.vqa import name_coco
from llava.data.prompts import DESCRIBE_REGION, FIND_REGION
from llava.errors import UsageError

_MOST_TURNS = 9
_VG_REGIONS = 10

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels, as both datasets have it."""


def write_box(box: Box, width: int, height: int) -> str | None:
    """The box as "[0.56, 0.35, 0.67, 0.7]": corners in shares of the padded square; None for one without area inside.

    Args:
        box: what is outside the image is cut off.
        width, height: of the image, in pixels. The square is its longer side's, the image in the middle.

    Source: haotian-liu/LLaVA@c121f04 llava/mm_utils.py expand2square, which rounds the margin down.
    """
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[0] + box[2], width), min(box[1] + box[3], height)
    if not (right > left and bottom > top):
        return None
    side = max(width, height)
    x, y = (side - width) // 2, (side - height) // 2
    return str([round(share / side, 2) for share in (left + x, top + y, right + x, bottom + y)])


def convert_refcoco(source: Source, options: Options) -> Iterator[Row]:
    """Conversations of at most nine turns about an image of RefCOCO.

    Formats: "both", for each description one of the two questions by chance; "find", always the box; "describe".
    """
    return _convert_refs("refcoco", source, options)


def convert_refcoco_plus(source: Source, options: Options) -> Iterator[Row]:
    """RefCOCO+, whose descriptions name no place, as ``convert_refcoco``."""
    return _convert_refs("refcoco+", source, options)


def convert_refcocog(source: Source, options: Options) -> Iterator[Row]:
    """RefCOCOg, whose descriptions are sentences, in UMD's split, as ``convert_refcoco``."""
    return _convert_refs("refcocog", source, options)


def _convert_refs(name: str, source: Source, options: Options) -> Iterator[Row]:
    refs, instances = read_plain_pickle(source.file(0)), source.file(1)
    if not isinstance(refs, list):
        raise UsageError(f"'{source.file(0)}' does not hold the list of references. Get it from {source.url}.")
    chosen = []
    for i, ref in enumerate(refs):
        where = f"Reference {i} of '{source.file(0)}'"
        if take(ref, "split", str, where) == options.split:
            chosen.append((take(ref, "image_id", int, where), take(ref, "ann_id", int, where), ref, where))
    boxes = _read_boxes(instances, {annotation for _, annotation, _, _ in chosen})
    sizes = _read_sizes(instances, {image for image, _, _, _ in chosen})

    def pair() -> Iterator[tuple[int, tuple[str, str]]]:
        for image, annotation, ref, where in chosen:
            number = take(ref, "ref_id", int, where)
            box, size = boxes.get(annotation), sizes.get(image)
            written = write_box(box, *size) if box is not None and size is not None else None
            if written is None:
                lack = "has no box in the instances file" if box is None or size is None else "has a box without area"
                options.leave_out(lack, f"reference {number}")
                continue
            for sentence in take(ref, "sentences", list, where):
                if text := _clean(take(sentence, "sent", str, where)):
                    yield image, (written, text)
                else:
                    options.leave_out("is an empty description", f"a sentence of reference {number}")

    for image, regions in group(pair()).items():
        options.draw(f"{name}:{image}").shuffle(regions)
        for k in range(0, len(regions), _MOST_TURNS):
            id = f"{name}-{image:012}-{k // _MOST_TURNS}"
            turns = _ask(id, regions[k : k + _MOST_TURNS], options)
            yield make_row(id, name_coco(image, "train"), turns, name)


def convert_vg(source: Source, options: Options) -> Iterator[Row]:
    """Ten regions of each image, drawn by the seed. Formats: as those of ``convert_refcoco``."""
    path, images = source.file(0), dict(_read_vg_images(source.file(1)))
    for i, entry in iterate_json(path):
        where = f"Image {i} of '{path}'"
        image = take(entry, "id", int, where)
        if image not in images:
            options.leave_out("is an image that image_data.json lacks", f"image {image}")
            continue
        width, height, name = images[image]
        regions = []
        for region in take(entry, "regions", list, where):
            sides = tuple(take(region, key, float, where) for key in ("x", "y", "width", "height"))
            box = write_box((sides[0], sides[1], sides[2], sides[3]), width, height)
            text = _clean(take(region, "phrase", str, where))
            if box is None or not text:
                reason = "is an empty description" if box else "has a box without area"
                options.leave_out(reason, f"region {region.get('region_id')} of image {image}")
            else:
                regions.append((box, text))
        if regions:
            id = f"vg-{image}"
            drawn = options.draw(id).sample(regions, min(len(regions), _VG_REGIONS))
            yield make_row(id, name, _ask(id, drawn, options), "vg")


def _ask(id: str, regions: Sequence[tuple[str, str]], options: Options) -> list[tuple[str, str]]:
    """A turn about each (box, description), in one of the two directions."""
    rng = options.draw(f"{id}:direction")
    turns = []
    for box, text in regions:
        finds = rng.random() < 0.5 if options.format == "both" else options.format == "find"
        turns.append(
            (_fill(FIND_REGION, text, options), box)
            if finds
            else (_fill(DESCRIBE_REGION, box, options), f"{capitalize(text)}.")
        )
    return turns


def _fill(sentence: str, value: str, options: Options) -> str:
    """The question about a region; a ``--prompt`` has to say where the box or the description goes, by {}."""
    prompt = options.choose_prompt(sentence)
    if options.prompt is not None and options.format == "both":
        raise UsageError("A prompt of your own asks in one direction: choose it by --format find or --format describe.")
    if "{}" not in prompt:
        raise UsageError(f"The prompt '{prompt}' needs a {{}} where the box or the description goes.")
    return prompt.replace("{}", value)


def _clean(text: str) -> str:
    """The description on one line, without a period at its end."""
    return " ".join(text.split()).rstrip(" .")


def _read_boxes(path: Path, wanted: set[int]) -> dict[int, Box]:
    boxes = {}
    for i, entry in iterate_json(path, "annotations"):
        where = f"Annotation {i} of '{path}'"
        if (number := take(entry, "id", int, where)) in wanted:
            sides = take_list(entry, "bbox", float, where)
            if len(sides) == 4:
                boxes[number] = (sides[0], sides[1], sides[2], sides[3])
    return boxes


def _read_sizes(path: Path, wanted: set[int]) -> dict[int, tuple[int, int]]:
    sizes = {}
    for i, entry in iterate_json(path, "images"):
        where = f"Image {i} of '{path}'"
        if (number := take(entry, "id", int, where)) in wanted:
            sizes[number] = take(entry, "width", int, where), take(entry, "height", int, where)
    return sizes


def _read_vg_images(path: Path) -> Iterator[tuple[int, tuple[int, int, str]]]:
    """(image, (width, height, name)); the folder, VG_100K or VG_100K_2, is in its URL."""
    for i, entry in iterate_json(path):
        where = f"Image {i} of '{path}'"
        number, width, height = (take(entry, key, int, where) for key in ("image_id", "width", "height"))
        folder = "VG_100K_2" if "/VG_100K_2/" in take(entry, "url", str, where) else "VG_100K"
        yield number, (width, height, f"vg/{folder}/{number}.jpg")


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, texts and numbers, and refuses to import anything: no code can run."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_plain_pickle(path: Path) -> Any:
    """The lists, dicts, texts and numbers of a pickle, the format of REFER's files; it cannot run code.

    Raises UsageError for a file that cannot be read, or that holds anything else.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8", errors="replace").load()
    except OSError as error:
        raise UsageError(f"The file '{path}' cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # pickle raises any type for a damaged file
        raise UsageError(
            f"The file '{path}' is damaged, or more than plain data ({error}), which is not read: get it again."
        ) from error
