"""The datasets that ``llava data convert`` knows: a row each, as ``llava data list`` prints them. No torch."""

from __future__ import annotations

from llava.data.convert import captions, instructions, regions, vqa
from llava.data.convert.converter import Converter
from llava.data.convert.document_table import DOCUMENT_ROWS
from llava.errors import UsageError
from llava.yaml_files import name_nearest

_COCO = "images: COCO, each with its Flickr licence"
_MIX = "rows in llava_v1_5_mix665k"
_REFER = "https://github.com/lichengunc/refer"
_DIRECTIONS = {
    "both": "for each description the box or the description is asked for, by chance, as LLaVA-1.5",
    "find": "always the box is asked for",
    "describe": "always the description is asked for",
}
_UNC, _UMD = ("train", "val", "testA", "testB"), ("train", "val", "test")

_ROWS: tuple[Converter, ...] = (
    # Questions about photographs, captions, regions.
    Converter(
        name="vqav2",
        title="VQAv2",
        convert=vqa.convert_vqav2,
        files={
            split: (f"v2_OpenEnded_mscoco_{split}2014_questions.json", f"v2_mscoco_{split}2014_annotations.json")
            for split in ("train", "val")
        },
        licence=f"CC BY 4.0; {_COCO}",
        url="https://visualqa.org/download.html",
        images="coco/train2017",
        num_published=82_783,
        counted=_MIX,
        facts="GT-Vision-Lab/VQA@a013f00; haotian-liu/LLaVA issue 702",
    ),
    Converter(
        name="okvqa",
        title="OK-VQA",
        convert=vqa.convert_okvqa,
        files={
            split: (f"OpenEnded_mscoco_{split}2014_questions.json", f"mscoco_{split}2014_annotations.json")
            for split in ("train", "val")
        },
        licence=f"CC BY 4.0; {_COCO}",
        url="https://okvqa.allenai.org/download.html",
        images="coco/train2017",
        num_published=8_998,
        counted=_MIX,
        formats={"scored": "the stemmed answers that are scored", "raw": "the answers as people wrote them"},
        facts="the files' own license field; haotian-liu/LLaVA issue 702",
    ),
    Converter(
        name="aokvqa",
        title="A-OKVQA",
        convert=vqa.convert_aokvqa,
        files={split: (f"aokvqa_v1p0_{split}.json",) for split in ("train", "val")},
        licence=f"not stated for the data (code: MIT); {_COCO}",
        url="https://github.com/allenai/aokvqa",
        images="coco/train2017",
        num_published=66_160,
        counted=_MIX,
        formats={
            "rotations": "each letter is right once: as many rows per image as options, as LLaVA-1.5",
            "once": "a row per image, with the options in their order",
        },
        facts="allenai/aokvqa@0438d33 README.md, @d70ceb3 LICENSE; haotian-liu/LLaVA issue 702",
    ),
    Converter(
        name="gqa",
        title="GQA",
        convert=vqa.convert_gqa,
        files={split: (f"questions1.2/{split}_balanced_questions.json",) for split in ("train", "val", "testdev")},
        licence="CC BY 4.0; images: Visual Genome",
        url="https://cs.stanford.edu/people/dorarad/gqa/download.html",
        images="gqa/images",
        num_published=72_140,
        counted=_MIX,
        formats={
            "short": "a word or phrase, as LLaVA-1.5",
            "full": "a full sentence, without an answer-format sentence",
        },
        facts="cs.stanford.edu/people/dorarad/gqa/download.html; haotian-liu/LLaVA issue 702",
    ),
    Converter(
        name="textvqa",
        title="TextVQA",
        convert=vqa.convert_textvqa,
        files={
            split: (f"TextVQA_0.5.1_{split}.json", f"TextVQA_Rosetta_OCR_v0.2_{split}.json")
            for split in ("train", "val")
        },
        licence="CC BY 4.0; images: Open Images, CC BY 2.0",
        url="https://textvqa.org/dataset/",
        images="textvqa/train_images",
        num_published=21_953,
        counted="images in train",
        formats={"plain": "the question alone", "ocr": "with the words that an OCR system read"},
        optional=(1,),
        facts="huggingface.co/datasets/facebook/textvqa@f309767",
    ),
    Converter(
        name="st_vqa",
        title="ST-VQA, task 3",
        convert=vqa.convert_st_vqa,
        files={"train": ("train_task_3.json",)},
        licence="not stated; images: of seven datasets",
        url="https://rrc.cvc.uab.es/?ch=11&com=downloads",
        images="st_vqa",
        num_published=31_791,
        counted="questions in all splits",
        facts="arXiv:1907.00490",
    ),
    Converter(
        name="ocr_vqa",
        title="OCR-VQA",
        convert=vqa.convert_ocr_vqa,
        files=dict.fromkeys(("train", "val", "test"), ("dataset.json",)),
        licence="not stated; images: book covers",
        url="https://ocr-vqa.github.io/",
        images="ocr_vqa/images",
        num_published=80_000,
        counted=f"{_MIX}, of 166,041 in train",
        facts="open-mmlab/mmpretrain@057ed6e mmpretrain/datasets/ocr_vqa.py; haotian-liu/LLaVA issue 702",
    ),
    Converter(
        name="textcaps",
        title="TextCaps",
        convert=captions.convert_textcaps,
        files={
            split: (f"TextCaps_0.1_{split}.json", f"TextVQA_Rosetta_OCR_v0.2_{split}.json")
            for split in ("train", "val")
        },
        licence="CC BY 4.0; images: Open Images, CC BY 2.0",
        url="https://textvqa.org/textcaps/dataset/",
        images="textvqa/train_images",
        num_published=21_953,
        counted=_MIX,
        formats={
            "ocr": "a caption per image, asked for with the words that an OCR system read, as LLaVA-1.5",
            "plain": "a caption per image",
            "all": "all captions, a row each",
        },
        optional=(1,),
        facts="textvqa.org/textcaps/dataset; haotian-liu/LLaVA issue 702. The images are TextVQA's.",
    ),
    Converter(
        name="coco_captions",
        title="COCO captions",
        convert=captions.convert_coco_captions,
        files={
            split: (f"annotations/captions_{split}2017.json | annotations/captions_{split}2014.json",)
            for split in ("train", "val")
        },
        licence=f"CC BY 4.0; {_COCO}",
        url="https://cocodataset.org/#download",
        images="coco/train2017",
        num_published=118_287,
        counted="images in train2017",
        formats={"first": "a caption per image", "all": "all captions, a row each"},
        facts="cocodataset.org",
    ),
    *(
        Converter(
            name=name,
            title=title,
            convert=convert,
            files=dict.fromkeys(splits, (f"{name}/{refs}", f"{name}/instances.json")),
            licence=f"not stated; {_COCO}",
            url=_REFER,
            images="coco/train2017",
            num_published=num,
            counted=f"regions in train, {split} split",
            formats=_DIRECTIONS,
            facts="lichengunc/refer@2fe1dfe refer.py; tensorflow.org/datasets/catalog/ref_coco",
        )
        for name, title, convert, refs, splits, num, split in (
            ("refcoco", "RefCOCO", regions.convert_refcoco, "refs(unc).p", _UNC, 42_404, "UNC's"),
            ("refcoco+", "RefCOCO+", regions.convert_refcoco_plus, "refs(unc).p", _UNC, 42_278, "UNC's"),
            (
                "refcocog",
                "RefCOCOg",
                regions.convert_refcocog,
                "refs(umd).p",
                ("train", "val", "test"),
                42_226,
                "UMD's",
            ),
        )
    ),
    Converter(
        name="vg",
        title="Visual Genome, region descriptions",
        convert=regions.convert_vg,
        files={"train": ("region_descriptions.json", "image_data.json")},
        licence="CC BY 4.0; images: YFCC100M and COCO, each with its Flickr licence",
        url="https://homes.cs.washington.edu/~ranjay/visualgenome/api.html",
        images="vg/VG_100K, vg/VG_100K_2",
        num_published=86_417,
        counted=_MIX,
        formats=_DIRECTIONS,
        facts="homes.cs.washington.edu/~ranjay/visualgenome; haotian-liu/LLaVA issues 606 and 657",
    ),
    Converter(
        name="llava_instruct",
        title="LLaVA-Instruct",
        convert=instructions.convert_llava_instruct,
        files={
            "train": (
                "llava_instruct_150k.json | llava_instruct_80k.json | conversation_58k.json | detail_23k.json | "
                "complex_reasoning_77k.json",
            )
        },
        licence=f"CC BY 4.0, and OpenAI's terms of use; {_COCO}",
        url="https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K",
        images="coco/train2017",
        num_published=157_712,
        counted=_MIX,
        facts="liuhaotian/LLaVA-Instruct-150K@9d451dc README.md; haotian-liu/LLaVA issue 702",
    ),
    Converter(
        name="mix665k",
        title="LLaVA-1.5's mixture, each row labelled with its source",
        convert=instructions.convert_mix665k,
        files={"train": ("llava_v1_5_mix665k.json",)},
        licence="that of each dataset in it",
        url="https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K",
        images="coco, gqa, ocr_vqa, textvqa and vg, as above",
        num_published=665_298,
        counted="rows",
        facts="haotian-liu/LLaVA issues 657 and 702",
    ),
    # Documents, charts, science, conversations.
    *DOCUMENT_ROWS,
)

CONVERTERS = {row.name: row for row in _ROWS}


def find_converter(name: str) -> Converter:
    """The row of the table with that name. Raises UsageError if there is none."""
    if name not in CONVERTERS:
        raise UsageError(f"There is no converter '{name}'.{name_nearest(name, CONVERTERS)}")
    return CONVERTERS[name]
