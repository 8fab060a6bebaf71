#!/bin/bash
# LLaVA-1.5-13B on VQAv2 test-dev. Run it from the folder that holds playground/, with the benchmark's files in ./playground/data/eval/vqav2.
set -e
source "$(dirname "${BASH_SOURCE[0]}")/answer_chunks.sh"

CKPT="llava-v1.5-13b"
SPLIT="llava_vqav2_mscoco_test-dev2015"

answer_chunks ./playground/data/eval/vqav2/answers/$SPLIT/$CKPT \
    --model-path liuhaotian/llava-v1.5-13b \
    --question-file ./playground/data/eval/vqav2/$SPLIT.jsonl \
    --image-folder ./playground/data/eval/vqav2/test2015 \
    --temperature 0 \
    --conv-mode vicuna_v1

python scripts/convert_vqav2_for_submission.py --split $SPLIT --ckpt $CKPT
