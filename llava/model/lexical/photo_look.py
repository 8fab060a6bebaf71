"""Where the main thing of a photograph is, its colors, and the colors around it, by the class activation map.

The map tells how much each place of the photo encoder's last feature map speaks for a class (Zhou et al., "Learning
Deep Features for Discriminative Localization", 2016, section 2). A thing's colors are those that are more frequent
where the map is high than where it is low, so that what is seen of the ground between them does not count.

Letters in shapes: H height and W width, of the feature map or an image, K classes, S side of the grid that colors are
counted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from llava.model.lexical.colour_names import COLOURS, name_colour
from llava.model.lexical.face_finder import Face
from llava.model.lexical.flat_fills import find_fills
from llava.model.lexical.photo_frame import Frame, cut
from llava.model.lexical.photo_line import PERSON, Guess, Light, Photo, guess_main
from llava.model.lexical.thing_guesses import class_names, sum_by_kind

_SIDE = 96
# Where the map is higher than the first part of its maximum is the thing, and where it is lower than the second, the
# ground, which is at least a tenth of the image.
_THING, _GROUND, _LEAST_GROUND = 0.5, 0.2, 0.1
# So much of a color's share of the ground is taken off its share of the thing.
_OFF = 0.6
# What is black or gray is often a shadow.
_SHADOWS, _SHADOW_WEIGHT = ("black", "gray"), 0.7
# A second color has at least this share of the thing, and counts this much of the first; one of the ground this share.
_LEAST_SHARE, _LEAST_PART, _LEAST_GROUND_SHARE = 0.12, 0.4, 0.2
# Where the ground's top and bottom have different colors, each with this share of a third of the rows, of which at
# least this share is ground, the line tells both.
_LEAST_BAND_SHARE, _LEAST_BAND = 0.45, 0.25
# A thing is in the middle third of the image if its center is not farther from the middle than this.
_MIDDLE = 0.14
# White is what is as bright as this quantile of an image's pixels, which has to be this bright itself, and by so much
# brighter than the darkest: a gray wall has no white. Of 265 photographs, one has no such difference and no white.
_BRIGHTEST, _LEAST_BRIGHTEST, _LEAST_RANGE = 0.98, 0.6, 0.25
# What is as bright as this, 0 to 255, is white and no gray.
_SHADED_WHITE = 180
# Mean brightness of a dark image, and the mean difference of the channels in one without colors, 0 to 1.
_DARK, _COLOURLESS = 0.2, 0.02
_BITS = 5
# A face of this part of the image's height is the main thing's, unless that is surely something that nobody wears.
_LEAST_FACE = 0.1
_WORN = frozenset(
    """apron armor bandage belt cap coat dress glasses glove hair hat helmet makeup mask microphone necklace scarf shirt
    skirt suit sweater swimsuit tie umbrella underwear""".split()
) | {"hair clip", "pair of trousers", "piece of clothing", PERSON}
# In widths and heights of a face, from its middle and its chin: half of what is around a person, and of the clothes.
_AROUND, _CLOTHES = (1.6, 3.5), (1.0, 2.5)

Map = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.float32]
# More lines are read on pages alone, and of what is drawn more than this share is flat.
_MOST_LINES, _MOST_FLAT = 6, 0.3
# A canvas whose values differ by no more than this is blank.
_BLANK = 8


def is_photo(canvas_3HW: torch.Tensor, map_SS: Map, said: str) -> bool:
    """Whether a canvas, uint8, without its frame, is a photograph and no page. ``said``: what is told of it.

    A photograph has no flat fills, as long as little is read in it; or, before a blurred or an even ground, nothing is
    read or found, and the thing itself is not flat, as clip art is.
    """
    values_3N = canvas_3HW.flatten(1)
    if said.count("\n") >= _MOST_LINES or int((values_3N.amax(1).int() - values_3N.amin(1).int()).max()) <= _BLANK:
        return False
    if find_fills(canvas_3HW) is None:
        return True
    return not said and _measure_flatness(canvas_3HW, map_SS > _THING) <= _MOST_FLAT


def _measure_flatness(canvas_3HW: torch.Tensor, is_thing_SS: npt.NDArray[np.bool_]) -> float:
    """The share of a thing's pixels that are exactly like those above and left of them."""
    some = canvas_3HW[:, ::2, ::2]
    is_flat_HW = ((some[:, 1:, 1:] == some[:, :-1, 1:]) & (some[:, 1:, 1:] == some[:, 1:, :-1])).all(0)
    is_thing_11SS = torch.from_numpy(is_thing_SS).to(canvas_3HW.device)[None, None].float()
    is_thing_HW = F.interpolate(is_thing_11SS, is_flat_HW.shape, mode="nearest")[0, 0] > 0
    return float((is_flat_HW & is_thing_HW).sum() / is_thing_HW.sum().clamp(min=1))


