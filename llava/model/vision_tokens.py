"""The tokens ``<im_patch>``, ``<im_start>`` and ``<im_end>``, which a tokenizer may get for images; their embeddings.

Source: haotian-liu/LLaVA@c121f04 llava/model/llava_arch.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.model.projector_file import read_token_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel as _MixedInto
else:
    _MixedInto = object


class VisionTokens(_MixedInto):
    """A mixin for language models whose tokenizer may get tokens for images: ``LlavaMetaForCausalLM`` has it."""

    def initialize_vision_tokenizer(self, model_args: Any, tokenizer: Any) -> None:
        """Adds the tokens ``<im_patch>`` and ``<im_start>``, ``<im_end>`` if ``model_args`` asks for them.

        The embeddings of the start and end tokens are initialized with the mean of all older rows. If only the
        projector is trained, the input embeddings are trained too, and the output embeddings are frozen.

        Raises:
            CheckpointError: ``pretrain_mm_mlp_adapter`` has no embedding rows that fit the new tokens.
        """
        if model_args.mm_use_im_patch_token:
            tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
            self.resize_token_embeddings(len(tokenizer))
        tunes_projector_only = getattr(model_args, "tune_mm_mlp_adapter", False)
        if model_args.mm_use_im_start_end:
            num_new = tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
            self.resize_token_embeddings(len(tokenizer))
            tables = [self.get_input_embeddings().weight.data, self.get_output_embeddings().weight.data]
            for table_VC in tables if num_new else []:
                table_VC[-num_new:] = table_VC[:-num_new].mean(dim=0, keepdim=True)
            adapter_file = getattr(model_args, "pretrain_mm_mlp_adapter", None)
            if adapter_file is not None and num_new:
                tables[0][-num_new:] = read_token_rows(adapter_file, num_new, tables[0].shape)
        if tunes_projector_only and (model_args.mm_use_im_start_end or model_args.mm_use_im_patch_token):
            self.get_input_embeddings().requires_grad_(bool(model_args.mm_use_im_start_end))
            self.get_output_embeddings().requires_grad_(False)
