"""Opens a checkpoint: finds where each of its tensors lies, and holds that against its config.json.

Of a fine-tune the base is found, and later files win over earlier ones: a projector over the one that the base may
have. Every tensor is accounted for before the first is read: used, left out by a rule of ``layouts``, or a
CheckpointError that lists what is missing and what is left over. Nothing is given its value here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llava.config import (
    ModelSpec,
    blaming,
    check_names,
    find_tower_folder,
    read_config_dict,
    read_spec,
    read_tower_config,
)
from llava.conversation import template_name
from llava.dimensions import explain_field
from llava.errors import CheckpointError, UsageError
from llava.image.pixels import ImageProcessor
from llava.model import adapters, layouts
from llava.model.companions import fit_tokenizer, has_tokenizer, load_processor, load_tokenizer, read_processor_files
from llava.model.fine_tunes import PROJECTOR_FILE, SHARED_SIZES, FineTune, check_base, find_config, find_fine_tune
from llava.model.foreign import read_hub_url, recognise, recognise_name
from llava.model.inner_tower import find_description
from llava.model.llava import (
    LlavaConfig,
    LlavaLlamaForCausalLM,
    LlavaMistralConfig,
    LlavaMistralForCausalLM,
    LlavaQwenConfig,
    LlavaQwenForCausalLM,
)
from llava.model.sources import DEFAULT_MODEL, find_checkpoint, find_tower
from llava.model.weights import (
    check_not_empty,
    explain_choice,
    find_tensors,
    has_weights,
    names_in,
    refuse_wrapped,
    stream_tensors,
)
from llava.towers import KNOWN_TOWERS, refuse_foreign_tower

_LOG = logging.getLogger("llava.model")

_CLASSES: dict[str, tuple[Any, Any]] = {
    "llama": (LlavaConfig, LlavaLlamaForCausalLM),
    "mistral": (LlavaMistralConfig, LlavaMistralForCausalLM),
    "qwen2": (LlavaQwenConfig, LlavaQwenForCausalLM),
}
_PROJECTOR_PARTS = (layouts.PROJECTOR, layouts.NEWLINE)


@dataclass(frozen=True)
class Source:
    """Tensors of one origin: their files by the names used there, and how these names become ours."""

    places: dict[str, Path]
    rename: Callable[[str], str | None]

    def names(self) -> dict[str, Path]:
        """Our name of each tensor, with its file; without those that a rule leaves out."""
        return {ours: path for name, path in self.places.items() if (ours := self.rename(name)) is not None}


@dataclass(frozen=True)
class OpenCheckpoint:
    """A whole checkpoint whose files fit its config.json, and of which no tensor is read yet.

    ``folders`` are where its companions are looked for: its own, and behind it its base's.
    """

    folders: tuple[Path, ...]
    tower_folder: Path | None  # where the tower is, if it is not inside
    fine_tune: FineTune | None
    spec: ModelSpec
    template: str  # a name of llava.conversation.conv_templates
    model: Any  # on the meta device: names and shapes without memory
    config_path: Path
    _sources: list[Source]
    _passed_over: set[str]

    @property
    def folder(self) -> Path:
        return self.folders[0]

    @property
    def passed_over(self) -> list[str]:
        """The tensors in its files that the model has no use for, by our names."""
        return sorted(self._passed_over & {name for source in self._sources for name in source.names()})

    @property
    def everything_read(self) -> list[Path]:
        """The folders that files are read from."""
        return [*self.folders, *([] if self.tower_folder is None else [self.tower_folder])]

    def load_processor(self) -> ImageProcessor:
        """How it prepares images. CheckpointError if the tower takes others."""
        tower, tile_px = self.model.get_vision_tower(), self.spec.tiling.tile_px
        path, processor = load_processor(self.everything_read, tower.usual_processor(tile_px))
        if processor.tile_px == tower.image_size != tile_px:  # it is the tower's own, which reads squares of an image
            processor.scale_to(tile_px)
        if processor.tile_px != tile_px:
            raise CheckpointError(
                f"{path} makes images of {processor.tile_px} px, but the vision tower takes {tile_px} px "
                "(image_size): one of the two files is of another model."
            )
        if self.spec.layout == "hf":
            self._check_hf_processor()
        return processor

    def _check_hf_processor(self) -> None:
        """CheckpointError if the files beside config.json, in which llava-hf says some things again, say otherwise."""
        for path, values in read_processor_files(self.folder):
            nested = values.get("image_processor")
            values = {**values, **(nested if isinstance(nested, dict) else {})}
            for key, here in (
                ("image_grid_pinpoints", self.spec.raw.get("image_grid_pinpoints")),
                ("patch_size", self.spec.tiling.patch_px),
                ("vision_feature_select_strategy", self.spec.raw.get("vision_feature_select_strategy")),
            ):
                if here is not None and values.get(key) is not None and values[key] != here:
                    raise CheckpointError(
                        f"{path} says {key}: {values[key]!r}, but {self.config_path} says {here!r}: "
                        "correct the one that is wrong."
                    )

    def load_tokenizer(self) -> Any:
        """Its tokenizer, every token of which has its row of embeddings.

        Raises:
            CheckpointError: there is none, it cannot be read, or it is another model's.
        """
        folder = next((folder for folder in self.folders if has_tokenizer(folder)), self.folders[-1])
        tokenizer = load_tokenizer(folder)
        if not isinstance(tokenizer.model_max_length, (int, float)):
            raise CheckpointError(
                f"{folder / 'tokenizer_config.json'} says model_max_length: {tokenizer.model_max_length!r:.80}, "
                "where a number is needed."
            )
        fit_tokenizer(tokenizer, self.model, folder)
        if self.spec.family in ("llama", "mistral") and tokenizer.bos_token_id is None:
            raise CheckpointError(
                f"The tokenizer in {folder} has no BOS token, but every prompt of a {self.spec.family} begins with one "
                f"({self.config_path}: bos_token_id {self.model.config.bos_token_id}). Copy the tokenizer's files "
                "from the language model that the checkpoint was made from."
            )
        said = self.model.config.bos_token_id
        if self.spec.family in ("llama", "mistral") and said is not None and said != tokenizer.bos_token_id:
            _LOG.warning(
                "The tokenizer in %s begins every prompt with %r (%d), but %s says bos_token_id: %d. If answers are "
                "poor, it is another model's.",
                *(folder, tokenizer.bos_token, tokenizer.bos_token_id, self.config_path, said),
            )
        return tokenizer

    def stream(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Each tensor by our name, one at a time; a head that is tied to the embeddings not. Raises as ``read``."""
        tied: dict[str, torch.Tensor] = {}
        for ours, tensor, _, _ in self.read():
            if self.model.config.tie_word_embeddings and ours in (layouts.EMBEDDINGS, layouts.HEAD):
                tied[ours] = tensor
                if len(tied) == 2:
                    check_tied(*tied.values())
            if ours not in tied or ours == layouts.EMBEDDINGS:
                yield ours, tensor

    def read(self) -> Iterator[tuple[str, torch.Tensor, str, Path]]:
        """Each tensor of the model by our name, as its file has it, with its name there and that file.

        Of several sources' the last one's. Files are mapped, one at a time.

        Raises:
            CheckpointError: a tensor is there twice, has no place, another shape than config.json describes, or no
                floating-point numbers.
        """
        wanted = _shapes(self.model)
        owner = {name: i for i, source in enumerate(self._sources) for name in source.names()}
        for i, source in enumerate(self._sources):
            seen: dict[str, Path] = {}
            for name, tensor, path in stream_tensors(source.places):
                ours = source.rename(name)
                if ours is None or ours in self._passed_over or owner.get(ours, i) != i:
                    continue
                if ours in seen:
                    raise CheckpointError(f"{name} is there twice, in {seen[ours]} and in {path}.")
                seen[ours] = path
                if ours not in wanted:  # the index did not mention it
                    raise CheckpointError(f"{path} holds {name}, which the model has no place for.")
                check_not_empty(name, tensor, path)
                if tuple(tensor.shape) != wanted[ours]:
                    raise CheckpointError(
                        f"{name} in {path} has the shape {list(tensor.shape)}, but {self.config_path} describes "
                        f"{list(wanted[ours])}: one of the two files is of another model."
                    )
                if not tensor.is_floating_point():
                    raise CheckpointError(
                        f"{name} in {path} is of {tensor.dtype}; only floating-point weights can be read."
                    )
                yield ours, tensor, name, path


