import io
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tdcompress.errors import ModelError
from tdcompress.storage.csr import load_dense, load_sparse, save_arrays


def identical(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def sparse_matrix(shape, share=0.9, seed=0, dtype=np.float32):
    generator = np.random.default_rng(seed)
    array = generator.standard_normal(shape).astype(dtype)
    array[generator.random(shape) < share] = 0
    return array


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.npz"


def test_a_hand_computed_matrix(path):
    array = np.zeros((3, 40), dtype=np.float32)
    array[0, 2], array[0, 30], array[2, 1] = 1.5, -2.5, 3.5
    assert save_arrays({"w": array, "bias": np.array([0.0, 1.0], dtype=np.float32)}, path) == path.stat().st_size
    with np.load(path, allow_pickle=False) as stored:
        assert sorted(stored.files) == ["bias|dense", "w|data", "w|indices", "w|indptr", "w|shape"]
        np.testing.assert_array_equal(stored["w|data"], np.array([1.5, -2.5, 3.5], dtype=np.float32))
        np.testing.assert_array_equal(stored["w|indices"], [2, 30, 1])
        np.testing.assert_array_equal(stored["w|indptr"], [0, 2, 2, 3])
        assert stored["w|indices"].dtype == stored["w|indptr"].dtype == np.uint8
    loaded = load_sparse(path)
    assert isinstance(loaded["w"], scipy.sparse.csr_array)
    np.testing.assert_array_equal(loaded["w"].toarray(), array)
    np.testing.assert_array_equal(loaded["w"] @ np.ones(40), [-1.0, 0.0, 3.5])
    assert identical(loaded["bias"], np.array([0.0, 1.0], dtype=np.float32))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 50), np.float32),
        np.full((4, 50), -0.0, np.float32),
        np.where(np.arange(200).reshape(4, 50) % 9 == 0, -0.0, 0.0).astype(np.float32),
        np.where(np.arange(200).reshape(4, 50) % 9 == 0, 1e-42, 0.0).astype(np.float32),  # denormal
        sparse_matrix((8, 3, 5, 5)),
        sparse_matrix((8, 3, 5, 5), dtype=np.float64),
        sparse_matrix((8, 300), dtype=np.float16),
        sparse_matrix((5, 70000), share=0.999),
        sparse_matrix((300, 7), share=0.99),
        sparse_matrix((4, 50), share=0.0),
        np.zeros((0, 5), np.float32),
        np.zeros((5, 0), np.float32),
        np.array(7, dtype=np.int64),
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.array([True, False]),
        np.asfortranarray(sparse_matrix((30, 40))),
        sparse_matrix((60, 40))[::2, ::2],
        sparse_matrix((6, 40)).astype(">f4"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back_bit_for_bit(path, array):
    save_arrays({"x": array, "y.z": np.ones(3)}, path)
    loaded = load_dense(path)
    assert identical(loaded["x"], array)
    assert identical(loaded["y.z"], np.ones(3))
    load_sparse(path)


finite = {"allow_nan": False, "allow_infinity": False}


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6),
        fill=st.just(0.0),
        elements=st.floats(width=16, **finite) | st.just(-0.0),
    )
)
def test_any_finite_array_comes_back_bit_for_bit(array):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        save_arrays({"x": array}, path)
        assert identical(load_dense(path)["x"], np.ascontiguousarray(array))


@given(st.integers(1, 12), st.integers(1, 300), st.floats(0.0, 1.0), st.integers(0, 1000))
def test_the_same_matrix_as_scipys(rows, columns, share, seed):
    array = sparse_matrix((rows, columns), share, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        save_arrays({"x": array}, path)
        ours = load_sparse(path)["x"]
    theirs = scipy.sparse.csr_array(array)
    if isinstance(ours, np.ndarray):  # dense was smaller
        assert identical(ours, array)
        return
    ours.check_format(full_check=True)
    assert ours.has_canonical_format
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))


def test_sparse_weights_take_fewer_bytes_than_dense_ones(path, tmp_path):
    array = sparse_matrix((200, 500), share=0.95)
    assert save_arrays({"x": array}, path) < 0.1 * array.nbytes
    assert save_arrays({"x": sparse_matrix((200, 500), share=0.0)}, tmp_path / "dense.npz") < 1.01 * array.nbytes


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_written(path, value):
    with pytest.raises(ModelError, match="tensor 'x' has values that are not finite"):
        save_arrays({"x": np.array([[1.0, value]])}, path)
    assert not path.exists()


def test_types_that_could_not_be_read_back_are_not_written(path):
    for array in (np.array(["a"]), np.array([1 + 2j]), np.array([object()]), np.zeros(2, dtype=[("a", "f4")])):
        with pytest.raises(ModelError, match="tensor 'x' is of type"):
            save_arrays({"x": array}, path)
    with pytest.raises(ModelError, match=r"tensor name 'a\|b' has a '\|'"):
        save_arrays({"a|b": np.zeros(2)}, path)
    assert not path.exists()


GOOD = {
    "data": np.array([1.0, 2.0, 3.0], np.float32),
    "indices": np.array([0, 3, 1], np.uint8),
    "indptr": np.array([0, 2, 2, 3], np.uint8),
    "shape": np.array([3, 4], np.uint64),
}


def write(path, **parts):
    np.savez(path, **{f"w|{name}": array for name, array in parts.items() if array is not None})


