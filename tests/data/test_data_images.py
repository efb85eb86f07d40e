import pytest
import torch

from tdcompress.data.augment import Augmentation
from tdcompress.data.images import ImageDataset, Images, sha256_of_images
from tdcompress.data.preprocess import StandardizePerImage
from tdcompress.data.registry import DATASETS
from tdcompress.errors import DataError


def images(count: int = 3, side: int = 4, labels: tuple[int, ...] | None = None) -> Images:
    return Images(
        pixels=torch.zeros(count, side, side, 1, dtype=torch.uint8),
        labels=torch.tensor(labels if labels is not None else [0] * count, dtype=torch.int64),
    )


def dataset(train: Images, test: Images) -> ImageDataset:
    return ImageDataset(
        name="d", train=train, test=test, classes=("a", "b"), preprocess=StandardizePerImage(), augmentation=Augmentation()
    )


def test_image_shape_is_channels_first():
    train = Images(pixels=torch.zeros(2, 5, 7, 3, dtype=torch.uint8), labels=torch.tensor([0, 1]))
    assert dataset(train, train).image == (3, 5, 7)
    assert dataset(train, train).preprocessing["kind"] == "standardize_per_image"
    assert len(train.to("cpu")) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: Images(pixels=torch.zeros(2, 4, 4, 1), labels=torch.zeros(2, dtype=torch.int64)),
        lambda: Images(pixels=torch.zeros(2, 4, 4, dtype=torch.uint8), labels=torch.zeros(2, dtype=torch.int64)),
        lambda: Images(pixels=torch.zeros(2, 4, 4, 1, dtype=torch.uint8), labels=torch.zeros(3, dtype=torch.int64)),
        lambda: Images(pixels=torch.zeros(2, 4, 4, 1, dtype=torch.uint8), labels=torch.zeros(2)),
        lambda: dataset(images(0), images()),
        lambda: dataset(images(), images(1, labels=(2,))),
        lambda: dataset(images(), images(1, labels=(-1,))),
        lambda: dataset(images(labels=(0, 1, 0)), images(side=5)),
        lambda: dataset(images(1), images()),
        lambda: dataset(images(labels=(1, 1, 1)), images()),
    ],
)
def test_malformed_data_is_refused(make):
    with pytest.raises(DataError):
        make()


def test_hashes_change_with_content():
    first, second = images(labels=(0, 1, 1)), images(labels=(0, 1, 0))
    assert sha256_of_images(first) == sha256_of_images(images(labels=(0, 1, 1)))
    assert len({sha256_of_images(first), sha256_of_images(second), sha256_of_images(first, second)}) == 3


@pytest.mark.parametrize("key", ["cutout", "crop_padding"])
@pytest.mark.parametrize(
    ("name", "side", "more"),
    [("digits", 8, {}), ("mnist", 28, {}), ("cifar100", 32, {}), ("imagefolder", 16, {"image_size": 16})],
)
def test_changes_as_large_as_the_image_are_refused_before_it_is_loaded(key, name, side, more):
    kind = DATASETS[name]
    assert getattr(kind(**more, **{key: side - 1}), key) == side - 1
    with pytest.raises(ValueError, match=f"^{key}: with {side} pixels .* of an image of {side}x{side}; give less than {side}$"):
        kind(**more, **{key: side})
