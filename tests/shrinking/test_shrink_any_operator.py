"""Every operator that feature maps meet, behind a convolution with dead units: exact, and as narrow as its kind allows."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tdcompress as tdc

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

# Feature maps (2, 16, 8, 8) behind a ReLU, of which 8 channels are 0 -> anything. Here those 8 leave.
LOSES = {
    "max over an axis": lambda y: y.max(2)[0],
    "max over pixels": lambda y: y.flatten(2).max(-1).values,
    "min over an axis": lambda y: y.min(3).values,
    "amax": lambda y: y.amax((2, 3)),
    "median": lambda y: y.flatten(2).median(2).values,
    "mode": lambda y: y.flatten(2).mode(2).values,
    "kthvalue": lambda y: y.flatten(2).kthvalue(3, 2).values,
    "sort": lambda y: y.sort(2, descending=True).values,
    "topk": lambda y: y.flatten(2).topk(5).values,
    "cumsum": lambda y: y.cumsum(2),
    "cummax": lambda y: y.cummax(3).values,
    "norm": lambda y: y.norm(dim=(2, 3)),
    "vector norm": lambda y: torch.linalg.vector_norm(y, 3, (2, 3)),
    "norm of one axis": lambda y: torch.norm(y, p=2, dim=2),
    "prod": lambda y: y.prod(2),
    "nansum": lambda y: y.nansum(3),
    "maximum of two": lambda y: torch.max(y, y * 0.5),
    "minimum of two": lambda y: torch.minimum(y, y**2),
    "type_as": lambda y: y.type_as(torch.zeros(3)),
    "to other": lambda y: y.to(torch.zeros(1)),
    "zeros_like": lambda y: y + torch.zeros_like(y) * 3,
    "new_full": lambda y: y + y.new_full((1,), 3.0),
    "new_ones": lambda y: y * y.new_ones(1) + y.new_zeros(()),
    "mask": lambda y: y * (y > 0.5),
    "pixel_unshuffle": lambda y: F.pixel_unshuffle(y, 2),
    "nearest-exact": lambda y: F.interpolate(y, scale_factor=1.5, mode="nearest-exact"),
    "antialias": lambda y: F.interpolate(y, size=(5, 5), mode="bilinear", antialias=True),
    "adaptive maximum": lambda y: F.adaptive_max_pool2d(y, 3),
    "mean of pixels": lambda y: y.mean((-1, -2)),
    "clamp": lambda y: y.clamp(0, 1),
    "hardtanh": lambda y: F.hardtanh(y, 0.0, 6.0),
    "in-place": lambda y: y.mul_(2).add_(0).relu_(),
    "squared": lambda y: y.square().sqrt(),
    "scalar tensor": lambda y: y * torch.tensor(2.0),
    "unsqueezed": lambda y: y.unsqueeze(2).squeeze(2),
    "moveaxis": lambda y: y.movedim(1, -1),
    "grid_sample": lambda y: F.grid_sample(y, torch.zeros(2, 3, 3, 2), align_corners=False),
    "unpool": lambda y: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), 2),
    "index_select of pixels": lambda y: y.index_select(2, torch.tensor([3, 1])),
    "product from the left": lambda y: torch.ones(5, 8) @ y,
    "product of all, from the left": lambda y: torch.ones(2, 1, 5, 8) @ y,
    "graph of pixels": lambda y: (torch.ones(64, 64) @ y.flatten(2).mT).mT,
    "chunked pixels": lambda y: torch.cat(y.chunk(2, 2), 3),
}
# And here they stay, or some of them: the operator reads channels together, or spells their numbers out.
KEEPS = {
    "max over all": lambda y: y.max(),
    "max over channels": lambda y: y.max(1).values,
    "argmax": lambda y: y.argmax(1).float(),
    "logsumexp": lambda y: y.logsumexp(1),
    "std": lambda y: y.std((2, 3)),
    "var_mean": lambda y: torch.cat(torch.var_mean(y, 2), 1),
    "cumsum over channels": lambda y: y.cumsum(1),
    "sort over channels": lambda y: y.sort(1).values,
    "softmax": lambda y: y.softmax(1),
    "log_softmax": lambda y: F.log_softmax(y, 1),
    "normalize": lambda y: F.normalize(y, dim=1),
    "local response": lambda y: F.local_response_norm(y, 3),
    "threshold": lambda y: torch.where(y > 1, y, torch.zeros_like(y)),
    "numbers of pixels": lambda y: y + torch.arange(8).type_as(y),
    "einsum": lambda y: torch.einsum("bchw,bdhw->bcd", y, y),
    "gram": lambda y: y.flatten(2) @ y.flatten(2).transpose(1, 2),
    "bmm": lambda y: torch.bmm(y.flatten(2), y.flatten(2).mT),
    "unfold": lambda y: F.unfold(y, 3),
    "fold": lambda y: F.fold(y.flatten(2), (9, 9), 2),
    "roll": lambda y: y.roll(1, 1),
    "flip": lambda y: y.flip(1),
    "index": lambda y: y[:, [3, 1, 2]],
    "index_select": lambda y: y.index_select(1, torch.tensor([3, 1])),
    "gather": lambda y: y.gather(1, torch.zeros(2, 3, 8, 8, dtype=torch.int64)),
    "narrow": lambda y: y.narrow(1, 2, 5),
    "slice": lambda y: y[:, 2:9],
    "strided": lambda y: y[:, 1::2],
    "repeat": lambda y: y.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda y: y.repeat_interleave(2, 1),
    "tile": lambda y: y.tile(1, 2, 1, 1),
    "channel_shuffle": lambda y: F.channel_shuffle(y, 4),
    "pixel_shuffle": lambda y: F.pixel_shuffle(y, 2),
    "glu": lambda y: F.glu(y, 1),
    "pad of channels": lambda y: F.pad(y, (0, 0, 0, 0, 1, 1)),
    "reflect": lambda y: F.pad(y, (1, 1, 1, 1), mode="reflect"),
    "circular": lambda y: F.pad(y, (1, 1, 1, 1), mode="circular"),
    "scalar": lambda y: y.sum() + y.mean(),
    "outer product": lambda y: y.mean((2, 3)).unsqueeze(1) * y.mean((2, 3)).unsqueeze(2),
    "cosine": lambda y: F.cosine_similarity(y, y + 1, 1),
    "cdist": lambda y: torch.cdist(y.flatten(2), y.flatten(2)),
    "fft": lambda y: torch.fft.rfft2(y).abs(),
    "tensor_split": lambda y: torch.cat(y.tensor_split([3, 7], 1)[::2], 1),
    "unbind": lambda y: y.unbind(1)[3],
    "masked_fill": lambda y: y.masked_fill(torch.eye(8, dtype=torch.bool), -1.0),
    "scatter": lambda y: torch.zeros_like(y).scatter_add(1, torch.zeros(2, 16, 8, 8, dtype=torch.int64), y),
    "triu": lambda y: y.triu(),
    "lerp": lambda y: torch.lerp(y, y.flip(2), 0.5),
    "addcmul": lambda y: torch.addcmul(y, y, y),
    "diagonal": lambda y: y.diagonal(dim1=2, dim2=3),
    "weighted sum by literal": lambda y: torch.tensordot(y, torch.ones(8), dims=1),
    "kron": lambda y: torch.kron(y.mean((2, 3)), torch.ones(1, 2)),
    "prelu of pixels": lambda y: F.prelu(y.mean((1, 2)), torch.tensor([0.3])),
    "rms_norm": lambda y: F.rms_norm(y, (8,)),
    "layer_norm of pixels": lambda y: F.layer_norm(y, (8, 8)),
    "group_norm": lambda y: F.group_norm(y, 4),
    "instance_norm": lambda y: F.instance_norm(y),
    "lp_pool": lambda y: F.lp_pool2d(y, 2, 2),
    "embedding of a choice": lambda y: F.one_hot(y.mean((2, 3)).argmax(1), 16).float(),
    "searchsorted": lambda y: torch.bucketize(y, torch.tensor([0.0, 0.5])).float(),
    "nonlinear index": lambda y: y[torch.arange(2), torch.tensor([1, 2])],
    "cross": lambda y: torch.linalg.cross(y[:, :3], y[:, 3:6], dim=1),
    "histogram of signs": lambda y: torch.count_nonzero(y, (2, 3)).float(),
    "any": lambda y: y.any(2).float(),
    "where": lambda y: torch.where(y.mean(1, keepdim=True) > 0.1, y, -y),
    "stack": lambda y: torch.stack([y, y * 2], 1),
    "meshgrid": lambda y: y + torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")[0],
}


class Around(nn.Module):
    def __init__(self, operator) -> None:
        super().__init__()
        self.operator = operator
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.LazyLinear(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.operator(self.a(x).relu())
        if y.dim() > 1 and y.shape[0] == x.shape[0]:
            y = y.flatten(1)
        return self.head(self.b(y).relu()) if y.dim() > 1 else self.head(self.b(y.reshape(1, -1)).relu())


def shrunk_around(operator):
    torch.manual_seed(0)
    model = Around(operator)
    model(X)
    with torch.no_grad():
        model.a.weight[::2] = 0
        model.a.bias[::2] = 0
        model.b.weight[1::2] = 0
        model.b.bias[1::2] = 0
    shrunk = tdc.shrink(model, X)
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output
    assert shrunk.report.max_output > 0
    assert shrunk.model.b.out_features == 3
    return shrunk


@pytest.mark.parametrize("name", LOSES)
def test_dead_channels_leave(name):
    assert shrunk_around(LOSES[name]).model.a.out_channels == 8


@pytest.mark.parametrize("name", KEEPS)
def test_what_reads_channels_together_is_exact(name):
    assert shrunk_around(KEEPS[name]).model.a.out_channels >= 8


class Rearranged(nn.Module):
    """Channels and pixels are exchanged, shuffled or gated between two convolutions."""

    def __init__(self, between: nn.Module, made: int, read: int) -> None:
        super().__init__()
        self.a, self.between = nn.Conv2d(3, made, 3, padding=1), between
        self.b, self.head = nn.Conv2d(read, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.between(self.a(x))).relu())


class Unpooled(nn.Module):
    """As SegNet: pixels go back to the places that a pooling found, in other channels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(self.inner(pooled).relu(), places, 2)


