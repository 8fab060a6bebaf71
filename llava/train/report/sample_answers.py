"""Test answers: what the model says to a few fixed samples, before training and after every save.

Decoding is greedy and leaves everything as it was: the weights, torch's random state and the model's mode, so that the
losses of a run are the same with and without it. A failure is told once and ends the test answers, never the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from llava.constants import IGNORE_INDEX
from llava.conversation import find_template
from llava.errors import LlavaError
from llava.html_page import encode_image
from llava.image.geometry import Size
from llava.prompt import find_closings, render
from llava.text import fit_line
from llava.train.dataset.batches import pad_rows
from llava.train.dataset.image_slots import write_sample
from llava.train.dataset.samples import InstructionData, Sample
from llava.train.report.html_report import SampleAnswer

NUM_SAMPLES = 3
MAX_NEW_TOKENS = 32
# Samples that are tried for each one that is chosen.
_TRIES = 20


class FixedSamples:
    """A few samples with the answers that a model gives to their first questions.

    Args:
        data: where they are from: samples that are held out, or else those of the training.
        count: how many; fewer if there are fewer that can be asked about.
    """

    def __init__(self, data: InstructionData, count: int = NUM_SAMPLES) -> None:
        self.data, self.answers = data, []
        self._rows: list[dict[str, Any]] = []
        self._stops: set[int] = set()
        for item, answer, stops in _choose(data, count):
            self._rows.append(item)
            self.answers.append(answer)
            self._stops.update(stops)

    answers: list[SampleAnswer]

    def ask(self, model: Any, autocast: AbstractContextManager[Any] | None = None) -> list[str]:
        """The model's answers now, at most MAX_NEW_TOKENS long.

        Args:
            model: a LLaVA without wrappers; it may be in training mode and is left in it.
            autocast: the context that training computes in.
        """
        if not self._rows:
            return []
        tokenizer, device = self.data.tokenizer, next(model.parameters()).device
        pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        batch = pad_rows(
            [{**row, "labels": torch.full_like(row["input_ids"], IGNORE_INDEX)} for row in self._rows], pad_id
        )
        own = model.generation_config.eos_token_id
        stops = self._stops | set([own] if isinstance(own, int) else own or ())
        images = [image.to(device) for row in self._rows for image in row["images"]]
        sizes = [size for row in self._rows for size in row["image_sizes"]]
        settings = GenerationConfig(
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            use_cache=True,
            eos_token_id=sorted(stops),
            pad_token_id=pad_id,
        )
        with _leaving_as_it_was(model), autocast or torch.no_grad():
            new = model.generate(
                batch["input_ids"].to(device),
                attention_mask=batch["attention_mask"].to(device),
                images=images or None,
                image_sizes=sizes or None,
                generation_config=settings,
            )
        return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in new.tolist()]


class AnswerLog:
    """Asks a model about fixed samples during a run, and keeps the answers by step.

    Args:
        say: prints a line.
        find_model: the model to ask, and the context that training computes in.
        answers: what an earlier part of this run was answered, which is continued.
    """

    def __init__(
        self,
        samples: FixedSamples,
        find_model: Callable[[], tuple[Any, AbstractContextManager[Any]]],
        say: Callable[[str], None],
        answers: Sequence[SampleAnswer] = (),
    ) -> None:
        self.samples, self.fault = samples, ""
        self._find_model, self._say = find_model, say
        asked = [(each.question, each.reference) for each in samples.answers]
        if answers and asked == [(each.question, each.reference) for each in answers]:
            samples.answers[:] = answers

    def ask(self, step: int) -> None:
        """Asks after update number ``step``; 0 is before training. What is known of later steps is forgotten."""
        for answer in self.samples.answers:
            answer.by_step = [(at, text) for at, text in answer.by_step if at < step]
        if self.fault:
            return
        try:
            said = self.samples.ask(*self._find_model())
        except Exception as error:  # whatever it is, training goes on
            self.fault = f"{type(error).__name__}: {fit_line(str(error), 300)}"
            self._say(f"Test answers are left out from step {step} on: {self.fault}")
            return
        for answer, text in zip(self.samples.answers, said, strict=True):
            answer.by_step.append((step, text))
        if said:
            first = self.samples.answers[0]
            self._say(
                f"step {step:,}: to {fit_line(first.question, 60)!r} the model answers {fit_line(said[0], 60)!r} "
                f"(data: {fit_line(first.reference, 40)!r})"
            )


@contextmanager
def _leaving_as_it_was(model: Any) -> Iterator[None]:
    """Inside the block the model is in eval mode; afterwards modes and random states are what they were."""
    training = [module for module in model.modules() if module.training]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def _choose(data: InstructionData, count: int) -> Iterator[tuple[dict[str, Any], SampleAnswer, list[int]]]:
    """Samples spread over the data, with their prompts; those that cannot be asked about are passed over."""
    chosen: set[int] = set()
    for part in range(min(count, len(data))):
        first = part * len(data) // count
        for index in range(first, min(first + _TRIES, len(data))):
            if index in chosen:
                continue
            try:
                found = _prepare(data, index)
            except LlavaError:
                continue
            chosen.add(index)
            yield found
            break


def _prepare(data: InstructionData, index: int) -> tuple[dict[str, Any], SampleAnswer, list[int]]:
    """The inputs for the first question of a sample, the question with its answer, and the ids that end an answer."""
    sample: Sample = data.source.sample(index)
    template = find_template(data.choose_template(index))
    plans = data.plan([Size(*image.size) for image in sample.images])
    conversation = write_sample(sample.turns, len(sample.images), template, data.rule, has_start_end=data.has_start_end)
    first = next(i for i, (role, _) in enumerate(conversation.messages) if role == conversation.roles[1])
    reference = conversation.messages[first][1]
    conversation.messages = [*conversation.messages[:first], [conversation.roles[1], None]]
    asked = "\n".join(text for _, text in conversation.messages[:first])
    num_shown = asked.count("<image>")
    limit = None if data.limit_tokens is None else data.limit_tokens - MAX_NEW_TOKENS
    prompt = render(
        conversation, data.tokenizer, [plan.num_positions for plan in plans[:num_shown]], limit_tokens=limit
    )
    item = {
        "input_ids": torch.tensor(prompt.input_ids),
        "images": data.make_tiles(sample, plans)[:num_shown],
        "image_sizes": [tuple(image.size) for image in sample.images[:num_shown]],
    }
    stops = [*find_closings(conversation, data.tokenizer)[1], data.tokenizer.eos_token_id]
    image = encode_image(sample.images[0]) if num_shown else ""
    answer = SampleAnswer(asked.replace("<image>", "").strip(), str(reference), image=image)
    return item, answer, [stop for stop in stops if stop is not None]
