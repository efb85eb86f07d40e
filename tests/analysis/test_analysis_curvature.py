import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tdcompress.analysis.curvature import curvature, flat, mean_loss
from tdcompress.analysis.dependence import Dependence, assign_bins, dependence_matrix
from tdcompress.analysis.loss_change import loss_change
from tdcompress.errors import UserError
from tdcompress.sparsity.masks import apply_masks, weight_masks
from tdcompress.sparsity.units import prunable_weights


class Small(nn.Module):
    """A smooth network with a convolution, so that finite differences are exact to their order."""

    unprunable = ("head",)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2)
        self.hidden = nn.Linear(8, 3)
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(torch.tanh(self.conv(x)).flatten(1))))


def small(seed: int = 0) -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small().double().eval()


def batches(seed: int = 0, sizes: tuple[int, ...] = (5, 3)):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 1, 3, 3, generator=generator, dtype=torch.float64),
            torch.randint(0, 4, (size,), generator=generator),
        )
        for size in sizes
    ]


NAMES = ("conv.weight", "hidden.weight")


def test_a_quadratic_loss_by_hand():
    """Two classes, one weight w: E = log(1 + exp(-2 w x)), so E' = -2x s(-2wx) and E'' = 4 x^2 s (1 - s)."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Linear(1, 1, bias=False)

        def forward(self, x):
            y = self.w(x)
            return torch.cat([y, -y], dim=1)

    model = One().double()
    model.w.weight.data.fill_(0.3)
    x = 0.7
    data = [(torch.tensor([[x]], dtype=torch.float64), torch.tensor([0]))]
    found = curvature(model, data, ("w.weight",), torch.tensor([[2.0]], dtype=torch.float64))
    s = 1 / (1 + torch.tensor(2 * 0.3 * x).double().exp())
    assert found.loss == pytest.approx(float(-(1 - s).log()), rel=1e-7)
    assert float(found.gradient[0]) == pytest.approx(float(-2 * x * s), rel=1e-6)
    assert float(found.products[0, 0]) == pytest.approx(float(2 * 4 * x * x * s * (1 - s)), rel=1e-6)


def hessian(model: nn.Module, data: list[tuple[Tensor, Tensor]], names: tuple[str, ...]) -> Tensor:
    """All of it, (N, N): its products with the unit vectors."""
    count = sum(dict(model.named_parameters())[name].numel() for name in names)
    return curvature(model, data, names, torch.eye(count, dtype=torch.float64)).products


def corner(found: Dependence) -> float:
    """d' H d: what of the matrix is about pruned weights alone."""
    return float(found.matrix[found.kept_bins :, found.kept_bins :].sum())


def test_gradient_and_hessian_against_finite_differences():
    model, data = small(), batches()
    matrix = hessian(model, data, NAMES)
    count = matrix.shape[0]
    assert matrix.shape == (8 + 24, 8 + 24)
    assert torch.allclose(matrix, matrix.T, atol=1e-12)
    none = torch.zeros(1, count, dtype=torch.float64)
    gradient = curvature(model, data, NAMES, none).gradient
    params = dict(model.named_parameters())
    step = 1e-5
    for index in (0, 5, 8, 20, 31):
        name, inside = ("conv.weight", index) if index < 8 else ("hidden.weight", index - 8)
        values, losses, slopes = params[name].data.view(-1), [], []
        for sign in (1, -1):
            values[inside] += sign * step
            losses.append(mean_loss(model, data))
            slopes.append(curvature(model, data, NAMES, none).gradient)
            values[inside] -= sign * step
        assert float(gradient[index]) == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-8)
        assert torch.allclose(matrix[index], (slopes[0] - slopes[1]) / (2 * step), atol=1e-8)


def test_hessian_equals_torch_func():
    model, data = small(1), batches(1)
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    constants = {name: value.detach() for name, value in model.named_parameters()}

    def loss(vector):
        conv, hidden = vector[:8].view(2, 1, 2, 2), vector[8:].view(3, 8)
        swapped = constants | {"conv.weight": conv, "hidden.weight": hidden}
        return nn.functional.cross_entropy(torch.func.functional_call(model, swapped, (images,)), labels)

    vector = flat([constants[name] for name in NAMES])
    assert torch.allclose(hessian(model, data, NAMES), torch.func.jacrev(torch.func.jacrev(loss))(vector), atol=1e-12)


