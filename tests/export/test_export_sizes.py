import pytest
import torch

from tdcompress.export.sizes import compared_sizes, cycled


def shapes(
    inputs: list[torch.Tensor], batches: tuple[int, ...], axes: list[dict[int, str]]
) -> list[tuple[list[tuple[int, ...]], bool]]:
    return [([tuple(row.shape) for row in size.rows], size.required) for size in compared_sizes(inputs, batches, axes)]


def test_a_free_batch_is_compared_at_each_size() -> None:
    x, mask = torch.zeros(3, 4), torch.zeros(4, 4)
    assert shapes([x, mask], (1, 7), [{0: "batch"}, {}]) == [([(1, 4), (4, 4)], True), ([(7, 4), (4, 4)], True)]


def test_images_are_also_compared_doubled_unequal_and_odd() -> None:
    assert shapes([torch.zeros(2, 3, 16, 16)], (1,), [{0: "batch", 2: "h", 3: "w"}]) == [
        ([(1, 3, 16, 16)], True),
        ([(1, 3, 32, 32)], True),
        ([(1, 3, 32, 16)], False),
        ([(1, 3, 17, 33)], False),
    ]


def test_odd_lengths_grow_too_and_one_other_axis_is_doubled_once() -> None:
    assert shapes([torch.zeros(2, 15)], (2,), [{1: "t"}]) == [([(2, 15)], True), ([(2, 30)], True), ([(2, 17)], False)]


def test_inputs_with_lengths_of_their_own_are_compared_unequal() -> None:
    inputs = [torch.zeros(2, 5), torch.zeros(2, 5), torch.zeros(2, 9)]
    assert shapes(inputs, (1,), [{0: "batch", 1: "a"}, {0: "batch", 1: "b"}, {0: "batch", 1: "c"}]) == [
        ([(1, 5), (1, 5), (1, 9)], True),
        ([(1, 10), (1, 10), (1, 18)], True),
        ([(1, 10), (1, 10), (1, 9)], False),
        ([(1, 7), (1, 9), (1, 15)], False),
    ]


def test_inputs_that_share_a_length_keep_it_equal() -> None:
    inputs = [torch.zeros(2, 3, 4), torch.zeros(2, 4)]
    assert shapes(inputs, (2,), [{1: "a", 2: "b"}, {1: "b"}]) == [
        ([(2, 3, 4), (2, 4)], True),
        ([(2, 6, 8), (2, 8)], True),
        ([(2, 6, 4), (2, 4)], False),
        ([(2, 5, 9), (2, 9)], False),
    ]


def test_samples_are_repeated_in_order() -> None:
    (size,) = compared_sizes([torch.arange(3)[:, None]], (7,), [{0: "batch"}])
    assert size.said == "batch 7"
    assert size.rows[0].flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    (size,) = compared_sizes([torch.zeros(2, 5)], (2,), [{}])
    assert size.said == "shape (2, 5)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_no_number_with_a_fraction_stands_twice(dtype: torch.dtype) -> None:
    """The first of each stays; the others are up to a sixteenth smaller."""
    x = torch.tensor([[[[3.0]], [[5.0]], [[9.0]]]], dtype=dtype)
    found = cycled(cycled(x, 2, 2), 3, 2)
    assert found.dtype == dtype
    assert torch.equal(found[..., :1, :1], x)
    assert len(found.unique()) == 12
    assert ((found >= x * (15 / 16) ** 2) & (found <= x)).all()


def test_a_part_is_the_samples_own_and_examples_are_not_changed() -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    assert cycled(x, 0, 2).tolist() == [1, 2]
    assert cycled(x, 0, 5)[:3].tolist() == x.tolist() == [1, 2, 3]


@pytest.mark.parametrize("values", [[5, 7], [True, False], [0.0, 1.0], [0.0, -torch.inf], [1.0, 1.0]])
def test_indices_flags_and_masks_are_repeated_as_they_are(values: list[float]) -> None:
    x = torch.tensor(values)
    assert cycled(x, 0, 4).tolist() == [*x.tolist(), *x.tolist()]
