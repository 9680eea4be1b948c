#!/usr/bin/env bash
# CIFAR-10 by the paper's protocol, run after run, in pieces of bounded time that resume exactly. Needs no Snakemake.
#
#     scripts/reproduce_cifar10.sh                              to the end
#     scripts/reproduce_cifar10.sh --minutes 9 --from A --to B  a piece, on a machine that is lent for so long: unpack
#                                                               what the last piece packed in A, pack for the next in B
#
# A piece ends at a saved state once its minutes are over, after one step at least; an evaluation that has begun is
# finished.
# In A and B: state.tar.0 to .7, of at most 16 MB each, with their sha256; they hold measurements, manifests, the newest
# state of the unfinished training, and the weights that another run still starts from. log.txt is what was printed.
# Exit status: 0 everything is done, 75 not finished: run it again, else what failed.
#
# In the environment: DATA, a folder with cifar-10-batches-bin (none: downloaded), RESULTS (results/reference), PYTHON
# (python3), DEVICE (auto), DATASET (cifar10), and TASKS, lines of experiment, row and seed.
set -euo pipefail

refuse() {
    echo "reproduce_cifar10.sh: $1" >&2
    exit 2
}

minutes='' from='' to=''
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
        echo "nothing to unpack in $1: beginning anew" >&2
        return 0
    fi
    (cd "$1" && sha256sum --quiet --check state.sha256) || refuse "$1 is damaged: copy it again"
    mkdir -p "$results"
    cat "$1"/state.tar.[0-7] | tar -x -C "$results"
}

pack() { # beside what is there, which makes way once all is written
    [ -d "$results" ] || return 0
    look
    local new=$1/.new
    rm -rf "$new"
    mkdir -p "$new"
    # Weights stay behind, but for those that a run not yet evaluated starts from; of two states, the newer goes.
    (
        cd "$results"
        find . -path '*/runs/*' -type f ! -name model.safetensors
        find . -path '*/runs/*' -name model.safetensors | while read -r weights; do
            IFS=/ read -r _ name _ dataset row seed _ <<< "$weights"
            if ! ended "$name" "$dataset" "$row" "$seed" || needed "$name" "$dataset" "$row" "$seed"; then
                echo "$weights"
            fi
        done
        find . -path '*/scratch/*' -type d | while read -r folder; do
            ls -t "$folder"/state-*.pt 2>/dev/null | head -n 1 || true
        done
    ) | tar -c -C "$results" --files-from=- | split --bytes=16000000 --suffix-length=1 --numeric-suffixes - "$new/state.tar."
    [ ! -e "$new/state.tar.8" ] || refuse "the state does not fit into 8 files of 16 MB"
    (cd "$new" && sha256sum state.tar.* > state.sha256)
    rm -f "$1"/state.tar.* "$1/state.sha256"
    mv "$new"/state.* "$1"
    rmdir "$new"
}

look() { # what is there of the experiments: lines of name, status, dataset/row/seed-k
    local experiment lines
    there=''
    for experiment in $(cut -d ' ' -f 1 <<< "$tasks" | sort -u); do
        lines=$("$python" -m bntt runs --experiment "$experiment" --results "$results") || return
        there+=$(sed "s|^|$(name_of "$experiment") |" <<< "$lines")$'\n'
    done
}

name_of() { basename "$1" .yaml; } # an experiment's, of which a file may be given

ended() { # NAME DATASET ROW SEED-K: whether nothing is left to do of a run, when `look` last looked
    grep -qE "^$1 +(done|diverged|kept) +$2/$3/$4( |\$)" <<< "$there"
}

needed() { # NAME DATASET ROW SEED-K: whether a conversion that starts from a run is still to come
    [ "$3" = ann ] || return 1
    for row in conversion rmp; do
        if grep -q " $row ${4#seed-}\$" <<< "$tasks" && ! ended "$1" "$2" "$row" "$4"; then return 0; fi
    done
    return 1
}

work() {
    if [ -n "${DATA:-}" ]; then "$python" -m bntt data prepare "$dataset" --from "$DATA" || return; fi
    local experiment row seed left begun=''
    look || return
    while read -r experiment row seed; do
        if ended "$(name_of "$experiment")" "$dataset" "$row" "seed-$seed"; then continue; fi
        local of=(
            --experiment "$experiment" --dataset "$dataset" --row "$row" --seed "$seed" --results "$results"
            --device "$device"
        )
        left=()
        if [ -n "$minutes" ]; then
            if [ -n "$begun" ] && awk "BEGIN { exit !($SECONDS / 60 >= $minutes) }"; then return 75; fi
            left=(--minutes "$(awk "BEGIN { left = $minutes - $SECONDS / 60; print (left > 1e-4 ? left : 1e-4) }")")
        fi
        begun=yes
        "$python" -m bntt train "${of[@]}" "${left[@]}" < /dev/null || return
        "$python" -m bntt evaluate "${of[@]}" < /dev/null || return
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
