"""What callers hand to ``forward`` and ``generate``, checked where torch would only say which kernel failed.

Every check raises UsageError with the value, what it has to be, and what to do. None of them changes what a right call
computes; ``cover_cache`` alone widens a mask, as loops written for LLaVA 1.1 rely on.

Shape letters: B rows of the batch, L positions of the longest row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import UsageError

# Set on a KV cache whose rows were padded by the merge, which the caller's own mask does not know of.
_IS_PADDED = "_llava_is_padded"


def check_ids(input_ids: Any) -> None:
    """Token ids as a non-empty [B, L] tensor of integers."""
    if not isinstance(input_ids, torch.Tensor):
        raise UsageError(f"input_ids is a {type(input_ids).__name__}; it has to be a tensor [rows, tokens].")
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        remedy = "; input_ids.unsqueeze(0) makes a batch of one row" if input_ids.ndim == 1 and len(input_ids) else ""
        raise UsageError(f"input_ids has the shape {list(input_ids.shape)}; it has to be [rows, tokens]{remedy}.")
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise UsageError(f"input_ids is of {input_ids.dtype}; token ids are integers: input_ids.long().")


def check_vocabulary(ids_BL: torch.Tensor, mask_BL: Any, embeddings: Any) -> None:
    """No id without a row of the embeddings, image slots and what the mask leaves out excepted."""
    # A plain attribute, unlike the weights' shape, which FSDP and ZeRO change.
    num_rows = getattr(embeddings, "num_embeddings", None)
    if num_rows is None:
        return
    is_wrong = (ids_BL != IMAGE_TOKEN_INDEX) & ((ids_BL < 0) | (ids_BL >= num_rows))
    if isinstance(mask_BL, torch.Tensor) and mask_BL.shape == ids_BL.shape:
        is_wrong &= mask_BL.bool()
    if bool(is_wrong.any()):
        raise UsageError(
            f"The prompt holds the token id {int(ids_BL[is_wrong][0])}, but the model has embeddings for ids from 0 to "
            f"{num_rows - 1} ({IMAGE_TOKEN_INDEX} is an image slot). After tokenizer.add_tokens call "
            "model.resize_token_embeddings(len(tokenizer))."
        )


def check_mask(mask_BL: Any, ids_BL: torch.Tensor) -> None:
    """A mask, where there is one, with an entry for each token id; slots count one."""
    if mask_BL is not None and mask_BL.shape != ids_BL.shape:
        raise UsageError(
            f"attention_mask has the shape {list(mask_BL.shape)}, but input_ids {list(ids_BL.shape)}: it needs one "
            "entry for each token id, one for an image slot too. Images are counted when they are filled in."
        )


def check_images(images: Any) -> None:
    """Images as tensors of pixels."""
    if isinstance(images, torch.Tensor):
        if images.ndim not in (4, 5):
            raise UsageError(
                f"images has the shape {list(images.shape)}; it has to be [images, 3, S, S], or a list of tensors: "
                "images.unsqueeze(0) for one image."
            )
    else:
        if not isinstance(images, Sequence):
            raise UsageError(f"images is a {type(images).__name__}; {_MAKE_PIXELS}")
        for i, image in enumerate(images):
            if not isinstance(image, torch.Tensor):
                raise UsageError(f"images[{i}] is a {type(image).__name__}; {_MAKE_PIXELS}")
            if image.ndim not in (3, 4):
                raise UsageError(f"images[{i}] has the shape {list(image.shape)}; it has to be [tiles, 3, S, S].")


def check_sizes(image_sizes: Any) -> None:
    """A list of pairs."""
    try:
        is_list_of_pairs = all(len(size) == 2 for size in image_sizes)
    except TypeError:
        is_list_of_pairs = False
    if not is_list_of_pairs:
        raise UsageError(
            f"image_sizes is {image_sizes!s:.200}; it has to be [(width, height), ...], one for each image."
        )


_MAKE_PIXELS = "llava.mm_utils.process_images makes the tensors of pixels that are needed."


def check_generation(options: Mapping[str, Any], num_tokens: int) -> None:
    """What Transformers' ``generate`` cannot do with prompts that come as embeddings, or says worse."""
    given = options.get("generation_config")
    if given is not None and not hasattr(given, "max_new_tokens"):
        raise UsageError(
            f"generation_config is a {type(given).__name__}; it has to be a transformers.GenerationConfig."
        )

    def asked(name: str) -> Any:
        value = options.get(name)
        return getattr(given, name, None) if value is None else value

    if (asked("guidance_scale") or 1) != 1 and options.get("negative_prompt_ids") is None:
        raise UsageError(
            "guidance_scale needs negative_prompt_ids (text alone): without them Transformers takes the prompt's "
            "last token, and sees none where a prompt comes as embeddings."
        )
    for name in ("assistant_model", "assistant_early_exit"):
        if asked(name) is not None:
            raise UsageError(
                f"{name} cannot be used: Transformers' assisted decoding starts again from token ids, and prompts with "
                "images come as embeddings. prompt_lookup_num_tokens works."
            )
    if getattr(given, "is_assistant", False):
        raise UsageError(
            "A LLaVA cannot be the assistant_model of another model: what it reads are embeddings, and a draft begins "
            "from token ids. Use a language model with the same tokenizer, or leave assistant_model out."
        )
    if asked("prefill_chunk_size") is not None:
        raise UsageError("prefill_chunk_size cannot be used: it cuts token ids, and prompts come as embeddings.")
    _refuse_silence(num_tokens, asked("suppress_tokens"), asked("bad_words_ids"))
    num_beams = asked("num_beams")
    if num_beams is not None and num_beams < 1:
        raise UsageError(f"num_beams is {num_beams}; it has to be at least 1.")


