"""A model for lmms-eval that answers with this package's engine: its stock ``llava`` adapter's prompts, batched.

lmms-eval calls it, and need not be installed to import this module: ``register`` makes it one of lmms-eval's models,
under the name ``llava_engine``, and a package installed beside lmms-eval registers itself by its entry point.

Source: lmms-eval 0.7.3, lmms_eval/models/simple/llava.py and lmms_eval/api/model.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.data.long_work import LongWork
from llava.errors import LlavaError, UsageError
from llava.eval.askers import choose_template
from llava.text import fit_line, write_line

if TYPE_CHECKING:
    from llava.conversation import Conversation
    from llava.image.source import LoadedImage
    from llava.model.checkpoint import LoadedModel
    from llava.sampling import Sampling

NAME = "llava_engine"
DEFAULT_NEW_TOKENS = 1024  # of the stock adapter, for tasks that say nothing


class LlavaEngine:
    """A model as lmms-eval calls it; answers are those of its stock adapter, one question at a time.

    As there, ``until`` of a task is ignored: an answer ends where the template ends it.

    Args:
        loaded: the model.
        template: of the conversation; by default the checkpoint's own, where LLaVA-1.5's is the one of its evaluation.

    Attributes:
        failures: task, document and reason of each question that could not be asked; its answer is "".
    """

    is_simple = True

    def __init__(self, loaded: LoadedModel, template: str | None = None) -> None:
        from llava.answer import start_conversation

        self._loaded = loaded
        self.template = template or choose_template(loaded)
        start_conversation(loaded, self.template)  # refuses an unknown template
        self.failures: list[tuple[str, Any, str]] = []
        self._noted: set[str] = set()  # tasks whose wish for another image mode was said
        # What lmms-eval's own class has; its evaluator writes and reads them.
        self.task_dict: dict[str, Any] = {}
        self.cache_hook: Any = None
        self._rank, self._world_size = 0, 1

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> LlavaEngine:
        """A model of ``--model_args``: ``pretrained``, and ``conv_template``, ``device`` and ``dtype`` if wanted."""
        from llava.model.checkpoint import load_model
        from llava.model.default_choice import DEFAULT_MODEL

        pairs = [pair.partition("=") for pair in arg_string.split(",") if pair.strip()]
        given = {name.strip(): value.strip() for name, _, value in pairs}
        if unknown := sorted(given.keys() - {"pretrained", "conv_template", "device", "dtype"}):
            raise UsageError(f"--model_args has '{unknown[0]}'; there are: pretrained, conv_template, device, dtype.")
        device = given.get("device") or (additional_config or {}).get("device")
        path = given.get("pretrained") or DEFAULT_MODEL
        loaded = load_model(path, device=device, dtype=given.get("dtype"), for_engine=True)
        return cls(loaded, given.get("conv_template"))

    @property
    def rank(self) -> int:
        """Always 0: one process asks everything."""
        return self._rank

    @property
    def world_size(self) -> int:
        """Always 1."""
        return self._world_size

    @property
    def device(self) -> Any:
        """The model's device."""
        return self._loaded.model.device

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Does nothing with the hook: lmms-eval caches around this class."""
        self.cache_hook = cache_hook

    def clean(self) -> None:
        """Does nothing: the model is its caller's."""

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers to lmms-eval's requests, in their order, computed together."""
        from llava.backends.answerer import Answerer

        failed: deque[bool] = deque()  # one for each request that was read

        def prepare() -> Iterator[tuple[Conversation, list[LoadedImage], Sampling]]:
            answerer = Answerer.of(self._loaded)
            for request in requests:
                _, _, _, doc_id, task, _ = request.args
                try:
                    asked = self._read(*request.args)
                    answerer.prepare(*asked)  # refuses what does not fit
                except LlavaError as error:
                    self.failures.append((task, doc_id, str(error)))
                    failed.append(True)
                else:
                    failed.append(False)
                    yield asked

        answers: list[str] = []
        with LongWork("lmms-eval", len(requests), " questions") as work:
            for answer in Answerer.of(self._loaded).answer_all(prepare()):
                while failed.popleft():
                    answers.append("")
                answers.append(answer.text)
                work.move_to(len(answers))
        return answers + [""] * len(failed)

    def _read(
        self, context: str, settings: Mapping[str, Any], doc_to_visual: Any, doc_id: Any, task: str, split: str
    ) -> tuple[Conversation, list[LoadedImage], Sampling]:
        """A request as the engine takes it. Raises UsageError and BadImage."""
        from llava.answer import start_conversation

        if "image_aspect_ratio" in settings and task not in self._noted:
            self._noted.add(task)
            write_line(
                f"llava: '{fit_line(task)}' wants image_aspect_ratio {settings['image_aspect_ratio']!r}; images are "
                f"shown as the checkpoint says: {self._loaded.spec.tiling.aspect}."
            )
        images = [_load_visual(visual) for visual in _flatten(doc_to_visual(self.task_dict[task][split][doc_id]))]
        if images and DEFAULT_IMAGE_TOKEN not in context:
            context = " ".join([DEFAULT_IMAGE_TOKEN] * len(images)) + "\n" + context
        conversation = start_conversation(self._loaded, self.template)
        conversation.append_message(conversation.roles[0], context)
        conversation.append_message(conversation.roles[1], None)
        return conversation, images, read_sampling(settings)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Raises UsageError: the engine generates."""
        raise UsageError(
            f"'{requests[0].task_name}' asks for likelihoods, which the engine does not compute. Run lmms-eval's own "
            "adapter, which does: lmms-eval --model llava --model_args pretrained=MODEL."
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raises UsageError, as the stock adapter has it."""
        raise UsageError(f"'{requests[0].task_name}' asks in several rounds, which LLaVA's adapter does not support.")


