"""The rows of one data file with an index beside it: what all formats answer from the index alone."""

from __future__ import annotations

import numpy as np

from llava.data.row_index import RowIndex
from llava.data.rows import Rows, RowSizes


class IndexedRows(Rows):
    """Rows of the file ``path``, whose index has ``num_words`` and ``num_images`` of each and a ``checksum`` of all."""

    path: str
    index: RowIndex

    def __len__(self) -> int:
        return len(self.index["num_words"])

    def locate(self, index: int) -> tuple[int, str]:
        """The same number, and the file."""
        return index, self.path

    def sizes(self) -> RowSizes:
        """Words and images of all rows, from the index."""
        return RowSizes(self.index["num_words"].astype(np.int64), self.index["num_images"].astype(np.int64))

    def digest(self) -> str:
        """The checksum of all records, from the index."""
        return f"{int(self.index['checksum'][0]):08x}"
