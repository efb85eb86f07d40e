"""Runs the engine of an installed wheel where no compiler can be found: python wheel_run.py SITE. See wheels.sh."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from tdcompress.engine import Session
from tdcompress.engine.binding import Library
from tdcompress.engine.build import PACKAGED, find_compiler, library_path
from tdcompress.processor import read_processor

model = Path(__file__).parents[2] / "docs" / "demo" / "digits.onnx"
x = np.random.default_rng(0).standard_normal((5, 1, 8, 8)).astype(np.float32)
(want,) = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(None, {"input": x})
(got,) = Session(model).run(None, {"input": x})
assert PACKAGED.is_relative_to(Path(sys.argv[1]))
assert library_path().parent == PACKAGED
assert find_compiler() == ("/nowhere/cc",)
assert not Path(os.environ["TDCOMPRESS_CACHE"]).exists()
assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
found = [isa.name for isa in Library().instruction_sets]
flags = set(read_processor().flags)
assert ("avx2" in found) == ({"avx2", "fma"} <= flags), (found, flags)  # the compiler's own answer was wrong with zig
assert ("avx512" in found) == ({"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags), (found, flags)
print(f"instruction sets: {', '.join(found)}")
print(f"{library_path().name} of the wheel: no compiler, nothing compiled, outputs as onnxruntime's")
