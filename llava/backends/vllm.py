"""vLLM's server as the engine: ``llava serve --engine vllm``.

It loads llava-hf's layout only. A prompt is sent as one message whose parts are the finished text around the images,
through a chat template that writes them out unchanged, and vLLM's tokenizer adds the BOS token; so the token ids are
those of this package's engine.

Source: vllm 0.32 entrypoints/openai (chat_completion/protocol.py, cli_args.py), checked by ``make test-engines``.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from llava.backends.checkpoints import Asked, Checkpoint
from llava.backends.managed_engine import ManagedEngine, read_flags
from llava.backends.process import Launch
from llava.backends.protocol import ChatRequest, Delta
from llava.backends.remote import Remote, write_data_uri
from llava.constants import DEFAULT_IMAGE_TOKEN

# Writes out the parts of a message and nothing else.
TEMPLATE = (
    "{%- for message in messages -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- else -%}{{- '" + DEFAULT_IMAGE_TOKEN + "' -}}{%- endif -%}"
    "{%- endfor -%}{%- endfor -%}"
)

# Only read on a CPU, where vLLM would otherwise allocate and touch nine tenths of the machine's memory.
CPU_CACHE, CPU_CACHE_GIB = "VLLM_CPU_KVCACHE_SPACE", "4"


class VLLM(ManagedEngine):
    """See ``Backend`` and ``ManagedEngine``."""

    name = "vLLM"
    module = "vllm"

    def _launch(self, python: str, checkpoint: Checkpoint) -> Launch:
        environment = {"VLLM_API_KEY": self._key, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        if self.options.memory_share is None and CPU_CACHE not in os.environ:
            environment[CPU_CACHE] = CPU_CACHE_GIB
        return Launch(self.name, partial(self.write_command, python, checkpoint), environment, api_key=self._key)

    def write_command(self, python: str, checkpoint: Checkpoint, port: int) -> Sequence[str]:
        """The server's command line. It runs the module, because the ``vllm`` command of vllm-cpu does not start."""
        options = self.options
        words = [python, "-m", "vllm.entrypoints.openai.api_server"]
        words += ["--model", str(checkpoint.folder), "--served-model-name", self.model_id]
        words += ["--host", "127.0.0.1", "--port", str(port)]
        words += ["--chat-template", TEMPLATE, "--chat-template-content-format", "openai"]
        words += ["--limit-mm-per-prompt", json.dumps({"image": options.max_images})]
        words += ["--max-model-len", str(checkpoint.context_tokens)]
        words += ["--max-logprobs", "20", "--generation-config", "vllm", "--enable-prompt-tokens-details"]
        if options.tensor_parallel > 1:
            words += ["--tensor-parallel-size", str(options.tensor_parallel)]
        if options.data_parallel > 1:
            words += ["--data-parallel-size", str(options.data_parallel)]
        if options.dtype is not None:
            words += ["--dtype", options.dtype]
        if options.quantization is not None:
            words += ["--quantization", options.quantization]
        if options.memory_share is not None:
            words += ["--gpu-memory-utilization", str(options.memory_share)]
        return [*words, *options.arguments]

    async def _ask(self, remote: Remote, asked: Asked, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        sampling = replace(asked.sampling, stop=asked.stop_texts)
        is_chat = request.prompt is None
        body: dict[str, Any] = remote.write_sampling(replace(request, sampling=sampling), is_chat=is_chat)
        body.update(add_special_tokens=True, stop_token_ids=list(asked.stop_ids))
        if is_chat:
            body["messages"] = await asyncio.to_thread(write_message, asked)
        else:
            body["prompt"] = asked.text
        path = "chat/completions" if is_chat else "completions"
        is_greedy = sampling.temperature == 0
        async with aclosing(remote.ask(path, body, request.num_choices, is_greedy=is_greedy)) as deltas:
            async for delta in deltas:
                yield delta


def from_flags(arguments: Any, settings: Any) -> VLLM:
    """The backend that the flags of ``llava serve`` describe."""
    return VLLM(**read_flags(arguments, settings))


def write_message(asked: Asked) -> list[dict[str, Any]]:
    """The one message that holds the whole prompt."""
    first, *rest = asked.stretches
    parts: list[dict[str, Any]] = [{"type": "text", "text": first}]
    for image, stretch in zip(asked.images, rest, strict=True):
        parts.append({"type": "image_url", "image_url": {"url": write_data_uri(image)}})
        parts.append({"type": "text", "text": stretch})
    return [{"role": "user", "content": [part for part in parts if part.get("text") != ""]}]
