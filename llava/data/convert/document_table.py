"""Rows of the table of converters: documents, charts, diagrams, science, and conversations.

Licences are what the authors state; where they state none, the row says so. Counts are the authors' or a mixture's.
"""

from __future__ import annotations

from llava.data.convert import (
    ai2d,
    chart_sets,
    conversation_sets,
    document_sets,
    laion_gpt4v,
    scienceqa,
    sharegpt,
)
from llava.data.convert.converter import Converter

_IN_NEXT = "conversations in lmms-lab/LLaVA-NeXT-Data"
_RRC = "https://rrc.cvc.uab.es/?ch=17&com=downloads"
_NOT_STATED = "not stated"

DOCUMENT_ROWS = (
    Converter(
        name="docvqa",
        title="DocVQA (single page)",
        convert=document_sets.convert_docvqa,
        files={
            "train": (
                "spdocvqa_qas/train_v1.0_withQT.json | spdocvqa_qas/train_v1.0.json"
                " | train/train_v1.0_withQT.json | train/train_v1.0.json",
            ),
            "val": (
                "spdocvqa_qas/val_v1.0_withQT.json | spdocvqa_qas/val_v1.0.json"
                " | val/val_v1.0_withQT.json | val/val_v1.0.json",
            ),
        },
        licence=f"{_NOT_STATED}; documents: UCSF Industry Documents Library's terms",
        url=_RRC,
        images="docvqa/images",
        num_published=10_194,
        counted=f"{_IN_NEXT}, of about 39,000 questions",
        facts="RRC task 1; 12,767 pages and 50,000 questions in all splits (arXiv:2007.00398)",
    ),
    Converter(
        name="infovqa",
        title="InfographicVQA",
        convert=document_sets.convert_infovqa,
        files={
            "train": (
                "infographicsvqa_qas/infographicsVQA_train_v1.0.json"
                " | infographicsvqa_qas/infographicVQA_train_v1.0.json",
            ),
            "val": (
                "infographicsvqa_qas/infographicsVQA_val_v1.0_withQT.json"
                " | infographicsvqa_qas/infographicsVQA_val_v1.0.json"
                " | infographicsvqa_qas/infographicVQA_val_v1.0.json",
            ),
        },
        licence=f"{_NOT_STATED}; images: their publishers'",
        url=_RRC,
        images="infovqa/images",
        num_published=4_406,
        counted="images (train), of 23,946 questions",
        facts="RRC task 3; counts: google-research/big_vision@11eea57 datasets/infovqa",
    ),
    Converter(
        name="synthdog-en",
        title="SynDog-EN",
        convert=document_sets.convert_synthdog,
        files={
            "train": ("data/train-*.parquet | train/metadata.jsonl",),
            "validation": ("data/validation-*.parquet | validation/metadata.jsonl",),
        },
        licence=f"{_NOT_STATED} (Donut's code: MIT); text: Wikipedia, CC BY-SA",
        url="https://huggingface.co/datasets/naver-clova-ix/synthdog-en",
        images="synthdog-en/images",
        num_published=40_093,
        counted=f"{_IN_NEXT}; the dataset has about 65,500 (train)",
        facts="clovaai/donut README; dataset card; prompt: LLaVA-NeXT-Data",
    ),
    Converter(
        name="chartqa",
        title="ChartQA",
        convert=chart_sets.convert_chartqa,
        files={
            split: (f"{split}/{split}_human.json", f"{split}/{split}_augmented.json", f"{split}/tables/")
            for split in ("train", "val", "test")
        },
        licence="GPL-3.0; images: their publishers'",
        url="https://github.com/vis-nlp/ChartQA",
        images="chartqa/train/png",
        num_published=18_317,
        counted=f"{_IN_NEXT}, of 28,299 questions",
        formats=chart_sets.CHARTQA_FORMATS,
        optional=(0, 1, 2),
        facts="vis-nlp/ChartQA@3dab8e8; 7,398 human and 20,901 augmented questions (train)",
    ),
    Converter(
        name="dvqa",
        title="DVQA",
        convert=chart_sets.convert_dvqa,
        files={
            split: (f"qa/{split}_qa.json", f"metadata/{split}_metadata.json")
            for split in ("train", "val_easy", "val_hard")
        },
        licence=_NOT_STATED,
        url="https://github.com/kushalkafle/DVQA_dataset",
        images="dvqa/images",
        num_published=20_000,
        counted=f"{_IN_NEXT}; the dataset has 200,000 charts with 2,325,316 questions (train)",
        formats=chart_sets.DVQA_FORMATS,
        optional=(0, 1),
        facts="kushalkafle/DVQA_dataset@53cff67 README; arXiv:1801.08163",
    ),
    Converter(
        name="ai2d",
        title="AI2D",
        convert=ai2d.convert_ai2d,
        files=dict.fromkeys(("train", "test"), ("questions/", "ai2d_test_ids.csv", "annotations/", "images/")),
        licence="AI2's own: research only, no redistribution; images: their publishers'",
        url="https://ai2-website.s3.amazonaws.com/data/ai2d-all.zip and "
        "https://s3-us-east-2.amazonaws.com/prior-datasets/ai2d_test_ids.csv",
        images="ai2d",
        num_published=3_247,
        counted=f"{_IN_NEXT}, of 12,413 questions; 3,088 are in test",
        formats=ai2d.FORMATS,
        optional=(2, 3),
        facts="google-research/big_vision@11eea57 datasets/ai2d, allenai/molmo; counts: InternVL 1.2, lmms-lab/ai2d",
    ),
    Converter(
        name="scienceqa",
        title="ScienceQA",
        convert=scienceqa.convert_scienceqa,
        files=dict.fromkeys(scienceqa.SPLITS, ("problems.json", "pid_splits.json")),
        licence="CC BY-SA 4.0 (MIT for the code)",
        url="https://github.com/lupantech/ScienceQA",
        images="",
        num_published=12_726,
        counted="problems (train); 4,241 in val, 4,241 in test",
        formats=scienceqa.FORMATS,
        facts="haotian-liu/LLaVA@82bc69e scripts/convert_sqa_to_llava.py; images: N/image.png below images/SPLIT",
    ),
    Converter(
        name="sharegpt4v",
        title="ShareGPT4V",
        convert=conversation_sets.convert_sharegpt4v,
        files={
            "train": ("sharegpt4v_instruct_gpt4-vision_cap100k.json",),
            "mix665k": ("sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json",),
            "pretrain": ("share-captioner_coco_lcs_sam_1246k_1107.json",),
        },
        licence="CC BY-NC 4.0; OpenAI's terms",
        url="https://huggingface.co/datasets/Lin-Chen/ShareGPT4V",
        images="coco, sam, llava, web-celebrity, ...",
        num_published=102_025,
        counted="rows (train); 665,058 in mix665k (InternVL 1.2's counts)",
        facts="its dataset card; OpenGVLab/InternVL internvl_1_2_finetune.json",
    ),
    Converter(
        name="laion-gpt4v",
        title="LAION-GPT-V",
        convert=laion_gpt4v.convert_laion_gpt4v,
        files={"train": ("data/train-*.parquet",)},
        licence="CC0 1.0; OpenAI's terms; images: their publishers'",
        url="https://huggingface.co/datasets/laion/gpt4v-dataset",
        images="laion-gpt4v",
        num_published=12_356,
        counted="rows; LLaVA-NeXT-Data has 8,048",
        formats=laion_gpt4v.FORMATS,
        facts="its dataset card at 99a9caf; rom1504/img2dataset README",
    ),
    Converter(
        name="sharegpt",
        title="ShareGPT",
        convert=sharegpt.convert_sharegpt,
        files={
            "train": (
                "HTML_cleaned_raw_dataset/sg_90k_part1.json | ShareGPT_V3_unfiltered_cleaned_split.json",
                "HTML_cleaned_raw_dataset/sg_90k_part2.json",
                "tokenizer.json",
            )
        },
        licence="Apache-2.0 as uploaded (CC0 1.0 for ShareGPT52K); OpenAI's terms",
        url="https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered",
        images="",
        num_published=40_688,
        counted="conversations in llava_v1_5_mix665k (haotian-liu/LLaVA issue 702); their selection was not published",
        formats=sharegpt.FORMATS,
        optional=(1, 2),
        facts="lm-sys/FastChat@f8d3230 fastchat/data",
    ),
    Converter(
        name="allava",
        title="ALLaVA-4V",
        convert=conversation_sets.convert_allava,
        files={
            "train": ("allava_vflan/ALLaVA-Instruct-VFLAN-4V.json",),
            "vflan-caption": ("allava_vflan/ALLaVA-Caption-VFLAN-4V.json",),
            "laion": ("allava_laion/ALLaVA-Instruct-LAION-4V.json",),
            "laion-caption": ("allava_laion/ALLaVA-Caption-LAION-4V.json",),
            "text": ("allava_text/Evol-Instruct-GPT4-Turbo-143K.json",),
        },
        licence="Apache-2.0; OpenAI's terms; images: their publishers'",
        url="https://huggingface.co/datasets/FreedomIntelligence/ALLaVA-4V",
        images="allava_vflan/images, allava_laion/images",
        num_published=203_065,
        counted="rows (train, VFLAN); 202,552 VFLAN captions, 505,588 each of LAION, 143,000 of text",
        facts="FreedomIntelligence/ALLaVA README",
    ),
    Converter(
        name="llavar",
        title="LLaVAR",
        convert=conversation_sets.convert_llavar,
        files={
            "finetune": ("llava_instruct_150k_llavar_20k.json | llava_instruct_150k_llavar_16k.json",),
            "pretrain": ("chat_llavar.json",),
        },
        licence="CC BY-NC 4.0; OpenAI's terms; images: LAION's",
        url="https://huggingface.co/datasets/SALT-NLP/LLaVAR",
        images="coco/train2017, llavar/pretrain",
        num_published=20_000,
        counted="conversations about (16,000 in the other file), after LLaVA's own 158,000 (finetune); 422,000 after "
        "595,000 (pretrain)",
        facts="SALT-NLP/LLaVAR@03b2b17 README",
    ),
    Converter(
        name="llava-next",
        title="LLaVA-NeXT-Data",
        convert=conversation_sets.convert_llava_next,
        files={
            "train": ("data/train-*.parquet",),
            "raw": ("llava_next_raw_format/llava_next_raw_format_processed.json",),
        },
        licence="Apache-2.0 as stated on its card; each part has its own",
        url="https://huggingface.co/datasets/lmms-lab/LLaVA-NeXT-Data",
        images="llava-next (train); coco, gqa, ... (raw)",
        num_published=779_289,
        counted="rows (train), 40,688 of them text only; 738,590 in raw, all with an image",
        facts="its dataset card; without the 15K answers to real users, which were not published",
    ),
    Converter(
        name="open-llava-next",
        title="Open-LLaVA-NeXT mix of 1M",
        convert=conversation_sets.convert_open_llava_next,
        files={"train": ("open-llava-next_instruct_mix1M.json",)},
        licence="CC BY-NC 4.0 in its ShareGPT4V part; each part has its own",
        url="https://huggingface.co/datasets/Lin-Chen/Open-LLaVA-NeXT-mix1M",
        images="coco, gqa, docvqa, ...",
        num_published=None,
        counted="",
        facts="xiaoachen98/Open-LLaVA-NeXT@2391c9c docs/Data.md",
    ),
    Converter(
        name="geoqa-plus",
        title="GeoQA+ (as InternVL published it)",
        convert=conversation_sets.convert_geoqa,
        files={"train": ("geoqa+.jsonl",)},
        licence=_NOT_STATED,
        url="https://huggingface.co/OpenGVLab/InternVL",
        images="geoqa+/images",
        num_published=72_318,
        counted="rows",
        facts="OpenGVLab/InternVL internvl_1_2_finetune.json; the original is a pickle, which is not read",
    ),
)
