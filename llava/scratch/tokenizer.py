"""The small tokenizer of models trained from scratch: whole words for phrasing, single characters for everything else.

A byte-fallback BPE without merges. A word that questions and answers are phrased with is one token. Everything else,
text in images above all, is spelled letter by letter, so that the model reads text by naming its characters in order.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from llava.conversation import find_template
from llava.synth.conversations import CAPTION_REQUESTS, OFF_TOPIC, OFF_TOPIC_ANSWER, READING_REQUESTS
from llava.synth.scenes import KINDS

SPACE = "▁"


def collect_words(num_scenes: int = 4000, seed: int = 0) -> list[str]:
    """Words of phrasing, most frequent first: those that are frequent in questions and answers and never drawn.

    They are counted in ``num_scenes`` scenes of all kinds and in the templates.
    """
    counts: Counter[str] = Counter()
    drawn: set[str] = set()
    rng = random.Random(seed)
    for i in range(num_scenes):
        scene = list(KINDS.values())[i % len(KINDS)](rng, rng.randint(110, 230), rng.randint(110, 230), False)
        drawn.update(word for text in scene.drawing.texts for word in re.findall("[A-Za-z]+", text))
        for turn in scene.turns:
            counts.update(re.findall("[A-Za-z]+", f"{turn.question} {turn.answer}"))
        counts.update(re.findall("[A-Za-z]+", scene.caption))
    for template in ("llava_v1", "vicuna_v1"):
        conversation = find_template(template)
        counts.update(dict.fromkeys(re.findall("[A-Za-z]+", f"{conversation.system} USER ASSISTANT"), 10**6))
    for text in (*CAPTION_REQUESTS, *READING_REQUESTS, *OFF_TOPIC, OFF_TOPIC_ANSWER):
        counts.update(dict.fromkeys(re.findall("[A-Za-z]+", text), 100))
    return [word for word, count in counts.most_common() if count >= 20 and len(word) > 1 and word not in drawn]


def build_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A fast tokenizer like Llama's: <unk> 0, <s> 1, </s> 2, bytes, characters, words with and without a space."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), SPACE]
    tokens += [chr(code) for code in range(33, 127)]
    for word in words:
        tokens += [SPACE + word, word]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    model = models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True),
            pre_tokenizers.Split(Regex(r"\n"), behavior="isolated"),
            pre_tokenizers.Punctuation(behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
