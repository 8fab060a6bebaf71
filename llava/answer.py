"""Pictures and a conversation in, an answer out: what ``ask``, ``chat`` and ``eval_model`` share.

One question at a time, through the model's own ``generate``. It plans the pictures' tiles, renders the prompt with
every image position reserved (so a prompt that does not fit is refused before any pixel is touched), makes the
pixels, and hands text on as it comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, conv_templates
from llava.errors import LlavaError, UsageError
from llava.image.geometry import plan_tiles
from llava.image.pixels import make_pixels
from llava.image.source import Picture, load_picture
from llava.prompt import TextStream, escape_image_tokens, find_closings, render

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel


@dataclass(frozen=True)
class Sampling:
    """How an answer's words are chosen; the defaults are greedy. Raises UsageError for a number out of range."""

    temperature: float = 0.0
    top_p: float | None = None
    num_beams: int = 1
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"The temperature is {self.temperature}; it has to be 0 (greedy) or more.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top-p is {self.top_p}; it has to be above 0 and at most 1.")
        if self.num_beams < 1:
            raise UsageError(f"The number of beams is {self.num_beams}; it has to be at least 1.")
        if self.max_new_tokens < 1:
            raise UsageError(f"The number of new tokens is {self.max_new_tokens}; it has to be at least 1.")

    def for_generate(self) -> dict[str, Any]:
        """Arguments for ``generate``; the sampling flags are absent from a greedy call, which would warn of them."""
        chosen: dict[str, Any] = {"num_beams": self.num_beams, "do_sample": self.temperature > 0}
        if self.temperature > 0:
            chosen["temperature"] = self.temperature
            # Said even when it is off: a checkpoint's generation_config.json may hold another value.
            chosen["top_p"] = 1.0 if self.top_p is None else self.top_p
        else:
            chosen.update(temperature=None, top_p=None, top_k=None)
        return chosen


@dataclass(frozen=True)
class Answer:
    """What the model said and what it took. Times are seconds from the call; positions count the merged prompt."""

    text: str
    prompt_tokens: int
    cut_tokens: int  # what the prompt lost at its right end; 0 unless the model cuts
    image_positions: tuple[int, ...]
    new_tokens: int
    finished: bool  # False: cut at max_new_tokens or at the end of the context
    first_token_s: float
    total_s: float


