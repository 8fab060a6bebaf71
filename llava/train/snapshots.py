"""What a training leaves behind, and how it goes on from there: the files of a result and of each ``checkpoint-N``.

The files have the names, tensor names and config.json keys of the originals', and depend on what is trained:

    LoRA layers           adapter_config.json, adapter_model.safetensors, and all else in non_lora_trainables.bin
    only the projector    mm_projector.bin
    anything else         the whole model with its tower, as ``save_checkpoint`` writes it

Beside them are config.json, generation_config.json, the tokenizer and the image processor in every case, so that
``load_model`` reads each folder as it is. Whatever the base does not have (a projector from another file, new rows of
the embeddings) is stored as well, trained or not.

Source: haotian-liu/LLaVA@c121f04 llava/train/train.py (safe_save_model_for_hf_trainer) and llava_trainer.py.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from llava.errors import CheckpointError, LlavaError, UsageError
from llava.model import layouts
from llava.model.checkpoint import write_checkpoint
from llava.model.companions import describe_model, save_generation_config, save_tokenizer, write_json
from llava.model.fine_tunes import PROJECTOR_FILE
from llava.model.folder import CONFIG
from llava.model.generation import clean_generation_config
from llava.model.llava import LlavaMetaForCausalLM
from llava.model.weights import find_tensors, is_weight_file, open_tensors, read_bin, shapes_in
from llava.train.devices.parallel import shard
from llava.train.lora import ADAPTER, has_lora, is_adapter_name
from llava.train.parts import find_llava
from llava.train.resumption import name_some, say_remedy
from llava.train.starting_model import StartingPoint

ADAPTER_FILE = "adapter_model.safetensors"
TRAINABLES_FILE = "non_lora_trainables.bin"
_WRAPPER = "base_model.model."
_PARTIAL = ".result.partial"
# What a result of another kind may have left in the folder.
_KINDS = (ADAPTER_FILE, "adapter_config.json", TRAINABLES_FILE, PROJECTOR_FILE)
# What is trained in stage 1; the embeddings with new tokens for the start and the end of an image.
_STAGE_1 = (layouts.PROJECTOR, layouts.NEWLINE, layouts.EMBEDDINGS)

State = Mapping[str, torch.Tensor]


def mend_generation(model: Any) -> None:
    """Drops generation settings that Transformers refuses to save, such as a temperature without ``do_sample``.

    They have no effect. It has to be done before the first step: otherwise the run is lost when it is saved.
    """
    model.generation_config = clean_generation_config(model.generation_config.to_dict())


def refuse_output(start: str | Path, folder: str | Path) -> None:
    """Raises UsageError if a result in ``folder`` would replace what the training starts from, a folder or a file."""
    path = Path(start).expanduser()
    if path.exists() and Path(folder).resolve() in (path.resolve(), path.resolve().parent if path.is_file() else None):
        raise UsageError(
            f"The result in {folder} would replace {start}, from which the training starts: name another folder for it."
        )


def write_snapshot(
    model: Any, tokenizer: Any, folder: str | Path, *, dtype: torch.dtype | None = None, state: State | None = None
) -> None:
    """Writes the model's files into a folder, which may have others. No hub is asked for anything.

    Args:
        model: a LLaVA or a ``PeftModel`` of one, not wrapped for several devices. What it trains decides what is
            written; see above.
        tokenizer: None if there is none to write.
        dtype: of the weights of a whole model; by default they keep theirs, which resuming needs.
        state: the model's state dict, where it had to be gathered from several devices.

    Raises:
        LlavaError: a file cannot be written.
    """
    folder, llava = Path(folder), find_llava(model)
    files = _collect(model, state)
    processor = llava.get_vision_tower().image_processor
    with _explaining_faults(folder), _using_cache(llava.config):
        folder.mkdir(parents=True, exist_ok=True)
        if files is None:
            write_checkpoint(llava, tokenizer, processor, folder, dtype=dtype, state=state)
        else:
            for name, tensors in files.items():
                if name == ADAPTER_FILE:
                    _save_adapter(model, folder, state)
                else:
                    torch.save({key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}, folder / name)
            stored = getattr(torch, _find_start(llava).dtype or "", None) or llava.dtype
            write_json(describe_model(llava, include_tower=False, dtype=stored), folder / CONFIG)
            save_generation_config(llava.generation_config.to_dict(), folder)
            processor.save_pretrained(folder)
            if tokenizer is not None:
                save_tokenizer(tokenizer, folder)
        _name_base(llava, folder / CONFIG)
        for path in folder.glob("*.safetensors"):  # safetensors makes its files readable by their owner alone
            shutil.copymode(folder / CONFIG, path)


def save_result(
    model: Any, tokenizer: Any, folder: str | Path, *, dtype: torch.dtype | None = None, state: State | None = None
) -> None:
    """Writes what a finished training leaves into the run's folder, among its ``checkpoint-N``; see ``write_snapshot``.

    Everything is written into a hidden folder first. config.json is moved last, so a folder that has one is complete.

    Raises:
        UsageError: the folder is the model's base.
        LlavaError: it cannot be written. If the disk is full, an earlier result is still there.
    """
    folder = Path(folder)
    if base := _find_start(find_llava(model)).base:
        refuse_output(base, folder)
    partial = folder / _PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)
        write_snapshot(model, tokenizer, partial, dtype=dtype, state=state)
        with _explaining_faults(folder):
            (folder / CONFIG).unlink(missing_ok=True)
            for path in folder.iterdir():
                if is_weight_file(path.name) or path.name in _KINDS:
                    path.unlink()
            for path in sorted(partial.iterdir(), key=lambda path: path.name == CONFIG):
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_snapshot(model: Any, folder: str | Path) -> None:
    """Checks that a snapshot has every tensor that ``read_snapshot`` needs for this model, by name and shape.

    Raises:
        CheckpointError: a file is missing or damaged, or lacks a tensor.
    """
    folder = Path(folder)
    for name, tensors in (_collect(model, None) or {"": _list_whole(find_llava(model))}).items():
        shapes: dict[str, tuple[int, ...]] = {}
        if name and not (folder / name).is_file():
            raise CheckpointError(f"{folder} is incomplete: it has no {name}. {say_remedy(folder)}")
        for file in {folder / name} if name else set(find_tensors(folder).values()):
            shapes.update(shapes_in(file))
        lacking = [key for key in tensors if key not in shapes]
        if lacking:
            raise CheckpointError(f"{folder / name} lacks {name_some(lacking)}. {say_remedy(folder)}")
        for key, tensor in tensors.items():
            if shapes[key] != tuple(tensor.shape):
                raise CheckpointError(
                    f"{key} in {folder / name} has the shape {list(shapes[key])}, but this model needs "
                    f"{list(tensor.shape)}: the run's settings have changed since. {say_remedy(folder)}"
                )


@torch.no_grad()
def read_snapshot(model: Any, folder: str | Path) -> None:
    """Sets the model's weights to those of a snapshot of the same run; the others are as the run started with.

    Raises:
        CheckpointError: as ``check_snapshot``.
    """
    folder = Path(folder)
    check_snapshot(model, folder)
    for name, tensors in (_collect(model, None) or {"": _list_whole(find_llava(model))}).items():
        if name.endswith(".bin"):
            stored = read_bin(folder / name)
            read = stored.__getitem__
        else:
            read = open_tensors(dict.fromkeys(tensors, folder / name) if name else find_tensors(folder))
        for key, tensor in tensors.items():
            tensor.copy_(shard(read(key).to(tensor.dtype), tensor))


def list_written(model: Any) -> set[str] | None:
    """The names, in the model's state dict, of what ``write_snapshot`` writes; None for all."""
    files = _collect(model, None)
    if files is None:
        return None
    names = {name for file, tensors in files.items() if file != ADAPTER_FILE for name in tensors}
    if ADAPTER_FILE in files:
        bias = model.peft_config[ADAPTER].bias
        names |= {name for name in model.state_dict() if is_adapter_name(name, bias)}
    return names


