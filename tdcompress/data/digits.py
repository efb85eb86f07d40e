"""Handwritten digits of 43 people, 1,797 images of 8x8, from scikit-learn's own package: real data without a download."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from tdcompress.data.base import HashFile
from tdcompress.data.images import ImageDataset, Images, ImageSettings, sha256_of_images
from tdcompress.errors import DataError

SIDE = 8
TEST_SHARE = 0.2
SPLIT_SEED = 0


@dataclass(frozen=True, kw_only=True)
class DigitsSettings(ImageSettings):
    """``name = "digits"``: 1,438 training and 359 test images, 8x8x1, values 0..16.

    Training images move by up to one pixel. The split is fixed: a fifth of each class, drawn with a seed of its own,
    whatever the recipe's seed.
    """

    name: ClassVar[str] = "digits"
    mean: ClassVar[tuple[float, ...]] = (4.888,)
    deviation: ClassVar[tuple[float, ...]] = (6.018,)
    largest: ClassVar[float] = 16.0
    crop_padding: int = 1

    def side(self) -> int:  # noqa: D102
        return SIDE

    def load(self) -> ImageDataset:  # noqa: D102
        train, test = load_split()
        return ImageDataset(
            name=self.name,
            train=train,
            test=test,
            classes=tuple(str(digit) for digit in range(10)),
            preprocess=self.preprocess(),
            augmentation=self.augmentation(),
        )

    def content_hash(self, hash_file: HashFile | None = None) -> str:  # noqa: D102
        return sha256_of_images(*load_split())


def load_split() -> tuple[Images, Images]:
    """(train, test) of the digits, in the order of the package's file: uint8 (1438, 8, 8, 1) and (359, 8, 8, 1), 0 to 16."""
    table = np.loadtxt(packaged_file(), delimiter=",", dtype=np.uint8)  # a digit a line: 64 pixels, row by row, and its label
    pixels_NHWC = table[:, :64].reshape(-1, SIDE, SIDE, 1)
    labels_N = table[:, 64].astype(np.int64)
    tested_N = stratified_sample(labels_N, TEST_SHARE, SPLIT_SEED)

    def part(chosen_N: np.ndarray) -> Images:
        return Images(pixels=torch.from_numpy(pixels_NHWC[chosen_N]), labels=torch.from_numpy(labels_N[chosen_N]))

    return part(~tested_N), part(tested_N)


def packaged_file() -> Path:
    """The digits inside scikit-learn, found without importing it: that takes a second, more than all else of a run with no work.

    Raises:
        DataError: scikit-learn is not installed, or keeps them elsewhere.
    """
    spec = find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataError("digits: scikit-learn's datasets/data/digits.csv.gz is missing; pip install scikit-learn again")


def stratified_sample(labels_N: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A boolean mask that holds ``round(share * members)`` members of each class, drawn at random.

    Args:
        labels_N: the class of each sample, int64 (N,).
        share: 0..1.
        seed: of the draw.

    Returns:
        bool (N,).
    """
    generator = np.random.default_rng(seed)
    chosen_N = np.zeros(len(labels_N), dtype=bool)
    for label in np.unique(labels_N):
        members = generator.permutation(np.flatnonzero(labels_N == label))
        chosen_N[members[: round(share * len(members))]] = True
    return chosen_N