def open_checkpoint(
    path_or_id: str | Path = DEFAULT_MODEL,
    *,
    base: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    attention: str | None = None,
    vision_tower: str | Path | None = None,
) -> OpenCheckpoint:
    """The checkpoint of that name, every tensor of it accounted for; for the arguments see ``load_model``.

    Raises:
        CheckpointError: as ``load_model``, except for what only the tensors themselves can tell.
        UsageError: a whole model was given a base.
    """
    folder = find_checkpoint(path_or_id)
    try:
        return _open(path_or_id, folder, base, config, overrides, attention, vision_tower)
    except CheckpointError as error:
        # It may be something else altogether. Where it is, that says more than the first thing that is wrong with it.
        is_named = not os.path.exists(os.path.expanduser(path_or_id)) and not has_weights(folder)
        found = (recognise_name(str(path_or_id)) if is_named else None) or recognise(folder)
        if found is None:
            raise
        raise CheckpointError(str(found)) from error


def _open(
    path_or_id: str | Path,
    folder: Path,
    base: str | Path | None,
    config: Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | None,
    attention: str | None,
    vision_tower: str | Path | None,
) -> OpenCheckpoint:
    fine_tune = find_fine_tune(folder, base)
    if base is not None and fine_tune is None and has_weights(folder):
        raise UsageError(f"{folder} holds a whole model, so it takes no base: leave {base} out.")
    folders = (folder,) if fine_tune is None else (folder, fine_tune.base)
    config_path = find_config(folder, None if fine_tune is None else fine_tune.base) / "config.json"
    values = {**(read_config_dict(config_path.parent) if config is None else config), **(overrides or {})}
    if fine_tune is not None:
        check_base(fine_tune.base, config_path, values)
    sources = _find_sources(folder, fine_tune, is_hf="text_config" in values)
    if fine_tune is None:
        refuse_wrapped(folder, sources[0].places)
    for each in folders:
        if (note := explain_choice(each)) is not None:
            _LOG.warning(note)
    try:
        spec, tower_folder = _find_spec(folders, config_path, values, sources, vision_tower)
    except CheckpointError as error:
        if config_path.parent == folder:
            raise
        raise CheckpointError(
            f"{folder} has no config.json, so that of {config_path.parent} counts: {error} If that is not how it was "
            "trained, copy the config.json that its training wrote at the end."
        ) from error
    if tower_folder is not None:
        sources.insert(0, Source(find_tensors(tower_folder), layouts.name_from_tower))
    # The name counts only where no file says more, and that of an adapter without a config.json says nothing.
    named = path_or_id if config_path.parent != folders[-1] else folders[-1]
    is_local = os.path.exists(os.path.expanduser(named))
    with blaming(f"{config_path} cannot be used"):
        template = template_name(
            os.path.abspath(os.path.expanduser(named)) if is_local else read_hub_url(str(named)), spec.raw
        )
    model = _build(spec, folder, config_path, template, attention)
    if fine_tune is not None and fine_tune.adapter is not None:
        adapters.untie(model, fine_tune.adapter, {name for source in sources for name in source.names()})
    passed_over = _account(model, sources, config_path)
    return OpenCheckpoint(folders, tower_folder, fine_tune, spec, template, model, config_path, sources, passed_over)


