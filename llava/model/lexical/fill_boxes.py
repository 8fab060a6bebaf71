"""Bars and keys of legends as boxes of flat fills: exact to a pixel, however many there are.

A box is a run of columns whose pixels of one fill begin and end at the same rows. Lines of a grid, hatches and thin
edges that cross it do not end it, nor does text inside. Lying bars are found in the same way with rows and columns
swapped. Bars are the boxes that begin at one base, or stand on the end of one that does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from llava.model.lexical.flat_fills import Fills, Labels
from llava.model.lexical.hues import name_color
from llava.model.lexical.object_finder import Drawn

# What crosses a bar without ending it is at most this wide.
_MAX_GAP_PX = 4
# The edges between two parts of a stack are together at most this wide.
_MAX_EDGE_PX = 7
_LEAST_PX = 3
# Text inside of a bar is at most this wide.
_MAX_TEXT_PX = 120
# How much of the image all bars cover at least, and how much a fill differs from the ground in a channel.
_LEAST_SHARE, _CONTRAST = 0.01, 24
_MAX_BOXES = 150
# Charts have at most a third as many runs of one fill in a column: with more, the image is a mosaic or a texture.
_MAX_RUNS = 40_000
_SURELY_BROAD_PX = 12
# An edge is blurred over at most so many pixels.
_BLUR_PX = 3
# On an image of this size, axes are several pixels broad.
_LARGE_PX = 600


class FillBox(NamedTuple):
    """A box of one fill, its edges in pixels."""

    fill: int
    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """From left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """From top to bottom."""
        return self.bottom - self.top


def find_bars(fills: Fills, texts: Sequence[tuple[float, ...]] = ()) -> list[Drawn]:
    """The bars of a chart, kind "bar", and keys of its legend, kind "key"; nothing if there are no bars.

    ``texts``: the boxes of lines of text, beside which keys are looked for.
    """
    best: tuple[float, list[FillBox], list[FillBox]] = (0.0, [], [])
    for is_lying in (False, True):
        labels = np.ascontiguousarray(fills.labels.T[::-1] if is_lying else fills.labels)
        boxes = _find_boxes(labels, [*fills.grounds, *_find_pale(fills)])
        if len(boxes) > _MAX_BOXES:
            boxes = sorted(boxes, key=lambda box: -box.width * box.height)[:_MAX_BOXES]
        alone = _drop_covered([box for box in boxes if _stands_alone(labels, box, fills.is_noisy)])
        score, bars = _choose_bars(alone, labels.shape)
        if score > best[0] + 0.5:
            chosen = set(bars)
            rest = [box for box in boxes if box not in chosen]
            best = (score, bars, rest) if not is_lying else (score, *_turn_back(bars, rest, fills.labels.shape[1]))
    _, bars, rest = best
    if not bars:
        return []
    drawn = [_draw(fills, box, "bar") for box in bars]
    # The blurred edges of letters are gray, too, and lower than a key beside such letters.
    rest = [box for box in rest if not any(_is_within(box, text) for text in texts)]
    keys = _choose_keys(fills, rest, {box.fill for box in bars})
    for key in find_keys(fills, {box.fill for box in bars}, texts):
        if not any(_touches(key.box, other.box) for other in drawn + keys):
            keys.append(key)
    return drawn + sorted(keys, key=lambda key: (round(key.box[1] / 6), key.box[0]))


def _is_within(box: FillBox, text: tuple[float, ...]) -> bool:
    """Whether a box is a part of a letter of a line of text."""
    x0, y0, x1, y1 = text
    return x0 <= box.left and box.right <= x1 and y0 <= box.top and box.bottom <= y1 and box.height < 0.45 * (y1 - y0)


