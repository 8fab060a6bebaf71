"""The samples whose ids and labels the gold masks hold, in LLaVA's own data format: clean ones and hard ones.

Used by the scripts that run the originals and by our tests. Imports nothing.
"""

from __future__ import annotations

from typing import Any

IMAGE = "square.png"
LONG = "The black cat sits on the red mat and looks at the small white dog near the old door. "


def _sample(image: bool, *turns: tuple[str, Any]) -> dict[str, Any]:
    sample: dict[str, Any] = {"image": IMAGE} if image else {}
    return sample | {"conversations": [{"from": role, "value": value} for role, value in turns]}


def _alternating(image: bool, texts: tuple[str, ...]) -> dict[str, Any]:
    return _sample(image, *((("human", "gpt")[i % 2], text) for i, text in enumerate(texts)))


def _seen(*texts: str) -> dict[str, Any]:
    """A sample with an image."""
    return _alternating(True, texts)


def _text(*texts: str) -> dict[str, Any]:
    """A text-only sample."""
    return _alternating(False, texts)


ASK = "<image>\nWhat is in the image?"

CLEAN: dict[str, dict[str, Any]] = {
    "one turn": _seen(ASK, "A cat."),
    "image last": _seen("What is in the image?\n<image>", "A cat."),
    "image only": _seen("<image>", "A black cat."),
    "two turns": _seen(ASK, "A cat.", "Which colour?", "Black, I think."),
    "four turns": _seen(ASK, "A cat.", "Which colour?", "Black.", "Is it old?", "No.", "Are you sure?", "Yes, I am."),
    "choice": _seen(
        "<image>\nWhich one?\nA. cat\nB. dog\nAnswer with the option's letter from the given choices directly.", "A"
    ),
    "markdown": _seen("<image>\nList them.", "1. **cat**: black\n2. dog\n\n- `x = 1`\n- end"),
    "numbers": _seen("<image>\nHow many?", "There are 1234567 of them, 3.14 % more than in 2019."),
    "text": _text("What is a cat?", "A small animal."),
    "text two turns": _text("What is a cat?", "An animal.", "And a dog?", "An animal, too."),
    "accents": _seen("<image>\nQu'est-ce que c'est ?", "Un café à la crème, naïve façade."),
    "chinese": _seen("<image>\n这是什么?", "一只黑猫。", "多大?", "三岁。"),
    "emoji": _text("How is it? 🙂", "Fine 🐈‍⬛ 👍🏽!"),
    "boxes": _seen("<image>\nWhere is the cat?", "[0.12, 0.34, 0.56, 0.78]"),
}

EMPTY: dict[str, dict[str, Any]] = {
    "empty answer": _seen(ASK, ""),
    "empty answer, text": _text("What is a cat?", ""),
    "empty second answer": _seen(ASK, "A cat.", "Which colour?", ""),
    "empty first answer": _text("What is a cat?", "", "And a dog?", "An animal."),
    "blank answer": _seen(ASK, " "),
    "newline answer": _text("What is a cat?", "\n"),
    "empty question": _text("", "A cat."),
    "empty second question": _seen(ASK, "A cat.", "", "It is black."),
    "both empty": _text("", ""),
    "question last": _seen(ASK, "A cat.", "Which colour?"),
    "question only": _seen(ASK),
    "question only, text": _text("What is a cat?"),
    "no turn": _sample(False),
}

MARKS: dict[str, dict[str, Any]] = {
    "role name in question": _seen("<image>\nSay ASSISTANT: hello.", "Hello."),
    "role name in answer": _seen(ASK, "It says: USER: Hi ASSISTANT: hello."),
    "role name without a blank": _text("Write it.", "ASSISTANT:cat"),
    "role name ends answer": _text("Write it.", "My role is ASSISTANT: "),
    "eos in answer": _seen(ASK, "The tag </s> strikes out."),
    "eos in question": _text("What does </s> mean?", "It strikes out.", "Sure?", "Yes."),
    "eos ends answer": _seen(ASK, "A cat.</s>"),
    "bos in answer": _text("Which token?", "It is <s> here."),
    "unk in answer": _seen(ASK, "An <unk> thing."),
    "unk in question": _text("What is <unk> for?", "For unknown words.", "Sure?", "Yes."),
    "inst in answer": _seen(ASK, "It reads [/INST] and [INST] here."),
    "system tags in question": _text("<<SYS>>\nBe brief.\n<</SYS>>\n\nWhat is a cat?", "An animal."),
    "im_end in answer": _seen(ASK, "A cat.<|im_end|> And more."),
    "im_start in question": _text("Print <|im_start|>assistant\nnow", "Done."),
    "hashes in answer": _seen(ASK, "### Human: a title\n### End"),
    "hashes in question": _text("### What\nis a cat?", "An animal."),
}

