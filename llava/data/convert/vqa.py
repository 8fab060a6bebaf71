"""Questions about photographs and about text in them: VQAv2, OK-VQA, A-OKVQA, GQA, TextVQA, ST-VQA and OCR-VQA.

All questions about an image are one conversation, in the order of the dataset's file, as in LLaVA-1.5's data. No torch.

Source: of the schemas, GT-Vision-Lab/VQA@a013f00 and okvqa.allenai.org (questions and annotations files),
allenai/aokvqa@0438d33 README.md, cs.stanford.edu/people/dorarad/gqa/download.html, textvqa.org,
rrc.cvc.uab.es/?ch=11 (ST-VQA task 3), open-mmlab/mmpretrain@057ed6e mmpretrain/datasets/ocr_vqa.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llava.data.convert.converter import Options, Row, Source, make_row
from llava.data.convert.json_input import iterate_json, take, take_list
from llava.data.convert.merged_turns import ask_all, capitalize, choose_majority, group
from llava.data.prompts import ANSWER_FORMATS, join_lines, write_ocr_tokens, write_options

# Answers of TextVQA's annotators that say something about the question.
_NO_READING = "answering does not require reading text in the image"
_OCR_VQA_SPLITS = {"train": 1, "val": 2, "test": 3}


def convert_vqav2(source: Source, options: Options) -> Iterator[Row]:
    """A conversation per image; the answer is the dataset's own majority of ten, with a capital letter."""
    return _convert_vqa("vqav2", source, options)


def convert_okvqa(source: Source, options: Options) -> Iterator[Row]:
    """A conversation per image; the answer is the most frequent of ten.

    Formats: "scored", the stemmed answers by which the benchmark scores; "raw", the words as people wrote them.
    """
    return _convert_vqa("okvqa", source, options)


def _convert_vqa(name: str, source: Source, options: Options) -> Iterator[Row]:
    answers = _read_vqa_answers(source.file(1), "raw_answer" if options.format == "raw" else "answer", options)
    asked: set[int] = set()

    def pair() -> Iterator[tuple[int, tuple[str, str]]]:
        for i, entry in iterate_json(source.file(0), "questions"):
            where = f"Question {i} of '{source.file(0)}'"
            number = take(entry, "question_id", int, where)
            question = take(entry, "question", str, where).strip()
            answer = answers.get(number)
            if number in asked:
                options.leave_out("is a second question of the same number", f"question {number}")
            elif answer is None:
                lack = "has no answer" if number in answers else "has no annotation"
                options.leave_out(lack, f"question {number}")
            else:
                yield take(entry, "image_id", int, where), (question, capitalize(answer))
            asked.add(number)

    for image, turns in group(pair()).items():
        yield make_row(f"{name}-{image:012}", name_coco(image, options.split), _ask(turns, name, options), name)
    for number in sorted(answers.keys() - asked):
        options.leave_out("is an annotation without a question", f"question {number}")


def _read_vqa_answers(path: Path, key: str, options: Options) -> dict[int, str | None]:
    """The answer to each question: the majority that VQAv2 states, or else that of the people's."""
    answers: dict[int, str | None] = {}
    for i, entry in iterate_json(path, "annotations"):
        where = f"Annotation {i} of '{path}'"
        number = take(entry, "question_id", int, where)
        if number in answers:
            options.leave_out("is a second annotation of a question", f"question {number}")
            continue
        given = entry.get("multiple_choice_answer")
        people = [take(answer, key, str, where) for answer in take(entry, "answers", list, where)]
        answers[number] = choose_majority([given] if isinstance(given, str) else people)
    return answers


def name_coco(image: int, split: str) -> str:
    """The name of a COCO image in LLaVA's folders, by the 2014 split it is in.

    All images of train2014 are in train2017, where LLaVA's mixtures have them; those of val2014 are in both of 2017.
    """
    return (
        f"coco/train2017/{image:012}.jpg" if split == "train" else f"coco/{split}2014/COCO_{split}2014_{image:012}.jpg"
    )


def convert_aokvqa(source: Source, options: Options) -> Iterator[Row]:
    """Multiple choice. Formats: "rotations", as many rows per image as there are options; "once".

    In the row with number k the options are rotated to the left by k, so that each letter is right once.

    Source: LLaVA-1.5 (arXiv:2310.03744v2) A.2, "each QA pair is augmented k times"; 66,160 = 4 x 16,540 images;
    a row of llava_v1_5_mix665k.json has ['skateboarder', 'train', 'delivery', 'cab'] as train, delivery, cab,
    skateboarder.
    """
    path = source.file()

    def pair() -> Iterator[tuple[int, tuple[str, list[str], int]]]:
        for i, entry in iterate_json(path):
            where = f"Question {i} of '{path}'"
            choices = take_list(entry, "choices", str, where)
            right = entry.get("correct_choice_idx")
            if not isinstance(right, int) or not 0 <= right < len(choices):
                options.leave_out("has no right option", f"question {entry.get('question_id', i)}")
                continue
            yield take(entry, "image_id", int, where), (take(entry, "question", str, where).strip(), choices, right)

    for image, questions in group(pair()).items():
        num = 1 if options.format == "once" else max(len(choices) for _, choices, _ in questions)
        name = f"coco/{options.split}2017/{image:012}.jpg"
        for k in range(num):
            turns = [_rotate(question, choices, right, k) for question, choices, right in questions]
            id = f"aokvqa-{image:012}" if options.format == "once" else f"aokvqa-{image:012}-{k}"
            yield make_row(id, name, _ask(turns, "aokvqa", options), "aokvqa")


