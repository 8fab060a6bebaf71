#!/bin/bash
# LLaVA-1.5-13B on Q-Bench in Chinese; $1 is the split, dev or test. Run it from the folder that holds playground/, with the benchmark's files in ./playground/data/eval/qbench.
set -e

python -m llava.eval.model_vqa_qbench \
    --model-path liuhaotian/llava-v1.5-13b \
    --image-folder ./playground/data/qbench/images_llvisionqa/ \
    --questions-file ./playground/data/eval/qbench/llvisionqa_$1.json \
    --answers-file ./playground/data/eval/qbench/llvisionqa_zh_$1_answers.jsonl \
    --conv-mode llava_v1 \
    --lang zh
