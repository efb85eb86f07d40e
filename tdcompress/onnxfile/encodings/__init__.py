"""How one weight is kept in an ONNX file. Adding an encoding = one new file + one line in `ENCODINGS`."""

from collections.abc import Mapping

from tdcompress.onnxfile.encodings.base import Encoding
from tdcompress.onnxfile.encodings.bitmask import BITMASK
from tdcompress.onnxfile.encodings.coo import COO
from tdcompress.onnxfile.encodings.dense import DENSE
from tdcompress.onnxfile.encodings.gap4 import GAP4
from tdcompress.onnxfile.encodings.gap6 import GAP6
from tdcompress.onnxfile.encodings.gap8 import GAP8
from tdcompress.onnxfile.encodings.rice import RICE1, RICE3, RICE4, RICE6
from tdcompress.onnxfile.encodings.step4 import STEP4
from tdcompress.onnxfile.encodings.steps import STEPS

ENCODINGS: Mapping[str, Encoding] = {
    "dense": DENSE,
    "sparse_initializer": COO,
    "gap8": GAP8,
    "gap6": GAP6,
    "gap4": GAP4,
    "rice6": RICE6,
    "rice4": RICE4,
    "rice3": RICE3,
    "rice1": RICE1,
    "step4": STEP4,
    "steps": STEPS,
    "bitmask": BITMASK,
}
