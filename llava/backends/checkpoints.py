"""What this server needs of a checkpoint that an external engine runs: its prompts, and the folder that it loads.

The engine gets a finished text with ``<image>`` at each image's place. Its own chat template is not used, so that the
prompt is the one that ``llava.prompt.render`` gives to this package's engine, and its length is known before anything
is sent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from llava.backends.preparation import Prepared, image_slot, prepare, puts_images_first
from llava.backends.protocol import ChatRequest, SentImage
from llava.backends.turns import write_conversation
from llava.cache_folder import find_cache
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.conversation import find_template
from llava.errors import CheckpointError, ContextTooLong, UsageError
from llava.image.geometry import Size, fit_inside
from llava.image.source import LoadedImage
from llava.model.checkpoint import LoadedModel
from llava.model.checkpoint_reader import open_checkpoint
from llava.model.companions import fit_tokenizer, load_generation_config, load_tokenizer
from llava.model.conversion import convert
from llava.model.default_choice import DEFAULT_MODEL
from llava.model.generation import describe_unfollowed
from llava.model.gguf.gguf_folder import GgufFolder
from llava.model.sources import find_checkpoint
from llava.model.weights import find_tensors
from llava.prompt import escape_image_tokens, keep_needed_escapes, split_at_images
from llava.sampling import Sampling

# The prefix of a vision tower's tensors that vLLM and every version of Transformers understand.
_CLASSIC_TOWER = "vision_tower.vision_model."


# The fields of generation_config.json that are sent to an engine.
_SENT_FIELDS = ("eos_token_id", "min_new_tokens", "repetition_penalty", "stop_strings", "suppress_tokens")


def _or(number: int | None, other: int) -> int:
    return other if number is None else number


@dataclass(frozen=True)
class Asked:
    """A request in the form that an external engine is sent."""

    text: str
    """With ``<image>`` at each image's place, and without the BOS token, which the engine's tokenizer adds."""
    images: tuple[LoadedImage, ...]
    input_ids: tuple[int, ...]
    """The text's token ids, with the id of ``<image>`` once for each image."""
    prompt_tokens: int
    image_tokens: int
    stop_texts: tuple[str, ...]
    stop_ids: tuple[int, ...]
    sampling: Sampling
    """The request's, with the checkpoint's own settings, that fits the context."""

    @property
    def stretches(self) -> list[str]:
        """The text around the images: one more than there are images."""
        return split_at_images(self.text)


