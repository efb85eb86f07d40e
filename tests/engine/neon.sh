#!/bin/sh
# Cross-compile the NEON kernels with the ziglang wheel and check them under qemu-user (Debian: apt-get install qemu-user).
# Usage, from the repository's root: sh tests/engine/neon.sh      ZIG="python -m ziglang" names another zig.
set -eu
python=${PYTHON:-python}
zig=${ZIG:-$python -m ziglang}
$zig version > /dev/null || {
    echo "neon.sh: no zig; pip install ziglang" >&2
    exit 1
}
command -v qemu-aarch64 > /dev/null || {
    echo "neon.sh: no qemu-aarch64; Debian: apt-get install qemu-user" >&2
    exit 1
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
source=tdcompress/engine/csrc
flags="-target aarch64-linux-musl -std=gnu11 -O3 -fno-math-errno -ffp-contract=fast -pthread -static -I$source"
for file in "$source"/*.c tests/engine/cross_main.c; do
    $zig cc $flags -DTDC_SUFFIX=neon -c "$file" -o "$folder/$(basename "$file").o"
done
$zig cc $flags "$folder"/*.o -lm -o "$folder/cross_main"
PYTHONPATH=. "$python" tests/engine/cross.py neon qemu-aarch64 "$folder/cross_main"
