"""All bars of a chart from some of them: bars of one chart begin at one base, and many share a colour.

Along the base, every run of pixels with the colour of a found bar is a bar; on its end, another may stand as the next
part of a stack. What the net saw twice or cut in two becomes one again. Needs two bars at one base to begin with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

Box = tuple[float, float, float, float]
Pixels = npt.NDArray[np.int16]
# A pixel is of a fill if no channel is further than this from it.
_TOLERANCE = 30
_LEAST_PX = 2
_MAX_GAP_PX = 2
_MAX_PARTS = 8


def complete_bars(image: Tensor, boxes: Sequence[Box]) -> list[Box] | None:
    """The boxes of all bars that begin at the base of these, with the parts of stacks; None if there is no base.

    ``image``: uint8 [3, H, W].
    """
    if len(boxes) < 2:
        return None
    pixels = image.permute(1, 2, 0).cpu().numpy().astype(np.int16)
    standing = _gather(boxes)
    turned = [(y0, -x1, y1, -x0) for x0, y0, x1, y1 in boxes]
    lying = _gather(turned)
    if max(len(standing), len(lying)) < 2:
        return None
    if len(standing) >= len(lying):
        return _trace(pixels, [boxes[i] for i in standing], boxes)
    # Lying bars stand on their base once rows and columns are swapped and the new rows run the other way.
    width = pixels.shape[1]
    flipped = np.ascontiguousarray(pixels.transpose(1, 0, 2)[::-1])
    stood = [(y0, width - x1, y1, width - x0) for x0, y0, x1, y1 in boxes]
    found = _trace(flipped, [stood[i] for i in lying], stood)
    return found and [(width - y1, x0, width - y0, x1) for x0, y0, x1, y1 in found]


def _gather(boxes: Sequence[Box]) -> list[int]:
    """The indices of the boxes whose lower edges agree with those of most other boxes."""
    ends = np.array([box[3] for box in boxes])
    near = max(2.5, 0.02 * float(ends.max() - min(box[1] for box in boxes)))
    agree = np.abs(ends[:, None] - ends[None]) <= near
    return [int(i) for i in np.flatnonzero(agree[int(agree.sum(1).argmax())])]


def _trace(pixels: Pixels, rooted: list[Box], boxes: Sequence[Box]) -> list[Box] | None:
    base = float(np.median([box[3] for box in rooted]))
    widths = [box[2] - box[0] for box in rooted]
    row = min(max(0, round(base - max(2.0, 0.004 * pixels.shape[0]))), pixels.shape[0] - 1)
    grounds = _list_grounds(pixels, rooted)
    fills: list[Pixels] = []
    for x0, y0, x1, y1 in boxes:
        rows, columns = (
            slice(max(0, int(0.65 * low + 0.35 * high)), int(0.35 * low + 0.65 * high) + 1)
            for low, high in ((y0, y1), (x0, x1))
        )
        core = pixels[rows, columns]
        if not core.size:
            continue
        fill = np.median(core.reshape(-1, 3), axis=0).astype(np.int16)
        is_even = (np.abs(core - fill).max(-1) <= _TOLERANCE).mean() > 0.6
        is_ground = any(np.abs(fill - ground).max() <= 20 for ground in grounds)
        if is_even and not is_ground and all(np.abs(fill - other).max() > _TOLERANCE for other in fills):
            fills.append(fill)
    found: list[Box] = []
    # What is wider than all bars that were seen is the ground, or a frame.
    most = 1.6 * max(widths) + 4
    least = max(3.0, 0.3 * float(np.median(widths)))
    for fill in fills:
        is_fill = np.abs(pixels[row] - fill).max(-1) <= _TOLERANCE
        edges = np.flatnonzero(np.diff(np.concatenate(([0], is_fill.astype(np.int8), [0]))))
        bars: list[list[Box]] = []
        for left, right in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if not 1 < right - left <= most:
                continue
            parts = _climb(pixels, left, right, row, base, fill, fills)
            if parts and bars and _is_cut(bars[-1], parts):
                parts = [(old[0], new[1], new[2], new[3]) for old, new in zip(bars.pop(), parts, strict=True)]
            if parts:
                bars.append(parts)
        found += [part for parts in bars if parts[0][2] - parts[0][0] >= least for part in parts]
    return found


def _is_cut(left: list[Box], right: list[Box]) -> bool:
    """Whether two neighbours are one bar, or stack, that a line of the grid cuts: they end alike."""
    if len(left) != len(right) or right[0][0] - left[0][2] > _MAX_GAP_PX + 1:
        return False
    return all(abs(a[1] - b[1]) <= 1 for a, b in zip(left, right, strict=True))


def _list_grounds(pixels: Pixels, rooted: list[Box]) -> list[Pixels]:
    """The colours of the image's corner and of what is above the bars."""
    above = [pixels[max(0, int(y0) - 5), min(int((x0 + x1) / 2), pixels.shape[1] - 1)] for x0, y0, x1, _ in rooted]
    return [pixels[1, 1], np.median(np.stack(above), axis=0).astype(np.int16)]


def _climb(
    pixels: Pixels, left: int, right: int, row: int, base: float, fill: Pixels, fills: list[Pixels]
) -> list[Box]:
    """The bar on this run of the base, and the parts that stand on it."""
    quarter = (right - left) // 4
    columns = pixels[: row + 1, left + quarter : max(left + quarter + 1, right - quarter)]
    parts: list[Box] = []
    bottom, at = base, row
    for _ in range(_MAX_PARTS):
        is_fill = (np.abs(columns - fill).max(-1) <= _TOLERANCE).mean(1) >= 0.5
        top, gap = at + 1, 0
        while at >= 0 and gap <= _MAX_GAP_PX:
            if is_fill[at]:
                top, gap = at, 0
            else:
                gap += 1
            at -= 1
        if bottom - top >= _LEAST_PX:
            parts.append((float(left), float(top), float(right), float(bottom)))
        bottom, at = float(top), top - 3
        if at < 0:
            break
        above = columns[at]
        nexts = [f for f in fills if (np.abs(above - f).max(-1) <= _TOLERANCE).mean() >= 0.5]
        if not nexts or np.abs(nexts[0] - fill).max() <= _TOLERANCE:
            break
        fill = nexts[0]
    return parts
