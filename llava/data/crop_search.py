"""Finds pairs of images that may be the same, cropped by up to a tenth at each side, by their thumbnails alone.

The method is a perceptual hash (the signs of the lowest DCT coefficients, as in pHash), made for crops: the hash of a
cropped copy is that of the same crop of the original's thumbnail. So each image has 81 hashes, of its 81 crops by 0, 5
or 10 % at each side, of which one is within 2.5 % of the copy's. Either image may be the crop. A hash has 20 bits and
finds its like in a table, with up to four of its least certain bits changed (query-directed multi-probe hashing);
what is found is compared by 63 coefficients. Time and memory grow linearly with the number of images: there is no step
over pairs of images, other than those that share a hash.

Source: M. Norouzi et al., Fast Search in Hamming Space with Multi-Index Hashing, CVPR 2012; Q. Lv et al., Multi-Probe
LSH, VLDB 2007; C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010 (pHash).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from llava.data.fingerprints import THUMBNAIL_PX

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

_CROPS = (0.0, 0.05, 0.1)
_SPANS = tuple((before, after) for before in _CROPS for after in _CROPS)
_NUM_CROPS = len(_SPANS) ** 2
_NUM_FREQUENCIES = 8
_KEY_BITS = 20
# Any of the 19 least certain bits may be changed, two of the first 16 of them, three of the first 10, four of 9.
_UNSURE = (19, 16, 10, 9)
# Copies are above 0.90 (a document, cropped between the steps), different photos below 0.6, documents up to 0.95.
_LEAST_COSINE = 0.86
# What may remain of a thumbnail's contrast after the fit: copies are below 0.55, most other documents above.
_MOST_RESIDUAL = 0.6
# Coefficients (grey levels) below which an image has no structure to compare: a blank page.
_LEAST_CONTRAST = 1.0
_BATCH = 256


class Candidate(NamedTuple):
    """Two images that may be the same.

    ``box`` is (left, top, right, bottom), 0 to 1: the part of the whole image that the other one shows.
    ``first_is_crop`` says which one is the part.
    """

    first: int
    second: int
    box: tuple[float, float, float, float]
    first_is_crop: bool
    cosine: float


def _make_basis(before: float, after: float) -> Floats:
    """DCT basis functions over a part of the thumbnail's side, integrated over each of its pixels, [8, 32]."""
    edges, width = np.linspace(0, 1, THUMBNAIL_PX + 1), 1 - before - after
    low, high = (np.clip(side, before, 1 - after) for side in (edges[:-1], edges[1:]))

    def integral(frequency: int, x: Any) -> Any:
        angle = np.pi * frequency * (x - before) / width
        return (x - before) / width if frequency == 0 else np.sqrt(2) * np.sin(angle) / (np.pi * frequency)

    rows = [integral(frequency, high) - integral(frequency, low) for frequency in range(_NUM_FREQUENCIES)]
    return np.asarray(rows, np.float32)


_BASES: Floats = np.concatenate([_make_basis(*span) for span in _SPANS])  # [9 * 8, 32]
_Y, _X = (grid.ravel() for grid in np.mgrid[:_NUM_FREQUENCIES, :_NUM_FREQUENCIES])
# Low frequencies first, without the mean; weighted against the 1/f spectrum of images.
_ORDER = np.argsort(_X + _Y + 0.01 * np.abs(_X - _Y), kind="stable")[1:]
_WEIGHTS = np.hypot(_X, _Y).astype(np.float32)[_ORDER]
_BITS = (1 << np.arange(_KEY_BITS)).astype(np.int64)
_CHANGES = np.array(
    [
        [bit in changed for bit in range(_UNSURE[0])]
        for num, most in enumerate((0, *_UNSURE))
        for changed in itertools.combinations(range(most), num)
    ],
    np.int64,
)


def describe(thumbnails: npt.NDArray[np.uint8], *, crops: bool) -> Floats:
    """The weighted coefficients of thumbnails [n, 32, 32], of unit length, [n, 81 or 1, 63].

    The crops are in the order of ``crop_box``. An image without structure has zeros.
    """
    bases = _BASES if crops else _BASES[:_NUM_FREQUENCIES]
    num, spans = len(thumbnails), len(bases) // _NUM_FREQUENCIES
    across = thumbnails.astype(np.float32) @ bases.T  # [n, y, crop and frequency of x]
    both = bases @ across
    both = both.reshape(num, spans, _NUM_FREQUENCIES, spans, _NUM_FREQUENCIES).transpose(0, 1, 3, 2, 4)
    found = both.reshape(num, spans * spans, -1)[:, :, _ORDER]
    is_flat = np.sqrt(np.sum(found**2, axis=2, keepdims=True)) < _LEAST_CONTRAST
    found = found * _WEIGHTS
    length = np.sqrt(np.sum(found**2, axis=2, keepdims=True))
    return np.where(is_flat, 0, found / np.maximum(length, 1e-6)).astype(np.float32)


