"""Cut-outs: transparent images of one thing each, with its everyday name, kind and colours.

They come from Debian's packages openclipart-png and openclipart-svg (public domain; the titles are in the SVG files)
and fonts-noto-color-emoji (OFL), whose names are in unicode-cldr-core. They are needed at build time only.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from llava.errors import UsageError
from llava.scratch.things.colours import name_colours
from llava.scratch.things.kinds import Kinds
from llava.scratch.things.names import Name, name_phrase, name_title

LONGEST_SIDE_PX = 256
EMOJI_PX = 109
"""The one size that the bitmaps of NotoColorEmoji.ttf have."""

HELD_OUT_SHARE = 10
"""One name in ten is held out."""

# Folders of openclipart with signs, diagrams, flags, abstract shapes and user-interface icons.
SKIPPED_FOLDERS = (
    *(
        "computer/icons",
        "computer/buttons",
        "computer/diagrams",
        "shapes/",
        "signs_and_symbols",
        "geography",
        "special",
    ),
    *("recreation/games/cards", "recreation/religion", "buttons", "logos", "decorations", "tools/weapons"),
    *("transportation/aiga", "transportation/roadsigns", "transportation/boating/", "recreation/sports/sport_"),
)


@dataclass(frozen=True)
class CutOut:
    """One cut-out in the folder that `collect` writes."""

    file: str
    name: str
    kind: str
    colours: list[str]
    """Names of the main colours of its opaque pixels, the largest first; one to three."""
    source: str
    held_out: bool


def is_held_out(name: str) -> bool:
    """Whether a name is one of the tenth that no training sample shows."""
    return hashlib.sha256(name.encode()).digest()[0] % HELD_OUT_SHARE == 0


def collect(debian: Path, folder: Path, kinds: Kinds) -> list[CutOut]:
    """Write every usable cut-out as a PNG file of at most 256 px into a folder, and their list as cutouts.json."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[CutOut] = []
    contents = set()  # many files of openclipart stand in two folders
    for source, name, image in [*_clip_art(debian, kinds), *_emoji(debian, kinds)]:
        trimmed = trim(image)
        if trimmed is None or (content := hashlib.sha256(trimmed.tobytes()).digest()) in contents:
            continue
        contents.add(content)
        file = f"{len(found):04d}.png"
        trimmed.save(folder / file)
        colours = name_colours(np.asarray(trimmed))
        found.append(CutOut(file, name.name, name.kind, colours, source, is_held_out(name.name)))
    (folder / "cutouts.json").write_text(json.dumps([asdict(cutout) for cutout in found], indent=0))
    return found


def read_cutouts(folder: Path) -> list[CutOut]:
    """The list that `collect` wrote."""
    return [CutOut(**fields) for fields in json.loads((folder / "cutouts.json").read_text())]


def trim(image: Image.Image) -> Image.Image | None:
    """The opaque part of an image at most 256 px large; None for one without a clear outline."""
    image = image.convert("RGBA")
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha > 32)).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    width, height = image.size
    opaque = (np.asarray(image.getchannel("A")) > 128).mean()
    if max(width, height) < 40 or max(width, height) > 5 * min(width, height) or not 0.06 < opaque < 0.97:
        return None
    image.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
    return image


def _clip_art(debian: Path, kinds: Kinds) -> Iterator[tuple[str, Name, Image.Image]]:
    svgs, pngs = (debian / f"openclipart-{form}/usr/share/openclipart/{form}" for form in ("svg", "png"))
    if not svgs.is_dir() or not pngs.is_dir():
        raise UsageError(f"{debian} lacks openclipart-svg and openclipart-png, unpacked by dpkg -x into those folders")
    for svg in sorted(svgs.rglob("*.svg")):
        relative = svg.relative_to(svgs)
        png = (pngs / relative).with_suffix(".png")
        if str(relative).startswith(SKIPPED_FOLDERS) or not png.is_file():
            continue
        title = re.search(r"<metadata.*?<dc:title[^>]*>(.*?)</dc:title>", svg.read_text(errors="replace"), re.DOTALL)
        name = name_title(html.unescape(title.group(1).strip()) if title else "", svg.stem, kinds)
        if name is not None and (image := _open(png)) is not None:
            yield f"openclipart {relative}", name, image


def _open(png: Path) -> Image.Image | None:
    """The image at a moderate size; None for the few of hundreds of millions of pixels, which Pillow refuses."""
    try:
        with Image.open(png) as image:
            if image.width * image.height > 2**25:
                return None
            image = image.convert("RGBA")
    except Image.DecompressionBombError:
        return None
    image.thumbnail((2 * LONGEST_SIDE_PX, 2 * LONGEST_SIDE_PX), Image.Resampling.BOX)
    return image


def _emoji(debian: Path, kinds: Kinds) -> Iterator[tuple[str, Name, Image.Image]]:
    fonts = debian / "fonts-noto-color-emoji/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
    annotations = debian / "unicode-cldr-core/usr/share/unicode/cldr/common/annotations/en.xml"
    if not fonts.is_file() or not annotations.is_file():
        raise UsageError(f"{debian} lacks fonts-noto-color-emoji and unicode-cldr-core, unpacked by dpkg -x into it")
    font = ImageFont.truetype(str(fonts), EMOJI_PX)
    named = re.findall(r'<annotation cp="([^"]+)" type="tts">([^<]+)<', annotations.read_text("utf-8"))
    for emoji, phrase in named:
        name = name_phrase(html.unescape(phrase), kinds)
        # Below U+2600 are arrows and geometric shapes.
        if name is None or ord(emoji[0]) < 0x2600 or len(emoji.replace("\ufe0f", "")) > 1:
            continue
        image = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(image).text((8, 8), emoji, font=font, embedded_color=True)
        yield f"emoji U+{ord(emoji[0]):X}", name, image
