"""What a packed file costs: bytes beside the bound, and the time that onnxruntime takes longer to load it.

Networks are the project's ResNet-32 with random weights, pruned by magnitude and exported; only bytes and loading are
measured, which do not depend on training. Loading the dense file and each packed one is interleaved in random order, one
session each, in fresh processes, so that what else the machine does falls on all; the difference to the dense file is taken
within a round. Estimate and 95 % interval are those of `tdcompress bench` (tdcompress/bench/statistics.py) on a scale of
milliseconds, widened by what a copy of the dense file differs from it. Each packed file's optimised graph is compared with
the dense file's, operator for operator, before anything is timed.

    python benchmarks/pack_load.py --processes 8 --rounds 10
    python benchmarks/pack_load.py --encodings      # bytes, if all pruned weights took one encoding
    python benchmarks/pack_load.py --formats        # bytes of each number format
    python benchmarks/pack_load.py --int8           # bytes of quantised files
    python benchmarks/pack_load.py --operators      # which operators onnxruntime folds when it loads a file
    python benchmarks/pack_load.py --matrices       # processor time and peak memory of loading 30 million weights

The results that the documentation quotes are in docs/packing.md.
"""

import argparse
import platform
import random
import shutil
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
from counts import PAIRS, PROCESSES
from onnx import helper, numpy_helper

from tdcompress.bench.statistics import measure
from tdcompress.bench.worker import peak_rss_bytes
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.inspect import inspect_onnx
from tdcompress.onnxfile.load import load_model, save_model
from tdcompress.onnxfile.pack import pack_onnx
from tdcompress.onnxfile.quantise import quantise_int8
from tdcompress.onnxfile.reports import PackValues, Prefer
from tdcompress.onnxfile.weights import stored_weights

COPY = "dense, again"
VARIANTS: tuple[tuple[PackValues, Prefer], ...] = (
    ("float32", "speed"),
    ("float32", "size"),
    ("float16", "speed"),
    ("float16", "size"),
)


def options(threads: int) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    return settings


def load_seconds(path: Path, threads: int) -> tuple[float, float]:
    """(wall, processor) seconds; the second does not count what other processes take."""
    start = time.perf_counter(), time.process_time()
    session = ort.InferenceSession(str(path), options(threads), providers=["CPUExecutionProvider"])
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    del session
    return seconds


def operators_run(path: Path) -> Counter[str]:
    """Operator -> nodes in what onnxruntime makes of a file."""
    settings = options(1)
    settings.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(settings.optimized_model_filepath).graph.node)


Interval = tuple[float, float, float]
Seconds = dict[str, list[tuple[float, float]]]


def interval(processes: list[np.ndarray]) -> Interval:
    """(estimate, low, high) of differences, an array for each process."""
    return measure(processes, generator=np.random.default_rng(0))


def in_words(found: Interval, control: Interval) -> str:
    """An interval, wider by the control's estimate."""
    value, low, high = found
    off = abs(control[0])
    return f"{value:+.1f} ({low - off:+.1f} to {high + off:+.1f})"


def load_rounds(files: dict[str, Path], rounds: int, threads: int, seed: int) -> Seconds:
    """What a fresh process does: load every file in every round, in random order."""
    seconds: Seconds = {name: [] for name in files}
    shuffle = random.Random(seed)
    for turn in range(rounds + 2):
        for name in shuffle.sample(sorted(files), len(files)):
            taken = load_seconds(files[name], threads)
            if turn >= 2:  # the first two warm the disk cache and the allocator
                seconds[name].append(taken)
    return seconds


def exported_resnet32(sparsity: float, path: Path) -> None:
    """The dense file, weights pruned by magnitude, the same number in every filter."""
    import torch

    from tdcompress.export.to_onnx import to_model_proto
    from tdcompress.interface import prune
    from tdcompress.models.registry import build_model

    model = build_model("resnet32", classes=10, seed=0)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # of a trained network: nothing is 0 or 1
            for vector in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert vector is not None
                vector.uniform_(0.5, 1.5, generator=generator)
    if sparsity:
        prune(model, granularity="weight", fraction=sparsity)
    save_model(to_model_proto(model.eval(), torch.zeros(2, 3, 32, 32)), path)


