#!/usr/bin/env bash
# Everything that only a GPU can show, in less than 12 minutes, without a network: the engine's tests and benchmark,
# the training benchmark, and training on the GPU beside the CPU. Each step has a time limit and a log of its own, and
# none ends the others; after SECONDS_IN_ALL (700) those that are left get one second. The table and results.json are in $OUT (default: out/gpu); the exit code is the number of
# steps that failed.
#
#     benchmarks/gpu.sh            on a machine with a GPU, in the repository's folder
#     benchmarks/gpu.sh --tiny     the same steps on a CPU with toy sizes, to see that they work
#     benchmarks/gpu.sh --only 'check packing|train 1'     the steps whose names match; may follow --tiny
set -u
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-python3}
OUT=${OUT:-out/gpu}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
tiny=false only=.
while [ $# -gt 0 ]; do
    case $1 in
        --tiny) tiny=true ;;
        --only) only=${2:?--only needs a pattern}; shift ;;
        *) echo "unknown argument: $1" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$OUT/logs" || exit 2
OUT=$(cd "$OUT" && pwd)
: > "$OUT/steps.tsv"
ends=$(($(date +%s) + ${SECONDS_IN_ALL:-700}))

# step NAME SECONDS COMMAND...
step() {
    local name=$1 limit=$2 left log began code
    shift 2
    [[ $name =~ $only ]] || return 0
    left=$((ends - $(date +%s)))
    ((left < limit)) && limit=$((left > 1 ? left : 1))
    log="$OUT/logs/${name// /-}.log"
    began=$(date +%s)
    timeout --kill-after 10 "$limit" "$@" > "$log" 2>&1
    code=$?
    printf '%s\t%s\t%s\t%s\n' "$name" "$code" "$(($(date +%s) - began))" "$log" >> "$OUT/steps.tsv"
    echo "$name: exit code $code, $(($(date +%s) - began)) s"
}

if $tiny; then
    device=cpu engine=(--shape XS --brief --dtype float32 --sides engine) train=(--tiny)
else
    device=cuda engine=(--shape S --brief --device cuda --without-peers)
    train=(--decoder 1b --samples 64 --batch-size 16 --rounds 2)
fi

step machine 30 "$PYTHON" -c 'import platform, torch, transformers
print(platform.python_version(), torch.__version__, transformers.__version__, torch.cuda.is_available())
print(torch.cuda.get_device_properties(0) if torch.cuda.is_available() else platform.processor())'
for check in peak float32 bfloat16 float16 lora packing checkpointing flash graphs host_memory; do
    step "check $check" 90 "$PYTHON" -m tests.train.gpu_checks "$check" --device $device
done
for stage in 1 2 next; do
    step "train $stage" 120 "$PYTHON" benchmarks/train.py --stages $stage "${train[@]}" --json "$OUT/train-$stage.json"
done
step "engine benchmark" 150 "$PYTHON" benchmarks/engine.py "${engine[@]}" --json "$OUT/engine.json"
step "check compile" 120 "$PYTHON" -m tests.train.gpu_checks compile --device $device
if "$PYTHON" -c 'import pytest' 2> /dev/null && ! $tiny; then
    step "engine tests" 120 "$PYTHON" -m pytest -q -p no:cacheprovider tests/engine/test_graphs.py
fi

"$PYTHON" - "$OUT" <<'END'
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
results = {}
failed = 0
print(f"\n{'step':20}{'result':>10}{'s':>6}  figures")
for line in (out / "steps.tsv").read_text().splitlines():
    name, code, seconds, log = line.split("\t")
    found = {}
    if name.startswith("check "):
        lines = [text for text in Path(log).read_text(errors="replace").splitlines() if text.startswith("{")]
        found = json.loads(lines[-1]) if lines else {}
    elif name.startswith("train ") and (out / f"train-{name[6:]}.json").is_file():
        found = json.loads((out / f"train-{name[6:]}.json").read_text())
    elif name == "engine benchmark" and (out / "engine.json").is_file():
        found = json.loads((out / "engine.json").read_text())
    skipped = found.get("skipped")
    result = "skipped" if skipped else "ok" if code == "0" else "too long" if code in ("124", "137") else "FAILED"
    failed += result not in ("ok", "skipped")
    results[name] = {"result": result, "seconds": int(seconds), "figures": found}
    if name.startswith("train "):
        shown = ", ".join(
            f"{side} {each['tokens_per_second']:,.0f} tokens/s, {each['of_peak']:.1%} of peak, {each['of_original']:.2f}x"
            for sides in found.values()
            for side, each in sides.items()
        )
    else:
        keys = ("difference", "scale", "optimizer", "is_fused", "equal", "has_graphs", "share", "grown_bytes", "skipped")
        shown = ", ".join(f"{key} {found[key]}" for key in keys if found.get(key) is not None)
    print(f"{name:20}{result:>10}{seconds:>6}  {shown}")
(out / "results.json").write_text(json.dumps(results, indent=1))
sys.exit(min(failed, 100))
END
