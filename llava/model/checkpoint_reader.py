"""``open_checkpoint``: a folder becomes a checkpoint whose tensors are all accounted for, before any of them is read.

A checkpoint does not load because one of these steps refuses it, each with the file and the value that is wrong:

    1. the folder is found, or downloaded                          sources.find_checkpoint
    2. a fine-tune's base is found                                 fine_tunes.find_fine_tune
    3. config.json is read, and fits the base's                    folder.Folder.config, fine_tunes.check_base
    4. the files of weights are listed                             weights.find_tensors
    5. the spec is read and the vision tower found                 spec_reader.find_spec, config.read_spec
    6. the model is built without memory                           meta_model.build_meta_model
    7. each parameter has its tensor, and the reverse              tensor_accounting.account
    8. tokenizer, image processor and generation settings fit      companions, generation
    9. each tensor has its shape and is finite                     OpenCheckpoint.read, checkpoint.load_model

If steps 2-7 fail and the folder is recognized as something else (GGUF, a language model alone, an unfinished
download ...), the error says that instead (``recognition.recognise``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llava.config import ModelSpec, as_checkpoint_error
from llava.conversation import template_name
from llava.errors import CheckpointError, UsageError
from llava.image.pixels import ImageProcessor
from llava.model import adapters, layouts
from llava.model.companions import fit_tokenizer, has_tokenizer, load_processor, load_tokenizer, read_processor_files
from llava.model.default_choice import DEFAULT_MODEL
from llava.model.fine_tunes import PROJECTOR_FILE, FineTune, check_base, find_config, find_fine_tune
from llava.model.folder import Folder
from llava.model.gguf.gguf_folder import take_projector
from llava.model.meta_model import build_meta_model
from llava.model.recognition import read_hub_url, recognise, recognise_name
from llava.model.sources import find_checkpoint
from llava.model.spec_reader import find_spec
from llava.model.tensor_accounting import TensorSource, account, check_tied, shapes_of
from llava.model.weights import check_not_empty, explain_choice, names_in, refuse_wrapped, shapes_in, stream_tensors

_LOG = logging.getLogger("llava.model")


@dataclass(frozen=True)
class Additions:
    """What training adds to a checkpoint, or to a language model that becomes a LLaVA.

    Attributes:
        projector: a file whose projector, and newline vector if it has one, replace the checkpoint's.
        draw: makes a new projector and newline vector for a model on the meta device, by our names. It is called if no
            file has one of the two, and only what no file has is used.
    """

    projector: Path | None
    draw: Callable[[Any], Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class OpenCheckpoint:
    """A whole checkpoint whose files fit its config.json, and of which no tensor has been read yet."""

    folders: tuple[Folder, ...]  # its own, then its base's: the order in which companion files are looked for
    tower_folder: Path | None  # the vision tower's, if the tower is not inside
    fine_tune: FineTune | None
    spec: ModelSpec
    template: str  # a name of llava.conversation.conv_templates
    model: Any  # on the meta device: names and shapes without memory
    config_path: Path
    _sources: list[TensorSource]
    _skipped: set[str]
    _base: TensorSource
    _drawn: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Its own folder."""
        return self.folders[0].path

    @property
    def skipped(self) -> list[str]:
        """The tensors in its files that the model does not use, by our names."""
        return sorted(self._skipped & {name for source in self._sources for name in source.names()})

    @property
    def beside_base(self) -> set[str]:
        """Our names of the tensors that come from other files than the base model's or the tower's, or are new.

        The base is the checkpoint itself, unless it is a fine-tune.
        """
        later = self._sources[self._sources.index(self._base) + 1 :]
        return {name for source in later for name in source.names()} - self._skipped | self._drawn.keys()

    @property
    def everything_read(self) -> list[Path]:
        """The folders that files are read from."""
        tower = [] if self.tower_folder is None else [self.tower_folder]
        return [*(folder.path for folder in self.folders), *tower]

    def load_processor(self) -> ImageProcessor:
        """Its image processor. Raises CheckpointError if the tower needs tiles of another size."""
        tower, tile_px = self.model.get_vision_tower(), self.spec.tiling.tile_px
        folders = [*self.folders, *([] if self.tower_folder is None else [Folder(self.tower_folder)])]
        path, processor = load_processor(folders, tower.usual_processor(tile_px))
        if processor.tile_px == tower.image_size != tile_px:  # a multi-scale tower's, which encodes squares of a tile
            processor.scale_to(tile_px)
        if processor.tile_px != tile_px:
            raise CheckpointError(
                f"{path} makes images of {processor.tile_px} px, but the vision tower takes {tile_px} px "
                "(image_size): one of the two files belongs to another model."
            )
        if self.spec.layout == "hf":
            self._check_hf_processor()
        return processor

    def _check_hf_processor(self) -> None:
        """Raises CheckpointError if the processor's files contradict config.json, which they partly repeat."""
        for path, values in read_processor_files(self.folders[0]):
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
        """Its tokenizer; every token has a row in the embeddings.

        Raises:
            CheckpointError: there is no tokenizer, it cannot be read, or it belongs to another model.
        """
        folder = next((folder for folder in self.folders if has_tokenizer(folder)), self.folders[-1])
        tokenizer = load_tokenizer(folder)
        if not isinstance(tokenizer.model_max_length, (int, float)):
            raise CheckpointError(
                f"{folder.path / 'tokenizer_config.json'} says model_max_length: {tokenizer.model_max_length!r:.80}, "
                "where a number is needed."
            )
        fit_tokenizer(tokenizer, self.model, folder.path)
        if self.spec.family in ("llama", "mistral"):
            self._check_bos(tokenizer, folder)
        return tokenizer

    def _check_bos(self, tokenizer: Any, folder: Folder) -> None:
        """Raises CheckpointError if the tokenizer has no BOS token; warns if config.json has another one."""
        said = self.model.config.bos_token_id
        if tokenizer.bos_token_id is None:
            raise CheckpointError(
                f"The tokenizer in {folder} has no BOS token, but every prompt of a {self.spec.family} begins with one "
                f"({self.config_path}: bos_token_id {said}). Copy the tokenizer's files from the language model that "
                "the checkpoint was made from."
            )
        if said is not None and said != tokenizer.bos_token_id:
            _LOG.warning(
                "The tokenizer in %s begins every prompt with %r (%d), but %s says bos_token_id: %d. If answers are "
                "poor, the tokenizer belongs to another model.",
                *(folder, tokenizer.bos_token, tokenizer.bos_token_id, self.config_path, said),
            )

    def stream(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Each tensor by our name, one at a time, without a head that is tied to the embeddings. Raises as ``read``."""
        tied: dict[str, torch.Tensor] = {}
        for ours, tensor, _, _ in self.read():
            if self.model.config.tie_word_embeddings and ours in (layouts.EMBEDDINGS, layouts.HEAD):
                tied[ours] = tensor
                if len(tied) == 2:
                    check_tied(*tied.values())
            if ours not in tied or ours == layouts.EMBEDDINGS:
                yield ours, tensor

    def read(self) -> Iterator[tuple[str, torch.Tensor, str, Path]]:
        """Each tensor of the model: our name, the tensor as its file has it, its name there and that file.

        A tensor that several sources have comes from the last of them. Files are mapped, one at a time.

        Raises:
            CheckpointError: a tensor appears twice, is unexpected, is not of a floating-point dtype, or has another
                shape than config.json describes.
        """
        wanted = shapes_of(self.model)
        owner = {name: i for i, source in enumerate(self._sources) for name in source.names()}
        for i, source in enumerate(self._sources):
            seen: dict[str, Path] = {}
            for name, tensor, path in stream_tensors(source.places):
                ours = source.rename(name)
                if ours is None or ours in self._skipped or owner.get(ours, i) != i:
                    continue
                if ours in seen:
                    raise CheckpointError(f"{name} appears twice, in {seen[ours]} and in {path}.")
                seen[ours] = path
                if ours not in wanted:  # the index did not list it
                    raise CheckpointError(f"{path} contains {name}, which is not a tensor of this model.")
                check_not_empty(name, tensor, path)
                if tuple(tensor.shape) != wanted[ours]:
                    raise CheckpointError(
                        f"{name} in {path} has the shape {list(tensor.shape)}, but {self.config_path} describes "
                        f"{list(wanted[ours])}: one of the two files belongs to another model."
                    )
                if not tensor.is_floating_point():
                    raise CheckpointError(
                        f"{name} in {path} has the dtype {tensor.dtype}; only floating-point weights can be read."
                    )
                yield ours, tensor, name, path
        for ours, tensor in self._drawn.items():
            yield ours, tensor, ours, self.config_path


def open_checkpoint(
    path_or_id: str | Path | Folder = DEFAULT_MODEL,
    *,
    base: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    attention: str | None = None,
    vision_tower: str | Path | None = None,
    additions: Additions | None = None,
) -> OpenCheckpoint:
    """The checkpoint of that name, with every tensor accounted for. For the arguments see ``load_model``.

    ``path_or_id`` may also be a ``Folder``, of which no file is read again. With ``additions`` it may be a language
    model alone, if ``overrides`` describe a LLaVA.

    Raises:
        CheckpointError: as ``load_model``, except for faults of single tensors.
        UsageError: a base is given for a whole model.
    """
    folder = Folder.of(path_or_id if isinstance(path_or_id, Folder) else find_checkpoint(path_or_id))
    folder, vision_tower = take_projector(folder, vision_tower)
    name = str(folder.path if isinstance(path_or_id, Folder) else path_or_id)
    try:
        return _open(name, folder, base, config, overrides, attention, vision_tower, additions)
    except CheckpointError as error:
        # If the folder is another kind of thing altogether, that explains more than the first fault that was found.
        is_hub_id = not os.path.exists(os.path.expanduser(name)) and not folder.has_weights
        found = (recognise_name(name) if is_hub_id else None) or recognise(folder)
        if found is None or (additions is not None and found.kind == "language model"):
            raise
        raise CheckpointError(str(found)) from error


def _open(
    name: str,
    folder: Folder,
    base: str | Path | None,
    config: Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | None,
    attention: str | None,
    vision_tower: str | Path | None,
    additions: Additions | None,
) -> OpenCheckpoint:
    fine_tune = find_fine_tune(folder, base)
    if base is not None and fine_tune is None and folder.has_weights:
        raise UsageError(f"{folder} contains a whole model, which takes no base: leave {base} out.")
    folders = (folder,) if fine_tune is None else (folder, fine_tune.base)
    described = find_config(folder, fine_tune)
    config_path = described.config_path
    values = {**(described.config if config is None else config), **(overrides or {})}
    if fine_tune is not None:
        check_base(fine_tune.base, config_path, values)
    sources = _find_sources(folder, fine_tune, "text_config" in values, additions)
    base_source = sources[0]
    if fine_tune is None:
        refuse_wrapped(folder.path, sources[0].places)
    for each in folders:
        if (note := explain_choice(each.path)) is not None:
            _LOG.warning(note)
    try:
        spec, tower_folder = find_spec(folders, config_path, values, sources, vision_tower)
    except CheckpointError as error:
        if described is folder:
            raise
        raise CheckpointError(
            f"{folder} has no config.json, so that of {described} is used: {error} If it was not trained like that, "
            "copy the config.json that its training wrote at the end."
        ) from error
    if tower_folder is not None:
        sources.insert(0, TensorSource(Folder(tower_folder).tensors, layouts.name_from_tower))
    # The name is the last resort for the template, and the name of an adapter without a config.json says nothing.
    named = name if config_path.parent != folders[-1].path else str(folders[-1])
    is_local = os.path.exists(os.path.expanduser(named))
    with as_checkpoint_error(f"{config_path} cannot be used"):
        template = template_name(
            os.path.abspath(os.path.expanduser(named)) if is_local else read_hub_url(named), spec.raw
        )
    model = build_meta_model(spec, folder.path, config_path, template, attention)
    if fine_tune is not None and fine_tune.adapter is not None:
        adapters.untie(model, fine_tune.adapter, {name for source in sources for name in source.names()})
    if additions is not None and additions.projector is not None:
        _check_projector(model, additions.projector)
    drawn = {} if additions is None else _draw_missing(model, sources, additions)
    skipped = account(model, sources, config_path, drawn)
    return OpenCheckpoint(
        folders, tower_folder, fine_tune, spec, template, model, config_path, sources, skipped, base_source, drawn
    )


def _draw_missing(model: Any, sources: list[TensorSource], additions: Additions) -> dict[str, torch.Tensor]:
    """A new projector and newline vector, each if no file has any of its tensors."""
    wanted, found = shapes_of(model), {name for source in sources for name in source.names()}
    lacking = [
        part
        for part in (layouts.PROJECTOR, layouts.NEWLINE)
        if any(name.startswith(part) for name in wanted) and not any(name.startswith(part) for name in found)
    ]
    if not lacking:
        return {}
    return {name: tensor for name, tensor in additions.draw(model).items() if name.startswith(tuple(lacking))}


def _find_sources(
    folder: Folder, fine_tune: FineTune | None, is_hf: bool, additions: Additions | None
) -> list[TensorSource]:
    """Where the checkpoint's tensors are: in its own files, or in its base's and in what was trained on the base."""
    if additions is None or additions.projector is None:
        return _find_own_sources(folder, fine_tune, is_hf)
    sources = [_drop_projector(source) for source in _find_own_sources(folder, fine_tune, is_hf)]
    projector = additions.projector
    return [*sources, TensorSource(dict.fromkeys(names_in(projector), projector), name_from_projector)]


def name_from_projector(name: str) -> str | None:
    """Our name of a tensor of a projector's file; None for what else may be in it, such as embeddings."""
    ours = adapters.name_from_adapter(name)
    return ours if ours is not None and ours.startswith((layouts.PROJECTOR, layouts.NEWLINE)) else None


def _check_projector(model: Any, file: Path) -> None:
    """Raises CheckpointError unless the projector in the file has exactly the model's layers."""
    part = layouts.PROJECTOR
    found = {ours: shape for name, shape in shapes_in(file).items() if (ours := name_from_projector(name)) is not None}
    found = {name: shape for name, shape in found.items() if name.startswith(part)}
    wanted = {name: shape for name, shape in shapes_of(model).items() if name.startswith(part)}
    if not found:
        raise CheckpointError(f"{file} holds no projector: none of its names contains 'mm_projector.'.")
    if found != wanted:
        has, needs = (
            ", ".join(f"{name.removeprefix(part)} {list(shape)}" for name, shape in sorted(shapes.items()))
            for shapes in (found, wanted)
        )
        raise CheckpointError(
            f"{file} holds a projector with {has}, but mm_projector_type "
            f"{getattr(model.config, 'mm_projector_type', 'linear')} for this tower and this language model has "
            f"{needs or 'no weights'}: it was trained with others of them."
        )


def _drop_projector(source: TensorSource) -> TensorSource:
    places = {
        name: path
        for name, path in source.places.items()
        if not (source.rename(name) or "").startswith(layouts.PROJECTOR)
    }
    return TensorSource(places, source.rename)


def _find_own_sources(folder: Folder, fine_tune: FineTune | None, is_hf: bool) -> list[TensorSource]:
    if fine_tune is None:
        named = layouts.name_from_hf if is_hf else layouts.name_from_original
        return [TensorSource(folder.tensors, folder.rename or named)]
    base = fine_tune.base
    rename = base.rename or (layouts.name_from_hf if base.is_hf else layouts.name_from_original)
    if fine_tune.adapter is None:
        projector = folder.path / PROJECTOR_FILE
        own = TensorSource(dict.fromkeys(names_in(projector), projector), adapters.name_from_adapter)
    else:
        own = TensorSource(fine_tune.adapter.whole, adapters.name_from_adapter)
    based = TensorSource(base.tensors, rename)
    # A projector is replaced as a whole: one that lacks a layer must not be completed from the base's. Only PEFT's
    # modules_to_save, in the adapter's own file, may name single layers.
    adapter_file = None if fine_tune.adapter is None else fine_tune.adapter.file
    if any(ours.startswith(layouts.PROJECTOR) and path != adapter_file for ours, path in own.names().items()):
        based = _drop_projector(based)
    return [based, own]
