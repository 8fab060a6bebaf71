"""Near duplicates of texts: MinHash over character 5-grams in bands, each candidate verified by its Jaccard index.

Character n-grams work without word boundaries, so for Chinese and Japanese, too. With 126 permutations in 21 bands
of 6, two texts with a Jaccard index of 0.8 become candidates with a probability of 0.998, of 0.5 with 0.28.
Source: Broder, On the resemblance and containment of documents (1997); Leskovec et al., Mining of Massive Datasets 3.4.
"""

from __future__ import annotations

import re
import unicodedata
import zlib

import numpy as np
import numpy.typing as npt

_NUM_PERMUTATIONS, _NUM_BANDS = 126, 21
_MOST_IN_BUCKET = 500  # texts of one template share a bucket: of these only the first are compared
_MARGIN = 0.15  # about three standard deviations of the similarity that 126 permutations estimate
_SHINGLE, _MOST_SHINGLES = 5, 20_000
_WORD = re.compile(r"[^\W_]+")


class TextIndex:
    """Numbers texts, the same number for near duplicates: that of the first of them.

    ``least_similarity``: the Jaccard index from which on two texts are near duplicates.
    """

    def __init__(self, least_similarity: float = 0.8) -> None:
        self._least = least_similarity
        self._shingles: list[frozenset[int]] = []
        self._signatures = np.zeros((1024, _NUM_PERMUTATIONS), np.uint64)
        self._buckets: dict[bytes, list[int]] = {}
        rng = np.random.default_rng(0)
        self._factors = rng.integers(0, 1 << 62, (_NUM_PERMUTATIONS, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._offsets = rng.integers(0, 1 << 62, (_NUM_PERMUTATIONS, 1), dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._shingles)

    def add(self, text: str) -> int:
        """The number of the first text that is a near duplicate, or of this one if it is new."""
        shingles = cut_shingles(text)
        signature = self._sign(shingles)
        rows = signature.reshape(_NUM_BANDS, -1)
        buckets = [self._buckets.setdefault(bytes([i]) + row.tobytes(), []) for i, row in enumerate(rows)]
        candidates = np.array(sorted({number for bucket in buckets for number in bucket}), np.int64)
        estimates = (self._signatures[candidates] == signature).mean(axis=1)
        for number in candidates[estimates >= self._least - _MARGIN].tolist():
            if find_similarity(shingles, self._shingles[number]) >= self._least:
                return number
        number = len(self._shingles)
        self._shingles.append(shingles)
        if number == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._signatures[number] = signature
        for bucket in buckets:
            if len(bucket) < _MOST_IN_BUCKET:
                bucket.append(number)
        return number

    def _sign(self, shingles: frozenset[int]) -> npt.NDArray[np.uint64]:
        hashes = np.fromiter(shingles, np.uint64, len(shingles))
        least = np.full(_NUM_PERMUTATIONS, np.iinfo(np.uint64).max, np.uint64)
        for begin in range(0, len(hashes), 4096):  # to bound the memory
            mixed = self._factors * hashes[begin : begin + 4096] + self._offsets  # modulo 2^64
            least = np.minimum(least, _mix(mixed).min(axis=1))
        return least


def cut_shingles(text: str) -> frozenset[int]:
    """Hashes of the character 5-grams of the text, without regard to case, punctuation and spacing."""
    words = " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))
    data = words or text.strip()
    last = min(max(1, len(data) - _SHINGLE + 1), _MOST_SHINGLES)
    return frozenset(zlib.crc32(data[i : i + _SHINGLE].encode("utf-8", "replace")) for i in range(last))


def find_similarity(first: frozenset[int], second: frozenset[int]) -> float:
    """The Jaccard index of two sets."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A bijection that mixes the bits (the finalizer of MurmurHash3)."""
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xFF51AFD7ED558CCD)
    return values ^ (values >> np.uint64(33))
