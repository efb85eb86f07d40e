#!/bin/sh
# Damage plan files for SECONDS (300) and load and run them under AddressSanitizer and UndefinedBehaviorSanitizer.
# Usage, from the repository's root: sh tests/engine/fuzz.sh [SECONDS]        Needs gcc and its sanitizers.
. tests/engine/sanitized.sh
make_runner -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
UBSAN_OPTIONS=print_stacktrace=1 ASAN_OPTIONS=allocator_may_return_null=1 "$folder/fuzz_plan" "${1:-300}s" "$folder"/seeds/*.tdc
