"""The digits model as C on a Cortex-M4 under qemu: outputs beside the engine's, bytes, instructions. See cortex_m.sh.

Two models: docs/demo/digits.onnx, and the same with 1e-20 for each zero, which no kernel skips and no output shows.
Each is compiled twice: without fused multiplication and addition, for every bit, and with them, which is what counts.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tdcompress.data.digits import load_split
from tdcompress.engine import EmittedModel, Session, emit_c
from tdcompress.onnxfile.pack import unpack_onnx

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

PROCESSOR = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
MACHINE = ("qemu-system-arm", "-M", "mps2-an386", "-icount", "shift=3", "-display", "none", "-monitor", "none", "-serial", "none")
INSTRUCTIONS_A_TICK = 5
LOOP = 200_000
"""Instructions that the loop of cortex_m_main.c takes: two, a hundred thousand times."""
TOLERANCE = 1e-5
"""Of the largest output, where multiplication and addition are fused."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """outputs: (images, 10); instructions: of the mean image; the rest in bytes."""

    outputs: np.ndarray
    instructions: float
    code: int
    tables: int
    arena: int
    stack: int


def call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"cortex_m.py: {' '.join(command[:2])} failed: {(done.stderr or done.stdout)[-1000:]}")
    return done.stdout


def images() -> np.ndarray:
    """All test digits as the network takes them: (359, 1, 8, 8)."""
    pixels = load_split()[1].pixels.numpy().astype(np.float32).transpose(0, 3, 1, 2)
    return np.ascontiguousarray((pixels - np.float32(4.888)) / np.float32(6.018))


def filled(source: Path, folder: Path) -> bytes:
    """The model with weights that no kernel can skip."""
    unpack_onnx(source, folder / "dense.onnx")
    model = onnx.load(folder / "dense.onnx")
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(np.where(array == 0, np.float32(1e-20), array), tensor.name))
    return model.SerializeToString()


def sections(file: Path) -> dict[str, int]:
    """Kind of section -> its bytes: text, rodata, bss."""
    found = dict.fromkeys(("text", "rodata", "data", "bss"), 0)
    for name, size in re.findall(r"^\.(text|rodata|data|bss)\S* +(\d+)", call("arm-none-eabi-size", "-A", str(file)), re.M):
        found[name] += int(size)
    return found


def run(emitted: EmittedModel, x: np.ndarray, contract: str) -> Run:
    """Compile, link, run all images."""
    folder = emitted.source.parent
    rows = ",\n".join("{" + ", ".join(f"0x{bits:x}u" for bits in image.reshape(-1).view(np.uint32)) + "}" for image in x)
    (folder / "images.h").write_text(f"#define IMAGES {len(x)}\nstatic const uint32_t images[IMAGES][64] = {{\n{rows}}};\n")
    compiler = ("arm-none-eabi-gcc", *PROCESSOR, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-ffp-contract={contract}")
    model, main, program = (folder / name for name in ("digits.o", "main.o", "digits.elf"))
    call(*compiler, "-c", str(emitted.source), "-o", str(model))
    call(*compiler, f"-I{folder}", "-c", str(HERE / "cortex_m_main.c"), "-o", str(main))
    link = (
        "-nostartfiles",
        "--specs=nano.specs",
        "-T",
        str(HERE / "cortex_m.ld"),
        "-Wl,--gc-sections",
        "-Wl,--no-warn-rwx-segments",
    )
    call(*compiler, *link, str(main), str(model), "-lm", "-o", str(program))
    semihosting = ("-semihosting-config", "enable=on,target=native", "-kernel", str(program))
    said = subprocess.run([*MACHINE, *semihosting], capture_output=True, text=True, check=False, timeout=600)
    lines = (said.stdout + said.stderr).splitlines()
    numbers = {
        word: [[int(x, 16) for x in line.split()[1:]] for line in lines if line.startswith(word)]
        for word in ("loop", "image", "stack")
    }
    if said.returncode != 0 or len(numbers["image"]) != len(x) or any(image[0] for image in numbers["image"]):
        raise SystemExit(f"cortex_m.py: qemu ended with {said.returncode} after {len(numbers['image'])} images: {lines[-1:]}")
    counted = numbers["loop"][0][0] * INSTRUCTIONS_A_TICK
    if abs(counted - LOOP) > 100:
        raise SystemExit(f"cortex_m.py: {counted} instructions were counted in a loop of {LOOP}")
    table = np.array(numbers["image"], np.uint32)
    size = sections(model)
    return Run(
        outputs=np.ascontiguousarray(table[:, 2:]).view(np.float32),
        instructions=float(table[:, 1].mean()) * INSTRUCTIONS_A_TICK,
        code=size["text"],
        tables=size["rodata"],
        arena=size["bss"] + size["data"],
        stack=numbers["stack"][0][0],
    )


def main() -> int:
    """Both models; prints a table for docs/boards.md."""
    x = images()
    source = ROOT / "docs" / "demo" / "digits.onnx"
    rows, counts = [], []
    with tempfile.TemporaryDirectory() as folder:
        dense = filled(source, Path(folder))
    for name, model, chosen in (("90 % zeros", source.read_bytes(), x), ("no zeros", dense, x[:30])):
        want = Session(model, isa="scalar").run(None, {"input": chosen})[0]
        with tempfile.TemporaryDirectory() as folder:
            emitted = emit_c(model, Path(folder) / "digits.c")
            exact, fused = (run(emitted, chosen, contract) for contract in ("off", "fast"))
        if exact.outputs.tobytes() != want.tobytes():
            print(f"{name}: outputs differ from the engine's by up to {np.abs(exact.outputs - want).max():.2e}")
            return 1
        error = float(np.abs(fused.outputs - want).max() / np.abs(want).max())
        if not error <= TOLERANCE:
            print(f"{name}: with fused multiplication and addition, outputs differ by {error:.2e} of the largest")
            return 1
        counts.append(fused.instructions)
        flash, memory = fused.code + fused.tables, fused.arena + fused.stack
        print(
            f"{name}: {len(chosen)} images, every bit of the engine's portable kernels; fused {error:.1e} of the largest output"
        )
        rows.append(
            f"| {name} | {fused.instructions:,.0f} | {exact.instructions:,.0f} | {flash:,} ({fused.code:,} code) | "
            f"{memory:,} ({fused.arena:,} arena, {fused.stack:,} stack) |"
        )
    print("| model | instructions an image, fused | not fused | flash, bytes | RAM, bytes |\n|---|---:|---:|---:|---:|")
    print("\n".join(rows))
    print(f"instructions, no zeros / 90 % zeros: {counts[1] / counts[0]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
