"""Fits the reader of crops to drawn lines: ``python -m llava.scratch.reading.train_reader --help``.

Data and network share one thread. The run is resumable: its checkpoint holds network, optimizer and step, and is
replaced every few minutes. The rate falls by a half cosine over the minutes given, so that a run can be continued with
more minutes and other data. Drawing a line takes longer than a step with it where a CPU has AMX and products are in
bfloat16 (``--precision bf16``), so each is trained on several times, distorted each time.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from llava.edit_distance import count_edits
from llava.model.lexical.characters import BLANK, encode, read_steps
from llava.model.lexical.colour_names import COLOURS
from llava.model.lexical.crop_reader import CROP_HEIGHT, WIDTH_STEP, CropReader, colour_features
from llava.scratch.reading.crop_distortions import distort
from llava.scratch.reading.line_images import LineImage, draw_line
from llava.scratch.reading.line_texts import LineTexts
from llava.scratch.reading.page import Sources
from llava.scratch.reading.page_crops import draw_page_lines
from llava.scratch.reading.reading_fonts import FaceBox
from llava.scratch.reading.training_state import resume, save
from llava.scratch.reading.unfuse import learn_statistics, load_fused, read_crops

# Shares of lines read exactly and of characters read wrong, and of inks and grounds named right.
Rates = tuple[float, float, float, float]
# Lines drawn and trained between two looks at the clock, and how many drawn lines are kept to train on again, so that
# each is used about six times.
_DRAWN, _TRAINED, _KEPT = 128, 768, 32_000
_PIXELS_A_BATCH = 6000
# Where each character stands is taught directly in the first steps, as CTC alone takes long to find out.
_PLACED_STEPS = 6000
# How often a page is drawn, which gives about nine lines, rather than a line.
_SHARE_OF_PAGES = 0.08
# The weights that are used are a running average over about this many steps.
_AVERAGE_DECAY = 1 - 1 / 600


def main() -> None:
    """Trains for the minutes given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where checkpoint and log go")
    parser.add_argument("--fonts", nargs="+", required=True, help="folders with fonts")
    parser.add_argument("--words", type=Path, required=True, help="Debian's word list, american-english")
    parser.add_argument("--cutouts", type=Path, help="a file with a path of a cutout without text a line, for pages")
    parser.add_argument("--test-fonts", nargs="*", default=[], help="folders with fonts that only measure")
    parser.add_argument("--start", type=Path, help="a LineReader's safetensors, whose reader of crops is trained on")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of the products")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--last-rate", type=float, default=2e-5)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    train(flags)


def train(flags: argparse.Namespace) -> None:
    """Trains, logs and saves until the minutes are over."""
    torch.manual_seed(flags.seed)
    rng = random.Random(flags.seed + time.time_ns())
    sources = Sources(FaceBox(tuple(flags.fonts), False), LineTexts(flags.words, False))
    sources.cutouts = tuple(map(Path, flags.cutouts.read_text().split())) if flags.cutouts else ()
    network = CropReader()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kept = _draw_lines(rng, sources, 1000, _PLACED_STEPS if flags.start else 0)
    path = flags.folder / "crop_reader.pt"
    if flags.start and not path.exists():
        load_fused(network, read_crops(flags.start))
        ordered = sorted(kept, key=lambda line: line.pixels.shape[1])
        learn_statistics(network, (stack([line.pixels for line in batch])[0] for batch in _make_batches(ordered)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=flags.rate, weight_decay=0.01, betas=(0.9, 0.99), fused=True)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGE_DECAY), use_buffers=True)
    step = resume(path, network, average, optimizer)
    first = step
    tests = {
        name: _draw_test(flags, *held)
        for name, held in {"seen": (False, False), "words": (False, True), "fonts": (True, True)}.items()
    }
    if flags.test_fonts:
        tests["other"] = _draw_test(argparse.Namespace(fonts=flags.test_fonts, words=flags.words), False, True)
    # A network that can read needs no lesson on where characters stand.
    placed = _PLACED_STEPS if flags.start else 0
    precision = torch.bfloat16 if flags.precision == "bf16" else torch.float32
    start, saved_at, seen, total = time.time(), time.time(), 0, 0.0
    while (share := (time.time() - start) / (60 * flags.minutes)) < 1:
        kept = kept[-_KEPT:] + _draw_lines(rng, sources, _DRAWN, step + placed)
        pool = sorted(rng.choices(kept, k=_TRAINED), key=lambda line: line.pixels.shape[1])
        batches = list(_make_batches(pool))
        rng.shuffle(batches)
        for lines in batches:
            rate = flags.last_rate + (flags.rate - flags.last_rate) * (1 + math.cos(math.pi * min(share, 1))) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step - first + 1) / 200)
            share_placed = max(0.0, 1 - (step + placed) / _PLACED_STEPS)
            total += _update(network, optimizer, lines, share_placed, precision)
            average.update_parameters(network)
            seen += len(lines)
            step += 1
        if time.time() - saved_at > 180:
            save(path, network, average, optimizer, step)
            rates = {name: measure(cast(CropReader, average.module), lines) for name, lines in tests.items()}
            _report(share * flags.minutes, step, seen, total, rate, rates)
            saved_at, total, seen = time.time(), 0.0, 0
    save(path, network, average, optimizer, step)


