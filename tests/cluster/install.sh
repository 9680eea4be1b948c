#!/bin/sh
# Installs the Debian packages of Slurm if a program is missing. Their own services are not used, and need not run.
set -eu
PATH=$PATH:/usr/sbin
for program in munged mariadbd slurmdbd slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || missing="${missing-} $program"
done
[ "${missing-}" ] || exit 0
[ "$(id -u)" = 0 ] && as_root= || as_root="sudo -n"
if ! command -v apt-get >/dev/null || ! $as_root true; then
    echo "the tests of the cluster need the programs$missing, and nobody here may install Debian's packages of them" >&2
    exit 1
fi
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
    munge mariadb-server slurmdbd slurmctld slurmd slurm-client
