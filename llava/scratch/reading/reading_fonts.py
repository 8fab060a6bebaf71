"""The fonts that lines and pages are drawn in: those of this machine and of unpacked Debian packages.

Three families are kept apart: training never draws them, and they measure how well other fonts are read. Which fonts
are there decides what is drawn, so training is only repeatable on the same set; the packages are listed in PACKAGES.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from llava.errors import UsageError
from llava.model.lexical.characters import ALPHABET

# `apt-get download` and `dpkg -x` each into one folder; PIL reads the fonts from there.
PACKAGES = tuple(
    """fonts-roboto-unhinted fonts-roboto-slab fonts-open-sans fonts-inconsolata fonts-crosextra-carlito
    fonts-crosextra-caladea fonts-hack-ttf fonts-lato fonts-cantarell fonts-comic-neue fonts-inter fonts-jetbrains-mono
    fonts-firacode fonts-quicksand fonts-karla fonts-manrope fonts-bebas-neue fonts-cabin fonts-dosis fonts-ebgaramond
    fonts-linuxlibertine fonts-vollkorn fonts-play fonts-paratype fonts-croscore fonts-noto-core fonts-freefont-ttf
    fonts-courier-prime fonts-anonymous-pro fonts-go fonts-b612 fonts-texgyre fonts-lmodern fonts-sil-gentiumplus
    fonts-sil-charis fonts-sil-andika fonts-adf-universalis fonts-adf-gillius fonts-clear-sans fonts-league-spartan
    fonts-quattrocento fonts-comfortaa fonts-oxygen fonts-lobster fonts-dancingscript fonts-yanone-kaffeesatz
    fonts-junction fonts-tuffy fonts-humor-sans fonts-ocr-b fonts-mononoki fonts-averia-sans-gwf fonts-opendin
    fonts-roadgeek fonts-allerta fonts-jura fonts-yrsa-rasa fonts-sora fonts-national-park fonts-cmu fonts-adf-accanthis
    fonts-adf-baskervald fonts-adf-libris fonts-adf-romande fonts-adf-switzera fonts-adf-tribun fonts-adf-verana
    fonts-arkpandora fonts-averia-serif-gwf fonts-essays1743 fonts-fanwood fonts-gfs-artemisia fonts-gfs-neohellenic
    fonts-junicode fonts-lobstertwo fonts-lindenhill fonts-oldstandard fonts-prociono fonts-tlwg-garuda-otf
    fonts-tlwg-kinnari-otf fonts-tlwg-norasi-otf fonts-tlwg-typewriter-otf fonts-tlwg-umpush-otf fonts-tlwg-waree-otf
    fonts-tlwg-purisa-otf fonts-tlwg-sawasdee-otf fonts-tlwg-laksaman-otf fonts-opendyslexic fonts-routed-gothic
    fonts-agave fonts-kaushanscript fonts-sil-gentium-basic fonts-sil-doulos fonts-compagnon fonts-millimetre
    fonts-ecolier-court fonts-gnutypewriter fonts-monofur fonts-karmilla fonts-adf-oldania fonts-adf-solothurn
    fonts-averia-gwf fonts-breip fonts-dkg-handwriting fonts-urw-base35 fonts-kristi fonts-tlwg-mono-otf
    fonts-tlwg-typo-otf fonts-ocr-a fonts-proggy fonts-spleen fonts-konatu fonts-sil-abyssinica fonts-sil-dai-banna
    fonts-sil-nuosusil fonts-sil-tagmukay fonts-sil-taiheritagepro fonts-sil-sophia-nubian fonts-rit-sundar
    fonts-baekmuk fonts-sixtyfour fonts-rufscript fonts-ferrite-core fonts-babelstone-modern fonts-evertype-conakry
    fonts-pagul fonts-mph-2b-damase fonts-fantasma fonts-cherrybomb texlive-fonts-extra wamerican wbritish
    openclipart-png""".split()
)
# Of texlive-fonts-extra, only these folders of its fonts/opentype and fonts/truetype: what judges is in others.
TEXLIVE_FOLDERS = tuple(
    """adobe/sourcecodepro adobe/sourceserifpro arkandis/gillius arkandis/mintspirit google/roboto gust/poltawski
    huerta/alegreya ibm/plex iginomarini/imfellenglish impallari/cabin impallari/librebodoni impallari/librecaslon
    impallari/librefranklin impallari/raleway nowacki/iwona nowacki/kurier public/algolrevived public/antt
    public/archivo public/baskervaldx public/baskervillef public/cascadia-code public/chivo public/coelacanth
    public/cooperhewitt public/cyklop public/eczar public/erewhon public/etbb public/fbb public/fetamont public/fira
    public/forum public/garamond-libre public/gfsbodoni public/heuristica public/hindmadurai public/ibarra
    public/inriafonts public/kpfonts-otf public/libertinus-fonts public/linguisticspro public/logix public/miama
    public/montserrat public/newcomputermodern public/nunito public/playfair public/qualitype public/shobhika
    public/umtypewriter public/xcharter sorkin/merriweather ascender/droid/droidserif ascender/opensans
    catharsis/cormorantgaramond huerta/bitter impallari/librebaskerville impallari/quattrocento ndiscovered/cinzel
    production/spectral public/ektype-tanka public/lexend public/marcellus public/poiretone public/theanodidot
    public/theanooldstyle""".split()
)
HELD_OUT_FAMILIES = ("lato", "cantarell", "comicneue")
_SKIPPED = re.compile(
    r"math|caps|smcp|sc-|[-_]sc\b|symbol|dingbat|emoji|d050000l|karlatamil|dseg|/mona|initials|keyboard|lmmath|dunhill"
    r"|lmromanunsl|z003|csc|demiobli|humor|display-?black|typo-?mono|lastresort|qtdingbits|/cm(b|ex|mi|r|ss|sy|ti|tt)10|linbiolinum_kb|cmuncl|cmunci|cmunorm|cmunui|cmunti|barcode"
)
_NOTO = re.compile(r"/noto(sans|serif|mono|sansmono|sansdisplay|serifdisplay)-")
# Faces that are common on screens, in charts and on paper are drawn more often than the rest.
_COMMON = {
    "dejavusans": 6, "liberationsans": 5, "liberationserif": 3, "roboto": 4, "opensans": 3, "notosans": 3,
    "carlito": 3, "arimo": 3, "nimbussans": 3, "dejavusansmono": 2, "liberationmono": 2, "inter": 2, "notoserif": 2,
    "sourcesanspro": 3, "tinos": 2, "cousine": 2, "liberationsansnarrow": 2, "dejavuserif": 2, "dejavusanscondensed": 2,
}  # fmt: skip
_MONOSPACED = re.compile(
    r"mono|courier|typewriter|inconsolata|cousine|hack|firacode|curs?or|typist|lmmonolt|anonymous|agave"
)
_RARE = (
    "lobster",
    "dancingscript",
    "iwona",
    "kurier",
    "lexend",
    "ocrb",
    "averia",
    "roadgeek",
    "league",
    "jura",
    "comfortaa",
    "quicksand",
    "cmu",
)


@dataclass(frozen=True)
class Face:
    """A font file: its family, the characters of the alphabet that it has, and whether its small letters are capitals.

    ``capital``: the height of its H as a share of its size.
    """

    path: str
    family: str
    characters: frozenset[str]
    is_capitals_only: bool
    capital: float

    def load(self, size_px: int) -> ImageFont.FreeTypeFont:
        """The face at a size, cached."""
        return _load(self.path, size_px)


@lru_cache(maxsize=600)
def _load(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px, layout_engine=ImageFont.Layout.BASIC)


class FaceBox:
    """All usable faces by family, to draw from. ``held_out``: only the families kept apart, else all others."""

    def __init__(self, folders: tuple[str, ...], held_out: bool) -> None:
        self.families: dict[str, list[Face]] = {}
        for face in _find_faces(folders):
            if (face.family in HELD_OUT_FAMILIES) == held_out:
                self.families.setdefault(face.family, []).append(face)
        if not self.families:
            raise UsageError(f"There are no fonts in {', '.join(folders)}: unpack {', '.join(PACKAGES[:3])} ... there.")
        self.names = sorted(self.families)
        self._weights = [_COMMON.get(name, 0.3 if name.startswith(_RARE) else 0.7) for name in self.names]

    def draw(self, rng: random.Random) -> Face:
        """A face; common families more often."""
        (name,) = rng.choices(self.names, self._weights)
        return rng.choice(self.families[name])

    def draw_monospaced(self, rng: random.Random) -> Face:
        """A face of a typewriter, or any where there is none."""
        names = [name for name in self.names if _MONOSPACED.search(name)]
        return rng.choice(self.families[rng.choice(names)]) if names else self.draw(rng)

    def draw_bold(self, rng: random.Random, face: Face) -> Face:
        """A bold face of the same family, or the face itself."""
        bold = [other for other in self.families[face.family] if "bold" in Path(other.path).name.lower()]
        return rng.choice(bold) if bold else face


@lru_cache(maxsize=4)
def _find_faces(folders: tuple[str, ...]) -> tuple[Face, ...]:
    paths = sorted(
        p for folder in folders for p in Path(folder).rglob("*") if p.suffix.lower() in (".ttf", ".otf") and p.is_file()
    )
    faces: dict[str, Face] = {}
    for path in paths:
        face = None if path.name in faces else _read_face(path)
        if face is not None:
            faces[path.name] = face
    return tuple(faces.values())


def _read_face(path: Path) -> Face | None:
    name = "/" + path.name.lower()
    if _SKIPPED.search(name) or (name.startswith("/noto") and not _NOTO.match(name)):
        return None
    with TTFont(str(path), lazy=True) as file:
        if "fvar" in file or "cmap" not in file:
            return None
        codes = set(file.getBestCmap() or ())
        record = file["name"].getBestFamilyName() or path.stem
    characters = frozenset(c for c in ALPHABET if ord(c) in codes)
    if not all(chr(code) in characters for code in range(33, 127)):
        return None
    font = _load(str(path), 100)
    return Face(
        str(path),
        re.sub(r"[^a-z0-9]", "", record.lower()),
        characters,
        _render(font, "g") == _render(font, "G"),
        -font.getbbox("H", anchor="ls")[1] / 100,
    )


def _render(font: ImageFont.FreeTypeFont, text: str) -> bytes:
    image = Image.new("L", (160, 160))
    ImageDraw.Draw(image).text((20, 110), text, fill=255, font=font, anchor="ls")
    return image.tobytes()
