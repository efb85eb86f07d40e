#!/bin/sh
# A small int8 file under onnxruntime on an emulated processor without VNNI (Debian: apt-get install qemu-user).
# Usage, from the repository's root: PYTHON=.venv/bin/python sh tests/onnxfile/haswell.sh
set -eu
python=${PYTHON:-python}
command -v qemu-x86_64 >/dev/null || {
    echo "haswell.sh: no qemu-x86_64; Debian: apt-get install qemu-user" >&2
    exit 1
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
PYTHONPATH=.:tests/support:tests/onnxfile "$python" tests/onnxfile/haswell.py write "$folder"
# qemu runs the interpreter itself: a virtual environment's is a link, which has to keep its name to find its packages
OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 qemu-x86_64 -cpu Haswell "$python" tests/onnxfile/haswell.py check "$folder"
