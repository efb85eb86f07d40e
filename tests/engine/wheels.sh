#!/bin/sh
# Build wheels for all platforms into a folder (.ci/wheels.py), then try two: this machine's where there is no compiler, and the NEON
# library of 64-bit ARM under qemu-user.
# Usage, from the repository's root: sh tests/engine/wheels.sh FOLDER        ZIG="python -m ziglang" names another zig.
# Needs the ziglang wheel, and (Debian) apt-get install qemu-user libc6-arm64-cross
set -eu
python=${PYTHON:-python}
zig=${ZIG:-$python -m ziglang}
wheels=$1
sysroot=${SYSROOT:-/usr/aarch64-linux-gnu}
$zig version > /dev/null 2>&1 || {
    echo "wheels.sh: no zig; pip install ziglang" >&2
    exit 1
}
command -v qemu-aarch64 > /dev/null && [ -e "$sysroot/lib/ld-linux-aarch64.so.1" ] || {
    echo "wheels.sh: no qemu-aarch64, or no C library for it in $sysroot; Debian: apt-get install qemu-user libc6-arm64-cross" >&2
    exit 1
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PYTHONPATH="$PWD"
ZIG=$zig "$python" .ci/wheels.py "$wheels"

"$python" -m pip install -q --no-deps --no-index --target "$folder/site" "$wheels"/*-manylinux_*_"$(uname -m)".whl
PYTHONPATH="$folder/site" PATH=/nowhere CC=/nowhere/cc TDCOMPRESS_CACHE="$folder/cache" "$(command -v "$python")" -P tests/engine/wheel_run.py "$folder/site"

"$python" -m zipfile -e "$wheels"/*-manylinux_*_aarch64.whl "$folder/arm"
cp "$folder"/arm/tdcompress/engine/compiled/*.so "$folder/libtdcompress.so"
$zig cc -target aarch64-linux-gnu.2.17 -O1 -Itdcompress/engine/csrc tests/engine/cross_main.c -L"$folder" -ltdcompress -o "$folder/cross_main"
"$python" tests/engine/cross.py neon qemu-aarch64 -L "$sysroot" -E LD_LIBRARY_PATH="$folder" "$folder/cross_main"
