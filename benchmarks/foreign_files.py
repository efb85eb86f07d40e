"""What `inspect`, `verify`, `pack` and the engine make of ONNX files that others published.

    pip download --no-deps -d wheels silero-vad rapidocr-onnxruntime nudenet   # packages that hold ONNX files
    for w in wheels/*.whl; do unzip -q $w '*.onnx' -d files/$(basename $w .whl); done
    python benchmarks/foreign_files.py files

Inputs are random; axes that a file leaves open are 1 for the batch and else `OPEN`, or what `SHAPES` has for the file. The table
is for docs/engine.md. A file that anything but an error of this package ends is marked RAW.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import tdcompress as tdc
from tdcompress.engine import Session
from tdcompress.errors import TdcompressError
from tdcompress.onnxfile.inspect import inspect_onnx
from tdcompress.onnxfile.verify import verify_onnx

OPEN = 64
SILERO = {"input": (1, 576), "state": (2, 1, 128)}
SHAPES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "silero_vad.onnx": SILERO,
    "silero_vad_16k_op15.onnx": SILERO,
    "silero_vad_half.onnx": SILERO,
    "silero_vad_op18_ifless.onnx": SILERO,
    "ch_PP-OCRv4_rec_infer.onnx": {"x": (1, 3, 48, 320)},
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": {"x": (1, 3, 48, 192)},
}
TYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
Arrays = dict[str, NDArray[np.generic]]


def attempt(what: Callable[[], str]) -> str:
    try:
        return what()
    except TdcompressError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # which is what this looks for
        return f"RAW {type(error).__name__}: {error}".splitlines()[0]


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def random_inputs(path: Path) -> Arrays:
    generator, inputs = np.random.default_rng(0), Arrays()
    for value in session(path).get_inputs():
        open_sizes = [size if isinstance(size, int) else (1 if axis == 0 else OPEN) for axis, size in enumerate(value.shape)]
        shape = SHAPES.get(path.name, {}).get(value.name, open_sizes)
        kind = TYPES[value.type]
        whole = np.full(shape, 16000 if value.name == "sr" else 1, kind)  # a rate of samples, or a byte or token
        inputs[value.name] = generator.standard_normal(shape).astype(kind) if kind is np.float32 else whole
    return inputs


def packed_as(path: Path, packed: Path, inputs: Arrays, outputs: list[NDArray[np.generic]]) -> str:
    tdc.pack_onnx(path, packed)
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(outputs, session(packed).run(None, inputs), strict=True))
    return f"{packed.stat().st_size / path.stat().st_size:.3f}, {'same bits' if same else 'OTHER BITS'}"


def engine_on(path: Path, inputs: Arrays, outputs: list[NDArray[np.generic]]) -> str:
    differences = []
    for ours, theirs in zip(Session(path).run(None, inputs), outputs, strict=True):
        differences.append(float(np.abs(ours - theirs).max() / max(1e-30, np.abs(theirs).max())))
    return f"runs, {max(differences):.0e}"


def checked(what: Callable[[Path], object], path: Path) -> str:
    what(path)
    return "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("| package | file | bytes | inspect, verify | pack: of its bytes, outputs | engine: difference / largest output |")
    print("|---|---|---:|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(folder.rglob("*.onnx")):
            inputs = random_inputs(path)
            outputs = session(path).run(None, inputs)
            cells = [
                path.relative_to(folder).parts[0],
                path.name,
                f"{path.stat().st_size:,}",
                ", ".join(attempt(lambda what=what, path=path: checked(what, path)) for what in (inspect_onnx, verify_onnx)),
                attempt(lambda path=path, i=inputs, o=outputs: packed_as(path, Path(scratch) / "packed.onnx", i, o)),
                attempt(lambda path=path, i=inputs, o=outputs: engine_on(path, i, o)),
            ]
            print(f"| {' | '.join(cells)} |".replace(f"{path}: ", ""), flush=True)


if __name__ == "__main__":
    main()