def look_at_photo(pixels_3HW: torch.Tensor, map_SS: Map, logits_K: torch.Tensor, faces: Sequence[Face] = ()) -> Photo:
    """What a photograph's line says, by its RGB in 0..1, where its main thing is (``locate_thing``), and its faces."""
    side = (_SIDE, _SIDE)
    small = F.interpolate(pixels_3HW[None].float(), side, mode="bilinear", antialias=True, align_corners=False)[0]
    pixels = small.permute(1, 2, 0).cpu().numpy()
    guess = guess_main(logits_K)
    is_thing, is_ground = map_SS > _THING, map_SS < max(_GROUND, float(np.quantile(map_SS, _LEAST_GROUND)))
    is_thing = is_thing if is_thing.any() else np.ones_like(is_thing)
    nearest = max(faces, key=lambda face: face.box[3] - face.box[1], default=None)
    cell = _find_cell(map_SS * is_thing)
    if nearest is not None and _is_main(nearest, guess):
        guess = Guess((PERSON,), guess.name if guess.kinds[:1] == (PERSON,) else "", is_sure=True)
        around, clothes = _mark_person(nearest, *_AROUND, with_face=True), _mark_person(nearest, *_CLOTHES)
        cell = _find_cell(around.astype(np.float32))
        is_thing, is_ground = (clothes if clothes.any() else around), ~around
    light = _judge_light(pixels)
    labels = _name_colours(pixels)
    inside, outside = (_count(labels[mask]) for mask in (is_thing, is_ground))
    score = inside - _OFF * outside
    if guess.kinds[:1] == (PERSON,) and nearest is not None:  # skin is seen below a chin, too
        score -= _OFF * _count(labels[_mark_person(nearest, 0.5, 0.0, with_face=True)])
    for shadow in _SHADOWS:
        score[COLOURS.index(shadow)] *= _SHADOW_WEIGHT
    first, second = np.argsort(-score, kind="stable")[:2]
    has_second = score[second] >= _LEAST_PART * score[first] and inside[second] >= _LEAST_SHARE
    ground = [int(i) for i in np.argsort(-outside, kind="stable")[:2] if outside[i] >= _LEAST_GROUND_SHARE]
    bands = _find_bands(labels, is_ground)
    return Photo(
        guess,
        cell,
        tuple(COLOURS[i] for i in ((first, second) if has_second and score[first] > 0 else (first,))),
        tuple(COLOURS[i] for i in bands or ground),
        light,
        is_split=bool(bands),
        people=tuple(_find_cell(_mark_person(face, *_AROUND, with_face=True).astype(np.float32)) for face in faces),
    )


def _is_main(face: Face, guess: Guess) -> bool:
    is_near = face.box[3] - face.box[1] >= _LEAST_FACE
    return is_near and (not guess.is_sure or guess.kinds[0] in _WORN)


def _mark_person(face: Face, widths: float, heights: float, *, with_face: bool = False) -> npt.NDArray[np.bool_]:
    """The cells [S, S] up to so many of a face's widths beside its middle and heights below its chin."""
    left, top, right, bottom = face.box
    middle, half = (left + right) / 2, widths * (right - left)
    end = bottom + heights * (bottom - top)
    steps = (np.arange(_SIDE) + 0.5) / _SIDE
    is_row = (steps >= (top if with_face else bottom)) & (steps <= end)
    is_column = (steps >= middle - half) & (steps <= middle + half)
    return is_row[:, None] & is_column[None, :]


