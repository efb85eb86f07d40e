#!/bin/sh
# Build the engine with AddressSanitizer and UndefinedBehaviorSanitizer and run its tests with that library.
# Usage, from the repository's root: sh tests/engine/sanitize.sh [pytest arguments]
# Needs gcc (its sanitizer libraries are preloaded into Python). Leaks are not looked for: the interpreter itself has some.
set -eu
command -v gcc >/dev/null || {
    echo "sanitize.sh: no gcc; Debian: apt-get install gcc" >&2
    exit 1
}
python=${PYTHON:-python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
PYTHONPATH=. "$python" - "$folder/engine.so" <<'PYTHON'
import sys
from pathlib import Path
from tdcompress.engine.build import build, machine_name
flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1", "-g", "-fno-omit-frame-pointer")
build(("gcc",), Path(sys.argv[1]), machine=machine_name(), extra=flags)
PYTHON
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1 \
TDCOMPRESS_ENGINE_LIBRARY="$folder/engine.so" PYTHONPATH=. \
    "$python" -m pytest tests/engine --ignore=tests/engine/test_engine_build.py --ignore=tests/engine/test_engine_wasm.py \
    --ignore=tests/engine/test_engine_tools.py -p no:cacheprovider "$@"
