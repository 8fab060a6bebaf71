"""Pairs of images that show the same: found by their files' digests and their thumbnails, verified by their pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llava.data.crop_search import Candidate, CropSearch
from llava.data.fingerprints import THUMBNAIL_PX, ImageSource, draw_luma, draw_pixels, fingerprint
from llava.data.image_comparison import LEAST_PX, Box, compare

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
# Of two images with the same pixels, the grey aligned ones correlate at least so much.
_PERHAPS_EQUAL = 0.999


class Pair(NamedTuple):
    """Two images that show the same.

    ``kind`` is "file" (the same bytes), "pixels" (the same pixels in another file) or "near". The boxes, (left, top,
    right, bottom) from 0 to 1, are what of each image the other one shows too.
    """

    first: int
    second: int
    kind: str
    similarity: float
    first_box: Box = WHOLE
    second_box: Box = WHOLE


def verify(first: ImageSource, second: ImageSource, candidate: Candidate) -> Pair | None:
    """The pair, if the images of a candidate show the same. Raises BadImage for one that can no longer be read."""
    one, two = draw_luma(first, LEAST_PX), draw_luma(second, LEAST_PX)
    if candidate.first_is_crop:
        found = compare(one, two, candidate.box)
        boxes = found.first_box, found.second_box
    else:
        found = compare(two, one, candidate.box)
        boxes = found.second_box, found.first_box
    if not found.is_same:
        return None
    kind = "near"
    if one.size == two.size and found.similarity > _PERHAPS_EQUAL:
        kind = "pixels" if np.array_equal(draw_pixels(first), draw_pixels(second)) else "near"
    return Pair(candidate.first, candidate.second, kind, round(min(1.0, found.similarity), 4), *boxes)


def as_thumbnails(thumbnails: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """Thumbnails of fingerprints as the search takes them, [n, 32, 32]."""
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX)


def find_duplicates(images: Sequence[ImageSource]) -> list[Pair]:
    """The pairs among ``images`` that show the same, with first < second.

    Every image after its first copy is the second of a pair. For thousands of images; a million against a benchmark is
    ``llava.data.overlap``. Raises BadImage for an image that is missing or broken.
    """
    prints = [fingerprint(image) for image in images]
    by_digest: dict[bytes, list[int]] = defaultdict(list)
    for i, found in enumerate(prints):
        by_digest[found.digest].append(i)
    pairs = [Pair(same[0], i, "file", 1.0) for same in by_digest.values() for i in same[1:]]
    # One of each file is searched for.
    rows = sorted(same[0] for same in by_digest.values())
    thumbnails = as_thumbnails([prints[i].thumbnail for i in rows])
    for candidate in CropSearch(thumbnails).find(thumbnails):
        if candidate.first < candidate.second:
            first, second = rows[candidate.first], rows[candidate.second]
            pair = verify(images[first], images[second], candidate._replace(first=first, second=second))
            if pair is not None:
                pairs.append(pair)
    return sorted(pairs)