def _find_bands(labels_SS: npt.NDArray[np.int64], is_ground_SS: npt.NDArray[np.bool_]) -> list[int]:
    """The ground's colors at the top and at the bottom; none if they are the same, or one has no clear color."""
    found = []
    for band in (slice(0, _SIDE // 3), slice(-_SIDE // 3, None)):
        is_ground = is_ground_SS[band]
        shares = _count(labels_SS[band][is_ground])
        if is_ground.mean() < _LEAST_BAND or shares.max() < _LEAST_BAND_SHARE:
            return []
        found.append(int(shares.argmax()))
    return found if found[0] != found[1] else []


def cut_map(map_SS: Map, frame: Frame) -> Map:
    """The part of a map within a frame, as large as the whole."""
    part = cut(torch.from_numpy(map_SS)[None], frame)[None]
    within: Map = F.interpolate(part, (_SIDE, _SIDE), mode="bilinear", align_corners=False)[0, 0].numpy()
    return within


def locate_thing(logits_HWK: torch.Tensor, logits_K: torch.Tensor) -> Map:
    """How much each place of an image speaks for its likeliest kind, 0 to 1 [S, S].

    ``logits_HWK``: what each position of the encoder's last feature map adds to the logits. ``logits_K``: the image's.
    """
    kind = sum_by_kind(logits_K)[0][0]
    chances_K = logits_K.float().softmax(0)
    of_kind = torch.tensor([i for i, (_, other) in enumerate(class_names()) if other == kind], device=logits_K.device)
    shares = chances_K[of_kind] / chances_K[of_kind].sum()
    map_HW = (logits_HWK[..., of_kind].float() @ shares - logits_HWK.float().mean(-1)).clamp(min=0)
    map_SS = F.interpolate(map_HW[None, None], (_SIDE, _SIDE), mode="bilinear", align_corners=False)[0, 0]
    activation: Map = (map_SS / map_SS.max().clamp(min=1e-6)).cpu().numpy()
    return activation


def _find_cell(weight_SS: Map) -> int:
    """The ninth of the image in which the weight's center is."""
    if weight_SS.sum() <= 0:
        return 4
    middles = (np.arange(_SIDE) + 0.5) / _SIDE - 0.5
    row, column = (float((weight_SS.sum(axis) * middles).sum() / weight_SS.sum()) for axis in (1, 0))
    return 3 * _third(row) + _third(column)


def _third(offset: float) -> int:
    return 0 if offset < -_MIDDLE else 2 if offset > _MIDDLE else 1


def _judge_light(pixels_SS3: Pixels) -> Light:
    if (pixels_SS3.max(-1) - pixels_SS3.min(-1)).mean() < _COLOURLESS:
        return "black and white"
    return "dark" if pixels_SS3.mean() < _DARK else "bright"


def _name_colours(pixels_SS3: Pixels) -> npt.NDArray[np.int64]:
    """The number of each pixel's color in ``COLOURS`` [S, S]."""
    darkest, brightest = np.quantile(pixels_SS3.max(-1), (1 - _BRIGHTEST, _BRIGHTEST)).tolist()
    brightest = max(brightest, _LEAST_BRIGHTEST) if brightest - darkest > _LEAST_RANGE else 1.0
    digits = (np.clip(pixels_SS3 / brightest, 0, 1) * 255).astype(np.int64) >> (8 - _BITS)
    return _colour_table()[(digits[..., 0] << (2 * _BITS)) | (digits[..., 1] << _BITS) | digits[..., 2]]


@cache
def _colour_table() -> npt.NDArray[np.int64]:
    """The color of each bin of RGB."""
    steps = [(i + 0.5) * (1 << (8 - _BITS)) for i in range(1 << _BITS)]
    named = [_name_shaded((red, green, blue)) for red in steps for green in steps for blue in steps]
    return np.array(named)


def _name_shaded(rgb: tuple[float, float, float]) -> int:
    """The color of what may be in the shade, as a white thing is in most photographs."""
    name = name_colour(*rgb)
    return COLOURS.index("white" if name == "gray" and max(rgb) >= _SHADED_WHITE else name)


def _count(labels_N: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The share of each color."""
    return np.bincount(labels_N, minlength=len(COLOURS)) / max(1, len(labels_N))
