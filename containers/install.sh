#!/bin/sh
# What both recipes beside this file run in a bare Debian: the packages of environment.yml with the versions that
# constraints.txt locks, in a virtual environment where both files lie. Options, such as --dry-run, go to pip.
set -eu
cd "$(dirname "$0")"

# The compiler and Python's headers are for the kernels, which are compiled on the machine that runs them. Git reads the
# commit that a result names, and the certificates are for downloads.
apt-get update
apt-get install --yes --no-install-recommends ca-certificates g++ git python3-dev python3-venv
rm -r /var/lib/apt/lists

python3 -m venv .
sed '1,/- pip:$/d; s/^ *- //' environment.yml >requirements.txt
bin/python -m pip install --no-input --no-cache-dir --disable-pip-version-check \
    --constraint constraints.txt --requirement requirements.txt "$@"