def _find_sources(folder: Path, fine_tune: FineTune | None, is_hf: bool) -> list[Source]:
    """Where the tensors of the checkpoint lie: in its own files, or in its base's and what was trained on it."""
    if fine_tune is None:
        return [Source(find_tensors(folder), layouts.name_from_hf if is_hf else layouts.name_from_original)]
    base = fine_tune.base
    base_is_hf = os.path.isfile(base / "config.json") and "text_config" in read_config_dict(base)
    rename = layouts.name_from_hf if base_is_hf else layouts.name_from_original
    if fine_tune.adapter is None:
        projector = folder / PROJECTOR_FILE
        own = Source(dict.fromkeys(names_in(projector), projector), adapters.name_from_adapter)
    else:
        own = Source(fine_tune.adapter.whole, adapters.name_from_adapter)
    places = find_tensors(base)
    # A projector is of one piece: one that lacks a layer must not be completed from the base's. Of an adapter's own
    # file, though, PEFT's modules_to_save may name single layers.
    adapter_file = None if fine_tune.adapter is None else fine_tune.adapter.file
    if any(ours.startswith(layouts.PROJECTOR) and path != adapter_file for ours, path in own.names().items()):
        places = {name: path for name, path in places.items() if not (rename(name) or "").startswith(layouts.PROJECTOR)}
    return [Source(places, rename), own]


