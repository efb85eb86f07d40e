# For fuzz.sh and valgrind.sh, from the repository's root: `make_runner FLAGS...` compiles the engine's library with gcc and these flags into
# $folder/libtdcompress.so, fuzz_plan.c against it into $folder/fuzz_plan, and writes plan files into $folder/seeds.
set -eu
command -v gcc >/dev/null || {
    echo "$(basename "$0"): no gcc; Debian: apt-get install gcc" >&2
    exit 1
}
python=${PYTHON:-python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
make_runner() {
    PYTHONPATH=. "$python" - "$folder/libtdcompress.so" "$@" <<'PYTHON'
import sys
from pathlib import Path
from tdcompress.engine.build import build, machine_name
build(("gcc",), Path(sys.argv[1]), machine=machine_name(), extra=(*sys.argv[2:], "-DARENA_ALIGNMENT=1"))
PYTHON
    gcc -std=gnu11 -Wall -Wextra "$@" -Itdcompress/engine/csrc tests/engine/fuzz_plan.c -o "$folder/fuzz_plan" \
        -L"$folder" -ltdcompress -Wl,-rpath,"$folder"
    mkdir "$folder/seeds"
    PYTHONPATH=. "$python" tests/support/plan_seeds.py "$folder/seeds"
}
