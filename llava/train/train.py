"""Front door: ``python -m llava.train.train``, the original's training command, and the names in its module.

``train()`` looks every name up in this module when it is called: a dataset, a trainer or a ``preprocess`` function that
research code puts here in place of ours is the one that is used.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llava import conversation as conversation_lib
from llava.conversation import SeparatorStyle, find_template
from llava.entry_point import run_command
from llava.train.dataset.batches import OriginalCollator
from llava.train.devices.rank_faults import explaining_rank_faults
from llava.train.llava_trainer import LLaVATrainer as LLaVATrainer
from llava.train.llava_trainer import get_mm_adapter_state_maybe_zero_3 as get_mm_adapter_state_maybe_zero_3
from llava.train.llava_trainer import maybe_zero_3 as maybe_zero_3
from llava.train.original import encoding, state_dicts
from llava.train.original.argument_classes import DataArguments, ModelArguments, TrainingArguments
from llava.train.original.encoding import Sources
from llava.train.original.lazy_dataset import OriginalSamples
from llava.train.original.prepared_run import check_samples, finish_run, prepare_run

local_rank: int | None = None


def rank0_print(*args: Any) -> None:
    """Prints in the process of local rank 0 only, once ``train()`` runs."""
    if local_rank == 0:
        print(*args)


def get_peft_state_maybe_zero_3(named_params: Iterable[tuple[str, Any]], bias: str) -> dict[str, torch.Tensor]:
    """Copies of the LoRA layers' tensors and of the biases that ``bias`` names: "none", "all", "lora_only"."""
    return state_dicts.gather_lora(named_params, bias)


def get_peft_state_non_lora_maybe_zero_3(
    named_params: Iterable[tuple[str, Any]], require_grad_only: bool = True
) -> dict[str, torch.Tensor]:
    """Copies of all tensors but LoRA's, by default of those that are trained."""
    return state_dicts.gather_others(named_params, require_grad_only)


def find_all_linear_names(model: nn.Module) -> list[str]:
    """The last parts of the names of the language model's linear layers, without its head."""
    return state_dicts.list_linear_names(model)


def safe_save_model_for_hf_trainer(trainer: Any, output_dir: str) -> None:
    """Writes the result of a finished training: the whole model, or the projector or the LoRA layers alone."""
    state_dicts.save(trainer, output_dir)


def smart_tokenizer_and_embedding_resize(special_tokens_dict: Mapping[str, Any], tokenizer: Any, model: Any) -> None:
    """Adds special tokens to tokenizer and model; new rows of embeddings and head are the mean of the old ones."""
    state_dicts.add_special_tokens(special_tokens_dict, tokenizer, model)


def _tokenize_fn(strings: Sequence[str], tokenizer: Any) -> dict[str, Any]:
    return encoding.tokenize_strings(strings, tokenizer)


def _mask_targets(target: torch.Tensor, tokenized_lens: Sequence[int], speakers: Sequence[str]) -> None:
    encoding.mask_questions(target, tokenized_lens, speakers)


def _add_speaker_and_signal(header: str, source: MutableSequence[dict[str, Any]], get_conversation: bool = True) -> str:
    return encoding.add_speakers(header, source, get_conversation)


def preprocess_multimodal(sources: Sources, data_args: Any) -> Sources:
    """The sources, changed in place: ``<image>`` stands where the repository of the command line puts it."""
    return encoding.place_images(sources, data_args)


def preprocess_llama_2(sources: Sources, tokenizer: Any, has_image: bool = False) -> dict[str, Any]:
    """``input_ids`` and ``labels`` [B, L] in the default template, one of the style LLAMA_2."""
    return _encode(sources, tokenizer, has_image, SeparatorStyle.LLAMA_2)


def preprocess_v1(sources: Sources, tokenizer: Any, has_image: bool = False) -> dict[str, Any]:
    """``input_ids`` and ``labels`` [B, L] in the default template, one of the style TWO."""
    return _encode(sources, tokenizer, has_image, SeparatorStyle.TWO)


def preprocess_mpt(sources: Sources, tokenizer: Any, has_image: bool = False) -> dict[str, Any]:
    """``input_ids`` and ``labels`` [B, L] in the default template, one of the style MPT."""
    return _encode(sources, tokenizer, has_image, SeparatorStyle.MPT)


def preprocess_gemma(sources: Sources, tokenizer: Any, has_image: bool = False) -> dict[str, Any]:
    """``input_ids`` and ``labels`` [B, L] in the default template, one of the style GEMMA."""
    return _encode(sources, tokenizer, has_image, SeparatorStyle.GEMMA)


def _encode(sources: Sources, tokenizer: Any, has_image: bool, style: SeparatorStyle) -> dict[str, Any]:
    template = conversation_lib.default_conversation
    return encoding.encode_tensors(sources, tokenizer, template, has_image=has_image, style=style)


def preprocess_qwen(
    sources: Sources,
    tokenizer: Any,
    has_image: bool = False,
    max_len: int = 2048,
    system_message: str = "You are a helpful assistant.",
) -> dict[str, Any]:
    """``input_ids`` and ``labels`` [B, L] in Qwen's template with that system message; ``max_len`` has no effect."""
    template = find_template("qwen_1_5")
    template.system = f"<|im_start|>system\n{system_message}"
    return encoding.encode_tensors(sources, tokenizer, template, has_image=has_image, style=SeparatorStyle.CHATML)


