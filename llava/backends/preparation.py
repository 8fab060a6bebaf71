"""The one way from a conversation and its images to what a model is given.

``prepare`` serves every caller: ``llava.ask``, the terminal chat, evaluation, the server's own engine, external engines
and ``llava info --prompt``. Lengths follow from image sizes alone, so a prompt that does not fit is refused before any
pixel is read; except with a tower whose features are as many as what it reads in an image: it looks at the images here,
in the caller's thread, and their features travel with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from llava.conversation import Conversation, find_template
from llava.errors import UsageError
from llava.image.geometry import TilePlan, plan_images
from llava.image.source import LoadedImage
from llava.model.generation import find_stop_strings
from llava.model.image_adapter import read_adapter
from llava.prompt import Prompt, encode_text, find_closings, render, render_sample, write_image_slot
from llava.sampling import Sampling
from llava.text import find_flaw

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel


@dataclass(frozen=True)
class Prepared:
    """A rendered prompt with the tile plans of its images, and where its answer ends.

    Attributes:
        images, plans: one of each for every slot of the prompt, in order.
        sampling: as requested, but with ``max_new_tokens`` that fit the context.
        prompt_tokens: positions that the model reads; fewer than the prompt's if the checkpoint truncates it.
        stop_texts: the answer ends before the first of these; those of ``sampling`` are not among them.
        stop_ids: the answer ends with the first of these token ids.
        limit: why an answer of ``max_new_tokens`` ends: the request's limit, or the context.
    """

    prompt: Prompt
    images: Sequence[LoadedImage]
    plans: Sequence[TilePlan]
    sampling: Sampling
    prompt_tokens: int
    stop_texts: Sequence[str]
    stop_ids: Sequence[int]
    limit: Literal["length", "context"] = "length"

    @property
    def positions(self) -> tuple[int, ...]:
        """How many positions each image takes."""
        return tuple(plan.num_positions for plan in self.plans)


def prepare(
    loaded: LoadedModel,
    conversation: Conversation | str,
    images: Sequence[LoadedImage],
    sampling: Sampling,
    *,
    details: Sequence[str] = (),
    may_truncate: bool = True,
    supervise: bool = False,
) -> Prepared:
    """What the model is given for a conversation whose last message is the empty one to be filled.

    Args:
        loaded: its weights are not used, except those of a tower that has a ``position_range``.
        conversation: as text, it is a finished prompt with ``<image>`` for each image; its answer then ends with the
            checkpoint's own stop texts and stop tokens, and not with the template's separator.
        details: the ``detail`` of each image in OpenAI's API; "low" is a single tile.
        may_truncate: whether a checkpoint with ``truncate_to_model_max_length`` truncates the conversation on the
            right, as in the original.
        supervise: whether the prompt gets labels, as a training sample; its last message is then an answer.

    Raises UsageError if slots and images differ in number and for text that cannot be tokenized, ContextTooLong for a
    prompt that does not fit.
    """
    planned = plan_images([image.size for image in images], loaded.spec.tiling, details)
    images, plans = _look_at(images, planned, loaded)
    positions = [plan.num_positions for plan in plans]
    config = loaded.model.config
    is_text = isinstance(conversation, str)
    truncates = may_truncate and not is_text and bool(getattr(config, "truncate_to_model_max_length", False))
    limit_tokens = None if truncates else loaded.context_tokens
    if isinstance(conversation, str):
        check_text(conversation, "prompt")
        prompt = encode_text(conversation, loaded.tokenizer, positions, limit_tokens=limit_tokens)
        stop_texts = find_stop_strings(loaded.model.generation_config)
        _, stop_ids = find_ends(find_template(loaded.template), loaded)
    else:
        check_text(conversation.get_prompt())
        write = render_sample if supervise else render
        prompt = write(conversation, loaded.tokenizer, positions, limit_tokens=limit_tokens)
        stop_texts, stop_ids = find_ends(conversation, loaded)
    longest = (truncates and getattr(config, "tokenizer_model_max_length", None)) or prompt.num_positions
    prompt_tokens = min(prompt.num_positions, longest)
    fitting = sampling.fit(prompt_tokens, loaded.context_tokens)
    limit: Literal["length", "context"] = "length" if fitting.max_new_tokens == sampling.max_new_tokens else "context"
    return Prepared(prompt, images, plans, fitting, prompt_tokens, stop_texts, stop_ids, limit)


def _look_at(
    images: Sequence[LoadedImage], plans: Sequence[TilePlan], loaded: LoadedModel
) -> tuple[Sequence[LoadedImage], Sequence[TilePlan]]:
    """The images with their features, and the plans with their counts, where only the tower can tell these."""
    tower = _find_reading_tower(loaded)
    if tower is None:
        return images, plans
    seen = [
        tower.look(image.image, image.digest, plan, loaded.image_processor)
        for image, plan in zip(images, plans, strict=True)
    ]
    return (
        [replace(image, features=features) for image, features in zip(images, seen, strict=True)],
        [replace(plan, counted=len(features)) for plan, features in zip(plans, seen, strict=True)],
    )


def read_out(loaded: LoadedModel, image: LoadedImage, plan: TilePlan) -> str:
    """What a tower that writes wrote about an image that it has seen; "" for all other towers."""
    tower = _find_reading_tower(loaded)
    if tower is None:
        return ""
    text: str = tower.read_out(tower.look(image.image, image.digest, plan, loaded.image_processor))
    return text


def _find_reading_tower(loaded: LoadedModel) -> Any:
    """The tower whose features are as many as what it reads; None for any other."""
    tower: Any = loaded.model.get_vision_tower()
    return None if getattr(tower, "position_range", None) is None else tower


def check_text(text: str, what: str = "conversation") -> None:
    """Raises UsageError for text that no tokenizer takes, such as lone surrogates."""
    if (flaw := find_flaw(text)) is not None:
        raise UsageError(f"The {what} {flaw}.")


def image_slot(loaded: LoadedModel) -> str:
    """The text of one image's slot in this checkpoint's prompts; see ``write_image_slot``."""
    return write_image_slot(bool(getattr(loaded.model.config, "mm_use_im_start_end", False)))


def puts_images_first(loaded: LoadedModel) -> bool:
    """Whether a turn's images have to stand before its text: an image adapter works from the first image on.

    A question before it would be read by the language model alone.
    """
    return read_adapter(loaded.model.config) is not None


def find_ends(conversation: Conversation, loaded: LoadedModel) -> tuple[list[str], list[int]]:
    """The stop texts and stop token ids of an answer, from the checkpoint and from the conversation template."""
    end = loaded.model.generation_config.eos_token_id
    if end is None or end == []:
        end = loaded.tokenizer.eos_token_id
    texts, ids = find_closings(conversation, loaded.tokenizer)
    texts += find_stop_strings(loaded.model.generation_config)
    return texts, list(dict.fromkeys([*([end] if isinstance(end, int) else end or ()), *ids]))
