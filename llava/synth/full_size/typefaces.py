"""Typefaces of the full-size suite, from the packages of the ``eval`` extra: the generator's, and others."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from llava.synth.drawing import draw_font, font_paths, load_font

# Faces that the generator of the embedded model does not use. Which of them another model's training saw is not known.
_OTHERS = (
    "matplotlib:cmr10.ttf",
    "matplotlib:cmss10.ttf",
    "matplotlib:cmtt10.ttf",
    "matplotlib:cmb10.ttf",
    "matplotlib:STIXGeneralItalic.ttf",
    "matplotlib:STIXGeneralBolIta.ttf",
    "matplotlib:DejaVuSerif-Bold.ttf",
    "matplotlib:DejaVuSansMono-Bold.ttf",
    "font_roboto:Roboto-Black.ttf",
    "font_roboto:Roboto-Light.ttf",
    "font_roboto:Roboto-Italic.ttf",
    "font_source_sans_pro:SourceSansPro-Black.ttf",
    "font_source_sans_pro:SourceSansPro-Light.ttf",
    "font_source_sans_pro:SourceSansPro-It.ttf",
    "font_source_sans_pro:SourceSansPro-Semibold.ttf",
)


@lru_cache(maxsize=1)
def _find_others() -> tuple[str, ...]:
    """The paths of the other faces. Raises UsageError as ``font_paths`` does."""
    font_paths()  # says which package is missing
    import font_roboto
    import font_source_sans_pro
    import matplotlib

    folders = {
        "matplotlib": Path(matplotlib.get_data_path()) / "fonts" / "ttf",
        "font_roboto": Path(font_roboto.__file__).parent / "files",
        "font_source_sans_pro": Path(font_source_sans_pro.__file__).parent / "files",
    }
    return tuple(str(folders[package] / file) for package, file in (name.split(":") for name in _OTHERS))


@lru_cache(maxsize=256)
def _load_other(index: int, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_find_others()[index], size_px, layout_engine=ImageFont.Layout.BASIC)


class Typeface:
    """A random face, to be loaded at several sizes. ``other``: none of those that the generator uses."""

    def __init__(self, rng: random.Random, *, other: bool = False) -> None:
        self._other = other
        self._index = rng.randrange(len(_OTHERS)) if other else draw_font(rng)

    def load(self, size_px: float) -> ImageFont.FreeTypeFont:
        """The face at that size."""
        size = max(8, round(size_px))
        return _load_other(self._index, size) if self._other else load_font(self._index, size)

    def fit(self, text: str, width_px: float, most_px: float) -> ImageFont.FreeTypeFont:
        """The face at the greatest size up to ``most_px`` at which the text is no wider than ``width_px``."""
        font = self.load(most_px)
        wide = font.getlength(text)
        return font if wide <= width_px else self.load(int(most_px * width_px / wide))
