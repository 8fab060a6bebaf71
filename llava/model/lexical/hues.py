"""The common name of any RGB colour, where people would agree on it.

A colour's name is that of the nearest prototype in OKLab. Prototypes are llava.synth's colours and those of common
plotting palettes (matplotlib, seaborn, Office, Google).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Color = tuple[int, int, int]

PROTOTYPES: dict[str, tuple[Color, ...]] = {
    "red": ((215, 35, 35), (214, 39, 40), (255, 0, 0), (196, 78, 82), (180, 20, 20), (234, 67, 53), (145, 10, 10)),
    "orange": ((245, 135, 25), (255, 127, 14), (237, 125, 49), (255, 165, 0), (221, 132, 82), (230, 97, 1)),
    "yellow": ((240, 210, 35), (255, 255, 0), (255, 192, 0), (251, 195, 15), (255, 215, 0), (250, 230, 110)),
    "green": (
        (35, 155, 60), (44, 160, 44), (0, 128, 0), (112, 173, 71), (85, 168, 104), (0, 200, 0), (0, 255, 0),
        (0, 90, 0), (144, 238, 144), (50, 205, 50), (15, 157, 88), (20, 80, 35),
    ),
    "blue": (
        (40, 80, 215), (31, 119, 180), (68, 114, 196), (91, 155, 213), (0, 0, 255), (0, 0, 128), (30, 144, 255),
        (135, 206, 235), (70, 130, 180), (66, 133, 244), (174, 199, 232), (76, 114, 176), (25, 40, 90), (173, 216, 230),
    ),
    "purple": ((125, 45, 170), (148, 103, 189), (128, 0, 128), (129, 114, 179), (150, 43, 160), (180, 150, 210),
               (68, 1, 84)),
    "pink": (
        (245, 130, 185), (227, 119, 194), (255, 192, 203), (255, 105, 180), (218, 139, 195), (247, 182, 210),
        (255, 20, 147),
    ),
    "brown": (
        (125, 75, 35), (140, 86, 75), (139, 69, 19), (147, 120, 96), (160, 82, 45), (90, 50, 20), (100, 65, 45),
        (205, 175, 135), (165, 42, 42),
    ),
    "gray": ((135, 135, 135), (127, 127, 127), (165, 165, 165), (95, 95, 95), (210, 210, 210), (119, 130, 145),
             (70, 70, 70)),
    "black": ((20, 20, 20), (0, 0, 0), (40, 40, 40)),
    "white": ((250, 250, 250), (255, 255, 255), (238, 238, 238)),
    "olive": ((188, 189, 34), (128, 128, 0)),
    "cyan": ((23, 190, 207), (0, 255, 255), (100, 181, 205), (64, 224, 208)),
}  # fmt: skip
# A second-best name must be this much further away (OKLab distance) for the first to be beyond dispute.
_MARGIN = 0.02


def as_oklab(rgb: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """RGB [..., 3] from 0 to 255 as OKLab [..., 3]. Source: https://bottosson.github.io/posts/oklab/."""
    x = np.asarray(rgb, dtype=np.float64) / 255
    x = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    to_lms = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                       [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
    to_lab = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                       [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
    return np.cbrt(x @ to_lms.T) @ to_lab.T


@lru_cache(maxsize=1)
def _table() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    rows = [(color, i) for i, colors in enumerate(PROTOTYPES.values()) for color in colors]
    return as_oklab([color for color, _ in rows]), np.array([i for _, i in rows])


def name_color(color: npt.ArrayLike, *, is_oklab: bool = False) -> tuple[str, bool]:
    """The common name of a colour, RGB from 0 to 255 unless it is OKLab, and whether it is beyond dispute."""
    places, owners = _table()
    distances = np.linalg.norm(places - (np.asarray(color) if is_oklab else as_oklab(color)), axis=-1)
    nearest = np.full(len(PROTOTYPES), np.inf)
    np.minimum.at(nearest, owners, distances)
    first, second = np.sort(nearest)[:2]
    return list(PROTOTYPES)[int(nearest.argmin())], bool(second - first > _MARGIN and first < 0.12)


def measure_contrast(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """The OKLab distance between two RGB colours: .1 is clearly visible, black to white is 1."""
    return float(np.linalg.norm(as_oklab(a) - as_oklab(b)))