def _rotate(question: str, choices: Sequence[str], right: int, k: int) -> tuple[str, str]:
    """The question with its options rotated to the left by ``k``, and the letter of the right one."""
    k %= len(choices)
    rotated = [choice.strip() for choice in (*choices[k:], *choices[:k])]
    return join_lines(question, write_options(rotated)), chr(ord("A") + (right - k) % len(choices))


def convert_gqa(source: Source, options: Options) -> Iterator[Row]:
    """A conversation per image. Formats: "short", one word or phrase; "full", the full sentence, asked for by none."""
    key = "fullAnswer" if options.format == "full" else "answer"
    sentence = "" if options.format == "full" else ANSWER_FORMATS["gqa"]

    def pair() -> Iterator[tuple[str, tuple[str, str]]]:
        for number, entry in iterate_json(source.file()):
            where = f"Question {number} of '{source.file()}'"
            answer = entry.get(key) if isinstance(entry, dict) else None
            if not isinstance(answer, str) or not answer.strip():
                options.leave_out("has no answer", f"question {number}")
                continue
            turn = take(entry, "question", str, where).strip(), capitalize(answer.strip())
            yield str(take(entry, "imageId", (str, int), where)), turn

    for image, turns in group(pair()).items():
        yield make_row(f"gqa-{image}", f"gqa/images/{image}.jpg", ask_all(turns, sentence, options), "gqa")


def convert_textvqa(source: Source, options: Options) -> Iterator[Row]:
    """A conversation per image; the answer is the most frequent of ten, as it is written.

    Formats: "plain"; "ocr", with the words that Rosetta read after the first question.
    """
    path = source.file()
    tokens = dict(read_ocr_tokens(source.file(1))) if options.format == "ocr" else None

    def pair() -> Iterator[tuple[str, tuple[str, str]]]:
        for i, entry in iterate_json(path, "data"):
            where = f"Question {i} of '{path}'"
            number = take(entry, "question_id", (int, str), where)
            answers = take_list(entry, "answers", str, where) if "answers" in entry else []
            answer = choose_majority(answers)
            if answer is None:
                options.leave_out("has no answer", f"question {number}")
            elif answer.casefold() == _NO_READING:
                options.leave_out("needs no reading, say its annotators", f"question {number}")
            else:
                yield take(entry, "image_id", str, where), (take(entry, "question", str, where).strip(), answer)

    for image, turns in group(pair()).items():
        if tokens is not None:
            if image not in tokens:
                options.leave_out("is about an image that the OCR file lacks", f"image {image}")
                continue
            turns[0] = (join_lines(turns[0][0], write_ocr_tokens(tokens[image])), turns[0][1])
        name = f"textvqa/{'test' if options.split == 'test' else 'train'}_images/{image}.jpg"
        yield make_row(f"textvqa-{image}", name, _ask(turns, "textvqa", options), "textvqa")


def read_ocr_tokens(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(image, words) of a file TextVQA_Rosetta_OCR_v0.2_*.json, which TextVQA and TextCaps share."""
    for i, entry in iterate_json(path, "data"):
        where = f"Image {i} of '{path}'"
        yield take(entry, "image_id", str, where), take_list(entry, "ocr_tokens", str, where)


def convert_st_vqa(source: Source, options: Options) -> Iterator[Row]:
    """A conversation per image; the answer is the most frequent, as it is written."""
    path = source.file()

    def pair() -> Iterator[tuple[str, tuple[str, str]]]:
        for i, entry in iterate_json(path, "data"):
            where = f"Question {i} of '{path}'"
            answer = choose_majority(take_list(entry, "answers", str, where))
            if answer is None:
                options.leave_out("has no answer", f"question {entry.get('question_id', i)}")
                continue
            yield take(entry, "file_path", str, where), (take(entry, "question", str, where).strip(), answer)

    for image, turns in group(pair()).items():
        yield make_row(f"st_vqa-{image}", f"st_vqa/{image}", _ask(turns, "st_vqa", options), "st_vqa")


def convert_ocr_vqa(source: Source, options: Options) -> Iterator[Row]:
    """A conversation per book cover; answers as they are written. LLaVA's folder has all covers as .jpg."""
    path = source.file()
    for book, entry in iterate_json(path):
        where = f"Book {book} of '{path}'"
        if take(entry, "split", int, where) != _OCR_VQA_SPLITS[options.split]:
            continue
        questions, answers = (take_list(entry, key, str, where) for key in ("questions", "answers"))
        if len(questions) != len(answers):
            options.leave_out("has more questions than answers, or fewer", f"book {book}")
            continue
        turns = list(_keep_answered(zip(questions, answers, strict=True), f"book {book}", options))
        if turns:
            yield make_row(f"ocr_vqa-{book}", f"ocr_vqa/images/{book}.jpg", _ask(turns, "ocr_vqa", options), "ocr_vqa")


def _keep_answered(pairs: Iterable[tuple[str, str]], where: str, options: Options) -> Iterator[tuple[str, str]]:
    for question, answer in pairs:
        if question.strip() and answer.strip():
            yield question.strip(), answer.strip()
        else:
            options.leave_out("has no answer", f"'{question.strip()}' about {where}")


def _ask(turns: Sequence[tuple[str, str]], name: str, options: Options) -> list[tuple[str, str]]:
    return ask_all(turns, ANSWER_FORMATS[name], options)