def _touches(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def find_keys(fills: Fills, colours: Collection[int], texts: Sequence[tuple[float, ...]]) -> list[Drawn]:
    """The keys of a legend for these fills: fields of colour to the left of texts, whose boxes are given."""
    height, width = fills.labels.shape
    keys = []
    for x0, y0, x1, y1 in texts:
        size = y1 - y0
        top, bottom = max(0, int(y0 + 0.35 * size)), int(y0 + 0.55 * size) + 1
        # A key may have been read as a part of the text.
        for right in (x0 - 0.15 * size, min(x1 - size, x0 + 1.6 * size)):
            left, end = max(0, int(right - 2.8 * size)), min(width, int(right))
            strip = fills.labels[top:bottom, left:end]
            counts = {fill: int((strip == fill).sum()) for fill in colours}
            best = max(counts, key=lambda fill: counts[fill], default=-1)
            if end - left < 4 or counts[best] < 0.25 * strip.size:
                continue
            x = np.flatnonzero((strip == best).mean(0) > 0.5)
            if not len(x):
                continue
            column = fills.labels[max(0, int(y0 - size)) : min(height, int(y1 + size)), left + int(np.median(x))]
            # What is much higher than the text is a bar or a wedge.
            if (column == best).sum() < 1.7 * size:
                keys.append(FillBox(best, left + int(x[0]), top, left + int(x[-1]) + 1, bottom))
                break
    return [_draw(fills, box, "key") for box in keys]


def _choose_keys(fills: Fills, rest: Sequence[FillBox], colours: Collection[int]) -> list[Drawn]:
    height, width = fills.labels.shape
    keys = [
        box
        for box in rest
        if box.fill in colours and 4 <= box.height <= 0.09 * height and 4 <= box.width <= 0.12 * width
    ]
    return [_draw(fills, box, "key") for box in sorted(keys, key=lambda box: (round(box.top / 6), box.left))]


def _find_pale(fills: Fills) -> list[int]:
    """The fills that hardly differ from a ground."""
    grounds = fills.colours[list(fills.grounds)]
    return [i for i, colour in enumerate(fills.colours) if np.abs(grounds - colour).max(-1).min() < _CONTRAST]


def _stands_alone(labels: Labels, box: FillBox, is_noisy: bool) -> bool:
    """Whether a box ends where its fill does: a part of a line or of a round shape does not."""
    height, width = labels.shape
    # A blurred edge may pass for the fill in some rows or columns of pixels; a part of a thin line is small.
    steps = range(1, 5 if is_noisy or min(box.width, box.height) >= _SURELY_BROAD_PX else 3)

    def is_end(strips: list[Labels]) -> bool:
        return not strips or min(float((strip == box.fill).mean()) for strip in strips) < 0.45

    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    return (
        is_end([labels[rows, box.left - i] for i in steps if box.left >= i])
        and is_end([labels[rows, box.right - 1 + i] for i in steps if box.right - 1 + i < width])
        and is_end([labels[box.top - i, columns] for i in steps if box.top >= i])
        and is_end([labels[box.bottom - 1 + i, columns] for i in steps if box.bottom - 1 + i < height])
    )


def _drop_covered(boxes: list[FillBox]) -> list[FillBox]:
    """The boxes without those that lie mostly within larger ones, as the lines of a hatch do."""
    kept: list[FillBox] = []
    for box in sorted(boxes, key=lambda b: -b.width * b.height):
        if all(_share(box, other) < 0.5 for other in kept):
            kept.append(box)
    return kept


def _share(inner: FillBox, outer: FillBox) -> float:
    across = min(inner.right, outer.right) - max(inner.left, outer.left)
    down = min(inner.bottom, outer.bottom) - max(inner.top, outer.top)
    return max(0, across) * max(0, down) / max(1, inner.width * inner.height)


def _turn_back(bars: list[FillBox], rest: list[FillBox], width: int) -> tuple[list[FillBox], list[FillBox]]:
    # Rows were columns, from the right.
    def turn(box: FillBox) -> FillBox:
        return FillBox(box.fill, width - box.bottom, box.left, width - box.top, box.right)

    return [turn(box) for box in bars], [turn(box) for box in rest]


def _draw(fills: Fills, box: FillBox, kind: str) -> Drawn:
    inside = fills.planes[:, box.top : box.bottom, box.left : box.right]
    colour = np.median(inside[:, fills.labels[box.top : box.bottom, box.left : box.right] == box.fill], axis=1)
    edges = _refine(fills, box, colour) if kind == "bar" else (box.left, box.top, box.right, box.bottom)
    return Drawn(kind, name_color(colour)[0], edges, 1.0)


def _refine(fills: Fills, box: FillBox, colour: np.ndarray) -> tuple[float, float, float, float]:
    """The edges of a box to a part of a pixel: blurred pixels beyond it belong to it as far as they have its colour."""
    height, width = fills.labels.shape
    quarter_x, quarter_y = box.width // 4, box.height // 4
    columns = slice(box.left + quarter_x, box.right - quarter_x)
    rows = slice(box.top + quarter_y, box.bottom - quarter_y)

    def reach(strips: list[np.ndarray]) -> float:
        if len(strips) <= _BLUR_PX:
            return 0.0
        means = [np.median(strip, axis=1) for strip in strips]
        away = colour - means[_BLUR_PX]
        size = float(away @ away)
        if size < 100:
            return 0.0
        shares = [float(np.clip((mean - means[_BLUR_PX]) @ away / size, 0, 1)) for mean in means[:_BLUR_PX]]
        return sum(shares)

    count = range(1, _BLUR_PX + 2)
    planes = fills.planes
    above = [planes[:, box.top - i, columns] for i in count if box.top >= i]
    below = [planes[:, box.bottom - 1 + i, columns] for i in count if box.bottom - 1 + i < height]
    left = [planes[:, rows, box.left - i] for i in count if box.left >= i]
    right = [planes[:, rows, box.right - 1 + i] for i in count if box.right - 1 + i < width]
    return box.left - reach(left), box.top - reach(above), box.right + reach(right), box.bottom + reach(below)


def _find_boxes(labels: Labels, grounds: Sequence[int]) -> list[FillBox]:
    """All boxes of fills that are no ground."""
    height, width = labels.shape
    columns = np.ascontiguousarray(labels.T)
    padded = np.full((width, height + 2), -1, dtype=np.int16)
    padded[:, 1:-1] = columns
    for ground in grounds:
        padded[padded == ground] = -1
    change = padded[:, 1:] != padded[:, :-1]
    x, y = np.nonzero(change)
    starts = padded[x, y + 1] >= 0
    x0, y0 = x[starts], y[starts]
    fill = padded[x0, y0 + 1]
    # The next change of the same column ends the run.
    y1 = y[np.flatnonzero(starts) + 1]
    order = np.lexsort((y0, x0, fill))
    x0, y0, y1, fill = x0[order], y0[order], y1[order], fill[order]
    if not len(x0):
        return []
    joins = (fill[1:] == fill[:-1]) & (x0[1:] == x0[:-1]) & (y0[1:] - y1[:-1] <= _MAX_GAP_PX)
    first = np.flatnonzero(np.concatenate(([True], ~joins)))
    last = np.concatenate((first[1:], [len(x0)])) - 1
    filled = np.add.reduceat(y1 - y0, first)
    x0, y0, y1, fill = x0[first], y0[first], y1[last], fill[first]
    keep = (y1 - y0 >= _LEAST_PX) & (filled >= 0.5 * (y1 - y0))
    if keep.sum() > _MAX_RUNS:
        return []
    runs = zip(*(part[keep].tolist() for part in (fill, x0, y0, y1)), strict=True)
    return _merge_parts(_gather_columns(runs), columns)


def _gather_columns(runs: Iterable[tuple[int, ...]]) -> list[FillBox]:
    """Runs (fill, x, top, bottom), sorted by fill and x, as boxes of neighbouring columns that begin and end alike."""
    found: list[list[int]] = []
    # The boxes of a column by their upper edges: thousands of small ones stand in a column of noise.
    before: dict[int, list[int]] = {}
    now: dict[int, list[int]] = {}
    at = (-1, -1)
    for fill, x, top, bottom in runs:
        if (fill, x) != at:
            before, now = (now if at == (fill, x - 1) else {}), {}
            at = (fill, x)
        alike = (before[y] for y in (top - 1, top, top + 1) if y in before)
        box = next((b for b in alike if abs(b[4] - bottom) <= 1), None)
        if box is None:
            box = [fill, x, top, x + 1, bottom]
            found.append(box)
        box[3] = x + 1
        now[box[2]] = box
    return [FillBox(*box) for box in found if box[3] - box[1] >= 2]


def _merge_parts(boxes: list[FillBox], columns: Labels) -> list[FillBox]:
    """Boxes that a text inside or a line across has cut into parts side by side become one."""
    merged: list[FillBox] = []
    # Parts of one begin alike and are near. A photograph that looks flat has thousands of boxes, and so has a mosaic.
    at_top: dict[tuple[int, int], list[int]] = {}
    touching = _count_touching(boxes)
    for box in sorted(boxes, key=lambda b: (b.fill, b.left)):
        alike = []
        for key in ((box.fill, box.top + away) for away in (-1, 0, 1)):
            if key in at_top:
                at_top[key] = [i for i in at_top[key] if merged[i].right >= box.left - _MAX_TEXT_PX]
                alike += at_top[key]
        found = next((i for i in sorted(alike) if _is_same(merged[i], box, columns, touching[box.fill] < 2)), None)
        if found is None:
            found = len(merged)
            merged.append(box)
        else:
            other = merged[found]
            at_top[other.fill, other.top].remove(found)
            top, bottom = min(other.top, box.top), max(other.bottom, box.bottom)
            merged[found] = FillBox(box.fill, other.left, top, max(other.right, box.right), bottom)
        at_top.setdefault((box.fill, merged[found].top), []).append(found)
    return [box for box in merged if box.width >= _LEAST_PX]


def _count_touching(boxes: Sequence[FillBox]) -> Counter[int]:
    """By fill: how many neighbours touch, but for an edge, and are not equally high, as those of a histogram."""
    found: Counter[int] = Counter()
    # The blurred edge of an axis is no bar.
    thick = (box for box in boxes if box.width >= _LEAST_PX and box.height > _LEAST_PX)
    ordered = sorted(thick, key=lambda b: (b.fill, b.left))
    for left, right in pairwise(ordered):
        is_near = left.fill == right.fill and 0 <= right.left - left.right <= _MAX_GAP_PX
        found[left.fill] += is_near and abs(left.bottom - right.bottom) <= 1 and abs(left.top - right.top) > 2
    return found


def _is_same(left: FillBox, right: FillBox, columns: Labels, can_be_cut: bool) -> bool:
    """Whether two boxes are parts of one: a text inside, or a line across, lies between them."""
    gap = right.left - left.right
    if left.fill != right.fill or not -2 <= gap <= _MAX_TEXT_PX:
        return False
    if abs(left.top - right.top) > 1 or abs(left.bottom - right.bottom) > 1:
        return False
    if gap <= _MAX_GAP_PX:
        return gap <= 0 or can_be_cut
    between = columns[left.right : right.left]
    ends = np.concatenate((between[:, left.top + 1 : left.top + 3], between[:, right.bottom - 3 : right.bottom - 1]), 1)
    return bool((ends == left.fill).mean() > 0.7)


def _choose_bars(boxes: list[FillBox], size: tuple[int, ...]) -> tuple[float, list[FillBox]]:
    """How many boxes are bars that stand at one base, less what speaks against that, and these bars."""
    # At its border, it is the image that ends, and not a bar.
    # The blurred edge of a black axis is gray: it belongs to a gray bar, and is one between two.
    near = 2 if max(size) < _LARGE_PX else 3
    boxes = [box for box in boxes if box.width >= _LEAST_PX and box.height >= (2 if near == 2 else near + 1)]
    boxes = [box for box in boxes if min(box.left, box.top) > 0 and box.right < size[1] and box.bottom < size[0]]
    # A fill that is nowhere thicker than a line is one of the axes or the grid.
    thick = {box.fill for box in boxes if min(box.width, box.height) > _MAX_GAP_PX + 1}
    boxes = [box for box in boxes if box.fill in thick]
    best: tuple[float, list[FillBox]] = (0.0, [])
    for base in {box.bottom for box in boxes}:
        rooted = [b for b in boxes if abs(b.bottom - base) <= near or abs(b.top - base) <= near + (b.bottom > base)]
        rooted = [b for b in rooted if abs(b.bottom - base) <= near or b.top >= base - near - 1]
        if len(rooted) < 2:
            continue
        breadth = float(np.median([box.width for box in rooted]))
        slack = max(2.5, 0.1 * breadth)
        if breadth < max(4, 0.006 * size[1]):
            continue
        alike = [box for box in rooted if abs(box.width - breadth) <= slack]
        if len(alike) < max(2, 0.6 * len(rooted)):
            continue
        bars = list(alike)
        bars += _climb(boxes, bars, slack)
        up = sum(abs(box.bottom - base) <= near for box in alike)
        score = len(bars) + 0.3 * up + 1e-6 * sum(box.height * box.width for box in bars)
        if score > best[0] and sum(box.height * box.width for box in bars) > _LEAST_SHARE * size[0] * size[1]:
            best = (score, bars)
    return best


def _climb(boxes: list[FillBox], bars: list[FillBox], slack: float) -> list[FillBox]:
    """The further parts of stacks."""
    found: list[FillBox] = []
    tops = list(bars)
    taken = set(bars)
    while tops:
        under = tops.pop()
        for box in boxes:
            if box in taken or abs(box.bottom - under.top) > _MAX_EDGE_PX:
                continue
            if abs(box.left - under.left) <= slack and abs(box.right - under.right) <= slack:
                found.append(box)
                tops.append(box)
                taken.add(box)
    return found
