#!/bin/sh
# Compile the digits model's C for a Cortex-M4 and run it under qemu: outputs beside the engine's, bytes, instructions.
# Usage, from the repository's root: sh tests/engine/cortex_m.sh
# Needs (Debian): apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
set -eu
for tool in arm-none-eabi-gcc arm-none-eabi-size qemu-system-arm; do
    command -v "$tool" > /dev/null || {
        echo "cortex_m.sh: no $tool; Debian: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm" >&2
        exit 1
    }
done
PYTHONPATH=. exec "${PYTHON:-python}" tests/engine/cortex_m.py
