import zipfile
from pathlib import Path

import numpy as np
import pytest

from tdcompress.errors import ModelError
from tdcompress.npz import npz_names, read_npz, write_npy, write_npz

WHAT = "file of numbers"


@pytest.mark.parametrize("compress", [False, True])
def test_what_is_written_is_read(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "made" / "a.npz"
    arrays = {"a/b": np.arange(6.0).reshape(2, 3), "flags": np.array([True])}
    write_npz(path, arrays, compress=compress)
    assert npz_names(path, WHAT) == {"a/b", "flags"}
    found = read_npz(path, WHAT, at_most=1000)
    assert list(found) == list(arrays)
    assert all(np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in arrays.items())
    assert list(read_npz(path, WHAT, at_most=1000, names=("flags",))) == ["flags"]
    with pytest.raises(ModelError, match="lacks the arrays 'none'"):
        read_npz(path, WHAT, at_most=1000, names=("none",))


@pytest.mark.parametrize("compress", [False, True])
def test_names_are_free_and_the_file_is_numpys(tmp_path: Path, compress: bool) -> None:
    """numpy's own function takes names as keywords, and so not these."""
    arrays = {"file": np.arange(3), "allow_pickle": np.zeros((2, 2), np.float32), "x": np.float64(3).reshape(())}
    write_npz(tmp_path / "ours.npz", arrays, compress=compress)
    found = read_npz(tmp_path / "ours.npz", WHAT, at_most=5000)
    assert {name: array.tolist() for name, array in found.items()} == {name: array.tolist() for name, array in arrays.items()}
    write_npz(tmp_path / "ours.npz", {"x": arrays["file"]}, compress=compress)
    (np.savez_compressed if compress else np.savez)(tmp_path / "numpy.npz", x=arrays["file"])
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npz(tmp_path / "objects.npz", {"x": np.array([{}], object)})
    assert not (tmp_path / "objects.npz").exists()


def test_one_array_is_written_alone(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", np.arange(4.0))
    assert np.load(tmp_path / "a.npy", allow_pickle=False).tolist() == [0, 1, 2, 3]


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "zeros.npz"
    write_npz(path, {"zeros": np.zeros(100_000)}, compress=True)
    assert read_npz(path, WHAT, at_most=1_000_000)["zeros"].size == 100_000
    with pytest.raises(ModelError, match="decompression bomb"):
        read_npz(path, WHAT, at_most=800_000)  # the header of the array counts too


def test_what_is_no_such_file_is_told_by_name(tmp_path: Path) -> None:
    for path, content, said in (("none", None, "no such file"), ("text", b"hello", WHAT), ("half", b"PK\x03\x04", WHAT)):
        if content is not None:
            (tmp_path / path).write_bytes(content)
        for read in (lambda path: read_npz(path, WHAT, at_most=1000), lambda path: npz_names(path, WHAT)):
            with pytest.raises(ModelError, match=said):
                read(tmp_path / path)
    with zipfile.ZipFile(tmp_path / "notes.npz", "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(ModelError, match=r"'notes\.txt' is not an array"):
        read_npz(tmp_path / "notes.npz", WHAT, at_most=1000)
