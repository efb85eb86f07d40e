import json

import numpy as np
import onnxruntime
import pytest
import torch

from tdcompress.data.preprocess import Standardize, StandardizePerImage, normalised
from tdcompress.export.to_onnx import to_model_proto

PIXELS = torch.randint(0, 256, (5, 4, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MODULES = [Standardize((100.0, 120.0, 90.0), (50.0, 60.0, 70.0)), StandardizePerImage()]


def test_by_image_by_the_sets_constants_or_to_0_to_1():
    pixels = torch.tensor([[[[0, 51], [255, 102]]]], dtype=torch.uint8)
    constants = (20.0, 100.0), (5.0, 50.0)
    assert torch.equal(normalised("image", *constants)(pixels), StandardizePerImage()(pixels))
    assert torch.equal(normalised("set", *constants)(pixels), Standardize(*constants)(pixels))
    unit = normalised("unit", *constants)
    torch.testing.assert_close(unit(pixels), pixels.permute(0, 3, 1, 2) / 255)
    assert unit.description()["deviation"] == [255.0, 255.0]
    assert normalised("unit", (0.0,), (1.0,), 16.0)(torch.tensor([[[[4]]]], dtype=torch.uint8)).item() == 0.25


def test_standardize_by_hand():
    pixels = torch.tensor([[[[10, 200]]]], dtype=torch.uint8)
    assert Standardize((20.0, 100.0), (5.0, 50.0))(pixels).tolist() == [[[[-2.0]], [[2.0]]]]


def test_standardize_per_image_by_hand():
    pixels = torch.tensor([[[[0], [0], [4], [4]]], [[[9], [9], [9], [9]]]], dtype=torch.uint8)
    # mean 2, deviation 2; a flat image is all zero, its deviation held at 1/sqrt(4)
    assert StandardizePerImage()(pixels).tolist() == [[[[-1.0, -1.0, 1.0, 1.0]]], [[[0.0, 0.0, 0.0, 0.0]]]]


def test_standardize_per_image_clamps_small_deviations():
    pixels = torch.zeros(1, 10, 10, 1, dtype=torch.uint8)
    pixels[0, 0, 0] = 1  # deviation sqrt(0.01 * 0.99) = 0.0995, below 1/sqrt(100) = 0.1
    assert StandardizePerImage()(pixels).max().item() == pytest.approx(0.99 / 0.1, rel=1e-5)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_each_image_is_preprocessed_by_itself_and_agrees_with_numpy(module):
    together = module(PIXELS)
    assert together.dtype == torch.float32
    assert together.shape == (5, 3, 4, 6)
    for index in range(5):
        assert torch.equal(module(PIXELS[index : index + 1])[0], together[index])
    values = PIXELS.numpy().astype(np.float64)
    if isinstance(module, StandardizePerImage):
        mean, deviation = values.mean((1, 2, 3), keepdims=True), values.std((1, 2, 3), keepdims=True)
    else:
        mean, deviation = np.array([100.0, 120.0, 90.0]), np.array([50.0, 60.0, 70.0])
    np.testing.assert_allclose(together.numpy(), ((values - mean) / deviation).transpose(0, 3, 1, 2), atol=1e-6)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_exported_with_a_free_batch_size(module):
    session = onnxruntime.InferenceSession(to_model_proto(module, PIXELS).SerializeToString())
    for size in (1, 5):
        (found,) = session.run(None, {session.get_inputs()[0].name: PIXELS[:size].numpy()})
        np.testing.assert_allclose(found, module(PIXELS[:size]).numpy(), atol=1e-5)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_description_is_json_and_the_module_holds_no_saved_state(module):
    assert json.loads(json.dumps(module.description())) == module.description()
    assert not module.state_dict()


def test_standardize_refuses_unusable_constants():
    with pytest.raises(ValueError, match="deviation: "):
        Standardize((0.0,), (0.0,))
    with pytest.raises(ValueError, match="deviation: "):
        Standardize((0.0, 1.0), (1.0,))
