#!/bin/sh
# Load, damage and run plan files under valgrind: no invalid access, no use of what was never written, no leak.
# Usage, from the repository's root: sh tests/engine/valgrind.sh [FILES]      Needs gcc and valgrind (Debian: apt-get install valgrind).
. tests/engine/sanitized.sh
command -v valgrind >/dev/null || {
    echo "valgrind.sh: no valgrind; Debian: apt-get install valgrind" >&2
    exit 1
}
make_runner -O1 -g
valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=all --show-leak-kinds=all \
    "$folder/fuzz_plan" "${1:-1000}" "$folder"/seeds/*.tdc
