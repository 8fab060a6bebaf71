"""The benchmarks that ``llava eval`` knows, a row each, as ``llava eval list`` prints them. No torch.

Paths are those of the original's playground/data/eval. Counts, prompts and scores are those of LLaVA-1.5's and
LLaVA-NeXT's evaluation.

Source: haotian-liu/LLaVA@c121f04 docs/Evaluation.md, docs/MODEL_ZOO.md and scripts/v1_5/eval; the blog post of
LLaVA-NeXT (30 Jan 2024) for LLaVA-1.5-13B on MMMU and MathVista; EvolvingLMMs-Lab/lmms-eval@75571cf for tasks that
LLaVA's own scripts do not have.
"""

from __future__ import annotations

from llava.data.prompts import LETTER, OCR_TOKENS, SHORT_ANSWER, UNANSWERABLE
from llava.eval.question_files import (
    read_lines,
    read_mmbench,
    read_mmbench_cn,
    read_qbench,
    read_qbench_zh,
    read_science,
    read_seed_images,
    read_without_ocr,
)
from llava.eval.task import File, Task
from llava.eval.tasks.diagrams import AI2D_TASK
from llava.eval.tasks.documents import DOCUMENT_TASKS
from llava.eval.tasks.math_vista import MATH_VISTA_TASK
from llava.eval.tasks.mmmu import MMMU_TASKS
from llava.eval.tasks.vqav2_vizwiz import VIZWIZ_VAL_TASK, VQAV2_VAL_TASK

_ZIP = "it is in the authors' eval.zip (docs/Evaluation.md of haotian-liu/LLaVA names the link)"
_SHORT = f'question, then "{SHORT_ANSWER}"'
_LETTER = f'question and options, then "{LETTER}"'
_CROP = "the square in its middle, without padding"
_CHECKPOINTS = {
    "1.5": ("llava-v1.5-7b", "llava-v1.5-13b"),
    "1.5-lora": ("llava-v1.5-7b-lora", "llava-v1.5-13b-lora"),
    "1.6": ("llava-v1.6-vicuna-7b", "llava-v1.6-vicuna-13b", "llava-v1.6-mistral-7b", "llava-v1.6-34b"),
}


def _scores(base: str = "", lora: str = "", later: str = "") -> dict[str, str]:
    """Published scores by checkpoint, from the rows of 1.5, its LoRA checkpoints, and 1.6, each "7B/13B/...".."""
    rows = zip(_CHECKPOINTS.values(), (base, lora, later), strict=True)
    return {name: score for names, row in rows if row for name, score in zip(names, row.split("/"), strict=True)}


