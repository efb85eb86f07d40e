#!/bin/sh
# Check the NEON kernels under qemu-user. Usage, from the repository's root: sh tests/engine/neon.sh
set -eu
. tests/engine/neon_build.sh
PYTHONPATH=. "$python" tests/engine/cross.py neon qemu-aarch64 "$folder/cross_main"