def _collect(model: Any, state: State | None) -> dict[str, dict[str, torch.Tensor]] | None:
    """The tensors of each file by their names there, as views of the model's own; None for a whole model."""
    llava = find_llava(model)
    trained = {name.removeprefix(_WRAPPER) for name, each in model.named_parameters() if each.requires_grad}
    beside = _find_start(llava).beside
    if has_lora(model):
        bias = model.peft_config[ADAPTER].bias
        adapters = {name for name, _ in model.named_parameters() if is_adapter_name(name, bias)}
        others = [
            name
            for name, _ in model.named_parameters()
            if name not in adapters and name.removeprefix(_WRAPPER) in trained | beside
        ]
        # Not the state dict, for which bitsandbytes would pack every layer.
        tensors = {name: each.detach() for name, each in model.named_parameters()} if state is None else state
        return {ADAPTER_FILE: _list_adapter(model, tensors), TRAINABLES_FILE: {name: tensors[name] for name in others}}
    is_stage_1 = bool(trained) and all(name.startswith(_STAGE_1) for name in trained)
    if not is_stage_1 or not any(name.startswith(layouts.PROJECTOR) for name in trained) or not _names_base(llava):
        return None
    tensors = dict(model.state_dict()) if state is None else state
    kept = trained | beside
    return {
        PROJECTOR_FILE: {
            name: tensors[name]
            for name, _ in llava.named_parameters()
            if name in kept or name.startswith((layouts.PROJECTOR, layouts.NEWLINE))
        }
    }


