"""Images for the tests of near duplicates: photo-like textures, pages and charts, and altered copies of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

WORDS = (
    "invoice total amount date report annual revenue customer address market index growth research letter memo".split()
)


def draw_photo(rng: np.random.Generator, width: int = 480, height: int = 360) -> Image.Image:
    """Noise at several scales with a gradient, shapes and words."""
    pixels = np.full((height, width, 3), 128 + rng.normal(0, 20), np.float32)
    pixels += np.linspace(-1, 1, height)[:, None, None] * rng.normal(0, 30)
    for columns, amount in ((3, 70), (6, 45), (13, 30), (40, 18), (width // 4, 10)):
        rows = max(2, columns * height // width)
        coarse = rng.normal(0, 1, (rows, columns, 1)) + 0.5 * rng.normal(0, 1, (rows, columns, 3))
        bands = [Image.fromarray(coarse[:, :, c].astype(np.float32)) for c in range(3)]
        pixels += amount * np.stack(
            [np.asarray(band.resize((width, height), Image.Resampling.BICUBIC)) for band in bands], -1
        )
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    drawing = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 6))):
        x, y, radius = rng.integers(0, width), rng.integers(0, height), rng.integers(8, width // 5)
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        draw = drawing.ellipse if rng.random() < 0.5 else drawing.rectangle
        draw([x - radius, y - radius, x + radius, y + radius], fill=color)
    place = float(rng.integers(0, width // 2)), float(rng.integers(0, height))
    drawing.text(place, str(rng.choice(WORDS)).upper(), fill=(250, 240, 20), font=ImageFont.load_default(30))
    return image


def draw_page(rng: np.random.Generator, layout: int, width: int = 465, height: int = 600) -> Image.Image:
    """A page of words: pages of one layout have their lines, heading and type in the same places."""
    plan = np.random.default_rng(layout)
    image = Image.new("RGB", (width, height), "white")
    drawing, size = ImageDraw.Draw(image), int(plan.integers(9, 14))
    font = ImageFont.load_default(size)
    drawing.text((width / 3, 25), "ACME CORPORATION", font=ImageFont.load_default(18), fill="black")
    y = 60.0
    while y < height - 40:
        right = width - 40 if plan.random() < 0.8 else int(plan.integers(width // 3, width - 40))
        line, is_blank = "", plan.random() < 0.12
        while not is_blank and len(line) * size * 0.56 < right - 80:
            line += f"{WORDS[rng.integers(len(WORDS))] if rng.random() < 0.7 else rng.integers(10, 99999)} "
        drawing.text((38, y), line, font=font, fill="black")
        y += size * 1.5
    return image


def draw_form(rng: np.random.Generator, layout: int) -> Image.Image:
    """A printed form, whose words are the same for one layout, with six fields filled in."""
    image = draw_page(np.random.default_rng(layout), layout)
    drawing, plan = ImageDraw.Draw(image), np.random.default_rng(layout + 1)
    for _ in range(6):
        x, y = int(plan.integers(30, image.width - 190)), int(plan.integers(80, image.height - 50))
        drawing.rectangle([x, y, x + 150, y + 22], fill="white", outline="black")
        value = f"{rng.choice(WORDS)} {rng.integers(100, 99999)}"
        drawing.text((x + 5, y + 3), value, font=ImageFont.load_default(14), fill=(0, 0, 60))
    return image


def draw_chart(rng: np.random.Generator, layout: int, width: int = 420, height: int = 280) -> Image.Image:
    """A bar chart: those of one layout have the same bars in other heights."""
    plan = np.random.default_rng(layout)
    image = Image.new("RGB", (width, height), "white")
    drawing, num = ImageDraw.Draw(image), int(plan.integers(4, 9))
    drawing.line([45, 20, 45, height - 35, width - 15, height - 35], fill="black", width=2)
    drawing.text((width / 3, 4), "Sales by region", font=ImageFont.load_default(13), fill="black")
    step = (width - 70) / num
    for i in range(num):
        x, top = 52 + i * step, height - 35 - (height - 60) * rng.uniform(0.1, 1)
        drawing.rectangle([x, top, x + 0.7 * step, height - 35], fill=tuple(int(v) for v in plan.integers(40, 220, 3)))
        drawing.text((x, height - 30), str(plan.choice(WORDS)), font=ImageFont.load_default(10), fill="black")
    return image


def draw_small(rng: np.random.Generator) -> Image.Image:
    """A cheap one: a texture of 64x48 px, sometimes with a white margin, as of a page."""
    coarse = rng.integers(0, 256, (int(rng.integers(3, 9)), int(rng.integers(3, 9)), 3), np.uint8)
    image = Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)
    if rng.random() < 0.4:
        page = Image.new("RGB", (64, 48), "white")
        page.paste(image.resize((48, 36)), (8, 6))
        return page
    return image


def encode(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """A file's bytes."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """What is left after shares of the width and height are cut off at the sides."""
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round(width * (1 - right)), round(height * (1 - bottom)))
    )


def alter(rng: np.random.Generator, image: Image.Image, most_cropped: float = 0.1) -> bytes:
    """A copy as the web makes them: cropped, resized by 0.3 to 2, sometimes grey or brighter, encoded once more."""
    image = crop(image, *rng.uniform(0, most_cropped, 4))
    scale = 2 ** rng.uniform(np.log2(0.3), 1)
    size = round(image.width * scale), round(image.height * scale)
    image = image.resize(size, (Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)[int(rng.integers(2))])
    if rng.random() < 0.3:
        image = image.convert("L").convert("RGB")
    if rng.random() < 0.4:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.88, 1.12))
        image = ImageEnhance.Color(image).enhance(rng.uniform(0.7, 1.3))
    kind = rng.random()
    if kind < 0.6:
        return encode(image, "JPEG", quality=int(rng.integers(30, 96)))
    return encode(image, "WEBP", quality=int(rng.integers(40, 96)), method=0) if kind < 0.8 else encode(image, "PNG")
