"""Scenes of shapes: colour, shape, existence, count, position and relation."""

from __future__ import annotations

import random

from llava.synth.canvas import SHAPES, Canvas
from llava.synth.scene import SCENE_COLORS, Scene, Turn, article, choose, draw_light, is_held_out_pair


def _spread(rng: random.Random, width: int, height: int, count: int) -> list[tuple[float, float, float]]:
    """Up to ``count`` circles (x, y, radius) that do not touch."""
    scale = min(width, height)
    largest = min(0.24, 0.52 / max(count, 1) ** 0.5)
    placed: list[tuple[float, float, float]] = []
    for _ in range(count * 30):
        radius = max(6.0, scale * rng.uniform(largest * 0.55, largest))
        if 2 * radius + 4 > scale:
            continue
        x, y = rng.uniform(radius + 1, width - radius - 1), rng.uniform(radius + 1, height - radius - 1)
        if all((x - a) ** 2 + (y - b) ** 2 > (radius * 1.25 + r * 1.25 + 2) ** 2 for a, b, r in placed):
            placed.append((x, y, radius))
            if len(placed) == count:
                break
    return placed


def name_place(x: float, y: float, width: int, height: int) -> str:
    """Which ninth of the picture a point is in: "top left", "top", ..., "center", ..., "bottom right"."""
    row = ("top", "", "bottom")[min(2, int(3 * y / height))]
    column = ("left", "", "right")[min(2, int(3 * x / width))]
    return f"{row} {column}".strip() or "center"


def draw_shapes(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """One to eight shapes on a plain ground; colour, shape, existence, count, position, relation."""
    canvas = Canvas(rng, width, height, draw_light(rng))
    count = rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8))
    pairs = [(c, s) for c in SCENE_COLORS for s in SHAPES if is_held_out_pair(c, s) == held_out]
    if rng.random() < 0.5:  # repeats make counting by kind worth asking
        few = [rng.choice(pairs) for _ in range(rng.randint(2, 3))]
        pairs = few + [rng.choice(pairs)]
    for x, y, radius in _spread(rng, width, height, count):
        color, shape = rng.choice(pairs)
        canvas.shape(shape, color, x, y, radius)
    found = [(o.color, o.shape, o.anchor_x, o.anchor_y) for o in canvas.objects]
    ordered = sorted(found, key=lambda o: (int(3 * o[3] / height), o[2]))
    noun = "object" if len(found) == 1 else "objects"
    listing = ", ".join(f"{article(c)} {c} {s}" for c, s, _, _ in ordered)
    scene = Scene("shapes", canvas, f"There {'is' if len(found) == 1 else 'are'} {len(found)} {noun}: {listing}.")
    _ask_about_shapes(rng, scene, found, held_out)
    return scene


def _ask_about_shapes(
    rng: random.Random, scene: Scene, found: list[tuple[str, str, float, float]], held_out: bool
) -> None:
    add = lambda question, answer, task: scene.turns.append(Turn(question, answer, task))  # noqa: E731
    colors, shapes = [o[0] for o in found], [o[1] for o in found]
    pairs = [(o[0], o[1]) for o in found]
    width, height = scene.canvas.width, scene.canvas.height
    task_pair = "held-out pair" if held_out else ""
    for color, shape, x, y in found:
        if shapes.count(shape) == 1:
            add(
                choose(rng, f"What color is the {shape}?", f"What is the color of the {shape}?"),
                color,
                task_pair or "color",
            )
        if colors.count(color) == 1:
            add(
                choose(rng, f"What shape is the {color} object?", f"What is the {color} object?"),
                shape,
                task_pair or "shape",
            )
        if pairs.count((color, shape)) == 1:
            add(choose(rng, f"Where is the {color} {shape}?", f"Where in the picture is the {color} {shape}?"),
                name_place(x, y, width, height), "position")  # fmt: skip
    # Existence: half of the questions name a pair that is there; the others share its colour or its shape.
    pool = [(c, s) for c in SCENE_COLORS for s in SHAPES if is_held_out_pair(c, s) == held_out and (c, s) not in pairs]
    near = [p for p in pool if p[0] in colors or p[1] in shapes]
    yes = rng.random() < 0.5
    color, shape = rng.choice(pairs) if yes else rng.choice(near if near and rng.random() < 0.7 else pool)
    named = f"{article(color)} {color} {shape}"
    question = choose(rng, f"Is there {named}?", f"Is there {named} in the picture?")
    add(question, "yes" if yes else "no", task_pair or "existence")
    question = choose(
        rng, "How many objects are there?", "How many shapes are there?", "How many objects are in the picture?"
    )
    add(question, str(len(found)), "counting")
    kind = rng.choice(colors if rng.random() < 0.8 else SCENE_COLORS)
    add(
        choose(rng, f"How many {kind} objects are there?", f"How many objects are {kind}?"),
        str(colors.count(kind)),
        "counting",
    )
    shape = rng.choice(shapes if rng.random() < 0.8 else SHAPES)
    plural = "crosses" if shape == "cross" else shape + "s"
    add(f"How many {plural} are there?", str(shapes.count(shape)), "counting")
    single = [o for o in found if pairs.count((o[0], o[1])) == 1]
    for _ in range(2):
        if len(single) < 2:
            break
        a, b = rng.sample(single, 2)
        across = abs(a[2] - b[2]) > abs(a[3] - b[3])
        if max(abs(a[2] - b[2]), abs(a[3] - b[3])) < 0.1 * min(width, height):
            continue
        relation = ("left of" if a[2] < b[2] else "right of") if across else ("above" if a[3] < b[3] else "below")
        opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[relation]
        says = rng.random() < 0.5
        stated = relation if says else opposite
        add(f"Is the {a[0]} {a[1]} {stated} the {b[0]} {b[1]}?", "yes" if says else "no", "relation")
    unique = [o for o in found if shapes.count(o[1]) == 1]
    if unique:
        color, shape, _, _ = rng.choice(unique)
        options = rng.sample([c for c in SCENE_COLORS if c != color], 3) + [color]
        rng.shuffle(options)
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
        add(f"What color is the {shape}?\n{listed}\nAnswer with the option's letter from the given choices directly.",
            "ABCD"[options.index(color)], "option letter")  # fmt: skip
