"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 50,000 training and 10,000 test images, 32x32x3, in torchvision's layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from tdcompress.data.augment import Flip
from tdcompress.data.base import FileDataSettings
from tdcompress.data.cifar_archive import read_archive
from tdcompress.data.fetch import fetch_archive
from tdcompress.data.images import ImageDataset, Images, ImageSettings
from tdcompress.data.preprocess import Normalise
from tdcompress.errors import DataError

SIDE = 32


@dataclass(frozen=True, kw_only=True)
class CifarSettings(FileDataSettings, ImageSettings):
    """What both sets share. Images are padded by 4, cropped and mirrored in training, and standardised one by one."""

    crop_padding: int = 4
    flip: Flip = True
    normalise: Normalise = "image"

    title: ClassVar[str]  # the name for people
    folder: ClassVar[str]
    url: ClassVar[str]
    archive_md5: ClassVar[str]
    train_files: ClassVar[Mapping[str, str]]  # name -> md5
    test_files: ClassVar[Mapping[str, str]]
    meta_file: ClassVar[tuple[str, str]]
    labels_key: ClassVar[str]
    names_key: ClassVar[str]

    def side(self) -> int:  # noqa: D102
        return SIDE

    def fetched_files(self) -> list[Path]:  # noqa: D102
        folder = self.root_folder() / self.folder
        paths = [folder / name for name in (*self.train_files, *self.test_files, self.meta_file[0])]
        if self.download and not all(path.is_file() for path in paths):
            fetch_archive(self.url, self.root_folder(), self.archive_md5, self.title)
        for path in paths:
            if not path.is_file():
                raise self.missing(self.title, path, self.folder, self.url)
        return paths

    def load(self) -> ImageDataset:  # noqa: D102
        self.fetched_files()
        meta = self._read(*self.meta_file)
        names = meta.get(self.names_key)
        if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
            raise DataError(f"{self.title}: {self.meta_file[0]} holds no list {self.names_key!r}")
        return ImageDataset(
            name=self.name,
            train=self._images(self.train_files),
            test=self._images(self.test_files),
            classes=tuple(name.decode() for name in names),
            preprocess=self.preprocess(),
            augmentation=self.augmentation(),
        )

    def _read(self, name: str, md5: str) -> Mapping[str, Any]:
        return read_archive(self.root_folder() / self.folder / name, md5)

    def _images(self, parts: Mapping[str, str]) -> Images:
        batches = [batch_images(self._read(name, md5), self.labels_key, name) for name, md5 in parts.items()]
        return Images(
            pixels=torch.cat([batch.pixels for batch in batches]), labels=torch.cat([batch.labels for batch in batches])
        )


def batch_images(batch: Mapping[str, Any], labels_key: str, where: str) -> Images:
    """One archive's images: its rows are 1,024 red, then green, then blue values.

    Args:
        batch: the unpickled dict of an archive.
        labels_key: under which its labels lie.
        where: the file, for messages.

    Raises:
        DataError: no such rows or labels in the archive.
    """
    data, labels = batch.get("data"), batch.get(labels_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * SIDE**2:
        raise DataError(f"{where}: 'data' is no array of rows of 3,072 bytes")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(type(label) is int for label in labels):
        raise DataError(f"{where}: {labels_key!r} is no list of {len(data)} whole numbers")
    pixels_NHWC = np.ascontiguousarray(data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    return Images(pixels=torch.from_numpy(pixels_NHWC), labels=torch.tensor(labels, dtype=torch.int64))


@dataclass(frozen=True, kw_only=True)
class Cifar10Settings(CifarSettings):
    """``name = "cifar10"``: 10 classes."""

    name: ClassVar[str] = "cifar10"
    mean: ClassVar[tuple[float, ...]] = (0.4914 * 255, 0.4822 * 255, 0.4465 * 255)
    deviation: ClassVar[tuple[float, ...]] = (0.2470 * 255, 0.2435 * 255, 0.2616 * 255)
    title: ClassVar[str] = "CIFAR-10"
    folder: ClassVar[str] = "cifar-10-batches-py"
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    archive_md5: ClassVar[str] = "c58f30108f718f92721af3b95e74349a"
    train_files: ClassVar[Mapping[str, str]] = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    }
    test_files: ClassVar[Mapping[str, str]] = {"test_batch": "40351d587109b95175f43aff81a1287e"}
    meta_file: ClassVar[tuple[str, str]] = ("batches.meta", "5ff9c542aee3614f3951f8cda6e48888")
    labels_key: ClassVar[str] = "labels"
    names_key: ClassVar[str] = "label_names"


@dataclass(frozen=True, kw_only=True)
class Cifar100Settings(CifarSettings):
    """``name = "cifar100"``: 100 classes (the "fine" labels)."""

    name: ClassVar[str] = "cifar100"
    mean: ClassVar[tuple[float, ...]] = (0.5071 * 255, 0.4865 * 255, 0.4409 * 255)
    deviation: ClassVar[tuple[float, ...]] = (0.2673 * 255, 0.2564 * 255, 0.2762 * 255)
    title: ClassVar[str] = "CIFAR-100"
    folder: ClassVar[str] = "cifar-100-python"
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    archive_md5: ClassVar[str] = "eb9058c3a382ffc7106e4002c42a8d85"
    train_files: ClassVar[Mapping[str, str]] = {"train": "16019d7e3df5f24257cddd939b257f8d"}
    test_files: ClassVar[Mapping[str, str]] = {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}
    meta_file: ClassVar[tuple[str, str]] = ("meta", "7973b15100ade9c7d40fb424638fde48")
    labels_key: ClassVar[str] = "fine_labels"
    names_key: ClassVar[str] = "fine_label_names"
