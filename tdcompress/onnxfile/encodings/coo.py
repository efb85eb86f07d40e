"""ONNX's own sparse initializer: values and int64 flat positions (COO). It has no decoder, so it fits small weights.

onnxruntime refuses indices narrower than int64 at 16 bits and onnx.checker at 32, so a position costs 8 bytes. To onnx's strict
shape inference it is of type sparse_tensor, which no operator reads, though runtimes do: where that matters it is not used.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx

from tdcompress.errors import ModelError
from tdcompress.onnxfile.encodings.base import Room, Section, SectionKey, Weight, cast_node
from tdcompress.onnxfile.tensors import Array, from_array, nonzero, to_array


def decode_coo(sparse: onnx.SparseTensorProto, room: Room) -> Array:
    """The dense array of a sparse initializer from anyone; flat (N) or coordinate (N, rank) indices.

    Raises:
        ModelError: values, indices and shape do not fit, an index is out of range or not increasing, or no room.
    """
    name, shape = sparse.values.name, tuple(sparse.dims)
    values, indices = to_array(sparse.values), to_array(sparse.indices)
    if any(size <= 0 for size in shape) or values.ndim != 1 or indices.dtype != np.int64:
        raise ModelError(f"sparse weight {name!r}: shape {shape}, values {values.shape}, indices {indices.dtype}")
    total = math.prod(shape)
    room.take(total * values.dtype.itemsize, name)
    if indices.shape == (values.size, len(shape)):
        if indices.size and (indices.min() < 0 or np.any(indices >= np.array(shape))):
            raise ModelError(f"sparse weight {name!r} has an index outside its shape {shape}")
        indices = np.ravel_multi_index(tuple(indices.T), shape) if indices.size else indices.reshape(-1)
    if indices.shape != values.shape:
        raise ModelError(f"sparse weight {name!r} has {values.size} values but indices of shape {indices.shape}")
    if indices.size and (indices[0] < 0 or indices[-1] >= total or np.any(indices[1:] <= indices[:-1])):
        raise ModelError(f"sparse weight {name!r}: indices must increase from 0 or more to less than {total}")
    dense = np.zeros(total, values.dtype)
    dense[indices] = values
    return dense.reshape(shape)


class _Coo:
    infers = False
    shares = False

    def handicap(self, elements: int) -> float:
        return 0.0

    def holds(self, form: str) -> bool:
        return form == ""

    def write(self, weights: Sequence[Weight], key: SectionKey) -> Section:
        prefix = key.prefix if key.narrow else ""
        section = Section()
        for weight in weights:
            narrow = weight.array.astype(key.stored)
            positions = nonzero(narrow)
            section.sparse_initializers.append(
                onnx.SparseTensorProto(
                    values=from_array(narrow.reshape(-1)[positions], prefix + weight.name),
                    indices=from_array(positions, ""),
                    dims=weight.array.shape,
                )
            )
            if key.narrow:
                section.nodes.append(cast_node(prefix + weight.name, weight.name, key.dtype))
        return section

    def read(self, section: Section, key: SectionKey, room: Room) -> list[Weight]:
        return [
            Weight(name=sparse.values.name.removeprefix(key.prefix), array=decode_coo(sparse, room).astype(key.dtype))
            for sparse in section.sparse_initializers
        ]


COO = _Coo()
