"""Check kernels of another processor: plan here, run there (or under an emulator), compare with onnxruntime.

Usage: python tests/engine/cross.py RUNNER... where RUNNER is the command that runs the compiled cross_main.c, e.g.
`qemu-aarch64 ./cross_main`. See neon.sh.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import helper

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "benchmarks")]
from conftest import TOLERANCE, make_model, run_reference  # noqa: E402
from engine_networks import lenet5, resnet32  # noqa: E402

from tdcompress.engine.binding import OPERATIONS, ConvOp, InstructionSet, TapGroup  # noqa: E402
from tdcompress.engine.plan import Plan, make_plan  # noqa: E402
from tdcompress.engine.read import read_graph  # noqa: E402

NEON = InstructionSet(index=0, name="neon", max_block=4, dense_filters=4, linear_lanes=False)


def write_plan(plan: Plan, inputs: list[np.ndarray], output_bytes: list[int], path: Path) -> None:
    """The file that cross_main.c reads: memory blocks, and the words in them that are addresses in one of them."""
    starts = [int(block.ctypes.data) for block in plan.blocks]

    def place(address: int) -> tuple[int, int] | None:
        """(block, bytes from its start) of an address."""
        for number, (start, block) in enumerate(zip(starts, plan.blocks, strict=True)):
            if start <= address < start + block.nbytes:
                return number, address - start
        return None

    fixes: dict[int, list[int]] = {number: [] for number in range(len(plan.blocks) + 1)}

    def fix(number: int, start: int, data: bytes) -> None:
        """Note the addresses among the words of a structure that lies `start` bytes into block `number`."""
        for word, value in enumerate(struct.unpack(f"<{len(data) // 8}q", data)):
            if target := place(value):
                fixes[number] += [start + 8 * word, *target]

    fix(len(plan.blocks), 0, bytes(plan.ops))
    kinds = [structure for _, structure in OPERATIONS.values()]
    for op in plan.ops[: plan.op_count]:
        descriptor = kinds[op.kind].from_address(op.descriptor)
        fix(*place(op.descriptor), bytes(descriptor))
        if isinstance(descriptor, ConvOp) and descriptor.group_count:
            groups = ctypes.addressof(descriptor.groups.contents)
            fix(*place(groups), ctypes.string_at(groups, descriptor.group_count * ctypes.sizeof(TapGroup)))
    with path.open("wb") as file:
        numbers = [len(plan.blocks) + 1, plan.op_count, plan.arena_elements, len(inputs[0]), len(inputs), len(output_bytes)]
        numbers += [*(array.nbytes for array in inputs), *output_bytes]
        file.write(struct.pack(f"<{len(numbers)}q", *numbers))
        for array in inputs:
            file.write(array.tobytes())
        for number, data in enumerate([*(block.tobytes() for block in plan.blocks), bytes(plan.ops)]):
            file.write(struct.pack("<q", len(data)) + data)
            file.write(struct.pack(f"<{1 + len(fixes[number])}q", len(fixes[number]) // 3, *fixes[number]))


def rows_model() -> bytes:
    """Kernels that no network above has: rows of the input, resizing, a comparison, selection, the least."""
    nodes = [
        helper.make_node("Gather", ["x", "picked"], ["a"], axis=1),
        helper.make_node("Resize", ["a", "", "scales"], ["b"], mode="linear"),
        helper.make_node("Less", ["b", "low"], ["c"]),
        helper.make_node("Where", ["c", "low", "b"], ["d"]),
        helper.make_node("ReduceMin", ["d", "axes"], ["e"]),
        helper.make_node("Sub", ["d", "e"], ["y"]),
    ]
    constants = {
        "picked": np.array([5, 0, 0, 3]),
        "scales": np.array([1, 1, 2, 1.5], np.float32),
        "low": np.array([[[-0.25]]], np.float32),
        "axes": np.array([1]),
    }
    return make_model(nodes, constants, {"x": ["b", 6, 9, 11]}, opset=19)


def cases() -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Name -> (model, input shape)."""
    found: dict[str, tuple[bytes, tuple[int, ...]]] = {}
    for zeros in (0.0, 0.9):
        found[f"resnet32@{zeros}"] = resnet32(zeros), (2, 3, 32, 32)
        found[f"lenet5@{zeros}"] = lenet5(zeros), (2, 3, 32, 32)
    rng = np.random.default_rng(0)
    found["rows, resizing, selection"] = rows_model(), (2, 6, 9, 11)
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


def main(runner: list[str]) -> int:
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, shape) in cases().items():
            graph = read_graph(model)
            x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
            plan = make_plan(graph, {graph.inputs[0].name: shape[1:]}, None, NEON)
            want = run_reference(model, {graph.inputs[0].name: x})[0]
            path = Path(folder) / "plan.bin"
            write_plan(plan, [x], [want.nbytes], path)
            done = subprocess.run([*runner, str(path)], capture_output=True, check=False)
            if done.returncode != 0 or len(done.stdout) != want.nbytes:
                print(f"{name}: the runner failed with {done.returncode}: {done.stderr.decode()[-300:]}")
                return 1
            got = np.frombuffer(done.stdout, np.float32).reshape(want.shape)
            error = float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-30))
            worst = max(worst, error)
            if not error <= TOLERANCE:
                print(f"{name}: differs by {error:.2e} of the largest output")
                return 1
    print(f"{len(cases())} models agree with onnxruntime; largest difference {worst:.1e} of the largest output")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
