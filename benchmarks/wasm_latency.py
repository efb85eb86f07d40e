"""The engine's WebAssembly module against onnxruntime-web, one thread each, in the same page of headless Chromium.

Pairs of blocks, in turn in a random order, in fresh browsers; the ratio of times and its interval are those of `tdcompress bench`
(tdcompress/bench/statistics.py). Needs the ziglang and playwright wheels, Chromium, and the npm package onnxruntime-web:

    npm install --prefix FOLDER onnxruntime-web
    python benchmarks/wasm_latency.py FOLDER/node_modules/onnxruntime-web
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from counts import PAIRS, PROCESSES
from engine_networks import resnet32
from playwright.sync_api import Route, sync_playwright

from tdcompress.bench.host import read_host
from tdcompress.bench.statistics import measure_ratio
from tdcompress.engine import compile_model

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "demo"))
import demo_page  # noqa: E402

ORIGIN = "https://benchmark.test/"  # answered by this program: nothing is sent
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}  # for a clock of 5 us
SCRIPT = """async ([module, plan, model, shape, pairs, blockMs]) => {
    const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const { Model } = await import("./tdcompress.js");
    const ours = await Model.load(bytes(module), bytes(plan));
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = location.origin + "/";
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    const theirs = await ort.InferenceSession.create(bytes(model), options);
    const x = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 2 * Math.random() - 1);
    const feed = { [theirs.inputNames[0]]: new ort.Tensor("float32", x, shape) };
    const output = theirs.outputNames[0];
    const [got, want] = [ours.run([x])[0], (await theirs.run(feed))[output].data];
    const largest = Math.max(...want.map(Math.abs));
    const error = Math.max(...want.map((value, i) => Math.abs(value - got[i]))) / largest;
    const calls = [() => ours.run([x]), () => theirs.run(feed)];
    const block = async (which, runs) => {
        const start = performance.now();
        for (let i = 0; i < runs; i++) await calls[which]();
        return (performance.now() - start) / runs;
    };
    const runs = [1, 1];
    for (const which of [0, 1]) {
        const end = performance.now() + 500; // the browser compiles hot code anew meanwhile
        let latest = 0;
        while (performance.now() < end) latest = await block(which, 3);
        runs[which] = Math.max(1, Math.round(blockMs / latest));
    }
    const times = [];
    for (let pair = 0; pair < pairs; pair++) {
        const row = [0, 0], first = Math.random() < 0.5 ? 0 : 1;
        for (const which of [first, 1 - first]) row[which] = await block(which, runs[which]);
        times.push(row);
    }
    return { times, error, isolated: crossOriginIsolated };
}"""


def answer(route: Route, folder: Path) -> None:
    """A file of onnxruntime-web, the engine's script, or an empty page."""
    name = route.request.url.removeprefix(ORIGIN)
    path = ROOT / "docs" / "demo" / name if name == "tdcompress.js" else folder / "dist" / name
    if name == "":
        route.fulfill(body="<!doctype html><script src='ort.wasm.min.js'></script>", content_type="text/html", headers=ISOLATED)
    else:
        kind = "application/wasm" if path.suffix == ".wasm" else "text/javascript"
        route.fulfill(body=path.read_bytes(), headers={**ISOLATED, "Content-Type": kind})


def time_pairs(
    folder: Path, module: bytes, plan: bytes, model: bytes, shape: list[int], options: argparse.Namespace
) -> np.ndarray:
    """Milliseconds an image of ours and theirs, (pairs, 2), in a fresh browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
        page = browser.new_page()
        page.route(ORIGIN + "**", lambda route: answer(route, folder))
        page.goto(ORIGIN)
        encoded = [base64.b64encode(part).decode() for part in (module, plan, model)]
        found = page.evaluate(SCRIPT, [*encoded, shape, options.pairs, options.block_ms])
        browser.close()
    assert found["isolated"], "the page is not isolated: its clock is coarse"
    assert found["error"] <= 1e-5, found["error"]
    return np.array(found["times"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="node_modules/onnxruntime-web")
    parser.add_argument("--browsers", type=PROCESSES, default=4)
    parser.add_argument("--pairs", type=PAIRS, default=40, help="of each browser, a multiple of 10")
    parser.add_argument("--block-ms", type=float, default=10)
    options = parser.parse_args()
    version = json.loads((options.folder / "package.json").read_text(encoding="utf-8"))["version"]
    print(f"{read_host().cpu}; onnxruntime-web {version}; {options.browsers} browsers of {options.pairs} pairs")
    networks = {
        "digits, 90 %": (demo_page.MODEL.read_bytes(), [1, 1, 8, 8]),
        "ResNet-32, 90 %": (resnet32(0.9), [1, 3, 32, 32]),
        "ResNet-32, dense": (resnet32(0.0), [1, 3, 32, 32]),
    }
    for name, (model, shape) in networks.items():
        with tempfile.TemporaryDirectory() as folder:
            compile_model(model, Path(folder) / "model.tdc", isa=demo_page.ISA)
            plan = (Path(folder) / "model.tdc").read_bytes()
        times = [
            time_pairs(options.folder, demo_page.embedded("module"), plan, model, shape, options) for _ in range(options.browsers)
        ]
        ratio = measure_ratio([pairs[:, 1] / pairs[:, 0] for pairs in times], generator=np.random.default_rng(0))
        ours, theirs = 1000 * np.median(np.concatenate(times), axis=0)
        print(f"| {name} | {ours:.0f} | {theirs:.0f} | x{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] |", flush=True)


if __name__ == "__main__":
    main()
