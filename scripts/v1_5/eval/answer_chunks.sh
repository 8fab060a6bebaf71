# Sourced by the scripts beside it: answers a question file with one process per entry of CUDA_VISIBLE_DEVICES (on a CPU
# one process), and joins their answers.
#   answer_chunks FOLDER FLAG...   writes FOLDER/N_K.jsonl and FOLDER/merge.jsonl

answer_chunks() {
    local folder=$1 devices chunks index pids=() pid failed=0
    shift
    IFS=',' read -ra devices <<< "${CUDA_VISIBLE_DEVICES:-0}"
    chunks=${#devices[@]}
    for ((index = 0; index < chunks; index++)); do
        CUDA_VISIBLE_DEVICES=${devices[$index]} python -m llava.eval.model_vqa_loader "$@" \
            --answers-file "$folder/${chunks}_$index.jsonl" --num-chunks "$chunks" --chunk-idx "$index" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || failed=1
    done
    ((failed == 0)) || { echo "A process failed; run the same command again to go on." >&2; return 1; }
    : > "$folder/merge.jsonl"
    for ((index = 0; index < chunks; index++)); do
        cat "$folder/${chunks}_$index.jsonl" >> "$folder/merge.jsonl"
    done
}
