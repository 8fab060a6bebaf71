"""From logged requests to candidates: every filter that needs no teacher, each counting what it leaves out.

In this order, so that a dear filter sees few requests: images that are missing or broken, requests without an image,
personal data and harm in the text, near duplicates, text on the images, the classifier. A filter that fails leaves the
request out: what cannot be judged is not used.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.data.collection.chat_logs import Removed, UserRequest, find_image, keep_longest, read_logs
from llava.data.collection.journal import Journal
from llava.data.collection.plug_ins import Classifier, TextReader
from llava.data.collection.similar_texts import TextIndex
from llava.data.harm import RULES_FILE, HarmRule, find_harm, read_rules
from llava.data.near_images import find_duplicates
from llava.data.privacy import find_private
from llava.errors import BadImage
from llava.image.source import Limits, load_image
from llava.text import fit_line

_WHOLE = Limits(draws_damaged=False)


@dataclass(frozen=True)
class FilterSettings:
    """What the filters read and how strict they are.

    Attributes:
        folders: folders with images, beside those of the logs.
        max_turns: questions taken of a conversation.
        takes_text_only: whether requests without an image are candidates.
        harm_rules: a file as ``harm_rules.yaml``.
        similarity: the Jaccard index from which on two texts are near duplicates.
        max_same_text, max_same_image: how many requests may have near-duplicate texts, or show near-duplicate images.
        reader, reader_name: reads the text on images; without one it is not checked.
        classifier, classifier_name: judges harm beside the rules.
    """

    logs: tuple[Path, ...]
    folders: tuple[Path, ...] = ()
    max_turns: int = 1
    takes_text_only: bool = False
    harm_rules: Path = RULES_FILE
    similarity: float = 0.8
    max_same_text: int = 20
    max_same_image: int = 5
    reader: TextReader | None = None
    reader_name: str = ""
    classifier: Classifier | None = None
    classifier_name: str = ""


@dataclass(frozen=True)
class Candidate:
    """A request that passed the filters. ``paths``: the files of its images. ``filters``: what it passed, in words."""

    request: UserRequest
    paths: tuple[Path, ...]
    filters: tuple[str, ...]

    @property
    def id(self) -> str:
        """That of its request."""
        return self.request.id


class RequestFilters:
    """The filters, once through: ``apply`` returns the candidates, ``removed`` what was left out and why.

    ``judged``: where the judgement of an image's text is kept, so that no image is read twice; None reads none.
    """

    def __init__(self, settings: FilterSettings, judged: Journal | None = None) -> None:
        self.settings, self._judged = settings, judged
        self.removed = Removed()
        self.rules: tuple[HarmRule, ...] = read_rules(settings.harm_rules)
        self._rules_digest = _digest_rules(settings.harm_rules)
        self.num_lines = 0
        self.num_unread = 0  # images whose text was not read, for want of a reader or in a dry run
        self._paths: dict[str, Path | None] = {}

    def apply(self) -> list[Candidate]:
        """The candidates, in the order of the logs. Raises UsageError for a log that cannot be read."""
        settings = self.settings
        requests = list(read_logs(settings.logs, self.removed, settings.folders, settings.max_turns))
        self.num_lines = len(requests) + sum(self.removed.counts.values())
        requests = keep_longest(requests, self.removed)
        requests = [request for request in requests if self._has_images(request)]
        requests = [request for request in requests if self._is_harmless(request)]
        requests = self._leave_out_duplicates(requests)
        requests = [request for request in requests if self._is_readable(request)]
        requests = [request for request in requests if self._is_accepted_by_classifier(request)]
        filters = self._describe()
        return [Candidate(request, self._find_paths(request), filters) for request in requests]

    def _describe(self) -> tuple[str, ...]:
        """The filters that every candidate passed."""
        settings = self.settings
        rules = _digest_rules(settings.harm_rules)
        reader = f"text on images by {settings.reader_name}" if settings.reader else "text on images not checked"
        classifier = [f"classifier {settings.classifier_name}"] if settings.classifier else []
        return ("consent", "privacy", f"harm rules {rules}", "near duplicates", reader, *classifier)

    def _find_paths(self, request: UserRequest) -> tuple[Path, ...]:
        found = (self._paths[image] for image in request.images)
        return tuple(path for path in found if path is not None)

    def _has_images(self, request: UserRequest) -> bool:
        if not request.images and not self.settings.takes_text_only:
            self.removed.add("no image", request)
            return False
        for image in request.images:
            if self._paths.get(image) is None:
                path = find_image(request, image)
                fault = "an image is missing" if path is None else self._find_fault(path, image)
                if fault:
                    self.removed.add(fault, request, detail=f"{image}.png")
                    return False
                self._paths[image] = path
        return True

    def _find_fault(self, path: Path, digest: str) -> str:
        """Why the file is not the image that the user sent; "" if it is."""
        try:
            loaded = load_image(path, _WHOLE)
        except BadImage:
            return "an image is broken"
        return "" if loaded.digest == digest else "an image is not the one that was logged"

    def _is_harmless(self, request: UserRequest) -> bool:
        if kinds := find_private(request.text):
            self.removed.add("personal data in the text", request, detail=", ".join(kinds))
            return False
        if names := find_harm(request.text, self.rules):
            self.removed.add("harm in the text", request, detail=", ".join(names))
            return False
        return True

    def _leave_out_duplicates(self, requests: Sequence[UserRequest]) -> list[UserRequest]:
        """The first of all requests that are near duplicates in text and images, and not too many of either alone."""
        first = self._number_images(requests)
        index = TextIndex(self.settings.similarity)
        seen: set[tuple[int, tuple[int, ...]]] = set()
        texts: Counter[int] = Counter()
        images: Counter[int] = Counter()
        kept = []
        for request in requests:
            text, shown = index.add(request.text), tuple(first[image] for image in request.images)
            if (text, shown) in seen:
                self.removed.add("a near duplicate: text and image", request)
            elif texts[text] >= self.settings.max_same_text:
                self.removed.add(f"its text, more than {self.settings.max_same_text} times", request)
            elif any(images[image] >= self.settings.max_same_image for image in set(shown)):
                self.removed.add(f"its image, more than {self.settings.max_same_image} times", request)
            else:
                seen.add((text, shown))
                texts[text] += 1
                images.update(set(shown))
                kept.append(request)
        return kept

    def _number_images(self, requests: Sequence[UserRequest]) -> dict[str, int]:
        """A number for each image, the same for near duplicates."""
        digests = list(dict.fromkeys(image for request in requests for image in request.images))
        paths = [path for digest in digests if (path := self._paths[digest]) is not None]
        numbers = list(range(len(paths)))
        for pair in find_duplicates(paths) if len(paths) > 1 else ():
            numbers[pair.second] = min(numbers[pair.second], numbers[pair.first])
        return dict(zip(digests, numbers, strict=True))

    def _is_readable(self, request: UserRequest) -> bool:
        """Whether no personal data and no harm can be read on the images."""
        for image in dict.fromkeys(request.images):
            if self.settings.reader is None or (found := self._judge(image)) is None:
                self.num_unread += 1
            elif found:
                self.removed.add(found[0], request, detail=found[1])
                return False
        return True

    def _judge(self, image: str) -> tuple[str, str] | tuple[()] | None:
        """Why the text on an image rules it out; () if it does not, None if it was not read. Never the text itself."""
        # Other rules have to judge again what these let pass, and the text itself is not kept.
        key = f"{image} {self.settings.reader_name} {self._rules_digest}"
        path = self._paths[image]
        if self._judged is None or path is None or self.settings.reader is None:
            return None
        entry = self._judged.entries.get(key)
        if entry is None:
            try:
                text = self.settings.reader(load_image(path, _WHOLE).image)
            except (KeyboardInterrupt, MemoryError):
                raise
            except Exception as error:  # a plug-in may raise anything
                return ("the text on an image could not be read", fit_line(f"{type(error).__name__}: {error}"))
            entry = {"key": key, "private": find_private(str(text)), "harm": find_harm(str(text), self.rules)}
            self._judged.write(entry)
        for name, reason in (("private", "personal data on an image"), ("harm", "harm on an image")):
            if entry.get(name):
                return (reason, ", ".join(map(str, entry[name])))
        return ()

    def _is_accepted_by_classifier(self, request: UserRequest) -> bool:
        if self.settings.classifier is None or self._judged is None:
            return True
        try:
            harm = self.settings.classifier(request.text, self._find_paths(request))
        except (KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:  # a plug-in may raise anything
            reason = "the classifier failed"
            self.removed.add(reason, request, detail=fit_line(f"{type(error).__name__}: {error}"))
            return False
        if harm:
            self.removed.add("harm by the classifier", request, detail=fit_line(str(harm), 80))
        return not harm


def _digest_rules(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
