#!/bin/bash
# LLaVA-1.5-13B on SEED-Bench. Run it from the folder that holds playground/, with the benchmark's files in ./playground/data/eval/seed_bench.
set -e
source "$(dirname "${BASH_SOURCE[0]}")/answer_chunks.sh"

CKPT="llava-v1.5-13b"

answer_chunks ./playground/data/eval/seed_bench/answers/$CKPT \
    --model-path liuhaotian/llava-v1.5-13b \
    --question-file ./playground/data/eval/seed_bench/llava-seed-bench.jsonl \
    --image-folder ./playground/data/eval/seed_bench \
    --temperature 0 \
    --conv-mode vicuna_v1

python scripts/convert_seed_for_submission.py \
    --annotation-file ./playground/data/eval/seed_bench/SEED-Bench.json \
    --result-file ./playground/data/eval/seed_bench/answers/$CKPT/merge.jsonl \
    --result-upload-file ./playground/data/eval/seed_bench/answers_upload/$CKPT.jsonl
