"""Sparse weights as scipy CSR in one .npz: bit-exact, smallest index types on disk, validated before any arithmetic.

Each array of the file is ``<name>|<part>``: a matrix (O, fan_in) has the parts data, indices, indptr and shape. What would gain
nothing (biases, affines, dense matrices) has the part dense. scipy's ``save_npz`` holds one matrix and does not validate.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tdcompress.arguments import checked
from tdcompress.errors import ModelError
from tdcompress.files import StrPath
from tdcompress.npz import read_npz, write_npz

Array = NDArray[Any]
MAX_BYTES = 8 << 30
_PARTS = {"dense"}, {"data", "indices", "indptr", "shape"}
_KINDS = "fiub"
_INDEX_TYPES = (np.uint8, np.uint16, np.uint32, np.uint64)


def save_arrays(arrays: Mapping[str, Array], path: Path) -> int:
    """Write weights; each matrix as CSR where that is smaller, dense otherwise.

    Args:
        arrays: name -> array of any shape; a convolution's (O, I, H, W) is stored as (O, I*H*W) rows.
        path: the .npz file, published whole.

    Returns:
        Bytes on disk.

    Raises:
        ModelError: an array that is not of finite numbers, a name with a "|" in it, or a file that cannot be written.
    """
    parts: dict[str, Array] = {}
    for name, array in arrays.items():
        if "|" in name:
            raise ModelError(f"{path}: the tensor name {name!r} has a '|' in it, which this format uses itself; rename it")
        if array.dtype.kind not in _KINDS:
            raise ModelError(f"{path}: tensor {name!r} is of type {array.dtype}, not of numbers or booleans")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(f"{path}: tensor {name!r} has values that are not finite; train it again")
        for part, values in _encode(array).items():
            parts[f"{name}|{part}"] = values
    try:
        write_npz(path, parts, compress=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path.stat().st_size


@checked
def load_sparse(path: StrPath) -> dict[str, csr_array | Array]:
    """Read weights: a CSR matrix of (O, fan_in) rows where one was stored, an array otherwise.

    Raises:
        ModelError: not such a file, or one whose content is not consistent.
    """
    return {name: sparse for name, (sparse, _) in _load(Path(path)).items()}


def load_dense(path: Path) -> dict[str, Array]:
    """Read weights as dense arrays of their original shapes, bit for bit as they were saved.

    Raises:
        ModelError: as for ``load_sparse``.
    """
    return {
        name: _densify(value).reshape(shape) if isinstance(value, csr_array) else value
        for name, (value, shape) in _load(path).items()
    }


def _encode(array: Array) -> dict[str, Array]:
    dense = {"dense": np.asarray(array, order="C")}
    if array.dtype.kind != "f" or array.ndim < 2 or array.size == 0:
        return dense
    matrix = np.ascontiguousarray(array).reshape(array.shape[0], -1)
    kept = matrix.view(f"u{array.itemsize}") != 0  # by bits: a negative zero is a value
    rows, columns = np.nonzero(kept)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=matrix.shape[0]))])
    sparse = {
        "data": matrix[kept],
        "indices": columns.astype(_smallest(matrix.shape[1])),
        "indptr": indptr.astype(_smallest(int(indptr[-1]))),
        "shape": np.array(array.shape, dtype=np.uint64),
    }
    return sparse if sum(part.nbytes for part in sparse.values()) < array.nbytes else dense


def _smallest(largest: int) -> type[np.unsignedinteger[Any]]:
    return next(kind for kind in _INDEX_TYPES if largest <= np.iinfo(kind).max)


def _densify(matrix: csr_array) -> Array:
    # not toarray(): adding to zeros turns a stored -0.0 into 0.0
    dense = np.zeros(matrix.shape, dtype=matrix.dtype)
    dense[np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices] = matrix.data
    return dense


def _load(path: Path) -> dict[str, tuple[csr_array | Array, tuple[int, ...]]]:
    arrays = read_npz(path, "file of sparse weights", at_most=MAX_BYTES)
    tensors: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        name, bar, part = key.rpartition("|")
        if not bar:
            raise ModelError(f"{path}: array {key!r} is not of this format (name|part)")
        tensors.setdefault(name, {})[part] = array
    loaded: dict[str, tuple[csr_array | Array, tuple[int, ...]]] = {}
    left = MAX_BYTES  # of all tensors together, dense
    for name, parts in tensors.items():
        if set(parts) not in _PARTS:
            raise ModelError(f"{path}: tensor {name!r} has the parts {sorted(parts)}, not those of this format")
        if "dense" in parts:
            dense = parts["dense"]
            if dense.dtype.kind not in _KINDS or (dense.dtype.kind == "f" and not np.isfinite(dense).all()):
                raise ModelError(f"{path}: tensor {name!r}: not all of its values are finite numbers; the file is damaged")
            loaded[name] = dense, dense.shape
        else:
            loaded[name] = _check_csr(path, name, left, **parts)
            left -= math.prod(loaded[name][1]) * parts["data"].itemsize
    return loaded


def _check_csr(
    path: Path, name: str, left: int, data: Array, indices: Array, indptr: Array, shape: Array
) -> tuple[csr_array, tuple[int, ...]]:
    def refuse(problem: str) -> ModelError:
        return ModelError(f"{path}: tensor {name!r}: {problem}; the file is damaged")

    if data.ndim != 1 or indices.ndim != 1 or indptr.ndim != 1 or shape.ndim != 1:
        raise refuse("its parts are not one-dimensional")
    if data.dtype.kind != "f" or any(part.dtype.kind != "u" for part in (indices, indptr, shape)):
        raise refuse("its parts are not of the types of this format")
    sizes = tuple(int(size) for size in shape)
    if len(sizes) < 2 or min(sizes) < 1:
        raise refuse(f"shape {sizes}")
    rows, columns = sizes[0], math.prod(sizes[1:])
    if rows * columns * data.itemsize > left:
        raise refuse(f"shape {sizes} is too large: all tensors together may have {MAX_BYTES} bytes")
    starts = indptr.astype(np.int64)
    if len(starts) != rows + 1 or starts[0] != 0 or starts[-1] != len(data) or (np.diff(starts) < 0).any():
        raise refuse("indptr does not run from 0 to the number of values")
    if len(indices) != len(data) or (len(indices) and int(indices.max()) >= columns):
        raise refuse("an index lies outside its row")
    places = indices.astype(np.int64)
    first_of_row = np.zeros(len(places), dtype=bool)
    first_of_row[starts[:-1][starts[:-1] < len(places)]] = True
    if len(places) > 1 and not ((np.diff(places) > 0) | first_of_row[1:]).all():
        raise refuse("the indices of a row do not increase")
    if not np.isfinite(data).all():
        raise refuse("a value is not finite")
    return csr_array((data, places, starts), shape=(rows, columns)), sizes