def _refuse_silence(num_tokens: int, suppressed: Any, bad_words: Any) -> None:
    """UsageError where every token is barred: greedy search would then say token 0, and sampling fail."""
    barred = {int(token) for token in (suppressed if suppressed is not None else ())}
    barred |= {int(word[0]) for word in bad_words or () if len(word) == 1}
    if len(barred.intersection(range(num_tokens))) == num_tokens:
        raise UsageError(
            f"suppress_tokens and bad words bar all {num_tokens} tokens of the model, so nothing can be said: leave "
            "some out."
        )


def check_room(options: Mapping[str, Any], num_positions: int) -> None:
    """A ``max_length`` that holds the prompt, and a KV cache that the prompt goes on from."""
    given = options.get("generation_config")
    max_new, longest = (
        getattr(given, name, None) if options.get(name) is None else options[name]
        for name in ("max_new_tokens", "max_length")
    )
    if max_new is None and longest is not None and longest <= num_positions:
        raise UsageError(
            f"max_length is {longest}, but the prompt alone takes {num_positions} positions, images included: say "
            "max_new_tokens, which counts the answer alone."
        )
    held = _count_held(options.get("past_key_values"))
    if held >= num_positions:
        raise UsageError(
            f"past_key_values hold {held} positions, but the prompt has {num_positions}, images included: give the "
            "whole conversation with its images, not only what is new. What the cache holds is not computed again."
        )


def cover_cache(mask_BL: Any, cache: Any, num_new: int) -> Any:
    """The mask over what ``cache`` holds and the ``num_new`` positions that come.

    Callers that grow a mask of their prompt by one a step, as Transformers' own loops do, count an image as one
    position. Such a mask of ones is widened, as LLaVA 1.1 did.

    Raises:
        UsageError: it is too short and has zeros, or the merge padded rows that the mask does not cover.
    """
    held = _count_held(cache)
    if not held or not (mask_BL is None or isinstance(mask_BL, torch.Tensor)):
        return mask_BL
    is_padded = getattr(cache, _IS_PADDED, False)
    if mask_BL is None and not is_padded:
        return None
    if mask_BL is not None and (mask_BL.ndim != 2 or mask_BL.shape[1] >= held + num_new):
        return mask_BL
    if mask_BL is None or is_padded or not bool(mask_BL.all()):
        what = "is missing" if mask_BL is None else f"covers {mask_BL.shape[1]} positions"
        raise UsageError(
            f"attention_mask {what}, but past_key_values hold {held} positions, images and padding included, and "
            f"{num_new} more come: pass a mask of {held + num_new}. That of the prompt is the third value which "
            "prepare_inputs_labels_for_multimodal returns; each new token adds a one."
        )
    return mask_BL.new_ones(len(mask_BL), held + num_new)


def leave_out_held(input_ids: torch.Tensor, cache: Any, mask_BL: Any = None) -> torch.Tensor:
    """Of the ids of a whole conversation so far, those that ``cache`` does not hold: the last, if there are images.

    Source: transformers 4.31 and 4.37 models/llama/modeling_llama.py (prepare_inputs_for_generation), which the
    originals' loops lean on; from 5 on the caller has to say how many are new.
    """
    held = _count_held(cache)
    if not held:
        return input_ids
    if isinstance(mask_BL, torch.Tensor) and mask_BL.shape[1] > max(held, input_ids.shape[1]):
        return input_ids[:, held - mask_BL.shape[1] :]  # the mask covers what came as embeddings
    if bool((input_ids == IMAGE_TOKEN_INDEX).any()):
        return input_ids[:, -1:]
    return input_ids[:, held:] if held < input_ids.shape[1] else input_ids


def note_padding(cache: Any, mask_BL: Any) -> None:
    """Remembers with the cache that the merge padded its rows."""
    if cache is not None and mask_BL is not None and mask_BL.ndim == 2 and not bool(mask_BL.all()):
        setattr(cache, _IS_PADDED, True)


def _count_held(cache: Any) -> int:
    """Positions in a KV cache. 0 for one of a fixed size, whose mask is Transformers' own affair."""
    if not hasattr(cache, "get_seq_length") or getattr(cache, "is_compileable", False):
        return 0
    return int(cache.get_seq_length())
