"""A translator in the engine against onnxruntime fp32 on the same dense network: tokens/s, in pairs of whole translations.

The network is that of pipelines/multi30k_transformer.toml with random weights: width 128, hidden 512, 4 heads, 3 + 3 layers,
4,000 pieces. Its small weights become zeros where the paper prunes: query, key and value projections and feed-forward layers. A
call is a translation as `tdcompress bench` times it (tdcompress/bench/workloads/translation.py): the encoder once and the decoder
step for each token, as many tokens as the sentence has pieces. What the tokens are does not matter to the time.

Every process builds the sessions and times pairs in random order; the estimate and its 95 % interval are those of `tdcompress
bench`, widened by a control, onnxruntime against a second session of itself. Logits are compared before anything is timed. What a
plan for another length costs is measured alone, beside the time of one step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from counts import PAIRS, PROCESSES
from fresh import printed

from tdcompress.bench.statistics import measure_ratio, widened_by_control
from tdcompress.engine import Session
from tdcompress.onnxfile.runtime import open_session
from tdcompress.text.search import greedy
from tdcompress.text.translator import OnnxDecoder

PIECES, WIDTH, HIDDEN, HEADS, LAYERS = 4000, 128, 512, 4, 3
SHARES = (0.0, 0.9)
FILES = ("encoder", "step")
CLOCKS: dict[str, Callable[[], int]] = {"wall": time.perf_counter_ns, "cpu": time.process_time_ns}


def export(folder: Path) -> None:
    """Encoder and decoder step at each share of zeros; the only part that needs torch."""
    import torch

    import tdcompress as tdc
    from tdcompress.export.to_onnx import to_model_proto
    from tdcompress.models.transformer import Transformer
    from tdcompress.models.translator_parts import DecoderStep, Encoder
    from tdcompress.onnxfile.load import save_model
    from tdcompress.text.vocabulary import BEGIN, END, PAD

    torch.manual_seed(0)
    net = Transformer(PIECES, WIDTH, HIDDEN, HEADS, LAYERS, LAYERS, 0.0, True, True, False).eval()
    source, token = torch.tensor([[4, 5, 6, END], [7, 8, END, PAD]]), torch.full((2,), BEGIN)
    tokens, on_source, on_past = {0: "batch", 1: "source"}, {0: "batch", 2: "source"}, {0: "batch", 2: "past"}
    for share in SHARES:
        if share:
            tdc.prune(net, fraction=share)
        encoder, step = Encoder(net).eval(), DecoderStep(net).eval()
        with torch.no_grad():
            memory = encoder(source)
        past = [torch.randn(2, each.shape[1], 3, each.shape[3]) for each in memory.values()]
        names = ("token", "source", *memory, *(name.replace("source", "past") for name in memory))
        axes = ({0: "batch"}, tokens, *[on_source] * len(memory), *[on_past] * len(memory))
        save_model(to_model_proto(encoder, (source,), names=("source",), axes=(tokens,)), folder / f"encoder@{share}.onnx")
        save_model(
            to_model_proto(step, (token, source, *memory.values(), *past), names=names, axes=axes), folder / f"step@{share}.onnx"
        )


def by_onnxruntime(folder: Path, share: float, threads: int) -> OnnxDecoder:
    return OnnxDecoder(*(open_session(onnx.load(folder / f"{file}@{share}.onnx"), threads=threads) for file in FILES))


def by_engine(folder: Path, share: float, threads: int, isa: str | None) -> OnnxDecoder:
    return OnnxDecoder(*(Session(folder / f"{file}@{share}.onnx", threads, isa=isa) for file in FILES))


def planning_us(decoder: OnnxDecoder, source: np.ndarray) -> tuple[float, float]:
    """Medians, in microseconds: the plan for a length that was not asked for before, and a whole step."""
    program = next(program for program in decoder._step._growing.values() if program is not None)
    instance = program._arguments[0].instance()  # one that nothing runs
    instance.at((source.shape[1], 300))
    plans, steps = [], []
    for length in range(1, 300):
        start = time.perf_counter_ns()
        instance.at((source.shape[1], length))
        plans.append(time.perf_counter_ns() - start)
    state, token = decoder.start(source), np.full(len(source), 2)
    for _ in range(source.shape[1]):
        start = time.perf_counter_ns()
        _, state = decoder.logits(token, state)
        steps.append(time.perf_counter_ns() - start)
    return float(np.median(plans)) / 1e3, float(np.median(steps)) / 1e3


def time_pairs(options: argparse.Namespace) -> dict[str, object]:
    """Runs in its own process: (engine ns, onnxruntime ns) of every pair, and (second onnxruntime ns, onnxruntime ns)."""
    source = np.random.default_rng(0).integers(4, PIECES, (options.batch, options.pieces))
    source[:, -1] = 3
    engine = by_engine(options.folder, options.child, options.threads, options.isa)
    same = by_onnxruntime(options.folder, options.child, 1)
    found = [decoder.logits(np.full(options.batch, 2), decoder.start(source))[0] for decoder in (engine, same)]
    assert np.abs(found[0] - found[1]).max() <= 1e-5 * np.abs(found[1]).max(), "the logits differ"
    dense, copy = (by_onnxruntime(options.folder, 0.0, options.threads) for _ in range(2))
    limits, clock = np.full(options.batch, options.pieces), CLOCKS[options.clock]

    def call(decoder: OnnxDecoder) -> None:
        greedy(decoder, decoder.start(source), limits, ends=False)

    subjects = {"samples": (engine, dense), "control": (copy, dense)}
    for decoders in subjects.values():
        for decoder in decoders * 3:
            call(decoder)
    timed: dict[str, list[list[int]]] = {name: [] for name in subjects}
    for _ in range(options.pairs):
        for name in random.sample(list(subjects), len(subjects)):
            pair = [0, 0]
            for which in random.sample((0, 1), 2):
                start = clock()
                call(subjects[name][which])
                pair[which] = clock() - start
            timed[name].append(pair)
    return {**timed, "planning": planning_us(engine, source)}


def measured(share: float, folder: Path, options: argparse.Namespace) -> str:
    """A row of the table, from fresh processes."""
    command = [sys.executable, __file__, "--child", str(share), "--folder", str(folder), "--pairs", str(options.pairs)]
    command += ["--batch", str(options.batch), "--pieces", str(options.pieces), "--threads", str(options.threads)]
    command += ["--clock", options.clock, *(["--isa", options.isa] if options.isa else [])]
    results = [json.loads(printed(command)) for _ in range(options.processes)]
    pairs, controls = ([np.array(result[name], float) for result in results] for name in ("samples", "control"))
    generator = np.random.default_rng(0)
    control = measure_ratio([each[:, 1] / each[:, 0] for each in controls], generator=generator)
    faster = widened_by_control(measure_ratio([each[:, 1] / each[:, 0] for each in pairs], generator=generator), control)
    tokens = options.batch * options.pieces
    engine, reference = (tokens * 1e9 / float(np.median(np.concatenate([each[:, i] for each in pairs]))) for i in (0, 1))
    plan, step = (float(np.median([result["planning"][i] for result in results])) for i in (0, 1))
    ratio = f"x{faster.value:.2f} [{faster.low:.2f}, {faster.high:.2f}] | {control.value:.3f}"
    speeds = f"{engine:,.0f} | {reference:,.0f} | {plan:.0f} | {step:.0f}"
    return f"| {100 * share:.0f} % | {options.batch} | {options.threads} | {ratio} | {speeds} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1, help="sentences of a call")
    parser.add_argument("--pieces", type=int, default=15, help="of each sentence, its end counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=PAIRS, default=40, help="of each process, a multiple of 10")
    parser.add_argument("--processes", type=PROCESSES, default=8)
    parser.add_argument("--isa")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--folder", type=Path, help="where the files are kept; default: a temporary folder")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(time_pairs(options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not all((folder / f"{file}@{share}.onnx").is_file() for file in FILES for share in SHARES):
            export(folder)
        print(
            f"{platform.platform()}; Python {platform.python_version()}; numpy {np.__version__}; {options.clock} time; ", end=""
        )
        print(f"{options.processes} processes x {options.pairs} pairs; load {os.getloadavg()[0]:.1f}\n")
        print("| zeros | batch | threads | faster than onnxruntime, dense | against itself ", end="")
        print("| engine tokens/s | onnxruntime tokens/s | a new length, us | a step, us |")
        print("|---|---|---|---|---|---|---|---|---|")
        for share in SHARES:
            print(measured(share, folder, options), flush=True)


if __name__ == "__main__":
    main()
