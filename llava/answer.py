"""Images and a question in, an answer out; and conversations of several turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.backends.answerer import Answer, Answerer
from llava.backends.preparation import image_slot
from llava.conversation import Conversation, find_template
from llava.errors import UsageError
from llava.image.source import Limits, LoadedImage, load_image
from llava.prompt import escape_image_tokens
from llava.sampling import Sampling
from llava.text import find_flaw

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

__all__ = ["Answer", "Sampling", "answer", "ask", "image_slot", "place_images", "start_conversation", "write_chat"]


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
    """The answer to one question about the images, which precede it in their order.

    ``images``: anything that ``load_image`` takes, or its results, whose ``notes`` say how an unusual file was read.
    ``template``: a name of ``conv_templates``; by default the checkpoint's own. ``on_text`` receives each piece of the
    answer as it is generated. ``limits``: the largest images that are accepted.

    Raises UsageError for a question that is not valid text, for an unknown template, for an image in place of a list
    and for a name in place of a loaded model, BadImage for an image that cannot be used, ContextTooLong for a prompt
    that does not fit.
    """
    if (flaw := find_flaw(question)) is not None:
        raise UsageError(f"The question {flaw}.")
    if isinstance(images, (str, bytes)) or hasattr(images, "read") or not isinstance(images, Iterable):
        raise UsageError(f"images is a single {type(images).__name__}; pass a list, such as ['photo.jpg'].")
    _check_loaded(loaded)
    loaded_images = [item if isinstance(item, LoadedImage) else load_image(item, limits) for item in images]
    conversation = write_chat(loaded, [(question, len(loaded_images), None)], template)
    return answer(loaded, conversation, loaded_images, sampling, on_text=on_text)


def start_conversation(loaded: LoadedModel, template: str | None = None) -> Conversation:
    """A new conversation in ``template``, by default the checkpoint's own. Raises UsageError for an unknown name."""
    _check_loaded(loaded)
    return find_template(template or loaded.template)


def _check_loaded(loaded: Any) -> None:
    """Raises UsageError for what is not a LoadedModel. A name is not loaded here: each call would load it again."""
    if isinstance(loaded, (str, Path)):
        raise UsageError(f"The model is {str(loaded)!r}, which is only a name; pass llava.load_model({str(loaded)!r}).")
    if not hasattr(loaded, "template"):
        raise UsageError(f"The model is a {type(loaded).__name__}; pass a result of llava.load_model.")


def place_images(loaded: LoadedModel, question: str, num_images: int) -> str:
    """The question as a message: one line per image, then the text, in which nothing is an image slot or a token."""
    return _write_slots(loaded, num_images) + escape_image_tokens(question)


def _write_slots(loaded: LoadedModel, num_images: int) -> str:
    return (image_slot(loaded) + "\n") * num_images


def write_chat(
    loaded: LoadedModel,
    turns: Iterable[tuple[str, int, str | None]],
    template: str | None = None,
    *,
    is_sample: bool = False,
) -> Conversation:
    """A conversation of ``turns``: each a question, the number of its images, and its answer or None.

    ``is_sample``: as in training, without the template's examples and without blanks around a question with one image;
    and the texts are trusted, so that ``</s>`` in them is the token. Raises UsageError for an unknown template.
    """
    conversation = start_conversation(loaded, template)
    if is_sample:
        conversation = conversation.without_examples()
    for question, num_images, reply in turns:
        if is_sample:
            text = question.strip() if num_images == 1 else question
        else:
            text, reply = escape_image_tokens(question), reply and escape_image_tokens(reply)
        conversation.append_message(conversation.roles[0], _write_slots(loaded, num_images) + text)
        conversation.append_message(conversation.roles[1], reply or None)
    return conversation


def answer(
    loaded: LoadedModel,
    conversation: Conversation,
    images: Sequence[LoadedImage],
    sampling: Sampling = Sampling(),
    *,
    on_text: Callable[[str], None] | None = None,
) -> Answer:
    """The model's next message in ``conversation``, whose last message is the empty one to be filled.

    ``images``: one for each image slot of the conversation, in order. ``on_text`` receives the pieces of
    ``Answer.text``; it runs between two tokens, and an exception in it (Ctrl-C too) ends the answer.

    Raises UsageError when slots and images differ in number, ContextTooLong when the prompt does not fit. A checkpoint
    with ``truncate_to_model_max_length`` truncates it on the right instead, as in the original.
    """
    return Answerer.of(loaded).answer(conversation, images, sampling, on_text)