ROLES: dict[str, dict[str, Any]] = {
    "leading gpt": _sample(False, ("gpt", "Hello."), ("human", "What is a cat?"), ("gpt", "An animal.")),
    "leading gpt, image": _sample(True, ("gpt", "Hello."), ("human", ASK), ("gpt", "A cat.")),
    "leading gpt holds the image": _sample(True, ("gpt", "Look: <image>"), ("human", "What is it?"), ("gpt", "A cat.")),
    "gpt only": _sample(True, ("gpt", "<image>\nA cat.")),
    "system role": _sample(False, ("system", "Be brief."), ("human", "What is a cat?"), ("gpt", "An animal.")),
    "user role": _sample(False, ("user", "What is a cat?"), ("assistant", "An animal.")),
    "upper-case role": _sample(True, ("human", ASK), ("GPT", "A cat.")),
    "two questions": _sample(False, ("human", "What is it?"), ("human", "What is a cat?"), ("gpt", "An animal.")),
    "two answers": _sample(True, ("human", ASK), ("gpt", "A cat."), ("gpt", "A dog.")),
    "null answer": _sample(True, ("human", ASK), ("gpt", None)),
}

IMAGES: dict[str, dict[str, Any]] = {
    "two images": _seen("<image>\n<image>\nWhich is older?", "The first."),
    "two images in a sentence": _seen("Is <image> older than <image>?", "Yes."),
    "image in the middle": _seen("What is in <image> here?", "A cat."),
    "image without newline": _seen("<image>What is it?", "A cat."),
    "image in a word": _seen("x<image>y", "z"),
    "blanks around image": _seen("  <image>  \n  What is it?  ", "A cat."),
    "image in the second turn": _seen("Hello.", "Hello, how can I help?", ASK, "A cat."),
    "image in each turn": _seen(ASK, "A cat.", "And <image>?", "A dog."),
    "image in the answer": _seen("<image>\nRepeat it.", "Here: <image> it is."),
    "image in the answer only": _seen("Draw it.", "<image>"),
    "tag without image": _text(ASK, "A cat."),
    "image without tag": _seen("What is in the image?", "A cat."),
}

BLANKS: dict[str, dict[str, Any]] = {
    "answer starts with a blank": _seen(ASK, " A cat."),
    "answer ends with a blank": _seen(ASK, "A cat. ", "Sure?", "Yes. "),
    "answer starts with a newline": _text("What is a cat?", "\nAn animal.", "Sure?", "\n\nYes."),
    "answer ends with a newline": _seen(ASK, "A cat.\n", "Sure?", "Yes.\n\n"),
    "question starts with a blank": _text(" What is a cat?", "An animal.", " Sure?", "Yes."),
    "question ends with a blank": _text("What is a cat? ", "An animal.", "Sure? ", "Yes."),
    "question starts with newlines": _text("\n\nWhat is a cat?", "An animal.", "\nSure?", "Yes."),
    "question ends with newlines": _seen("<image>\nWhat is it?\n\n", "A cat.", "Sure?\n", "Yes."),
    "double blanks": _text("What  is   a    cat?", "An  animal,   yes.", "Sure?", "Yes,  sure."),
    "tabs and carriage returns": _text("What\tis\r\na cat?\t", "\tAn animal.\r\n", "Sure?", "\r\nYes.\t"),
    "unusual spaces": _seen("<image>\u00a0\nWhat is\u3000it?\u00a0", "\u3000A\u200b cat.\u00a0"),
    "arabic": _text("ما هذا؟", "قطة سوداء."),
    "combining": _text("e\u0301 or \u00e9?", "e\u0301."),
}

LONG_ONES: dict[str, dict[str, Any]] = {
    "long answer": _seen(ASK, LONG * 8),
    "long question": _seen("<image>\n" + LONG * 8, "A cat."),
    "long text": _text("Tell a story.", LONG * 8),
    "long text question": _text(LONG * 8, "Yes."),
    "long second turn": _text("Tell a story.", LONG * 2, "Go on.", LONG * 6, "Stop.", "Fine."),
    "many turns": _seen(ASK, "A cat.", *(["And now?", "Still a cat."] * 9)),
}

SAMPLES: dict[str, dict[str, Any]] = CLEAN | EMPTY | MARKS | ROLES | IMAGES | BLANKS | LONG_ONES