def test_results_do_not_depend_on_how_samples_or_vectors_are_batched():
    model, data = small(), batches(sizes=(6, 4))
    whole = [tuple(torch.cat(parts) for parts in zip(*data, strict=True))]
    vectors = torch.randn(7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    a = curvature(model, data, NAMES, vectors, at_once=3)
    b = curvature(model, whole, NAMES, vectors)
    assert a.loss == pytest.approx(b.loss, rel=1e-12)
    assert torch.allclose(a.gradient, b.gradient, atol=1e-14)
    assert torch.allclose(a.products, b.products, atol=1e-14)


def test_weights_without_influence_have_zero_derivatives():
    model = small()
    model.unused = nn.Linear(2, 2).double()
    names = (*NAMES, "unused.weight")
    found = curvature(model, batches(), names, torch.ones(2, 36, dtype=torch.float64))
    assert not found.gradient[32:].any()
    assert not found.products[:, 32:].any()
    assert found.gradient[:32].any()


def test_loss_change_is_the_taylor_expansion():
    model, data = small(), batches()
    params = dict(model.named_parameters())
    masks = weight_masks(params, prunable_weights(model), fraction=0.5)
    change = loss_change(model, data, masks)
    matrix, weights = hessian(model, data, NAMES), flat([params[name].detach() for name in NAMES])
    removed = weights * ~flat([masks[name] for name in NAMES])
    gradient = curvature(model, data, NAMES, removed[None]).gradient
    assert change.gradient_term == pytest.approx(-float(gradient @ removed), abs=1e-14)
    assert change.curvature_term == pytest.approx(0.5 * float(removed @ matrix @ removed), abs=1e-14)
    assert change.estimate == abs(change.gradient_term + change.curvature_term)
    before = mean_loss(model, data)
    apply_masks(model, masks)
    assert change.measured == pytest.approx(mean_loss(model, data) - before, abs=1e-12)


def test_estimate_approaches_the_measured_change_as_the_pruned_weights_shrink():
    """The rest of the expansion is of third order: ten times smaller weights, a thousand times smaller error."""
    errors = []
    for scale in (1e-1, 1e-2):
        model = small()
        masks = weight_masks(dict(model.named_parameters()), prunable_weights(model), fraction=0.5)
        for name, mask in masks.items():
            param = dict(model.named_parameters())[name]
            param.data = torch.where(mask, param.data, param.data * scale)
        change = loss_change(model, batches(), masks)
        errors.append(abs(change.measured - (change.gradient_term + change.curvature_term)))
    assert errors[1] < errors[0] / 500
    assert errors[0] > 0


def test_dependence_with_a_bin_for_each_weight_is_the_matrix_itself():
    model, data = small(), batches()
    params = dict(model.named_parameters())
    masks = weight_masks(params, prunable_weights(model), fraction=0.75)
    found = dependence_matrix(model, data, masks, bins=32)
    weights, kept = flat([params[name].detach() for name in NAMES]), flat([masks[name] for name in NAMES])
    order = sorted(range(32), key=lambda i: (not bool(kept[i]), -float(weights[i].abs())))
    by_hand = (weights[:, None] * hessian(model, data, NAMES) * weights[None, :])[order][:, order]
    assert found.kept_bins == 8
    assert torch.allclose(found.matrix, by_hand, atol=1e-13)
    change = loss_change(model, data, masks)
    assert corner(found) == pytest.approx(2 * change.curvature_term, abs=1e-13)


@pytest.mark.parametrize("bins", [2, 5, 8, 31])
def test_bins_sum_neighbours_and_never_cross_the_border(bins: int):
    model, data = small(), batches()
    masks = weight_masks(dict(model.named_parameters()), prunable_weights(model), fraction=0.75)
    whole, found = (dependence_matrix(model, data, masks, bins=count) for count in (32, bins))
    assert found.matrix.shape == (bins, bins)
    assert torch.allclose(found.matrix, found.matrix.T, atol=1e-12)
    assert float(found.matrix.sum()) == pytest.approx(float(whole.matrix.sum()), abs=1e-12)
    assert corner(found) == pytest.approx(corner(whole), abs=1e-12)


def test_too_many_or_too_few_bins_are_refused():
    model = small()
    masks = weight_masks(dict(model.named_parameters()), prunable_weights(model), fraction=0.75)
    for bins in (1, 33):
        with pytest.raises(UserError, match="give 2 to 32"):
            dependence_matrix(model, batches(), masks, bins=bins)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_bins_partition_the_weights_in_order(data):
    count = data.draw(st.integers(1, 40))
    magnitudes = torch.tensor(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=count, max_size=count)))
    kept = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    parts = int(kept.any()) + int((~kept).any())
    bins = data.draw(st.integers(parts, count))
    bin_of, kept_bins = assign_bins(magnitudes, kept, bins)
    assert sorted(set(bin_of.tolist())) == list(range(bins))
    assert bool(((bin_of < kept_bins) == kept).all())
    for part in (kept, ~kept):
        pairs = sorted(zip(bin_of[part].tolist(), (-magnitudes[part]).tolist(), strict=True))
        assert [magnitude for _, magnitude in pairs] == sorted(magnitude for _, magnitude in pairs)
