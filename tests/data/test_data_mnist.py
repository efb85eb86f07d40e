import gzip
import struct

import numpy as np
import pytest

from tdcompress.data import mnist
from tdcompress.data.mnist import FashionMnistSettings, MnistSettings, read_idx
from tdcompress.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(params=[MnistSettings, FashionMnistSettings])
def tiny(request, tmp_path, monkeypatch):
    """Six training images, three test images; the labels packed, the images not."""
    monkeypatch.setattr(mnist, "TRAIN_SIZE", 6)
    monkeypatch.setattr(mnist, "TEST_SIZE", 3)
    folder = tmp_path / request.param.folder / "raw"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, size in (("train", 6), ("t10k", 3)):
        pixels = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(size, dtype=np.uint8))))
    return request.param(root=str(tmp_path)), folder


def test_idx_files_are_read_packed_or_not(tiny):
    settings, folder = tiny
    data = settings.load()
    assert (len(data.train), len(data.test), data.image) == (6, 3, (1, 28, 28))
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    raw = (folder / "t10k-images-idx3-ubyte").read_bytes()
    assert bytes(data.test.pixels.numpy()) == raw[16:]
    assert len(data.classes) == 10
    assert len(settings.content_hash()) == 64


def test_a_missing_file_names_itself_and_the_remedy(tiny):
    settings, folder = tiny
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte is missing; set data.root to .*or put http.*\.gz there"):
        settings.load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], r"is cut off \(4720 bytes expected\)"),
        (lambda content: content + b"\0", "is longer than its header says"),
        (lambda content: content[:3] + b"\1" + content[4:], "is no idx file"),
        (lambda content: b"<html>" + content[6:], "is no idx file"),
        (lambda content: b"", "is no idx file"),
    ],
)
def test_a_damaged_file_is_named(tiny, change, message):
    settings, folder = tiny
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte {message}.*: delete it"):
        settings.load()


@pytest.mark.parametrize(
    "change", [lambda packed: packed[:-9], lambda packed: packed[:-8] + bytes(4) + packed[-4:], lambda _: b"no"]
)
def test_a_damaged_packed_file_is_named(tiny, change):
    settings, folder = tiny
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz cannot be read"):
        settings.load()


def test_a_label_without_a_class_is_found(tiny):
    settings, folder = tiny
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.array([0, 10, 1], np.uint8))))
    with pytest.raises(DataError, match=r"test labels span 0\.\.10, but there are 10 classes"):
        settings.load()


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((3,), np.uint8)) + bytes(10_000_000)))
    with pytest.raises(DataError, match="longer than its header says"):
        read_idx(path, (3,))


def test_published_md5s_are_torchvisions():
    from torchvision.datasets import MNIST, FashionMNIST

    for ours, theirs in ((MnistSettings, MNIST), (FashionMnistSettings, FashionMNIST)):
        assert [(f"{name}.gz", md5) for name, md5 in ours.archives.items()] == theirs.resources
        assert ours.url in theirs.mirrors
        assert ours.folder == theirs.__name__
