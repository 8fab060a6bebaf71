"""``llava info``: tables about a checkpoint, about an image's tiles and positions, and about a prompt's tokens.

It reads config.json and the headers of the weight files, never the weights: a 34B checkpoint is described as fast as a
small one, and a config.json alone is enough to show how an image is cut into tiles.
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

from llava.config import ModelSpec, as_checkpoint_error, read_spec
from llava.conversation import template_name
from llava.errors import CheckpointError
from llava.image.geometry import Size, TilePlan, Tiling, plan_tiles
from llava.image.source import FOR_LOCAL_USER, LoadedImage, load_image, say_notes
from llava.text import fit_line, for_stream, is_terminal, is_unicode
from llava.towers import find_position_range, is_siglip

if TYPE_CHECKING:
    from llava.listing import Listing
    from llava.model.fine_tunes import FineTune
    from llava.model.folder import Folder
    from llava.model.recognition import Finding

# The part that a tensor belongs to, by a substring of its name in any layout; all others belong to the decoder.
_PARTS = {
    "vision_tower": "vision tower",
    "mm_projector": "projector",
    "multi_modal_projector": "projector",
    "image_newline": "image newline",
    "embed_tokens": "embeddings",
    "lm_head": "head",
    "image_lora": "image adapter",
}
_ORDER = ("vision tower", "projector", "image newline", "image adapter", "embeddings", "decoder", "head")


@dataclass
class Part:
    """Counts of the tensors of one part of a checkpoint."""

    num_tensors: int = 0
    num_parameters: int = 0
    num_bytes: int = 0
    dtypes: set[str] = field(default_factory=set)

    def add(self, other: Part) -> None:
        """Adds the counts of ``other`` to this part's."""
        self.num_tensors += other.num_tensors
        self.num_parameters += other.num_parameters
        self.num_bytes += other.num_bytes
        self.dtypes |= other.dtypes

    def cells(self) -> tuple[str, str, str, str]:
        """Its numbers of tensors and parameters, size and dtypes, as the cells of a table."""
        size = f"{self.num_bytes / 1e9:.2f} GB" if self.num_bytes >= 1e9 else f"{self.num_bytes / 1e6:.2f} MB"
        return str(self.num_tensors), f"{self.num_parameters:,}", size, ", ".join(sorted(self.dtypes))


def describe_checkpoint(name: str | None, vision_tower: str | None = None) -> None:
    """Print a checkpoint's family, template, context, tiling and parts; None is the embedded model.

    If it is something that cannot be loaded and is recognized, print what it is and the next step instead.

    Raises CheckpointError.
    """
    from llava.model.folder import Folder
    from llava.model.gguf.gguf_file import GgufFault
    from llava.model.gguf.gguf_folder import GgufFolder, take_projector

    folder = _find(name)
    if not isinstance(folder, Folder):
        rows = [("path", str(name)), ("kind", folder.kind), ("what", folder.what), ("next", folder.next_step)]
        _show(_two_columns(rows))
        return
    folder, tower = take_projector(folder, vision_tower)
    facts = [("checkpoint", str(folder))]
    if isinstance(folder, GgufFolder):
        try:
            folder.check()
        except GgufFault as fault:
            _show(_two_columns([*facts, ("kind", "GGUF"), ("what", fault.what), ("next", fault.next_step)]))
            return
        facts.append(("mmproj", str(folder.vision.path)))
    part, fine_tune, missing = _describe_part(folder)
    if missing is not None:  # a part of a model whose base is not here
        _show(_two_columns([*facts, *part, ("next", missing)]))
        return
    spec = _read_spec(folder, fine_tune, tower)
    with as_checkpoint_error(f"{folder.config_path} cannot be used"):
        template = template_name(name or folder.path.name, spec.raw)
    facts += [
        ("model", f"{spec.family}, hidden size {spec.hidden_size}, {spec.layout} layout, {spec.dtype or 'any dtype'}"),
        ("template", template),
        ("context", f"{spec.context_tokens} tokens, vocabulary {spec.vocab_size}"),
        ("tower", _say_tower(spec)),
        ("projector", f"{spec.projector_type}, {spec.tower_hidden_size} to {spec.hidden_size}"),
        ("images", _say_tiling(spec.tiling)),
        *_say_adapter(spec),
        *part,
    ]
    _show_weights(folder, facts)