def ask(
    loaded: LoadedModel,
    question: str,
    pictures: Sequence[Any] = (),
    sampling: Sampling = Sampling(),
    *,
    template: str | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Answer:
    """The answer to one question about the pictures, which stand before it in their order.

    ``pictures``: anything ``load_picture`` takes, or Pictures. ``template``: a name of ``conv_templates``; by default
    the checkpoint's own. ``on_text`` gets each new piece of the answer as it is made.
    """
    loaded_pictures = [item if isinstance(item, Picture) else load_picture(item) for item in pictures]
    conversation = start_conversation(loaded, template)
    conversation.append_message(conversation.roles[0], place_pictures(loaded, question, len(loaded_pictures)))
    conversation.append_message(conversation.roles[1], None)
    return answer(loaded, conversation, loaded_pictures, sampling, on_text=on_text)


def start_conversation(loaded: LoadedModel, template: str | None = None) -> Conversation:
    """A conversation in ``template``, or in the checkpoint's own. Raises UsageError for an unknown name."""
    name = template or loaded.template
    if name not in conv_templates:
        raise UsageError(f"There is no conversation template '{name}'. The names are: {', '.join(conv_templates)}.")
    return conv_templates[name].copy()


def image_slot(loaded: LoadedModel) -> str:
    """What stands for one picture in a prompt of this checkpoint: ``<image>``, in start and end marks if it has them.

    Source: haotian-liu/LLaVA@c121f04 llava/eval/run_llava.py.
    """
    if getattr(loaded.model.config, "mm_use_im_start_end", False):
        return DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN
    return DEFAULT_IMAGE_TOKEN


def place_pictures(loaded: LoadedModel, question: str, num_pictures: int) -> str:
    """The question as a message: a line for each picture, then what the user typed, none of it an image slot."""
    return (image_slot(loaded) + "\n") * num_pictures + escape_image_tokens(question)


def answer(
    loaded: LoadedModel,
    conversation: Conversation,
    pictures: Sequence[Picture],
    sampling: Sampling = Sampling(),
    *,
    on_text: Callable[[str], None] | None = None,
) -> Answer:
    """The model's next message in ``conversation``, whose last message is the empty one to be filled.

    ``pictures``: one for each image slot of the conversation, in order. ``on_text``: gets the pieces of the answer;
    joined they are ``Answer.text``. It runs between two tokens, so an exception in it (Ctrl-C too) ends the answer.
    Raises UsageError when slots and pictures disagree, ContextTooLong when the prompt does not fit. A model whose
    config says ``truncate_to_model_max_length`` cuts it instead, on the right, where the question is, as the original.
    """
    began = time.perf_counter()
    tiling = loaded.spec.tiling
    plans = [plan_tiles(picture.size, tiling) for picture in pictures]
    positions = tuple(plan.num_positions for plan in plans)
    model = loaded.model
    cuts = getattr(model.config, "truncate_to_model_max_length", False)
    limit_tokens = None if cuts else loaded.context_tokens
    prompt = render(conversation, loaded.tokenizer, positions, limit_tokens=limit_tokens)
    longest = (cuts and model.config.tokenizer_model_max_length) or prompt.num_positions
    prompt_tokens = min(prompt.num_positions, longest)
    room_tokens = max(1, loaded.context_tokens - prompt_tokens)
    # The input ids are what places the pictures; the merge inside the model puts prompt.num_positions in their stead.
    input_ids = torch.tensor([prompt.input_ids], device=model.device)
    pixels = [
        make_pixels(picture.image, tiling, loaded.image_processor).to(model.device, model.dtype) for picture in pictures
    ]
    stops, stop_ids = _where_answers_end(conversation, loaded)
    speech = _Speech(TextStream(loaded.tokenizer, stop=stops), on_text)
    listener = _Listener(speech, began)
    arguments = sampling.for_generate()
    if sampling.num_beams == 1:
        arguments["stopping_criteria"] = StoppingCriteriaList([listener])
    with torch.inference_mode():
        try:
            new_ids = model.generate(
                input_ids,
                images=pixels or None,
                image_sizes=[tuple(picture.size) for picture in pictures] or None,
                max_new_tokens=min(sampling.max_new_tokens, room_tokens),
                eos_token_id=stop_ids or None,
                use_cache=True,
                **arguments,
            )[0].tolist()
        except torch.OutOfMemoryError as error:
            raise LlavaError(
                f"{model.device} has no memory left for {prompt_tokens} tokens and their answer. "
                "Use --dtype bfloat16, fewer or smaller pictures, or --device cpu."
            ) from error
    listener.hear(new_ids)
    finished = speech.stopped or (bool(new_ids) and new_ids[-1] in stop_ids)
    return Answer(
        text=speech.finish(),
        prompt_tokens=prompt_tokens,
        cut_tokens=prompt.num_positions - prompt_tokens,
        image_positions=positions,
        new_tokens=len(new_ids),
        finished=finished,
        first_token_s=listener.first_token_s,
        total_s=time.perf_counter() - began,
    )


def _where_answers_end(conversation: Conversation, loaded: LoadedModel) -> tuple[list[str], list[int]]:
    """The texts and the token ids that close an answer: what the checkpoint says and what the template does."""
    said = loaded.model.generation_config.eos_token_id
    if said is None:
        said = loaded.tokenizer.eos_token_id
    texts, ids = find_closings(conversation, loaded.tokenizer)
    return texts, list(dict.fromkeys([*([said] if isinstance(said, int) else said or ()), *ids]))


class _Speech:
    """The text of a stream without blanks at its ends, said as it comes: a blank waits for what follows it."""

    def __init__(self, stream: TextStream, on_text: Callable[[str], None] | None) -> None:
        self._stream = stream
        self._on_text = on_text
        self._waiting = ""
        self.text = ""

    @property
    def stopped(self) -> bool:
        """Whether a stop text came."""
        return self._stream.stopped

    def feed(self, ids: Sequence[int]) -> None:
        self._say(self._stream.feed(ids))

    def finish(self) -> str:
        """The whole answer, after saying what the stream held back."""
        self._say(self._stream.finish())
        return self.text

    def _say(self, piece: str) -> None:
        piece = self._waiting + piece
        if not self.text:
            piece = piece.lstrip()
        sure = piece.rstrip()
        self._waiting = piece[len(sure) :]
        self.text += sure
        if sure and self._on_text is not None:
            self._on_text(sure)


class _Listener(StoppingCriteria):
    """Hears each new token as a stopping criterion, so that the answer can end with the very token that ends it."""

    def __init__(self, speech: _Speech, began: float) -> None:
        self._speech = speech
        self._began = began
        self._num_heard = 0
        self.first_token_s = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.hear(input_ids[0].tolist())
        return torch.full((input_ids.shape[0],), self._speech.stopped, dtype=torch.bool, device=input_ids.device)

    def hear(self, new_ids: list[int]) -> None:
        """Pass on what is new in the answer so far."""
        if self._num_heard == 0:
            self.first_token_s = time.perf_counter() - self._began
        self._speech.feed(new_ids[self._num_heard :])
        self._num_heard = len(new_ids)
