#!/bin/sh
# Build the engine's WebAssembly module and docs/demo/index.html anew, and try the page in headless Chromium.
# Usage, from the repository's root: sh tests/engine/wasm.sh [PICTURES]       PICTURES: a folder for screenshots.
# Needs the ziglang and playwright wheels, and Chromium (Debian: apt-get install chromium); CHROMIUM=PATH names another one.
set -eu
python=${PYTHON:-python}
"$python" -c "import ziglang, playwright" 2> /dev/null || {
    echo "wasm.sh: pip install ziglang playwright" >&2
    exit 1
}
[ -x "${CHROMIUM:=/usr/bin/chromium}" ] || {
    echo "wasm.sh: no Chromium at $CHROMIUM; CHROMIUM=PATH says where (Debian: apt-get install chromium)" >&2
    exit 1
}
export CHROMIUM
PYTHONPATH=. "$python" docs/demo/demo_page.py
PYTHONPATH=. "$python" tests/engine/wasm_page.py "$@"