def _find_spec(
    folders: tuple[Path, ...],
    config_path: Path,
    values: Mapping[str, Any],
    sources: Iterable[Source],
    vision_tower: str | Path | None,
) -> tuple[ModelSpec, Path | None]:
    """The spec, and the tower's folder if its weights have to come from there: those inside the checkpoint win."""
    if vision_tower is not None:
        values = {**values, "mm_vision_tower": str(vision_tower)}
    check_names(values, config_path)
    name = str(values.get("mm_vision_tower") or values.get("vision_tower") or "")
    places = {ours: (path, theirs) for source in sources for theirs, path in source.places.items()
              if (ours := source.rename(theirs) or "").startswith(layouts.TOWER)}  # fmt: skip
    is_inside = bool(places)
    described = values.get("mm_vision_config") or values.get("vision_config")
    tower_folder = None
    if is_inside and vision_tower is not None:
        _LOG.warning("%s has its vision tower's weights inside: they are used, not those of %s.", folders[0], name)
    if name and not (is_inside and described) and not any(find_tower_folder(name, folder) for folder in folders):
        refuse_foreign_tower(name, config_path)
    if is_inside and not described:
        tower_folder, rebuilt = find_description(
            name, folders, places, KNOWN_TOWERS, is_wanted=vision_tower is not None
        )
        values = {**values, **rebuilt}
    elif name and not is_inside:
        beside = next((folder for folder in folders if find_tower_folder(name, folder)), folders[0])
        tower_folder = find_tower(name, beside)
    spec = read_spec(config_path.parent, tower_folder=tower_folder, config=values)
    width = spec.tower_config["hidden_size"] * len(spec.scales)
    if spec.tower_hidden_size != width:
        raise CheckpointError(
            f"{config_path} says mm_hidden_size: {spec.tower_hidden_size}, but its vision tower '{spec.tower}' gives "
            f"features of {width} values: name the tower that the projector was trained with as mm_vision_tower."
        )
    if tower_folder is None or is_inside:
        return spec, None
    if values.get("unfreeze_mm_vision_tower"):
        raise CheckpointError(
            f"{config_path} says unfreeze_mm_vision_tower: true, so the vision tower was trained and its weights have "
            f"to be inside the checkpoint, but none are there; those of '{spec.tower}' are other ones. Copy or "
            "download the checkpoint again, or set it to false if the tower was not trained."
        )
    if described:
        _check_tower(tower_folder, config_path, spec)
    return spec, tower_folder


def _check_tower(tower_folder: Path, config_path: Path, spec: ModelSpec) -> None:
    """CheckpointError if config.json describes another tower than the one whose weights are read."""
    found = read_tower_config(tower_folder)
    for key in (*SHARED_SIZES, "image_size", "patch_size", "hidden_act"):
        said = spec.tower_config.get(key)
        if said is not None and found.get(key) is not None and said != found[key]:
            raise CheckpointError(
                f"{config_path} says {key}: {said} of its vision tower, but {tower_folder / 'config.json'} says "
                f"{found[key]}: correct mm_vision_config, or name another tower as mm_vision_tower."
            )


