import importlib.util

import numpy as np
import pytest
import torch

from tdcompress.data.digits import DigitsSettings, stratified_sample
from tdcompress.data.registry import DATASETS
from tdcompress.errors import DataError

# the images and the split of this release; a change here makes old results incomparable
GOLDEN = "a65c258f2bc94681364cf683facb7209eeec12041a79876376639a178dfc8c4b"


def test_digits_are_the_packaged_ones_with_a_fixed_split():
    data = DigitsSettings().load()
    assert (len(data.train), len(data.test), data.image) == (1438, 359, (1, 8, 8))
    assert data.test.labels.bincount().tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert int(data.train.pixels.max()) == 16
    assert DigitsSettings().content_hash() == GOLDEN
    values = data.train.pixels.double()
    assert abs(values.mean().item() - DigitsSettings.mean[0]) < 1e-3
    assert abs(values.std(correction=0).item() - DigitsSettings.deviation[0]) < 1e-3
    preprocessed = data.preprocess(data.train.pixels)
    assert preprocessed.shape == (1438, 1, 8, 8)
    assert abs(preprocessed.mean().item()) < 1e-3
    assert DATASETS["digits"] is DigitsSettings


def test_train_and_test_are_all_images_once():
    from sklearn.datasets import load_digits

    data = DigitsSettings().load()
    merged = torch.cat([data.train.pixels, data.test.pixels]).flatten(1).numpy()
    original = load_digits()
    labels = torch.cat([data.train.labels, data.test.labels]).tolist()
    pixels = original.data.astype(np.uint8)
    assert sorted(zip(map(bytes, merged), labels, strict=True)) == sorted(zip(map(bytes, pixels), original.target, strict=True))


@pytest.mark.parametrize("moved", [None, importlib.util.find_spec("json")], ids=["not installed", "laid out differently"])
def test_a_package_without_its_digits_is_named(monkeypatch, moved):
    monkeypatch.setattr("tdcompress.data.digits.find_spec", lambda name: moved)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        DigitsSettings().content_hash()


def test_stratified_sample_takes_a_rounded_share_of_each_class():
    labels = np.array([0] * 10 + [1] * 7 + [2] * 3)
    chosen = stratified_sample(labels, 0.2, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [2, 1, 1]
    assert np.array_equal(chosen, stratified_sample(labels, 0.2, seed=1))
    assert not np.array_equal(chosen, stratified_sample(labels, 0.2, seed=2))
