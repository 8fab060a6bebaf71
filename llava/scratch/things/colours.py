"""Names of colours as people use them."""

from __future__ import annotations

import numpy as np

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "gray", "white")

SMALLEST_SHARE = 0.22
"""A colour that covers less of a thing than this is not one of its main colours."""


def classify_colours(rgb: np.ndarray) -> np.ndarray:
    """Index into `COLOURS` of 8-bit RGB values [..., 3]."""
    red, green, blue = (rgb[..., i].astype(np.float32) / 255 for i in range(3))
    value, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = value - low
    safe = np.where(chroma == 0, 1, chroma)
    hue = np.select(
        [value == red, value == green],
        [(green - blue) / safe % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )  # fmt: skip
    hue = hue * 60
    saturation = chroma / np.maximum(value, 1e-6)
    gray = (chroma < 0.1) | (saturation < 0.16)
    names = np.select(
        [
            (value < 0.2) | (gray & (value < 0.28)),
            gray & (value > 0.86),
            gray,
            # Dark or dull orange is brown, light red and purple are pink.
            (hue >= 10) & (hue < 48) & ((value < 0.66) | ((value < 0.86) & (saturation < 0.5))),
            ((hue < 14) | (hue >= 335)) & (saturation < 0.62) & (value > 0.68),
            (hue >= 290) & (hue < 345) & (value > 0.62),
            (hue < 14) | (hue >= 345),
            hue < 41,
            hue < 67,
            hue < 166,
            hue < 255,
        ],
        ["black", "white", "gray", "brown", "pink", "pink", "red", "orange", "yellow", "green", "blue"],
        "purple",
    )
    order = np.argsort(COLOURS)
    return order[np.searchsorted(np.asarray(COLOURS)[order], names)]


def name_colours(rgba: np.ndarray) -> list[str]:
    """The main colours of the opaque pixels of an 8-bit RGBA image, the largest first; one to three names."""
    opaque = rgba[rgba[..., 3] > 128][:, :3]
    shares = np.bincount(classify_colours(opaque), minlength=len(COLOURS)) / max(len(opaque), 1)
    largest = np.argsort(-shares)
    return [COLOURS[i] for i in largest[:3] if shares[i] >= SMALLEST_SHARE] or [COLOURS[largest[0]]]
