"""Instructions that one more image of ResNet-32 takes on another processor, under an emulator.

Usage: python tests/engine/count.py ISA PLUGIN EMULATOR PROGRAM -- ZEROS... See neon_count.sh. The program is cross_main.c; what
it takes for two images less what it takes for one leaves out loading.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from engine_networks import resnet32  # noqa: E402

from tdcompress.engine import compile_model  # noqa: E402


def instructions(plugin: str, emulator: str, program: str, plan: Path, images: int) -> int:
    """Of the whole program."""
    command = [emulator, "-plugin", plugin, program, str(images), str(plan)]
    x = np.random.default_rng(1).standard_normal((images, 3, 32, 32)).astype(np.float32)
    done = subprocess.run(command, input=x.tobytes(), capture_output=True, check=False)
    said = done.stderr.decode()
    if done.returncode != 0 or "instructions: " not in said:
        raise SystemExit(f"count.py: {emulator} counted nothing, status {done.returncode}: {said[-300:]}")
    return int(said.rsplit("instructions: ", 1)[1])


def main(isa: str, plugin: str, emulator: str, program: str, shares: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for zeros in shares:
            plan = Path(folder) / "model.tdc"
            compile_model(resnet32(float(zeros)), plan, isa=isa)
            one, two = (instructions(plugin, emulator, program, plan, images) for images in (1, 2))
            print(f"{isa}: {two - one:,} instructions for one image of ResNet-32 at {100 * float(zeros):g} % zeros", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5], shares=sys.argv[6:])