def _draw_lines(rng: random.Random, sources: Sources, count: int, step: int) -> list[LineImage]:
    """About that many new lines; once the characters' places are learnt, a share of them comes from whole pages."""
    lines: list[LineImage] = []
    while len(lines) < count:
        # FreeType cannot draw every glyph of every font at every size ("raster overflow").
        with suppress(OSError):
            if step >= _PLACED_STEPS and rng.random() < _SHARE_OF_PAGES:
                lines += draw_page_lines(rng, sources)
            else:
                lines.append(draw_line(rng, sources.faces, sources.texts))
    return lines


def _report(minutes: float, step: int, seen: int, total: float, rate: float, rates: dict[str, Rates]) -> None:
    shown = "  ".join(f"{name} {' '.join(f'{value:.3f}' for value in values)}" for name, values in rates.items())
    print(
        f"{minutes:.1f} min  step {step}  {seen} lines  loss {total / seen:.3f}  rate {rate:.1e}  {shown}", flush=True
    )


def _draw_test(flags: argparse.Namespace, fonts: bool, words: bool) -> list[LineImage]:
    rng = random.Random(7)
    faces, texts = FaceBox(tuple(flags.fonts), fonts), LineTexts(flags.words, words)
    return sorted((draw_line(rng, faces, texts) for _ in range(120)), key=lambda line: line.pixels.shape[1])


def _make_batches(lines: list[LineImage]) -> Iterator[list[LineImage]]:
    batch: list[LineImage] = []
    for line in lines:
        if batch and (len(batch) + 1) * line.pixels.shape[1] > _PIXELS_A_BATCH:
            yield batch
            batch = []
        batch.append(line)
    yield batch


