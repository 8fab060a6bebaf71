"""The sentence by which each dataset asks for its form of answer: one place for converters and for evaluation.

Source: LLaVA-1.5 (arXiv:2310.03744v2), tables 7 and 8, and llava_v1_5_mix665k.json; haotian-liu/LLaVA@c121f04
llava/eval. The apostrophe is ASCII in the data and in the evaluation, whatever the paper prints.
"""

from __future__ import annotations

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
