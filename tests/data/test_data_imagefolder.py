import numpy as np
import pytest
from PIL import Image

from tdcompress.data import imagefolder
from tdcompress.data.imagefolder import ImageFolderSettings, read_image
from tdcompress.data.registry import DATASETS
from tdcompress.errors import DataError

COLOURS = {"cat": (200, 10, 10), "dog": (10, 200, 10)}


@pytest.fixture
def folder(tmp_path):
    """Two classes of flat colours; 3 training images and 1 test image each, of several sizes and kinds."""
    for part, kinds in (("train", ("a.png", "b.JPG", "c.bmp")), ("val", ("d.png",))):
        for name, colour in COLOURS.items():
            (tmp_path / part / name).mkdir(parents=True)
            for index, file in enumerate(kinds):
                Image.new("RGB", (20 + 10 * index, 30), colour).save(tmp_path / part / name / file)
    (tmp_path / "train" / "notes.txt").write_text("not a class")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path


def settings(folder, **keys) -> ImageFolderSettings:
    return ImageFolderSettings(root=str(folder), **{"image_size": 16, **keys})


def test_images_are_resized_cropped_and_labelled_by_folder(folder):
    data = settings(folder).load()
    assert (len(data.train), len(data.test), data.image, data.classes) == (6, 2, (3, 16, 16), ("cat", "dog"))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for pixels, label in zip(data.train.pixels, data.train.labels.tolist(), strict=True):
        expected = np.array(COLOURS[data.classes[label]])
        assert np.abs(pixels.numpy().astype(int) - expected).max() <= 3  # JPEG's colours are near
    assert data.augmentation.crop_scale == (0.25, 1.0)
    assert data.augmentation.flip
    assert DATASETS["imagefolder"] is ImageFolderSettings


def test_what_systems_and_tools_leave_is_no_image_and_no_class(folder):
    before = settings(folder).content_hash()
    (folder / "train" / "cat" / "._a.png").write_bytes(b"\0\5\x16\7")  # macOS keeps its own notes of a file so
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    assert settings(folder).content_hash() == before
    assert (settings(folder).load().classes, len(settings(folder).load().train)) == (("cat", "dog"), 6)


def test_the_centre_of_the_shorter_side_is_kept(tmp_path):
    # columns 0..39 hold their number; the shorter side 10 is scaled to 10, so the centre 10x10 is columns 15..24
    columns = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None], (10, 40, 3))
    Image.fromarray(np.ascontiguousarray(columns)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", 10, 10)[0, :, 0].tolist() == list(range(15, 25))
    # scaled to 20, a crop of 10 covers 5 of the file's columns: 17.5 to 22.5
    halved = read_image(tmp_path / "x.png", 10, 20)[0, :, 0]
    assert (halved.min(), halved.max()) == (17, 22)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode).save(tmp_path / "x.tiff")
    assert read_image(tmp_path / "x.tiff", 8, 9).tolist() == np.full((8, 8, 3), 255).tolist()


@pytest.mark.parametrize(("kind", "mode"), [(np.uint16, "I;16"), (np.int32, "I"), (np.float32, "F")])
def test_grey_pixels_of_more_than_8_bits_are_refused_not_cut(tmp_path, kind, mode):
    Image.fromarray(np.full((9, 9), 30_000, kind)).save(tmp_path / "x.tiff")
    with pytest.raises(
        DataError, match=rf"x\.tiff has pixels of more than 8 bits \(Pillow's mode {mode}\): save it with 8 bits each"
    ):
        read_image(tmp_path / "x.tiff", 8, 9)


def test_test_folder_stands_in_for_val_and_hash_covers_content(folder):
    before = settings(folder).content_hash()
    (folder / "val").rename(folder / "test")
    assert len(settings(folder).load().test) == 2
    renamed = settings(folder).content_hash()
    Image.new("RGB", (30, 30)).save(folder / "test" / "cat" / "d.png")
    assert len({before, renamed, settings(folder).content_hash()}) == 3


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x89PNG\r\n\x1a\n" + bytes(40)]
)
def test_a_file_that_is_no_image_is_named(folder, content):
    (folder / "train" / "dog" / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"train/dog/a\.png is no readable image"):
        settings(folder).load()


def test_a_truncated_image_is_named(folder):
    path = folder / "val" / "cat" / "d.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"val/cat/d\.png is no readable image"):
        settings(folder).load()


def test_limits_of_pixels_and_of_memory(folder, monkeypatch):
    with pytest.raises(DataError, match=r"8 images of 16x16 take .* GiB; lower data.image_size or raise"):
        settings(folder, memory_limit_gib=1e-6).load()
    monkeypatch.setattr(imagefolder, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match=r"/c\.bmp has 40x30 pixels, more than 1000"):
        settings(folder).load()


def test_missing_and_unequal_parts(folder, tmp_path):
    with pytest.raises(DataError, match=r"nowhere/train is missing; set data.root"):
        settings(tmp_path / "nowhere").load()
    (folder / "val" / "dog" / "d.png").unlink()
    with pytest.raises(DataError, match="val/dog holds no image"):
        settings(folder).load()
    (folder / "val" / "dog").rmdir()
    with pytest.raises(DataError, match="class 'dog' is not both in"):
        settings(folder).load()
    (folder / "val" / "cat" / "d.png").unlink()
    (folder / "val" / "cat").rmdir()
    with pytest.raises(DataError, match="val holds no class"):
        settings(folder).load()


@pytest.mark.parametrize(
    ("key", "value"),
    [("download", True), ("image_size", 0), ("resize", 15), ("memory_limit_gib", 0.0), ("crop_scale", (0.5, 1.5)), ("root", "")],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ValueError, match=f"^{key}: "):
        ImageFolderSettings(**{"image_size": 16, key: value})