def preprocess_llama3(
    sources: Sources,
    tokenizer: Any,
    has_image: bool = False,
    max_len: int = 2048,
    system_message: str = find_template("llava_llama_3").system,
) -> dict[str, Any]:
    """``input_ids`` and ``labels`` [B, L] in Llama 3's template with that system message; ``max_len`` has no effect."""
    template = find_template("llava_llama_3")
    template.system = system_message
    return encoding.encode_tensors(sources, tokenizer, template, has_image=has_image, style=SeparatorStyle.LLAMA_3)


def preprocess_plain(sources: Sources, tokenizer: Any) -> dict[str, Any]:
    """Lists ``input_ids`` and ``labels`` of stage 1: ``<image>`` and the caption, without the question."""
    template = conversation_lib.default_conversation
    return encoding.encode_lists(sources, tokenizer, template, has_image=True)


def preprocess(sources: Sources, tokenizer: Any, has_image: bool = False) -> dict[str, Any]:
    """``input_ids`` and ``labels`` of conversations in ``llava.conversation.default_conversation``."""
    template = conversation_lib.default_conversation
    if template.sep_style is SeparatorStyle.PLAIN:
        return preprocess_plain(sources, tokenizer)
    if template.sep_style is SeparatorStyle.LLAMA_2:
        return preprocess_llama_2(sources, tokenizer, has_image=has_image)
    if template.version.startswith("v1"):
        return preprocess_v1(sources, tokenizer, has_image=has_image)
    if template.version == "mpt":
        return preprocess_mpt(sources, tokenizer, has_image=has_image)
    if template.version == "qwen":
        return preprocess_qwen(sources, tokenizer, has_image=has_image)
    if template.version == "gemma":
        return preprocess_gemma(sources, tokenizer, has_image=has_image)
    if template.version == "llama_v3":
        return preprocess_llama3(sources, tokenizer, has_image=has_image)
    return encoding.encode_lists(sources, tokenizer, template, has_image=has_image)


class LazySupervisedDataset(OriginalSamples):
    """The samples of ``data_args.data_path`` as items ``input_ids``, ``labels``, ``image`` and ``id``."""

    def make_item(self, index: int) -> dict[str, Any]:
        """Row number ``index`` itself, even if it has nothing to learn."""
        return self._get_item(index)

    def _get_item(self, i: int) -> dict[str, Any]:
        return self.make_row(i, preprocess_multimodal, preprocess)


@dataclass
class DataCollatorForSupervisedDataset:
    """Makes the batches of either repository, whichever the items are made for."""

    tokenizer: Any

    def __call__(self, instances: Sequence[dict[str, Any]]) -> dict[str, Any]:
        is_next = isinstance(instances[0].get("image"), list)
        return OriginalCollator(self.tokenizer, "next" if is_next else "1.5")(instances)


def make_supervised_data_module(tokenizer: Any, data_args: Any) -> dict[str, Any]:
    """The trainer's ``train_dataset``, ``eval_dataset`` (None without ``--eval_data_path``) and ``data_collator``."""
    train_dataset = LazySupervisedDataset(tokenizer=tokenizer, data_path=data_args.data_path, data_args=data_args)
    eval_dataset = None
    if (eval_data_path := getattr(data_args, "eval_data_path", None)) is not None:
        eval_dataset = LazySupervisedDataset(tokenizer=tokenizer, data_path=eval_data_path, data_args=data_args)
    data_collator = DataCollatorForSupervisedDataset(tokenizer=tokenizer)
    return {"train_dataset": train_dataset, "eval_dataset": eval_dataset, "data_collator": data_collator}


def train(attn_implementation: str | None = None) -> None:
    """Trains as the flags in ``sys.argv`` say. ``attn_implementation`` has no effect: the fastest one is used."""
    with explaining_rank_faults():
        _train()


def _train() -> None:
    global local_rank

    run = prepare_run(sys.argv[1:], (ModelArguments, DataArguments, TrainingArguments))
    local_rank = run.training_args.local_process_index
    data_module = make_supervised_data_module(tokenizer=run.tokenizer, data_args=run.data_args)
    if _is_unchanged():
        check_samples(run, data_module["train_dataset"])
    trainer = LLaVATrainer(model=run.model, tokenizer=run.tokenizer, args=run.training_args, **data_module)
    finish_run(run, trainer)
    safe_save_model_for_hf_trainer(trainer=trainer, output_dir=run.training_args.output_dir)


def _is_unchanged() -> bool:
    """Whether samples are read and encoded by what is defined here."""
    used = [each for name, each in globals().items() if name.startswith(("preprocess", "make_", "LazySupervised"))]
    return all(each.__module__ == __name__ for each in used)


def main() -> int:
    """Runs ``train`` as a command; returns the exit code."""

    def work() -> int:
        train()
        return 0

    return run_command(work)


if __name__ == "__main__":
    from llava.train.train import main as run_main

    sys.exit(run_main())