def print_loads(folder: Path, sparsity: float, processes: int, rounds: int, threads: int) -> None:
    dense = folder / "dense.onnx"
    exported_resnet32(sparsity, dense)
    files = {"dense": dense, COPY: Path(shutil.copy(dense, folder / "copy.onnx"))}
    for values, prefer in VARIANTS:
        files[f"{values}, {prefer}"] = folder / f"{values}_{prefer}.onnx"
        pack_onnx(dense, files[f"{values}, {prefer}"], values=values, prefer=prefer)
    wanted = operators_run(dense)
    for name, path in files.items():
        if operators_run(path) != wanted:
            raise SystemExit(f"{name}: the optimised graph differs from the dense file's")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        found = list(fresh.map(load_rounds, *zip(*((files, rounds, threads, seed) for seed in range(processes)), strict=True)))
    more = {
        name: tuple(
            interval([1e3 * (np.array(seconds[name]) - np.array(seconds["dense"]))[:, clock] for seconds in found])
            for clock in (0, 1)
        )
        for name in files
    }
    for name, path in files.items():
        report = inspect_onnx(path)
        encodings = Counter(tensor.encoding for tensor in report.tensors if len(tensor.shape) == 4)
        wall, processor = (in_words(more[name][clock], more[COPY][clock]) for clock in (0, 1))
        loads = [load for seconds in found for load, _ in seconds[name]]
        print(
            f"| {100 * sparsity:.0f} % | {name} | {' '.join(f'{k}:{v}' for k, v in sorted(encodings.items()))} "
            f"| {report.file_bytes:,} | {report.ratio_to_bound:.3f} | {report.gzip_bytes:,} "
            f"| {1e3 * float(np.median(loads)):.1f} | {wall} | {processor} |"
        )


def print_encodings(folder: Path, sparsities: list[float]) -> None:
    """File bytes / bound, if every pruned weight took one and the same encoding."""
    print("| encoding | " + " | ".join(f"{100 * sparsity:.0f} %" for sparsity in sparsities) + " |")
    print("|---|" + "---|" * len(sparsities))
    rows: dict[str, list[str]] = {name: [] for name in ENCODINGS}
    for sparsity in sparsities:
        exported_resnet32(sparsity, folder / "dense.onnx")
        report = inspect_onnx(folder / "dense.onnx")
        weights = stored_weights(load_model(folder / "dense.onnx"))
        pruned = [weight for weight in weights if weight.array.ndim == 4 and np.any(weight.array == 0)]
        key = pruned[0].key
        without = report.file_bytes - ENCODINGS["dense"].write(pruned, key).n_bytes()
        for name, encoding in ENCODINGS.items():
            total = without + encoding.write(pruned, replace(key, encoding=name)).n_bytes()
            rows[name].append(f"{total / report.bound_bytes:.3f}")
    for name, ratios in rows.items():
        print(f"| {name} | {' | '.join(ratios)} |")


def print_formats(folder: Path, sparsities: list[float]) -> None:
    """Bytes, and their ratio to each format's own bound, a table for each preference."""
    formats = get_args(PackValues)
    for prefer in get_args(Prefer):
        print(f"prefer = {prefer}\n\n| zeros | {' | '.join(formats)} |\n|{'---|' * (len(formats) + 1)}")
        for sparsity in sparsities:
            exported_resnet32(sparsity, folder / "dense.onnx")
            cells = []
            for values in formats:
                pack_onnx(folder / "dense.onnx", folder / "packed.onnx", values=values, prefer=prefer)
                report = inspect_onnx(folder / "packed.onnx")
                cells.append(f"{report.file_bytes:,} ({report.ratio_to_bound:.3f})")
            print(f"| {100 * sparsity:.0f} % | {' | '.join(cells)} |", flush=True)
        print()


def print_int8(folder: Path, sparsities: list[float]) -> None:
    """Bytes of the quantised file, plain and packed; calibrated on random images, so that errors mean nothing here."""
    print("| zeros | dense float32 | packed float32 | int8 | int8 packed | zeros before | zeros after |")
    print("|---|---|---|---|---|---|---|")
    images = np.random.default_rng(0).standard_normal((32, 3, 32, 32)).astype(np.float32)
    dense, other = folder / "dense.onnx", folder / "other.onnx"
    for sparsity in sparsities:
        exported_resnet32(sparsity, dense)
        packed = pack_onnx(dense, other).file_bytes
        plain = quantise_int8(dense, other, images, pack=False).file_bytes
        report = quantise_int8(dense, other, images)
        before, after = (f"{100 * count / report.elements:.2f} %" for count in (report.zeros_before, report.zeros_after))
        print(
            f"| {100 * sparsity:.0f} % | {dense.stat().st_size:,} | {packed:,} | {plain:,} | {report.file_bytes:,} "
            f"| {before} | {after} |"
        )


