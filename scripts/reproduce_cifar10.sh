#!/usr/bin/env bash
# CIFAR-10 by the paper's protocol, run after run, in time-limited pieces that resume exactly. Needs no Snakemake.
#
#     scripts/reproduce_cifar10.sh                              to the end
#     scripts/reproduce_cifar10.sh --minutes 9 --from A --to B  one piece, on a machine with this much time: unpack the
#                                                               last piece's state from A, and pack the new state in B
#
# A piece saves its state and ends when its minutes are over, but not before one step of a training or one batch of an
# evaluation.
# In A and B: state.tar.0 to .7, of at most 16 MB each, with their sha256. They hold what is in A and the experiments of
# TASKS: measurements, manifests, the newest state of what is unfinished, and the weights of runs not yet evaluated, or
# that another run still starts from. log.txt holds the output.
# Exit status: 0 if everything is done, 75 if not (run it again), otherwise the status of the command that failed.
#
# Environment (defaults): DATA, a folder with cifar-10-batches-bin (none: download), RESULTS (results/reference), PYTHON
# (python3), DEVICE (auto), DATASET (cifar10), and TASKS, lines of experiment, row and seed.
set -euo pipefail

refuse() {
    echo "reproduce_cifar10.sh: $1" >&2
    exit 2
}

minutes='' from='' to='' carried='' # experiments that came from A
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || refuse "$1 needs a value after it"
    case "$1" in
        --minutes) minutes=$2 ;;
        --from) from=$2 ;;
        --to) to=$2 ;;
        *) refuse "unknown option $1; there are --minutes, --from and --to" ;;
    esac
    shift 2
done
[[ -z $minutes || $minutes =~ ^[0-9]+(\.[0-9]+)?$ ]] || refuse "--minutes must be a number, not $minutes"
results=${RESULTS:-results/reference} python=${PYTHON:-python3} device=${DEVICE:-auto} dataset=${DATASET:-cifar10}
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
    if [ ! -e "$1/state.sha256" ] && ! compgen -G "$1/state.tar.*" > /dev/null; then
        echo "nothing to unpack in $1: starting from the beginning" >&2
        return 0
    fi
    (cd "$1" && sha256sum --quiet --check state.sha256) || refuse "$1 is damaged: copy it again"
    mkdir -p "$results"
    carried=$(cat "$1"/state.tar.[0-7] | tar -xv -C "$results" | sed 's|^\./||; s|/.*||' | sort -u)
}

pack() { # writes new files beside the old ones, and replaces these when all are written
    [ -d "$results" ] || return 0
    look
    local new=$1/.new
    rm -rf "$new"
    mkdir -p "$new"
    # Weights are packed only for runs that have not ended or that another run still needs; of two states, the newer is.
    (
        cd "$results"
        folders=()
        for name in $({ for one in $(experiments); do name_of "$one"; done; echo "$carried"; } | sort -u); do
            if [ -d "$name" ]; then folders+=("$name"); fi
        done
        [ "${#folders[@]}" -gt 0 ] || exit 0
        find "${folders[@]}" -path '*/runs/*' -type f ! -name model.safetensors
        find "${folders[@]}" -path '*/runs/*' -name model.safetensors | while read -r weights; do
            IFS=/ read -r name _ dataset row seed _ <<< "$weights"
            if ! ended "$name" "$dataset" "$row" "$seed" || needed "$name" "$dataset" "$row" "$seed"; then
                echo "$weights"
            fi
        done
        find "${folders[@]}" -path '*/scratch/*' -type d | while read -r folder; do
            ls -t "$folder"/state-*.pt 2>/dev/null | head -n 1 || true
        done
    ) | tar -c -C "$results" --files-from=- | split --bytes=16000000 --suffix-length=1 --numeric-suffixes - "$new/state.tar."
    [ ! -e "$new/state.tar.8" ] || refuse "the state does not fit into 8 files of 16 MB"
    (cd "$new" && sha256sum state.tar.* > state.sha256)
    rm -f "$1"/state.tar.* "$1/state.sha256"
    mv "$new"/state.* "$1"
    rmdir "$new"
}

look() { # the status of each experiment's runs: lines of experiment, status, dataset/row/seed-k
    local experiment lines
    there=''
    for experiment in $(experiments); do
        lines=$("$python" -m bntt runs --experiment "$experiment" --results "$results") || return
        there+=$(sed "s|^|$(name_of "$experiment") |" <<< "$lines")$'\n'
    done
}

experiments() { cut -d ' ' -f 1 <<< "$tasks" | sort -u; } # as the tasks name them

name_of() { basename "$1" .yaml; } # the experiment's name; TASKS may give the path of its file

ended() { # NAME DATASET ROW SEED-K: whether nothing was left to do for a run at the last `look`
    grep -qE "^$1 +(done|diverged|kept) +$2/$3/$4( |\$)" <<< "$there"
}

needed() { # NAME DATASET ROW SEED-K: whether a conversion that starts from this run has not ended
    [ "$3" = ann ] || return 1
    for row in conversion rmp; do
        if grep -q " $row ${4#seed-}\$" <<< "$tasks" && ! ended "$1" "$2" "$row" "$4"; then return 0; fi
    done
    return 1
}

work() {
    if [ -n "${DATA:-}" ]; then "$python" -m bntt data prepare "$dataset" --from "$DATA" || return; fi
    local experiment row seed command left begun=''
    look || return
    while read -r experiment row seed; do
        if ended "$(name_of "$experiment")" "$dataset" "$row" "seed-$seed"; then continue; fi
        local of=(
            --experiment "$experiment" --dataset "$dataset" --row "$row" --seed "$seed" --results "$results"
            --device "$device"
        )
        if [ -n "$begun" ] && [ -n "$minutes" ] && awk "BEGIN { exit !($SECONDS / 60 >= $minutes) }"; then return 75; fi
        begun=yes
        for command in train evaluate; do
            left=()
            if [ -n "$minutes" ]; then
                left=(--minutes "$(awk "BEGIN { left = $minutes - $SECONDS / 60; print (left > 1e-4 ? left : 1e-4) }")")
            fi
            "$python" -m bntt "$command" "${of[@]}" "${left[@]}" < /dev/null || return
        done
    done <<< "$tasks"
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
