"""Prints what a checkpoint is, how it tiles an image, and the tokens of a prompt.

Reads config.json and the headers of the weight files, never the weights: a 34B checkpoint is described as fast as a
small one, and a folder with nothing but a config.json is enough to show how an image would be tiled.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from llava.config import ModelSpec, blaming, read_spec
from llava.conversation import template_name
from llava.errors import CheckpointError
from llava.image.geometry import Size, TilePlan, Tiling, plan_tiles
from llava.image.source import FOR_LOCAL_USER, LoadedImage, load_image, say_notes
from llava.text import fit_line, for_stream, is_terminal, is_unicode
from llava.towers import is_siglip

if TYPE_CHECKING:
    from llava.listing import Listing
    from llava.model.foreign import Finding

# The part that a tensor belongs to, by a substring of its name in any layout; all other tensors are the decoder's.
_PARTS = {
    "vision_tower": "vision tower",
    "mm_projector": "projector",
    "multi_modal_projector": "projector",
    "image_newline": "image newline",
    "embed_tokens": "embeddings",
    "lm_head": "head",
}
_ORDER = ("vision tower", "projector", "image newline", "embeddings", "decoder", "head")


@dataclass
class Part:
    """The tensors of one part of a checkpoint, counted."""

    num_tensors: int = 0
    num_parameters: int = 0
    num_bytes: int = 0
    dtypes: set[str] = field(default_factory=set)

    def add(self, other: Part) -> None:
        """Adds the counts of another part."""
        self.num_tensors += other.num_tensors
        self.num_parameters += other.num_parameters
        self.num_bytes += other.num_bytes
        self.dtypes |= other.dtypes

    def cells(self) -> tuple[str, str, str, str]:
        """Tensors, parameters, size and dtypes, as a table shows them."""
        size = f"{self.num_bytes / 1e9:.2f} GB" if self.num_bytes >= 1e9 else f"{self.num_bytes / 1e6:.2f} MB"
        return str(self.num_tensors), f"{self.num_parameters:,}", size, ", ".join(sorted(self.dtypes))


def describe_checkpoint(name: str | None, vision_tower: str | None = None) -> None:
    """Prints a checkpoint's family, template, context, tiling and parts; None is the embedded model.

    For a path or name that is recognised as something else, prints what it is and what to do next.

    Raises CheckpointError.
    """
    found = _recognise(name)
    if found is not None:
        _show(
            _two_columns([("path", str(name)), ("kind", found.kind), ("what", found.what), ("next", found.next_step)])
        )
        return
    folder = _find(name)
    facts = [("checkpoint", str(folder))]
    part, missing = _describe_part(folder)
    if missing is not None:  # a part whose base cannot be found: only its own files can be described
        _show(_two_columns([*facts, *part, ("next", missing)]))
        return
    spec = _read_spec(folder, vision_tower)
    with blaming(f"{folder / 'config.json'} cannot be used"):
        template = template_name(name or folder.name, spec.raw)
    facts += [
        ("model", f"{spec.family}, hidden size {spec.hidden_size}, {spec.layout} layout, {spec.dtype or 'any dtype'}"),
        ("template", template),
        ("context", f"{spec.context_tokens} tokens, vocabulary {spec.vocab_size}"),
        ("tower", _say_tower(spec)),
        ("projector", f"{spec.projector_type}, {spec.tower_hidden_size} to {spec.hidden_size}"),
        ("images", _say_tiling(spec.tiling)),
        *part,
    ]
    _show_weights(folder, facts)


def _recognise(name: str | None) -> Finding | None:
    """What a path or name is, if it is recognised as anything other than a LLaVA checkpoint; None otherwise."""
    from llava.model.foreign import read_hub_url, recognise, recognise_name
    from llava.model.sources import find_checkpoint

    if not name or "\0" in name:
        return None
    path = Path(os.path.expanduser(name))
    if not os.path.lexists(path):
        return recognise_name(read_hub_url(name)) if not name.startswith((".", "/")) else None
    with contextlib.suppress(CheckpointError):  # neither a folder nor a file of one
        path = find_checkpoint(name)
    return recognise(path)


def _describe_part(folder: Path) -> tuple[list[tuple[str, str]], str | None]:
    """Facts about LoRA layers or a lone projector, and the remedy if their base cannot be found."""
    from llava.model.adapters import find_adapter
    from llava.model.fine_tunes import find_fine_tune
    from llava.model.weights import has_weights

    if has_weights(folder):
        return [], None
    adapter = find_adapter(folder)
    facts = []
    if adapter is not None:
        rank, alpha = adapter.settings.get("r"), adapter.settings.get("lora_alpha")
        base = adapter.settings.get("base_model_name_or_path") or "an unnamed base"
        facts = [("adapter", f"LoRA of rank {rank}, alpha {alpha} on {len(adapter.layers)} layers of {base}")]
    elif os.path.isfile(folder / "mm_projector.bin"):
        facts = [("part", "a projector alone (mm_projector.bin), for the language model that it was trained on")]
    if not facts or os.path.isfile(folder / "config.json"):
        return facts, None
    try:
        find_fine_tune(folder)
    except CheckpointError as error:
        return facts, str(error)
    return facts, None


def _read_spec(folder: Path, vision_tower: str | None) -> ModelSpec:
    """The checkpoint's spec, with ``vision_tower`` if given, otherwise the tower of config.json or of the weights."""
    from llava.config import read_config_dict
    from llava.model.fine_tunes import find_config
    from llava.model.opening import open_checkpoint
    from llava.model.sources import find_tower
    from llava.model.weights import has_weights

    described = find_config(folder)
    if vision_tower is not None:
        values = {**read_config_dict(described), "mm_vision_tower": vision_tower}
        return read_spec(described, tower_folder=find_tower(vision_tower, folder), config=values)
    try:
        return read_spec(described)
    except CheckpointError:
        if not has_weights(folder):
            raise
        return open_checkpoint(folder).spec


