#!/bin/sh
# Count the NEON instructions of one inference of ResNet-32 under qemu-user. Usage, from the repository's root:
# sh tests/engine/neon_count.sh [ZEROS...]      for example 0.9 0.95 0.99; another revision is counted in a checkout of it.
set -eu
command -v "${CC:-cc}" > /dev/null || {
    echo "neon_count.sh: no C compiler for the counting plugin of qemu; Debian: apt-get install gcc" >&2
    exit 1
}
. tests/engine/neon_build.sh
"${CC:-cc}" -O2 -fPIC -shared -o "$folder/count.so" tests/engine/count_plugin.c
PYTHONPATH=. "$python" tests/engine/count.py neon "$folder/count.so" qemu-aarch64 "$folder/cross_main" -- "${@:-0.9}"
