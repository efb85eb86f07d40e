"""CIFAR's archives, imitated on disk: pickles of protocol 2 as Python 2 wrote them."""

import hashlib
import io
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tdcompress.data import cifar_archive
from tdcompress.data.cifar import Cifar10Settings, Cifar100Settings
from tdcompress.data.cifar_archive import unpickle
from tdcompress.data.preprocess import StandardizePerImage
from tdcompress.errors import DataError


def short_string(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING, which Python 3 no longer writes


def array_opcodes(array: np.ndarray, kind: bytes = b"u1") -> bytes:
    """What Python 2's pickle of a numpy array looks like."""
    data, shape = array.tobytes(), b"".join(b"J" + struct.pack("<i", length) for length in array.shape)
    dtype = b"cnumpy\ndtype\n" + b"(" + short_string(kind) + b"K\x00K\x01tR"
    dtype += b"(K\x03" + short_string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t"
        + short_string(b"b")
        + b"tR(K\x01("
        + shape
        + b"t"
        + dtype
        + b"\x89T"
        + struct.pack("<i", len(data))
        + data
        + b"tb"
    )


def archive(data: np.ndarray | None, **lists: list) -> bytes:
    content = b"\x80\x02}("
    if data is not None:
        content += short_string(b"data") + array_opcodes(data)
    for key, members in lists.items():
        content += short_string(key.encode()) + b"]("
        for member in members:
            content += short_string(member) if isinstance(member, bytes) else b"K" + bytes([member])
        content += b"e"
    return content + b"u."


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A tiny CIFAR-10 of two images a file, and the rows that each holds."""
    folder = tmp_path / Cifar10Settings.folder
    folder.mkdir()
    names = [*Cifar10Settings.train_files, *Cifar10Settings.test_files]
    contents = {name: rows(2, seed) for seed, name in enumerate(names)}
    for name, data in contents.items():
        (folder / name).write_bytes(archive(data, labels=[3, 9]))
    (folder / "batches.meta").write_bytes(archive(None, label_names=[b"class%d" % index for index in range(10)]))
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(Cifar10Settings, "train_files", {name: md5[name] for name in names[:5]})
    monkeypatch.setattr(Cifar10Settings, "test_files", {"test_batch": md5["test_batch"]})
    monkeypatch.setattr(Cifar10Settings, "meta_file", ("batches.meta", md5["batches.meta"]))
    return Cifar10Settings(root=str(tmp_path)), folder, contents


def test_cifar10_is_read_in_order(cifar10):
    settings, _, contents = cifar10
    data = settings.load()
    assert (len(data.train), len(data.test), data.image) == (10, 2, (3, 32, 32))
    assert data.train.labels.tolist() == [3, 9] * 5
    assert data.classes[9] == "class9"
    assert isinstance(data.preprocess, StandardizePerImage)
    assert (data.augmentation.crop_padding, data.augmentation.flip) == (4, True)
    # row layout: 1,024 red values, row by row, then green, then blue
    third = contents["data_batch_2"][0]
    assert data.train.pixels[2, 5, 7].tolist() == [third[5 * 32 + 7], third[1024 + 5 * 32 + 7], third[2048 + 5 * 32 + 7]]


def test_pixels_can_be_scaled_to_0_to_1(cifar10):
    settings, _, contents = cifar10
    data = replace(settings, normalise="unit").load()
    assert settings.content_hash() == replace(settings, normalise="unit").content_hash()
    found = data.preprocess(data.train.pixels[:1]).flatten().numpy()
    np.testing.assert_allclose(found, contents["data_batch_1"][0] / 255, rtol=1e-6)


def test_content_hash_follows_content_not_place(cifar10, tmp_path):
    settings, folder, _ = cifar10
    before = settings.content_hash()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    folder.rename(moved / folder.name)
    moved_settings = Cifar10Settings(root=str(moved))
    assert moved_settings.content_hash() == before
    assert moved_settings.content_hash(lambda path: "0") != before
    (moved / folder.name / "test_batch").write_bytes(b"other")
    assert moved_settings.content_hash() != before


def test_a_missing_file_names_itself_and_the_remedy(cifar10):
    settings, folder, _ = cifar10
    (folder / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"data_batch_3 is missing; set data.root.*download = true.*cifar-10-python.tar.gz"):
        settings.load()
    with pytest.raises(DataError, match="data_batch_3 is missing"):
        settings.content_hash()


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"\x00" + content[1:], lambda _: b""])
def test_a_damaged_file_is_found_by_its_md5(cifar10, damage):
    settings, folder, _ = cifar10
    path = folder / "test_batch"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"test_batch is damaged or another file \(.*md5 .*expected .*\): delete it"):
        settings.load()


def test_an_oversized_file_is_not_read(cifar10, monkeypatch):
    settings, _, _ = cifar10
    monkeypatch.setattr(cifar_archive, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="is damaged or another file"):
        settings.load()


def test_cifar100_reads_the_fine_labels(tmp_path, monkeypatch):
    folder = tmp_path / Cifar100Settings.folder
    folder.mkdir()
    files = {
        "train": archive(rows(2, 0), coarse_labels=[1, 2], fine_labels=[77, 99]),
        "test": archive(rows(1, 1), coarse_labels=[3], fine_labels=[5]),
        "meta": archive(None, fine_label_names=[b"f%d" % index for index in range(100)], coarse_label_names=[b"c"]),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(Cifar100Settings, "train_files", {"train": md5["train"]})
    monkeypatch.setattr(Cifar100Settings, "test_files", {"test": md5["test"]})
    monkeypatch.setattr(Cifar100Settings, "meta_file", ("meta", md5["meta"]))
    data = Cifar100Settings(root=str(tmp_path)).load()
    assert data.train.labels.tolist() == [77, 99]
    assert len(data.classes) == 100


@pytest.mark.parametrize(
    "content",
    [
        archive(None, labels=[1]),
        archive(np.zeros((2, 10), np.uint8), labels=[1, 2]),
        archive(np.zeros((2, 3072), np.uint8), labels=[1]),
        archive(np.zeros((2, 3072), np.uint8), labels=[b"a", b"b"]),
        archive(np.zeros((2, 3072), np.uint8), names=[1, 2]),
    ],
)
def test_an_archive_of_another_shape_is_refused(cifar10, monkeypatch, content):
    settings, folder, _ = cifar10
    (folder / "test_batch").write_bytes(content)
    monkeypatch.setattr(Cifar10Settings, "test_files", {"test_batch": hashlib.md5(content).hexdigest()})
    with pytest.raises(DataError, match="test_batch: '"):
        settings.load()


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def protocol_2(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)


@pytest.mark.parametrize(
    "content",
    [
        protocol_2({"data": Calls(eval, "1 + 1")}),
        protocol_2({"data": Calls(io.open, "/dev/null")}),
        protocol_2({"data": Calls(getattr, "text", "upper")}),
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x02cnumpy.core.multiarray\nscalar\n.",
        b"\x80\x02cnumpy\nndarray.__init__\n.",
        b"\x80\x02P1\n.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension code
    ],
)
def test_a_pickle_that_names_anything_to_call_is_refused(content):
    with pytest.raises(DataError, match="here is no archive of plain data"):
        unpickle(content, "here")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}",
        b"\x80\x02]q\x00.",  # a list at the top
        protocol_2({"a": 1.5}),
        protocol_2({"a": None}),
        protocol_2({"a": (1, 2)}),
        protocol_2({1: "a"}),
        b"\x80\x02}(U\x01acnumpy\nndarray\nu.",  # the class itself
        b"\x80\x02}(U\x01acnumpy\ndtype\n(U\x02u1tRu.",
        b"\x80\x02}(U\x01acnumpy\ndtype\n}(U\x01xK\x01ubu.",  # new state for the class itself
        b"\x80\x02}(U\x01acnumpy.core.multiarray\n_reconstruct\n)Ru.",  # an array without content
        b"\x80\x02}(U\x01a" + array_opcodes(np.zeros(3, np.uint8), kind=b"O8") + b"u.",
        b"\x80\x02}(U\x01a" + array_opcodes(np.zeros(3, np.uint8)).replace(b"J\x03\x00\x00\x00", b"J\x04\x00\x00\x00") + b"u.",
        b"\x80\x02}(U\x01a" + array_opcodes(np.zeros(3, np.uint8)).replace(b"J\x03\x00\x00\x00", b"J\xff\xff\xff\xff") + b"u.",
    ],
)
def test_anything_but_plain_kinds_is_refused(content):
    with pytest.raises(DataError, match="here is no archive of plain data"):
        unpickle(content, "here")


def test_the_imitated_pickle_is_what_numpy_itself_reads():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = archive(array, labels=[1, 2]).replace(b"numpy.core.", b"numpy._core.")
    by_pickle = pickle.loads(content, encoding="bytes")
    ours = unpickle(content, "here")
    assert np.array_equal(by_pickle[b"data"], array)
    assert np.array_equal(ours["data"], array)
    assert ours["labels"] == by_pickle[b"labels"] == [1, 2]
    assert not ours["data"].flags.writeable


def test_download_goes_through_torchvision(tmp_path, monkeypatch):
    import torchvision.datasets.utils

    asked = []

    def refuse(url, download_root, extract_root, md5):
        asked.append((url, download_root, md5))
        raise OSError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", refuse)
    with pytest.raises(DataError, match=r"CIFAR-10: cannot fetch https.* \(no route to host\); fetch and unpack it by hand in "):
        Cifar10Settings(root=str(tmp_path), download=True).load()
    assert asked == [(Cifar10Settings.url, str(tmp_path), torchvision.datasets.CIFAR10.tgz_md5)]


def test_files_that_are_fetched_appear_whole(tmp_path, monkeypatch):
    """Killed while it unpacks, or looked at by another process, a file that is cut off would be taken for the set's."""
    import torchvision.datasets.utils

    def cut_off(url, download_root, extract_root, md5):
        folder = Path(extract_root, "cifar-10-batches-py")
        folder.mkdir()
        for name in known:
            (folder / name).write_text(name)
            seen.append(sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and extract_root not in str(path)))
        if not whole:
            raise KeyboardInterrupt

    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", cut_off)
    known, seen, whole = [*Cifar10Settings.train_files, *Cifar10Settings.test_files, Cifar10Settings.meta_file[0]], [], []
    settings = Cifar10Settings(root=str(tmp_path), download=True)
    with pytest.raises(KeyboardInterrupt):
        settings.fetched_files()
    assert list(tmp_path.iterdir()) == []
    whole.append(True)
    assert [path.read_text() for path in settings.fetched_files()] == known
    assert seen == [[]] * 2 * len(known)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]


def test_published_md5s_are_torchvisions():
    from torchvision.datasets import CIFAR10, CIFAR100

    for ours, theirs in ((Cifar10Settings, CIFAR10), (Cifar100Settings, CIFAR100)):
        assert list(ours.train_files.items()) == [tuple(pair) for pair in theirs.train_list]
        assert list(ours.test_files.items()) == [tuple(pair) for pair in theirs.test_list]
        assert ours.meta_file == (theirs.meta["filename"], theirs.meta["md5"])
        assert (ours.url, ours.archive_md5, ours.folder) == (theirs.url, theirs.tgz_md5, theirs.base_folder)


def test_settings_refuse_values_out_of_range():
    with pytest.raises(ValueError, match="crop_padding: "):
        Cifar10Settings(crop_padding=-1)
    with pytest.raises(ValueError, match="root: "):
        Cifar10Settings(root="")
    assert not Cifar10Settings(flip=False).augmentation().flip