def matrices(sparsity: float, *, even: bool) -> onnx.ModelProto:
    """A chain of 30 matrices of 1024 x 1024, random and pruned by magnitude: in each row alike, or in the whole matrix."""
    size, count, generator = 1024, 30, np.random.default_rng(0)
    nodes, initializers = [], []
    for number in range(count):
        array = generator.standard_normal((size, size)).astype(np.float32)
        rows = array if even else array.reshape(1, -1)
        gone = int(sparsity * rows.shape[1])
        rows[np.abs(rows) < np.partition(np.abs(rows), gone, axis=1)[:, gone : gone + 1]] = 0
        initializers.append(numpy_helper.from_array(array, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"]))
    ends = [helper.make_tensor_value_info(f"x{number}", onnx.TensorProto.FLOAT, ["batch", size]) for number in (0, count)]
    graph = helper.make_graph(nodes, "matrices", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def load_cost(path: Path) -> tuple[float, float]:
    """(processor seconds, peak MB of the process): for a fresh one."""
    _, seconds = load_seconds(path, 1)
    return seconds, (peak_rss_bytes() or 0) / 1e6


def print_matrices(folder: Path, sparsities: list[float], rounds: int) -> None:
    """In turns, so that what else the machine does falls on all."""
    files = {}
    for sparsity in sparsities:
        for even in (True, False):
            name = f"{100 * sparsity:.0f} %, {'as many in every row' if even else 'anywhere'}"
            files[f"{name}: dense"], files[f"{name}: packed"] = (
                folder / f"{len(files)}{kind}.onnx" for kind in ("dense", "packed")
            )
            save_model(matrices(sparsity, even=even), files[f"{name}: dense"])
            pack_onnx(files[f"{name}: dense"], files[f"{name}: packed"])
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in files}
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        for _ in range(rounds):
            for name, path in files.items():
                costs[name].append(fresh.submit(load_cost, path).result())
    print("| file | encodings | bytes | ratio to bound | processor s to load | peak MB |")
    print("|---|---|---|---|---|---|")
    for name, path in files.items():
        report = inspect_onnx(path)
        seconds, peaks = zip(*costs[name], strict=True)
        ranges = f"{min(seconds):.2f} to {max(seconds):.2f} | {min(peaks):.0f} to {max(peaks):.0f}"
        print(
            f"| {name} | {' '.join(sorted(report.encodings))} | {report.file_bytes:,} | {report.ratio_to_bound:.3f} | {ranges} |"
        )


def print_folding() -> None:
    """One operator on constants, then a Mul with the input: gone from the optimised graph means folded."""
    random_bits = np.random.default_rng(0).random(64) < 0.5
    for dtype in (np.float32, np.float16):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        constants = {
            "values": np.ones(64, dtype),
            "zero": np.zeros(1, dtype),
            "zeros": np.zeros(64, dtype),
            "bits": random_bits,
            "places": np.arange(64),
        }
        candidates = {
            "Compress": [helper.make_node("Compress", ["values", "bits"], ["w"], axis=0)],
            "NonZero": [
                helper.make_node("NonZero", ["bits"], ["where"]),
                helper.make_node("Gather", ["values", "where"], ["w"]),
            ],
            "Where": [helper.make_node("Where", ["bits", "values", "zero"], ["w"])],
            "Gather": [helper.make_node("Gather", ["values", "places"], ["w"])],
            "ScatterElements": [helper.make_node("ScatterElements", ["zeros", "places", "values"], ["w"])],
        }
        for name, nodes in candidates.items():
            graph = helper.make_graph(
                [*nodes, helper.make_node("Mul", ["x", "w"], ["y"])],
                "folding",
                [helper.make_tensor_value_info("x", kind, [1])],
                [helper.make_tensor_value_info("y", kind, ["n"] if name != "NonZero" else ["one", "n"])],
                [numpy_helper.from_array(array, key) for key, array in constants.items()],
            )
            with TemporaryDirectory() as folder:
                path = Path(folder) / "m.onnx"
                save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
                folded = name not in operators_run(path)
            print(f"| {name} | {np.dtype(dtype).name} | {'folded' if folded else 'run on every call'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="bytes and load time of packed files")
    parser.add_argument("--processes", type=PROCESSES, default=8)
    parser.add_argument("--rounds", type=PAIRS, default=10, help="in each process, a multiple of 10")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sparsity", type=float, nargs="*", default=[0.5, 0.75, 0.9, 0.95, 0.99])
    parser.add_argument("--operators", action="store_true", help="only print which operators are folded")
    parser.add_argument("--encodings", action="store_true", help="only print bytes by encoding")
    parser.add_argument("--matrices", action="store_true", help="only print what loading 30 million weights takes")
    parser.add_argument("--formats", action="store_true", help="only print bytes by number format")
    parser.add_argument("--int8", action="store_true", help="only print bytes of quantised files")
    arguments = parser.parse_args()
    print(f"onnxruntime {ort.__version__}, onnx {onnx.__version__}, Python {platform.python_version()}, {platform.machine()}")
    if arguments.operators:
        print_folding()
        return
    with TemporaryDirectory() as folder:
        if arguments.encodings:
            print_encodings(Path(folder), arguments.sparsity)
            return
        if arguments.matrices:
            print_matrices(Path(folder), arguments.sparsity, arguments.rounds)
            return
        if arguments.formats:
            print_formats(Path(folder), arguments.sparsity)
            return
        if arguments.int8:
            print_int8(Path(folder), arguments.sparsity)
            return
    print("| zeros | file | 4-D weights | bytes | ratio to bound | gzip | load ms | more, ms (95 %) | more processor ms (95 %) |")
    print("|---|---|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for sparsity in arguments.sparsity:
            print_loads(Path(folder), sparsity, arguments.processes, arguments.rounds, arguments.threads)


if __name__ == "__main__":
    main()
