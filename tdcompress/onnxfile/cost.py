"""What a weight and a decoder add to a file, in bytes: measured by writing them, not by formulas that could drift."""

import numpy as np

from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.encodings.base import SectionKey, Weight


def own_bytes(weight: Weight, key: SectionKey, beside: tuple[int, ...] = (1,)) -> int:
    """Bytes that a weight adds to a file which has the decoder, and weights of shape `beside`, already.

    Args:
        weight: the tensor.
        key: how it is stored.
        beside: shape of the others; where weights share no decoder there is one like this weight.
    """
    if not ENCODINGS[key.encoding].shares:
        name = ("x" if set(weight.name) != {"x"} else "y") * len(weight.name)
        return _bytes([weight, Weight(name=name, array=weight.array)], key) - _bytes([weight], key)
    anchors = [Weight(name="w", array=np.ones(beside, key.dtype))] * 2
    return _bytes([*anchors, weight], key) - _bytes(anchors, key)


def alone_bytes(weight: Weight, key: SectionKey) -> int:
    """Bytes that a weight adds to a file which has none like it, its decoder included."""
    return _bytes([weight], key)


def shared_bytes(key: SectionKey) -> int:
    """Bytes of a section's decoder, without any weight."""
    anchor = Weight(name="w", array=np.ones(1, key.dtype))
    if not ENCODINGS[key.encoding].shares:
        return _bytes([anchor], key) - own_bytes(anchor, key)
    return _bytes([anchor, anchor], key) - 2 * own_bytes(anchor, key)


def _bytes(weights: list[Weight], key: SectionKey) -> int:
    return ENCODINGS[key.encoding].write(weights, key).n_bytes()