class Checkpoint:
    """A folder in llava-hf's layout with all that makes prompts, but without weights in memory."""

    def __init__(self, folder: str | Path, template: str | None = None, context_tokens: int | None = None) -> None:
        opened = open_checkpoint(folder)
        if opened.spec.layout != "hf":
            raise UsageError(f"{folder} is in the original's layout; an engine needs llava-hf's (llava convert).")
        if template is not None:
            find_template(template)
        self.folder = opened.folder
        self.spec = opened.spec
        self.context_tokens = min(context_tokens or opened.spec.context_tokens, opened.spec.context_tokens)
        self.tokenizer = load_tokenizer(opened.folder)
        fit_tokenizer(self.tokenizer, opened.model, opened.folder)
        model = opened.model
        model.generation_config = load_generation_config([opened.folder], model, self.tokenizer)
        self._loaded = LoadedModel(
            self.tokenizer,
            model,
            opened.load_processor(),
            opened.spec,
            self.context_tokens,
            template or opened.template,
        )
        self.image_id: int = self.tokenizer.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)

    @property
    def notice(self) -> str | None:
        """A sentence on the checkpoint's generation settings that the engine is not sent; None if it gets all."""
        return describe_unfollowed(self._loaded.model.generation_config, _SENT_FIELDS)

    def fill(self, sampling: Sampling) -> Sampling:
        """The sampling, with the checkpoint's own settings where it has None."""
        config = self._loaded.model.generation_config
        return replace(
            sampling,
            repetition_penalty=sampling.repetition_penalty or config.repetition_penalty,
            min_new_tokens=min(_or(sampling.min_new_tokens, config.min_new_tokens or 0), sampling.max_new_tokens),
            suppress_tokens=(*sampling.suppress_tokens, *(config.suppress_tokens or ())),
        )

    @property
    def is_anyres(self) -> bool:
        """Whether images are cut into several tiles (LLaVA-NeXT)."""
        return self.spec.tiling.is_anyres

    def ask(self, request: ChatRequest) -> Asked:
        """The request with its prompt rendered. Raises ContextTooLong and UsageError."""
        if request.prompt is not None:
            return self._ask_text(request.prompt, request)
        template = find_template(self._loaded.template)
        conversation, sent = write_conversation(
            request.messages, template, image_slot(self._loaded), images_first=puts_images_first(self._loaded)
        )
        images = [self._fit(one) for one in sent]
        return self._finish(
            conversation.get_prompt(),
            prepare(self._loaded, conversation, images, request.sampling, may_truncate=False),
        )

    def _ask_text(self, text: str, request: ChatRequest) -> Asked:
        """The request for a finished prompt without images, in which ``<image>`` is text."""
        escaped = escape_image_tokens(text)
        prepared = prepare(self._loaded, escaped, (), request.sampling)
        # The engine's tokenizer does not remove the escapes that are left in the text, so they count.
        ids = tuple(self.tokenizer(keep_needed_escapes(escaped, self.tokenizer)).input_ids)
        if len(ids) > self.context_tokens:
            raise ContextTooLong(len(ids), self.context_tokens, "Shorten the text.")
        sampling = request.sampling.fit(len(ids), self.context_tokens)
        prompt = replace(prepared.prompt, input_ids=ids, num_positions=len(ids))
        return self._finish(escaped, replace(prepared, prompt=prompt, prompt_tokens=len(ids), sampling=sampling))

    def _finish(self, text: str, prepared: Prepared) -> Asked:
        ids = prepared.prompt.input_ids
        return Asked(
            text=keep_needed_escapes(text, self.tokenizer),
            images=tuple(prepared.images),
            input_ids=tuple(self.image_id if token == IMAGE_TOKEN_INDEX else token for token in ids),
            prompt_tokens=prepared.prompt_tokens,
            image_tokens=sum(prepared.positions),
            stop_texts=(*prepared.stop_texts, *prepared.sampling.stop),
            stop_ids=tuple(prepared.stop_ids),
            sampling=prepared.sampling,
        )

    def _fit(self, sent: SentImage) -> LoadedImage:
        """The image; with ``detail`` "low", scaled down to fit into one tile.

        This package's engine encodes the whole-image tile alone then, which cannot be asked of an external engine: that
        one still adds the tiles of its smallest grid, but gets no more pixels than one tile has.
        """
        tile_px = self.spec.tiling.tile_px
        if sent.detail != "low" or max(sent.loaded.size) <= tile_px:
            return sent.loaded
        size, _ = fit_inside(sent.loaded.size, Size(tile_px, tile_px))
        small = sent.loaded.image.resize((max(1, size.width), max(1, size.height)), Image.Resampling.BICUBIC)
        return replace(sent.loaded, image=small, digest=f"{sent.loaded.digest}-{tile_px}")


def find_hf_folder(model: str | Path | None, cache: Path | None = None) -> Path:
    """The checkpoint's folder in llava-hf's layout: its own, or one that it was converted to and that is cached.

    Checkpoints in the original's layout are converted, fine-tunes that have to be merged into their base, and those of
    llava-hf whose tower's tensors have names that only newer versions of Transformers understand. ``cache``: where
    converted folders are kept, by default ``engines`` in this package's cache folder. Raises what ``convert`` raises.
    """
    source = find_checkpoint(DEFAULT_MODEL if model is None else model)
    if (source / "config.json").is_file() and _is_fit(source):
        return source
    folder = (cache or default_cache()) / f"{source.resolve().name}-{_describe_files(source)}"
    if not (folder / "config.json").is_file():
        convert(DEFAULT_MODEL if model is None else model, folder, "hf")
    return folder


def default_cache() -> Path:
    """Where converted checkpoints are kept: under ``LLAVA_CACHE``, else under ``XDG_CACHE_HOME`` or ``~/.cache``."""
    return find_cache() / "engines"


def _is_fit(folder: Path) -> bool:
    try:
        names = find_tensors(folder)
    except CheckpointError:  # no weights of its own, or damaged ones: convert raises the right error
        return False
    return any(name.removeprefix("model.").startswith(_CLASSIC_TOWER) for name in names) and not any(
        name.startswith("model.mm_projector.") for name in names
    )


# The cache's version: raise it when the output of ``convert`` changes, so that older folders are not used.
_CONVERSION = 2


def _describe_files(folder: Path) -> str:
    """A short digest of a folder's file names, sizes and times, so that a changed checkpoint is converted again."""
    digest = hashlib.sha256(f"{_CONVERSION} {folder.resolve()}".encode())
    for path in sorted(folder.iterdir()) if folder.is_dir() else GgufFolder(folder).files:
        if path.is_file():
            about = path.stat()
            digest.update(f"{path.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]
