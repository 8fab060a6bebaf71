"""The models: Transformers' Llama, Mistral and Qwen2 with a vision tower, a projector and a merge in front.

Two mixins hold all that LLaVA adds: ``LlavaMetaModel`` (the modules) and ``LlavaMetaForCausalLM`` (``forward`` and
``generate`` with images; ``image_encoder`` encodes them). The classes at the end only combine them with Transformers'.
Parameter names are those of the original checkpoints. ``forward`` and ``generate`` reach images only through
``encode_images`` and ``prepare_inputs_labels_for_multimodal``, so replacing either method changes both;
``replacements`` lists what else may be replaced.

Shape letters: B rows of the batch, L positions of the longest row, P positions of all images, C width of the language
model, V vocabulary.

Source: haotian-liu/LLaVA@c121f04 llava/model/llava_arch.py and llava/model/language_model/llava_llama.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaForCausalLM,
    LlamaModel,
    MistralForCausalLM,
    MistralModel,
    Qwen2ForCausalLM,
    Qwen2Model,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, UsageError
from llava.model.arguments import (
    check_generation,
    check_ids,
    check_mask,
    check_room,
    check_vocabulary,
    cover_cache,
    leave_out_held,
    note_padding,
)
from llava.model.attention_switch import ShowsAttention, showing_attention
from llava.model.image_adapter import AdaptsFromImages, add_image_adapter, mark, note_after_image
from llava.model.image_encoder import ImageEncoder, find_videos
from llava.model.model_configs import LlavaConfig, LlavaMistralConfig, LlavaQwenConfig
from llava.model.newline import add_newline, reset_newline
from llava.model.packed_row import cut_samples, find_starts, measure_samples
from llava.model.projector import build_vision_projector
from llava.model.projector_file import load_projector
from llava.model.recorders import Picklable
from llava.model.splice import move_padding_left, splice
from llava.model.vision import VisionTower, build_vision_tower
from llava.model.vision_tokens import VisionTokens

# The mixins use methods of the classes that they are combined with; at run time they have no base class.
if TYPE_CHECKING:
    from transformers import PreTrainedModel as _MixedInto
else:
    _MixedInto = object

# Modules of a tower that a device map must not split: they have a residual connection or parameters of their own.
_UNSPLIT = "CLIPEncoderLayer CLIPVisionEmbeddings SiglipEncoderLayer SiglipVisionEmbeddings LexicalVisionTower".split()

# True while Transformers builds a model on the meta device whose weights it then reads from files.
_is_read_from_files: ContextVar[bool] = ContextVar("_is_read_from_files", default=False)


class LlavaMetaModel(ShowsAttention, _MixedInto):
    """Adds ``vision_tower``, ``mm_projector`` and, for merges with newlines, ``image_newline`` to a decoder.

    They exist if ``config`` names a tower (``mm_vision_tower``) or describes one (``mm_vision_config``); otherwise the
    model is a plain language model until ``initialize_vision_modules``. The tower's layers are built here only if the
    checkpoint holds their weights (see ``VisionTower``), or if the model is built on the meta device.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if getattr(config, "mm_vision_tower", None) or getattr(config, "mm_vision_config", None):
            tower = build_vision_tower(config, delay_load=True)
            is_described_only = self.embed_tokens.weight.is_meta and not _is_read_from_files.get()
            if is_described_only and isinstance(tower, VisionTower):  # build_vision_tower may have been replaced
                tower.build_empty()
            self.vision_tower: VisionTower | list[VisionTower] = tower
            if getattr(config, "mm_hidden_size", None) is None:
                config.mm_hidden_size = tower.hidden_size
            self.mm_projector = build_vision_projector(config)
            add_newline(self)
        add_image_adapter(self)
        # A device map must not split a tower's blocks either.
        self._no_split_modules = {*(getattr(self, "_no_split_modules", None) or ()), *_UNSPLIT}
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LlavaMetaModel):
            reset_newline(module)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Moves and casts everything except the rotary frequencies, which are moved but stay in float32.

        Rounding them to half precision changes a logit at position 2400 by 0.2 to 2.0 instead of 0.02.
        """
        exact = dict(self.rotary_emb.named_buffers())
        super()._apply(fn, recurse)
        for name, cast in list(self.rotary_emb.named_buffers()):
            if cast.dtype != exact[name].dtype:
                setattr(self.rotary_emb, name, exact[name].to(cast.device))
        return self

    def get_vision_tower(self) -> VisionTower | None:
        """The vision tower; None where the model has none."""
        # For FSDP the tower is kept out of the module tree, in a list of one.
        tower = getattr(self, "vision_tower", None)
        return tower[0] if isinstance(tower, list) else tower

    def initialize_vision_modules(self, model_args: Any, fsdp: Sequence[Any] | None = None) -> None:
        """Adds tower, projector and newline vector to a language model before training, and writes them to its config.

        Reads from ``model_args``: ``vision_tower``, ``mm_vision_select_layer``, ``mm_vision_select_feature``,
        ``mm_patch_merge_type``, and optionally ``mm_projector_type``, ``mm_vision_config`` and
        ``pretrain_mm_mlp_adapter`` (a ``.bin`` or ``.safetensors`` file). Existing modules are kept, and the projector
        is made trainable. If ``fsdp`` is not empty, a new tower is kept out of the module tree.

        Raises:
            UsageError: the tower or the projector type is unknown.
            CheckpointError: ``pretrain_mm_mlp_adapter`` holds no projector.
        """
        config = self.config
        config.mm_vision_tower = model_args.vision_tower
        tower = self.get_vision_tower()
        if tower is None:
            tower = build_vision_tower(model_args)
            self.vision_tower = [tower] if fsdp else tower
        elif not tower.is_loaded:
            tower.load_model()

        config.use_mm_proj = True
        config.mm_projector_type = getattr(model_args, "mm_projector_type", "linear")
        config.mm_hidden_size = tower.hidden_size
        config.mm_vision_select_layer = model_args.mm_vision_select_layer
        config.mm_vision_select_feature = model_args.mm_vision_select_feature
        config.mm_patch_merge_type = model_args.mm_patch_merge_type
        if getattr(model_args, "mm_vision_config", None) is not None:
            config.mm_vision_config = model_args.mm_vision_config

        weights = self.embed_tokens.weight
        if getattr(self, "mm_projector", None) is None:
            self.mm_projector = build_vision_projector(config).to(device=weights.device, dtype=weights.dtype)
            add_newline(self)
        self.mm_projector.requires_grad_(True)

        adapter_file = getattr(model_args, "pretrain_mm_mlp_adapter", None)
        if adapter_file is not None:
            load_projector(self.mm_projector, adapter_file)


class LlavaMetaForCausalLM(Picklable, ImageEncoder, VisionTokens, AdaptsFromImages, _MixedInto):
    """A mixin for causal language models: ``forward``, ``generate`` and ``from_pretrained`` with images."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """The model, from Transformers' ``from_pretrained``, with its tower frozen and never with random weights.

        A tower whose weights are not in the checkpoint, such as LLaVA-1.5's, has no layers until its ``load_model()``
        is called. ``load_pretrained_model`` loads everything at once. A ``torch_dtype`` or ``dtype`` that is given as
        None is float32, as in Transformers 4, for which training code was written; not given at all, it is the files'.

        Raises:
            CheckpointError: config.json says that the checkpoint holds the tower's weights, but it does not.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        for name in ("torch_dtype", "dtype"):
            if name in kwargs and kwargs[name] is None:
                kwargs[name] = torch.float32
        token = _is_read_from_files.set(True)
        try:
            model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        finally:
            _is_read_from_files.reset(token)
        tower = model.get_vision_tower()
        if isinstance(tower, VisionTower) and tower.is_loaded:  # build_vision_tower may have been replaced
            tower.requires_grad_(False)
            needed = {f"model.vision_tower.{name}" for name in tower.names_of_needed_weights()}
            missing = sorted(needed.intersection(info["missing_keys"]))
            if missing:
                raise CheckpointError(
                    f"config.json says that the weights of the vision tower are in the checkpoint, but {len(missing)} "
                    f"of {len(needed)} are not, the first being {missing[0]}. Without mm_vision_config and "
                    "unfreeze_mm_vision_tower they are read from mm_vision_tower, by get_vision_tower().load_model()."
                )
        return (model, info) if wants_info else model

    def prepare_inputs_labels_for_multimodal(
        self,
        input_ids: Any,
        position_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        past_key_values: Any,
        labels: torch.Tensor | None,
        images: torch.Tensor | Sequence[torch.Tensor] | None,
        image_sizes: Any = None,
        modalities: Any = None,
    ) -> tuple[Any, ...]:
        """Inputs in which every image slot (-200) of ``input_ids`` [B, L] is replaced by its image's positions.

        Returns (input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels). If there is nothing
        to replace (no tower, no images, one new token of a running generation), all are returned as given and
        ``inputs_embeds`` is None; otherwise ``input_ids`` is None. Rows are padded on the right, or on the left if
        ``config.tokenizer_padding_side`` is "left". Labels are IGNORE_INDEX at image positions and padding. None stays
        None, except that a mask is made if the rows have unequal lengths, and position ids if these rows are padded on
        the left, because padding would otherwise be read as text. If ``position_ids`` restart from 0, they divide a
        single row into samples, see ``packed_row``; otherwise they are counted anew. Rows, or these samples, are cut on
        the right at ``config.tokenizer_model_max_length``, as in the original, if
        ``config.truncate_to_model_max_length`` is true.

        Images are used in the order of the slots. A row without a slot uses no image, unless there are as many images
        as slots and such rows together: then each of these rows skips one, which is how the original keeps the vision
        tower in the graph of a text-only sample.

        Raises:
            UsageError: the number of images fits neither count, sizes are missing, or an id has no embedding.
        """
        check_ids(input_ids)
        is_single = input_ids.shape[1] == 1 and bool((input_ids != IMAGE_TOKEN_INDEX).all())
        if images is None or len(images) == 0 or self.get_vision_tower() is None or is_single:
            num_slots = 0 if is_single else int((input_ids == IMAGE_TOKEN_INDEX).sum())
            if num_slots:
                raise UsageError(f"The prompt has {num_slots} image slots, but 0 images were given.")
            if not is_single:
                check_vocabulary(input_ids, attention_mask, self.get_input_embeddings())
            return input_ids, position_ids, attention_mask, past_key_values, None, labels

        check_mask(attention_mask, input_ids)
        check_vocabulary(input_ids, attention_mask, self.get_input_embeddings())
        features_PC, num_positions = self.encode_and_merge(images, image_sizes, modalities)
        cuts = getattr(self.config, "truncate_to_model_max_length", False)
        limit = getattr(self.config, "tokenizer_model_max_length", None) if cuts else None
        pads_left = getattr(self.config, "tokenizer_padding_side", "right") == "left"
        embed = self.get_model().embed_tokens
        starts = find_starts(position_ids, attention_mask)
        cut = limit if starts is None else None
        merged = splice(input_ids, attention_mask, labels, features_PC, num_positions, embed, cut, pads_left, starts)
        if starts is not None and limit is not None:
            merged = cut_samples(merged, limit)
        is_ragged = not bool(merged.mask_BL.all())
        if attention_mask is not None or is_ragged:
            attention_mask = merged.mask_BL.to(torch.bool if attention_mask is None else attention_mask.dtype)
        if position_ids is not None or (is_ragged and pads_left):
            position_ids = merged.position_ids_BL
        mark(merged.embeds_BLC, merged.after_image_BL)
        return None, position_ids, attention_mask, past_key_values, merged.embeds_BLC, merged.labels_BL

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        images: torch.Tensor | Sequence[torch.Tensor] | None = None,
        image_sizes: Any = None,
        modalities: str | Sequence[str] | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        logits_at_targets_only: bool = False,
        target_loss: Callable[..., torch.Tensor] | None = None,
        after_image: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits for prompts with images; with ``labels`` also the mean next-token loss, in float32.

        ``input_ids`` and ``labels`` [B, L] have -200 where an image goes, so logits [B, L merged, V] are longer.
        ``logits_at_targets_only`` (with ``labels``) computes logits only at the loss's targets: the same loss from
        [targets, V], which is cheaper because most of a training sample is images and questions. ``target_loss``, a
        function of the head, the hidden states [targets, C] and the targets, replaces the head's call and the model's
        ``loss_function``, and no logits are returned. Position ids that restart divide a row into samples, see
        ``packed_row``. ``modalities``: see ``generate``; ``after_image``: ``image_adapter``. Further keywords go to
        Transformers; a call with ``output_attentions`` runs eager attention, the only one that returns the weights.
        Raises UsageError as ``prepare_inputs_labels_for_multimodal`` does.
        """
        videos = {"modalities": modalities} if find_videos(modalities) else {}
        is_merged = False
        if inputs_embeds is None and input_ids is not None:
            input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels = (
                self.prepare_inputs_labels_for_multimodal(
                    input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes, **videos
                )
            )
            is_merged = inputs_embeds is not None
        if past_key_values is not None:
            coming = input_ids if inputs_embeds is None else inputs_embeds
            attention_mask = cover_cache(attention_mask, past_key_values, 0 if coming is None else coming.shape[1])
        elif find_starts(position_ids, attention_mask) is not None:
            kwargs, use_cache = {**kwargs, **measure_samples(position_ids)}, False
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "inputs_embeds": inputs_embeds,
            "use_cache": use_cache,
        }
        with self.adapting(after_image, inputs) as positions_BL:
            if labels is not None and (logits_at_targets_only or target_loss):
                decoded = self.model(**inputs, **kwargs)
                return self._compute_loss_at_targets(decoded, labels, target_loss, **kwargs)
            outputs = super().forward(**inputs, labels=labels, logits_to_keep=logits_to_keep, **kwargs)
        note_after_image(outputs, positions_BL)
        if is_merged:
            note_padding(getattr(outputs, "past_key_values", None), attention_mask)
        return outputs

    def _compute_loss_at_targets(
        self, decoded: Any, labels: torch.Tensor, target_loss: Callable[..., torch.Tensor] | None, **kwargs: Any
    ) -> CausalLMOutputWithPast:
        next_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX).to(decoded.last_hidden_state.device)
        is_target = next_labels != IGNORE_INDEX
        hidden_states, targets = decoded.last_hidden_state[is_target], next_labels[is_target]
        if target_loss is not None:
            return CausalLMOutputWithPast(loss=target_loss(self.lm_head, hidden_states, targets, **kwargs))
        logits = self.lm_head(hidden_states)
        loss = self.loss_function(
            logits=logits, labels=None, shift_labels=targets, vocab_size=self.config.vocab_size, **kwargs
        )
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=decoded.past_key_values)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        past_key_values: Any = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of one step's ``forward``; ``images`` and ``image_sizes`` are passed on.

        In a caller's own loop, ids that the cache holds are dropped, and embeddings are used in the first step only, as
        in the original. Transformers' own loops say both explicitly.
        """
        if "is_first_iteration" not in kwargs and kwargs.get("next_sequence_length") is None:
            input_ids = leave_out_held(input_ids, past_key_values, attention_mask)
            kwargs["is_first_iteration"] = past_key_values is None or not past_key_values.get_seq_length()
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        return inputs

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        images: torch.Tensor | Sequence[torch.Tensor] | None = None,
        image_sizes: Any = None,
        modalities: str | Sequence[str] | None = None,
        after_image: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The new tokens only, [B, up to max_new_tokens], for prompts ``inputs`` [B, L] with -200 where an image goes.

        The batch is padded on the left internally, whichever side ``inputs`` and ``config.tokenizer_padding_side`` pad
        on, because a row cannot be continued after its own padding. ``attention_mask`` [B, L] is zero on the padding
        of ``inputs``; without it everything is read as text. ``modalities`` is LLaVA-NeXT's: "image", "text" or "video"
        for each of ``images``; only "video" changes anything, and missing entries are images. Further keywords are
        those of Transformers' ``generate``. ``inputs_embeds`` [B, L, C] are prompts that the caller merged, as in
        research that replaces this method and calls ``super(LlavaLlamaForCausalLM, self).generate``; ``after_image``
        is as in ``forward``.

        Raises:
            UsageError: both or neither of ``inputs`` and ``inputs_embeds`` are given, images and prompts disagree, a
                modality is unknown, or Transformers cannot do this with embeddings; see ``arguments``.
        """
        videos = {"modalities": modalities} if find_videos(modalities) else {}
        if inputs is None:
            inputs = kwargs.pop("input_ids", None)
        embeds_BLC = kwargs.pop("inputs_embeds", None)
        if (inputs is None) == (embeds_BLC is None):
            raise UsageError(
                "generate takes either token ids (`inputs`), whose image slots it fills, or `inputs_embeds`."
            )
        check_generation(kwargs, self.config.vocab_size)
        position_ids = kwargs.pop("position_ids", None)
        mask_BL = kwargs.pop("attention_mask", None)
        if inputs is not None:
            check_ids(inputs)
            if mask_BL is None:
                mask_BL = torch.ones_like(inputs)
            ids_BL, _, mask_BL, _, embeds_BLC, _ = self.prepare_inputs_labels_for_multimodal(
                inputs, None, mask_BL, None, None, images, image_sizes=image_sizes, **videos
            )
            if embeds_BLC is None:
                embeds_BLC = self.get_input_embeddings()(ids_BL.masked_fill(mask_BL == 0, 0))
                mark(embeds_BLC, torch.zeros_like(ids_BL, dtype=torch.bool))
        elif images is not None:
            raise UsageError("images came with `inputs_embeds`, which hold them already: omit them, or pass ids.")
        elif mask_BL is None:
            mask_BL = torch.ones(embeds_BLC.shape[:2], dtype=torch.long, device=embeds_BLC.device)
        check_room(kwargs, embeds_BLC.shape[1])
        moved_BLC, moved_BL = move_padding_left(embeds_BLC, mask_BL)
        kwargs.update(self.tell_positions(after_image, embeds_BLC, mask_BL, moved_BL))
        # Position ids of token ids do not count images; those of embeddings are valid unless padding was moved.
        if inputs is None and position_ids is not None and moved_BL is mask_BL:
            kwargs["position_ids"] = position_ids
        asked = kwargs.get("output_attentions")
        if asked is None:
            asked = getattr(kwargs.get("generation_config") or self.generation_config, "output_attentions", None)
        with showing_attention(self.config, asked):  # here too, because generate makes masks before the layers run
            return super().generate(inputs_embeds=moved_BLC, attention_mask=moved_BL, **kwargs)


class LlavaLlamaModel(LlavaMetaModel, LlamaModel):
    """Llama's decoder with a vision tower and a projector, without a head."""

    config_class = LlavaConfig


