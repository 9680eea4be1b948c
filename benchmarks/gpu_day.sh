#!/usr/bin/env bash
# What to run when a GPU is available for a quarter of an hour, the most valuable step first.
#
#     benchmarks/gpu_day.sh OUT STEP...          steps: first-light step cifar10
#     SHEETS=DIR MINUTES=6 benchmarks/gpu_day.sh OUT cifar10
#
#   first-light  what card it is; whether the kernels run and agree with the CPU; pytest -m gpu; VGG9 and VGG11
#   step         a training step: this project, the released loop, SpikingJelly, the limit, and a profile
#   cifar10      BNTT on all of CIFAR-10, as many epochs as fit into MINUTES
#
# Each step has a time limit and writes OUT/STEP.log. A step that succeeded is skipped the next time (its mark is in
# build/gpu-day). Later steps run even if one fails. Exit status: 0, or that of the last step that failed.
# Environment (defaults): PYTHON (python3), DEVICE (cuda; cpu: a trial with small networks), MINUTES (6), SHEETS (none).
# Besides PyTorch, the machine needs pydantic, filelock, nvidia-ml-py, and spikingjelly 2.0.0 to compare with it.
set -uo pipefail

[ $# -gt 1 ] || { echo "usage: benchmarks/gpu_day.sh OUT STEP...; steps: first-light step cifar10" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} device=${DEVICE:-cuda} minutes=${MINUTES:-6}
marks=build/gpu-day
mkdir -p "$marks"
export PYTHONUNBUFFERED=1
quick=()
[ "$device" = cuda ] || quick=(--quick)

first_light() { # 3 minutes
    [ "$device" != cuda ] || nvidia-smi
    local failed=0
    timeout 110 "$python" benchmarks/first_light.py --device "$device" "${quick[@]}" --json "$out/first-light.json" || failed=$?
    if [ "$device" = cuda ]; then
        OMP_NUM_THREADS=2 timeout 150 "$python" -m pytest -q --durations 5 -m gpu -n 8 -p no:cacheprovider tests/spiking/test_gpu.py tests/test_devices.py || failed=$?
    fi
    return "$failed"
}

step() { # 2 to 3 minutes
    local batch=256 width=1 profiled=10 failed=0
    [ "$device" = cuda ] || batch=4 width=0.125 profiled=2
    local of=(--device "$device" --batches "$batch" --steps 25 --precisions bf16 --width "$width" --chunk)
    timeout 60 "$python" benchmarks/train_step.py "${of[@]}" --profile "$profiled" | tee "$out/profile.txt" || failed=$?
    timeout 160 "$python" benchmarks/train_step.py "${of[@]}" --rounds 1 --layouts all \
        --contestants this limit released spikingjelly --timeout 60 --json "$out/step.json" || failed=$?
    return "$failed"
}

cifar10() { # MINUTES
    local sheets=()
    [ -z "${SHEETS:-}" ] || sheets=(--sheets "$SHEETS")
    timeout "$(awk "BEGIN { print $minutes * 60 + 20 }")" \
        "$python" benchmarks/cifar10_lease.py "$out" --minutes "$minutes" --device "$device" "${sheets[@]}" "${quick[@]}"
}

status=0
for name in "$@"; do
    case "$name" in
        first-light | step | cifar10) ;;
        *) echo "gpu_day.sh: no step $name; there are first-light, step and cifar10" >&2; exit 2 ;;
    esac
    if [ -e "$marks/$name" ]; then
        echo "== $name: done before"
        continue
    fi
    echo "== $name"
    SECONDS=0
    if "${name//-/_}" 2>&1 | tee "$out/$name.log"; then
        touch "$marks/$name"
        echo "== $name: done in $SECONDS s"
    else
        status=$?
        echo "== $name: FAILED (status $status) after $SECONDS s"
    fi
done
exit "$status"
