import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tdcompress.data.augment import Augmentation, crop, mirror, random_crop, random_cutout, random_flip, random_resized_crop


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))


def test_crop_shifts_each_image_by_its_own_offset():
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).reshape(1, 2, 2, 1)
    offsets = torch.tensor([[0, 1, 2], [0, 1, 1]])
    cropped = crop(image.repeat(3, 1, 1, 1), 1, offsets)[..., 0]
    assert cropped.tolist() == [[[0, 0], [0, 1]], [[1, 2], [3, 4]], [[3, 4], [0, 0]]]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 4),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.integers(1, 3),
    padding=st.integers(0, 4),
    seed=st.integers(0, 999),
)
def test_crop_equals_slicing_each_padded_image(batch, height, width, channels, padding, seed):
    pixels = random_pixels(batch, height, width, channels, seed=seed)
    offsets = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator(seed))
    cropped = crop(pixels, padding, offsets)
    for index in range(batch):
        padded = torch.zeros(height + 2 * padding, width + 2 * padding, channels, dtype=torch.uint8)
        padded[padding : padding + height, padding : padding + width] = pixels[index]
        row, column = offsets[:, index].tolist()
        assert torch.equal(cropped[index], padded[row : row + height, column : column + width])


def test_random_crop_reaches_every_offset():
    pixels = torch.ones(500, 1, 1, 1, dtype=torch.uint8)
    kept = random_crop(pixels, 1, generator()).sum().item()
    assert 30 < kept < 85  # the one pixel stays in 1 of 9 windows: 55.6 expected, deviation 7
    assert torch.equal(random_crop(pixels, 1, generator(3)), random_crop(pixels, 1, generator(3)))


def test_every_flipped_image_is_itself_or_its_mirror():
    pixels = random_pixels(200, 3, 4, 2)
    flipped = random_flip(pixels, generator())
    mirrored = torch.tensor([torch.equal(new, old.flip(1)) for new, old in zip(flipped, pixels, strict=True)])
    same = torch.tensor([torch.equal(new, old) for new, old in zip(flipped, pixels, strict=True)])
    assert bool((mirrored ^ same).all())
    assert 70 < int(mirrored.sum()) < 130


def test_resized_crop_of_the_whole_area_and_of_flat_images():
    flat = torch.full((5, 8, 8, 3), 77, dtype=torch.uint8)
    assert torch.equal(random_resized_crop(flat, (0.1, 0.9), generator()), flat)
    ramp = torch.arange(8, dtype=torch.uint8).mul(30).reshape(1, 1, 8, 1).expand(16, 8, 8, 1).contiguous()
    cut = random_resized_crop(ramp, (0.2, 0.2), generator())
    assert cut.shape == ramp.shape
    assert cut.dtype == torch.uint8
    span = cut.int().amax((1, 2, 3)) - cut.int().amin((1, 2, 3))
    assert bool((span < 150).all())  # a fifth of the area is at most 0.52 of the width: 210 * 0.52 = 109 and rounding
    assert bool((cut.int().diff(dim=2) >= 0).all())


def test_augmentation_applies_only_what_is_asked_for():
    pixels = random_pixels(6, 4, 4, 3)
    assert Augmentation()(pixels, generator()) is pixels
    changed = Augmentation(crop_scale=(0.5, 1.0), crop_padding=1, flip=True)(pixels, generator())
    assert changed.shape == pixels.shape
    assert changed.is_contiguous()
    assert torch.equal(changed, Augmentation(crop_scale=(0.5, 1.0), crop_padding=1, flip=True)(pixels, generator()))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"crop_padding": -1}, "crop_padding: "),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale: "),
        ({"crop_scale": (0.9, 0.5)}, "crop_scale: "),
        ({"cutout": -1}, "cutout: "),
        ({"flip": "sometimes"}, "flip: "),
    ],
)
def test_augmentation_refuses_values_out_of_range(keys, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**keys)


def test_alternating_flips_mirror_the_images_that_are_named():
    pixels = random_pixels(3, 2, 4, 1)
    named = torch.tensor([True, False, True])
    flipped = Augmentation(flip="alternating")(pixels, generator(), named)
    assert torch.equal(flipped, mirror(pixels, named))
    assert torch.equal(flipped, torch.stack([pixels[0].flip(1), pixels[1], pixels[2].flip(1)]))
    with pytest.raises(ValueError, match="flip: alternating flips need to know"):
        Augmentation(flip="alternating")(pixels, generator())


@settings(derandomize=True, deadline=None, max_examples=40)
@given(height=st.integers(1, 6), width=st.integers(1, 6), side=st.integers(1, 9), seed=st.integers(0, 999))
def test_cutout_paints_one_square_with_the_mean_colour(height, width, side, seed):
    pixels = random_pixels(5, height, width, 2, seed=seed)
    cut = random_cutout(pixels, side, generator(seed))
    drawn = generator(seed)
    rows = torch.randint(0, height, (5,), generator=drawn).tolist()
    columns = torch.randint(0, width, (5,), generator=drawn).tolist()
    for image, painted, row, column in zip(pixels, cut, rows, columns, strict=True):
        expected = image.clone()
        top, left = row - side // 2, column - side // 2
        colour = image.double().mean((0, 1)).round().to(torch.uint8)
        expected[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = colour
        assert int((painted.int() - expected.int()).abs().max()) <= 1  # a mean halfway between two values, in float32
        outside = torch.ones(height, width, dtype=torch.bool)
        outside[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = False
        assert torch.equal(painted[outside], image[outside])


class NothingForTheHost(TorchDispatchMode):
    """Refuses every operator whose result's shape or value the host would have to wait for, and copies between devices."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "repeat_interleave")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not any(name.startswith(refused) for refused in self.REFUSED), name
        flags = [
            index.dtype
            for index in (args[1] if name.startswith("index") and isinstance(args[1], list | tuple) else ())
            if index is not None
        ]
        assert torch.bool not in flags, name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("flip", [True, "alternating"])
def test_no_operation_waits_for_the_host(flip):
    augmentation = Augmentation(crop_scale=(0.5, 1.0), crop_padding=2, flip=flip, cutout=3)
    pixels, named = random_pixels(6, 8, 8, 3), torch.rand(6, generator=generator()) < 0.5
    expected = augmentation(pixels, generator(), named)
    with NothingForTheHost():
        assert torch.is_tensor(augmentation(pixels, generator(), named))
    with NothingForTheHost(), pytest.raises(AssertionError):
        pixels[pixels > 3]
    assert torch.equal(augmentation(pixels, generator(), named), expected)