def test_the_crafted_file_is_good_before_it_is_changed(path):
    write(path, **GOOD)
    np.testing.assert_array_equal(load_dense(path)["w"], [[1, 0, 0, 2], [0, 0, 0, 0], [0, 3, 0, 0]])


def ints(*values, dtype=np.uint8):
    return np.array(values, dtype)


@pytest.mark.parametrize(
    "changes",
    [
        {"indptr": ints(1, 2, 2, 3)},
        {"indptr": ints(0, 3, 2, 3)},
        {"indptr": ints(0, 2, 2, -1, dtype=np.int64)},
        {"indptr": ints(0, 2, 2, 2**64 - 1, dtype=np.uint64)},
        {"indptr": ints(0, 2**64 - 1, 2, 3, dtype=np.uint64)},
        {"indptr": ints(0, 2, 2, 200)},
        {"indptr": ints(0, 2, 2, 2)},
        {"indptr": ints(0, 2, 3)},
        {"indptr": ints()},
        {"indptr": ints(0, 2, 2, 3).reshape(2, 2)},
        {"indices": ints(0, 4, 1)},
        {"indices": ints(0, 200, 1)},
        {"indices": ints(0, 3, -1, dtype=np.int64)},
        {"indices": ints(*[2**64 - 1] * 3, dtype=np.uint64)},
        {"indices": ints(0, 2**63, 1, dtype=np.uint64)},
        {"indices": ints(0, 3, 2**64 - 1, dtype=np.uint64)},
        {"indices": ints(3, 3, 1)},
        {"indices": ints(3, 0, 1)},
        {"indices": ints(0, 3)},
        {"indices": np.array([0.0, 3.0, 1.0])},
        {"data": np.array([1.0, np.nan, 3.0], np.float32)},
        {"data": np.array([1.0, np.inf, 3.0], np.float32)},
        {"data": np.array([1, 2, 3])},
        {"data": np.array([1 + 1j, 2, 3])},
        {"data": np.array([1.0], np.float32)},
        {"shape": ints(3, 4, 0, dtype=np.uint64)},
        {"shape": ints(12, dtype=np.uint64)},
        {"shape": ints(dtype=np.uint64)},
        {"shape": ints(3, 2**63, dtype=np.uint64)},
        {"shape": ints(3, 2**40, dtype=np.uint64)},
        {"shape": ints(2**62, 4, dtype=np.uint64)},
        {"shape": ints(4, 3, dtype=np.uint64)},
        {"shape": ints(3, 4, dtype=np.int64)},
        {"shape": np.ones((2000,), np.uint64)},
        {"indices": None},
        {"extra": ints(1)},
        {"dense": np.ones(3)},
    ],
    ids=str,
)
def test_an_inconsistent_file_is_refused(path, changes):
    write(path, **{**GOOD, **changes})
    for load in (load_sparse, load_dense):
        with pytest.raises(ModelError, match=r"weights\.npz: tensor 'w'"):
            load(path)


@pytest.mark.parametrize("array", [np.array([1.0, np.nan]), np.array(["text"]), np.array([1j])], ids=str)
def test_a_dense_part_is_checked_too(path, array):
    write(path, dense=array)
    with pytest.raises(ModelError, match="tensor 'w'"):
        load_dense(path)


def test_many_huge_shapes_are_refused_together(path):
    empty = {"data": np.zeros(0, np.float32), "indices": ints(), "indptr": ints(0, 0), "shape": ints(1, 2**30, dtype=np.uint64)}
    np.savez(path, **{f"{name}|{part}": array for name in "abc" for part, array in empty.items()})
    with pytest.raises(ModelError, match="too large"):
        load_sparse(path)


def npy(header, body=b""):
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }"),
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**70},), }}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", bytes(8)),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps([1])),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (100,), }", bytes(8)),
        npy("{'descr': '<q9', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
        npy("(" * 200),
        npy("__import__('os').abort()"),
        b"\x93NUMPY",
        b"",
        pickle.dumps({"a": 1}),
    ],
    ids=range(12),
)
def test_a_crafted_array_is_refused(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w|dense.npy", content)
    with pytest.raises(ModelError, match=r"weights\.npz"):
        load_dense(path)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(path):
    inner = io.BytesIO()
    np.save(inner, np.zeros(4 << 20, np.float64))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("w|dense.npy", inner.getvalue())
    assert path.stat().st_size < 2000
    with pytest.raises(ModelError, match="decompression bomb"):
        load_dense(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x05\x06", b"<!DOCTYPE html>", b"\x93NUMPY", b"version https://git-lfs.github.com/spec/v1\n"], ids=str
)
def test_a_file_that_is_no_archive_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a readable file of sparse weights"):
        load_sparse(path)


def test_a_missing_file_and_an_array_of_another_format_are_refused(path):
    with pytest.raises(ModelError, match="no such file"):
        load_sparse(path)
    np.savez(path, w=np.ones(3))
    with pytest.raises(ModelError, match="'w' is not of this format"):
        load_sparse(path)


def test_every_truncation_and_many_flips_are_refused_or_harmless(path):
    array = sparse_matrix((6, 40), share=0.8)
    save_arrays({"x": array}, path)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for length in generator.integers(0, len(whole), 60):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            load_dense(path)
    for bit in generator.integers(0, 8 * len(whole), 300):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(flipped))
        try:
            loaded = load_dense(path)
        except ModelError:
            continue
        # the archive's own checksums let a flip through only where it is no part of an array's content
        assert [identical(value, array) for value in loaded.values()] in ([True], [])
