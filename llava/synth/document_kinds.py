"""Kinds of image that stand in for datasets of documents and charts: SynDog's pages and DVQA's charts, in small.

They are apart from ``scenes.KINDS``, from which the embedded default model and its tokenizer were made: another kind
among those would change both.
"""

from __future__ import annotations

from llava.synth.bars import BAR_KINDS
from llava.synth.scene import Kind
from llava.synth.scenes import KINDS
from llava.synth.text_page import draw_text_page

DOCUMENT_KINDS: dict[str, Kind] = {"page-text": draw_text_page, **BAR_KINDS}

# Which dataset each kind stands in for, by the name of its converter and its answer format.
DATASETS = {"page-text": "synthdog-en", **dict.fromkeys(BAR_KINDS, "dvqa")}

# The kinds that can be asked for by name.
NAMED_KINDS: dict[str, Kind] = {**KINDS, **DOCUMENT_KINDS}
