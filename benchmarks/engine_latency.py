"""The engine against onnxruntime fp32 on the same dense network, interleaved.

Every process builds the sessions and times pairs in random order (AB or BA); the estimate and its 95 % interval are those of
`tdcompress bench` (tdcompress/bench/statistics.py), widened by a control: the reference against a second session of itself.
"x4.8" means: the dense network's time under onnxruntime divided by 4.8. Outputs are compared before anything is timed.
`--clock cpu` counts the process's processor time instead of wall time: on a machine that other programs use at the same
time, wall time favours whichever call is too short to be interrupted. `--table` runs every row of a table in
docs/engine.md and prints it as Markdown: that of the papers' networks, or with `--table networks` that of users' networks.
`--reference openvino` (or openvino-fp32) takes OpenVINO instead of onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from counts import PAIRS, PROCESSES
from engine_networks import NETWORKS, resnet32
from fresh import printed

from tdcompress.bench.statistics import Ratio, measure_ratio, widened_by_control

CLOCKS: dict[str, Callable[[], int]] = {"wall": time.perf_counter_ns, "cpu": time.process_time_ns}


def build(case: str) -> tuple[bytes, bytes]:
    """(pruned, dense) files of a case: "resnet32@0.9", or "resnet32/0.1" for inner channels a tenth."""
    if "/" in case:
        name, inner = case.split("/")
        assert name == "resnet32"
        small = resnet32(inner=float(inner))
        return small, small
    name, zeros = case.split("@")
    return NETWORKS[name].build(float(zeros)), NETWORKS[name].build(0.0)


def shape(case: str) -> tuple[int, ...]:
    """Of one input of a case."""
    return NETWORKS[case.replace("/", "@").split("@")[0]].shape


def onnxruntime_session(model: bytes, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # By default its threads spin during a call, and for 40 ms after it: then they would hold a core while the engine runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnxruntime_call(model: bytes, threads: int, feed: dict[str, np.ndarray]) -> Callable[[], object]:
    session = onnxruntime_session(model, threads)
    return lambda: session.run(None, feed)


def openvino_call(model: bytes, threads: int, feed: dict[str, np.ndarray], precision: str | None) -> Callable[[], object]:
    """One stream; precision None: the machine's own choice, bf16 where it has AMX."""
    import openvino

    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads)}
    if precision:
        settings["INFERENCE_PRECISION_HINT"] = precision
    network = core.read_model(model)
    network.reshape({name: list(array.shape) for name, array in feed.items()})
    compiled = core.compile_model(network, "CPU", settings)
    print(
        f"openvino {openvino.__version__}, {compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()}", file=sys.stderr
    )
    request = compiled.create_infer_request()
    return lambda: request.infer(feed)


REFERENCES: dict[str, Callable[[bytes, int, dict[str, np.ndarray]], Callable[[], object]]] = {
    "onnxruntime": onnxruntime_call,
    "openvino": lambda model, threads, feed: openvino_call(model, threads, feed, None),
    "openvino-fp32": lambda model, threads, feed: openvino_call(model, threads, feed, "f32"),
}


def time_pairs(
    case: str, batch: int, threads: int, pairs: int, isa: str | None, clock: Callable[[], int], warm: bool, reference: str
) -> dict[str, object]:
    """Runs in its own process: (engine ns, reference ns) of every pair, and (second reference ns, reference ns)."""
    from tdcompress.engine import Session

    pruned, dense = build(case)
    x = np.random.default_rng(0).standard_normal((batch, *shape(case))).astype(np.float32)
    feed = {"input": x}
    engine, same = Session(pruned, threads, isa=isa), onnxruntime_session(pruned, 1)
    got, want = engine.run(None, feed)[0], same.run(None, feed)[0]
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), "the outputs differ"
    beside, copy = (REFERENCES[reference](dense, threads, feed) for _ in range(2))
    subjects = {"samples": (lambda: engine.run(None, feed), beside), "control": (copy, beside)}
    for calls in subjects.values():
        for call in calls * 10:
            call()
    timed: dict[str, list[list[int]]] = {name: [] for name in subjects}
    for _ in range(pairs):
        for name in random.sample(list(subjects), len(subjects)):
            pair = [0, 0]
            for which in random.sample((0, 1), 2):
                call = subjects[name][which]
                if warm:
                    call()
                start = clock()
                call()
                pair[which] = clock() - start
            timed[name].append(pair)
    return {**timed, "memory": dict(engine.memory_bytes()), "isa": engine.instruction_set}


def peak_memory(case: str, backend: str) -> int:
    """Peak bytes of a process that loads a file and runs one image."""
    if backend == "engine":
        from tdcompress.engine import Session

        run = Session(build(case)[0]).run
    else:
        run = onnxruntime_session(build(case)[1], 1).run
    run(None, {"input": np.zeros((1, *shape(case)), np.float32)})
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def times_as_fast(processes: list[np.ndarray]) -> Ratio:
    """Second column / first column, from the (pairs, 2) ns of each process."""
    return measure_ratio([pairs[:, 1] / pairs[:, 0] for pairs in processes], generator=np.random.default_rng(0))


