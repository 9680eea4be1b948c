#!/usr/bin/env bash
# CIFAR-10 by the paper's protocol, run after run, in pieces of bounded time that resume exactly. Needs no Snakemake.
#
#     scripts/reproduce_cifar10.sh                              to the end
#     scripts/reproduce_cifar10.sh --minutes 9 --from A --to B  a piece, on a machine that is lent for so long: unpack
#                                                               what the last piece packed in A, pack for the next in B
#
# A piece ends at a saved state once its minutes are over; an evaluation that has begun is finished.
# In A and B: state.tar.0 to .7, of at most 16 MB each, with their sha256; they hold measurements, manifests, the newest
# state of the unfinished training, and the weights that another run still starts from. log.txt is what was printed.
# Exit status: 0 everything is done, 75 not finished: run it again, else what failed.
#
# In the environment: DATA, a folder with cifar-10-batches-bin (none: downloaded), RESULTS
# (results/reference), PYTHON (python3), DEVICE (auto), TASKS, lines of experiment, row and seed.
set -euo pipefail

minutes='' from='' to=''
while [ $# -gt 0 ]; do
    case "$1" in
        --minutes) minutes=$2 ;;
        --from) from=$2 ;;
        --to) to=$2 ;;
        *) echo "reproduce_cifar10.sh: unknown option $1; there are --minutes, --from and --to" >&2; exit 2 ;;
    esac
    shift 2
done
results=${RESULTS:-results/reference} python=${PYTHON:-python3} device=${DEVICE:-auto}
tasks=${TASKS:-'cifar10 bntt 0
released-code bntt 0
cifar10 ann 0
cifar10 conversion 0
cifar10 rmp 0
cifar10 surrogate 0
cifar10 bntt 1
cifar10 bntt 2
cifar10 ann 1
cifar10 ann 2
cifar10 conversion 1
cifar10 conversion 2
cifar10 rmp 1
cifar10 rmp 2
cifar10 surrogate 1
cifar10 surrogate 2
cifar10 bntt-no-decay 0
paper-literal bntt 0'}

unpack() {
    [ -e "$1/state.tar.0" ] || return 0
    (cd "$1" && sha256sum --quiet --check state.sha256) || { echo "$1 is damaged: copy it again" >&2; exit 2; }
    mkdir -p "$results"
    cat "$1"/state.tar.[0-7] | tar -x -C "$results"
}

pack() {
    mkdir -p "$1"
    rm -f "$1"/state.tar.* "$1/state.sha256"
    [ -d "$results" ] || return 0
    # Weights stay behind, but for those that a run not yet evaluated starts from; of two states, the newer goes.
    (
        cd "$results"
        find . -path '*/runs/*' -type f ! -name model.safetensors
        find . -path '*/runs/*' -name model.safetensors | while read -r weights; do
            if [ ! -e "$(dirname "$weights")/evaluate.json" ] || needed "$weights"; then echo "$weights"; fi
        done
        find . -path '*/scratch/*' -type d | while read -r folder; do
            ls -t "$folder"/state-*.pt 2>/dev/null | head -n 1 || true
        done
    ) | tar -c -C "$results" --files-from=- | split --bytes=16000000 --suffix-length=1 --numeric-suffixes - "$1/state.tar."
    if [ -e "$1/state.tar.8" ]; then echo "the state does not fit into 8 files of 16 MB" >&2; exit 2; fi
    (cd "$1" && sha256sum state.tar.* > state.sha256)
}

needed() { # weights of the dense network, as long as a conversion of that seed is not there
    case "$1" in */ann/*) ;; *) return 1 ;; esac
    for row in conversion rmp; do
        other=$(dirname "${1/\/ann\//\/$row\/}")
        if grep -q " $row ${other##*-}\$" <<< "$tasks" && [ ! -e "$other/evaluate.json" ]; then return 0; fi
    done
    return 1
}

work() {
    if [ -n "${DATA:-}" ]; then "$python" -m bntt data prepare cifar10 --from "$DATA" || return; fi
    local experiment row seed left
    while read -r experiment row seed; do
        local of=(--experiment "$experiment" --row "$row" --seed "$seed" --results "$results" --device "$device")
        if [ "$experiment" = released-code ]; then of+=(--dataset cifar10); fi  # it has others; the rest have one
        if [ -e "$(run_folder "$experiment" "$row" "$seed")/evaluate.json" ]; then continue; fi
        left=()
        if [ -n "$minutes" ]; then
            left=(--minutes "$(awk "BEGIN { print $minutes - $SECONDS / 60 }")")
            case "${left[1]}" in -* | 0) return 75 ;; esac
        fi
        "$python" -m bntt train "${of[@]}" "${left[@]}" < /dev/null || return
        "$python" -m bntt evaluate "${of[@]}" < /dev/null || return
    done <<< "$tasks"
}

run_folder() {
    local name=${1##*/}
    echo "$results/${name%.yaml}"/runs/*/"$2/seed-$3"
}

[ -z "$from" ] || unpack "$from"
status=0
if [ -n "$to" ]; then
    mkdir -p "$to"
    work 2>&1 | tee "$to/log.txt" || status=$?
    pack "$to"
else
    work || status=$?
fi
exit "$status"