def crop_box(crop: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, 0 to 1, of a crop by its number."""
    (top, bottom), (left, right) = _SPANS[crop // len(_SPANS)], _SPANS[crop % len(_SPANS)]
    return left, top, 1 - right, 1 - bottom


def _keys(descriptions: Floats) -> Integers:
    return np.asarray((descriptions[..., :_KEY_BITS] > 0) @ _BITS)


def _probes(descriptions: Floats) -> Integers:
    """Keys of descriptions [n, 63] with up to four of the least certain bits changed, [n, 386]."""
    size = np.abs(descriptions[:, :_KEY_BITS])
    unsure = np.argsort(size, axis=1)[:, : _UNSURE[0]]
    return np.asarray(_keys(descriptions)[:, None] ^ (_BITS[unsure] @ _CHANGES.T))


class _Table:
    """Keys with the numbers that they stand for; several numbers may have the same key."""

    def __init__(self, keys: Integers, numbers: Integers) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._numbers = keys[order].astype(np.int32), numbers[order].astype(np.int32)
        self._is_used = np.zeros(1 << _KEY_BITS, bool)
        self._is_used[self._keys] = True

    def find(self, keys: Integers) -> tuple[Integers, Integers]:
        """All pairs of an index into ``keys`` and a number in the table."""
        rows = np.flatnonzero(self._is_used[keys])
        found = keys[rows].astype(np.int32)
        start, end = np.searchsorted(self._keys, found, "left"), np.searchsorted(self._keys, found, "right")
        count = end - start
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(start, count)
        return np.repeat(rows, count), self._numbers[place].astype(np.int64)


class CropSearch:
    """Images by their hashes, to be found by others.

    Args:
        thumbnails: [n, 32, 32]. They take about 25 KB each in here.
    """

    def __init__(self, thumbnails: npt.NDArray[np.uint8]) -> None:
        num = len(thumbnails)
        crops = [describe(thumbnails[i : i + _BATCH], crops=True) for i in range(0, num, _BATCH)]
        self._thumbnails = thumbnails
        self._crops: Floats = np.concatenate(crops) if crops else np.zeros((0, _NUM_CROPS, 63), np.float32)
        whole = self._crops[:, 0]
        self._has_structure = np.any(whole != 0, axis=1)
        numbers = np.flatnonzero(self._has_structure)
        all_crops = (numbers[:, None] * _NUM_CROPS + np.arange(_NUM_CROPS)).ravel()
        self._by_crop = _Table(_keys(self._crops[numbers]).ravel(), all_crops)
        self._by_probe = _Table(_probes(whole[numbers]).ravel(), np.repeat(numbers, len(_CHANGES)))

    @property
    def num_flat(self) -> int:
        """Images without any structure, such as blank pages, which are never found."""
        return int(np.sum(~self._has_structure))

    def find(self, thumbnails: npt.NDArray[np.uint8], offset: int = 0) -> Iterator[Candidate]:
        """Candidates of the images with these thumbnails, as ``first``, and those in here, as ``second``.

        Args:
            offset: added to the index of the first image.
        """
        for i in range(0, len(thumbnails), _BATCH):
            yield from self._find(thumbnails[i : i + _BATCH], offset + i)

    def _find(self, thumbnails: npt.NDArray[np.uint8], offset: int) -> Iterator[Candidate]:
        crops = describe(thumbnails, crops=True)
        rows = np.flatnonzero(np.any(crops[:, 0] != 0, axis=1))
        crops, whole = crops[rows], crops[rows, 0]
        # The image of the query is the crop of one in here ...
        query, hit = self._by_crop.find(_probes(whole).ravel())
        query //= len(_CHANGES)
        second, crop = np.divmod(hit, _NUM_CROPS)
        found = _Found(query, second, crop, np.ones_like(crop), _dot(whole, query, self._crops.reshape(-1, 63), hit))
        # ... or the other way round.
        hit, second = self._by_probe.find(_keys(crops).ravel())
        query, crop = np.divmod(hit, _NUM_CROPS)
        cosine = _dot(crops.reshape(-1, 63), hit, self._crops[:, 0], second)
        found = found.join(_Found(query, second, crop, np.zeros_like(crop), cosine))
        best = _choose_best(found, len(self._crops))
        best = self._drop_unlike(best, thumbnails[rows])
        for query_, second_, crop_, is_crop, cosine_ in zip(*best, strict=True):
            first = offset + int(rows[query_])
            yield Candidate(first, int(second_), crop_box(int(crop_)), bool(is_crop), float(cosine_))

    def _drop_unlike(self, found: _Found, thumbnails: npt.NDArray[np.uint8]) -> _Found:
        """Those whose thumbnails agree, once they are aligned."""
        residuals = [np.zeros(0, np.float32)]
        for i in range(0, len(found.query), _BATCH):
            part = found.take(slice(i, i + _BATCH))
            one, two = thumbnails[part.query].astype(np.float32), self._thumbnails[part.second].astype(np.float32)
            is_crop = part.is_crop.astype(bool)[:, None, None]
            residuals.append(measure_residuals(np.where(is_crop, one, two), np.where(is_crop, two, one), part.crop))
        return found.take(np.concatenate(residuals) <= _MOST_RESIDUAL)


class _Found(NamedTuple):
    """Hits, as columns."""

    query: Integers
    second: Integers
    crop: Integers
    is_crop: Integers
    cosine: Floats

    def take(self, rows: Any) -> _Found:
        """Those of some rows."""
        return _Found(self.query[rows], self.second[rows], self.crop[rows], self.is_crop[rows], self.cosine[rows])

    def join(self, more: _Found) -> _Found:
        """These and more."""
        return _Found(
            np.concatenate([self.query, more.query]),
            np.concatenate([self.second, more.second]),
            np.concatenate([self.crop, more.crop]),
            np.concatenate([self.is_crop, more.is_crop]),
            np.concatenate([self.cosine, more.cosine]),
        )


def _choose_best(found: _Found, num: int) -> _Found:
    """The best hit of each pair of images that is good enough."""
    found = found.take(found.cosine >= _LEAST_COSINE)
    found = found.take(np.lexsort((-found.cosine, found.second, found.query)))
    _, best = np.unique(found.query * np.int64(num) + found.second, return_index=True)
    return found.take(best)


def _make_sampling(before: float, after: float) -> Floats:
    """The matrix that stretches a part of the thumbnail's side to all of it, by linear interpolation, [32, 32]."""
    place = (before + (np.arange(THUMBNAIL_PX) + 0.5) / THUMBNAIL_PX * (1 - before - after)) * THUMBNAIL_PX - 0.5
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(THUMBNAIL_PX))).astype(np.float32)


