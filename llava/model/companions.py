"""What stands beside the weights in a checkpoint's folder: tokenizer, generation settings, image processor, config."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig

from llava.config import read_json
from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN
from llava.errors import CheckpointError
from llava.image.pixels import ImageProcessor
from llava.model.generation import clean_generation_config, read_generation_config
from llava.model.spm import is_sentencepiece, load_llama_tokenizer
from llava.model.tokenizer_files import find_damage, refuse_others

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")  # one is enough


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer is in the folder."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a checkpoint's folder: tokenizer.json, a bare tokenizer.model, or vocab.json with merges.txt.

    One without a padding token pads with its unknown token, or with its end token if it has none.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    refuse_others(folder)
    if not has_tokenizer(folder):
        raise CheckpointError(
            f"{folder} has no tokenizer: one of {', '.join(_TOKENIZER_FILES)} is needed. "
            "Copy it from the language model that the checkpoint was made from."
        )
    try:
        tokenizer = _read_tokenizer(folder)
    except CheckpointError:
        raise
    except Exception as error:  # the readers below raise anything, down to bare Exception
        raise CheckpointError(find_damage(folder, error)) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write its files. Raises OSError where they cannot be."""
    try:
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # tokenizers raises that itself, with no more than a text
        raise OSError(f"the tokenizer: {error}") from error


def _read_tokenizer(folder: Path) -> Any:
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    named = settings.get("tokenizer_class")
    is_llama = named in ("LlamaTokenizer", "LlamaTokenizerFast") or (
        named is None and (folder / "tokenizer.model").is_file()
    )
    if is_llama and is_sentencepiece(folder):
        return load_llama_tokenizer(folder, settings)
    # The empty configuration keeps Transformers from reading config.json, where "llava" means a model of its own.
    return AutoTokenizer.from_pretrained(folder, config=PreTrainedConfig(), trust_remote_code=False)


def fit_tokenizer(tokenizer: Any, model: Any, folder: Path) -> None:
    """Add the marks around images that the model was trained with, and see that every token has its embedding.

    The original also adds ``<im_patch>``, which no prompt ever uses, with a random embedding; here it is left out.

    Raises:
        CheckpointError: the tokenizer has more tokens than there are embeddings.
    """
    num_rows = model.get_input_embeddings().num_embeddings
    if getattr(model.config, "mm_use_im_start_end", False):
        tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
    if len(tokenizer) > num_rows:
        raise CheckpointError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens, but the embeddings have only {num_rows} rows: "
            "a token without a row has no meaning. Use the tokenizer that the checkpoint was trained with."
        )


def load_generation_config(folders: Sequence[Path], model: Any, tokenizer: Any) -> GenerationConfig:
    """What the first generation_config.json says, else config.json; see ``read_generation_config``."""
    name = "generation_config.json"
    path = next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / "config.json")
    values = read_json(path) if path.name == name else model.generation_config.to_dict()
    if values.get("pad_token_id") is None:
        values["pad_token_id"] = tokenizer.pad_token_id
    return read_generation_config(values, path, model)


def save_generation_config(values: Mapping[str, Any], folder: Path) -> None:
    """Write generation_config.json, without values that have no effect.

    Not by ``save_pretrained``, which refuses combinations that it only warns of when it reads them.
    """
    config = clean_generation_config(values)
    for name, value in config.__dict__.pop("_refused", {}).items():
        setattr(config, name, value)
    config.to_json_file(folder / "generation_config.json")


def load_processor(folders: Iterable[Path], usual: ImageProcessor) -> tuple[Path, ImageProcessor]:
    """How images are prepared, as the first of the folders says that says it, and the file; else as is usual."""
    for folder in folders:
        for path, values in read_processor_files(folder):
            if path.name == "preprocessor_config.json" or "image_processor" in values:
                return path, ImageProcessor.from_pretrained(path)
    return Path(), usual


def read_processor_files(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What the files in a folder say about preparing images."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            yield folder / name, read_json(folder / name)


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write a file as Transformers writes its own: readable, in UTF-8."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def describe_model(model: Any, include_tower: bool, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """The model's config.json, in the original's names and without what a file need not say.

    ``mm_vision_config`` makes the checkpoint whole without a tower's folder; ``unfreeze_mm_vision_tower`` is what
    makes the original look for the tower's weights inside. ``dtype``: what is stored, if not the model's own.
    """
    values = _say_what_differs(model.config)
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
        mm_vision_config=_say_what_differs(model.get_vision_tower().config),
        unfreeze_mm_vision_tower=include_tower or values.get("unfreeze_mm_vision_tower", False),
    )
    return dict(sorted(values.items()))


def _say_what_differs(config: PreTrainedConfig) -> dict[str, Any]:
    """The configuration's values, without those that any model has and this one does not change."""
    usual = PreTrainedConfig().to_dict()
    return {
        key: value
        for key, value in config.to_dict().items()
        if (key not in usual or value != usual[key]) and key != "transformers_version"
    }