class LlavaMistralModel(LlavaMetaModel, MistralModel):
    """Mistral's decoder with a vision tower and a projector, without a head."""

    config_class = LlavaMistralConfig


class LlavaQwenModel(LlavaMetaModel, Qwen2Model):
    """Qwen2's decoder with a vision tower and a projector, without a head."""

    config_class = LlavaQwenConfig


class LlavaLlamaForCausalLM(LlavaMetaForCausalLM, LlamaForCausalLM):
    """LLaVA on Llama and Vicuna."""

    config_class = LlavaConfig

    def __init__(self, config: LlavaConfig) -> None:
        super(LlamaForCausalLM, self).__init__(config)
        _build_causal(self, LlavaLlamaModel(config))


class LlavaMistralForCausalLM(LlavaMetaForCausalLM, MistralForCausalLM):
    """LLaVA on Mistral."""

    config_class = LlavaMistralConfig

    def __init__(self, config: LlavaMistralConfig) -> None:
        super(MistralForCausalLM, self).__init__(config)
        _build_causal(self, LlavaMistralModel(config))


class LlavaQwenForCausalLM(LlavaMetaForCausalLM, Qwen2ForCausalLM):
    """LLaVA on Qwen2."""

    config_class = LlavaQwenConfig

    def __init__(self, config: LlavaQwenConfig) -> None:
        super(Qwen2ForCausalLM, self).__init__(config)
        _build_causal(self, LlavaQwenModel(config))


def _build_causal(model: Any, decoder: Any) -> None:
    # The same as in the constructors of Transformers' three classes, but with our decoder.
    model.model = decoder
    model.vocab_size = model.config.vocab_size
    model.lm_head = nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
    model.post_init()


for _config, _model in (
    (LlavaConfig, LlavaLlamaForCausalLM),
    (LlavaMistralConfig, LlavaMistralForCausalLM),
    (LlavaQwenConfig, LlavaQwenForCausalLM),
):
    # Evaluation harnesses register the same names, before or after this; neither may fail.
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForCausalLM.register(_config, _model, exist_ok=True)
