"""Check kernels of another processor: plan here, run there (or under an emulator), compare with onnxruntime.

Usage: python tests/engine/cross.py ISA RUNNER... where RUNNER is the command that runs the compiled cross_main.c, e.g.
`neon qemu-aarch64 ./cross_main`. See neon.sh and wheels.sh.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import helper

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests" / "support"), str(ROOT / "benchmarks")]
from conftest import TOLERANCE, run_reference  # noqa: E402
from engine_networks import lenet5, resnet32  # noqa: E402
from plan_seeds import rows  # noqa: E402
from small_models import make_model  # noqa: E402

from tdcompress.engine import compile_model  # noqa: E402


def cases() -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Name -> (model, input shape)."""
    found: dict[str, tuple[bytes, tuple[int, ...]]] = {}
    for zeros in (0.0, 0.9):
        found[f"resnet32@{zeros}"] = resnet32(zeros), (2, 3, 32, 32)
        found[f"lenet5@{zeros}"] = lenet5(zeros), (2, 3, 32, 32)
    rng = np.random.default_rng(0)
    found["rows, resizing, selection"] = rows(9, 11), (2, 6, 9, 11)
    for number in range(60):
        groups, kernel = int(rng.choice([1, 1, 2, 4])), rng.integers(1, 5, 2).tolist()
        size = (rng.integers(5, 40, 2)).tolist()
        shape = (groups * int(rng.integers(1, 6)), int(rng.integers(1, 4)), *kernel)
        w = (rng.standard_normal(shape) * (rng.random(shape) < rng.choice([0.05, 0.3, 1.0]))).astype(np.float32)
        act = str(rng.choice(["Relu", "HardSwish", "Sigmoid", "Tanh", "LeakyRelu", "Softmax"]))
        nodes = [
            helper.make_node(
                "Conv",
                ["x", "w"],
                ["c"],
                group=groups,
                pads=rng.integers(0, 3, 4).tolist(),
                strides=rng.integers(1, 3, 2).tolist(),
            ),
            helper.make_node(act, ["c"], ["a"]),
            helper.make_node("MaxPool", ["a"], ["y"], kernel_shape=[2, 2], pads=[1, 0, 0, 1]),
        ]
        found[f"conv {number} {shape} {size} {act}"] = (
            make_model(nodes, {"w": w}, {"x": ["b", groups * shape[1], *size]}),
            (
                2,
                groups * shape[1],
                *size,
            ),
        )
    return found


def main(isa: str, runner: list[str]) -> int:
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, shape) in cases().items():
            path = Path(folder) / "model.tdc"
            compiled = compile_model(model, path, isa=isa)
            x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
            want = run_reference(model, {compiled.inputs[0].name: x})[0]
            done = subprocess.run([*runner, str(len(x)), str(path)], input=x.tobytes(), capture_output=True, check=False)
            if done.returncode != 0 or len(done.stdout) != want.nbytes:
                print(f"{name}: the runner failed with {done.returncode}: {done.stderr.decode()[-300:]}")
                return 1
            got = np.frombuffer(done.stdout, np.float32).reshape(want.shape)
            error = float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-30))
            worst = max(worst, error)
            if not error <= TOLERANCE:
                print(f"{name}: differs by {error:.2e} of the largest output")
                return 1
    print(f"{isa}: {len(cases())} models agree with onnxruntime; largest difference {worst:.1e} of the largest output")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
