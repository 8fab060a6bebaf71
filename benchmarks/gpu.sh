#!/usr/bin/env bash
# Everything that only a GPU can show, in less than 8 minutes, without a network: the kernels beside torch, the engine
# beside generate, its speed with a 7B model, the training benchmark, and training on the GPU beside the CPU. Each step
# has a time limit and a log of its own, and none ends the others; after SECONDS_IN_ALL (460) those that are left get one
# second, so the most important come first. The table, with goals beside the figures, is printed and in table.txt, all
# figures are in results.json, both in $OUT (default: out/gpu); the exit code is the number of steps that failed.
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
ends=$(($(date +%s) + ${SECONDS_IN_ALL:-460}))

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
    device=cpu train=(--tiny) speed=(--tiny --device cpu)
else
    device=cuda train=(--decoder 1b --samples 48 --batch-size 16 --rounds 1) speed=()
fi

step machine 30 "$PYTHON" -c 'import platform, torch, transformers
print(platform.python_version(), torch.__version__, transformers.__version__, torch.cuda.is_available())
print(torch.cuda.get_device_properties(0) if torch.cuda.is_available() else platform.processor())'
if [ -f llava/engine/gpu/check.py ]; then
    step "kernels" 90 "$PYTHON" -m llava.engine.gpu.check
fi
step "engine 7B" 150 "$PYTHON" benchmarks/gpu_engine.py "${speed[@]}" --json "$OUT/engine.json"
for check in generate graphs quantized lora bfloat16; do
    step "engine $check" 60 "$PYTHON" -m tests.engine.gpu_checks "$check" --device $device
done
for stage in 2 next 1; do
    step "train $stage" 60 "$PYTHON" benchmarks/train.py --stages $stage "${train[@]}" --json "$OUT/train-$stage.json"
done
for check in peak float32 bfloat16 float16 lora packing checkpointing flash graphs host_memory compile; do
    step "check $check" 60 "$PYTHON" -m tests.train.gpu_checks "$check" --device $device
done

"$PYTHON" - "$OUT" <<'END'
import contextlib
import io
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
results = {}
failed = 0


def last_object(log):
    lines = [text for text in log.read_text(errors="replace").splitlines() if text.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


def read_figures(name, log):
    kept = {"train ": out / f"train-{name[6:]}.json", "engine 7B": out / "engine.json"}
    for start, path in kept.items():
        if name.startswith(start):
            return json.loads(path.read_text()) if path.is_file() else {}
    return last_object(log) if name.startswith(("check ", "engine ", "kernels")) else {}


def describe(name, figures, log):
    if name.startswith("train "):
        return ", ".join(
            f"{side} {each['tokens_per_second']:,.0f} tokens/s, {each['of_peak']:.1%} of peak, {each['of_original']:.2f}x"
            for sides in figures.values()
            for side, each in sides.items()
        )
    if name == "machine":
        return " ".join(log.read_text(errors="replace").split())
    keys = ("difference", "scale", "optimizer", "is_fused", "equal", "has_graphs", "share", "grown_bytes", "skipped")
    return ", ".join(f"{key} {figures[key]}" for key in keys if figures.get(key) is not None)


table = io.StringIO()
with contextlib.redirect_stdout(table):
    print(f"\n{'step':20}{'result':>10}{'s':>6}  figures")
    for line in (out / "steps.tsv").read_text().splitlines():
        name, code, seconds, log = line.split("\t")
        log = Path(log)
        try:
            figures = read_figures(name, log)
            shown = describe(name, figures, log)
        except Exception as error:  # a step that was killed while it wrote
            figures, shown = {}, f"unreadable: {error}"
        skipped = figures.get("skipped")
        result = "skipped" if skipped else "ok" if code == "0" else "too long" if code in ("124", "137") else "FAILED"
        failed += result not in ("ok", "skipped")
        results[name] = {"result": result, "seconds": int(seconds), "figures": figures}
        print(f"{name:20}{result:>10}{seconds:>6}  {shown}")
        if name == "engine 7B":
            for row in log.read_text(errors="replace").splitlines():
                if "goal" in row or "tokens per s" in row or "again s" in row or " gb" in row or "FAILED" in row:
                    print(f"{'':20}{'':16}  {row}")
print(table.getvalue(), end="")
(out / "table.txt").write_text(table.getvalue())
(out / "results.json").write_text(json.dumps(results, indent=1))
sys.exit(min(failed, 100))
END