def _find(name: str | None) -> Folder | Finding:
    """The folder of the checkpoint with that name, or the kind of thing that is there if it is not a LLaVA.

    Raises CheckpointError.
    """
    from llava.model.default_choice import DEFAULT_MODEL
    from llava.model.folder import Folder
    from llava.model.recognition import read_hub_url, recognise, recognise_name
    from llava.model.sources import find_checkpoint

    found: Finding | None = None
    if name and "\0" not in name:
        place: Folder | Path = Path(os.path.expanduser(name))
        if os.path.lexists(os.path.expanduser(name)):
            with contextlib.suppress(CheckpointError):  # neither a folder nor a file of a checkpoint
                place = Folder.of(find_checkpoint(name))
            found = recognise(place)
            if found is None and isinstance(place, Folder):
                return place
        elif not name.startswith((".", "/")):
            found = recognise_name(read_hub_url(name))
    return found or Folder.of(find_checkpoint(DEFAULT_MODEL if name is None else name))


def _describe_part(folder: Folder) -> tuple[list[tuple[str, str]], FineTune | None, str | None]:
    """Rows about LoRA layers or a projector alone; the fine-tune; and the remedy if its base cannot be found.

    The fine-tune is None if the base is not needed, because the folder has its own config.json.
    """
    from llava.model.adapters import find_adapter
    from llava.model.fine_tunes import PROJECTOR_FILE, find_fine_tune

    if folder.has_weights:
        return [], None, None
    adapter = find_adapter(folder)
    facts = []
    if adapter is not None:
        rank, alpha = adapter.settings.get("r"), adapter.settings.get("lora_alpha")
        base = adapter.settings.get("base_model_name_or_path") or "an unnamed base"
        facts = [("adapter", f"LoRA of rank {rank}, alpha {alpha} on {len(adapter.layers)} layers of {base}")]
    elif folder.has(PROJECTOR_FILE):
        facts = [("part", f"a projector alone ({PROJECTOR_FILE}), for the language model that it was trained on")]
    if not facts or folder.has("config.json"):
        return facts, None, None
    try:
        return facts, find_fine_tune(folder, adapter=adapter), None
    except CheckpointError as error:
        return facts, None, str(error)


def _read_spec(folder: Folder, fine_tune: FineTune | None, vision_tower: str | Path | None) -> ModelSpec:
    """The checkpoint's spec, with the tower ``vision_tower``, or else the one that config.json or its weights describe.

    Raises CheckpointError.
    """
    from llava.model.checkpoint_reader import open_checkpoint
    from llava.model.fine_tunes import find_config, find_fine_tune
    from llava.model.sources import find_tower

    described = find_config(folder, fine_tune)
    if fine_tune is None and not described.has("config.json"):
        described = find_config(folder, find_fine_tune(folder))
    if vision_tower is not None:
        values = {**described.config, "mm_vision_tower": str(vision_tower)}
        return read_spec(described.path, tower_folder=find_tower(str(vision_tower), folder.path), config=values)
    try:
        return read_spec(described.path, config=described.config)
    except CheckpointError:
        if not folder.has_weights:
            raise
        return open_checkpoint(folder).spec


def _show_weights(folder: Folder, facts: list[tuple[str, str]]) -> None:
    from llava.model.weights import explain_choice

    if (note := explain_choice(folder.path)) is not None:
        facts.append(("notice", note))
    parts = count_parts(folder) if folder.has_weights else {}
    _show(_two_columns(facts))
    print()
    if not folder.has_weights:
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
    table.add_row("total", *whole.cells())
    _show(table)


def count_parts(folder: Folder) -> dict[str, Part]:
    """The tensors in the weight files of ``folder``, counted by part. They are mapped from their files, not read."""
    parts: dict[str, Part] = {}
    for name, num_elements, num_bytes, dtype in folder.measure_tensors():
        title = next((title for key, title in _PARTS.items() if key in name), "decoder")
        parts.setdefault(title, Part()).add(Part(1, num_elements, num_bytes, {dtype}))
    return parts


