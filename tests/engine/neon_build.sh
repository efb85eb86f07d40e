# Read by neon.sh and neon_count.sh: cross-compiles the NEON kernels with the ziglang wheel into $folder/cross_main.
# ZIG="python -m ziglang" names another zig. qemu-user runs what it makes (Debian: apt-get install qemu-user).
python=${PYTHON:-python}
zig=${ZIG:-$python -m ziglang}
$zig version > /dev/null 2>&1 || {
    echo "$(basename "$0"): no zig; pip install ziglang" >&2
    exit 1
}
command -v qemu-aarch64 > /dev/null || {
    echo "$(basename "$0"): no qemu-aarch64; Debian: apt-get install qemu-user" >&2
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
