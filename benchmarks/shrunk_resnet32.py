"""How fast a shrunk ResNet-32 is under onnxruntime, beside the dense network and beside the ideal.

The project's ResNet-32 with random weights (latency does not depend on them) loses units by magnitude, is shrunk and exported.
All files go into one benchmark: paired with the dense file in random order, in fresh processes, with the dense file against
itself as control. What is compared:

    ideal speed-up   = multiply-accumulates of the dense network / those of the shrunk one
    speed-up         = time of the dense file / time of the shrunk one
    reached          = speed-up / ideal speed-up, with the ends of the ratio's 95 % interval

"Inner" channels are those between the two convolutions of a residual unit, "stream" channels those between the units; both
are listed for the three stages, 32, 64 and 128 when dense. Three choices of units:

    inner   scope "layer", but only the first convolution of each residual unit: the stream keeps its width
    layer   scope "layer", all convolutions but the stem: a stream channel goes where all its writers happen to be pruned
    group   scope "group": inner and stream channels

Each with two alignments, which mean pruning's and shrinking's: 1, or 16, where pruning rounds up what each layer keeps, and
shrinking the widths that are left, so that a stream that lost one of 32 channels gets it back.

Target: at least 85 % reached with half of the inner channels ("inner" and "layer", kept 50 %).

    python benchmarks/shrunk_resnet32.py                            # quick: a few minutes
    python benchmarks/shrunk_resnet32.py --budget full              # about a quarter of an hour
    python benchmarks/shrunk_resnet32.py --operators                # instead: where the time goes, operator by operator
    python benchmarks/shrunk_resnet32.py --threads 2 --batch 8 --json report.json

Hardware, versions and load are printed with the table; the results that the documentation quotes, with theirs, are in
docs/shrink.md, section "Speed".
"""

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

import tdcompress as tdc
from tdcompress.bench.budget import BUDGETS
from tdcompress.bench.report import BenchReport, Latency
from tdcompress.bench.table import format_ms
from tdcompress.interface import Scope
from tdcompress.shrinking.report import ShrinkReport

