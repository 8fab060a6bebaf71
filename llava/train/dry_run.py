"""``llava train RECIPE --dry-run``: what a recipe would do on this machine, without reading a weight.

For each stage: what is trained, how long it takes in steps and positions, the longest batch, the memory that a step
needs beside what is free, and the first samples with the tokens that the loss covers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import LlavaError, UsageError
from llava.model.free_memory import find_free_bytes, find_total_bytes
from llava.model.placement import cpu_is_faster_in_bfloat16
from llava.text import make_visible
from llava.train.cautions import list_cautions
from llava.train.dataset.sample_sizes import MeasuredSizes, measure_sizes
from llava.train.dataset.stage_data import Encoding, TuningData, build_dataset, split_samples
from llava.train.devices.memory_estimate import LongestBatch, MemoryNeed, estimate_memory, propose_remedies
from llava.train.output_check import check_output
from llava.train.part_table import build_table
from llava.train.parts import PartParameter, find_llava
from llava.train.recipe import Recipe, TuningStage, parse_recipe
from llava.train.recipe_file import RecipeFile, find_stage
from llava.train.resumption import check_workers, find_last, list_changes
from llava.train.run import check_recipe, choose_parameters, list_changes_of_done, list_starts, name_inputs
from llava.train.starting_model import open_outline
from llava.train.trainer_arguments import LlavaTrainingArguments, make_arguments

# Samples whose images' headers are read; more take minutes on a slow file system.
_MOST_MEASURED = 2000
_NUM_SHOWN = 3
_LONGEST_TEXT = 400
_WIDTH = 140  # where the output is no terminal
_GIB = 2**30


def describe(file: RecipeFile, output: str | Path | None = None, stage: str | None = None, workers: int = 1) -> None:
    """Prints what ``llava train`` would do with this recipe, or with one stage of it.

    Args:
        output: the run's folder, in which finished and interrupted stages are looked for.

    Raises:
        UsageError: the recipe is wrong, as when it is run, or trains from scratch.
    """
    if file.is_from_scratch:
        raise UsageError(f"The recipe '{file.source}' trains a model from scratch; a dry run needs one with start.")
    check_workers(workers)
    recipe, folder = parse_recipe(file), Path(output or "runs")
    chosen = recipe.stages if stage is None else (find_stage(recipe, stage),)
    if output is not None:
        check_output(folder, [each.name for each in chosen], list_starts(recipe))
    check_recipe(recipe, list(chosen), folder, workers)
    width = Console().width if Console().is_terminal else _WIDTH
    console = Console(width=width, highlight=False, soft_wrap=False)
    for each in chosen:
        _StageDescription(recipe, each, folder / each.name, workers, console).print()


class _StageDescription:
    """One stage as it would be run, with its model on the meta device."""

    def __init__(self, recipe: Recipe, stage: TuningStage, here: Path, workers: int, console: Console) -> None:
        self.recipe, self.stage, self.here, self.workers, self.console = recipe, stage, here, workers, console
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.arguments: LlavaTrainingArguments = make_arguments(stage, here, workers, world_size=world_size)
        precision = {"bf16": "bfloat16", "fp16": "float16"}.get(self.arguments.mixed_precision, "float32")
        self.exact = replace(stage, precision=precision, accumulation=self.arguments.gradient_accumulation_steps)
        self.model, opened = open_outline(recipe.start, stage)
        encoding = Encoding(
            opened.load_tokenizer(),
            opened.spec.tiling,
            opened.load_processor(),
            opened.template,
            opened.spec.context_tokens,
            bool(getattr(self.model.config, "mm_use_im_start_end", False)),
        )
        source, self.evaluated = split_samples(stage)
        self.data: TuningData = build_dataset(stage, source, encoding)
        self.sizes: MeasuredSizes = measure_sizes(self.data, _MOST_MEASURED, stage.seed, finds_longest=True)

    def print(self) -> None:
        stage, console = self.stage, self.console
        trainable = choose_parameters(self.model, stage)
        console.rule(Text(self.recipe.title(stage)))
        for line in self._list_states():
            console.print(line, markup=False)
        console.print(build_table(self.model, trainable, stage.lr, stage.weight_decay))
        per_update = self._count_at_once() * len(self.data) / self._count_rows()
        cautions = list_cautions(stage, find_llava(self.model), trainable, self.sizes, per_update)
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="bold", no_wrap=True)
        facts.add_column(overflow="fold")
        for name, text in [*self._list_lengths(), *self._list_memory(trainable)]:
            facts.add_row(name, Text(text))
        for caution in cautions:
            facts.add_row("Caution", Text(caution, style="yellow"))
        console.print(facts)
        self._print_samples()

    def _list_states(self) -> Iterator[str]:
        last = find_last(self.here)
        if (self.here / "model" / "config.json").is_file():
            yield f"This stage is done and would be skipped: {self.here / 'model'}"
            yield from list_changes_of_done(self.recipe, self.stage, self.here.parent, self.workers)
        elif last is not None:
            yield f"It was interrupted and would go on from {last}"
            inputs = name_inputs(self.recipe, self.stage, self.data)
            yield from list_changes(last, {**self.arguments.watched, **inputs})

    def _count_at_once(self) -> int:
        return self.arguments.train_batch_size * self.exact.accumulation * self.arguments.world_size

    def _list_lengths(self) -> Iterator[tuple[str, str]]:
        stage, sizes, at_once = self.stage, self.sizes, self._count_at_once()
        devices, unit = self.arguments.world_size, "packed rows" if stage.packing else "samples"
        held = "" if self.evaluated is None else f", and {len(self.evaluated):,} to evaluate on"
        yield "Samples", f"{len(self.data):,}{held}"
        total = self._count_rows()
        steps = stage.steps or math.ceil(max(1, total // at_once) * stage.epochs)
        parts = f"batch_size {self.arguments.train_batch_size} x accumulation {self.exact.accumulation}"
        parts += f" x {devices} devices" if devices > 1 else ""
        rate = steps * at_once / max(1, total)
        yield "Steps", f"{steps:,} ({rate:.3g} epochs), of {at_once:,} {unit} each: {parts}"
        lengths = sorted(size.num_positions for size in sizes.longest)
        if not lengths:
            yield "Tokens", "unknown: no sample could be measured"
            return
        mean = self._row_positions if stage.packing else sizes.mean_positions
        yield (
            "Tokens",
            f"about {mean * at_once:,.0f} per step, images included, {sizes.target_share:.0%} of them targets; a "
            f"sample has {sizes.mean_positions:,.0f} on average and {lengths[-1]:,} at most",
        )
        longest = self._find_longest_batch(self.arguments.train_batch_size)
        scope = "" if sizes.is_complete else f", found among {sizes.num_measured:,} measured samples"
        yield (
            "Longest batch",
            f"{longest.num_positions:,} positions with padding, {longest.num_targets:,} targets, "
            f"{longest.num_tiles:,} tiles{scope}",
        )

    def _count_rows(self) -> int:
        """How many samples, or packed rows, about, are in an epoch."""
        if not self.stage.packing:
            return len(self.data)
        return max(1, round(self.sizes.mean_positions * len(self.data) / self._row_positions))

    @property
    def _row_positions(self) -> int:
        """Positions of a packed row."""
        assert self.data.limit_tokens is not None, "a stage's samples have a limit"
        return self.data.limit_tokens

    def _find_longest_batch(self, batch_size: int) -> LongestBatch:
        if not self.stage.packing:
            return self.sizes.find_longest_batch(batch_size)
        positions = batch_size * self._row_positions
        tiles = sum(size.num_tiles for size in self.sizes.typical) / max(1, len(self.sizes.typical))
        num_samples = positions / max(1.0, self.sizes.mean_positions)
        return LongestBatch(positions, round(positions * self.sizes.target_share), math.ceil(num_samples * tiles))

    def _list_memory(self, trainable: Sequence[PartParameter]) -> Iterator[tuple[str, str]]:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        free, total = find_free_bytes(device), find_total_bytes(device)
        need = self._estimate(self.exact, find_llava(self.model), trainable)
        listed = ", ".join(f"{each.name} {_say_bytes(getattr(need, each.name))}" for each in fields(need))
        yield "Memory", f"about {_say_bytes(need.total)} per device: {listed}"
        name = torch.cuda.get_device_name() if device.type == "cuda" else "this CPU"
        has = f"{name} has {_say_bytes(free)} free of {_say_bytes(total)}"
        if need.total <= free:
            yield "", f"It fits: {has}."
            return
        yield "", f"It does not fit: {has}."
        yield from self._list_remedies(free)

    def _list_remedies(self, free: int) -> Iterator[tuple[str, str]]:
        tried: list[str] = []
        need: MemoryNeed | None = None
        is_slow_in_half = not torch.cuda.is_available() and not cpu_is_faster_in_bfloat16()
        for text, changed in propose_remedies(self.exact):
            if text.startswith("precision") and is_slow_in_half:
                continue
            if text.startswith("batch_size"):
                tried = [each for each in tried if not each.startswith("batch_size")]
            tried.append(text)
            model = self.model if changed.lora == self.stage.lora else open_outline(self.recipe.start, changed)[0]
            need = self._estimate(changed, find_llava(model), choose_parameters(model, changed))
            if need.total <= free:
                yield "", f"It would fit with {' '.join(tried)}: about {_say_bytes(need.total)}"
                return
        if need is not None:
            yield (
                "",
                f"Even with {' '.join(tried)} it takes about {_say_bytes(need.total)}. Shard it over several devices "
                "(sharding=fsdp under torchrun), lower max_length, or take a smaller model.",
            )

    def _estimate(self, stage: TuningStage, llava: Any, trainable: Sequence[PartParameter]) -> MemoryNeed:
        longest = self._find_longest_batch(stage.batch_size)
        return estimate_memory(llava, trainable, stage, longest, self.arguments.world_size)

    def _print_samples(self) -> None:
        data, shown = self.data, 0
        in_colour = self.console.is_terminal
        mark = Text.assemble(("trained tokens", "bold green")) if in_colour else Text("[trained tokens]")
        self.console.print(Text.assemble("\n", ("First samples", "bold"), ", with ", mark))
        for index in range(len(data)):
            if shown == _NUM_SHOWN:
                break
            record, template = data.source.record(index), data.choose_template(index)  # type: ignore[attr-defined]
            try:
                positions = [plan.num_positions for plan in data.plan(data.source.measure(index))]  # type: ignore[attr-defined]
                ids, labels = data.encode_text(record.turns, positions, template)
            except LlavaError as error:
                self.console.print(f"\nSample {record.id} is left out: {error}", markup=False)
                continue
            shown += 1
            num_targets = int((labels != IGNORE_INDEX).sum())
            self.console.print(f"\nSample {record.id}, {template}, {num_targets:,} targets", markup=False, style="dim")
            text = mark_targets(data.tokenizer, ids.tolist(), labels.tolist(), positions, in_colour=in_colour)
            self.console.print(Padding(text, (0, 0, 0, 2)))


def mark_targets(
    tokenizer: Any, ids: Sequence[int], labels: Sequence[int], positions: Sequence[int], *, in_colour: bool
) -> Text:
    """The text of a sample in which targets are green, or in brackets; long stretches are shortened in the middle."""
    result = Text(overflow="fold")
    for text, is_target in _list_stretches(tokenizer, ids, labels, positions):
        text = make_visible(text)
        if len(text) > _LONGEST_TEXT:
            half = _LONGEST_TEXT // 2
            text = f"{text[:half]} ... {text[-half:]}"
        if is_target and not in_colour:
            text = f"[{text}]"
        result.append(text, style="bold green" if is_target and in_colour else None)
    return result


def _list_stretches(
    tokenizer: Any, ids: Sequence[int], labels: Sequence[int], positions: Sequence[int]
) -> Iterator[tuple[str, bool]]:
    """(text, whether it is trained) of stretches of tokens of one kind; images are stretches of their own."""
    sizes = iter(positions)
    begin = 0  # of the text since the last image
    said = ""
    for i, token in enumerate(ids):
        if token == IMAGE_TOKEN_INDEX:
            yield f"<image: {next(sizes):,} positions>", False
            begin, said = i + 1, ""
            continue
        is_target = labels[i] != IGNORE_INDEX
        is_last = i + 1 == len(ids) or ids[i + 1] == IMAGE_TOKEN_INDEX
        if is_last or (labels[i + 1] != IGNORE_INDEX) != is_target:
            # Decoded from the beginning, because a tokenizer may drop the blank of a first word.
            text = tokenizer.decode(ids[begin : i + 1], skip_special_tokens=False)
            yield text[len(said) :], is_target
            said = text


def _say_bytes(number: int) -> str:
    return f"{number / _GIB:,.1f} GiB" if number >= _GIB / 10 else f"{number / 2**20:,.0f} MiB"