def _show_weights(folder: Path, facts: list[tuple[str, str]]) -> None:
    from llava.model.weights import explain_choice, has_weights

    if (note := explain_choice(folder)) is not None:
        facts.append(("remark", note))
    parts = count_parts(folder) if has_weights(folder) else {}
    _show(_two_columns(facts))
    print()
    if not has_weights(folder):
        print("This folder has no weights of a whole model.")
        return
    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    for title in ("part", "tensors", "parameters", "size", "dtype"):
        table.add_column(title, justify="left" if title in ("part", "dtype") else "right")
    whole = Part()
    for title in sorted(parts, key=_ORDER.index):
        table.add_row(title, *parts[title].cells())
        whole.add(parts[title])
    table.add_section()
    table.add_row("together", *whole.cells())
    _show(table)


def count_parts(folder: Path) -> dict[str, Part]:
    """Tensors, parameters and bytes of the weight files in ``folder``, by part. The tensors are mapped, not read."""
    from llava.model.weights import find_tensors, stream_tensors

    parts: dict[str, Part] = {}
    for name, tensor, _ in stream_tensors(find_tensors(folder)):
        title = next((title for key, title in _PARTS.items() if key in name), "decoder")
        dtype = str(tensor.dtype).removeprefix("torch.")
        parts.setdefault(title, Part()).add(Part(1, tensor.numel(), tensor.nbytes, {dtype}))
    return parts


def describe_image(
    name: str | None, source: str, *, plot: str | None = None, max_pixels: int | None = None, tower: str | None = None
) -> None:
    """Prints how the checkpoint tiles the image, and how many positions that takes; ``plot``: a file to draw it into.

    Raises BadImage and CheckpointError.
    """
    image = load_image(source, FOR_LOCAL_USER.with_pixels(max_pixels))
    if (found := _recognise(name)) is not None:
        raise CheckpointError(str(found))
    say_notes([image])
    tiling = _read_spec(_find(name), tower).tiling
    plan = plan_tiles(image.size, tiling)
    if plot is not None:
        from llava.image.tokenmap import draw_token_map

        Path(plot).parent.mkdir(parents=True, exist_ok=True)
        draw_token_map(image.image, tiling, Path(plot))
    facts = [("image", f"{fit_line(image.name)}, {plan.image} px"), *_say_plan(plan, tiling)]
    _show(_two_columns([*facts, ("drawn in", plot)] if plot else facts))


def describe_prompt(
    name: str | None,
    questions: Sequence[str],
    answers: Sequence[str],
    sources: Sequence[str],
    *,
    template: str | None = None,
    max_pixels: int | None = None,
    tower: str | None = None,
    as_json: bool = False,
) -> None:
    """Prints the prompt of the questions: its text, then each token; or one JSON object of both.

    With an answer to every question, the tokens that count in the loss are marked. Raises as ``list_prompt`` does.
    """
    from llava.listing import list_prompt

    shown = [load_image(source, FOR_LOCAL_USER.with_pixels(max_pixels)) for source in sources]
    say_notes(shown)
    listing = list_prompt(name, questions, answers, shown, template=template, vision_tower=tower)
    if as_json:
        is_plain = not is_unicode(sys.stdout) or is_terminal(sys.stdout)
        print(json.dumps({"model": name or "embedded", **listing.as_dict()}, ensure_ascii=is_plain, indent=2))
        return
    _show(_two_columns(_say_prompt(listing, shown)))
    print(f"\n--- the text ---\n{for_stream(listing.text, sys.stdout)}\n--- its tokens ---")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("position", "id", "piece", *(["trained"] if listing.is_supervised else [])):
        table.add_column(title, justify="right" if title == "id" else "left", overflow="fold")
    for entry in listing.entries:
        if entry.token is None:
            last = entry.position + entry.num_positions - 1
            table.add_row(f"{entry.position}..{last}", "", f"{entry.piece} {entry.num_positions} positions")
        else:
            # A line feed in a vocabulary entry would break the table.
            piece = entry.piece.replace("\n", "\\n").replace("\t", "\\t")
            mark = ["*" * entry.is_target] if listing.is_supervised else []
            table.add_row(str(entry.position), str(entry.token), for_stream(piece, sys.stdout), *mark)
    _show(table)