def stack(crops: list[np.ndarray], is_distorted: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of one height as a batch [N, 3, 24, W], their steps [N] and their colour features [N, 12]."""
    widths = torch.tensor([crop.shape[1] for crop in crops])
    width = -(-int(widths.max()) // WIDTH_STEP) * WIDTH_STEP
    features = torch.stack([colour_features(torch.from_numpy(crop.copy()).permute(2, 0, 1)) for crop in crops])
    padded = np.stack([np.pad(crop, ((0, 0), (0, width - crop.shape[1]), (0, 0)), "edge") for crop in crops])
    pixels = torch.from_numpy(padded).permute(0, 3, 1, 2).float()
    if is_distorted:
        pixels = distort(pixels)
    steps = torch.minimum((widths + 3) // 4 * 4, torch.tensor(width)) // 2
    return _normalize(pixels, widths), steps, features


def _normalize(crops_N3HW: Tensor, widths: Tensor) -> Tensor:
    """As ``normalize`` does with each crop alone, with zeros right of its end."""
    is_there_N11W = (torch.arange(crops_N3HW.shape[3]) < widths[:, None])[:, None, None].float()
    count = 3 * CROP_HEIGHT * widths.view(-1, 1, 1, 1)
    mean = (crops_N3HW * is_there_N11W).sum((1, 2, 3), keepdim=True) / count
    crops_N3HW = (crops_N3HW - mean) * is_there_N11W
    spread = (crops_N3HW.square().sum((1, 2, 3), keepdim=True) / count).sqrt()
    return (crops_N3HW / (spread + 4.0)).contiguous(memory_format=torch.channels_last)


def place_characters(line: LineImage, num_steps: int) -> np.ndarray:
    """The class of each step where it is clear: a character at its middle, blank between two, and -1 elsewhere."""
    at = np.arange(num_steps) * 2.0 + 1.0
    middles, widths = line.spans.mean(1), np.maximum(line.spans[:, 1] - line.spans[:, 0], 1.0)
    distance = np.abs(at[:, None] - middles) / widths
    nearest = distance.argmin(1)
    closest = distance.min(1)
    targets = np.where(closest < 0.22, np.array(encode(line.text))[nearest], -1)
    targets[closest > 0.42] = BLANK
    # A narrow character that has no step of its own gets the nearest one.
    for i, step in enumerate(np.abs(at[:, None] - middles).argmin(0)):
        targets[step] = encode(line.text[i])[0]
    return targets


def _measure_places(scores_TNK: Tensor, lines: list[LineImage], steps: Tensor) -> Tensor:
    """Cross entropy at the steps whose class is clear from where the characters stand."""
    frames = np.full(tuple(scores_TNK.shape[:2]), -1)
    for i, line in enumerate(lines):
        frames[: steps[i], i] = place_characters(line, int(steps[i]))
    return F.nll_loss(scores_TNK.flatten(0, 1), torch.from_numpy(frames).flatten(), ignore_index=-1)


def _update(
    network: CropReader,
    optimizer: torch.optim.Optimizer,
    lines: list[LineImage],
    share_placed: float,
    precision: torch.dtype,
) -> float:
    pixels, steps, features = stack([line.pixels for line in lines], is_distorted=not share_placed)
    targets = [encode(line.text) for line in lines]
    lengths = torch.tensor([len(target) for target in targets])
    # What a chart's colours are is not known.
    names = torch.tensor([[COLOURS.index(n) if n else -100 for n in (line.ink, line.ground)] for line in lines])
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        scores = network(pixels)
    placed = _measure_places(scores, lines, steps) if share_placed else scores.new_zeros(())
    losses = F.ctc_loss(
        scores,
        torch.tensor([index for target in targets for index in target]),
        steps,
        lengths,
        reduction="none",
        zero_infinity=True,
    )
    num_named = (names >= 0).sum().clamp(min=1)
    colours = (
        F.cross_entropy(network.name_colours(features).flatten(0, 1), names.flatten(), reduction="sum") / num_named
    )
    per_line = losses / lengths.clamp(min=1) ** 0.5
    loss = per_line.mean() * 0.3 + 0.3 * colours + placed * 3 * share_placed
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
    optimizer.step()
    return float(losses.detach().sum())


@torch.inference_mode()
def measure(network: CropReader, lines: list[LineImage]) -> Rates:
    """Share of lines read exactly, edits per character, and shares of inks and grounds named right."""
    network.eval()
    exact = edits = characters = ink = ground = 0
    for batch in _make_batches(lines):
        pixels, steps, features = stack([line.pixels for line in batch])
        scores = network(pixels).numpy()
        names = network.name_colours(features).argmax(-1)
        for i, line in enumerate(batch):
            text = read_steps(scores[: steps[i], i])[0]
            exact += text == line.text
            edits += count_edits(text, line.text)
            characters += len(line.text)
            ink += COLOURS[names[i, 0]] == line.ink
            ground += COLOURS[names[i, 1]] == line.ground
    network.train()
    return exact / len(lines), edits / characters, ink / len(lines), ground / len(lines)


if __name__ == "__main__":
    main()