def _list_whole(llava: Any) -> dict[str, torch.Tensor]:
    tensors = dict(llava.state_dict())
    if llava.config.tie_word_embeddings:
        tensors.pop(layouts.HEAD, None)
    return tensors


def _list_adapter(model: Any, state: State) -> dict[str, torch.Tensor]:
    """The adapter's tensors by PEFT's names in files; the biases that are trained with it are among them."""
    from peft import get_peft_model_state_dict

    bias = model.peft_config[ADAPTER].bias
    own = {name: tensor for name, tensor in state.items() if is_adapter_name(name, bias)}
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(model, own, ADAPTER, save_embedding_layers=False)
    return found


def _save_adapter(model: Any, folder: Path, state: State | None) -> None:
    """Writes the adapter by PEFT's own ``save_pretrained``, which would ask a hub about embeddings if it may."""
    bias = model.peft_config[ADAPTER].bias
    own = {
        name: tensor.detach().cpu()
        for name, tensor in (dict(model.named_parameters()) if state is None else state).items()
        if is_adapter_name(name, bias)
    }
    model.save_pretrained(folder, state_dict=own, selected_adapters=[ADAPTER], save_embedding_layers=False)


def is_llava(model: Any) -> bool:
    """Whether the model is one of ours with a tower, or PEFT's wrapper of one."""
    return isinstance(find_llava(model), LlavaMetaForCausalLM) and find_llava(model).get_vision_tower() is not None


def _find_start(llava: Any) -> StartingPoint:
    """The model's ``starting_point``; for a model of another origin, what Transformers knows of it."""
    start = getattr(llava, "starting_point", None)
    if isinstance(start, StartingPoint):
        return start
    return StartingPoint(str(llava.config.name_or_path or ""), None, frozenset(), None)


def _names_base(llava: Any) -> bool:
    return bool(_find_start(llava).base)


def _name_base(llava: Any, config_file: Path) -> None:
    """Adds ``_name_or_path`` to config.json, by which a projector alone finds its base."""
    values = json.loads(config_file.read_text(encoding="utf-8"))
    write_json(dict(sorted({**values, "_name_or_path": _find_start(llava).base}.items())), config_file)


@contextmanager
def _using_cache(config: Any) -> Iterator[None]:
    """Inside the block ``config.use_cache`` is true; it is off while training and belongs on in a result."""
    before, config.use_cache = config.use_cache, True
    try:
        yield
    finally:
        config.use_cache = before


@contextmanager
def _explaining_faults(folder: Path) -> Iterator[None]:
    """Turns a file that cannot be written into a LlavaError; torch and safetensors raise errors of their own."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise LlavaError(f"The weights cannot be written to {folder} ({reason}): is the disk full?") from error
