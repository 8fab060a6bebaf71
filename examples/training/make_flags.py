"""Draws flags, with a question and its answer about each, as data for a first fine-tuning.

    python examples/training/make_flags.py FOLDER

writes ``FOLDER/data.json`` in LLaVA's format, the images of its samples, and ``FOLDER/unseen``: other drawings of the
same flags, to try the tuned model on.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

# Three stripes of equal width each; "|" are upright ones.
FLAGS = {
    "Belgium": ("|", "#000000", "#fae042", "#ed2939"),
    "Italy": ("|", "#009246", "#ffffff", "#ce2b37"),
    "Germany": ("-", "#000000", "#dd0000", "#ffce00"),
    "the Netherlands": ("-", "#ae1c28", "#ffffff", "#21468b"),
}
QUESTION = "<image>\nWhose flag is this?"


def draw_flag(country: str, chance: random.Random) -> Image.Image:
    """The flag at a random size and place, on a ground of a random pale colour, 100 to 180 px wide."""
    direction, *stripes = FLAGS[country]
    width, height = chance.randint(100, 180), chance.randint(80, 110)
    ground = tuple(chance.randint(150, 255) for _ in range(3))
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    across = chance.randint(width // 2, width - 20)
    down = min(height - 20, across * 2 // 3)
    left, top = chance.randint(5, width - across - 5), chance.randint(5, height - down - 5)
    for i, colour in enumerate(stripes):
        if direction == "|":
            box = (left + across * i // 3, top, left + across * (i + 1) // 3, top + down)
        else:
            box = (left, top + down * i // 3, left + across, top + down * (i + 1) // 3)
        draw.rectangle(box, fill=colour)
    return image


def main() -> None:
    folder, chance = Path(sys.argv[1]), random.Random(0)
    samples = []
    for name, count in (("images", 10), ("unseen", 2)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for country in FLAGS:
            for number in range(count):
                file = f"{name}/{country.split()[-1].lower()}-{number}.png"
                draw_flag(country, chance).save(folder / file)
                answer = f"It is the flag of {country}."
                turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": answer}]
                if name == "images":
                    samples.append({"id": file, "image": file, "conversations": turns})
    (folder / "data.json").write_text(json.dumps(samples, indent=1), encoding="utf-8")
    print(f"{len(samples)} samples: {folder / 'data.json'}")


if __name__ == "__main__":
    main()
