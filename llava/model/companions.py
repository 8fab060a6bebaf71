"""The files beside the weights in a checkpoint's folder: tokenizer, generation config, image processor, config.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.errors import CheckpointError
from llava.image.pixels import ImageProcessor
from llava.model.folder import CONFIG, Folder
from llava.model.generation import clean_generation_config, read_generation_config
from llava.model.spm import is_sentencepiece, load_llama_tokenizer, read_tokenizer_json
from llava.model.tokenizer_files import find_damage, refuse_unusable

_PIECES = "tokenizer.model"
_TOKENIZER_FILES = ("tokenizer.json", _PIECES, "vocab.json")  # one is enough


def has_tokenizer(folder: Folder) -> bool:
    """Whether the folder has a tokenizer."""
    return any(folder.tokenizer_folder.has(name) for name in _TOKENIZER_FILES)


def load_tokenizer(source: Folder | Path) -> Any:
    """The tokenizer in a checkpoint's folder: tokenizer.json, a bare tokenizer.model, or vocab.json with merges.txt.

    If it has no padding token, it pads with its unknown token, or else with its end token.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    folder = Folder.of(source).tokenizer_folder
    refuse_unusable(folder)
    if not has_tokenizer(folder):
        raise CheckpointError(
            f"{folder} has no tokenizer: one of {', '.join(_TOKENIZER_FILES)} is needed. "
            "Copy it from the language model that the checkpoint was made from."
        )
    try:
        tokenizer = _read_tokenizer(folder)
    except CheckpointError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(find_damage(folder, error)) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Writes the tokenizer's files, tokenizer.model as well where it was read from one. Raises OSError if it cannot.

    Transformers 4's slow tokenizers, which both originals use for Llama, read nothing but that, and the tokens that
    were added to it from added_tokens.json.
    """
    try:
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise OSError(f"the tokenizer: {error}") from error
    pieces = Path(getattr(tokenizer, "vocab_file", None) or "")
    if pieces.name != _PIECES or not pieces.is_file():
        return
    if pieces.resolve() != (folder / _PIECES).resolve():
        shutil.copyfile(pieces, folder / _PIECES)
    added = {token: i for token, i in tokenizer.get_added_vocab().items() if i >= tokenizer.vocab_size}
    if added:
        write_json(added, folder / "added_tokens.json")


def _read_tokenizer(folder: Folder) -> Any:
    name = "tokenizer_config.json"
    settings = folder.read_json(name) if folder.has(name) else {}
    named = settings.get("tokenizer_class")
    is_llama = named in ("LlamaTokenizer", "LlamaTokenizerFast") or (named is None and folder.has("tokenizer.model"))
    if is_llama:
        written = read_tokenizer_json(folder.path)
        if is_sentencepiece(folder.path, written):
            return load_llama_tokenizer(folder.path, settings, written)
    # The empty configuration keeps Transformers from reading config.json, where "llava" means its own model class.
    return AutoTokenizer.from_pretrained(folder.path, config=PreTrainedConfig(), trust_remote_code=False)


def fit_tokenizer(tokenizer: Any, model: Any, folder: Path) -> None:
    """Adds the marks around images that the model was trained with, and checks that every token has an embedding.

    The original also adds ``<im_patch>``, which no prompt uses, with a random embedding. Here it is left out, except
    where it was added before the marks and so decides their ids.

    Raises:
        CheckpointError: the tokenizer has more tokens than there are embeddings.
    """
    num_rows = model.get_input_embeddings().num_embeddings
    if getattr(model.config, "mm_use_im_start_end", False):
        if getattr(model.config, "mm_use_im_patch_token", False) and len(tokenizer) + 3 <= num_rows:
            tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
        tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
    if len(tokenizer) > num_rows:
        raise CheckpointError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens, but the embeddings have only {num_rows} rows: "
            "a token without a row cannot be embedded. Use the tokenizer that the checkpoint was trained with."
        )


def load_generation_config(sources: Sequence[Folder | Path], model: Any, tokenizer: Any) -> GenerationConfig:
    """The settings of the first folder that has a generation_config.json, else config.json's.

    Raises CheckpointError as ``read_generation_config`` does.
    """
    name = "generation_config.json"
    folders = [Folder.of(source) for source in sources]
    found = next((folder for folder in folders if folder.has(name)), None)
    path = folders[0].path / CONFIG if found is None else found.path / name
    values = dict(model.generation_config.to_dict() if found is None else found.read_json(name))
    if values.get("pad_token_id") is None:
        values["pad_token_id"] = tokenizer.pad_token_id
    return read_generation_config(values, path, model)


def save_generation_config(values: Mapping[str, Any], folder: Path) -> None:
    """Writes generation_config.json without values that have no effect.

    ``save_pretrained`` is not used: it refuses combinations that Transformers only warns about when it reads them.
    """
    config = clean_generation_config(values)
    for name, value in config.__dict__.pop("_refused", {}).items():
        setattr(config, name, value)
    config.to_json_file(folder / "generation_config.json")


def load_processor(folders: Iterable[Folder], usual: ImageProcessor) -> tuple[Path, ImageProcessor]:
    """The file that describes the image processor, and the processor: of the first folder that has one, else ``usual``.

    Raises CheckpointError.
    """
    for folder in folders:
        for path, values in read_processor_files(folder):
            if path.name == "preprocessor_config.json" or "image_processor" in values:
                return path, ImageProcessor.from_values(values, path)
    return Path(), usual


def read_processor_files(folder: Folder) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The files of an image processor that are in the folder, with their values. Raises CheckpointError."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if folder.has(name):
            yield folder.path / name, folder.read_json(name)


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Writes a JSON file as Transformers does: indented, in UTF-8."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def describe_model(model: Any, include_tower: bool, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """The values of the model's config.json, under the original's names and without defaults.

    ``mm_vision_config`` describes the tower without its folder; ``unfreeze_mm_vision_tower`` makes the original load
    the tower's weights from inside the checkpoint. ``dtype``: of the stored weights, if it is not the model's.
    """
    values = _drop_defaults(model.config)
    for name in ("_name_or_path", "truncate_to_model_max_length", "dtype"):
        values.pop(name, None)
    rope = values.pop("rope_parameters", None) or {}
    values["rope_theta"] = rope.get("rope_theta", 10000.0)
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    values["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    values.update(
        architectures=[type(model).__name__],
        torch_dtype=str(dtype or model.dtype).removeprefix("torch."),
        use_mm_proj=True,
        mm_vision_config=_drop_defaults(model.get_vision_tower().config),
        unfreeze_mm_vision_tower=include_tower or values.get("unfreeze_mm_vision_tower", False),
    )
    return dict(sorted(values.items()))


def _drop_defaults(config: PreTrainedConfig) -> dict[str, Any]:
    """The configuration's values that differ from Transformers' defaults for any model."""
    usual = PreTrainedConfig().to_dict()
    return {
        key: value
        for key, value in config.to_dict().items()
        if (key not in usual or value != usual[key]) and key != "transformers_version"
    }