def _build(spec: ModelSpec, folder: Path, config_path: Path, template: str, attention: str | None) -> Any:
    """The model as the spec describes it, on the meta device: shapes without memory."""
    config_class, model_class = _CLASSES[spec.family]
    left_out = ("model_type", "torch_dtype", "dtype", "transformers_version", "_name_or_path")
    values = {key: value for key, value in spec.config.items() if key not in left_out}
    values.update(
        architectures=[model_class.__name__],
        mm_vision_tower=spec.tower,
        mm_hidden_size=spec.tower_hidden_size,
        conversation_template=template,
        name_or_path=str(folder),
    )
    rows, pad_id = spec.vocab_size, values.get("pad_token_id")
    if isinstance(pad_id, int) and not -rows <= pad_id < rows:
        raise CheckpointError(
            f"{config_path} says pad_token_id: {pad_id}, but vocab_size: {rows}: correct the one that is wrong."
        )
    try:
        config = config_class(**values)
        config._attn_implementation = attention or "sdpa"
        with torch.device("meta"):
            return model_class(config)
    except ImportError as error:
        raise UsageError(f"The attention '{attention}' is not installed ({error}); leave it out.") from error
    except Exception as error:  # a config can be wrong in any way, and each raises something else
        if (said := explain_field(error, values)) is not None:
            raise CheckpointError(f"{config_path} {said}.") from error
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{config_path} describes no model that can be built: {reason:.500}") from error


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by its name; one that two modules share is there by both names."""
    return {name: tuple(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)}


def _account(model: Any, sources: Iterable[Source], config_path: Path) -> set[str]:
    """Hold what the files have against what the model needs, before any tensor is read.

    Returns the tensors that are passed over, and removes from the model the unused end of its tower where the files
    leave it out. Raises CheckpointError for everything else that does not match.
    """
    wanted = _shapes(model)
    tower = model.get_vision_tower()
    found = {ours: path for source in sources for ours, path in source.names().items()}
    behind = range(tower.num_blocks_run, tower.config.num_hidden_layers)
    passed_over = {name for name in found if layouts.find_tower_block(name) in behind} - wanted.keys()
    passed_over |= set() if layouts.NEWLINE in wanted else {layouts.NEWLINE}  # trained with another merge
    missing = {name for name in wanted if name not in found}
    if model.config.tie_word_embeddings:
        missing.discard(layouts.HEAD)
    missing -= _drop_absent_end(tower, missing)
    left_over = {name for name in found if name not in wanted} - passed_over
    if missing or left_over:
        folders = sorted({str(path.parent) for path in found.values()})
        faults = [
            f"{len(names)} tensors {what}: {_name_some(names)}"
            for names, what in ((missing, "are missing"), (left_over, "are left over"))
            if names
        ]
        remedy = _explain_projector(model.config, wanted, found)
        is_adapted = any(source.rename is adapters.name_from_adapter for source in sources)
        if not remedy and is_adapted and missing and all(name.startswith(_PROJECTOR_PARTS) for name in missing):
            remedy = (
                "A LoRA fine-tune keeps its projector in non_lora_trainables.bin, which the original writes only when "
                "a training ends: copy that or an mm_projector.bin beside the adapter, or name a whole LLaVA as base."
            )
        raise CheckpointError(
            f"The files in {' and '.join(folders)} do not fit {config_path}: {'; '.join(faults)}. "
            + (remedy or "One of them is of another model, or not all of them were copied.")
        )
    return passed_over


def _explain_projector(config: Any, wanted: Iterable[str], found: Iterable[str]) -> str:
    """A sentence about a projector of another depth than config.json says; "" if that is not the fault."""

    def layers(names: Iterable[str]) -> list[str]:
        own = (name.removeprefix(layouts.PROJECTOR) for name in names if name.startswith(layouts.PROJECTOR))
        return sorted({name.rpartition(".")[0] or "linear" for name in own})

    has, needs = layers(found), layers(wanted)
    if not has or has == needs:
        return ""
    return (
        f"config.json says mm_projector_type: {getattr(config, 'mm_projector_type', 'linear')}, whose layers are "
        f"{', '.join(needs) or 'none'}, but the files' projector has {', '.join(has)}: correct the one that is wrong."
    )


def _drop_absent_end(tower: Any, missing: set[str]) -> set[str]:
    """Remove from the tower what LLaVA never runs, if the files have none of it; returns the names that are gone.

    That is the blocks behind the layer that is read, from the last one on, and the norm behind them all.
    """
    body = tower.vision_tower.vision_model
    gone = {f"{layouts.TOWER}post_layernorm.{leaf}" for leaf in ("weight", "bias")}
    if not gone <= missing:
        return set()
    body.post_layernorm = nn.Identity()
    while len(body.encoder.layers) > tower.num_blocks_run:
        prefix = f"{layouts.TOWER}encoder.layers.{len(body.encoder.layers) - 1}."
        block = {prefix + name for name, _ in body.encoder.layers[-1].named_parameters()}
        if not block <= missing:
            break
        gone |= block
        del body.encoder.layers[-1]
    return gone


def _name_some(names: set[str], limit: int = 8) -> str:
    shown = sorted(names)[:limit]
    return ", ".join(shown) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def check_tied(one: torch.Tensor, other: torch.Tensor) -> None:
    if not torch.equal(one, other.to(one.dtype)):
        raise CheckpointError(
            "config.json says tie_word_embeddings: true, but lm_head.weight differs from model.embed_tokens.weight. "
            "Set it to false if the head was trained by itself."
        )
