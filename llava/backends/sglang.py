"""SGLang's server as the engine: ``llava serve --engine sglang``.

It loads llava-hf's layout, which it runs through Transformers' modules. Its native class for the original's layout
would keep images in its prefix cache, but silently ignores all images of a request but the first.

Prompts go to ``/generate``, which takes a finished text and a list of images. Its chat route turns the text into ids,
back into text and into ids again, and tokenizers of the Llama family add a space after every image on the way.

Source: sglang 0.5.23 srt/entrypoints/http_server.py, srt/managers (io_struct.py, tokenizer_manager.py); checked by
``make test-engines``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from llava.backends.checkpoints import Asked, Checkpoint
from llava.backends.managed_engine import ManagedEngine, read_flags
from llava.backends.process import Launch
from llava.backends.protocol import ChatRequest, Delta
from llava.backends.remote import Remote, read_remote_flags, write_data_uri
from llava.errors import EngineFailed, UsageError


class SGLang(ManagedEngine):
    """See ``Backend`` and ``ManagedEngine``. A seed repeats only with ``--enable-deterministic-inference``."""

    name = "SGLang"
    module = "sglang"

    def _launch(self, python: str, checkpoint: Checkpoint) -> Launch:
        environment = {"HF_HUB_OFFLINE": "1"}
        return Launch(self.name, partial(self.write_command, python, checkpoint), environment, api_key=self._key)

    def write_command(self, python: str, checkpoint: Checkpoint, port: int) -> Sequence[str]:
        """The server's command line."""
        options = self.options
        words = [python, "-m", "sglang.launch_server"]
        words += ["--model-path", str(checkpoint.folder), "--served-model-name", self.model_id]
        words += ["--host", "127.0.0.1", "--port", str(port), "--api-key", self._key]
        words += ["--context-length", str(checkpoint.context_tokens), "--incremental-streaming-output"]
        # Its own LlavaForConditionalGeneration is made for Pixtral and does not load LLaVA-1.5; it has none for 1.6.
        words += ["--model-impl", "transformers"]
        if options.tensor_parallel > 1:
            words += ["--tp-size", str(options.tensor_parallel)]
        if options.data_parallel > 1:
            words += ["--dp-size", str(options.data_parallel)]
        if options.dtype is not None:
            words += ["--dtype", options.dtype]
        if options.quantization is not None:
            words += ["--quantization", options.quantization]
        if options.memory_share is not None:
            words += ["--mem-fraction-static", str(options.memory_share)]
        if options.device is not None:
            words += ["--device", options.device]
        return [*words, *options.arguments]

    async def _ask(self, remote: Remote, asked: Asked, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        body = await asyncio.to_thread(write_body, asked, request)
        reading = _Translation()
        is_greedy = request.sampling.temperature == 0
        answer = remote.ask("/generate", body, request.num_choices, is_greedy=is_greedy, translate=reading.translate)
        async with aclosing(answer) as deltas:
            async for delta in deltas:
                yield delta


class RunningSGLang(Remote):
    """An SGLang server that is already running. Finished prompts go to ``/generate``, with their images."""

    async def start(self) -> None:
        """See ``Remote.start``. Clients call the model by the last part of its path."""
        await super().start()
        if not self._is_named:
            self.model_id = self.model_id.rstrip("/").rpartition("/")[2]

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """See ``Backend.chat``. Raises EngineClosed, EngineFull, EngineFailed."""
        if request.prompt is None:
            asking = super().chat(request)
        else:
            text, sampling = request.prompt, request.sampling
            images = tuple(sent.loaded for sent in request.images)
            asked = Asked(text, images, (), 0, 0, tuple(sampling.stop), (), sampling)
            body = await asyncio.to_thread(write_body, asked, request)
            asking = self.ask(
                "/generate",
                body,
                request.num_choices,
                is_greedy=sampling.temperature == 0,
                translate=_Translation().translate,
            )
        async with aclosing(asking) as deltas:
            async for delta in deltas:
                yield delta


def from_flags(arguments: Any, settings: Any) -> SGLang | RunningSGLang:
    """The backend that the flags of ``llava serve`` describe."""
    if arguments.engine_url is not None:
        return RunningSGLang(**read_remote_flags(arguments, settings), supports_extras=True)
    return SGLang(**read_flags(arguments, settings))


def write_body(asked: Asked, request: ChatRequest) -> dict[str, Any]:
    """The body of a request to ``/generate``."""
    sampling = asked.sampling
    is_greedy = sampling.temperature == 0
    settings: dict[str, Any] = {
        "n": 1 if is_greedy else request.num_choices,
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
        "top_k": -1 if sampling.top_k is None else sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty or 1.0,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": list(asked.stop_texts),
        "stop_token_ids": list(asked.stop_ids),
    }
    if sampling.no_repeat_ngram_size or sampling.bad_words:
        name = "bad_words" if sampling.bad_words else "no_repeat_ngram_size"
        raise UsageError(f"{name} is not supported by this engine; leave it out.")
    if sampling.min_new_tokens:
        settings["min_new_tokens"] = sampling.min_new_tokens
    if sampling.suppress_tokens:
        settings["logit_bias"] = {str(token): -100 for token in sampling.suppress_tokens}
    if sampling.seed is not None:
        settings["sampling_seed"] = sampling.seed
    if request.response_format is not None:  # as its own chat route translates it
        asked_for = request.response_format.get("json_schema", {"schema": {"type": "object"}})
        settings["json_schema"] = json.dumps(asked_for["schema"])
    body: dict[str, Any] = {"text": asked.text, "sampling_params": settings, "stream": True}
    if asked.images:
        body["image_data"] = [write_data_uri(image) for image in asked.images]
    if request.top_logprobs is not None:
        body.update(return_logprob=True, top_logprobs_num=request.top_logprobs, return_text_in_logprobs=True)
    return body


class _Translation:
    """Translates events of ``/generate`` to those of OpenAI's chat completions."""

    def __init__(self) -> None:
        self._new_tokens: dict[int, int] = {}

    def translate(self, event: dict[str, Any]) -> dict[str, Any]:
        about = event.get("meta_info")
        if not isinstance(about, dict):
            raise EngineFailed("SGLang sent an event that cannot be parsed.")
        index = int(event.get("index") or 0)
        reason = about.get("finish_reason")
        kind = reason.get("type") if isinstance(reason, dict) else reason
        if kind == "abort" and isinstance(reason, dict) and reason.get("status_code"):
            return {"error": {"message": reason.get("message") or "", "code": reason["status_code"]}}
        self._new_tokens[index] = int(about.get("completion_tokens") or 0)
        return {
            "choices": [
                {
                    "index": index,
                    "delta": {"content": event.get("text") or ""},
                    "finish_reason": kind,
                    "logprobs": _read_logprobs(about),
                }
            ],
            "usage": {
                "prompt_tokens": about.get("prompt_tokens"),
                "completion_tokens": sum(self._new_tokens.values()),
                "prompt_tokens_details": {"cached_tokens": about.get("cached_tokens")},
            },
        }


def _read_logprobs(about: dict[str, Any]) -> dict[str, Any] | None:
    """OpenAI's log-probabilities from lists of (log-probability, id, text)."""
    chosen = about.get("output_token_logprobs")
    if not chosen:
        return None
    tops = about.get("output_top_logprobs") or [None] * len(chosen)
    return {
        "content": [
            {
                "token": text,
                "logprob": logprob,
                "top_logprobs": [{"token": other[2], "logprob": other[0]} for other in top or ()],
            }
            for (logprob, _, text), top in zip(chosen, tops, strict=True)
        ]
    }
