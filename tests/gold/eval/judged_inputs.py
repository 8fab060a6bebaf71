"""Small files for the judging scripts, hard replies of judges, and what a judge says about each of the files' rows."""

from __future__ import annotations

import json
from typing import Any


def lines(rows: list[dict[str, Any]]) -> str:
    """A file of JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


REVIEWS = [
    *("8 7", "8 7\nGood.", "8,7", "8, 7", "8 ,7", "8 , 7", "8  7", " 8 7", "8 7 ", "8\t7", "8 7\r\nGood.", "8\n7"),
    *("", "\n8 7", " ", "Scores: 8 7", "8 7 6", "8", "8.5 7.5", "8.5, 7.5", "8. 7.", ".5 7", "10 10", "1 1", "0 5"),
    *(
        "11 3",
        "-1 -1",
        "-1 3",
        "nan 3",
        "3 nan",
        "NaN NaN",
        "inf 3",
        "1e1 7",
        "1e400 2",
        "8_0 7",
        "8/10 7/10",
        "8 7/10",
    ),
    *("Assistant 1: 8\nAssistant 2: 7", "**8 7**", "8 and 7", "(8, 7)", "(8 7)", "[8,7]", "8-7", "8 vs 7", "8;7"),
    *(
        "eight seven",
        "八 七",
        "８ ７",
        "٨ ٧",
        "8\u00a07",
        "8 7\u200b",
        "\ufeff8 7",
        "8,,7",
        "8,7,",
        ",8 7",
        "8 -7",
        "+8 7",
    ),
    *(
        "0x8 7",
        "8 7.",
        "8.0.1 7",
        "8 7\nNaN",
        "8 7\x0b9",
        "8 7\u2028x",
        "100 90",
        "85 90\nPercent.",
        "8 None",
        "True 7",
    ),
    *(
        "00008 7",
        "8 7e0",
        "I'm sorry, I cannot assist with that.",
        "\t8 7",
        "8 7\t",
        "8,\t7",
        "8 7\n\n9 9",
        "10.0 9.999",
    ),
]
GRADES = [
    *("0.8", "1.0", "0.0", "1", "0", "0.5 ", " 0.5", "0.5\n", "\n0.5", "0.5\n1", "0.5 1.0", ".5", "1.", "0.55", "5e-1"),
    *(
        "1.1",
        "-0.1",
        "-0",
        "-0.0",
        "2",
        "10",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "",
        " ",
        "\n",
        "0,8",
        "0.8.",
        "0.8/1",
        "0.8|",
    ),
    *(
        "| 0.8",
        "**0.8**",
        "Correctness: 0.8",
        "The score",
        "zero",
        "八",
        "０.５",
        "٠.٥",
        "0_1",
        "1_0",
        "0.5\t",
        "\t0.5",
    ),
    *("0.5\u00a01", "\u00a00.5", "0.5\u200b", "+0.5", "0x1", "1e0", "1e-400", "1e400", "0.5\r", "0.30000000000000004"),
    *("1.0000000000000001", "1.000001", "True", "None", "I cannot", "0. 5", "0 .5", "00.5", "0.5,", "(0.5)", '"0.5"'),
    *("0.5%", "50%", "1/2", "0.9999", "0.1\x0b", "--1"),
]

_IMAGES = ["001.jpg", "002.jpg"]
_TEXTS = ["What is this?", "Décris l'image.", "图中是什么?\nExplain.", 'Is it "red"?', "<b>How many?</b>", "Why?"]
_KINDS = ["conv", "detail", "complex", "conv", "detail", "complex"]
REPLIES = {
    "What is this?": "7 9\nAssistant 1 is brief.",
    "Décris l'image.": "8.5 6\nBien “dit”.",
    "图中是什么?": "9, 8\nA comma.",
    "red": "Both are good.\n8 8",
    "How many": "8,7\nNo blank.",
    "Why?": "eight seven",
}
QUESTIONS = lines(
    [{"question_id": i, "image": _IMAGES[i % 2], "text": text, "category": _KINDS[i]} for i, text in enumerate(_TEXTS)]
)
TEXT_QUESTIONS = lines(
    [
        {"question_id": i + 1, "text": text, "category": ["generic", "math", "coding"][i % 3]}
        for i, text in enumerate(_TEXTS)
    ]
)


def _answers(model: str, first_id: int, with_ids: bool = True) -> str:
    rows = []
    for i in range(len(_TEXTS)):
        ids = {"answer_id": f"{model}-{i}"} if with_ids else {}
        rows.append(
            {"question_id": i + first_id, "text": f"Answer {i} of {model}: “ja”\n[End]", **ids, "model_id": model}
        )
    return lines(rows)


CONTEXT = lines([{"image": "001.jpg", "caption": "A dog, é."}, {"image": "002.jpg", "caption": ["One.", "Two\n2."]}])
BOXES = lines(
    [
        {
            "image": name,
            "captions": ["A dog.", "Ein Hund."],
            "instances": [{"category": "dog", "bbox": [0.1, 0.25, 1.0, 1e-07]}, {"category": "cat", "bbox": [0, 1]}],
        }
        for name in _IMAGES
    ]
)
_PAIR = ["--answer-list", "first.jsonl", "second.jsonl", "--rule", "rule.json", "--output", "reviews.jsonl"]
_FILES = {"questions.jsonl": QUESTIONS, "second.jsonl": _answers("m", 0)}
SCRIPTS: dict[str, dict[str, Any]] = {
    "eval_gpt_review_bench": {
        "files": {**_FILES, "first.jsonl": _answers("gpt4", 0, with_ids=False), "context.jsonl": CONTEXT},
        "argv": ["--question", "questions.jsonl", "--context", "context.jsonl", *_PAIR],
        "output": "reviews.jsonl",
    },
    "eval_gpt_review_visual": {
        "files": {**_FILES, "first.jsonl": _answers("gpt4", 0), "boxes.jsonl": BOXES},
        "argv": ["-q", "questions.jsonl", "-c", "boxes.jsonl", *_PAIR, "--max-tokens", "77"],
        "output": "reviews.jsonl",
    },
    "eval_gpt_review": {
        "files": {"questions.jsonl": TEXT_QUESTIONS, "first.jsonl": _answers("a", 1), "second.jsonl": _answers("b", 1)},
        "argv": ["-q", "questions.jsonl", *_PAIR],
        "output": "reviews.jsonl",
    },
    "qa_baseline_gpt35": {
        "files": {"questions.jsonl": TEXT_QUESTIONS},
        "argv": ["-q", "questions.jsonl", "-o", "answers.jsonl"],
        "output": "answers.jsonl",
    },
    "generate_webpage_data_from_table": {
        "files": {
            "table/question.jsonl": lines(
                [{"question_id": i, "text": f"Q{i} é", "category": "c"} for i in [80, *range(1, 80)]]
            ),
            "table/answer/answer_vicuna-13b.jsonl": lines(
                [{"question_id": i, "text": f"v{i}"} for i in range(80, 0, -1)]
            ),
            "table/results/llama-13b-hf-alpaca.jsonl": lines(
                [{"question_id": i, "text": f"o{i}"} for i in range(1, 81)]
            ),
            "table/review/review_vicuna-13b_llama-13b-hf-alpaca.jsonl": lines(
                [
                    {
                        "question_id": i,
                        "content": [f"8 {i % 10}\nAssistant 1 wins. ", "8, 7 x\nb", " Assistant 2\n\n8 7", ""][i % 4],
                        "tuple": [8.0, i % 10],
                    }
                    for i in range(1, 81)
                ]
            ),
            "webpage/.keep": "",
        },
        "argv": [],
        "output": "webpage/data.json",
    },
}


def _reviews(pairs: list[list[float]], key: str = "tuple", categories: bool = True) -> str:
    kinds = [{"category": f"llava_bench_{kind}"} if categories else {} for kind in _KINDS]
    return lines([{"id": i + 1, "question_id": i, **kinds[i % 6], key: pair} for i, pair in enumerate(pairs)])


_GOOD = [[7, 9], [8.5, 6], [9, 8], [8, 7.5], [9, 3], [8, 8.5], [10, 10], [1, 3.3], [9.5, 1.1], [7, 7], [6.7, 5.3]]
SUMMARIES: list[dict[str, Any]] = [
    {"files": {"r.jsonl": _reviews(_GOOD)}, "argv": ["-f", "r.jsonl"]},
    {"files": {"r.jsonl": _reviews(_GOOD[:1])}, "argv": ["-f", "r.jsonl"]},
    {"files": {"r.jsonl": _reviews(_GOOD, "score", categories=False)}, "argv": ["--files", "r.jsonl"]},
    {"files": {"r.jsonl": _reviews(_GOOD)}, "argv": ["-f", "r.jsonl", "-i", "0", "4"]},
    {"files": {"reviews/b.jsonl": _reviews(_GOOD[:7]), "reviews/a.jsonl": _reviews(_GOOD)}, "argv": ["-d", "reviews"]},
    {
        "files": {
            "d/gpt4_text_x_0613.jsonl": _reviews(_GOOD[:5]),
            "d/reviews_y.jsonl": _reviews(_GOOD[2:]),
            "d/review_0613_z.jsonl": _reviews(_GOOD[3:]),
            "d/other.jsonl": "{}",
            "d/reviews_y.jsonl.replies": "x",
        },
        "argv": ["-d", "d"],
    },
]
for _more in (["-v", "0613"], ["-v", "0314"], ["-s", "0613", "z"], ["-s", "nothing"], ["-s"]):
    SUMMARIES.append({"files": SUMMARIES[5]["files"], "argv": ["-d", "d", *_more]})

CAPABILITIES = [["rec"], ["rec", "know"], ["ocr", "math"], ["rec"], ["spat", "ocr", "math"], ["know", "rec"], ["gen"]]
MM_VET = {
    f"v1_{i}": {"question": f"Q{i}?", "answer": ["a<AND>b", "a<OR>b", "3"][i % 3], "capability": CAPABILITIES[i]}
    for i in range(len(CAPABILITIES))
}
RUNS = [
    ["0.1", "0.2", "0.3", "1.0", "0.7", "0.9", "0.6"],
    ["0.3", "0.2", "0.1", "1.0", "0.0", "0.4", "0.6"],
    ["0.7", "0.7", "0.7", "0.1", "0.3", "0.8", "0.2"],
]