def read_sampling(settings: Mapping[str, Any]) -> Sampling:
    """A task's ``generation_kwargs`` as sampling parameters, by the stock adapter's rules. Raises UsageError."""
    from llava.sampling import Sampling

    temperature = float(settings.get("temperature") or 0)
    top_p = settings.get("top_p") if temperature > 0 else None
    return Sampling(
        temperature=temperature,
        top_p=None if top_p is None else float(top_p),
        num_beams=int(settings.get("num_beams") or 1),
        max_new_tokens=int(settings.get("max_new_tokens") or DEFAULT_NEW_TOKENS),
    )


def _flatten(visuals: Any) -> list[Any]:
    """The images of a document, which may be in lists."""
    if visuals is None:
        return []
    if isinstance(visuals, list | tuple):
        return [image for each in visuals for image in _flatten(each)]
    return [visuals]


def _load_visual(visual: Any) -> LoadedImage:
    from PIL import Image

    from llava.image.source import FOR_LOCAL_USER, load_image

    if isinstance(visual, Image.Image):
        return load_image(visual.convert("RGB"), FOR_LOCAL_USER)  # a copy, which is not turned by its EXIF
    raise UsageError(f"A {type(visual).__name__} is asked about, and this adapter knows images only.")


def make_manifest() -> Any:
    """What lmms-eval's entry point ``lmms_eval.models`` loads: the class and its name."""
    from lmms_eval.api.model import lmms
    from lmms_eval.models.registry_v2 import ModelManifest

    lmms.register(LlavaEngine)
    return ModelManifest(NAME, simple_class_path=f"{__name__}.{LlavaEngine.__name__}")


def register() -> None:
    """Makes ``LlavaEngine`` one of lmms-eval's models. Raises ImportError if lmms-eval is missing or another one."""
    from lmms_eval.models import MODEL_REGISTRY_V2

    MODEL_REGISTRY_V2.register_manifest(make_manifest(), overwrite=True)


def say_failures(failures: Iterable[tuple[str, Any, str]]) -> None:
    """Names the questions that could not be asked, on stderr."""
    listed = list(failures)
    if not listed:
        return
    named = ", ".join(f"{task} {doc_id}" for task, doc_id, _ in listed[:5])
    more = ", ..." if len(listed) > 5 else ""
    write_line(
        f"llava: questions that could not be asked, and count as answered by nothing: {len(listed)} ({named}{more}). "
        f"The first: {fit_line(listed[0][2])}"
    )
