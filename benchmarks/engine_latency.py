"""The engine against onnxruntime fp32 on the same dense network, interleaved.

Every process builds both sessions and times pairs in random order (AB or BA); the estimate is the geometric mean over
processes of the median pair ratio, with a 95 % interval from a bootstrap over processes and blocks of ten pairs.
"x4.8" means: the dense network's time under onnxruntime divided by 4.8. Outputs are compared before anything is timed.
`--clock cpu` counts the process's processor time instead of wall time: on a machine that other programs use at the same
time, wall time favours whichever call is too short to be interrupted. Results: docs/engine.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from engine_networks import NETWORKS, resnet32

SHAPE = (3, 32, 32)
CLOCKS: dict[str, Callable[[], int]] = {"wall": time.perf_counter_ns, "cpu": time.process_time_ns}


def build(case: str) -> tuple[bytes, bytes]:
    """(pruned, dense) files of a case: "resnet32@0.9", or "resnet32/0.1" for inner channels a tenth."""
    if "/" in case:
        name, inner = case.split("/")
        assert name == "resnet32"
        small = resnet32(inner=float(inner))
        return small, small
    name, zeros = case.split("@")
    return NETWORKS[name](float(zeros)), NETWORKS[name](0.0)


def onnxruntime_session(model: bytes, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def time_pairs(
    case: str, batch: int, threads: int, pairs: int, isa: str | None, clock: Callable[[], int], warm: bool
) -> dict[str, object]:
    """Runs in its own process: (engine ns, onnxruntime ns) of every pair."""
    from tdcompress.engine import Session

    pruned, dense = build(case)
    x = np.random.default_rng(0).standard_normal((batch, *SHAPE)).astype(np.float32)
    feed = {"input": x}
    engine, same, reference = (
        Session(pruned, threads, isa=isa),
        onnxruntime_session(pruned, 1),
        onnxruntime_session(dense, threads),
    )
    got, want = engine.run(None, feed)[0], same.run(None, feed)[0]
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), "the outputs differ"
    calls = (lambda: engine.run(None, feed), lambda: reference.run(None, feed))
    for call in calls * 10:
        call()
    samples = []
    for _ in range(pairs):
        pair = [0, 0]
        order = [0, 1]
        random.shuffle(order)
        for which in order:
            if warm:
                calls[which]()
            start = clock()
            calls[which]()
            pair[which] = clock() - start
        samples.append(pair)
    return {"samples": samples, "memory": dict(engine.memory_bytes()), "isa": engine.instruction_set}


def peak_memory(case: str, backend: str) -> int:
    """Peak bytes of a process that loads a file and runs one image."""
    if backend == "engine":
        from tdcompress.engine import Session

        run = Session(build(case)[0]).run
    else:
        run = onnxruntime_session(build(case)[1], 1).run
    run(None, {"input": np.zeros((1, *SHAPE), np.float32)})
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def estimate(processes: list[np.ndarray], draws: int = 2000) -> tuple[float, float, float]:
    """(ratio, low, high): how many times faster the engine is. processes: per process (pairs, 2) ns."""
    logs = [np.log(samples[:, 1] / samples[:, 0]) for samples in processes]
    point = float(np.exp(np.mean([np.median(log) for log in logs])))
    rng = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        medians = []
        for index in rng.integers(0, len(logs), len(logs)):
            blocks = logs[index][: len(logs[index]) // 10 * 10].reshape(-1, 10)
            medians.append(np.median(blocks[rng.integers(0, len(blocks), len(blocks))]))
        means.append(np.mean(medians))
    low, high = np.exp(np.percentile(means, [2.5, 97.5]))
    return point, float(low), float(high)


def child(arguments: list[str]) -> str:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"a measurement failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def main() -> None:
    zeros = ("0.0", "0.5", "0.75", "0.9", "0.95", "0.99")
    cases = [*(f"resnet32@{z}" for z in zeros), "resnet32/0.1", "lenet5@0.9", "vgg16@0.9"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=cases)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--isa")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--warm", action="store_true", help="an untimed call before each timed one: repeated calls of one model")
    parser.add_argument("--memory", action="store_true", help="peak memory of fresh processes instead of latency")
    parser.add_argument("--child", choices=["pairs", "engine", "onnxruntime"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "pairs":
        print(
            json.dumps(
                time_pairs(
                    options.cases[0],
                    options.batch,
                    options.threads,
                    options.pairs,
                    options.isa,
                    CLOCKS[options.clock],
                    options.warm,
                )
            )
        )
        return
    if options.child:
        print(peak_memory(options.cases[0], options.child))
        return
    print(
        f"{platform.platform()}; Python {platform.python_version()}; numpy {np.__version__}; "
        f"batch {options.batch}, threads {options.threads}, {options.clock} time"
    )
    shared = [
        "--batch",
        str(options.batch),
        "--threads",
        str(options.threads),
        "--pairs",
        str(options.pairs),
        "--clock",
        options.clock,
    ]
    if options.warm:
        shared.append("--warm")
    if options.isa:
        shared += ["--isa", options.isa]
    for case in options.cases:
        if options.memory:
            engine, reference = (int(child([case, "--child", backend])) for backend in ("engine", "onnxruntime"))
            print(f"{case}: peak {engine / 1e6:.0f} MB, onnxruntime (dense) {reference / 1e6:.0f} MB")
            continue
        results = [json.loads(child([case, "--child", "pairs", *shared])) for _ in range(options.processes)]
        processes = [np.array(result["samples"], float) for result in results]
        ratio, low, high = estimate(processes)
        engine, reference = (float(np.median(np.concatenate([samples[:, i] for samples in processes]))) / 1e3 for i in (0, 1))
        kept = sum(results[0]["memory"].values())
        print(
            f"{case}: x{ratio:.2f} [{low:.2f}, {high:.2f}]; engine {engine:.1f} us, onnxruntime {reference:.1f} us; "
            f"arena + tables {kept / 1e6:.2f} MB; {results[0]['isa']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
