"""The models of networks that this process has exported: files in other number formats begin with the same ones.

Tracing is most of an export's time. Models are kept as bytes, since whoever gets one may change it.
"""

from collections.abc import Callable, Hashable, Mapping

import onnx

BYTES_AT_MOST = 64 * 2**20
"""Of all models that are kept; the oldest go first. Tracing is a smaller part of the export of a larger network."""

_kept: dict[Hashable, dict[str, bytes]] = {}


def traced_once(network: Hashable, trace: Callable[[], Mapping[str, onnx.ModelProto]]) -> dict[str, onnx.ModelProto]:
    """The models of a network by the names of their files, each the caller's own.

    Args:
        network: all that they follow from.
        trace: makes them.
    """
    if network in _kept:
        return {name: onnx.ModelProto.FromString(content) for name, content in _kept[network].items()}
    made = dict(trace())
    if sum(proto.ByteSize() for proto in made.values()) <= BYTES_AT_MOST:
        _kept[network] = {name: proto.SerializeToString() for name, proto in made.items()}
        while sum(len(content) for files in _kept.values() for content in files.values()) > BYTES_AT_MOST:
            del _kept[next(iter(_kept))]
    return made
