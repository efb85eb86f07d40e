"""One small int8 file on a processor without VNNI: onnxruntime has to give what the integer model of its sums gives.

``haswell.py write FOLDER`` quantises the file and writes what is expected; ``haswell.py check FOLDER`` is run under
``qemu-x86_64 -cpu Haswell``, and needs numpy and onnxruntime only.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

NAMES = ("portable", "full")
TOLERANCE = 1e-5  # of the largest output: sums are whole numbers, what differs is the float32 arithmetic around them


def write(folder: Path) -> None:
    """Two quantised files and, for each, the outputs with saturating sums; for the portable one these are the exact ones too."""
    import pair_sums
    from conftest import small_net

    from tdcompress.onnxfile.load import load_model, save_model
    from tdcompress.onnxfile.quantise import quantise_int8

    inputs = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    np.save(folder / "input.npy", inputs)
    save_model(small_net(0.0), folder / "m.onnx")
    for name in NAMES:
        quantise_int8(folder / "m.onnx", folder / f"{name}.onnx", inputs, weight_range=name)
        model = load_model(folder / f"{name}.onnx")
        outputs = pair_sums.evaluate(model, inputs, saturate=True)
        differ = not np.array_equal(outputs, pair_sums.evaluate(model, inputs, saturate=False))
        assert differ == (name == "full"), f"{name}: saturation {'changes' if differ else 'does not change'} the outputs"
        np.save(folder / f"{name}.npy", outputs)


def check(folder: Path) -> None:
    """Compare; exit with 1 where a file gives something else."""
    inputs = np.load(folder / "input.npy")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    failed = False
    for name in NAMES:
        session = ort.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        outputs, expected = session.run(None, {"input": inputs})[0], np.load(folder / f"{name}.npy")
        error = float(np.abs(outputs - expected).max() / np.abs(expected).max())
        failed |= error > TOLERANCE
        print(f"{'ok' if error <= TOLERANCE else 'FAILED'}  {name}: differs from the model of saturating sums by {error:.2g}")
    sys.exit(failed)


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