def child(arguments: list[str]) -> str:
    return printed([sys.executable, __file__, *arguments])


PAPERS = [
    *((f"resnet32@{zeros}", 1, 1) for zeros in ("0.0", "0.5", "0.75", "0.9", "0.95", "0.99")),
    ("resnet32/0.1", 1, 1),
    ("lenet5@0.9", 1, 1),
    ("vgg16@0.0", 1, 1),
    ("vgg16@0.9", 1, 1),
    *((f"resnet32@{zeros}", 32, 2) for zeros in ("0.5", "0.75", "0.9", "0.95", "0.99")),
]
TABLES = {
    "papers": PAPERS,
    "networks": [(f"{name}@0.9", 1, 1) for name in ("mobilenet_v2", "resnet50", "transformer", "transformer_base")],
}
"""(case, batch, threads) of every row of the tables in docs/engine.md."""


def measure(case: str, batch: int, threads: int, options: argparse.Namespace) -> tuple[str, list[dict[str, object]]]:
    """One row of a Markdown table, from fresh processes, and their raw times."""
    arguments = [case, "--child", "pairs", "--batch", str(batch), "--threads", str(threads), "--pairs", str(options.pairs)]
    arguments += ["--clock", options.clock, "--reference", options.reference]
    arguments += (["--warm"] if options.warm else []) + (["--isa", options.isa] if options.isa else [])
    results = [json.loads(child(arguments)) for _ in range(options.processes)]
    processes, controls = ([np.array(result[name], float) for result in results] for name in ("samples", "control"))
    control = times_as_fast(controls)
    found = widened_by_control(times_as_fast(processes), control)
    engine, reference = (float(np.median(np.concatenate([samples[:, i] for samples in processes]))) / 1e3 for i in (0, 1))
    kept = sum(results[0]["memory"].values()) / 1e6
    row = (
        f"| {case} | {batch} | {threads} | x{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] "
        f"| {control.value:.3f} [{control.low:.3f}, {control.high:.3f}] | {engine:.0f} | {reference:.0f} | {kept:.2f} |"
    )
    return row, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"NETWORK@ZEROS of {', '.join(NETWORKS)}; resnet32/0.1 (inner channels a tenth)")
    parser.add_argument("--table", nargs="?", const="papers", choices=list(TABLES), help="every row of a table in docs/engine.md")
    parser.add_argument("--reference", choices=list(REFERENCES), default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=PAIRS, default=80, help="of each process, a multiple of 10")
    parser.add_argument("--processes", type=PROCESSES, default=8)
    parser.add_argument("--json", type=Path, help="keep the raw times in this file")
    parser.add_argument("--isa")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--warm", action="store_true", help="an untimed call before each timed one: repeated calls of one model")
    parser.add_argument("--memory", action="store_true", help="peak memory of fresh processes instead of latency")
    parser.add_argument("--child", choices=["pairs", "engine", "onnxruntime"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if bool(options.table) == bool(options.cases):
        parser.error("name cases, or give --table")
    if options.child == "pairs":
        samples = time_pairs(
            options.cases[0],
            options.batch,
            options.threads,
            options.pairs,
            options.isa,
            CLOCKS[options.clock],
            options.warm,
            options.reference,
        )
        print(json.dumps(samples))
        return
    if options.child:
        print(peak_memory(options.cases[0], options.child))
        return
    rows = TABLES[options.table] if options.table else [(case, options.batch, options.threads) for case in options.cases]
    if options.memory:
        for case in dict.fromkeys(case for case, _, _ in rows):
            engine, reference = (int(child([case, "--child", backend])) for backend in ("engine", "onnxruntime"))
            print(f"{case}: peak {engine / 1e6:.0f} MB, onnxruntime (dense) {reference / 1e6:.0f} MB", flush=True)
        return
    print(f"{platform.platform()}; Python {platform.python_version()}; numpy {np.__version__}; {options.clock} time; ", end="")
    print(f"{options.processes} processes x {options.pairs} pairs; load {os.getloadavg()[0]:.1f}\n")
    print(f"| case | batch | threads | faster than {options.reference}, dense ", end="")
    print("| against itself | engine us | reference us | arena + tables MB |")
    print("|---|---|---|---|---|---|---|---|")
    raw = []
    for case, batch, threads in rows:
        row, processes = measure(case, batch, threads, options)
        print(row, flush=True)
        raw.append({"case": case, "batch": batch, "threads": threads, "processes": processes})
        if options.json:
            options.json.write_text(json.dumps(raw))


if __name__ == "__main__":
    main()