_ROWS = (
    Task(
        "vqav2",
        "VQAv2",
        "test-dev2015",
        107394,
        (
            File("vqav2/llava_vqav2_mscoco_test-dev2015.jsonl", _ZIP),
            File("vqav2/llava_vqav2_mscoco_test2015.jsonl", _ZIP),
            File("vqav2/test2015", "COCO's test2015 images, http://images.cocodataset.org/zips/test2015.zip"),
        ),
        "vqav2/test2015",
        read_lines,
        _SHORT,
        128,
        "",
        "JSON list of question_id and answer over all of test2015, to EvalAI",
        _scores("78.5/80.0", "79.1/80.0", "81.8/82.8/82.2/83.7"),
        submit="llava.eval.tasks.vqav2_vizwiz:submit_vqav2",
    ),
    VQAV2_VAL_TASK,
    Task(
        "gqa",
        "GQA",
        "testdev_balanced",
        12578,
        (
            File("gqa/llava_gqa_testdev_balanced.jsonl", _ZIP),
            File(
                "gqa/data/testdev_balanced_questions.json", "https://cs.stanford.edu/people/dorarad/gqa/download.html"
            ),
            File("gqa/data/images", "https://cs.stanford.edu/people/dorarad/gqa/download.html"),
        ),
        "gqa/data/images",
        read_lines,
        _SHORT,
        128,
        "llava.eval.scoring.gqa_accuracy:score_gqa",
        "JSON list of questionId and prediction",
        _scores("62.0/63.3", "63.0/63.3", "64.2/65.4/64.8/67.1"),
        score="llava.eval.tasks.gqa:score_gqa",
    ),
    Task(
        "vizwiz",
        "VizWiz",
        "test",
        8000,
        (File("vizwiz/llava_test.jsonl", _ZIP), File("vizwiz/test", "https://vizwiz.org/tasks-and-datasets/vqa/")),
        "vizwiz/test",
        read_lines,
        f'question, "{UNANSWERABLE}", "{SHORT_ANSWER}"',
        128,
        "",
        "JSON list of image and answer, to EvalAI",
        _scores("50.0/53.6", "47.8/58.9", "57.6/60.5/60.0/63.8"),
        submit="llava.eval.tasks.vqav2_vizwiz:submit_vizwiz",
    ),
    VIZWIZ_VAL_TASK,
    Task(
        "scienceqa",
        "ScienceQA (published: IMG accuracy)",
        "test",
        4241,
        (
            File("scienceqa/llava_test_CQM-A.json", _ZIP),
            File("scienceqa/problems.json", "https://github.com/lupantech/ScienceQA, data/scienceqa"),
            File("scienceqa/pid_splits.json", "https://github.com/lupantech/ScienceQA, data/scienceqa"),
            File("scienceqa/images/test", "https://github.com/lupantech/ScienceQA, tools/download.sh"),
        ),
        "scienceqa/images/test",
        read_science,
        _LETTER,
        1024,
        "llava.eval.scoring.science_qa:score_science_qa",
        "none",
        _scores("66.8/71.6", "68.4/71.2", "70.1/73.6/72.8/81.8"),
        score="llava.eval.tasks.sqa:score_science_qa",
    ),
    *(
        Task(
            name,
            title,
            "val",
            5000,
            (
                File("textvqa/llava_textvqa_val_v051_ocr.jsonl", _ZIP),
                File("textvqa/TextVQA_0.5.1_val.json", "https://textvqa.org/dataset"),
                File("textvqa/train_images", "https://textvqa.org/dataset, the images of train and val"),
            ),
            "textvqa/train_images",
            reader,
            prompt,
            128,
            "llava.eval.scoring.vqa_accuracy:score_m4c",
            "none",
            published,
            source,
            score="llava.eval.tasks.textvqa:score_textvqa",
            ids_repeat=True,
        )
        for name, title, reader, prompt, published, source in (
            (
                "textvqa",
                "TextVQA with OCR tokens, LLaVA's protocol",
                read_lines,
                f'question, "{OCR_TOKENS}...", "{SHORT_ANSWER}"',
                _scores("58.2/61.3", "58.2/60.2", "64.9/67.1/65.7/69.5"),
                "haotian-liu/LLaVA@c121f04 docs/MODEL_ZOO.md",
            ),
            (
                "textvqa_no_ocr",
                "TextVQA without OCR tokens, lmms-eval's protocol",
                read_without_ocr,
                _SHORT,
                {"llava-v1.5-13b": "48.7"},
                "EvolvingLMMs-Lab/lmms-eval issue 6",
            ),
        )
    ),
    Task(
        "pope",
        "POPE (published: mean of the three F1)",
        "random 2910, popular 3000, adversarial 3000",
        8910,
        (
            File("pope/llava_pope_test.jsonl", _ZIP),
            *(
                File(
                    f"pope/coco/coco_pope_{kind}.json",
                    "https://github.com/AoiDragon/POPE at e3e3926, output/coco; later versions have other lines",
                )
                for kind in ("random", "popular", "adversarial")
            ),
            File("pope/val2014", "COCO's val2014 images, http://images.cocodataset.org/zips/val2014.zip"),
        ),
        "pope/val2014",
        read_lines,
        _SHORT,
        128,
        "llava.eval.scoring.yes_no:score_pope",
        "none",
        _scores("85.9/85.9", "86.4/86.7", "86.5/86.2/86.7/87.7"),
        score="llava.eval.tasks.pope:score_pope",
    ),
    Task(
        "mme",
        "MME (published: perception, with NeXT also +cognition)",
        "all 14 categories",
        2374,
        (
            File("MME/llava_mme.jsonl", _ZIP),
            File(
                "MME/MME_Benchmark_release_version",
                "https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models, on request",
            ),
        ),
        "MME/MME_Benchmark_release_version",
        read_lines,
        _SHORT,
        128,
        "llava.eval.scoring.yes_no:score_mme",
        "a folder of texts, a category each, by playground/data/eval/MME/convert_answer_to_mme.py",
        _scores("1510.7/1531.3", "1476.9/1541.7", "1519+332/1575+326/1498+321/1631+397"),
        score="llava.eval.tasks.mme:score_mme",
        ids_repeat=True,
    ),
    Task(
        "mmbench",
        "MMBench (published: circular accuracy)",
        "dev_20230712",
        4377,
        (
            File(
                "mmbench/mmbench_dev_20230712.tsv", "https://download.openmmlab.com/mmclassification/datasets/mmbench/"
            ),
        ),
        "",
        read_mmbench,
        "hint, " + _LETTER,
        1024,
        "llava.eval.scoring.letter_rules:score_letter",
        "xlsx with the column prediction, to opencompass.org",
        _scores("64.3/67.7", "66.1/68.5", "67.4/70/68.7/79.3"),
        score="llava.eval.tasks.mmbench:score_mmbench",
        submit="llava.eval.tasks.mmbench:submit_mmbench",
    ),
    Task(
        "mmbench_cn",
        "MMBench-CN (published: circular accuracy)",
        "dev_cn_20231003",
        4329,
        (
            File(
                "mmbench_cn/mmbench_dev_cn_20231003.tsv",
                "https://download.openmmlab.com/mmclassification/datasets/mmbench/",
            ),
        ),
        "",
        read_mmbench_cn,
        'hint, question and options, then "请直接回答选项字母。"',
        1024,
        "llava.eval.scoring.letter_rules:score_letter",
        "xlsx with the column prediction, to opencompass.org",
        _scores("58.3/63.6", "58.9/61.5", "60.6/64.4/61.2/79"),
        score="llava.eval.tasks.mmbench:score_mmbench_cn",
        submit="llava.eval.tasks.mmbench:submit_mmbench_cn",
    ),
    *(
        Task(
            name,
            title,
            split,
            count,
            (
                File("seed_bench/llava-seed-bench.jsonl", _ZIP),
                File("seed_bench/SEED-Bench.json", "https://huggingface.co/datasets/AILab-CVC/SEED-Bench"),
                File("seed_bench/SEED-Bench-image", "https://huggingface.co/datasets/AILab-CVC/SEED-Bench"),
                *frames,
            ),
            "seed_bench",
            reader,
            _LETTER,
            128,
            "llava.eval.scoring.seed_bench:score_seed",
            "JSON lines of question_id and prediction, by scripts/convert_seed_for_submission.py",
            published,
            source,
            score="llava.eval.tasks.seed:score_seed",
        )
        for name, title, split, count, frames, reader, published, source in (
            (
                "seed",
                "SEED-Bench, images and videos (LLaVA-1.5's number)",
                "all 12 types",
                19242,
                (
                    File(
                        "seed_bench/SEED-Bench-video-image",
                        "one middle frame a video, by eval.zip's extract_video_frames.py",
                    ),
                ),
                read_lines,
                _scores("58.6/61.6", "60.1/61.3"),
                "haotian-liu/LLaVA@c121f04 docs/MODEL_ZOO.md",
            ),
            (
                "seed_image",
                "SEED-Bench, images only (LLaVA-NeXT's number)",
                "types 1 to 9",
                14233,
                (),
                read_seed_images,
                {"llava-v1.5-13b": "68.2"} | _scores(later="70.2/71.9/72.2/75.9"),
                "haotian-liu/LLaVA@c121f04 docs/MODEL_ZOO.md; LLaVA-NeXT's blog post, 30 Jan 2024, for 1.5-13b",
            ),
        )
    ),
    Task(
        "llavabench",
        "LLaVA-Bench-in-the-Wild (judged)",
        "all",
        60,
        tuple(
            File(
                f"llava-bench-in-the-wild/{name}", "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild"
            )
            for name in ("questions.jsonl", "context.jsonl", "answers_gpt4.jsonl", "images")
        ),
        "llava-bench-in-the-wild/images",
        read_lines,
        "question",
        1024,
        "",
        "none",
        _scores("65.4/72.5", "67.9/69.5", "81.6/87.3/83.2/89.6"),
        judge="llava.eval.tasks.llava_bench:judge_llava_bench",
    ),
    Task(
        "mmvet",
        "MM-Vet (judged)",
        "all",
        218,
        (
            File("mm-vet/llava-mm-vet.jsonl", _ZIP),
            File("mm-vet/images", "https://github.com/yuweihao/MM-Vet, mm-vet.zip"),
        ),
        "mm-vet/images",
        read_lines,
        "question",
        1024,
        "",
        "JSON object of v1_ID to answer, to MM-Vet's grader",
        _scores("31.1/36.1", "30.2/38.3", "43.9/48.4/47.3/57.4"),
        judge="llava.eval.tasks.mmvet:judge_mmvet",
        submit="llava.eval.tasks.mmvet:submit_mmvet",
    ),
    *(
        Task(
            name,
            title,
            "dev",
            1495,
            (
                File(f"qbench/{file}", "https://github.com/Q-Future/Q-Bench, LLVisionQA"),
                File("qbench/images_llvisionqa", "https://github.com/Q-Future/Q-Bench, LLVisionQA"),
            ),
            "qbench/images_llvisionqa",
            reader,
            prompt,
            1024,
            "llava.eval.scoring.q_bench_letters:score_lmms",
            "JSON lines with response",
            {},
            "none by the authors",
            _CROP,
            score="llava.eval.tasks.q_bench:score_qbench",
            ids_repeat=True,
            template="llava_v1",  # scripts/v1_5/eval/qbench.sh
        )
        for name, title, file, reader, prompt in (
            (
                "qbench",
                "Q-Bench",
                "llvisionqa_dev.json",
                read_qbench,
                'question, "Choose between one of the options as follows:", options',
            ),
            (
                "qbench_zh",
                "Q-Bench in Chinese",
                "llvisionqa_dev_zh.json",
                read_qbench_zh,
                "question, 在下列选项中选择一个, options",
            ),
        )
    ),
    *MMMU_TASKS,
    MATH_VISTA_TASK,
    AI2D_TASK,
    *DOCUMENT_TASKS,
)

TASKS: dict[str, Task] = {task.name: task for task in _ROWS}
"""Every benchmark by its name. ``synth``, the suite of drawn images, is asked by ``llava eval synth``."""


def write_listing() -> str:
    """The table as text: a paragraph for each benchmark."""
    lines = []
    for task in _ROWS:
        lines.append(f"{task.name}: {task.title}; {task.split}, {task.count} questions")
        if task.read is None:
            lines.append("  questions  cannot be read yet")
        lines += [f"  file       {file.path}: {file.source}" for file in task.files]
        lines.append(f"  prompt     {task.prompt}; at most {task.max_new_tokens} new tokens")
        lines.append(f"  image      {task.image}")
        lines.append(f"  scorer     {task.scorer or 'a server or a judge'}")
        lines.append(f"  submission {task.submission}")
        scores = ", ".join(f"{name} {score}" for name, score in task.published.items())
        lines.append(f"  published  {scores or 'nothing'} ({task.source})")
    lines.append("synth: drawn images that training never sees; see llava eval synth --help")
    return "\n".join(lines)
