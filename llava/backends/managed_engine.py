"""An external engine's server that this one starts and supervises: what SGLang and vLLM have in common.

A managed engine never talks to a client. It gets finished texts and re-encoded images on a private port with its own
key, and is restarted when it dies. A request that was running at two of its deaths is not sent a third time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llava.backends.answerer import TrimmedText
from llava.backends.checkpoints import Asked, Checkpoint, find_hf_folder
from llava.backends.engine_backend import name_model
from llava.backends.process import EngineProcess, Launch, Supervision
from llava.backends.protocol import ChatRequest, Delta, Usage
from llava.backends.remote import Counts, Remote, Timeouts
from llava.errors import EngineClosed, EngineFailed, LlavaError, RequestTooLarge, UsageError
from llava.model.default_choice import name_default
from llava.text import write_line

_log = logging.getLogger("llava.engine")

# A request that was running at so many deaths of the engine is refused from then on.
_MAX_DEATHS_OF_A_REQUEST = 2
_MAX_SUSPECTS = 4096
# An engine's death is noticed only when all of its processes have ended, which have to free an accelerator first.
_BROKEN_S = 30.0


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs a model. None is the engine's own default. Raises UsageError for a value out of range."""

    python: str | None = None
    """The interpreter that has the engine installed; by default this one."""
    tensor_parallel: int = 1
    data_parallel: int = 1
    dtype: str | None = None
    quantization: str | None = None
    memory_share: float | None = None
    """The share of an accelerator's memory for weights and KV cache together, in (0, 1)."""
    context_tokens: int | None = None
    device: str | None = None
    max_images: int = 16
    """The most images of one request."""
    template: str | None = None
    """A name of ``conv_templates``; by default the checkpoint's own."""
    arguments: tuple[str, ...] = ()
    """More arguments for the engine's own command line, passed as they are."""

    def __post_init__(self) -> None:
        for name in ("tensor_parallel", "data_parallel", "max_images"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', ' ')} is {getattr(self, name)}; it has to be at least 1.")
        if self.memory_share is not None and not 0 < self.memory_share < 1:
            raise UsageError(f"The memory share is {self.memory_share}; it has to be between 0 and 1.")

    def find_python(self) -> str:
        """The interpreter's path. Raises UsageError if there is none."""
        if self.python is None:
            return sys.executable
        found = shutil.which(os.path.expanduser(self.python))
        if found is None:
            raise UsageError(f"There is no interpreter '{self.python}' (--engine-python).")
        return found


@dataclass
class _Suspects:
    """Counts, by digest, at how many of the engine's deaths each request was running."""

    running: Counter[str] = field(default_factory=Counter)
    broken: dict[str, float] = field(default_factory=dict)
    """When an answer was cut off: its connection breaks before the process is known to have died."""
    deaths: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def watch(self, digest: str) -> Iterator[None]:
        """Marks a request as running."""
        self.running[digest] += 1
        try:
            yield
        except EngineClosed:
            now = time.monotonic()
            self.broken = {one: at for one, at in self.broken.items() if now - at < _BROKEN_S} | {digest: now}
            raise
        finally:
            self.running[digest] -= 1
            self.running += Counter()  # drops the zeros

    def note_death(self) -> None:
        """Counts a death against each request that was running."""
        now = time.monotonic()
        self.deaths.update({*self.running, *(one for one, at in self.broken.items() if now - at < _BROKEN_S)})
        self.broken.clear()
        if len(self.deaths) > _MAX_SUSPECTS:
            self.deaths = Counter(dict(self.deaths.most_common(_MAX_SUSPECTS // 2)))

    def check(self, digest: str, engine: str) -> None:
        """Raises EngineFailed for a request that was running at too many deaths."""
        if self.deaths[digest] >= _MAX_DEATHS_OF_A_REQUEST:
            raise EngineFailed(
                f"{engine} died {self.deaths[digest]} times while this request was running, so it is not sent "
                "again. Change the text or the images.",
                status=422,
            )


def read_flags(arguments: Any, settings: Any) -> dict[str, Any]:
    """The arguments of ``ManagedEngine`` from the flags of ``llava serve``. Raises UsageError for another engine's."""
    remedies = {
        "--model-base": (arguments.model_base, "merge it first (llava convert)"),
        "--vision-tower": (arguments.vision_tower, "put the tower inside first (llava convert --vision-tower)"),
        "--memory": (arguments.memory, "use --memory-share"),
        "--quant": (arguments.quant, "use --quantization"),
        "--arithmetic": (None if arguments.arithmetic == "exact" else arguments.arithmetic, "leave it out"),
        "--no-merge": (None if arguments.merge else False, "leave it out"),
    }
    for flag, (value, remedy) in remedies.items():
        if value is not None:
            raise UsageError(f"{flag} is for the own engine, not for {arguments.engine}: {remedy}.")
    return {
        "model": arguments.model,
        "model_id": arguments.name,
        "options": EngineOptions(
            python=arguments.engine_python,
            tensor_parallel=arguments.tp,
            data_parallel=arguments.dp,
            dtype=arguments.dtype,
            quantization=arguments.quantization,
            memory_share=arguments.memory_share,
            context_tokens=arguments.context,
            device=arguments.device,
            max_images=max(1, settings.limits.images),
            template=arguments.conv_mode,
            arguments=tuple(arguments.engine_arg),
        ),
        "supervision": Supervision(start_s=arguments.engine_start_s),
        "timeouts": Timeouts(read_s=settings.limits.answer_s),
        "on_progress": lambda sentence: write_line(f"llava: {sentence}"),
    }


class ManagedEngine:
    """See ``Backend``. A subclass implements how its engine is started and asked.

    Args:
        model: what ``load_model`` takes, or None for the embedded model.
        model_id: what clients call it.
        options, supervision, timeouts: how the engine runs, how it is supervised, and how long it may take to answer.
        on_progress: gets sentences for the user who waits for the start.
    """

    name = "the engine"
    module = ""
    constrains_answers = True

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        model_id: str | None = None,
        options: EngineOptions = EngineOptions(),
        supervision: Supervision = Supervision(),
        timeouts: Timeouts = Timeouts(),
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.model_id = model_id or name_model(model)
        self.context_tokens = 0  # known from ``start`` on
        self.options = options
        self._model = model
        self._supervision = supervision
        self._timeouts = timeouts
        self._on_progress = on_progress or _log.info
        self._key = secrets.token_hex(16)
        self._checkpoint: Checkpoint | None = None
        self._process: EngineProcess | None = None
        self._remote: Remote | None = None
        self._port = 0
        self._suspects = _Suspects()
        self._counts = Counts()
        self._misread = 0

    @property
    def checkpoint(self) -> Checkpoint:
        """The model's prompts. Raises EngineClosed before ``start``."""
        if self._checkpoint is None:
            raise EngineClosed(f"{self.name} is not running.")
        return self._checkpoint

    @property
    def process(self) -> EngineProcess:
        """The engine's process. Raises EngineClosed before ``start`` and after ``stop``."""
        if self._process is None:
            raise EngineClosed(f"{self.name} is not running.")
        return self._process

    async def start(self) -> None:
        """Converts the checkpoint if needed, starts the engine and waits until it is healthy.

        Raises CheckpointError and UsageError; LlavaError with the engine's last output if it does not start.
        """
        options = self.options
        python = options.find_python()
        await self._check_installed(python)
        checkpoint = await asyncio.to_thread(self._open)
        self._checkpoint, self.context_tokens = checkpoint, checkpoint.context_tokens
        self._process = EngineProcess(self._launch(python, checkpoint), self._supervision, self._on_progress)
        self._process.on_death(self._suspects.note_death)
        try:
            await self._process.start()
        except BaseException:
            self._process = None
            raise

    def _open(self) -> Checkpoint:
        self._on_progress(f"Looking for {self._model or name_default()} in llava-hf's layout.")
        folder = find_hf_folder(self._model)
        checkpoint = Checkpoint(folder, self.options.template, self.options.context_tokens)
        if checkpoint.notice is not None:
            _log.warning(checkpoint.notice)
        return checkpoint

    async def _check_installed(self, python: str) -> None:
        """Raises LlavaError if the engine is not installed there: a sentence now, not a traceback in a minute."""
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({self.module!r}) is None)"
        asked = await asyncio.create_subprocess_exec(
            python, "-c", code, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        if await asked.wait() != 0:
            raise LlavaError(
                f"{python} has no {self.module}: install it in an environment of its own and name its interpreter "
                "with --engine-python."
            )

    def _launch(self, python: str, checkpoint: Checkpoint) -> Launch:
        raise NotImplementedError

    async def _ask(self, remote: Remote, asked: Asked, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        raise NotImplementedError
        yield Delta()

    async def stop(self) -> None:
        """Ends the engine and all its processes. Idempotent."""
        process, self._process = self._process, None
        remote, self._remote = self._remote, None
        if process is not None:
            await process.stop()
        if remote is not None:
            await remote.stop()

    async def is_ready(self) -> bool:
        """Whether the engine is up."""
        return self._process is not None and self._process.state == "ready" and not self._process.is_broken

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """See ``Backend.chat``."""
        self.process.check_alive()
        request = replace(request, sampling=self.checkpoint.fill(request.sampling))
        asked = await asyncio.to_thread(self.checkpoint.ask, request)
        if len(asked.images) > self.options.max_images:
            raise RequestTooLarge(
                f"The conversation has {len(asked.images)} images; at most {self.options.max_images} are allowed. "
                "Leave some out."
            )
        digest = _digest(asked, request)
        self._suspects.check(digest, self.name)
        said = [TrimmedText() for _ in range(request.num_choices)]
        with self._suspects.watch(digest):
            try:
                async with aclosing(self._ask(await self._find_remote(), asked, request)) as deltas:
                    async for delta in deltas:
                        yield self._clean(delta, said, asked, request)
            except EngineFailed as error:
                # A server whose workers died reports it in its answers before it ends, as vLLM does.
                if error.status < 500 or await self.process.is_healthy():
                    raise
                raise EngineClosed(f"{self.name} died before the answer ended. Try again.") from error

    def _clean(self, delta: Delta, said: Sequence[TrimmedText], asked: Asked, request: ChatRequest) -> Delta:
        if request.prompt is None:  # whitespace around an answer is not part of it, whichever engine gives it
            text = said[delta.index]
            before = len(text.text)
            text.append(delta.text)
            delta = replace(delta, text=text.text[before:])
        if delta.usage is not None:
            delta = replace(delta, usage=self._check_usage(delta.usage, asked))
        return delta

    def _check_usage(self, usage: Usage, asked: Asked) -> Usage:
        if usage.prompt_tokens != asked.prompt_tokens:
            self._misread += 1
            _log.warning("%s read a prompt of %d positions as %d.", self.name, asked.prompt_tokens, usage.prompt_tokens)
        return replace(usage, image_tokens=asked.image_tokens)

    async def _find_remote(self) -> Remote:
        """The client of the engine; a new one after each start, because the port is another."""
        process = self.process
        if self._remote is None or self._port != process.port:
            old = self._remote
            self._port = process.port
            self._remote = Remote(
                self._base_url(process.url),
                model=self.model_id,
                api_key=self._key,
                timeouts=self._timeouts,
                supports_extras=True,
            )
            self._remote.counts = self._counts
            if old is not None:
                await old.stop()
        return self._remote

    def _base_url(self, url: str) -> str:
        return f"{url}/v1"

    def count(self) -> Mapping[str, float]:
        """See ``Backend.count``: requests that were passed on, and how often the engine was started."""
        counts = self._counts.as_dict()
        counts["engine_starts_total"] = 0 if self._process is None else self._process.num_starts
        counts["prompts_read_otherwise_total"] = self._misread
        return counts


def _digest(asked: Asked, request: ChatRequest) -> str:
    content: list[Any] = [asked.text, [image.digest for image in asked.images], request.top_logprobs]
    content += [request.num_choices, request.sampling, request.response_format]
    return hashlib.sha256(repr(content).encode()).hexdigest()