def describe_image(
    name: str | None, source: str, *, plot: str | None = None, max_pixels: int | None = None, tower: str | None = None
) -> None:
    """Print how the checkpoint cuts the image into tiles and positions; with ``plot``, draw it into that file.

    Raises BadImage and CheckpointError.
    """
    from llava.model.folder import Folder
    from llava.model.gguf.gguf_folder import take_projector

    image = load_image(source, FOR_LOCAL_USER.with_pixels(max_pixels))
    folder = _find(name)
    if not isinstance(folder, Folder):
        raise CheckpointError(str(folder))
    say_notes([image])
    folder, named = take_projector(folder, tower)
    tiling = _read_spec(folder, None, named).tiling
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
    image_questions: Sequence[int] | None = None,
    template: str | None = None,
    max_pixels: int | None = None,
    tower: str | None = None,
    as_json: bool = False,
) -> None:
    """Print the prompt for the questions exactly as the model gets it: the text, then each token; or both as JSON.

    With an answer to every question, its targets are marked. ``image_questions`` and errors are ``list_prompt``'s.
    """
    from llava.listing import list_prompt
    from llava.model.default_choice import resolve_name

    shown = [load_image(source, FOR_LOCAL_USER.with_pixels(max_pixels)) for source in sources]
    say_notes(shown)
    listing = list_prompt(
        name, questions, answers, shown, image_questions=image_questions, template=template, vision_tower=tower
    )
    if as_json:
        is_plain = not is_unicode(sys.stdout) or is_terminal(sys.stdout)
        print(json.dumps({"model": resolve_name(name), **listing.as_dict()}, ensure_ascii=is_plain, indent=2))
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
            # A piece may contain a line feed, which would break its row.
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
        facts.append(
            ("cut", f"this checkpoint truncates long prompts: the first {listing.kept_positions} positions are sent")
        )
    if listing.is_supervised:
        facts.append(("trained", f"{listing.num_targets} of the {num_text} tokens, marked *"))
    return facts


def _say_plan(plan: TilePlan, tiling: Tiling) -> list[tuple[str, str]]:
    side = plan.features_per_side
    each = "" if plan.position_range else f"{side}x{side} features"
    corner = f"({plan.offset[0]}, {plan.offset[1]})"
    facts = [("canvas", f"{plan.canvas} px, the image as {plan.content} px at {corner}")]
    if plan.num_tiles == 1:
        facts.append(("tiles", f"1 of {tiling.tile_px} px{each and f': {each}'}"))
    else:
        tiles = f"{plan.grid} of {tiling.tile_px} px, and the whole image in one more"
        facts.append(("tiles", f"{plan.num_tiles}: {tiles}{each and f'; {each} each'}"))
    if plan.num_tiles > 1 and not plan.is_flat:
        kept = Size(len(plan.kept_columns), len(plan.kept_rows))
        full = Size(plan.grid.width * side, plan.grid.height * side)
        of_all = f"all {full} features" if kept == full else f"{kept} of {full} features, the others show only padding"
        resampled = "" if plan.resampling == "none" else f"; {plan.resampling} to {plan.map_size}"
        facts.append(("kept", of_all + resampled))
    facts.append(("positions", _say_positions(plan)))
    return facts


def _say_positions(plan: TilePlan) -> str:
    """The sum that gives the number of positions."""
    if plan.position_range:
        return f"{plan.say_positions()}, at most {plan.position_range[1]}"
    if plan.is_flat or plan.num_tiles == 1:
        newline = " + 1 newline" if plan.has_newlines else ""
        return f"{plan.num_tiles} x {plan.features_per_tile}{newline} = {plan.num_positions}"
    base = f"{plan.features_per_tile} whole image + " if plan.has_base else ""
    row = f"({plan.map_size.width} + 1 newline)" if plan.has_newlines else str(plan.map_size.width)
    return f"{base}{plan.map_size.height} rows x {row} = {plan.num_positions}"


def _say_tower(spec: ModelSpec) -> str:
    if (counts := find_position_range(spec.tower_config)) is not None:
        return f"lexical, inside: {counts[0]} features of things, and up to {counts[1] - counts[0]} words that it reads"
    kind = "SigLIP, " if is_siglip(spec.tower_config) else ""
    return f"{kind}{spec.tower or 'inside'}, layer {spec.select_layer}, {spec.select_feature} features"


def _say_adapter(spec: ModelSpec) -> list[tuple[str, str]]:
    from llava.model.image_adapter import read_adapter

    described = read_adapter(spec.config)
    if described is None:
        return []
    rank, alpha = described
    return [("image adapter", f"of rank {rank}, alpha {alpha:g}, active from a prompt's first image on")]


def _say_tiling(tiling: Tiling) -> str:
    patches = "" if tiling.position_range else f" in {tiling.patch_px}-px patches"
    tile = f"tiles of {tiling.tile_px} px{patches}"
    if not tiling.is_anyres:
        return f"{tiling.aspect}, one tile: {tile}"
    canvases = ", ".join(str(canvas) for canvas in tiling.pinpoints)
    return f"{tiling.aspect}, {tiling.merge}, {tile}; canvases {canvases}"


def _two_columns(facts: Iterable[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for title, text in facts:
        table.add_row(title, for_stream(text, sys.stdout))
    return table


def _show(table: Table) -> None:
    """Print the table; if standard output is not a terminal, without wrapping or padding its lines."""
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(table)
        return
    console.width = 200
    with console.capture() as text:
        console.print(table)
    print(for_stream("\n".join(line.rstrip() for line in text.get().splitlines()), sys.stdout))