_SAMPLINGS = np.stack([_make_sampling(*span) for span in _SPANS])
_INNER = slice(2, -2)


def measure_residuals(part: Floats, whole: Floats, crop: Integers) -> Floats:
    """What remains of the contrast of ``part`` [n, 32, 32] after its best fit by crops of ``whole``, as a share, [n].

    The fit has a gain, an offset, and a small shift and stretch along each axis. The border is left out.
    """
    crop_y, crop_x = np.divmod(crop, len(_SPANS))
    cut = _SAMPLINGS[crop_y] @ whole @ _SAMPLINGS[crop_x].transpose(0, 2, 1)
    gradients: Any = np.gradient(cut, axis=(1, 2))
    down, across = gradients
    place = (np.arange(THUMBNAIL_PX, dtype=np.float32) + 0.5) / THUMBNAIL_PX - 0.5
    columns = [cut, across, across * place, down, down * place[:, None], part]
    inner = np.stack([column[:, _INNER, _INNER].reshape(len(part), -1) for column in columns], axis=1)
    inner -= inner.mean(axis=2, keepdims=True)
    target, matrix = inner[:, -1], inner[:, :-1]
    gram = (matrix @ matrix.transpose(0, 2, 1)).astype(np.float64)
    gram += np.eye(gram.shape[1]) * (1e-4 * np.einsum("nii->n", gram)[:, None, None] / gram.shape[1] + 1e-3)
    found: Any = np.linalg.solve(gram, (matrix @ target[:, :, None]).astype(np.float64))
    rest = target - np.einsum("nki,nkp->np", found, matrix)
    return np.asarray(np.mean(rest**2, axis=1) / (np.mean(target**2, axis=1) + 1.0), np.float32)


def _dot(left: Floats, left_rows: Integers, right: Floats, right_rows: Integers) -> Floats:
    """The cosines of rows of two tables, a million at a time."""
    parts = [
        np.einsum("nd,nd->n", left[left_rows[i : i + 10**6]], right[right_rows[i : i + 10**6]])
        for i in range(0, len(left_rows), 10**6)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
