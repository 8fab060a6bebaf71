#!/bin/bash
# LLaVA-1.5-13B on GQA testdev_balanced. Run it from the folder that holds playground/, with the benchmark's files in ./playground/data/eval/gqa/data.
set -e
source "$(dirname "${BASH_SOURCE[0]}")/answer_chunks.sh"

CKPT="llava-v1.5-13b"
SPLIT="llava_gqa_testdev_balanced"
GQADIR="./playground/data/eval/gqa/data"

answer_chunks ./playground/data/eval/gqa/answers/$SPLIT/$CKPT \
    --model-path liuhaotian/llava-v1.5-13b \
    --question-file ./playground/data/eval/gqa/$SPLIT.jsonl \
    --image-folder $GQADIR/images \
    --temperature 0 \
    --conv-mode vicuna_v1

python scripts/convert_gqa_for_eval.py \
    --src ./playground/data/eval/gqa/answers/$SPLIT/$CKPT/merge.jsonl \
    --dst $GQADIR/testdev_balanced_predictions.json

cd $GQADIR
python eval/eval.py --tier testdev_balanced
