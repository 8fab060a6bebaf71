"""Images and a question in, an answer out: what ``ask``, ``chat`` and ``eval_model`` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llava.backends.answerer import Answer, Answerer, image_slot
from llava.conversation import Conversation, conv_templates
from llava.errors import UsageError
from llava.image.source import Limits, LoadedImage, load_image
from llava.prompt import escape_image_tokens
from llava.sampling import Sampling
from llava.text import find_flaw

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

__all__ = ["Answer", "Sampling", "answer", "ask", "image_slot", "place_images", "start_conversation"]


def ask(
    loaded: LoadedModel,
    question: str,
    images: Sequence[Any] = (),
    sampling: Sampling = Sampling(),
    *,
    template: str | None = None,
    on_text: Callable[[str], None] | None = None,
    limits: Limits = Limits(),
) -> Answer:
    """The answer to one question about the images, which stand before it in their order.

    ``images``: anything ``load_image`` takes, or Images. ``template``: a name of ``conv_templates``; by default
    the checkpoint's own. ``on_text`` gets each new piece of the answer as it is made. ``limits``: what an image may
    cost; what was done to one is in the ``notes`` of the Image that ``load_image`` returns.
    """
    if (flaw := find_flaw(question)) is not None:
        raise UsageError(f"The question {flaw}.")
    loaded_images = [item if isinstance(item, LoadedImage) else load_image(item, limits) for item in images]
    conversation = start_conversation(loaded, template)
    conversation.append_message(conversation.roles[0], place_images(loaded, question, len(loaded_images)))
    conversation.append_message(conversation.roles[1], None)
    return answer(loaded, conversation, loaded_images, sampling, on_text=on_text)


def start_conversation(loaded: LoadedModel, template: str | None = None) -> Conversation:
    """A conversation in ``template``, or in the checkpoint's own. Raises UsageError for an unknown name."""
    name = template or loaded.template
    if name not in conv_templates:
        raise UsageError(f"There is no conversation template {name!r}. The names are: {', '.join(conv_templates)}.")
    return conv_templates[name].copy()


def place_images(loaded: LoadedModel, question: str, num_images: int) -> str:
    """The question as a message: a line for each image, then what the user typed, none of it an image slot."""
    return (image_slot(loaded) + "\n") * num_images + escape_image_tokens(question)


def answer(
    loaded: LoadedModel,
    conversation: Conversation,
    images: Sequence[LoadedImage],
    sampling: Sampling = Sampling(),
    *,
    on_text: Callable[[str], None] | None = None,
) -> Answer:
    """The model's next message in ``conversation``, whose last message is the empty one to be filled.

    ``images``: one for each image slot of the conversation, in order. ``on_text``: gets the pieces of the answer;
    joined they are ``Answer.text``. It runs between two tokens, so an exception in it (Ctrl-C too) ends the answer.
    Raises UsageError when slots and images disagree, ContextTooLong when the prompt does not fit. A model whose
    config says ``truncate_to_model_max_length`` cuts it instead, on the right, where the question is, as the original.
    """
    return Answerer.of(loaded).answer(conversation, images, sampling, on_text)
