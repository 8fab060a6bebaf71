"""Collects questions by image, so that all questions about an image become one conversation, as in LLaVA's mixtures.

Source: llava_v1_5_mix665k.json and lmms-lab/LLaVA-NeXT-Data, whose rows of VQAv2, GQA, DocVQA (10,194) and ChartQA
(18,317) are as many as the images.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from llava.data.convert.converter import Options


class ImageQuestions:
    """Questions and answers by image, in the order in which the images occur first.

    Texts that repeat are held once: the 2.3 million questions of DVQA take about 0.35 GB.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._pairs: dict[str, dict[str, str]] = {}

    def add(self, image: str, question: str, answer: str | None, thing: str) -> None:
        """Adds a question about an image; a question that the image has already is left out.

        Args:
            thing: what counts of what is left out call it, such as "question 12".
        """
        pairs = self._pairs.setdefault(image, {})
        question, answer = question.strip(), (answer or "").strip()
        if not image:
            self._options.leave_out("names no image", thing)
        elif not question:
            self._options.leave_out("has no question", thing)
        elif not answer:
            self._options.leave_out("has no answer", thing)
        elif question in pairs:
            other = "" if pairs[question] == answer else ", with another answer"
            self._options.leave_out(f"was asked about its image before{other}", thing)
        else:
            pairs[sys.intern(question)] = sys.intern(answer)

    def items(self) -> Iterable[tuple[str, list[tuple[str, str]]]]:
        """(image, its questions and answers) of each image that has any."""
        return ((image, list(pairs.items())) for image, pairs in self._pairs.items() if pairs)
