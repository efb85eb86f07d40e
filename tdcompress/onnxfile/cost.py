"""What a weight and a decoder add to a file, in bytes: measured by writing them, not by formulas that could drift."""

import numpy as np

from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.encodings.base import SectionKey, Weight


def own_bytes(weight: Weight, key: SectionKey, beside: tuple[int, ...] = (1,)) -> int:
    """Bytes that a weight adds to a file which has the decoder, and weights of shape `beside`, already.

    Args:
        weight: the tensor.
        key: how it is stored.
        beside: shape of the others.
    """
    if key.encoding == "dense":
        return _bytes([weight], key)
    anchors = [Weight(name="w", array=np.ones(beside, key.dtype))] * 2
    return _bytes([*anchors, weight], key) - _bytes(anchors, key)


def shared_bytes(key: SectionKey) -> int:
    """Bytes of a section's decoder, without any weight."""
    if key.encoding == "dense":
        return 0
    anchor = Weight(name="w", array=np.ones(1, key.dtype))
    return _bytes([anchor, anchor], key) - 2 * own_bytes(anchor, key)


def _bytes(weights: list[Weight], key: SectionKey) -> int:
    return ENCODINGS[key.encoding].write(weights, key).n_bytes()
