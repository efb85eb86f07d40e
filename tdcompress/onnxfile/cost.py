"""What a weight and a decoder add to a file, in bytes: measured by writing them, not by formulas that could drift."""

import numpy as np

from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.encodings.base import Key, Weight


def own_bytes(weight: Weight, key: Key) -> int:
    """Bytes that one weight adds to a file which has the section's decoder already."""
    if key.encoding == "dense":
        return _bytes([weight], key)
    anchor = _anchor(key, (1,))
    return _bytes([anchor, weight], key) - _bytes([anchor], key)


def shared_bytes(key: Key) -> int:
    """Bytes of a section's decoder, without any weight."""
    if key.encoding == "dense":
        return 0
    anchor = _anchor(key, (1,))
    return _bytes([anchor], key) - own_bytes(_anchor(key, (1, 1)), key)


def _anchor(key: Key, shape: tuple[int, ...]) -> Weight:
    return Weight(name="w", array=np.ones(shape, key.dtype))


def _bytes(weights: list[Weight], key: Key) -> int:
    return ENCODINGS[key.encoding].write(weights, key).n_bytes()