class Selected(nn.Module):
    """As selective kernels (Li et al., 2019) and ResNeSt: the halves are branches, which attention weights and sums."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = x.unflatten(1, (2, -1))
        squeezed = self.squeeze(branches.sum(1).mean((2, 3), keepdim=True)).relu()
        weights = self.excite(squeezed).unflatten(1, (2, -1)).softmax(1)
        return (branches * weights).sum(1)


class Maxout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, 2)).amax(2)


@pytest.mark.parametrize(
    ("between", "made", "read", "left"),
    [
        (nn.PixelShuffle(2), 16, 4, (8, 2)),
        (nn.PixelUnshuffle(2), 4, 16, (2, 8)),
        (nn.ChannelShuffle(2), 8, 8, (4, 4)),
        (nn.GLU(1), 8, 4, (4, 2)),
        (Unpooled(), 8, 8, (4, 4)),
        (Selected(), 16, 8, (8, 4)),
        (Maxout(), 16, 8, (8, 4)),
        (nn.Sequential(nn.PixelShuffle(2), nn.PReLU(4)), 16, 4, (8, 2)),
        (nn.Sequential(nn.BatchNorm2d(16), nn.PixelShuffle(2), nn.BatchNorm2d(4)), 16, 4, (8, 2)),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.PReLU(16), nn.PixelShuffle(2)), 4, 4, (2, 2)),
    ],
    ids=lambda item: type(item).__name__ if isinstance(item, nn.Module) else None,
)
def test_half_of_the_channels_around_a_rearrangement_leave_in_group_scope(between, made, read, left):
    torch.manual_seed(0)
    model = Rearranged(between, made, read)
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=X, scope="group")
    shrunk = tdc.shrink(model, X)
    assert (shrunk.model.a.out_channels, shrunk.model.b.in_channels) == left
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output
    assert all(item.dead_kept == 0 for item in shrunk.report.layers)


def test_what_rows_of_a_table_are_looked_up_by_is_left_whole():
    class LookedUp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.table, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Embedding(2, 4), nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(self.table((self.a(x).mean((2, 3)) > 0).long())).relu())

    model = LookedUp()
    with pytest.warns(UserWarning, match="left whole.*: a .*looks rows up by it"):
        tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=X)
    assert tdc.shrink(model, X).model.b.out_features == 3


def test_slopes_of_the_input_and_of_a_reader_of_fixed_size():
    model = nn.Sequential(nn.PReLU(3), nn.Conv2d(3, 8, 1), nn.PReLU(), nn.Conv2d(8, 2, 1))
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=X)
    shrunk = tdc.shrink(model, X)
    assert (shrunk.model[0].num_parameters, shrunk.model[1].out_channels) == (3, 4)
