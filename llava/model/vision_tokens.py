"""The tokens ``<im_patch>``, ``<im_start>`` and ``<im_end>``, which a tokenizer may get for images; their embeddings.

Source: haotian-liu/LLaVA@c121f04 llava/model/llava_arch.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.model.projector_file import read_token_rows
from llava.model.vocabulary import add_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel as _MixedInto
else:
    _MixedInto = object


class VisionTokens(_MixedInto):
    """A mixin for language models whose tokenizer may get tokens for images: ``LlavaMetaForCausalLM`` has it."""

    def initialize_vision_tokenizer(self, model_args: Any, tokenizer: Any) -> None:
        """Adds the tokens ``<im_patch>`` and ``<im_start>``, ``<im_end>`` if ``model_args`` asks for them.

        The rows of new tokens begin as the mean of all older rows, or as those of ``pretrain_mm_mlp_adapter`` if it has
        any for the start and end tokens. If only the projector is trained, the input embeddings are trained too, and
        the output embeddings are frozen.

        Raises:
            CheckpointError: ``pretrain_mm_mlp_adapter`` has embedding rows that do not fit the new tokens.
        """
        if model_args.mm_use_im_patch_token:
            add_tokens(self, tokenizer, [DEFAULT_IMAGE_PATCH_TOKEN])
        if model_args.mm_use_im_start_end:
            new = add_tokens(self, tokenizer, [DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN])
            adapter_file = getattr(model_args, "pretrain_mm_mlp_adapter", None)
            if adapter_file is not None and new:
                table_VC = self.get_input_embeddings().weight.data
                rows = read_token_rows(adapter_file, len(new), table_VC.shape)
                if rows is not None:
                    table_VC[new] = rows.to(table_VC)
        tunes_projector_only = getattr(model_args, "tune_mm_mlp_adapter", False)
        if tunes_projector_only and (model_args.mm_use_im_start_end or model_args.mm_use_im_patch_token):
            self.get_input_embeddings().requires_grad_(bool(model_args.mm_use_im_start_end))
            self.get_output_embeddings().requires_grad_(False)