def _say_prompt(listing: Listing, shown: Sequence[LoadedImage]) -> list[tuple[str, str]]:
    num_text = listing.num_positions - listing.num_image_positions
    facts = [("template", listing.template)]
    images = [entry for entry in listing.entries if entry.token is None]
    for image, entry in zip(shown, images, strict=True):
        facts.append(("image", f"{image.name}, {image.size} px: {entry.num_positions} positions"))
    total = f"{num_text} tokens of text + {listing.num_image_positions} of images = {listing.num_positions} positions"
    facts.append(("prompt", f"{total}; the context holds {listing.context_tokens}"))
    if listing.kept_positions < listing.num_positions:
        facts.append(("cut", f"this checkpoint truncates long prompts to the first {listing.kept_positions} positions"))
    if listing.is_supervised:
        facts.append(("trained", f"{listing.num_targets} of the {num_text} tokens, marked *"))
    return facts


def _say_plan(plan: TilePlan, tiling: Tiling) -> list[tuple[str, str]]:
    side = plan.features_per_side
    corner = f"({plan.offset[0]}, {plan.offset[1]})"
    facts = [("canvas", f"{plan.canvas} px, the image as {plan.content} px at {corner}")]
    if plan.num_tiles == 1:
        facts.append(("tiles", f"1 of {tiling.tile_px} px: {side}x{side} features"))
    else:
        tiles = f"{plan.grid} of {tiling.tile_px} px, and the whole image in one more"
        facts.append(("tiles", f"{plan.num_tiles}: {tiles}; {side}x{side} features each"))
    if plan.num_tiles > 1 and not plan.is_flat:
        kept = Size(len(plan.kept_columns), len(plan.kept_rows))
        full = Size(plan.grid.width * side, plan.grid.height * side)
        of_all = f"all {full} features" if kept == full else f"{kept} of {full} features, the others show only padding"
        resampled = "" if plan.resampling == "none" else f"; {plan.resampling} to {plan.map_size}"
        facts.append(("kept", of_all + resampled))
    facts.append(("positions", _say_positions(plan)))
    return facts


def _say_positions(plan: TilePlan) -> str:
    """The number of positions as a sum, term by term."""
    if plan.is_flat or plan.num_tiles == 1:
        newline = " + 1 newline" if plan.has_newlines else ""
        return f"{plan.num_tiles} x {plan.features_per_tile}{newline} = {plan.num_positions}"
    base = f"{plan.features_per_tile} whole image + " if plan.has_base else ""
    row = f"({plan.map_size.width} + 1 newline)" if plan.has_newlines else str(plan.map_size.width)
    return f"{base}{plan.map_size.height} rows x {row} = {plan.num_positions}"


def _say_tower(spec: ModelSpec) -> str:
    kind = "SigLIP, " if is_siglip(spec.tower_config) else ""
    return f"{kind}{spec.tower or 'inside'}, layer {spec.select_layer}, {spec.select_feature} features"


def _say_tiling(tiling: Tiling) -> str:
    tile = f"tiles of {tiling.tile_px} px in {tiling.patch_px}-px patches"
    if not tiling.is_anyres:
        return f"{tiling.aspect}, one tile: {tile}"
    canvases = ", ".join(str(canvas) for canvas in tiling.pinpoints)
    return f"{tiling.aspect}, {tiling.merge}, {tile}; canvases {canvases}"


def _find(name: str | None) -> Path:
    from llava.model.sources import DEFAULT_MODEL, find_checkpoint

    return find_checkpoint(DEFAULT_MODEL if name is None else name)


def _two_columns(facts: Iterable[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for title, text in facts:
        table.add_row(title, for_stream(text, sys.stdout))
    return table


def _show(table: Table) -> None:
    """Prints the table; unless stdout is a terminal, without line wrapping and trailing blanks."""
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(table)
        return
    console.width = 200
    with console.capture() as text:
        console.print(table)
    print(for_stream("\n".join(line.rstrip() for line in text.get().splitlines()), sys.stdout))
