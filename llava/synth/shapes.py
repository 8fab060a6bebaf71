"""Scenes of shapes: colour, shape, existence, count, position and relation."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import NamedTuple

from llava.synth.drawing import SHAPES, Drawing
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
    """Which ninth of the image a point is in: "top left", "top", ..., "center", ..., "bottom right"."""
    row = ("top", "", "bottom")[min(2, int(3 * y / height))]
    column = ("left", "", "right")[min(2, int(3 * x / width))]
    return f"{row} {column}".strip() or "center"


class _Thing(NamedTuple):
    color: str
    shape: str
    x: float
    y: float

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


def draw_shapes(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """One to eight shapes on a plain background; asks for colour, shape, existence, count, position and relation."""
    drawing = Drawing(rng, width, height, draw_light(rng))
    count = rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8))
    pairs = [(c, s) for c in SCENE_COLORS for s in SHAPES if is_held_out_pair(c, s) == held_out]
    if rng.random() < 0.5:  # with few pairs, colours and shapes repeat, and there is more than one to count
        few = [rng.choice(pairs) for _ in range(rng.randint(2, 3))]
        pairs = few + [rng.choice(pairs)]
    for x, y, radius in _spread(rng, width, height, count):
        color, shape = rng.choice(pairs)
        drawing.shape(shape, color, x, y, radius)
    things = [_Thing(o.color, o.shape, o.anchor_x, o.anchor_y) for o in drawing.objects]
    ordered = sorted(things, key=lambda thing: (int(3 * thing.y / height), thing.x))
    noun = "is 1 object" if len(things) == 1 else f"are {len(things)} objects"
    # The decoder learns to read places from captions that name the place of each object.
    listing = ", ".join(
        f"{article(thing.color)} {thing.name} in the {name_place(thing.x, thing.y, width, height)}" for thing in ordered
    )
    scene = Scene("shapes", drawing, f"There {noun}: {listing}.")
    if held_out:
        _ask_what(rng, scene, things, "held-out pair", "held-out pair")
        _ask_existence(rng, scene, things, held_out, "held-out pair")
        return scene
    _ask_what(rng, scene, things, "color", "shape")
    _ask_where(rng, scene, things)
    _ask_existence(rng, scene, things, held_out, "existence")
    _ask_how_many(rng, scene, things)
    _ask_relation(rng, scene, things, "relation")
    # Not in the suite. Drawn from a generator of their own, so that the suite's questions do not change.
    more = random.Random(scene.caption)
    for task in ("relation again", "relation once more"):
        _ask_relation(more, scene, things, task)
    _ask_option(rng, scene, things)
    _ask_order(scene, things)
    return scene


def _ask_what(rng: random.Random, scene: Scene, things: list[_Thing], color_task: str, shape_task: str) -> None:
    colors, shapes = [thing.color for thing in things], [thing.shape for thing in things]
    for color, shape, _, _ in things:
        if shapes.count(shape) == 1:
            question = choose(rng, f"What color is the {shape}?", f"What is the color of the {shape}?")
            scene.turns.append(Turn(question, color, color_task))
        if colors.count(color) == 1:
            question = choose(rng, f"What shape is the {color} object?", f"What is the {color} object?")
            scene.turns.append(Turn(question, shape, shape_task))


def _ask_where(rng: random.Random, scene: Scene, things: list[_Thing]) -> None:
    """Asks where the objects are that lie clearly within one ninth of the image, and what is in such a place."""
    width, height = scene.drawing.width, scene.drawing.height
    places = [name_place(thing.x, thing.y, width, height) for thing in things]
    for thing, place in zip(things, places, strict=True):
        if any(
            abs(3 * at / size - line) < 0.15 for at, size in ((thing.x, width), (thing.y, height)) for line in (1, 2)
        ):
            continue
        ways = {"position": thing.name, "position by shape": thing.shape, "position by color": f"{thing.color} object"}
        kinds = {"position": [t.name for t in things], "position by shape": [t.shape for t in things]}
        kinds["position by color"] = [f"{t.color} object" for t in things]
        for task, name in ways.items():
            if kinds[task].count(name) == 1:
                question = choose(rng, f"Where is the {name}?", f"Where in the image is the {name}?")
                scene.turns.append(Turn(question, place, task))
        if places.count(place) == 1:
            scene.turns.append(
                Turn(f"What is in the {place}?", f"{article(thing.color)} {thing.name}", "what is where")
            )


def _ask_existence(rng: random.Random, scene: Scene, things: list[_Thing], held_out: bool, task: str) -> None:
    """Asks what exists. Half of the pairs do; most others share a colour or a shape with an object of the image."""
    colors, shapes = {thing.color for thing in things}, {thing.shape for thing in things}
    pairs = {(thing.color, thing.shape) for thing in things}
    pool = [(c, s) for c in SCENE_COLORS for s in SHAPES if is_held_out_pair(c, s) == held_out and (c, s) not in pairs]
    near = [pair for pair in pool if pair[0] in colors or pair[1] in shapes]
    yes = rng.random() < 0.5
    color, shape = rng.choice(sorted(pairs)) if yes else rng.choice(near if near and rng.random() < 0.7 else pool)
    asked = [(f"{color} {shape}", yes, task)]
    if not held_out:
        shape = rng.choice(sorted(shapes) if rng.random() < 0.5 else [s for s in SHAPES if s not in shapes] or SHAPES)
        color = rng.choice(sorted(colors) if rng.random() < 0.5 else [c for c in SCENE_COLORS if c not in colors])
        asked += [
            (shape, shape in shapes, "existence of a shape"),
            (f"{color} object", color in colors, "existence of a color"),
        ]
    for name, is_there, of_task in asked:
        named = f"{article(name)} {name}"
        question = choose(rng, f"Is there {named}?", f"Is there {named} in the image?")
        scene.turns.append(Turn(question, "yes" if is_there else "no", of_task))


def _ask_how_many(rng: random.Random, scene: Scene, things: list[_Thing]) -> None:
    colors, shapes = [thing.color for thing in things], [thing.shape for thing in things]
    question = choose(
        rng, "How many objects are there?", "How many shapes are there?", "How many objects are in the picture?"
    )
    scene.turns.append(Turn(question, str(len(things)), "counting"))
    color = rng.choice(colors if rng.random() < 0.8 else SCENE_COLORS)
    question = choose(rng, f"How many {color} objects are there?", f"How many objects are {color}?")
    scene.turns.append(Turn(question, str(colors.count(color)), "counting"))
    shape = rng.choice(shapes if rng.random() < 0.8 else SHAPES)
    plural = "crosses" if shape == "cross" else shape + "s"
    scene.turns.append(Turn(f"How many {plural} are there?", str(shapes.count(shape)), "counting"))


def _ask_relation(rng: random.Random, scene: Scene, things: list[_Thing], task: str) -> None:
    names = [thing.name for thing in things]
    single = [thing for thing in things if names.count(thing.name) == 1]
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for _ in range(2):
        if len(single) < 2:
            break
        a, b = rng.sample(single, 2)
        across, down = a.x - b.x, a.y - b.y
        if max(abs(across), abs(down)) < 0.1 * min(scene.drawing.width, scene.drawing.height):
            continue
        if abs(across) > abs(down):
            relation = "left of" if across < 0 else "right of"
        else:
            relation = "above" if down < 0 else "below"
        holds = rng.random() < 0.5
        stated = relation if holds else opposite[relation]
        scene.turns.append(Turn(f"Is the {a.name} {stated} the {b.name}?", "yes" if holds else "no", task))


def _ask_order(scene: Scene, things: list[_Thing]) -> None:
    """Asks for all objects in order. Not in the suite: every word of the answer teaches relations and places."""
    if not 2 <= len(things) <= 6:
        return
    across, down = sorted(things, key=lambda thing: thing.x), sorted(things, key=lambda thing: thing.y)
    if all(b.x - a.x > 0.04 * scene.drawing.width for a, b in pairwise(across)):
        question = "List the objects from left to right."
        scene.turns.append(Turn(question, ", ".join(thing.name for thing in across), "order across"))
    if all(b.y - a.y > 0.04 * scene.drawing.height for a, b in pairwise(down)):
        question = "List the objects from top to bottom."
        scene.turns.append(Turn(question, ", ".join(thing.name for thing in down), "order down"))


def _ask_option(rng: random.Random, scene: Scene, things: list[_Thing]) -> None:
    shapes = [thing.shape for thing in things]
    unique = [thing for thing in things if shapes.count(thing.shape) == 1]
    if not unique:
        return
    thing = rng.choice(unique)
    options = rng.sample([color for color in SCENE_COLORS if color != thing.color], 3) + [thing.color]
    rng.shuffle(options)
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    question = (
        f"What color is the {thing.shape}?\n{listed}\nAnswer with the option's letter from the given choices directly."
    )
    scene.turns.append(Turn(question, "ABCD"[options.index(thing.color)], "option letter"))