KEPT_PERCENT = (50, 25, 10)
SCOPES: Mapping[str, Scope] = {"inner": "layer", "layer": "layer", "group": "group"}
ALIGNS = (1, 16)
TARGET = 0.85
PROFILED_CALLS = 200
COLUMNS = (
    "units",
    "align",
    "kept",
    "inner",
    "stream",
    "MACs",
    "time ratio (95 %)",
    "ideal",
    "speed-up",
    "reached (95 %)",
    "claim",
    "flags",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A shrunk network in a file."""

    units: str
    align: int
    kept_percent: int
    path: Path
    report: ShrinkReport

    @property
    def macs_share(self) -> float:
        """Multiply-accumulates that are left: 1 / ideal speed-up."""
        return self.report.macs_after / self.report.macs_before

    @property
    def label(self) -> str:
        """What the case is, for a line of its own."""
        return f"{self.units}, align {self.align}, kept {self.kept_percent} %"


def example() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def export_dense(folder: Path) -> Path:
    path = folder / "dense.onnx"
    tdc.export_onnx(tdc.build_model("resnet32", classes=10), example(), path)
    return path


def stream_writers(model: nn.Module) -> tuple[str, ...]:
    """The convolutions that write into the residual stream."""
    return tuple(name for name, _ in model.named_modules() if name.endswith((".conv2", ".projection")))


def export_case(folder: Path, units: str, align: int, kept_percent: int) -> Case:
    """Prune, shrink, export."""
    x = example()
    model = tdc.build_model("resnet32", classes=10)
    exclude = stream_writers(model) if units == "inner" else ()
    fraction = (100 - kept_percent) / 100
    tdc.prune(model, granularity="unit", fraction=fraction, example_inputs=x, exclude=exclude, scope=SCOPES[units], align=align)
    shrunk = tdc.shrink(model, x, align=align)
    path = folder / f"{units}_align{align}_kept{kept_percent}.onnx"
    tdc.export_onnx(shrunk.model, x, path)
    return Case(units=units, align=align, kept_percent=kept_percent, path=path, report=shrunk.report)


def export_cases(folder: Path) -> Iterator[Case]:
    for units in SCOPES:
        for align in ALIGNS:
            for kept_percent in KEPT_PERCENT:
                yield export_case(folder, units, align, kept_percent)


def widths(report: ShrinkReport, layer: str) -> str:
    """Channels that a layer of the residual units has left, stage by stage: "16/32/64", a range where units differ."""
    stages: defaultdict[int, list[int]] = defaultdict(list)
    for entry in report.layers:
        found = re.fullmatch(rf"stages\.(\d+)\.\d+\.{layer}", entry.name)
        if found:
            stages[int(found.group(1))].append(entry.units_after)
    spans = [(min(units), max(units)) for _, units in sorted(stages.items())]
    return "/".join(f"{low}" if low == high else f"{low}-{high}" for low, high in spans)


def reached(case: Case, latency: Latency) -> tuple[float, float, float]:
    """Speed-up / ideal speed-up: estimate, and the ends of its 95 % interval."""
    share = case.macs_share
    return share / latency.ratio_to_dense, share / latency.ratio_high, share / latency.ratio_low


def verdict(low: float, high: float) -> str:
    """Whether the interval of what was reached lies above the target, below it, or around it."""
    return "reached" if low >= TARGET else "missed" if high < TARGET else "not decided"


def table_row(case: Case, latency: Latency) -> tuple[str, ...]:
    share, low, high = reached(case, latency)
    return (
        case.units,
        str(case.align),
        f"{case.kept_percent} %",
        widths(case.report, "conv1"),
        widths(case.report, "conv2"),
        f"{case.macs_share:.4f}",
        f"{latency.ratio_to_dense:.3f} ({latency.ratio_low:.3f} to {latency.ratio_high:.3f})",
        f"{1 / case.macs_share:.2f}x",
        f"{1 / latency.ratio_to_dense:.2f}x",
        f"{share:.0%} ({low:.0%} to {high:.0%})",
        latency.claim,
        "; ".join(latency.flags) or "-",
    )


def print_row(cells: Sequence[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def print_report(report: BenchReport, cases: Sequence[Case]) -> None:
    host, control, protocol = report.host, report.control, report.protocol
    print(f"{host.cpu}, {host.cores} cores, {host.os}; {', '.join(host.versions)}, torch {torch.__version__}")
    print(f"budget {protocol.budget}, {protocol.processes} processes, {protocol.seconds:.0f} s, load average {host.load_average}")
    print(f"threads {control.threads}, batch {control.batch}, dense p50 {format_ms(control.p50_ns)} ms, against itself", end=" ")
    print(f"{control.ratio_to_dense:.3f} ({control.ratio_low:.3f} to {control.ratio_high:.3f}); {control.claim_reason}")
    print_row(COLUMNS)
    print_row(["---"] * len(COLUMNS))
    for case, latency in zip(cases, report.rows, strict=True):
        print_row(table_row(case, latency))
    for case, latency in zip(cases, report.rows, strict=True):
        if case.units != "group" and case.kept_percent == 50:
            share, low, high = reached(case, latency)
            print(f"target {TARGET:.0%} with {case.label}: {share:.0%} ({low:.0%} to {high:.0%}), {verdict(low, high)}")


def profile(path: Path, threads: int, batch: int) -> tuple[Counter[str], dict[str, float]]:
    """Operators that onnxruntime runs, and the median microseconds that all of one kind take in a call."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((batch, 3, 32, 32), dtype=np.float32)
    for _ in range(PROFILED_CALLS):
        session.run(None, {"input": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    calls: defaultdict[str, list[int]] = defaultdict(list)  # node -> microseconds of each call
    kinds: dict[str, str] = {}
    for event in events:
        if event["name"].endswith("_kernel_time"):
            calls[event["name"]].append(event["dur"])
            kinds[event["name"]] = event["args"]["op_name"]
    spent: defaultdict[str, float] = defaultdict(float)
    for node, microseconds in calls.items():
        spent[kinds[node]] += median(microseconds)
    return Counter(kinds.values()), dict(spent)


def print_operators(name: str, path: Path, threads: int, batch: int) -> None:
    counts, spent = profile(path, threads, batch)
    parts = [f"{count} {kind} {spent[kind]:.0f} us" for kind, count in sorted(counts.items(), key=lambda item: -spent[item[0]])]
    print(f"{name}: {sum(spent.values()):.0f} us: {', '.join(parts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=sorted(BUDGETS), default="quick")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--operators", action="store_true", help="profile each file by operator instead of the benchmark")
    parser.add_argument("--json", type=Path, help="where the benchmark's report goes, raw times included")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        dense = export_dense(Path(folder))
        cases = list(export_cases(Path(folder)))
        if arguments.operators:
            print_operators("dense", dense, arguments.threads, arguments.batch)
            for case in cases:
                print_operators(case.label, case.path, arguments.threads, arguments.batch)
            return
        report = tdc.benchmark(
            [case.path for case in cases],
            baseline=dense,
            threads=arguments.threads,
            batch=arguments.batch,
            budget=arguments.budget,
        )
    print_report(report, cases)
    if arguments.json:
        arguments.json.write_text(report.to_json())


if __name__ == "__main__":
    main()
